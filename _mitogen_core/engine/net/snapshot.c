#include "net/snapshot.h"

#include "base/alloc.h"
#include "net/handler.h"
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

mg_entry *mg_entries_copy_locked(const mg_idmap *map, mg_table what, size_t *n)
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

void mg_entries_free(mg_entry *entries, mg_table what, size_t n)
{
    for (size_t i = 0; i < n; i++)
        unref_value(what, entries[i].value);
    mg_free(entries);
}

mg_err mg_router_snapshot(mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg)
{
    size_t n;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = mg_entries_copy_locked(table_of(r, what, of), what, &n);
    pthread_mutex_unlock(&r->mu);
    if (!entries)
        return MG_ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (fn(entries[i].id, entries[i].value, arg))
            break;
    mg_entries_free(entries, what, n);
    return MG_OK;
}

mg_entry *mg_router_take_handlers(mg_router *r, int64_t respondent, size_t *n)
{
    size_t all, taken = 0;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = mg_entries_copy_locked(&r->handlers, MG_HANDLERS, &all);
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
