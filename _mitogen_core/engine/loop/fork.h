/* A fork of the process, at any moment and in any thread.
 *
 * DESIGN. The child is a copy with one thread. What another thread had half done stays so there, and what it had locked stays
 * locked. Two things keep that from mattering: no thread does anything inside a loop when the process is copied, and none is in the middle
 * of sending. The former is held (mg_loops_acquire): acquired, or, if its leader sleeps, frozen, so that whatever wakes it waits for the
 * end of the fork. The latter passes a gate: mg_fork_enter() and mg_fork_leave() stand around what changes streams,
 * latches or handlers while the GIL, or whatever the layer above has in its place, is not held. All else is done under that, by one thread
 * at a time, and so not by another one than the forking one.
 *
 * Then the child gives all loops up, held or not; streams of a loop that was given up neither send nor close anything. */
#ifndef MG_FORK_H
#define MG_FORK_H

/* The gate. Any thread; enter waits while another thread forks. */
void mg_fork_enter(void);
void mg_fork_leave(void);

/* Whether some thread is about to fork: who would stay inside the gate for long leaves. A hint. */
int mg_fork_wanted(void);

/* begin: one fork at a time, except that a thread which is about to fork may fork; returns whether it is the first such call, which then
 * needs what is between: mg_loops_acquire() until that returns 0, and shut. The layer above holds no lock of its own during begin and
 * mg_loops_acquire(); it holds it from a look at mg_loops_are_acquired() to shut. */
int mg_fork_begin(void);
void mg_fork_shut(void);

/* After the fork, or after one that failed. child() is the only thread there is. */
void mg_fork_parent(void);
void mg_fork_child(void);

#endif
