#include "loop/atfork.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/block.h"
#include "loop/all_loops.h"
#include "loop/lead.h"
#include "loop/leader_work.h"
#include "loop/loop_body.h"
#include "loop/loop_life.h"
#include "loop/spares.h"

static pthread_mutex_t fork_mu = PTHREAD_MUTEX_INITIALIZER; /* held during a fork: there is one at a time */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic int forking; /* written under fork_mu */

/* --- the gate --- */

void mg_fork_enter(void)
{
    if (atomic_load(&forking)) {
        /* else threads that pass without a pause would keep the gate open */
        pthread_mutex_lock(&fork_mu);
        pthread_mutex_unlock(&fork_mu);
    }
    pthread_rwlock_rdlock(&gate);
}

void mg_fork_leave(void)
{
    pthread_rwlock_unlock(&gate);
}

int mg_fork_wanted(void)
{
    return atomic_load(&forking);
}

/* --- the loops --- */

/* Keeps a leader that is asleep from doing anything, which costs less than to wake it and to
 * have it leave and come back: in an earlier version a fork took 0.76 ms, and 1.0 ms without
 * this. Returns whether there was one. */
static int freeze(mg_loop *loop)
{
    pthread_mutex_lock(&loop->freeze_mu);
    atomic_store(&loop->frozen, 1);
    if (mg_poller_is_asleep(loop->poller))
        return 1;
    atomic_store(&loop->frozen, 0);
    pthread_mutex_unlock(&loop->freeze_mu);
    return 0;
}

static void let_go(mg_loop *loop)
{
    if (!atomic_load(&loop->frozen)) {
        mg_loop_release(loop);
        return;
    }
    atomic_store(&loop->frozen, 0);
    pthread_mutex_unlock(&loop->freeze_mu);
}

/* Holds every loop, and returns with the lock of their list, so that no loop is made or ends
 * from then on. That lock is not held while we wait for a leader, which may want it. */
static void hold_all(void)
{
    for (;;) {
        mg_loops_lock();
        mg_loop *loop = mg_loops_first_free();
        if (!loop)
            return;
        loop->is_held = 1;
        mg_loops_unlock();
        if (!freeze(loop))
            mg_loop_acquire(loop);
    }
}

/* Called with the lock of the list of loops, and releases it. */
static void end_holding(void (*how)(mg_loop *loop))
{
    for (mg_loop *loop; (loop = mg_loops_first_held()); mg_loops_lock()) {
        loop->is_held = 0;
        mg_loops_unlock();
        how(loop);
        mg_loop_unref(loop);
    }
    mg_loops_unlock();
}

/* --- the child --- */

/* When the process was copied no thread was inside, or it was asleep there. The locks may be
 * held by threads of the other process. */
static void give_up(mg_loop *loop)
{
    atomic_store(&loop->closed, 1);
    atomic_store(&loop->forked, 1);
    pthread_mutex_init(&loop->freeze_mu, NULL);
    atomic_store(&loop->frozen, 0);
    mg_lead_forked(loop);
    mg_work_forked(loop);
    mg_events_forked(&loop->events);
    mg_spares_watch(loop);
    mg_landing_drop(&loop->landing);
    mg_poller_forked(loop->poller);
    mg_loop_close_poller(loop);
}

static void do_nothing(mg_loop *loop)
{
    (void) loop;
}

/* --- the handlers --- */

static void before_fork(void)
{
    pthread_mutex_lock(&fork_mu);
    atomic_store(&forking, 1);
    pthread_rwlock_wrlock(&gate); /* before the locks of the loops, which a thread inside may want */
    hold_all();
}

static void after_fork(void)
{
    end_holding(let_go);
    pthread_rwlock_unlock(&gate);
    atomic_store(&forking, 0);
    pthread_mutex_unlock(&fork_mu);
}

static void after_fork_child(void)
{
    pthread_mutex_init(&fork_mu, NULL);
    pthread_rwlock_init(&gate, NULL);
    atomic_store(&forking, 0);
    mg_loops_init_lock();
    mg_loops_lock();
    mg_loops_visit(give_up);
    end_holding(do_nothing);
}

static int watch_err;

static void watch(void)
{
    /* Registers the handlers of waiter.c first: in a fork they run after ours, and take their
     * lock when we have all of ours. */
    mg_waiter_self();
    watch_err = pthread_atfork(before_fork, after_fork, after_fork_child);
}

int mg_fork_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    return watch_err ? -1 : 0;
}
