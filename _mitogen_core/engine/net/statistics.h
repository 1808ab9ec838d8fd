/* Counters of a router: the messages that it has carried and refused, and the streams and routes
 * that it has now.
 *
 * Any thread, with no lock held. */
#ifndef MG_NET_STATISTICS_H
#define MG_NET_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/reason.h"
#include "net/stream.h"

struct mg_router;

/* Each is true of some moment of the call, not all of the same. MG_ENOMEM. */
typedef struct {
    mg_counts carried; /* by all streams there were */
    size_t streams, routes, handlers;
    size_t queued; /* bytes that wait to be written */
    size_t blocked; /* threads that wait for room on a stream */
    uint64_t refused[MG_N_REASONS];
} mg_router_stats;
mg_err mg_router_get_stats(struct mg_router *r, mg_router_stats *out);

/* s carries nothing any more: its counts are added to the totals. Repeatable. */
void mg_router_count_closed(struct mg_router *r, mg_stream *s);

#endif
