#include "net/stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "loop/fork.h"
#include "net/router.h"
#include "sync/spin.h"
#include "sync/waiter.h"

/* Elsewhere the end shows as POLLHUP only. */
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

enum { MG_TODO_WRITE = 1, MG_TODO_RELEASE = 2, MG_TODO_BROKEN = 4, MG_TODO_LOOK = 8, MG_TODO_FAIL = 16 };

/* Reads of one stream before others get their turn. */
#define READS_PER_TURN 4

/* The same, after a write has failed. */
#define LAST_TURNS 16

/* So many frames, each sent so soon after the one before it, are a thread that goes on like that: what follows is held back, until
 * there are so many bytes of it. */
#define QUICK      (MG_SECOND / 50000)
#define QUICK_ROW  8
#define HELD_BYTES (32 * 1024)

/* On one core, whoever reads the first of them runs in between, so a frame may come late and belong to the row. This late at most. */
#define QUICK_LATE (MG_SECOND / 2000)

/* A frame that takes longer to copy than a wake takes. */
#define LONG_TO_COPY (256 * 1024)

/* Who sends a frame of so many bytes goes on writing when the kernel takes no more at present. It waits so long for the peer to read some, and
 * goes on for so long in all; then the loop has the rest. The layer above may keep its interpreter's lock while it sends a smaller one. */
#define PUSH_BYTES   (64 * 1024)
#define PUSH_WAIT_MS 2
#define PUSH_WHILE   (MG_SECOND / 50)

static void on_readable(void *arg, int events);
static void on_writable(void *arg, int events);
static void run_op(mg_op *op);
static void look_for_the_end(mg_look *look);
static void flush_held(mg_hold *hold);
static mg_buf *land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at);

/* --- life --- */

/* The clock of mg_stream_wait_room: a wall clock can be set back. */
#if defined(__APPLE__)
#define ROOM_CLOCK CLOCK_REALTIME
#else
#define ROOM_CLOCK CLOCK_MONOTONIC
#endif

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attr, ROOM_CLOCK);
#endif
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

mg_stream *mg_stream_new(mg_router *router, uint32_t remote_id, int rfd, int wfd)
{
    mg_stream *s = mg_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->router = mg_router_ref(router);
    s->loop = mg_loop_ref(mg_router_loop(router));
    atomic_init(&s->remote_id, remote_id);
    atomic_init(&s->auth_stamp, -1);
    mg_idmap_init(&s->egress);
    mg_decoder_init(&s->decoder, mg_router_max_size(router));
    s->decoder.land = land;
    s->decoder.land_arg = s;
    mg_outq_init(&s->out);
    s->rfd = rfd;
    s->wfd = wfd;
    s->op.run = run_op;
    s->look.fn = look_for_the_end;
    s->hold.flush = flush_held;
    pthread_mutex_init(&s->wmu, NULL);
    init_cond(&s->room);
    s->read_watch = mg_watch_new(s->loop, rfd, MG_READ, on_readable, s);
    s->write_watch = mg_watch_new(s->loop, wfd, MG_WRITE, on_writable, s);
    s->end_reserved = mg_loop_reserve_event(s->loop) == MG_OK;
    if (!s->read_watch || !s->write_watch || !s->end_reserved) {
        mg_stream_unref(s);
        return NULL;
    }
    return s;
}

mg_stream *mg_stream_ref(mg_stream *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void mg_stream_unref(mg_stream *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (s->end_reserved)
        mg_loop_unreserve_event(s->loop);
    mg_decoder_fini(&s->decoder);
    if (!mg_loop_was_forked(s->loop))
        mg_outq_fini(&s->out); /* else it may be half of a change, and stays for ever */
    mg_idmap_fini(&s->egress);
    mg_watch_free(s->read_watch);
    mg_watch_free(s->write_watch);
    pthread_mutex_destroy(&s->wmu);
    pthread_cond_destroy(&s->room);
    mg_router_unref(s->router);
    mg_loop_unref(s->loop);
    mg_free(s);
}

/* Tells the leader to look at s. The op in the loop's queue has a reference of its own. */
static void post(mg_stream *s, int todo)
{
    atomic_fetch_or(&s->todo, todo);
    mg_stream_ref(s);
    if (!mg_loop_post(s->loop, &s->op))
        mg_stream_unref(s);
}

static void look_at_watch(mg_stream *s)
{
    if (s->started && !s->held && !s->fills && !s->broken)
        mg_watch_start(s->read_watch);
    else
        mg_watch_stop(s->read_watch);
}

/* --- pausing --- */

static void pause_for(mg_stream *from, mg_stream *full)
{
    if (from->fills || from->hung_up)
        return;
    from->fills = mg_stream_ref(full);
    mg_loop_look(from->loop, &from->look);
    from->next_fed = full->feeders;
    full->feeders = mg_stream_ref(from);
    look_at_watch(from);
}

static void resume_feeders(mg_stream *s)
{
    while (s->feeders) {
        mg_stream *from = s->feeders;
        s->feeders = from->next_fed;
        from->next_fed = NULL;
        mg_stream_unref(from->fills);
        from->fills = NULL;
        mg_loop_unlook(from->loop, &from->look);
        post(from, MG_TODO_LOOK);
        mg_stream_unref(from);
    }
}

static void stop_feeding(mg_stream *from)
{
    mg_stream *full = from->fills;
    if (!full)
        return;
    for (mg_stream **at = &full->feeders; *at; at = &(*at)->next_fed)
        if (*at == from) {
            *at = from->next_fed;
            break;
        }
    from->next_fed = NULL;
    from->fills = NULL;
    mg_loop_unlook(from->loop, &from->look);
    mg_stream_unref(full);
    mg_stream_unref(from);
}

/* While it waits, nobody reads there; but its end must be seen. What it said before is then read in spite of the queue that it fills, and
 * cannot be more than the system had room for. */
static void look_for_the_end(mg_look *look)
{
    mg_stream *s = (mg_stream *) ((char *) look - offsetof(mg_stream, look));
    struct pollfd pfd = {.fd = s->rfd, .events = POLLRDHUP};
    if (poll(&pfd, 1, 0) <= 0 || !(pfd.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        return;
    s->hung_up = 1;
    mg_stream_ref(s);
    stop_feeding(s);
    post(s, MG_TODO_LOOK);
    mg_stream_unref(s);
}

/* --- the end --- */

/* REQUIRES(s->wmu). */
static void set_wants_write_locked(mg_stream *s, int on)
{
    if (s->wants_write != on)
        mg_loop_note_unsent(s->loop, on ? 1 : -1);
    s->wants_write = on;
}

/* REQUIRES(s->wmu). Nothing can be sent any more: what waits is dropped, and who waits for room is let go. */
static void end_writing_locked(mg_stream *s)
{
    s->wfd = -1;
    s->pushing = 0;
    set_wants_write_locked(s, 0);
    mg_outq_clear(&s->out);
    pthread_cond_broadcast(&s->room);
}

/* The connection is unusable: stop, and tell once. */
static void broke(mg_stream *s, mg_err err, int sys_errno)
{
    if (s->broken)
        return;
    s->broken = 1;
    mg_watch_stop(s->read_watch);
    mg_watch_stop(s->write_watch);
    stop_feeding(s);
    resume_feeders(s);
    pthread_mutex_lock(&s->wmu);
    end_writing_locked(s);
    pthread_mutex_unlock(&s->wmu);
    mg_router_count_closed(s->router, s);
    mg_event ev = {.kind = err == MG_EIO ? MG_EV_GONE : MG_EV_BAD, .a = mg_stream_ref(s)};
    ev.n = (uint64_t) (err == MG_EIO ? sys_errno : (int) err);
    if (err == MG_ECORRUPT || err == MG_ETOOBIG) {
        const uint8_t *ptr;
        size_t len;
        mg_decoder_pending(&s->decoder, &ptr, &len);
        mg_buf *pending = mg_buf_new(len);
        if (pending && len)
            memcpy(mg_buf_ptr(pending), ptr, len);
        ev.b = pending;
    }
    s->end_reserved = 0;
    mg_loop_push_reserved(s->loop, &ev);
}

void mg_stream_stop(mg_stream *s)
{
    s->started = 0;
    look_at_watch(s);
}

void mg_stream_close(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop)) {
        /* the locks may be held by threads that are not in this process, and nobody else looks here */
        s->wfd = -1;
        return;
    }
    s->started = 0;
    s->broken = 1;
    mg_watch_stop(s->read_watch);
    mg_watch_stop(s->write_watch);
    if (mg_loop_hot(s->loop) == s)
        mg_loop_set_hot(s->loop, NULL, NULL);
    stop_feeding(s);
    resume_feeders(s);
    pthread_mutex_lock(&s->wmu);
    if (s->holding && s->wfd >= 0 && !s->wants_write)
        mg_outq_write(&s->out, s->wfd); /* sent before we were closed, and the kernel may still take it */
    end_writing_locked(s);
    pthread_mutex_unlock(&s->wmu);
    mg_router_count_closed(s->router, s);
    if (mg_loop_unpost(s->loop, &s->op))
        mg_stream_unref(s);
}

/* --- reading --- */

/* A large payload begins. Only one for this context is going to be an object here. */
static mg_buf *land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at)
{
    mg_stream *s = arg;
    mg_landing *l = mg_loop_landing(s->loop);
    if (!mg_landing_has(l) || hdr->dst_id != mg_router_own_id(s->router))
        return NULL;
    return mg_landing_for(l, hdr, first, n, at);
}

/* Hands on what is decoded, until there is no more, Python has to be asked, or the stream breaks. */
static void hand_on(mg_stream *s)
{
    mg_frame *f;
    mg_err err = MG_OK;
    while (!s->held && !s->broken && (err = mg_decoder_next(&s->decoder, &f)) == MG_OK) {
        atomic_fetch_add_explicit(&s->frames_in, 1, memory_order_relaxed);
        mg_router_ingress(s->router, f, s);
    }
    if (err != MG_OK && err != MG_EAGAIN)
        broke(s, err, 0);
}

/* One turn: what one read gives. NOTHING: the kernel has no more at present; ENDED: the stream is broken, or held. */
typedef enum { TURN_NOTHING, TURN_SOME, TURN_FULL, TURN_ENDED } turn;

static turn read_turn(mg_stream *s)
{
    struct iovec iov[2];
    mg_decoder_set_max_size(&s->decoder, mg_router_max_size(s->router));
    int n = mg_decoder_begin(&s->decoder, mg_loop_scratch(s->loop), MG_SCRATCH_SIZE, iov);
    if (!n) {
        broke(s, s->decoder.err, 0);
        return TURN_ENDED;
    }
    ssize_t got;
    do
        got = n == 1 ? read(s->rfd, iov[0].iov_base, iov[0].iov_len) : readv(s->rfd, iov, n);
    while (got < 0 && errno == EINTR);
    int sys_errno = errno;
    size_t room = iov[0].iov_len + (n > 1 ? iov[1].iov_len : 0);
    if (got > 0) {
        atomic_fetch_add_explicit(&s->bytes_in, (uint64_t) got, memory_order_relaxed);
        atomic_store_explicit(&s->last_in, mg_now_coarse(), memory_order_relaxed);
        mg_decoder_commit(&s->decoder, (size_t) got);
        hand_on(s);
        const mg_hdr *part = mg_decoder_arriving(&s->decoder);
        if (part && part->len >= LONG_TO_COPY && part->dst_id == mg_router_own_id(s->router))
            mg_loop_note_arriving(s->loop);
    }
    mg_err err = mg_decoder_end(&s->decoder);
    if (err == MG_ENOMEM)
        broke(s, err, 0);
    if (got == 0 || (got < 0 && sys_errno != EAGAIN && sys_errno != EWOULDBLOCK))
        broke(s, MG_EIO, got ? sys_errno : 0);
    if (s->broken || s->held)
        return TURN_ENDED;
    return got < 0 ? TURN_NOTHING : (size_t) got == room ? TURN_FULL : TURN_SOME;
}

/* Also what a spinning waiter polls. Returns whether there may be more. */
static int read_some(void *arg)
{
    mg_stream *s = arg;
    if (!s->started || s->held || s->fills || s->broken)
        return 0;
    mg_stream_ref(s);
    int more = read_turn(s) == TURN_FULL;
    mg_stream_flush(s->router);
    look_at_watch(s);
    mg_stream_unref(s);
    return more;
}

static void on_readable(void *arg, int events)
{
    (void) events;
    for (int i = 0; i < READS_PER_TURN; i++)
        if (!read_some(arg))
            break;
}

void mg_stream_set_hot(mg_stream *s)
{
    mg_loop_set_hot(s->loop, read_some, s);
}

mg_err mg_stream_start(mg_stream *s)
{
    if (s->broken)
        return MG_ECLOSED;
    s->started = 1;
    look_at_watch(s);
    post(s, MG_TODO_LOOK);
    return MG_OK;
}

mg_err mg_stream_feed(mg_stream *s, const void *ptr, size_t n)
{
    if (s->broken)
        return MG_ECLOSED;
    mg_stream_ref(s);
    mg_decoder_set_max_size(&s->decoder, mg_router_max_size(s->router));
    mg_err err = mg_decoder_feed(&s->decoder, ptr, n);
    if (err != MG_OK)
        broke(s, err, 0);
    else
        hand_on(s);
    mg_stream_flush(s->router);
    look_at_watch(s);
    mg_stream_unref(s);
    return err;
}

void mg_stream_fail(mg_stream *s)
{
    if (mg_loop_leads(s->loop))
        broke(s, MG_ENOMEM, 0);
    else
        post(s, MG_TODO_FAIL);
}

void mg_stream_release(mg_stream *s)
{
    post(s, MG_TODO_RELEASE);
}

/* The peer takes no more. What it said before is still read, then the stream ends. */
static void last_words(mg_stream *s)
{
    turn t = TURN_SOME;
    for (int i = 0; i < LAST_TURNS && t != TURN_NOTHING && t != TURN_ENDED; i++) {
        if (!s->started || s->held || s->fills || s->broken)
            break;
        t = read_turn(s);
    }
    if (s->held || s->fills || s->broken)
        return;
    if (s->started && t != TURN_NOTHING)
        post(s, MG_TODO_LOOK); /* it goes on and on: others have their turn meanwhile */
    else
        broke(s, MG_EIO, s->write_error);
}

static void run_op(mg_op *op)
{
    mg_stream *s = (mg_stream *) ((char *) op - offsetof(mg_stream, op));
    int todo = atomic_exchange(&s->todo, 0);
    if (todo & MG_TODO_FAIL)
        broke(s, MG_ENOMEM, 0);
    if (!s->broken) {
        if (todo & MG_TODO_RELEASE)
            s->held = 0;
        if (todo & MG_TODO_BROKEN) {
            s->write_failed = 1;
            resume_feeders(s); /* what they send is dropped */
        } else if (todo & MG_TODO_WRITE)
            mg_watch_start(s->write_watch);
        if (!s->held && !s->fills && mg_decoder_has_data(&s->decoder))
            hand_on(s);
        if (s->write_failed)
            last_words(s);
        mg_stream_flush(s->router);
        look_at_watch(s);
    }
    mg_stream_unref(s);
}

/* --- writing --- */

/* REQUIRES(s->wmu). Writes what it can; tells which todo the loop has got. */
static int write_locked(mg_stream *s)
{
    mg_err err = mg_outq_write(&s->out, s->wfd);
    if (err == MG_OK) {
        set_wants_write_locked(s, 0);
        return 0;
    }
    if (err == MG_EAGAIN) {
        int todo = s->wants_write ? 0 : MG_TODO_WRITE;
        set_wants_write_locked(s, 1);
        return todo;
    }
    s->write_error = errno;
    end_writing_locked(s);
    return MG_TODO_BROKEN;
}

static void count_out(mg_stream *s, const mg_frame *f)
{
    atomic_fetch_add_explicit(&s->frames_out, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->bytes_out, mg_frame_wire_len(f), memory_order_relaxed);
    atomic_store_explicit(&s->last_out, mg_now_coarse(), memory_order_relaxed);
}

/* REQUIRES(s->wmu). A frame comes late. Whether that is because others ran: then its thread has waited for nothing since the last
 * look, and has been busy for no longer than a row of so many frames takes. Takes the next look. */
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

/* REQUIRES(s->wmu). Whether what was pushed just now may wait for more. */
static int may_hold_locked(mg_stream *s)
{
    int64_t now = mg_now();
    if (now - s->sent_at > QUICK && !interrupted_locked(s, now))
        s->quick_row = 0;
    else if (s->quick_row < QUICK_ROW)
        s->quick_row++;
    s->sent_at = now;
    size_t bytes = mg_outq_bytes(&s->out);
    /* who has to wait for room should not wait for what is held */
    return s->quick_row == QUICK_ROW && bytes < HELD_BYTES && bytes <= mg_router_high_water(s->router);
}

/* Writes the rest as the loop would, without waking another thread each time that the socket is full. s->wants_write is set: others
 * only queue meanwhile. Tells which todo the loop has got. */
static int push(mg_stream *s)
{
    int64_t until = mg_now() + PUSH_WHILE;
    int todo = 0, go_on = 1;
    pthread_mutex_lock(&s->wmu);
    while (go_on && s->pushing && s->wants_write) {
        /* Without the lock the descriptor may be closed, and be another file: then we wait in vain, and write nothing. */
        struct pollfd pfd = {.fd = s->wfd, .events = POLLOUT};
        pthread_mutex_unlock(&s->wmu);
        int ready = poll(&pfd, 1, PUSH_WAIT_MS);
        go_on = ready > 0 && mg_now() < until && !mg_fork_wanted();
        pthread_mutex_lock(&s->wmu);
        if (ready > 0 && s->pushing && s->wants_write)
            todo = write_locked(s);
        if (mg_outq_bytes(&s->out) <= mg_router_high_water(s->router) / 2)
            pthread_cond_broadcast(&s->room);
    }
    if (s->pushing && s->wants_write)
        todo = MG_TODO_WRITE;
    s->pushing = 0;
    pthread_mutex_unlock(&s->wmu);
    return todo;
}

/* Ends the holding; tells which todo the loop has got. */
static int flush(mg_stream *s)
{
    int todo = 0;
    pthread_mutex_lock(&s->wmu);
    s->holding = 0;
    if (s->wfd >= 0 && !s->wants_write)
        todo = write_locked(s);
    pthread_mutex_unlock(&s->wmu);
    return todo;
}

static void flush_held(mg_hold *hold)
{
    mg_stream *s = (mg_stream *) ((char *) hold - offsetof(mg_stream, hold));
    int todo = flush(s);
    if (todo)
        post(s, todo);
    mg_stream_unref(s);
}

mg_err mg_stream_send(mg_stream *s, mg_frame *f)
{
    int todo = 0, hold = 0, pushes = 0;
    mg_err err = MG_OK;
    if (mg_loop_was_forked(s->loop)) {
        mg_frame_unref(f);
        return MG_EFORKED;
    }
    pthread_mutex_lock(&s->wmu);
    if (s->wfd < 0) {
        mg_frame_unref(f);
        err = MG_ECLOSED;
    } else {
        int large = mg_frame_wire_len(f) >= PUSH_BYTES;
        count_out(s, f);
        mg_outq_push(&s->out, f);
        if (!s->wants_write && !may_hold_locked(s)) {
            todo = write_locked(s);
            if (todo == MG_TODO_WRITE && large && !mg_loop_serves(s->loop) && !mg_fork_wanted())
                s->pushing = pushes = 1;
        } else if (!s->wants_write && !s->holding)
            s->holding = hold = 1;
    }
    pthread_mutex_unlock(&s->wmu);
    if (pushes)
        todo = push(s);
    if (hold) {
        mg_stream_ref(s);
        if (!mg_loop_hold(s->loop, &s->hold)) {
            todo = flush(s);
            mg_stream_unref(s);
        }
    }
    if (todo)
        post(s, todo);
    return err;
}

void mg_stream_forward(mg_stream *s, mg_frame *f, mg_stream *from)
{
    pthread_mutex_lock(&s->wmu);
    size_t waiting = 0;
    if (s->wfd < 0)
        mg_frame_unref(f);
    else {
        count_out(s, f);
        mg_outq_push(&s->out, f);
        waiting = mg_outq_bytes(&s->out);
        if ((waiting > MG_SCRATCH_SIZE || waiting > mg_router_high_water(s->router)) && !s->wants_write) {
            /* no need to hold so much back for the end of the turn */
            int todo = write_locked(s);
            if (todo)
                post(s, todo);
            waiting = mg_outq_bytes(&s->out);
        }
        if (waiting > mg_router_high_water(s->router) && s->pushing) {
            s->pushing = 0; /* the loop writes the rest, and then resumes who feeds this */
            post(s, MG_TODO_WRITE);
        }
    }
    pthread_mutex_unlock(&s->wmu);
    if (from && waiting > mg_router_high_water(s->router))
        pause_for(from, s);
    if (!s->dirty) {
        s->dirty = 1;
        s->next_dirty = s->router->dirty;
        s->router->dirty = mg_stream_ref(s);
    }
}

void mg_stream_flush(mg_router *r)
{
    while (r->dirty) {
        mg_stream *s = r->dirty;
        r->dirty = s->next_dirty;
        s->dirty = 0;
        int todo = 0;
        pthread_mutex_lock(&s->wmu);
        if (s->wfd >= 0 && !s->wants_write)
            todo = write_locked(s);
        int empty = !mg_outq_bytes(&s->out);
        pthread_mutex_unlock(&s->wmu);
        if (todo)
            post(s, todo);
        if (empty)
            resume_feeders(s);
        mg_stream_unref(s);
    }
}

static void on_writable(void *arg, int events)
{
    (void) events;
    mg_stream *s = arg;
    mg_err err = MG_OK;
    int sys_errno = 0;
    mg_stream_ref(s);
    pthread_mutex_lock(&s->wmu);
    if (s->wfd >= 0) {
        err = mg_outq_write(&s->out, s->wfd);
        sys_errno = errno;
    }
    size_t waiting = mg_outq_bytes(&s->out);
    if (err == MG_OK) {
        set_wants_write_locked(s, 0);
        mg_watch_stop(s->write_watch);
    }
    int low = waiting <= mg_router_high_water(s->router) / 2;
    if (low)
        pthread_cond_broadcast(&s->room);
    pthread_mutex_unlock(&s->wmu);
    if (err == MG_EIO) {
        pthread_mutex_lock(&s->wmu);
        s->write_error = sys_errno;
        end_writing_locked(s);
        pthread_mutex_unlock(&s->wmu);
        mg_watch_stop(s->write_watch);
        post(s, MG_TODO_BROKEN);
    } else if (low)
        resume_feeders(s);
    mg_stream_unref(s);
}

int mg_stream_full(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop))
        return 0;
    pthread_mutex_lock(&s->wmu);
    int full = mg_outq_bytes(&s->out) > mg_router_high_water(s->router);
    pthread_mutex_unlock(&s->wmu);
    return full;
}

mg_err mg_stream_wait_room(mg_stream *s)
{
    struct timespec until;
    clock_gettime(ROOM_CLOCK, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    mg_err err = MG_OK;
    atomic_fetch_add_explicit(&s->blocked, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->wmu);
    while (s->wfd >= 0 && mg_outq_bytes(&s->out) > mg_router_high_water(s->router) / 2)
        if (pthread_cond_timedwait(&s->room, &s->wmu, &until)) {
            err = MG_EAGAIN;
            break;
        }
    pthread_mutex_unlock(&s->wmu);
    atomic_fetch_sub_explicit(&s->blocked, 1, memory_order_relaxed);
    return err;
}

size_t mg_stream_pending_dead(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop))
        return 0;
    pthread_mutex_lock(&s->wmu);
    size_t n = s->out.dead;
    pthread_mutex_unlock(&s->wmu);
    return n;
}

size_t mg_stream_pending(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop))
        return 0; /* a thread that waited for room may have had the lock */
    pthread_mutex_lock(&s->wmu);
    size_t n = mg_outq_bytes(&s->out);
    pthread_mutex_unlock(&s->wmu);
    return n;
}

/* --- what the layer above sets and asks --- */

mg_loop *mg_stream_loop(const mg_stream *s)
{
    return s->loop;
}

int mg_stream_read_fd(const mg_stream *s)
{
    return s->rfd;
}

void mg_stream_set_owner(mg_stream *s, void *owner)
{
    atomic_store(&s->owner, owner);
}

void *mg_stream_owner(const mg_stream *s)
{
    return atomic_load(&s->owner);
}

void mg_stream_set_remote_id(mg_stream *s, uint32_t remote_id)
{
    atomic_store(&s->remote_id, remote_id);
}

uint32_t mg_stream_remote_id(const mg_stream *s)
{
    return atomic_load(&s->remote_id);
}

void mg_stream_set_auth_stamp(mg_stream *s, int64_t auth_id)
{
    atomic_store(&s->auth_stamp, auth_id);
}

void mg_stream_set_privileged(mg_stream *s, int yes)
{
    atomic_store(&s->privileged, yes);
}

void mg_stream_set_hooked(mg_stream *s, int yes)
{
    atomic_store(&s->hooked, yes);
}

uint32_t mg_stream_refused_len(const mg_stream *s)
{
    return s->decoder.bad.len;
}

void mg_stream_add_counts(const mg_stream *s, mg_counts *sum)
{
    sum->frames_in += atomic_load_explicit(&s->frames_in, memory_order_relaxed);
    sum->bytes_in += atomic_load_explicit(&s->bytes_in, memory_order_relaxed);
    sum->frames_out += atomic_load_explicit(&s->frames_out, memory_order_relaxed);
    sum->bytes_out += atomic_load_explicit(&s->bytes_out, memory_order_relaxed);
    sum->frames_forwarded += atomic_load_explicit(&s->frames_forwarded, memory_order_relaxed);
}

void mg_stream_get_stats(mg_stream *s, mg_stream_stats *out)
{
    memset(out, 0, sizeof *out);
    mg_stream_add_counts(s, &out->carried);
    out->pending = mg_stream_pending(s);
    out->blocked = atomic_load_explicit(&s->blocked, memory_order_relaxed);
    out->last_in = atomic_load_explicit(&s->last_in, memory_order_relaxed);
    out->last_out = atomic_load_explicit(&s->last_out, memory_order_relaxed);
}
