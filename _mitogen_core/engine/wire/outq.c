#include "wire/outq.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/handles.h"

/* macOS has none; there the socket option SO_NOSIGPIPE, set by who makes the socket, does it. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* One call writes up to so many pieces, more than a socket's buffer takes of small frames. */
#define MAX_PIECES 64

/* And up to so many bytes: some systems refuse more than INT_MAX in one call. */
#define MAX_BYTES ((size_t) 1 << 30)

void mg_outq_init(mg_outq *q)
{
    memset(q, 0, sizeof *q);
}

void mg_outq_fini(mg_outq *q)
{
    mg_outq_clear(q);
}

void mg_outq_append(mg_outq *q, mg_frame *f)
{
    assert(!f->next);
    if (q->tail)
        q->tail->next = f;
    else
        q->head = f;
    q->tail = f;
    q->bytes += mg_frame_wire_len(f);
    if (f->hdr.reply_to == MG_IS_DEAD)
        q->dead += mg_frame_wire_len(f);
}

size_t mg_outq_bytes(const mg_outq *q)
{
    return q->bytes;
}

size_t mg_outq_dead_bytes(const mg_outq *q)
{
    return q->dead;
}

/* Describes the start of what waits, and how many bytes that is. Returns the number of entries, at least 1 when the queue is not
 * empty. */
static int gather(const mg_outq *q, struct iovec iov[MAX_PIECES], size_t *total)
{
    const mg_frame *f;
    size_t skip = q->skip;
    size_t bytes = 0;
    int n = 0;
    int end;

    for (f = q->head; f && n < MAX_PIECES; f = f->next) {
        end = n + mg_frame_iov(f, skip, iov + n, MAX_PIECES - n);
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
    return writev(fd, iov, n);
}

/* Removes the head and drops its reference. */
static void drop_head(mg_outq *q)
{
    mg_frame *f = q->head;

    q->head = f->next;
    if (!q->head)
        q->tail = NULL;
    q->skip = 0;
    f->next = NULL;
    if (f->hdr.reply_to == MG_IS_DEAD)
        q->dead -= mg_frame_wire_len(f);
    mg_frame_unref(f);
}

static void advance(mg_outq *q, size_t done)
{
    size_t left;

    q->bytes -= done;
    while (done) {
        left = mg_frame_wire_len(q->head) - q->skip;
        if (done < left) {
            q->skip += done;
            return;
        }
        done -= left;
        drop_head(q);
    }
}

mg_err mg_outq_write(mg_outq *q, int fd)
{
    struct iovec iov[MAX_PIECES];
    size_t total;
    ssize_t done;

    while (q->head) {
        int n = gather(q, iov, &total);
        done = write_some(q, fd, iov, n);
        if (done > 0) {
            advance(q, (size_t) done);
            /* What has been read meanwhile is little, and to wait until it is more takes less than many small writes. */
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
    while (q->head)
        drop_head(q);
    q->bytes = 0;
}
