#include "loop/loop.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "loop/atfork.h"
#include "loop/leader_work.h"
#include "loop/loop_body.h"
#include "loop/loop_life.h"
#include "loop/spares.h"

/* --- life --- */

static void kick(mg_kick *kick)
{
    mg_loop *loop = MG_CONTAINER(kick, mg_loop, kick);
    if (mg_poller_kick(loop->poller))
        atomic_fetch_add_explicit(&loop->kicks, 1, memory_order_relaxed);
}

mg_loop *mg_loop_new(void)
{
    static const mg_poller_owner owner = {.may_sleep = mg_lead_may_sleep, .woken = mg_lead_woken};
    errno = ENOMEM;
    mg_loop *loop = mg_fork_watch() ? NULL : mg_loop_make(&owner);
    if (!loop)
        return NULL;
    loop->kick.fn = kick;
    loop->scratch = mg_malloc(MG_SCRATCH_SIZE);
    if (!loop->scratch) {
        mg_loop_unref(loop);
        errno = ENOMEM;
        return NULL;
    }
    return loop;
}

void mg_loop_close(mg_loop *loop)
{
    mg_loop_uncork(loop);
    mg_loop_acquire(loop);
    pthread_mutex_lock(&loop->mu);
    atomic_store(&loop->closed, 1);
    pthread_mutex_unlock(&loop->mu);
    mg_tasks_run(&loop->posted, &loop->mu); /* what was posted before */
    mg_landing_drop(&loop->landing);
    mg_loop_close_poller(loop);
    mg_loop_release(loop);
    mg_lead_wake(loop, atomic_load(&loop->attendant));
}

mg_watch *mg_watch_new(mg_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg)
{
    return mg_poller_watch(loop->poller, fd, events, fn, arg);
}

void mg_loop_settle(mg_loop *loop)
{
    mg_poller_settle(loop->poller);
}

void mg_loop_retire(mg_loop *loop, int fd)
{
    mg_poller_retire(loop->poller, fd);
}

/* --- what is to be done --- */

int mg_loop_post(mg_loop *loop, mg_task *task)
{
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    /* once closed, nobody would run it */
    int queued = !atomic_load(&loop->closed) && mg_tasks_add(&loop->posted, task);
    if (queued)
        whom = mg_lead_call_locked(loop);
    pthread_mutex_unlock(&loop->mu);
    mg_lead_wake(loop, whom);
    return queued;
}

int mg_loop_unpost(mg_loop *loop, mg_task *task)
{
    pthread_mutex_lock(&loop->mu);
    int was = mg_tasks_remove(&loop->posted, task);
    pthread_mutex_unlock(&loop->mu);
    return was;
}

int mg_loop_cork(mg_loop *loop, mg_task *task)
{
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    int corked = loop->attending && !atomic_load(&loop->closed) && mg_tasks_add(&loop->corked, task);
    if (corked) {
        mg_count(&loop->corks);
        if (loop->leader && !atomic_load(&loop->uncorks))
            whom = loop->leader; /* where nobody leads, the caretaker looks */
    }
    pthread_mutex_unlock(&loop->mu);
    mg_lead_wake(loop, whom);
    return corked;
}

void mg_loop_uncork(mg_loop *loop)
{
    mg_work_uncork(loop);
}

void mg_loop_poll_slow(mg_loop *loop, mg_task *task)
{
    if (!mg_tasks_any(&loop->slow))
        loop->slow_at = mg_now();
    mg_tasks_add(&loop->slow, task);
}

void mg_loop_unpoll_slow(mg_loop *loop, mg_task *task)
{
    mg_tasks_remove(&loop->slow, task);
}

/* --- events --- */

static void tell_attendant(mg_loop *loop)
{
    mg_lead_wake(loop, atomic_load(&loop->attendant));
}

mg_err mg_loop_push_event(mg_loop *loop, const mg_event *ev)
{
    mg_err err = mg_events_push(&loop->events, ev);
    if (err == MG_OK)
        tell_attendant(loop);
    return err;
}

mg_err mg_loop_reserve_event(mg_loop *loop)
{
    return mg_events_reserve(&loop->events);
}

void mg_loop_unreserve_event(mg_loop *loop)
{
    mg_events_unreserve(&loop->events);
}

void mg_loop_push_reserved(mg_loop *loop, const mg_event *ev)
{
    mg_events_push_reserved(&loop->events, ev);
    tell_attendant(loop);
}

int mg_loop_pop_event(mg_loop *loop, mg_event *ev)
{
    return mg_events_pop(&loop->events, ev);
}

int mg_loop_peek_event(mg_loop *loop, mg_event *ev)
{
    return mg_events_peek(&loop->events, ev);
}

size_t mg_loop_n_events(const mg_loop *loop)
{
    return mg_events_count(&loop->events);
}

/* --- what is still to be sent --- */

void mg_loop_note_unsent(mg_loop *loop, int change)
{
    if (atomic_fetch_add(&loop->unsent, change) + change == 0 && atomic_load(&loop->drains))
        mg_loop_interrupt(loop);
}

int mg_loop_unsent(mg_loop *loop)
{
    mg_loop_uncork(loop);
    atomic_store(&loop->drains, 1);
    return atomic_load(&loop->unsent);
}

/* --- where large bytes may arrive --- */

mg_landing *mg_loop_landing(mg_loop *loop)
{
    return &loop->landing;
}

void mg_loop_offer_landing(mg_loop *loop, mg_buf *buf)
{
    mg_landing_offer(&loop->landing, buf);
    if (mg_loop_is_unwatched(loop))
        mg_landing_drop(&loop->landing);
}

int mg_loop_is_unwatched(const mg_loop *loop)
{
    return atomic_load(&loop->unwatched);
}

/* --- for streams --- */

uint8_t *mg_loop_scratch(mg_loop *loop)
{
    return loop->scratch;
}

void mg_loop_note_foreign(mg_loop *loop)
{
    loop->foreign_at = mg_now();
}

void mg_loop_note_arriving(mg_loop *loop)
{
    mg_count(&loop->arriving);
}

void mg_loop_set_hot(mg_loop *loop, int (*fn)(void *arg), void *arg)
{
    loop->hot_fn = fn;
    loop->hot_arg = arg;
}

void *mg_loop_hot(mg_loop *loop)
{
    return loop->hot_arg;
}

/* --- counters --- */

static uint32_t count_followers(mg_loop *loop)
{
    pthread_mutex_lock(&loop->mu);
    uint32_t n = loop->n_followers;
    pthread_mutex_unlock(&loop->mu);
    return n;
}

void mg_loop_get_stats(mg_loop *loop, mg_loop_stats *out)
{
#define GET(name) out->name = atomic_load_explicit(&loop->name, memory_order_relaxed)
    GET(turns);
    GET(leads);
    GET(attends);
    GET(looks);
    GET(arriving);
    GET(yields);
    GET(spins_won);
    GET(spins_lost);
    GET(kicks);
    GET(wakes);
    GET(corks);
#undef GET
    out->landed = atomic_load_explicit(&loop->landing.taken, memory_order_relaxed);
    out->events = mg_loop_n_events(loop);
    out->followers = count_followers(loop);
}
