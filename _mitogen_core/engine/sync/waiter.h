/* A thread that can sleep until another thread, or a signal, wakes it.
 *
 * Each thread has one waiter, made at its first wait. Waiters are never given back to the C library: one that a thread
 * leaves behind serves the next new thread. So a wake that comes late, after its thread has gone on or has ended, touches
 * valid memory and costs somebody one spurious wake at most.
 *
 * Dekker's rule makes a wake impossible to miss. The waker changes the condition, then the word; the sleeper sets the word (or
 * says which loop it is about to block in), then looks at the condition once more. All of it sequentially consistent. */
#ifndef MG_WAITER_H
#define MG_WAITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "sync/spin.h"

struct mg_loop;

enum { MG_WAITER_AWAKE = 0, MG_WAITER_TOKEN = 1, MG_WAITER_PARKED = 2 };

typedef struct mg_waiter {
    _Atomic uint32_t word;             /* one of MG_WAITER_ */
    _Atomic(struct mg_loop *) leading; /* the loop this thread may be blocked in, or NULL */
    struct mg_waiter *next_free;       /* guarded by the free list's lock */
    _Atomic uintptr_t thread;          /* pthread_self() of its thread, as a number; for who looks into a process */
    _Atomic int on_alarm;              /* it sleeps, or is about to, in mg_waiter_park_alarmed */
    pthread_mutex_t alarm_mu;
    int alarm_fd;                      /* guarded by alarm_mu: its timer, or -1 */
    int alarm_set, rung;               /* likewise: the timer runs; it was made to end because of a wake */
    _Atomic uint32_t waits;            /* how many it has begun; written by the thread itself */
    mg_spin spin;                      /* of its waits; only the thread itself touches this */
} mg_waiter;

/* The calling thread's waiter, or NULL when memory is out. */
mg_waiter *mg_waiter_self(void);

/* Sets the token and, when the thread is parked, wakes it. Any thread, any lock may be held. Returns 1 when the thread may be
 * blocked in a loop, which the caller then has to kick (mg_loop_wake does both). */
int mg_waiter_notify(mg_waiter *w);

/* The same in two halves: sets the token, and returns one of MG_WAITER_ (what the thread was doing; AWAKE may also mean blocked in a loop).
 * After PARKED the caller owes a call of mg_waiter_unpark, which may come when all locks are dropped: waiters do not go away. */
uint32_t mg_waiter_set_token(mg_waiter *w);
void mg_waiter_unpark(mg_waiter *w);

/* Takes the token, if there is one. Own thread only. */
void mg_waiter_take_token(mg_waiter *w);

/* Sleeps until notified (MG_OK, at once when the token is already there), the deadline (MG_ETIMEDOUT) or a signal handler ran
 * (MG_EINTR; other causes of an early return also look like that). Own thread only. */
mg_err mg_waiter_park(mg_waiter *w, int64_t deadline);

/* --- a sleep with an alarm, that others may set and take back without waking anybody --- */

/* Whether that thread has one, made here if need be: not where the system has no such timer, or no descriptor for it. It goes with
 * the thread. Own thread only. */
int mg_waiter_open_alarm(mg_waiter *w);

/* As mg_waiter_park; the alarm ends it too (MG_ETIMEDOUT). */
mg_err mg_waiter_park_alarmed(mg_waiter *w, int64_t deadline);

/* Sets the alarm, to go off in so many nanoseconds, or takes it back (0). One that goes off while its thread is awake ends its next sleep. Any
 * thread. */
void mg_waiter_set_alarm(mg_waiter *w, int64_t nanoseconds);

/* In a child made by fork, of a thread that may be in the other process: closes its timer. */
void mg_waiter_forked(mg_waiter *w);

#endif
