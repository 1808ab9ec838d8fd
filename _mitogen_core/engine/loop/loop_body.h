/* The inside of a loop. For the files of this folder only: others include loop.h. */
#ifndef MG_LOOP_BODY_H
#define MG_LOOP_BODY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/ilist.h"
#include "loop/event_ring.h"
#include "loop/loop_ref.h"
#include "loop/poller.h"
#include "loop/task_list.h"
#include "sync/spin.h"
#include "sync/waiter.h"
#include "wire/landing.h"

/* A thread that waits for the loop without leading it; on its stack. Guarded by the loop's mu. */
typedef struct {
    mg_node node;      /* in `followers`, the youngest first; the attendant's is not in it */
    mg_waiter *waiter;
    int is_listed;     /* its own thread's: neighbours write to the node */
    int64_t since;     /* when it began to follow */
    int looks;         /* it looks in each period; else it sleeps until it is woken */
    uint64_t seen;     /* `changes` at its last look */
} mg_follower;

struct mg_loop {
    _Atomic uint32_t refs;
    _Atomic int closed, forked;
    mg_poller *poller;  /* of the leader */
    mg_kick kick;       /* wakes the thread that sleeps there */
    mg_events events;

    pthread_mutex_t mu;
    /* who leads: lead.c; guarded by mu */
    mg_waiter *leader;          /* NULL: nobody */
    pthread_cond_t left;        /* nobody leads, and somebody has acquired or wants to */
    _Atomic int wanted;         /* threads that want to acquire; written under mu */
    int acquired;               /* how often the leader has, or 0 */
    uintptr_t acquired_by;      /* its thread, which may be without a waiter */
    uint64_t changes;           /* how often somebody began or ended to lead or to attend */
    int is_due;                 /* there is work: a thread has to lead before the next look */
    const mg_waiter *called;    /* the thread that was woken for that work; NULL: any may do it. Only compared */
    mg_follower *attending;     /* the attendant, while it attends */
    uint64_t attended;          /* how often it has */
    mg_ilist followers;
    uint32_t n_followers;
    _Atomic(mg_waiter *) attendant; /* set once it has attended, and not guarded */
    _Atomic int interrupted;        /* likewise: the next attendance ends at once */

    /* work to be done: loop.c; guarded by mu */
    mg_tasks posted;         /* by the leader, once */
    mg_tasks corked;         /* by any thread, once */
    mg_tasks slow;           /* by the leader, again and again; changed by the leader only */
    _Atomic int uncorks;     /* the leader looks at what is corked; written by it */
    _Atomic int unsent;      /* streams with frames that the kernel did not take yet */
    _Atomic int drains;      /* somebody waits for that to be 0 */

    /* leader only */
    int64_t uncork_at;       /* when it looks at what is corked, or 0 */
    int64_t slow_at;         /* when `slow` is due, if there is anything */
    int64_t traffic_at;      /* when a callback ran last that was not for a timeout */
    int64_t foreign_at;      /* when there was traffic that was not the leader's own */
    mg_spin passing;         /* the leader's earlier waits for such traffic */
    const mg_waiter *served; /* the thread that a push has woken last, only compared; */
    int served_row;          /* how often in a row, since the leader began to lead; */
    int64_t served_at;       /* and when */
    int (*hot_fn)(void *);
    void *hot_arg;
    uint8_t *scratch;

    /* memory kept for the next large message: spares.c */
    mg_landing landing;
    _Atomic int unwatched;   /* the leader sleeps, so no thread drops that memory */

    /* for a fork: atfork.c */
    mg_node node;            /* in the list of all loops; guarded by its lock, as the next one */
    int is_held;             /* with a reference */
    _Atomic int frozen;      /* written with freeze_mu */
    pthread_mutex_t freeze_mu; /* held for as long as it is; a leader that wakes and sees `frozen` waits for it */

    /* as in mg_loop_stats; each is written by one thread at a time */
    _Atomic uint64_t turns, leads, arriving, yields, attends, looks, spins_won, spins_lost, kicks, wakes, corks;
};

/* The writer is alone (it leads, or holds mu), so this needs no locked instruction. */
static inline void mg_count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

#endif
