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

#include <stdatomic.h>
#include <stdint.h>

#include "err.h"
#include "spin.h"

struct mg_loop;

enum { MG_WAITER_AWAKE = 0, MG_WAITER_TOKEN = 1, MG_WAITER_PARKED = 2 };

typedef struct mg_waiter {
    _Atomic uint32_t word;             /* one of MG_WAITER_ */
    _Atomic(struct mg_loop *) leading; /* the loop this thread may be blocked in, or NULL */
    struct mg_waiter *next_free;       /* guarded by the free list's lock */
    _Atomic uintptr_t thread;          /* pthread_self() of its thread, as a number; for who looks into a process */
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

#endif
