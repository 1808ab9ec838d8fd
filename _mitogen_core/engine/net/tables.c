#include "net/tables.h"

#include <string.h>

#include "base/alloc.h"
#include "net/handlers.h"
#include "net/router_body.h"

static void *ref_value(mg_table what, void *value)
{
    return what == MG_HANDLERS ? (void *) mg_handler_ref(value) : (void *) mg_stream_ref(value);
}

static void unref_value(mg_table what, void *value)
{
    if (what == MG_HANDLERS)
        mg_handler_unref(value);
    else
        mg_stream_unref(value);
}

/* REQUIRES(r->mu). The entries, each with a reference; NULL when memory is out. */
static mg_entry *copy_locked(const mg_idmap *map, mg_table what, size_t *n)
{
    mg_idmap_iter it;
    mg_entry *entries = mg_malloc((mg_idmap_count(map) + 1) * sizeof *entries);
    *n = 0;
    if (!entries)
        return NULL;
    mg_idmap_iter_init(map, &it);
    for (mg_entry *e = entries; mg_idmap_iter_next(map, &it, &e->id, &e->value); e++, ++*n)
        ref_value(what, e->value);
    return entries;
}

static const mg_idmap *table_of(mg_router *r, mg_table what, mg_stream *of)
{
    switch (what) {
    case MG_ROUTES: return &r->routes;
    case MG_HANDLERS: return &r->handlers;
    default: return &mg_stream_peer(of)->egress;
    }
}

static void free_entries(mg_entry *entries, mg_table what, size_t n)
{
    for (size_t i = 0; i < n; i++)
        unref_value(what, entries[i].value);
    mg_free(entries);
}

mg_err mg_router_snapshot(mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg)
{
    size_t n;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = copy_locked(table_of(r, what, of), what, &n);
    pthread_mutex_unlock(&r->mu);
    if (!entries)
        return MG_ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (fn(entries[i].id, entries[i].value, arg))
            break;
    free_entries(entries, what, n);
    return MG_OK;
}

mg_entry *mg_router_take_handlers(mg_router *r, int64_t respondent, size_t *n)
{
    size_t all, taken = 0;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = copy_locked(&r->handlers, MG_HANDLERS, &all);
    for (size_t i = 0; entries && i < all; i++) {
        mg_entry entry = entries[i];
        if (respondent >= 0 && mg_handler_respondent(entry.value) != respondent)
            continue;
        mg_router_forget_locked(r, entry.value);
        entries[i] = entries[taken];
        entries[taken++] = entry;
    }
    pthread_mutex_unlock(&r->mu);
    for (size_t i = taken; entries && i < all; i++)
        mg_handler_unref(entries[i].value);
    *n = taken;
    return entries;
}

/* --- statistics --- */

void mg_router_count_closed(mg_router *r, mg_stream *s)
{
    pthread_mutex_lock(&r->mu);
    if (!mg_stream_peer(s)->counted)
        mg_stream_add_counts(s, &r->closed);
    mg_stream_peer(s)->counted = 1;
    pthread_mutex_unlock(&r->mu);
}

/* REQUIRES(r->mu). A stream has a route for each context behind it: puts one entry of each to the front, adds what it
 * has carried, and returns how many there are. */
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
    mg_entry *routes = copy_locked(&r->routes, MG_ROUTES, &out->routes);
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
    free_entries(routes, MG_ROUTES, out->routes);
    return MG_OK;
}
