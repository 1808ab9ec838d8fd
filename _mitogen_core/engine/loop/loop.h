/* The I/O loop of one broker, and who runs it.
 *
 * DESIGN. There is one libev loop, run by one thread at a time: the leader. Normally the attendant leads, the broker's own thread,
 * which sleeps in mg_loop_attend() while there is nothing for it to do. A thread that waits for a message (mg_loop_wait)
 * leads instead whenever nobody does: it then reads its own answer and no other thread has to be woken for it.
 *
 * Who leads when:
 *  - A waiter that has its item stops leading and goes on. If the traffic it saw was its own alone, it wakes nobody: the next wait, which
 *    usually comes within microseconds, finds the loop free again. The attendant is "ticking" meanwhile: it looks every
 *    TICK (half a millisecond), and takes over a loop that nobody has led for a whole tick. Where it finds a leader it looks
 *    again after DOZE (2 ms). So a function that runs for an hour leaves the loop alone for 2.5 milliseconds at most, or 5 (see below).
 *  - If there was traffic of others (frames forwarded, work for Python, other sleepers), the attendant is woken at once.
 *  - When the same thread has led for a whole doze without leaving, the attendant goes to sleep for good ("deep"), so an idle
 *    process makes no system call. Whoever stops leading then sets its alarm, for 5 ms later (a tick, if frames are held), and who
 *    leads next takes that back before it sleeps, if messages come so seldom that the ticks would cost more. So one that comes
 *    after a rest wakes one thread. Where the system has no such alarm (waiter.h), whoever stops leading wakes the attendant.
 *  - An attendant that has served the only sleeping waiter, or the same one several times in a row, steps down, so that the
 *    next wait of that thread leads. After a rest it goes deep at once, with its alarm set.
 *    A waiter that has led for long and serves another one does the same.
 *  - While the attendant is away, in Python, one of the waiters that sleep (followers) is its deputy: it looks every doze, and takes over a
 *    loop that nobody has led for a whole one. Who leaves a loop alone, a leader or the attendant itself, appoints it.
 *  - mg_loop_acquire() asks the leader to step down and waits for it: for changing watchers from outside.
 *
 * What a thread that sends much holds back for a moment, so that one write takes many frames (mg_hold), is flushed by the next wait
 * of any thread, by a timer of the leader after HOLD, or by the attendant, which looks every TICK where nobody leads (it is woken
 * from a doze for that) and flushes before it leaves for Python. So nothing is held for longer than a doze and a tick, whatever the thread
 * does that sent it: that long if a leader leaves just after something was held, usually a tenth of it.
 *
 * Work for the loop from other threads: an mg_op, run by the leader. Work for Python from the loop: an mg_event, taken by
 * the attendant's thread; while the loop runs no Python is entered and no lock of Python's is wanted.
 *
 * Locks: mu guards the leadership and the list of ops, events_mu the events. Neither is held while a callback or libev runs.
 * "Leader only" means: the thread that leads, and only while it does. */
#ifndef MG_LOOP_H
#define MG_LOOP_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sync/latch.h"
#include "wire/landing.h"
#include "sync/waiter.h"

typedef struct mg_loop mg_loop;

/* Bytes of scratch that streams share while they read. */
#define MG_SCRATCH_SIZE (256 * 1024)

/* Notifies a waiter wherever it sleeps: parked, or blocked in a loop that it leads. The caller holds something that keeps that
 * thread from leaving its wait (the lock of its latch or of its loop). */
void mg_loop_wake(mg_waiter *w);

/* The same, but a thread that is parked is left so and 1 returned: mg_waiter_unpark(w) is owed, best after the lock is dropped, since the thread
 * will want that lock. */
int mg_loop_wake_later(mg_waiter *w);

/* One reference, or NULL when memory or descriptors are out. */
mg_loop *mg_loop_new(void);
mg_loop *mg_loop_ref(mg_loop *loop);
void mg_loop_unref(mg_loop *loop);

/* No thread leads or attends from now on; waits go on without the loop. Idempotent, any thread; blocks until the leader is out. */
void mg_loop_close(mg_loop *loop);
int mg_loop_closed(const mg_loop *loop);

/* In a child made by fork: the loop is not ours any more. Closes its descriptors and forgets its threads. */
void mg_loop_forked(mg_loop *loop);
int mg_loop_was_forked(const mg_loop *loop);

/* For a fork, see fork.h. Holds one loop of the process that is not held yet: 1, or 0 when there is none; then whether there is none. Its
 * leader is asked to leave, or left asleep if it is. The thread that holds it so may acquire it, too. */
int mg_loops_acquire(void);
int mg_loops_are_acquired(void);
/* In the parent: gives back what is held. In the child: each loop that there is is not ours any more, held or not. */
void mg_loops_release(void);
void mg_loops_forked(void);

/* --- the attendant --- */

/* Attends to the loop until there is an event (MG_OK), mg_loop_interrupt was called (MG_OK), the deadline (MG_ETIMEDOUT),
 * or the loop is closed (MG_ECLOSED). One thread only, always the same. */
mg_err mg_loop_attend(mg_loop *loop, int64_t deadline);

/* Whether a thread is in mg_loop_attend, and how often one has been. Any thread. */
int mg_loop_attended(mg_loop *loop, uint64_t *count);

/* Makes the present or the next mg_loop_attend return. Any thread; not from a C signal handler, since it takes a lock. */
void mg_loop_interrupt(mg_loop *loop);

/* --- waiting threads --- */

/* Sleeps until s is served or closed (MG_OK), the deadline (MG_ETIMEDOUT), or a signal may have arrived (MG_EINTR: look, then call
 * again). loop may be NULL: then the thread is just parked. Between mg_latch_join and mg_latch_leave. */
mg_err mg_loop_wait(mg_loop *loop, mg_sleeper *s, int64_t deadline);

/* --- leadership --- */

/* Becomes the leader, asking the present one to step down and waiting for it; also once the loop is closed. Blocks for a few
 * microseconds; the GIL may be held. Not from inside a callback of the loop. Who has acquired it may do so again, and releases as often: what
 * runs meanwhile may drop the last reference to a stream. */
void mg_loop_acquire(mg_loop *loop);
void mg_loop_release(mg_loop *loop);
/* The same if nobody leads or wants to at present: 1, and does not block. */
int mg_loop_try_acquire(mg_loop *loop);
/* Whether the calling thread is the leader. */
int mg_loop_leads(mg_loop *loop);
/* Whether it is, or is the one that attends: others may wait for what it does. */
int mg_loop_serves(mg_loop *loop);

/* --- ops: work for whoever leads --- */

typedef struct mg_op {
    struct mg_op *next; /* guarded by the loop's mu */
    int queued; /* likewise */
    void (*run)(struct mg_op *); /* set once; called by the leader */
} mg_op;

/* Queues op unless it is queued already (returns 0 then), and has somebody run it soon. Any thread. */
int mg_loop_post(mg_loop *loop, mg_op *op);
/* Removes a queued op; returns 1 if it was queued. Any thread. */
int mg_loop_unpost(mg_loop *loop, mg_op *op);

/* --- what is held back for a moment --- */

typedef struct mg_hold {
    struct mg_hold *next; /* guarded by the loop's mu */
    void (*flush)(struct mg_hold *); /* set once; called once per mg_loop_hold, by any thread, with no lock held */
} mg_hold;

/* Has h flushed soon, see DESIGN. Returns 0, and does nothing, when nobody would do so: no attendant is in mg_loop_attend. Any
 * thread; h must not be queued already. */
int mg_loop_hold(mg_loop *loop, mg_hold *h);
/* Flushes all that is held. Any thread but with no lock held. */
void mg_loop_flush_held(mg_loop *loop);

/* --- events: work for the layer above --- */

typedef struct {
    int kind; /* the poster's business */
    void *a, *b, *c;
    uint64_t n;
} mg_event;

mg_err mg_loop_push_event(mg_loop *loop, const mg_event *ev); /* wakes the attendant. MG_ENOMEM */
/* For an event that must not be lost when memory is out: a place kept beforehand (MG_ENOMEM), then used or given back. */
mg_err mg_loop_reserve_event(mg_loop *loop);
void mg_loop_push_reserved(mg_loop *loop, const mg_event *ev);
void mg_loop_unreserve_event(mg_loop *loop);
int mg_loop_pop_event(mg_loop *loop, mg_event *ev); /* 1, or 0 when there is none. Any thread */
int mg_loop_peek_event(mg_loop *loop, mg_event *ev); /* the same, and leaves it there; for the only thread that pops */
size_t mg_loop_n_events(const mg_loop *loop);

/* --- watchers: leader only, except mg_watch_new and, once stopped, mg_watch_free --- */

typedef struct mg_watch mg_watch;
enum { MG_READ = 1, MG_WRITE = 2 };

mg_watch *mg_watch_new(mg_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg);
void mg_watch_start(mg_watch *w);
void mg_watch_stop(mg_watch *w);
int mg_watch_active(const mg_watch *w);
void mg_watch_free(mg_watch *w);

/* --- what is still to be sent --- */

/* Streams count themselves while they have frames that the kernel did not take yet: +1 and -1. Any thread. */
void mg_loop_note_unsent(mg_loop *loop, int change);
/* How many do. From the first call on, the end of the last one also makes mg_loop_attend return: a broker that shuts down
 * gives them their time. */
int mg_loop_unsent(mg_loop *loop);

/* --- for the callbacks of streams; leader only --- */

uint8_t *mg_loop_scratch(mg_loop *loop);

/* Has fn called four times a second, roughly. The memory is the caller's, all zero but for fn at first. fn may end its own look, and no
 * other. */
typedef struct mg_look {
    void (*fn)(struct mg_look *look);
    struct mg_look *next;
    int listed;
} mg_look;
void mg_loop_look(mg_loop *loop, mg_look *look);
void mg_loop_unlook(mg_loop *loop, mg_look *look);

/* Where large bytes may arrive; dropped when the loop has been idle for a second, as spare blocks are. Any thread. */
mg_landing *mg_loop_landing(mg_loop *loop);
/* Offers one, see landing.h; it is dropped where nobody would do so later. Any thread. */
void mg_loop_offer_landing(mg_loop *loop, mg_buf *buf);
/* Whether that is so now: the leader sleeps for long. */
int mg_loop_is_unwatched(const mg_loop *loop);
/* This turn carried traffic that is not the leader's own. */
void mg_loop_note_foreign(mg_loop *loop);
/* A push has woken somebody. */
void mg_loop_note_woken(mg_loop *loop, const mg_woken *woken);
/* Part of a large frame for this context has arrived. For who waits for it the waiting is over, as far as it depends on others: only a
 * copy is left, which is not worth a sleep. */
void mg_loop_note_arriving(mg_loop *loop);
/* Where the answer of a waiter is likely to come from: spinning polls it. fn returns whether it did anything. NULL clears. */
void mg_loop_set_hot(mg_loop *loop, int (*fn)(void *arg), void *arg);
void *mg_loop_hot(mg_loop *loop);

/* Counters, for tests and statistics. Any thread, no lock: each is written by one thread at a time. */
typedef struct {
    uint64_t turns; /* times libev looked for events */
    uint64_t leads; /* times a waiter led */
    uint64_t arriving; /* parts of large frames for this context */
    uint64_t yields; /* of leaders that polled for themselves */
    uint64_t attends; /* times the attendant led */
    uint64_t ticks; /* times the attendant looked at a loop it did not lead */
    uint64_t spins_won; /* waits that ended while spinning */
    uint64_t spins_lost;
    uint64_t kicks; /* times a thread that may be blocked in libev was woken */
    uint64_t wakes; /* times a thread that sleeps, or may be about to, was told to look */
    uint64_t holds; /* times a stream began to hold frames back */
    uint64_t landed; /* large byte strings that were read to where they stay */
    size_t events; /* that wait for Python */
    uint32_t followers; /* waiters that sleep while another thread leads */
} mg_loop_stats;
void mg_loop_get_stats(mg_loop *loop, mg_loop_stats *out);

#endif
