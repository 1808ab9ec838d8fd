/* Who gets a frame: routes, handles, and the rules of trust.
 *
 * One mutex, mu, guards the tables. It is held for look-ups only: never while a frame is written, a latch is pushed or an event is
 * posted. What must enter Python is posted as an event (MG_EV_) and holds its stream meanwhile. */
#ifndef MG_ROUTER_H
#define MG_ROUTER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "wire/frame.h"
#include "base/handles.h"
#include "base/idmap.h"
#include "sync/latch.h"
#include "loop/loop.h"
#include "net/stream.h"

/* Events for the layer above (mg_event.kind). Pointers come with a reference. */
enum {
    MG_EV_FRAME = 1, /* a: mg_handler, b: mg_frame, c: mg_stream (held) or NULL */
    MG_EV_HOOK,      /* b: mg_frame, c: mg_stream (held): show it, then mg_router_after_hook() */
    MG_EV_GONE,      /* a: mg_stream; n: errno, or 0 for the end of the input */
    MG_EV_BAD,       /* a: mg_stream; b: mg_buf of pending input, or NULL; n: MG_ECORRUPT, MG_ETOOBIG or MG_ENOMEM */
    MG_EV_REFUSED, /* a: mg_refusal, to be freed with mg_refusal_free(); b: mg_router: say mg_router_refusal_seen() */
    MG_EV_USER /* from here on: the layer's own */
};

/* Why a message was not delivered. */
typedef enum {
    MG_REASON_INVALID_HANDLE,
    MG_REASON_REFUSED,
    MG_REASON_MISMATCH, /* reply from an unexpected context */
    MG_REASON_NO_ROUTE,
    MG_REASON_UNIDIRECTIONAL,
    MG_REASON_TOO_LARGE,
    MG_REASON_RESPONDENT, /* respondent context has disconnected */
    MG_REASON_BROKER_EXIT,
    MG_REASON_FULL, /* the receiver holds as much as it may: a is its limit */
    MG_REASON_BAD_AUTH, /* the two below: dropped without an answer */
    MG_REASON_BAD_SRC,
    MG_N_REASONS
} mg_reason;

typedef struct {
    mg_reason reason;
    mg_hdr hdr;
    mg_stream *stream; /* it came in by, with a reference, or NULL */
    mg_stream *expected; /* for BAD_AUTH and BAD_SRC: the one it had to come by, or NULL */
    uint64_t lost; /* refusals before this one that were not reported, since too many waited */
} mg_refusal;
void mg_refusal_free(mg_refusal *r);
void mg_router_refusal_seen(struct mg_router *r);

typedef enum {
    MG_POLICY_NONE,
    MG_POLICY_PARENT, /* auth_id is ours or one of our parents' */
    MG_POLICY_NEIGHBOUR, /* src_id is the stream's remote_id */
    MG_POLICY_ASK /* only Python knows: the handler gets the frame undecided, and still registered */
} mg_policy;

/* What a handler is to be. */
typedef struct {
    int persist;          /* 0: it is removed by the first message that it gets */
    mg_policy policy;
    int64_t
        respondent; /* -1, or the only context it may come from; a dead one, also from whoever is on the way there */
    mg_latch *latch; /* where frames go, borrowed; NULL: they go to Python */
    void *owner; /* for the layer above */
    void (*drop_owner)(void *owner); /* called at the end, on any thread; may be NULL. It must not block */
} mg_handler_spec;

typedef struct mg_handler {
    _Atomic uint32_t refs;
    uint32_t handle; /* set by mg_router_add_handler */
    int persist;
    _Atomic int removed; /* nobody wants what is still on its way there; written under the router's mu */
    mg_policy policy;
    int64_t
        respondent; /* -1, or the only context it may come from; a dead one, also from whoever is on the way there */
    mg_latch *latch; /* with a reference: frames go there; NULL: they go to Python */
    void *owner; /* for the layer above */
    void (*drop_owner)(void *); /* called with owner at the end, on any thread */
} mg_handler;

mg_handler *mg_handler_new(void);
/* As the spec says, with one reference; takes over its owner. NULL: no memory, and drop_owner is not called. */
mg_handler *mg_handler_make(const mg_handler_spec *spec);
mg_handler *mg_handler_ref(mg_handler *h);
void mg_handler_unref(mg_handler *h);

/* Any thread, nothing blocks. Its number, once it was added. Its owner. Whether nobody wants what is still on its way there. The
 * latch that a message for it goes to without Python being asked, borrowed, or NULL. */
uint32_t mg_handler_handle(const mg_handler *h);
void *mg_handler_owner(const mg_handler *h);
int mg_handler_removed(const mg_handler *h);
mg_latch *mg_handler_latch(const mg_handler *h);

/* Counters of a router, for statistics: each is true of some moment of the call, not all of the same. */
typedef struct {
    mg_counts carried; /* by all streams there were */
    size_t streams, routes, handlers;
    size_t queued; /* bytes that wait to be written */
    size_t blocked; /* threads that wait for room on a stream */
    uint64_t refused[MG_N_REASONS];
} mg_router_stats;

typedef struct mg_router {
    _Atomic uint32_t refs;
    mg_loop *loop;
    _Atomic uint64_t max_size;
    _Atomic size_t high_water;
    struct mg_stream *dirty; /* leader only: streams to flush at the end of the turn */
    _Atomic uint32_t refusals_waiting;
    _Atomic uint64_t refusals_lost;
    _Atomic uint64_t refused[MG_N_REASONS]; /* messages not delivered, by reason */

    pthread_mutex_t mu;
    mg_idmap routes; /* guarded by mu, as all below: context id -> mg_stream, with a reference */
    mg_idmap handlers; /* handle -> mg_handler, with a reference */
    uint32_t next_handle;
    uint32_t own_id;
    int64_t parent_id; /* -1: none */
    uint32_t *parent_ids;
    size_t n_parents;
    int unidirectional;
    char *texts[MG_N_REASONS]; /* %r, %d and %s take the numbers of the reason, in order */
    mg_counts closed; /* what streams carried that are closed */
    uint64_t counts_taken; /* how often the streams were counted */
} mg_router;

mg_router *mg_router_new(mg_loop *loop);
mg_router *mg_router_ref(mg_router *r);
void mg_router_unref(mg_router *r);
mg_loop *mg_router_loop(mg_router *r);
/* The largest payload that is read or sent, and how many bytes may wait on a stream. Any thread; they count from now on. */
void mg_router_set_limits(mg_router *r, uint64_t max_size, size_t high_water);
uint64_t mg_router_max_size(mg_router *r);
size_t mg_router_high_water(mg_router *r);

/* Who we are. Any thread, any time. */
mg_err mg_router_set_identity(mg_router *r, uint32_t own_id, int64_t parent_id, const uint32_t *parent_ids, size_t n);
void mg_router_set_unidirectional(mg_router *r, int on);
mg_err mg_router_set_text(mg_router *r, mg_reason reason, const char *text);

/* Routes. put replaces. get returns a new reference or NULL; with_parent: the parent's stream where there is no entry. */
mg_err mg_router_put_route(mg_router *r, uint32_t id, mg_stream *s);
int mg_router_del_route(mg_router *r, uint32_t id);
uint32_t mg_router_own_id(mg_router *r);
mg_stream *mg_router_get_route(mg_router *r, uint32_t id, int with_parent);
/* The parent's stream: a new reference, or NULL. */
mg_stream *mg_router_get_parent(mg_router *r);

/* The tables of a router. */
typedef enum {
    MG_ROUTES, /* context id -> mg_stream */
    MG_HANDLERS, /* handle -> mg_handler */
    MG_EGRESS /* of one stream: the dst_ids that came in there -> that mg_stream */
} mg_table;

/* Calls fn for each entry that the table has at one moment, in no order, with no lock held: fn may block and call the router. value
 * is borrowed, and valid during the call. Ends early when fn returns something else than 0. of: for MG_EGRESS, whose; else
 * NULL. Any thread. MG_OK; MG_ENOMEM: fn was not called. */
typedef int mg_visit(uint32_t id, void *value, void *arg);
mg_err mg_router_snapshot(mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg);

/* Any thread. MG_ENOMEM. */
mg_err mg_router_get_stats(mg_router *r, mg_router_stats *out);
/* A stream is about to end: what it carried goes to the totals. Repeatable. */
void mg_router_count_closed(mg_router *r, mg_stream *s);

/* Handlers. add takes a reference of its own; handle 0: the next free one; MG_EEXIST unless overwrite. get: a new reference or NULL. */
mg_err mg_router_add_handler(mg_router *r, mg_handler *h, uint32_t handle, int overwrite);
mg_err mg_router_del_handler(mg_router *r, uint32_t handle);
mg_handler *mg_router_get_handler(mg_router *r, uint32_t handle);
/* Removes all handlers (respondent -1), or those of one respondent, and returns them: an array to be freed with mg_free; each value
 * is an mg_handler with a reference. NULL: no memory, and none is removed. */
typedef struct {
    uint32_t id;
    void *value;
} mg_entry;
mg_entry *mg_router_take_handlers(mg_router *r, int64_t respondent, size_t *n);

/* A frame of stream s, on the leader; takes over the reference. */
void mg_router_ingress(mg_router *r, mg_frame *f, mg_stream *s);
/* Goes on after MG_EV_HOOK, with the loop acquired. Takes over the reference. Returns whether the frame holds the stream on, for a handler that is
 * Python; else mg_stream_release(s) is due.
 *
 * Nothing is lost in silence: a stream whose frame can be neither delivered nor answered, since memory is out, is broken (MG_EV_BAD
 * with MG_ENOMEM), so that whoever waits behind it is told. */
int mg_router_after_hook(mg_router *r, mg_frame *f, mg_stream *s);
/* A frame made here; takes over the reference. Any thread. *out (may be NULL) is the stream it went to, with a reference, or NULL.
 * MG_ENOMEM: it was neither sent nor delivered, and there is no answer that says so. */
mg_err mg_router_route(mg_router *r, mg_frame *f, mg_stream **out);

/* Decides about a message made here for handle hdr->handle of this process (look-up, respondent, policy), and unregisters a handler
 * that takes one message only. MG_OK: *out has a new reference. Else MG_ENOENT and *why. */
mg_err mg_router_claim(mg_router *r, const mg_hdr *hdr, mg_handler **out, mg_reason *why);

/* A message for a latch that is full: the answer, and a mark among the messages there, which has the reader know that some are missing. As
 * mg_router_dead. */
mg_err mg_router_overflow(mg_router *r, mg_latch *l, const mg_hdr *hdr, mg_stream *stream);

/* The answer to a message that cannot be delivered (wire.md, section 3). a..c fill the text. stream: where it came from, or NULL;
 * without one, MG_ENOMEM says that nobody is told. */
mg_err mg_router_dead(mg_router *r, const mg_hdr *hdr, mg_reason reason, int unreachable, mg_stream *stream, uint64_t a,
                      uint64_t b, uint64_t c);

/* A dead message of the given reason, from ourselves. */
mg_frame *mg_router_dead_frame(mg_router *r, uint32_t dst_id, uint32_t handle, mg_reason reason, uint64_t a, uint64_t b,
                               uint64_t c);

#endif
