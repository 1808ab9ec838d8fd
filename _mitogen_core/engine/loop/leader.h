/* A leader at its work, and the two questions that are asked again and again. For the files of
 * this folder. */
#ifndef MG_LEADER_H
#define MG_LEADER_H

#include <stdatomic.h>
#include <stdint.h>

#include "loop/event_ring.h"
#include "loop/loop_body.h"
#include "loop/task_list.h"
#include "sync/latch.h"
#include "sync/waiter.h"

/* On the stack of the thread that leads. */
typedef struct {
    mg_loop *loop;
    mg_waiter *w;
    mg_sleeper *s;    /* its sleep, or NULL: it is the attendant */
    int64_t deadline;
    int64_t look_at;  /* when to look for a signal that may have come already */
    int64_t began;
    int64_t passed;   /* the foreign traffic that it has spun for already */
} mg_leading;

/* Whether an event has come for the attendant, or the item of a waiter. */
static inline int mg_leading_is_done(const mg_leading *l)
{
    if (l->s)
        return atomic_load(&l->s->state) != MG_SLEEPER_WAITING;
    return mg_events_count(&l->loop->events) || atomic_load(&l->loop->interrupted);
}

static inline int mg_leader_is_asked(const mg_loop *loop)
{
    return atomic_load(&loop->wanted) || atomic_load(&loop->closed);
}

/* Whether the leader, whose waiter is w, may sleep in the poller. */
static inline int mg_leader_may_sleep(const mg_loop *loop, const mg_waiter *w)
{
    return atomic_load(&w->word) == MG_WAITER_AWAKE && !mg_tasks_any(&loop->posted) && !mg_leader_is_asked(loop);
}

#endif
