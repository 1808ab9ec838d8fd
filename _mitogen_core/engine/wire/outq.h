/* The frames that wait to be written on one fd, first in, first out. No lock inside: the owner's
 * lock guards it. */
#ifndef MG_OUTQ_H
#define MG_OUTQ_H

#include <stddef.h>

#include "base/err.h"
#include "base/ilist.h"
#include "wire/frame.h"

/* The body is visible for embedding. */
typedef struct {
    mg_ilist frames;
    size_t skip;      /* wire bytes of the first frame that are written already */
    size_t bytes;     /* wire bytes that are not written yet, of all frames */
    size_t dead;      /* wire bytes of the dead messages among them, whole */
    int not_a_socket; /* learnt from the first write: sendmsg() does not work on this fd */
} mg_outq;

/* mg_outq_init allocates nothing; the queue stays where it is from then on. mg_outq_fini is
 * mg_outq_clear. */
void mg_outq_init(mg_outq *q);
void mg_outq_fini(mg_outq *q);

/* Appends f and takes over the caller's reference. f is in no other queue. */
void mg_outq_append(mg_outq *q, mg_frame *f);

/* Wire bytes that wait; 0 means that nothing does. dead: of the dead messages among them, each
 * counted whole. */
size_t mg_outq_bytes(const mg_outq *q);
size_t mg_outq_dead_bytes(const mg_outq *q);

/* Writes what waits, as few system calls as possible. A frame is dropped as soon as its last
 * byte is written. MG_OK: the queue is empty. MG_EAGAIN: fd has taken a part, or nothing.
 * MG_EIO: the write failed, errno says how; bytes that are not written stay queued. Interrupted
 * calls are repeated. Blocks only when fd does. Always the same fd for one queue, from
 * mg_outq_init() on. A peer that is gone raises no SIGPIPE, if fd is a pipe, or a socket where
 * MSG_NOSIGNAL exists. */
mg_err mg_outq_write(mg_outq *q, int fd);

/* Drops all frames, a half-written one included. */
void mg_outq_clear(mg_outq *q);

#endif
