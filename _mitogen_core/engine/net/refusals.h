/* Refusals: how the sender, and the layer above, are told that a message is not delivered.
 *
 * Any thread, with no lock held. Nothing here blocks but for a write to a stream, as
 * mg_stream_send tells. */
#ifndef MG_NET_REFUSALS_H
#define MG_NET_REFUSALS_H

#include <stdint.h>

#include "base/err.h"
#include "net/reason.h"
#include "net/stream.h"
#include "sync/latch.h"
#include "wire/frame.h"

struct mg_router;

typedef struct {
    mg_reason reason;
    mg_hdr hdr;
    mg_stream *stream;   /* it came in by, with a reference, or NULL */
    mg_stream *expected; /* for BAD_AUTH and BAD_SRC: the one it had to come by, or NULL */
    uint64_t numbers[3]; /* that the text of the reason asks for, in order */
    uint64_t lost;       /* refusals before this one that were not reported, since too many waited */
} mg_refusal;

/* For the taker of MG_EV_REFUSED: frees it; and tells the router that one less waits. */
void mg_refusal_free(mg_refusal *r);
void mg_router_refusal_seen(struct mg_router *r);

/* The text of a reason, in which %r, %d and %s stand for the numbers a..c in order. Copied.
 * MG_ENOMEM: the old one stays. */
mg_err mg_router_set_text(struct mg_router *r, mg_reason reason, const char *text);

/* Reports a message that cannot be delivered, and sends the answer, the dead message of
 * docs/protocol.rst. a..c fill its text. unreachable: nobody but the sender of a question is
 * told. stream: where it came from, or NULL; without one, MG_ENOMEM says that nobody is told. */
mg_err mg_router_dead(struct mg_router *r, const mg_hdr *hdr, mg_reason reason, int unreachable, mg_stream *stream,
                      uint64_t a, uint64_t b, uint64_t c);

/* A dead message of the given reason, from ourselves. NULL: no memory. */
mg_frame *mg_router_dead_frame(struct mg_router *r, uint32_t dst_id, uint32_t handle, mg_reason reason, uint64_t a,
                               uint64_t b, uint64_t c);

/* Refuses a message for a latch that is full: answers as mg_router_dead does, and puts a mark
 * into the latch, by which the reader knows that messages are missing. */
mg_err mg_router_overflow(struct mg_router *r, mg_latch *l, const mg_hdr *hdr, mg_stream *stream);

#endif
