/* The event loop of one broker, as streams, routers and the layer above use it.
 *
 * lead.h tells which thread runs it, and when. This is the rest: watches, tasks, events, and
 * what streams ask of a loop.
 *
 * "Leader only" means: the thread that leads, and only while it does. */
#ifndef MG_LOOP_H
#define MG_LOOP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "loop/event_ring.h"
#include "loop/lead.h"
#include "loop/loop_ref.h"
#include "loop/poller.h"
#include "loop/task_list.h"
#include "wire/landing.h"

/* Bytes of scratch that streams share while they read. */
#define MG_SCRATCH_SIZE (256 * 1024)

/* One reference, or NULL with errno: ENOMEM, or EMFILE and ENFILE when descriptors are out. */
mg_loop *mg_loop_new(void);

/* No thread leads or attends from now on; waits go on without the loop. Idempotent, any thread;
 * blocks until the leader is out. */
void mg_loop_close(mg_loop *loop);

/* --- descriptors --- */

/* A watch, stopped; NULL when memory is out. Any thread. It is started and stopped by the
 * leader, see poller.h; fn is called by the leader. */
mg_watch *mg_watch_new(mg_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg);

/* Leader only, and not from a callback. The descriptors that are watched from now on may be
 * closed by their owners, see mg_poller_settle. */
void mg_loop_settle(mg_loop *loop);

/* Leader only, and not from a callback. Ends the file of a descriptor whose watches are stopped,
 * see mg_poller_retire. */
void mg_loop_retire(mg_loop *loop, int fd);

/* --- what is to be done --- */

/* Has the leader run the task once, and somebody lead soon if nobody does. 0: it is queued
 * already, or the loop is closed. Any thread. */
int mg_loop_post(mg_loop *loop, mg_task *task);
/* Takes back what is queued; 1 if it was. Any thread. */
int mg_loop_unpost(mg_loop *loop, mg_task *task);

/* Has the task run once, soon, by any thread and with no lock held; see lead.h. 0, and nothing
 * happens, when nobody would do so: no attendant is in mg_loop_attend. Any thread; the task must
 * not be queued already. */
int mg_loop_cork(mg_loop *loop, mg_task *task);
/* Runs all that is corked. Any thread, with no lock held. */
void mg_loop_uncork(mg_loop *loop);

/* Has the leader run the task four times a second, roughly, until it is taken out. Leader only.
 * A run may take its own task out, and no other. */
void mg_loop_poll_slow(mg_loop *loop, mg_task *task);
void mg_loop_unpoll_slow(mg_loop *loop, mg_task *task);

/* --- work for the layer above; any thread --- */

mg_err mg_loop_push_event(mg_loop *loop, const mg_event *ev); /* wakes the attendant. MG_ENOMEM */
/* For an event that must not be lost when memory is out: a place kept beforehand (MG_ENOMEM),
 * then used or given back. */
mg_err mg_loop_reserve_event(mg_loop *loop);
void mg_loop_push_reserved(mg_loop *loop, const mg_event *ev);
void mg_loop_unreserve_event(mg_loop *loop);
int mg_loop_pop_event(mg_loop *loop, mg_event *ev); /* 1, or 0 when there is none */
int mg_loop_peek_event(mg_loop *loop, mg_event *ev); /* the same, and leaves it there; for the only thread that pops */
size_t mg_loop_n_events(const mg_loop *loop);

/* --- what is still to be sent; any thread --- */

/* Streams count themselves while they have frames that the kernel did not take yet: +1 and -1. */
void mg_loop_note_unsent(mg_loop *loop, int change);
/* The number of such streams. From the first call on, the end of the last one also makes
 * mg_loop_attend return: a broker that shuts down gives them their time. */
int mg_loop_unsent(mg_loop *loop);

/* --- where large bytes may arrive; any thread --- */

/* The place is dropped when the loop has been idle for a second, as spare blocks are. */
mg_landing *mg_loop_landing(mg_loop *loop);
/* Offers a place, see landing.h. It is dropped at once if no thread would drop it later. */
void mg_loop_offer_landing(mg_loop *loop, mg_buf *buf);
/* Whether no thread would drop it now: the leader sleeps for long. */
int mg_loop_is_unwatched(const mg_loop *loop);

/* --- for the callbacks of streams; leader only --- */

uint8_t *mg_loop_scratch(mg_loop *loop);
/* This turn carried traffic that is not the leader's own. */
void mg_loop_note_foreign(mg_loop *loop);
/* Part of a large frame for this context has arrived. For a thread that waits for it the waiting
 * is over, as far as it depends on others: only a copy is left, which is not worth a sleep. */
void mg_loop_note_arriving(mg_loop *loop);
/* Sets the function that a spinning waiter calls to poll the stream that its answer is likely to
 * come by. fn returns whether it did anything. NULL clears. */
void mg_loop_set_hot(mg_loop *loop, int (*fn)(void *arg), void *arg);
void *mg_loop_hot(mg_loop *loop);

/* --- counters, for tests and statistics; any thread --- */

typedef struct {
    uint64_t turns; /* times libev looked for events */
    uint64_t leads; /* times a waiter led */
    uint64_t arriving; /* parts of large frames for this context */
    uint64_t yields; /* of leaders that polled */
    uint64_t attends; /* times the attendant led */
    uint64_t looks; /* times a thread looked at a loop that it did not lead */
    uint64_t spins_won; /* waits that ended while spinning */
    uint64_t spins_lost;
    uint64_t kicks; /* times a thread that slept in libev was woken */
    uint64_t wakes; /* times a thread that sleeps, or may be about to, was told to look */
    uint64_t corks; /* times a stream began to hold frames back */
    uint64_t landed; /* large byte strings that were read to where they stay */
    size_t events; /* that wait for Python */
    uint32_t followers; /* waiters that sleep while another thread leads */
} mg_loop_stats;
void mg_loop_get_stats(mg_loop *loop, mg_loop_stats *out);

#endif
