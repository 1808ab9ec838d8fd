#include "net/statistics.h"

#include <string.h>

#include "net/router_body.h"
#include "net/snapshot.h"

void mg_router_count_closed(mg_router *r, mg_stream *s)
{
    pthread_mutex_lock(&r->mu);
    if (!mg_stream_peer(s)->counted)
        mg_stream_add_counts(s, &r->closed);
    mg_stream_peer(s)->counted = 1;
    pthread_mutex_unlock(&r->mu);
}

/* REQUIRES(r->mu). A stream has a route for each context behind it: puts one entry of each to
 * the front, adds what it has carried, and returns how many there are. */
static size_t count_streams_locked(mg_router *r, mg_entry *routes, size_t n, mg_counts *sum)
{
    size_t streams = 0;
    r->counts_taken++;
    for (size_t i = 0; i < n; i++) {
        mg_entry entry = routes[i];
        mg_peer *peer = mg_stream_peer(entry.value);
        if (peer->counted || peer->seen_at == r->counts_taken)
            continue;
        peer->seen_at = r->counts_taken;
        mg_stream_add_counts(entry.value, sum);
        routes[i] = routes[streams];
        routes[streams++] = entry;
    }
    return streams;
}

mg_err mg_router_get_stats(mg_router *r, mg_router_stats *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < MG_N_REASONS; i++)
        out->refused[i] = atomic_load_explicit(&r->refused[i], memory_order_relaxed);

    pthread_mutex_lock(&r->mu);
    mg_entry *routes = mg_entries_copy_locked(&r->routes, MG_ROUTES, &out->routes);
    out->carried = r->closed;
    out->handlers = mg_idmap_count(&r->handlers);
    out->streams = routes ? count_streams_locked(r, routes, out->routes, &out->carried) : 0;
    pthread_mutex_unlock(&r->mu);
    if (!routes)
        return MG_ENOMEM;

    for (size_t i = 0; i < out->streams; i++) {
        mg_stream_stats stats;
        mg_stream_get_stats(routes[i].value, &stats);
        out->queued += stats.pending;
        out->blocked += stats.blocked;
    }
    mg_entries_free(routes, MG_ROUTES, out->routes);
    return MG_OK;
}
