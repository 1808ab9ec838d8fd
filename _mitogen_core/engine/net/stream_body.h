/* The inside of a stream, for the files stream*.c and for tests. stream.h tells what a stream
 * is, and how reading and writing share it. Each function here says which lock it needs, or that
 * it is the leader's. */
#ifndef MG_STREAM_BODY_H
#define MG_STREAM_BODY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ilist.h"
#include "loop/loop.h"
#include "net/peer.h"
#include "net/sink.h"
#include "sync/waiter.h"
#include "wire/decoder.h"
#include "wire/outq.h"

typedef struct mg_stream {
    mg_peer peer; /* the router's; first, see mg_stream_peer */
    _Atomic uint32_t refs;
    mg_loop *loop; /* with a reference; set once */
    mg_sink *sink; /* likewise */
    _Atomic(void *) owner; /* for the layer above; it alone reads and writes this */
    _Atomic uint64_t frames_in, bytes_in, frames_out, bytes_out, frames_forwarded;
    _Atomic int64_t last_in, last_out; /* coarse clock; 0: never */
    _Atomic uint32_t blocked; /* threads in mg_stream_wait_room */

    pthread_mutex_t rmu; /* held during a non-blocking read */
    int rfd; /* guarded by rmu; -1: given up, and not read any more */

    /* leader only */
    mg_decoder decoder;
    mg_watch *read_watch, *write_watch;
    int started;
    int in_python; /* a frame of ours is there, and what follows it waits */
    int broken; /* gone or bad: told already */
    int end_reserved; /* there is a place for the event that tells it */
    int read_error; /* errno of a read watch that could not be started, or 0 */
    int write_failed; /* nothing can be sent; reading goes on */
    struct mg_stream *fills; /* the full stream that paused us, with a reference, or NULL */
    mg_node fed; /* in fills' list of feeders */
    mg_ilist feeders; /* streams that we paused, each with a reference */
    mg_task end_look; /* while paused: looks for the end of the input */
    int hung_up; /* its end was seen while it was paused: it is not paused again */
    mg_node unflushed; /* in the sink's list: has frames queued in this turn */

    mg_task task; /* asks the leader to look at `todo` */
    _Atomic int todo; /* MG_TODO_ bits */

    pthread_mutex_t wmu;
    pthread_cond_t room; /* with wmu */
    int wfd; /* guarded by wmu, as all below; -1: closed or broken, what is sent is dropped */
    mg_outq out;
    int write_error; /* errno of the failed write, or 0 */
    int wants_write; /* the loop, or the thread that drains, is to write the rest */
    int draining; /* the sender of a large frame writes the rest, and the loop does not */
    unsigned refusals; /* dead messages that were queued since this stream became full */
    int64_t sent_at; /* when the last frame was sent from here */
    struct {
        const mg_waiter *by; /* the thread that sent it; only compared */
        uint32_t waits; /* how many waits that thread had begun */
        int64_t cpu; /* how long it had run */
        uint64_t frames; /* frames_out */
    } late; /* when a frame came late last, on one core */
    int quick_row; /* frames sent one right after the other, up to MG_QUICK_ROW */
    int corked; /* `out` is to be written by `cork` */
    mg_task cork; /* with a reference while `corked` was not seen to be over */
} mg_stream;

/* So many frames, each sent right after the one before it, are a thread that goes on like that. */
#define MG_QUICK_ROW 8

/* Work that the leader is asked to do for a stream. */
enum {
    MG_TODO_WRITE = 1,
    MG_TODO_GO_ON = 2,
    MG_TODO_WRITE_FAILED = 4,
    MG_TODO_READ = 8,
    MG_TODO_FAIL = 16,
    MG_TODO_CLOSE = 32
};

/* Has the leader do that soon. Any thread, any lock of the stream's. The task in the loop's list
 * has a reference of its own. */
void mg_stream_post(mg_stream *s, int todo);

/* Leader only: reads from now on, or does not, as the state says. */
void mg_stream_set_reading(mg_stream *s);

/* --- stream_flow.c; leader only --- */

/* Begins and ends what flow control needs of a stream; no lock. */
void mg_stream_init_flow(mg_stream *s);
void mg_stream_fini_flow(mg_stream *s);

/* `full` has no room: nothing is read from `from` until it has, or until one of them ends. */
void mg_stream_pause_for(mg_stream *from, mg_stream *full);
/* s has room, or takes nothing any more: all that it paused is read again. */
void mg_stream_resume_feeders(mg_stream *s);
/* `from` is paused no more, whatever the stream that it fills. */
void mg_stream_stop_feeding(mg_stream *from);

/* --- stream_write.c --- */

/* Takes wmu. Nothing can be sent any more: queued frames are dropped, and threads that wait for
 * room return. last: corked frames are written first, as far as the kernel takes them. */
void mg_stream_end_writing(mg_stream *s, int last);
/* Callbacks of the loop. uncork: the moment is over for which frames were held back; called by any
 * thread. The other one: the kernel takes more; called by the leader. */
void mg_stream_uncork(mg_task *cork);
void mg_stream_on_writable(void *arg, int events);

#endif
