/* The entries that a router's tables have at one moment, and the router's statistics.
 *
 * Any thread, with no lock held. The router's mutex is held while entries are copied, never while fn runs. */
#ifndef MG_NET_TABLES_H
#define MG_NET_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "net/reason.h"
#include "net/stream.h"

struct mg_router;

typedef enum {
    MG_ROUTES,   /* context id -> mg_stream */
    MG_HANDLERS, /* handle -> mg_handler */
    MG_EGRESS    /* of one stream: the dst_ids that came in there -> that mg_stream */
} mg_table;

/* Calls fn for each entry that the table has at one moment, in no order, with no lock held: fn may block and call the
 * router. value is borrowed, and valid during the call. Ends early when fn returns something else than 0. of: for
 * MG_EGRESS, whose; else NULL. MG_OK; MG_ENOMEM: fn was not called. */
typedef int mg_visit(uint32_t id, void *value, void *arg);
mg_err mg_router_snapshot(struct mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg);

/* Removes all handlers (respondent -1), or those of one respondent, and returns them: an array to be freed with
 * mg_free; each value is an mg_handler with a reference. NULL: no memory, and none is removed. */
typedef struct {
    uint32_t id;
    void *value;
} mg_entry;
mg_entry *mg_router_take_handlers(struct mg_router *r, int64_t respondent, size_t *n);

/* Counters, for statistics: each is true of some moment of the call, not all of the same. MG_ENOMEM. */
typedef struct {
    mg_counts carried; /* by all streams there were */
    size_t streams, routes, handlers;
    size_t queued; /* bytes that wait to be written */
    size_t blocked; /* threads that wait for room on a stream */
    uint64_t refused[MG_N_REASONS];
} mg_router_stats;
mg_err mg_router_get_stats(struct mg_router *r, mg_router_stats *out);

/* s carries nothing any more: what it has carried goes to the totals. Repeatable. */
void mg_router_count_closed(struct mg_router *r, mg_stream *s);

#endif
