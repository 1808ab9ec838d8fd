/* One byte connection to a neighbouring context: frames in, frames out.
 *
 * DESIGN. Reading is the leader's alone (see loop.h): it reads, cuts frames and hands each to the router at once. A frame that
 * has to enter Python "holds" the stream: what follows stays in the decoder, undecided, until Python is done with that frame and
 * says mg_stream_release(), so that the order of the stream is the order of its effects.
 *
 * Writing is anybody's: the thread that sends writes at once when nothing is queued (under wmu, on a non-blocking fd), and what the
 * kernel does not take waits for the loop. Frames that the leader forwards are queued and written together at the end of
 * its turn. So are those of a thread that sends one after the other without a pause: they are held back for a moment (mg_loop_hold),
 * since a system call for each, which also wakes the reader for each, costs several times what the rest does. Who sends a large frame
 * pushes: it waits for the socket to have room, for some milliseconds, since to wake the loop's thread for each time that the peer has read
 * costs as much as the bytes do.
 *
 * Memory is bounded: when more than the high-water mark waits on a stream, a stream that feeds it (itself, if frames go back where they came
 * from) is paused, that is, not read, until half of it has gone, and a sending thread has to wait (mg_stream_wait_room). Delivery to this process never pauses anything, so
 * two processes that flood each other always make progress.
 *
 * Life: open (fds known, can send) -> started (is read) -> closed (by mg_stream_close, with the loop acquired; only then may the fds
 * be closed). When the connection breaks, the stream stops itself, posts one MG_EV_GONE or MG_EV_BAD, and waits to be closed. */
#ifndef MG_STREAM_H
#define MG_STREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "wire/decoder.h"
#include "base/err.h"
#include "wire/frame.h"
#include "base/idmap.h"
#include "loop/loop.h"
#include "wire/outq.h"

struct mg_router;

#define MG_HIGH_WATER (8 * 1024 * 1024)

typedef struct mg_stream {
    _Atomic uint32_t refs;
    mg_loop *loop;              /* with a reference; set once */
    struct mg_router *router;   /* likewise */
    _Atomic uint32_t remote_id;
    _Atomic int64_t auth_stamp; /* -1, or the auth_id that all that comes in gets */
    _Atomic int privileged;     /* exempt from unidirectional mode */
    _Atomic int hooked;         /* each frame that comes in is shown to Python first */
    _Atomic(void *) owner;      /* for the layer above; it alone reads and writes this */
    _Atomic uint64_t frames_in, bytes_in, frames_out, bytes_out, frames_forwarded;
    _Atomic int64_t last_in, last_out;  /* coarse clock; 0: never */
    _Atomic uint32_t blocked;           /* threads in mg_stream_wait_room */
    int counted;                        /* guarded by the router's mu: its totals have what we carried */
    uint64_t seen_at;                   /* likewise: the number of the count that last came by here */

    mg_idmap egress;            /* guarded by the router's mu: the dst_ids that came in here */
    uint32_t last_egress;       /* likewise: the last one put there */
    int any_egress;             /* likewise */

    /* leader only */
    int rfd;
    mg_decoder decoder;
    mg_watch *read_watch, *write_watch;
    int started;
    int held;                   /* a frame of ours is with Python */
    int broken;                 /* gone or bad: told already */
    int end_reserved;           /* there is a place for the event that tells it */
    int write_failed;           /* nothing can be sent; what is there to be read still is */
    struct mg_stream *fills;    /* the full stream that paused us, or NULL */
    struct mg_stream *next_fed; /* in fills' list */
    struct mg_stream *feeders;  /* streams that we paused */
    mg_look look;               /* while paused */
    int hung_up;                /* its end was seen while it was paused: it is not paused again */
    struct mg_stream *next_dirty;
    int dirty;                  /* has frames queued in this turn, to be flushed */

    mg_op op;                   /* asks the leader to look at `todo` */
    _Atomic int todo;           /* MG_TODO_ bits */

    pthread_mutex_t wmu;
    pthread_cond_t room;        /* with wmu */
    int wfd;                    /* guarded by wmu; -1: closed or broken, what is sent is dropped */
    mg_outq out;                /* guarded by wmu */
    int write_error;            /* guarded by wmu: errno of the failed write, or 0 */
    int wants_write;            /* guarded by wmu: the loop, or who pushes, is to write the rest */
    int pushing; /* guarded by wmu: the sender of a large frame writes the rest, and the loop does not */
    int64_t sent_at; /* guarded by wmu: when the last frame was sent from here */
    struct {
        const mg_waiter *by; /* whose frame that was; only compared */
        uint32_t waits;      /* how many waits that thread had begun */
        int64_t cpu;         /* how long it had run */
        uint64_t frames;     /* frames_out */
    } late;                  /* guarded by wmu: when a frame came late last, on one core */
    int quick_row; /* guarded by wmu: frames sent one right after the other, up to QUICK_ROW */
    int holding; /* guarded by wmu: `out` is to be flushed by `hold` */
    mg_hold hold; /* with a reference while `holding` was not seen to be over */
} mg_stream;

/* Makes a stream on two non-blocking fds (which may be the same). It can send at once; it is not read. One reference. NULL: no memory. */
mg_stream *mg_stream_new(struct mg_router *router, uint32_t remote_id, int rfd, int wfd);
mg_stream *mg_stream_ref(mg_stream *s);
void mg_stream_unref(mg_stream *s);

/* With the loop acquired. start: begin to read. stop: end reading. close: stop for good, drop what is queued, wake senders. feed:
 * treat bytes as if they had been read. start and feed need the stream open; MG_ENOMEM. All repeatable. */
mg_err mg_stream_start(mg_stream *s);
void mg_stream_stop(mg_stream *s);
void mg_stream_close(mg_stream *s);
mg_err mg_stream_feed(mg_stream *s, const void *ptr, size_t n);

/* A frame of this stream is lost, since memory is out: the stream breaks, at once when the leader says so. Any thread. */
void mg_stream_fail(mg_stream *s);

/* Python is done with the frame that held the stream. Any thread. */
void mg_stream_release(mg_stream *s);

/* Sends a frame and takes over the reference, also when this fails. Any thread; for a large frame it waits some milliseconds for the peer to
 * read, unless the thread serves the loop. MG_ECLOSED: dropped. */
mg_err mg_stream_send(mg_stream *s, mg_frame *f);

/* For the leader, while it forwards or answers: queue now, write at the end of the turn. from: the stream f came in by, or NULL. */
void mg_stream_forward(mg_stream *s, mg_frame *f, mg_stream *from);

/* For the leader: the end of its turn. */
void mg_stream_flush(struct mg_router *r);

/* Whether more than the high-water mark waits, and a wait of at most 100 ms for it to sink: MG_OK, or MG_EAGAIN to look at signals and
 * come again. Not for the leader and not for the attendant. */
int mg_stream_full(mg_stream *s);
mg_err mg_stream_wait_room(mg_stream *s);

/* Leader only: a waiter's answer came from here, so the next one may. */
void mg_stream_set_hot(mg_stream *s);

/* Bytes that wait to be written, and those of them that are in dead messages. */
size_t mg_stream_pending(mg_stream *s);
size_t mg_stream_pending_dead(mg_stream *s);

/* --- what the layer above sets and asks; any thread, nothing blocks --- */

/* Borrowed: valid as long as the stream. */
mg_loop *mg_stream_loop(const mg_stream *s);

/* The descriptor it reads. Only before mg_stream_close may it be used for anything. */
int mg_stream_read_fd(const mg_stream *s);

/* A pointer of the layer above, NULL at first. It alone says what it points to, and when. */
void mg_stream_set_owner(mg_stream *s, void *owner);
void *mg_stream_owner(const mg_stream *s);

/* For the frames that come in from now on: the context at the other end; the auth_id that all of them get, or -1 to leave
 * it as it is; whether unidirectional mode does not bind that context; whether each frame is shown to Python first. */
void mg_stream_set_remote_id(mg_stream *s, uint32_t remote_id);
uint32_t mg_stream_remote_id(const mg_stream *s);
void mg_stream_set_auth_stamp(mg_stream *s, int64_t auth_id);
void mg_stream_set_privileged(mg_stream *s, int yes);
void mg_stream_set_hooked(mg_stream *s, int yes);

/* After MG_EV_BAD with MG_ETOOBIG: the length that the refused header announces. */
uint32_t mg_stream_refused_len(const mg_stream *s);

/* What a stream has carried. Frames and bytes, headers included. */
typedef struct {
    uint64_t frames_in, bytes_in, frames_out, bytes_out, frames_forwarded;
} mg_counts;

/* Each figure is true of some moment of the call, not all of the same. */
typedef struct {
    mg_counts carried;
    size_t pending;            /* bytes that wait to be written */
    uint32_t blocked;          /* threads in mg_stream_wait_room */
    int64_t last_in, last_out; /* marks of mg_now_coarse(); 0: never */
} mg_stream_stats;
void mg_stream_get_stats(mg_stream *s, mg_stream_stats *out);

/* Adds what s has carried, and takes no lock. */
void mg_stream_add_counts(const mg_stream *s, mg_counts *sum);

#endif
