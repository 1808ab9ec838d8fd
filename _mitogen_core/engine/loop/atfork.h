/* A fork of the process, at any moment and in any thread.
 *
 * DESIGN. The child is a copy with one thread. There, anything that another thread had half done
 * stays half done, and its locks stay locked. Two things keep that from mattering: no thread does
 * anything inside a loop when the process is copied, and none is in the middle of sending. For the
 * former each loop is held: acquired, or, if its leader sleeps, frozen, so that whatever wakes it
 * waits for the end of the fork. The latter passes a gate: mg_fork_enter() and mg_fork_leave()
 * stand around what changes streams, latches or handlers while the GIL, or whatever the layer above
 * has in its place, is not held. All else is done under the GIL, by one thread at a time. A thread
 * of C may fork without the GIL, while another thread is in the middle of something. In the child
 * the GIL then stays taken for ever, so no thread gets at what is half done; and the handlers do
 * not look at it.
 *
 * All of that happens inside fork() itself, in handlers of pthread_atfork: after everything that
 * the layer above does before a fork, and before all that it does afterwards. So nothing of it
 * runs while a loop is held, and it may hold whatever it likes meanwhile: a thread that leads,
 * or has passed the gate, wants no lock of it. Our handlers are registered once for the process,
 * with the first loop, and stay: the code that they are in is never unloaded.
 *
 * We wait for a leader, which may want a lock of the C library: that takes its own locks after
 * all handlers. Another library whose lock a leader may want, such as an allocator, has to
 * register its handlers before ours, since the last ones are called first. docs/limits.rst says
 * so.
 *
 * A child of vfork() or posix_spawn() shares our memory until it is another program, and needs
 * none of this.
 *
 * In the child each loop is given up, see mg_loop_was_forked(): its descriptors are closed, and
 * nobody leads it. A stream of such a loop neither sends nor closes anything. */
#ifndef MG_ATFORK_H
#define MG_ATFORK_H

/* Registers the handlers; 0, or -1 when memory is out. Repeatable. Any thread. */
int mg_fork_watch(void);

/* The gate. Any thread, without a lock of the layer above; enter waits while another thread
 * forks. */
void mg_fork_enter(void);
void mg_fork_leave(void);

/* Whether some thread forks, or is about to: a thread that would stay inside the gate for long
 * leaves. A hint. */
int mg_fork_wanted(void);

#endif
