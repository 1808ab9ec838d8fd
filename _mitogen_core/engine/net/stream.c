#include "net/stream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/stream_body.h"

_Static_assert(offsetof(mg_stream, peer) == 0, "mg_stream_peer finds it there");

/* Reads of one stream before others get their turn. */
#define READS_PER_TURN 4

/* Reads of a stream whose write has failed: messages that its peer sent before the end are still
 * wanted. */
#define LAST_TURNS 16

/* A frame that takes longer to copy than a wake takes. */
#define LONG_TO_COPY (256 * 1024)

/* --- life --- */

static void on_readable(void *arg, int events);
static void run_todo(mg_task *task);
static mg_buf *land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at);

static void init_reading(mg_stream *s, int rfd)
{
    s->rfd = rfd;
    pthread_mutex_init(&s->rmu, NULL);
    mg_decoder_init(&s->decoder, mg_sink_max_size(s->sink));
    s->decoder.land = land;
    s->decoder.land_arg = s;
    s->read_watch = mg_watch_new(s->loop, rfd, MG_READ, on_readable, s);
}

static void init_writing(mg_stream *s, int wfd)
{
    s->wfd = wfd;
    mg_outq_init(&s->out);
    s->cork.run = mg_stream_uncork;
    pthread_mutex_init(&s->wmu, NULL);
    s->write_watch = mg_watch_new(s->loop, wfd, MG_WRITE, mg_stream_on_writable, s);
}

mg_stream *mg_stream_new(mg_loop *loop, mg_sink *sink, uint32_t remote_id, int rfd, int wfd)
{
    mg_stream *s = mg_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->loop = mg_loop_ref(loop);
    s->sink = sink;
    sink->ops->ref(sink);
    mg_peer_init(&s->peer, remote_id);
    s->task.run = run_todo;
    init_reading(s, rfd);
    init_writing(s, wfd);
    mg_stream_init_flow(s);
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

static void end_stream(mg_stream *s)
{
    if (s->end_reserved)
        mg_loop_unreserve_event(s->loop);
    mg_decoder_fini(&s->decoder);
    if (!mg_loop_was_forked(s->loop))
        mg_outq_fini(&s->out); /* else it may be half changed, and stay so for ever */
    mg_peer_fini(&s->peer);
    mg_watch_free(s->read_watch);
    mg_watch_free(s->write_watch);
    pthread_mutex_destroy(&s->rmu);
    pthread_mutex_destroy(&s->wmu);
    mg_stream_fini_flow(s);
    s->sink->ops->unref(s->sink);
    mg_loop_unref(s->loop);
    mg_free(s);
}

void mg_stream_unref(mg_stream *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        end_stream(s);
}

void mg_stream_post(mg_stream *s, int todo)
{
    atomic_fetch_or(&s->todo, todo);
    mg_stream_ref(s);
    if (!mg_loop_post(s->loop, &s->task))
        mg_stream_unref(s);
}

/* --- the end --- */

static void stop_watching(mg_stream *s)
{
    mg_watch_stop(s->read_watch);
    mg_watch_stop(s->write_watch);
}

/* A copy of the input that cannot be read, as far as it is kept; NULL when memory is out. */
static mg_buf *pending_input(mg_stream *s)
{
    const uint8_t *ptr;
    size_t len;
    mg_decoder_pending(&s->decoder, &ptr, &len);
    mg_buf *pending = mg_buf_new(len);
    if (pending && len)
        memcpy(mg_buf_ptr(pending), ptr, len);
    return pending;
}

/* The connection is unusable: stop, and tell once. */
static void broke(mg_stream *s, mg_err err, int sys_errno)
{
    if (s->broken)
        return;
    s->broken = 1;
    stop_watching(s);
    mg_stream_stop_feeding(s);
    mg_stream_resume_feeders(s);
    mg_stream_end_writing(s, 0);
    s->sink->ops->ended(s->sink, s);
    s->end_reserved = 0;
    mg_buf *pending = err == MG_ECORRUPT || err == MG_ETOOBIG ? pending_input(s) : NULL;
    s->sink->ops->broken(s->sink, s, err, sys_errno, pending);
}

void mg_stream_stop(mg_stream *s)
{
    s->started = 0;
    mg_stream_set_reading(s);
}

void mg_stream_close(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop)) {
        /* the locks may be held by threads that are not in this process, and nobody else looks
         * here */
        s->wfd = -1;
        return;
    }
    s->started = 0;
    s->broken = 1;
    stop_watching(s);
    if (mg_loop_hot(s->loop) == s)
        mg_loop_set_hot(s->loop, NULL, NULL);
    mg_stream_stop_feeding(s);
    mg_stream_resume_feeders(s);
    mg_stream_end_writing(s, 1);
    s->sink->ops->ended(s->sink, s);
    if (mg_loop_unpost(s->loop, &s->task))
        mg_stream_unref(s);
}

void mg_stream_give_up(mg_stream *s)
{
    if (mg_loop_was_forked(s->loop)) {
        mg_stream_close(s);
        return;
    }
    pthread_mutex_lock(&s->rmu);
    s->rfd = -1;
    pthread_mutex_unlock(&s->rmu);
    mg_stream_end_writing(s, 1);
    mg_stream_post(s, MG_TODO_CLOSE);
    if (!mg_loop_closed(s->loop))
        return;
    mg_loop_acquire(s->loop); /* no thread leads it, so this hardly waits */
    mg_stream_close(s);
    mg_loop_release(s->loop);
}

void mg_stream_fail(mg_stream *s)
{
    if (mg_loop_leads(s->loop))
        broke(s, MG_ENOMEM, 0);
    else
        mg_stream_post(s, MG_TODO_FAIL);
}

/* --- reading --- */

/* Whether the state lets us read. */
static int reads(const mg_stream *s)
{
    return s->started && !s->in_python && !s->fills && !s->broken;
}

void mg_stream_set_reading(mg_stream *s)
{
    if (!reads(s)) {
        mg_watch_stop(s->read_watch);
    } else if (mg_watch_start(s->read_watch) != MG_OK) {
        s->read_error = errno;
        /* not at once: a stream that broke right here would change the lists of our caller */
        mg_stream_post(s, MG_TODO_FAIL);
    }
}

/* A large payload begins. Only if it is for this context, its bytes may be read into an object
 * of Python. */
static mg_buf *land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at)
{
    mg_stream *s = arg;
    mg_landing *l = mg_loop_landing(s->loop);
    if (!mg_landing_has(l) || hdr->dst_id != mg_sink_own_id(s->sink))
        return NULL;
    return mg_landing_for(l, hdr, first, n, at);
}

/* Hands on what is decoded, until there is no more, Python has to be asked, or the stream
 * breaks. */
static void hand_on(mg_stream *s)
{
    mg_frame *f;
    mg_err err = MG_OK;
    while (!s->in_python && !s->broken && (err = mg_decoder_next(&s->decoder, &f)) == MG_OK) {
        atomic_fetch_add_explicit(&s->frames_in, 1, memory_order_relaxed);
        s->sink->ops->frame(s->sink, s, f);
    }
    if (err != MG_OK && err != MG_EAGAIN)
        broke(s, err, 0);
}

/* So many bytes were read to where the decoder wanted them. */
static void take_in(mg_stream *s, size_t got)
{
    atomic_fetch_add_explicit(&s->bytes_in, got, memory_order_relaxed);
    atomic_store_explicit(&s->last_in, mg_now_coarse(), memory_order_relaxed);
    mg_decoder_commit(&s->decoder, got);
    hand_on(s);
    const mg_hdr *part = mg_decoder_arriving(&s->decoder);
    if (part && part->len >= LONG_TO_COPY && part->dst_id == mg_sink_own_id(s->sink))
        mg_loop_note_arriving(s->loop);
}

/* The thread that gives the stream up may close the descriptor right afterwards, and the number
 * be another file's. */
static ssize_t read_into(mg_stream *s, const struct iovec *iov, int n)
{
    ssize_t got;
    pthread_mutex_lock(&s->rmu);
    do
        got = n == 1 ? read(s->rfd, iov[0].iov_base, iov[0].iov_len) : readv(s->rfd, iov, n);
    while (got < 0 && errno == EINTR);
    pthread_mutex_unlock(&s->rmu);
    return got;
}

/* One turn: one read, and the frames it gives. NOTHING: the kernel has no more at present;
 * ENDED: the stream is broken, or a frame is in Python. */
typedef enum { TURN_NOTHING, TURN_SOME, TURN_FULL, TURN_ENDED } turn;

static turn read_turn(mg_stream *s)
{
    struct iovec iov[2];
    mg_decoder_set_max_size(&s->decoder, mg_sink_max_size(s->sink));
    int n = mg_decoder_begin(&s->decoder, mg_loop_scratch(s->loop), MG_SCRATCH_SIZE, iov);
    if (!n) {
        broke(s, s->decoder.err, 0);
        return TURN_ENDED;
    }
    ssize_t got = read_into(s, iov, n);
    int sys_errno = errno;
    size_t room = iov[0].iov_len + (n > 1 ? iov[1].iov_len : 0);
    if (got > 0)
        take_in(s, (size_t) got);
    if (mg_decoder_end(&s->decoder) == MG_ENOMEM)
        broke(s, MG_ENOMEM, 0);
    if (got == 0 || (got < 0 && sys_errno != EAGAIN && sys_errno != EWOULDBLOCK))
        broke(s, MG_EIO, got ? sys_errno : 0);
    if (s->broken || s->in_python)
        return TURN_ENDED;
    return got < 0 ? TURN_NOTHING : (size_t) got == room ? TURN_FULL : TURN_SOME;
}

/* A spinning waiter polls with this function, too. Returns whether there may be more. */
static int read_some(void *arg)
{
    mg_stream *s = arg;
    if (!reads(s))
        return 0;
    mg_stream_ref(s);
    int more = read_turn(s) == TURN_FULL;
    mg_stream_flush(s->sink);
    mg_stream_set_reading(s);
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
    if (mg_watch_start(s->read_watch) != MG_OK)
        return MG_EIO;
    s->started = 1;
    mg_stream_set_reading(s);
    mg_stream_post(s, MG_TODO_READ);
    return MG_OK;
}

mg_err mg_stream_feed(mg_stream *s, const void *ptr, size_t n)
{
    if (s->broken)
        return MG_ECLOSED;
    mg_stream_ref(s);
    mg_decoder_set_max_size(&s->decoder, mg_sink_max_size(s->sink));
    mg_err err = mg_decoder_feed(&s->decoder, ptr, n);
    if (err != MG_OK)
        broke(s, err, 0);
    else
        hand_on(s);
    mg_stream_flush(s->sink);
    mg_stream_set_reading(s);
    mg_stream_unref(s);
    return err;
}

/* --- what the leader is asked to do --- */

void mg_stream_set_in_python(mg_stream *s, int yes)
{
    s->in_python = yes;
}

int mg_stream_in_python(const mg_stream *s)
{
    return s->in_python;
}

void mg_stream_go_on(mg_stream *s)
{
    mg_stream_post(s, MG_TODO_GO_ON);
}

/* The peer takes no more. Its last frames are still read, then the stream ends. */
static void last_words(mg_stream *s)
{
    turn t = TURN_SOME;
    for (int i = 0; i < LAST_TURNS && reads(s) && t != TURN_NOTHING && t != TURN_ENDED; i++)
        t = read_turn(s);
    if (s->in_python || s->fills || s->broken)
        return;
    if (s->started && t != TURN_NOTHING)
        mg_stream_post(s, MG_TODO_READ); /* its peer never stops: other streams get their turn */
    else
        broke(s, MG_EIO, s->write_error);
}

static void do_todo(mg_stream *s, int todo)
{
    if (todo & MG_TODO_GO_ON)
        s->in_python = 0;
    if (todo & MG_TODO_WRITE_FAILED) {
        s->write_failed = 1;
        mg_stream_resume_feeders(s); /* what they send is dropped */
    } else if ((todo & MG_TODO_WRITE) && mg_watch_start(s->write_watch) != MG_OK) {
        int sys_errno = errno;
        pthread_mutex_lock(&s->wmu);
        s->write_error = sys_errno;
        pthread_mutex_unlock(&s->wmu);
        s->write_failed = 1;
    }
    if (!s->in_python && !s->fills && mg_decoder_has_data(&s->decoder))
        hand_on(s);
    if (s->write_failed)
        last_words(s);
    mg_stream_flush(s->sink);
    mg_stream_set_reading(s);
}

static void run_todo(mg_task *task)
{
    mg_stream *s = MG_CONTAINER(task, mg_stream, task);
    int todo = atomic_exchange(&s->todo, 0);
    if (todo & MG_TODO_CLOSE)
        mg_stream_close(s);
    if (todo & MG_TODO_FAIL)
        broke(s, s->read_error ? MG_EIO : MG_ENOMEM, s->read_error);
    if (!s->broken)
        do_todo(s, todo);
    mg_stream_unref(s);
}

/* --- what the layer above sets and asks --- */

mg_loop *mg_stream_loop(const mg_stream *s)
{
    return s->loop;
}

int mg_stream_read_fd(mg_stream *s)
{
    pthread_mutex_lock(&s->rmu);
    int fd = s->rfd;
    pthread_mutex_unlock(&s->rmu);
    return fd;
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
    atomic_store(&s->peer.remote_id, remote_id);
}

uint32_t mg_stream_remote_id(const mg_stream *s)
{
    return mg_peer_remote_id(&s->peer);
}

void mg_stream_set_auth_stamp(mg_stream *s, int64_t auth_id)
{
    assert(auth_id >= -1 && auth_id <= UINT32_MAX);
    atomic_store(&s->peer.auth_stamp, auth_id);
}

void mg_stream_set_privileged(mg_stream *s, int yes)
{
    atomic_store(&s->peer.privileged, yes);
}

void mg_stream_set_hooked(mg_stream *s, int yes)
{
    atomic_store(&s->peer.hooked, yes);
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
