/* The thread that runs the loop, and when it does.
 *
 * There is one poller (libev), run by one thread at a time: the leader. A thread that waits for
 * a message leads while it waits, if nobody does: it then reads its own answer, and no other
 * thread has to be woken for it. So a call and its answer wake nobody in this process. The
 * broker's own thread, the attendant, sleeps in mg_loop_attend() while it has nothing to do in
 * Python, and takes over a loop that other threads have left.
 *
 * THE SIX RULES. Each begins with the function of lead.c that has it.
 *
 *  1. may_lead_locked: a thread that waits leads if nobody does. Otherwise it is a follower: it
 *     sleeps until its own waiter is woken.
 *  2. must_stop: a leader stops when its item is there, its time is up, it is asked to, or it
 *     has served only others for a millisecond.
 *  3. leave_locked: the thread that stops leaves the loop alone, unless work is due, or the
 *     caretaker sleeps without limit: then it wakes the caretaker. A thread that was woken since
 *     work is due leads.
 *  4. look_locked: the caretaker is the attendant while it attends, else the youngest follower.
 *     It looks every LOOK (2 ms), and sleeps without limit once somebody leads and hardly
 *     anybody has come or gone since its last look. On a look, if nobody leads, and nobody has
 *     led since the last one, it leads. It also flushes what is corked.
 *  5. mg_loop_acquire: a thread that needs the loop for itself sets `wanted` and wakes the
 *     leader; while that is set nobody begins to lead.
 *  6. has_served_in_a_row: a caretaker that has served the same sleeper twice in a row, the
 *     second time soon after the first, and no other that makes calls, steps down: the next wait
 *     of that thread leads.
 *
 * Consequences. A thread that led and then computes for an hour leaves the loop alone for 4 ms
 * at most. An idle process makes no system call: the leader sleeps without limit, and so does
 * everybody else. A thread that makes one call after the other wakes nobody; the only cost is
 * the caretaker's looks, 500 a second.
 *
 * An earlier version was measured with one idea left out at a time, in 7 and 9 interleaved
 * rounds. A call took 1.8 times as long if waiting threads did not lead, or if the loop was
 * never left alone.
 *
 * Measured on two cores, beside an earlier version with timers, alarms and a look each half
 * millisecond: a call took 0.935 of the time and one by way of another context 0.93, and 1.22
 * times as many calls a second were answered of those that are sent before the last answer has
 * come. With all processes on one core it was 1.04, and 1.34 times as many. A child that gets 80
 * calls a second uses a fifth more CPU, as each wakes its caretaker; the process that makes them
 * uses a seventh less.
 *
 * Frames that a thread sends without a pause are corked, so that one write takes many
 * (mg_loop_cork). The next wait of any thread flushes them, a leader that sleeps looks for them
 * each millisecond while there are any, and where nobody leads the caretaker does so on its
 * looks.
 *
 * While the loop runs, no Python is entered, and no lock of Python's is wanted. Work for Python
 * is an event, for the attendant's thread.
 *
 * "Leader only" means: the thread that leads, and only while it does. */
#ifndef MG_LEAD_H
#define MG_LEAD_H

#include <stdint.h>

#include "base/err.h"
#include "loop/loop_ref.h"
#include "sync/latch.h"

/* --- the attendant --- */

/* Attends to the loop until there is an event (MG_OK), mg_loop_interrupt was called (MG_OK), the
 * deadline (MG_ETIMEDOUT), or the loop is closed (MG_ECLOSED). One thread only, always the same. */
mg_err mg_loop_attend(mg_loop *loop, int64_t deadline);

/* Whether a thread is in mg_loop_attend, and how often one has been. Any thread. */
int mg_loop_attended(mg_loop *loop, uint64_t *count);

/* Makes the present or the next mg_loop_attend return. Any thread; not from a C signal handler,
 * since it takes a lock. */
void mg_loop_interrupt(mg_loop *loop);

/* --- waiting threads --- */

/* Sleeps until s is served or closed (MG_OK), the deadline (MG_ETIMEDOUT), or a signal may have
 * arrived (MG_EINTR: look, then call again), and leads meanwhile if that is its turn. Between
 * mg_latch_join and mg_latch_leave. */
mg_err mg_loop_wait(mg_loop *loop, mg_sleeper *s, int64_t deadline);

/* Polls until s is served or closed, leading meanwhile if nobody does, if polling pays at present;
 * never sleeps. For a thread that waits elsewhere, such as in the loop of a program, and looks here
 * first. It has to call mg_loop_keep_led before it waits there for an item. Between mg_latch_join
 * and mg_latch_leave. */
void mg_loop_glance(mg_loop *loop, mg_sleeper *s);

/* Has the caretaker lead at once if nobody does. Any thread; does not block. */
void mg_loop_keep_led(mg_loop *loop);

/* --- having the loop for oneself --- */

/* Becomes the leader, asking the present one to stop and waiting for it; also once the loop is
 * closed. Blocks for a few microseconds. No thread that holds a loop waits for a lock of the
 * layer above (its GIL), so the caller may have that, as in a fork. Not from inside a callback
 * of the loop. The thread that has acquired it may do so again, and releases as often: a
 * function that it calls meanwhile may drop the last reference to a stream. */
void mg_loop_acquire(mg_loop *loop);
void mg_loop_release(mg_loop *loop);
/* Acquires the loop if no thread leads or wants to at present: 1, else 0. Does not block. */
int mg_loop_try_acquire(mg_loop *loop);

/* Whether the calling thread is the leader. */
int mg_loop_leads(mg_loop *loop);
/* Whether the calling thread is the leader or the attendant: other threads may wait for its
 * work. */
int mg_loop_serves(mg_loop *loop);

/* --- for the callbacks of streams; leader only --- */

/* To be called when a push has woken a thread. */
void mg_loop_note_woken(mg_loop *loop, const mg_woken *woken);

/* --- for the files of this folder --- */

/* Wakes w if it is parked or sleeps in this loop; NULL is no harm. No lock is needed. */
void mg_lead_wake(mg_loop *loop, mg_waiter *w);

/* REQUIRES(loop->mu). To be called when there is work for the leader. Returns the thread that
 * the caller must wake once it has released mu, or NULL. */
mg_waiter *mg_lead_call_locked(mg_loop *loop);

/* In a child made by fork: nobody leads, follows, attends or wants to. */
void mg_lead_forked(mg_loop *loop);

/* For tests: how often a caretaker looks. */
void mg_lead_set_look(int64_t nanoseconds);

/* The poller's two questions to its owner, see mg_poller_owner; arg is the loop. */
int mg_lead_may_sleep(void *arg);
void mg_lead_woken(void *arg);

#endif
