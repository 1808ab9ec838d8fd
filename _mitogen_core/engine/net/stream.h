/* One byte connection to a neighbouring context: frames in, frames out.
 *
 * DESIGN. Reading is the leader's alone (see lead.h): it reads, cuts frames and hands each to
 * the stream's sink at once (sink.h). A frame that has to enter Python keeps what follows in the
 * decoder, undecided, until Python is done with it and says mg_stream_go_on(). So the order of
 * the stream is the order of its effects.
 *
 * Any thread may write. The thread that sends writes at once when nothing is queued (under wmu,
 * on a non-blocking fd), and what the kernel does not take waits for the loop. Frames that the
 * leader forwards are queued and written together at the end of its turn. So are those of a
 * thread that sends one after the other without a pause: they are corked for a moment
 * (mg_loop_cork), since a system call for each, which also wakes the reader for each, costs
 * several times what the rest does: without the cork a row of small messages took 1.2 to 1.8
 * times as long, in an earlier version. The sender of a large frame drains the queue: it waits
 * some milliseconds for the socket to have room, since to wake the loop's thread each time that
 * the peer has read costs as much as the bytes do.
 *
 * Memory is bounded. When more than the high-water mark waits on a stream, a stream that feeds
 * it (itself, if frames go back where they came from) is paused, that is, not read, until the
 * queue is empty or the loop has written half of it, and a sending thread has to wait
 * (mg_stream_wait_room). Delivery to this process never pauses anything, so two processes that
 * flood each other always make progress.
 *
 * Life: open (fds known, can send) -> started (is read) -> closed (by mg_stream_close, with the
 * loop acquired; only then may the fds be closed). When the connection breaks, the stream stops
 * itself, tells its sink once, and waits to be closed.
 *
 * Files: stream.c (life, reading, settings), stream_write.c (sending), stream_flow.c (pausing,
 * waiting for room). */
#ifndef MG_STREAM_H
#define MG_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "loop/loop.h"
#include "net/peer.h"
#include "net/sink.h"
#include "wire/frame.h"

typedef struct mg_stream mg_stream;

/* Makes a stream on two non-blocking fds, which may be the same and stay the caller's. It can
 * send at once; it is not read. One reference; takes one to the loop and to the sink. NULL: no
 * memory. Any thread. */
mg_stream *mg_stream_new(mg_loop *loop, mg_sink *sink, uint32_t remote_id, int rfd, int wfd);

/* Any thread. The last unref ends it, closed or not, and takes locks; none of the engine's may
 * be held. */
mg_stream *mg_stream_ref(mg_stream *s);
void mg_stream_unref(mg_stream *s);

/* With the loop acquired. start: begin to read. stop: end reading. close: stop for good, drop
 * what is queued, wake senders. feed: treat bytes as if they had been read. start and feed need
 * the stream open; MG_ECLOSED, MG_ENOMEM. start of a number that is no descriptor: MG_EIO, with
 * errno. All repeatable. */
mg_err mg_stream_start(mg_stream *s);
void mg_stream_stop(mg_stream *s);
void mg_stream_close(mg_stream *s);
mg_err mg_stream_feed(mg_stream *s, const void *ptr, size_t n);

/* Has the leader close it, and does not wait for that: on return the fds are not used any more,
 * and may be closed. Any thread. */
void mg_stream_give_up(mg_stream *s);

/* A frame of this stream is lost, since memory is out: the stream breaks, at once when the
 * leader says so. Any thread. */
void mg_stream_fail(mg_stream *s);

/* Leader only: whether a frame of this stream is with Python. While it is, what follows waits. */
void mg_stream_set_in_python(mg_stream *s, int yes);
int mg_stream_in_python(const mg_stream *s);

/* Python is done with that frame: the leader goes on with what follows, soon. Any thread. */
void mg_stream_go_on(mg_stream *s);

/* Sends a frame and takes over the reference, also when this fails. Any thread; for a large
 * frame it waits some milliseconds for the peer to read, unless the thread serves the loop.
 * MG_ECLOSED, MG_EFORKED: dropped. */
mg_err mg_stream_send(mg_stream *s, mg_frame *f);

/* For the leader, while it forwards a frame that came in by `from`: queue now, write at the end
 * of the turn. Takes over the reference. */
void mg_stream_forward(mg_stream *s, mg_frame *f, mg_stream *from);

/* For the leader: the end of its turn. Writes what was forwarded to any stream of the sink. */
void mg_stream_flush(mg_sink *sink);

/* Whether more than the high-water mark waits, and a wait of at most 100 ms for it to sink:
 * MG_OK, or MG_EAGAIN to look at signals and come again. Not for the leader and not for the
 * attendant. */
int mg_stream_full(mg_stream *s);
mg_err mg_stream_wait_room(mg_stream *s);

/* Leader only: a waiter's answer came from here, so the next one may. */
void mg_stream_set_hot(mg_stream *s);

/* Bytes that wait to be written, and those of them that are in dead messages. Any thread. */
size_t mg_stream_pending(mg_stream *s);
size_t mg_stream_pending_dead(mg_stream *s);

/* The router's notes on the other end, see peer.h. It lies at the start of the stream, so this
 * costs nothing. */
static inline mg_peer *mg_stream_peer(mg_stream *s)
{
    return (mg_peer *) (void *) s;
}

/* --- what the layer above sets and asks; any thread, nothing blocks --- */

/* Borrowed: valid as long as the stream. */
mg_loop *mg_stream_loop(const mg_stream *s);

/* The descriptor it reads, or -1. Only before mg_stream_close may it be used for anything. */
int mg_stream_read_fd(mg_stream *s);

/* A pointer of the layer above, NULL at first. It alone says what it points to, and when. */
void mg_stream_set_owner(mg_stream *s, void *owner);
void *mg_stream_owner(const mg_stream *s);

/* For the frames that come in from now on: the context at the other end; the auth_id that all of
 * them get, or -1 to leave it as it is; whether unidirectional mode does not bind that context;
 * whether each frame is shown to Python first. */
void mg_stream_set_remote_id(mg_stream *s, uint32_t remote_id);
uint32_t mg_stream_remote_id(const mg_stream *s);
void mg_stream_set_auth_stamp(mg_stream *s, int64_t auth_id);
void mg_stream_set_privileged(mg_stream *s, int yes);
void mg_stream_set_hooked(mg_stream *s, int yes);

/* After MG_EV_BAD with MG_ETOOBIG: the length that the refused header announces. */
uint32_t mg_stream_refused_len(const mg_stream *s);

/* How many frames and bytes a stream has carried, headers included. */
typedef struct {
    uint64_t frames_in, bytes_in, frames_out, bytes_out, frames_forwarded;
} mg_counts;

/* Each figure is true of some moment of the call, not all of the same. */
typedef struct {
    mg_counts carried;
    size_t pending; /* bytes that wait to be written */
    uint32_t blocked; /* threads in mg_stream_wait_room */
    int64_t last_in, last_out; /* marks of mg_now_coarse(); 0: never */
} mg_stream_stats;
void mg_stream_get_stats(mg_stream *s, mg_stream_stats *out);

/* Adds what s has carried, and takes no lock. */
void mg_stream_add_counts(const mg_stream *s, mg_counts *sum);

#endif
