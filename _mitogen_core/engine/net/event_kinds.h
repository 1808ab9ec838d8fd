/* Events for the layer above (mg_event.kind, see loop.h). Pointers come with a reference, which
 * is the taker's. */
#ifndef MG_NET_EVENT_KINDS_H
#define MG_NET_EVENT_KINDS_H

enum {
    MG_EV_FRAME = 1, /* a: mg_handler, b: mg_frame, c: the mg_stream that goes on after mg_stream_go_on(), or NULL */
    MG_EV_HOOK,      /* b: mg_frame, c: mg_stream, likewise: show it, then mg_router_after_hook() */
    MG_EV_GONE,      /* a: mg_stream; n: errno, or 0 for the end of the input */
    MG_EV_BAD,       /* a: mg_stream; b: mg_buf of pending input, or NULL; n: MG_ECORRUPT, MG_ETOOBIG or MG_ENOMEM */
    MG_EV_REFUSED, /* a: mg_refusal, to be freed with mg_refusal_free(); b: mg_router: say mg_router_refusal_seen() */
    MG_EV_USER /* from here on: the layer's own */
};

#endif
