/* The entries that a router's tables have at one moment.
 *
 * Any thread, with no lock held. The router's mutex is held while entries are copied, never
 * while fn runs. */
#ifndef MG_NET_SNAPSHOT_H
#define MG_NET_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/idmap.h"
#include "net/stream.h"

struct mg_router;

typedef enum {
    MG_ROUTES,   /* context id -> mg_stream */
    MG_HANDLERS, /* handle -> mg_handler */
    MG_EGRESS    /* of one stream: the dst_ids that came in there -> that mg_stream */
} mg_table;

/* Calls fn for each entry that the table has at one moment, in no order, with no lock held: fn
 * may block and call the router. value is borrowed, and valid during the call. Ends early when
 * fn returns something else than 0. of: for MG_EGRESS, whose; else NULL. MG_OK; MG_ENOMEM: fn
 * was not called. */
typedef int mg_visit(uint32_t id, void *value, void *arg);
mg_err mg_router_snapshot(struct mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg);

/* Removes all handlers (respondent -1), or those of one respondent, and returns them: an array
 * to be freed with mg_free; each value is an mg_handler with a reference. NULL: no memory, and
 * none is removed. */
typedef struct {
    uint32_t id;
    void *value;
} mg_entry;
mg_entry *mg_router_take_handlers(struct mg_router *r, int64_t respondent, size_t *n);

/* --- for the files of this folder --- */

/* REQUIRES(the router's mu). The entries of a table, each with a reference; NULL when memory is
 * out. */
mg_entry *mg_entries_copy_locked(const mg_idmap *map, mg_table what, size_t *n);
void mg_entries_free(mg_entry *entries, mg_table what, size_t n);

#endif
