/* Work for the layer above, in order: a ring that any thread adds to and one thread takes from. */
#ifndef MG_EVENT_RING_H
#define MG_EVENT_RING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct {
    int kind; /* the poster's business */
    void *a, *b, *c;
    uint64_t n;
} mg_event;

typedef struct {
    pthread_mutex_t mu;
    mg_event *ring;    /* guarded by mu */
    size_t cap, head;  /* likewise */
    size_t reserved;   /* likewise: places kept for mg_events_push_reserved */
    _Atomic size_t n;  /* written under mu */
} mg_events;

void mg_events_init(mg_events *e);
void mg_events_fini(mg_events *e);
/* In a child made by fork: the thread that had the lock is in the other process. */
void mg_events_forked(mg_events *e);

/* Any thread, as all below. MG_ENOMEM. */
mg_err mg_events_push(mg_events *e, const mg_event *ev);

/* For an event that must not be lost when memory is out: a place kept beforehand (MG_ENOMEM),
 * then used or given back. */
mg_err mg_events_reserve(mg_events *e);
void mg_events_unreserve(mg_events *e);
void mg_events_push_reserved(mg_events *e, const mg_event *ev);

/* The first one: 1, or 0 when there is none. peek leaves it there, and is for the only thread
 * that pops. */
int mg_events_pop(mg_events *e, mg_event *ev);
int mg_events_peek(mg_events *e, mg_event *ev);

static inline size_t mg_events_count(const mg_events *e)
{
    return atomic_load(&e->n);
}

#endif
