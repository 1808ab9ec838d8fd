#include "wire/outq.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "base/well_known.h"

/* macOS has none; there the socket option SO_NOSIGPIPE, set where the socket is made, does it. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* One call writes up to so many pieces, more than a socket's buffer takes of small frames. */
#define MAX_PIECES 64

/* One call writes up to so many bytes: some systems refuse more than INT_MAX in one call. */
#define MAX_BYTES ((size_t) 1 << 30)

static mg_frame *frame_at(mg_node *node)
{
    return node ? MG_CONTAINER(node, mg_frame, queued) : NULL;
}

static size_t dead_len(const mg_frame *f)
{
    return mg_frame_hdr(f)->reply_to == MG_IS_DEAD ? mg_frame_wire_len(f) : 0;
}

void mg_outq_init(mg_outq *q)
{
    memset(q, 0, sizeof *q);
    mg_ilist_init(&q->frames);
}

void mg_outq_fini(mg_outq *q)
{
    mg_outq_clear(q);
}

void mg_outq_append(mg_outq *q, mg_frame *f)
{
    mg_ilist_append(&q->frames, &f->queued);
    q->bytes += mg_frame_wire_len(f);
    q->dead += dead_len(f);
}

size_t mg_outq_bytes(const mg_outq *q)
{
    return q->bytes;
}

size_t mg_outq_dead_bytes(const mg_outq *q)
{
    return q->dead;
}

/* Describes the start of what waits, and how many bytes that is. Returns the number of entries,
 * at least 1 when the queue is not empty. */
static int gather(const mg_outq *q, struct iovec iov[MAX_PIECES], size_t *total)
{
    size_t skip = q->skip;
    size_t bytes = 0;
    int n = 0;
    int end;

    for (mg_node *at = mg_ilist_first(&q->frames); at && n < MAX_PIECES; at = mg_ilist_next(&q->frames, at)) {
        end = n + mg_frame_iov(frame_at(at), skip, iov + n, MAX_PIECES - n);
        for (; n < end; n++) {
            if (iov[n].iov_len >= MAX_BYTES - bytes) {
                iov[n].iov_len = MAX_BYTES - bytes;
                *total = MAX_BYTES;
                return n + 1;
            }
            bytes += iov[n].iov_len;
        }
        skip = 0;
    }
    *total = bytes;
    return n;
}

static int sigpipe_kills(void)
{
    struct sigaction now;

    return !sigaction(SIGPIPE, NULL, &now) && now.sa_handler == SIG_DFL;
}

/* Takes back the signal that a write has left for this thread; another thread may have got it. */
static void forget(const sigset_t *sigpipe)
{
#ifdef __linux__
    static const struct timespec at_once;

    while (sigtimedwait(sigpipe, NULL, &at_once) < 0 && errno == EINTR)
        ;
#else
    sigset_t pending;
    int sig;

    if (!sigpending(&pending) && sigismember(&pending, SIGPIPE))
        sigwait(sigpipe, &sig);
#endif
}

/* As writev, but a pipe without a reader is an error only, even if the process has not ignored
 * SIGPIPE. */
static ssize_t write_pipe(int fd, const struct iovec *iov, int n)
{
    sigset_t sigpipe, before;
    ssize_t done;
    int error;

    if (!sigpipe_kills())
        return writev(fd, iov, n);
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    done = writev(fd, iov, n);
    error = errno;
    if (done < 0 && error == EPIPE && !sigismember(&before, SIGPIPE))
        forget(&sigpipe);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return done;
}

static ssize_t write_some(mg_outq *q, int fd, struct iovec *iov, int n)
{
    struct msghdr msg;
    ssize_t done;

    if (!q->not_a_socket) {
        memset(&msg, 0, sizeof msg);
        msg.msg_iov = iov;
        msg.msg_iovlen = (unsigned) n;
        done = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (done >= 0 || errno != ENOTSOCK)
            return done;
        q->not_a_socket = 1;
    }
    return write_pipe(fd, iov, n);
}

/* Removes the first frame and drops its reference. */
static void drop_first(mg_outq *q)
{
    mg_frame *f = frame_at(mg_ilist_pop(&q->frames));

    q->skip = 0;
    q->dead -= dead_len(f);
    mg_frame_unref(f);
}

static void advance(mg_outq *q, size_t done)
{
    size_t left;

    q->bytes -= done;
    while (done) {
        left = mg_frame_wire_len(frame_at(mg_ilist_first(&q->frames))) - q->skip;
        if (done < left) {
            q->skip += done;
            return;
        }
        done -= left;
        drop_first(q);
    }
}

mg_err mg_outq_write(mg_outq *q, int fd)
{
    struct iovec iov[MAX_PIECES];
    size_t total;
    ssize_t done;

    while (!mg_ilist_empty(&q->frames)) {
        int n = gather(q, iov, &total);
        done = write_some(q, fd, iov, n);
        if (done > 0) {
            advance(q, (size_t) done);
            /* The peer has read little meanwhile. To wait until it has read more takes less than
             * many small writes. */
            if ((size_t) done < total)
                return MG_EAGAIN;
        } else if (done == 0 || errno == EAGAIN || errno == EWOULDBLOCK)
            return MG_EAGAIN; /* 0 is never right for bytes that are there; trying again at once could spin */
        else if (errno != EINTR)
            return MG_EIO;
    }
    return MG_OK;
}

void mg_outq_clear(mg_outq *q)
{
    while (!mg_ilist_empty(&q->frames))
        drop_first(q);
    q->bytes = 0;
}
