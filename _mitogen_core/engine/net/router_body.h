/* The inside of a router, for the files that share it (router.c, handler.c, refusals.c, snapshot.c,
 * statistics.c) and for tests. router.h tells what a router does. */
#ifndef MG_ROUTER_BODY_H
#define MG_ROUTER_BODY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/idmap.h"
#include "loop/loop.h"
#include "net/reason.h"
#include "net/sink.h"
#include "net/stream.h"
#include "wire/frame.h"

typedef struct mg_router {
    mg_sink sink; /* settings of its streams, with the limits; set_identity also writes own_id under mu */
    _Atomic uint32_t refs;
    mg_loop *loop; /* with a reference; set once */
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

/* REQUIRES(r->mu). The stream that messages of that context have to come by: its route, or the
 * parent's if it has none. Borrowed, or NULL. */
mg_stream *mg_router_way_locked(mg_router *r, uint32_t id);

/* REQUIRES(r->mu). Whether the id is ours or one of our parents'. */
int mg_router_is_authority_locked(const mg_router *r, uint32_t id);

/* Sends a frame of our own its way, whatever its size; takes over the reference. As
 * mg_router_route. */
mg_err mg_router_send_own(mg_router *r, mg_frame *f);

/* Counts a refusal, and tells the layer above unless too many wait there. stream, expected: see
 * mg_refusal; borrowed, or NULL. numbers: three, for the text, or NULL. Takes no lock of the
 * router. */
void mg_router_report(mg_router *r, const mg_hdr *hdr, mg_reason reason, mg_stream *stream, mg_stream *expected,
                      const uint64_t *numbers);

/* Memory is out, and a message of s, or what should be said of it, is lost: then s is lost, too.
 * s may be NULL. Returns MG_ENOMEM. */
mg_err mg_router_lost(mg_stream *s);

#endif
