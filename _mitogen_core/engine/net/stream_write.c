/* Sending: by any thread at once, by the leader at the end of its turn, and what the kernel did
 * not take. */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "base/well_known.h"
#include "loop/atfork.h"
#include "net/stream.h"
#include "net/stream_body.h"
#include "sync/spin.h"

/* Two frames of a quick row are no further apart than QUICK. After MG_QUICK_ROW of them the next
 * ones are corked, until there are CORK_BYTES of them. */
#define QUICK      (MG_SECOND / 50000)
#define CORK_BYTES (32 * 1024)

/* On one core, the reader of the first frames runs in between, so a later frame of the row may come
 * this late. */
#define QUICK_LATE (MG_SECOND / 2000)

/* The sender of a frame of so many bytes drains the queue when the kernel takes no more at
 * present. It waits so long for the peer to read some, and goes on for so long in all; then the
 * loop has the rest. The layer above may keep its interpreter's lock while it sends a smaller
 * one. */
#define DRAIN_BYTES   (64 * 1024)
#define DRAIN_WAIT_MS 2
#define DRAIN_WHILE   (MG_SECOND / 50)

/* If dead messages had to wait as others do, a peer that does not read could silence each
 * context that refuses its messages. Short dead messages are forwarded without a wait, and
 * dropped when this many bytes of them wait on a full stream. */
#define REFUSAL_BYTES 4096
#define REFUSALS_MAX  10000

/* --- with wmu --- */

/* REQUIRES(s->wmu), as each function here whose name says so. */
static void set_wants_write_locked(mg_stream *s, int yes)
{
    if (s->wants_write != yes)
        mg_loop_note_unsent(s->loop, yes ? 1 : -1);
    s->wants_write = yes;
}

/* Drops the queue, and lets threads go that wait for room. */
static void end_writing_locked(mg_stream *s)
{
    s->wfd = -1;
    s->draining = 0;
    set_wants_write_locked(s, 0);
    mg_outq_clear(&s->out);
    pthread_cond_broadcast(&s->room);
}

/* Needs wfd. As mg_outq_write; nothing waits after MG_OK and MG_EIO. */
static mg_err write_out_locked(mg_stream *s)
{
    mg_err err = mg_outq_write(&s->out, s->wfd);
    if (err == MG_OK)
        set_wants_write_locked(s, 0);
    if (err == MG_EIO) {
        s->write_error = errno;
        end_writing_locked(s);
    }
    return err;
}

/* Writes what it can. Returns the todo that the caller has to post to the loop, or 0. */
static int write_locked(mg_stream *s)
{
    mg_err err = write_out_locked(s);
    if (err == MG_OK)
        return 0;
    if (err == MG_EIO)
        return MG_TODO_WRITE_FAILED;
    int todo = s->wants_write ? 0 : MG_TODO_WRITE;
    set_wants_write_locked(s, 1);
    return todo;
}

/* Writes, unless another thread is going to. Returns the todo to be posted, or 0. */
static int write_if_idle_locked(mg_stream *s)
{
    return s->wfd >= 0 && !s->wants_write ? write_locked(s) : 0;
}

/* Whether the queue is short enough for senders to go on. */
static int has_room_locked(const mg_stream *s)
{
    return mg_outq_bytes(&s->out) <= mg_sink_high_water(s->sink) / 2;
}

static void post_if_any(mg_stream *s, int todo)
{
    if (todo)
        mg_stream_post(s, todo);
}

void mg_stream_end_writing(mg_stream *s, int last)
{
    pthread_mutex_lock(&s->wmu);
    if (last && s->corked && s->wfd >= 0 && !s->wants_write)
        mg_outq_write(&s->out, s->wfd);
    end_writing_locked(s);
    pthread_mutex_unlock(&s->wmu);
}

/* Counts a frame and queues it. */
static void queue_locked(mg_stream *s, mg_frame *f)
{
    atomic_fetch_add_explicit(&s->frames_out, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->bytes_out, mg_frame_wire_len(f), memory_order_relaxed);
    atomic_store_explicit(&s->last_out, mg_now_coarse(), memory_order_relaxed);
    mg_outq_append(&s->out, f);
}

/* --- corking --- */

/* A frame comes late. Whether it is late because other threads ran: then its thread has waited
 * for nothing since the last late frame, and has used no more processor time than a row of so
 * many frames takes. Notes the state for the next time. */
static int interrupted_locked(mg_stream *s, int64_t now)
{
    mg_waiter *by = mg_spin_one_core(now) ? mg_waiter_self() : NULL;
    uint32_t waits = by ? atomic_load_explicit(&by->waits, memory_order_relaxed) : 0;
    int64_t cpu = by ? mg_thread_cpu() : 0;
    uint64_t frames = atomic_load_explicit(&s->frames_out, memory_order_relaxed);
    int is = by && by == s->late.by && waits == s->late.waits && now - s->sent_at <= QUICK_LATE &&
             cpu - s->late.cpu <= (int64_t) (frames - s->late.frames) * QUICK;
    s->late.by = by;
    s->late.waits = waits;
    s->late.cpu = cpu;
    s->late.frames = frames;
    return is;
}

/* Whether what was queued just now may wait for more. */
static int may_cork_locked(mg_stream *s)
{
    int64_t now = mg_now();
    if (now - s->sent_at > QUICK && !interrupted_locked(s, now))
        s->quick_row = 0;
    else if (s->quick_row < MG_QUICK_ROW)
        s->quick_row++;
    s->sent_at = now;
    size_t bytes = mg_outq_bytes(&s->out);
    /* a sender that has to wait for room should not wait for what is corked */
    return s->quick_row == MG_QUICK_ROW && bytes < CORK_BYTES && bytes <= mg_sink_high_water(s->sink);
}

/* Writes what is corked. Returns the todo to be posted, or 0. */
static int uncork(mg_stream *s)
{
    pthread_mutex_lock(&s->wmu);
    s->corked = 0;
    int todo = write_if_idle_locked(s);
    pthread_mutex_unlock(&s->wmu);
    return todo;
}

void mg_stream_uncork(mg_task *cork)
{
    mg_stream *s = MG_CONTAINER(cork, mg_stream, cork);
    post_if_any(s, uncork(s));
    mg_stream_unref(s);
}

/* Has what waits written a moment later, or writes it now if no thread would do that. Returns the
 * todo to be posted, or 0. */
static int cork(mg_stream *s)
{
    mg_stream_ref(s);
    if (mg_loop_cork(s->loop, &s->cork))
        return 0;
    int todo = uncork(s);
    mg_stream_unref(s);
    return todo;
}

/* --- draining --- */

static int drains_locked(const mg_stream *s)
{
    return s->draining && s->wants_write;
}

/* Writes the rest as the loop would, without waking another thread each time that the socket is
 * full. s->wants_write is set: others only queue meanwhile. Returns the todo to be posted, or 0. */
static int drain(mg_stream *s)
{
    int64_t until = mg_now() + DRAIN_WHILE;
    int todo = 0, go_on = 1;
    pthread_mutex_lock(&s->wmu);
    while (go_on && drains_locked(s)) {
        /* Without the lock the descriptor may be closed, and be another file: then we wait in
         * vain, and write nothing. */
        struct pollfd pfd = {.fd = s->wfd, .events = POLLOUT};
        pthread_mutex_unlock(&s->wmu);
        int ready = poll(&pfd, 1, DRAIN_WAIT_MS);
        go_on = ready > 0 && mg_now() < until && !mg_fork_wanted();
        pthread_mutex_lock(&s->wmu);
        if (ready > 0 && drains_locked(s))
            todo = write_locked(s);
        if (has_room_locked(s))
            pthread_cond_broadcast(&s->room);
    }
    if (drains_locked(s))
        todo = MG_TODO_WRITE;
    s->draining = 0;
    pthread_mutex_unlock(&s->wmu);
    return todo;
}

/* --- sending --- */

/* The next step of a sender that has queued its frame. */
typedef enum { DONE, DRAINS, CORKS } next_step;

/* *todo: the one to be posted, or 0. */
static next_step send_locked(mg_stream *s, mg_frame *f, int *todo)
{
    int large = mg_frame_wire_len(f) >= DRAIN_BYTES;
    queue_locked(s, f);
    if (s->wants_write)
        return DONE;
    if (may_cork_locked(s)) {
        next_step step = s->corked ? DONE : CORKS;
        s->corked = 1;
        return step;
    }
    *todo = write_locked(s);
    if (*todo != MG_TODO_WRITE || !large || mg_loop_serves(s->loop) || mg_fork_wanted())
        return DONE;
    s->draining = 1;
    return DRAINS;
}

/* Queues the frame, or drops it where nothing can be sent. */
static mg_err send_frame(mg_stream *s, mg_frame *f, next_step *step, int *todo)
{
    mg_err err = MG_OK;
    pthread_mutex_lock(&s->wmu);
    if (s->wfd >= 0)
        *step = send_locked(s, f, todo);
    else
        err = MG_ECLOSED;
    pthread_mutex_unlock(&s->wmu);
    return err;
}

mg_err mg_stream_send(mg_stream *s, mg_frame *f)
{
    int todo = 0;
    next_step step = DONE;
    mg_err err = mg_loop_was_forked(s->loop) ? MG_EFORKED : send_frame(s, f, &step, &todo);
    if (err != MG_OK)
        mg_frame_unref(f);
    if (step == DRAINS)
        todo = drain(s);
    if (step == CORKS)
        todo = cork(s);
    post_if_any(s, todo);
    return err;
}

/* --- forwarding --- */

/* Returns how many bytes wait. */
static size_t forward_locked(mg_stream *s, mg_frame *f)
{
    size_t high_water = mg_sink_high_water(s->sink);
    queue_locked(s, f);
    size_t waiting = mg_outq_bytes(&s->out);
    if ((waiting > MG_SCRATCH_SIZE || waiting > high_water) && !s->wants_write) {
        /* the queue is long: to wait for more frames until the end of the turn gains nothing */
        post_if_any(s, write_locked(s));
        waiting = mg_outq_bytes(&s->out);
    }
    if (waiting > high_water && s->draining) {
        s->draining = 0; /* the loop writes the rest, and then resumes the streams that feed this one */
        mg_stream_post(s, MG_TODO_WRITE);
    }
    return waiting;
}

/* Whether a frame is a dead message of the kind that contexts send by themselves, as the answer
 * to a refused one. */
static int is_refusal(const mg_frame *f)
{
    return mg_frame_hdr(f)->reply_to == MG_IS_DEAD && mg_frame_len(f) <= REFUSAL_BYTES;
}

/* Whether one more refusal may be queued. A refusal never pauses the stream that it came by. */
static int has_place_for_refusal_locked(mg_stream *s)
{
    if (mg_outq_bytes(&s->out) <= mg_sink_high_water(s->sink))
        s->refusals = 0;
    return s->refusals++ < REFUSALS_MAX;
}

void mg_stream_forward(mg_stream *s, mg_frame *f, mg_stream *from)
{
    size_t waiting = 0;
    int refusal = is_refusal(f);
    atomic_fetch_add_explicit(&from->frames_forwarded, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->wmu);
    if (s->wfd < 0 || (refusal && !has_place_for_refusal_locked(s)))
        mg_frame_unref(f);
    else
        waiting = forward_locked(s, f);
    pthread_mutex_unlock(&s->wmu);
    if (waiting > mg_sink_high_water(s->sink) && !refusal)
        mg_stream_pause_for(from, s);
    if (!mg_node_listed(&s->unflushed))
        mg_ilist_append(&s->sink->unflushed, &mg_stream_ref(s)->unflushed);
}

static void flush_one(mg_stream *s)
{
    pthread_mutex_lock(&s->wmu);
    int todo = write_if_idle_locked(s);
    int empty = !mg_outq_bytes(&s->out);
    pthread_mutex_unlock(&s->wmu);
    post_if_any(s, todo);
    if (empty)
        mg_stream_resume_feeders(s);
    mg_stream_unref(s);
}

void mg_stream_flush(mg_sink *sink)
{
    mg_node *node;
    while ((node = mg_ilist_pop(&sink->unflushed)))
        flush_one(MG_CONTAINER(node, mg_stream, unflushed));
}

/* --- what the kernel did not take --- */

void mg_stream_on_writable(void *arg, int events)
{
    (void) events;
    mg_stream *s = arg;
    mg_stream_ref(s);
    pthread_mutex_lock(&s->wmu);
    mg_err err = s->wfd >= 0 ? write_out_locked(s) : MG_OK;
    int room = has_room_locked(s);
    if (room)
        pthread_cond_broadcast(&s->room);
    pthread_mutex_unlock(&s->wmu);
    if (err != MG_EAGAIN)
        mg_watch_stop(s->write_watch);
    if (err == MG_EIO)
        mg_stream_post(s, MG_TODO_WRITE_FAILED);
    else if (room)
        mg_stream_resume_feeders(s);
    mg_stream_unref(s);
}

/* --- what waits --- */

size_t mg_stream_pending(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop))
        return 0; /* a thread that waited for room may have held the lock */
    pthread_mutex_lock(&s->wmu);
    size_t n = mg_outq_bytes(&s->out);
    pthread_mutex_unlock(&s->wmu);
    return n;
}

size_t mg_stream_pending_dead(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop))
        return 0;
    pthread_mutex_lock(&s->wmu);
    size_t n = mg_outq_dead_bytes(&s->out);
    pthread_mutex_unlock(&s->wmu);
    return n;
}
