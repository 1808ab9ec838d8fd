#include "loop/event_ring.h"

#include <assert.h>

#include "base/alloc.h"

void mg_events_init(mg_events *e)
{
    pthread_mutex_init(&e->mu, NULL);
}

void mg_events_fini(mg_events *e)
{
    mg_free(e->ring);
    pthread_mutex_destroy(&e->mu);
}

void mg_events_forked(mg_events *e)
{
    pthread_mutex_init(&e->mu, NULL);
}

static size_t count_locked(const mg_events *e)
{
    return atomic_load_explicit(&e->n, memory_order_relaxed);
}

/* REQUIRES(e->mu). Makes room for one event besides those that are queued and reserved. */
static mg_err make_room_locked(mg_events *e)
{
    size_t n = count_locked(e), need = n + e->reserved + 1;
    if (need <= e->cap)
        return MG_OK;
    size_t cap = e->cap ? e->cap * 2 : 16;
    if (cap < need)
        cap = need;
    mg_event *ring = mg_malloc(cap * sizeof *ring);
    if (!ring)
        return MG_ENOMEM;
    assert(n <= e->cap);
    for (size_t i = 0; i < n; i++)
        ring[i] = e->ring[(e->head + i) % e->cap];
    mg_free(e->ring);
    e->ring = ring;
    e->cap = cap;
    e->head = 0;
    return MG_OK;
}

/* REQUIRES(e->mu), and room. */
static void append_locked(mg_events *e, const mg_event *ev)
{
    size_t n = count_locked(e);
    e->ring[(e->head + n) % e->cap] = *ev;
    atomic_store(&e->n, n + 1);
}

mg_err mg_events_push(mg_events *e, const mg_event *ev)
{
    pthread_mutex_lock(&e->mu);
    mg_err err = make_room_locked(e);
    if (err == MG_OK)
        append_locked(e, ev);
    pthread_mutex_unlock(&e->mu);
    return err;
}

mg_err mg_events_reserve(mg_events *e)
{
    pthread_mutex_lock(&e->mu);
    mg_err err = make_room_locked(e);
    e->reserved += err == MG_OK;
    pthread_mutex_unlock(&e->mu);
    return err;
}

void mg_events_unreserve(mg_events *e)
{
    pthread_mutex_lock(&e->mu);
    e->reserved--;
    pthread_mutex_unlock(&e->mu);
}

void mg_events_push_reserved(mg_events *e, const mg_event *ev)
{
    pthread_mutex_lock(&e->mu);
    e->reserved--;
    append_locked(e, ev);
    pthread_mutex_unlock(&e->mu);
}

int mg_events_peek(mg_events *e, mg_event *ev)
{
    pthread_mutex_lock(&e->mu);
    int any = count_locked(e) > 0;
    if (any)
        *ev = e->ring[e->head];
    pthread_mutex_unlock(&e->mu);
    return any;
}

int mg_events_pop(mg_events *e, mg_event *ev)
{
    pthread_mutex_lock(&e->mu);
    size_t n = count_locked(e);
    if (n) {
        *ev = e->ring[e->head];
        e->head = (e->head + 1) % e->cap;
        atomic_store(&e->n, n - 1);
    }
    pthread_mutex_unlock(&e->mu);
    return n > 0;
}
