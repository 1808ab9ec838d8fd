/* A thread that can sleep until another thread, or a signal, wakes it.
 *
 * Each thread has one waiter, made at its first wait. Waiters are never given back to the C
 * library: one that a thread leaves behind serves the next new thread. So a wake that comes
 * late, after its thread has gone on or has ended, touches valid memory, and causes one spurious
 * wake at most.
 *
 * A thread sleeps parked, on a word of its own, or elsewhere: in a poller, of which the waiter
 * knows no more than how to wake it there.
 *
 * Dekker's rule makes a wake impossible to miss. The waker changes the condition, then the word;
 * the sleeper sets the word (or tells where else it is about to sleep), then looks at the
 * condition once more. All of it sequentially consistent. */
#ifndef MG_WAITER_H
#define MG_WAITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ilist.h"
#include "sync/spin.h"

enum { MG_WAITER_AWAKE = 0, MG_WAITER_TOKEN = 1, MG_WAITER_PARKED = 2 };

/* How to wake a thread that sleeps in something else than mg_waiter_park. fn may be called by
 * any thread, at any time. */
typedef struct mg_kick {
    void (*fn)(struct mg_kick *kick);
} mg_kick;

typedef struct mg_waiter {
    _Atomic uint32_t word;        /* one of MG_WAITER_ */
    _Atomic(mg_kick *) elsewhere; /* where this thread may sleep otherwise than parked, or NULL; written by itself */
    mg_node node;                 /* in the list of waiters without a thread; guarded by its lock */
    _Atomic uintptr_t thread;     /* pthread_self() of its thread, as a number; for a debugger */
    _Atomic uint32_t waits;       /* how many it has begun; written by the thread itself */
    mg_spin spin;                 /* memory of its earlier waits; only the thread itself touches it */
#if !defined(__linux__)
    pthread_mutex_t mu;           /* guards nothing but the sleep: the word is atomic */
    pthread_cond_t woken;         /* with mu: the word is not PARKED any more */
#endif
} mg_waiter;

/* The calling thread's waiter, or NULL when memory is out. */
mg_waiter *mg_waiter_self(void);

/* Sets the token and wakes the thread wherever it sleeps. A thread that wakes itself does not
 * sleep, and is left with the token. The caller holds something that keeps the thread from
 * leaving its wait, such as the lock of the latch that it waits on. Any lock may be held. */
void mg_waiter_wake(mg_waiter *w);

/* Like mg_waiter_wake, but a parked thread stays parked and 1 is returned: mg_waiter_unpark(w)
 * is owed, best after a lock is dropped which that thread will want. It may come when all locks
 * are dropped, since waiters do not go away. The calling thread itself is not given a token. */
int mg_waiter_wake_later(mg_waiter *w);
void mg_waiter_unpark(mg_waiter *w);

/* Like mg_waiter_wake, for a caller that holds nothing but its reference to the owner of `here`:
 * the thread is woken if it is parked or sleeps there, and left alone if it sleeps elsewhere by
 * now. */
void mg_waiter_wake_here(mg_waiter *w, mg_kick *here);

/* Takes the token, if there is one. Own thread only. */
void mg_waiter_take_token(mg_waiter *w);

/* Sleeps until woken (MG_OK, at once when the token is already there), the deadline
 * (MG_ETIMEDOUT) or a signal handler ran (MG_EINTR; other causes of an early return also look
 * like that). Own thread only. */
mg_err mg_waiter_park(mg_waiter *w, int64_t deadline);

#endif
