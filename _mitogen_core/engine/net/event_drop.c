#include "net/event_drop.h"

#include "net/event_kinds.h"
#include "net/router.h"

void mg_net_event_drop(const mg_event *ev)
{
    switch (ev->kind) {
    case MG_EV_FRAME:
    case MG_EV_HOOK:
        mg_handler_unref(ev->a);
        mg_frame_unref(ev->b);
        mg_stream_unref(ev->c);
        break;
    case MG_EV_GONE:
    case MG_EV_BAD:
        mg_stream_unref(ev->a);
        mg_buf_unref(ev->b);
        break;
    case MG_EV_REFUSED:
        mg_router_refusal_seen(ev->b);
        mg_router_unref(ev->b);
        mg_refusal_free(ev->a);
        break;
    default: break;
    }
}
