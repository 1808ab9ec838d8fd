/* A place, made beforehand, for large bytes to arrive in.
 *
 * The layer above wants large bytes in an object of its own, which it can make only while it
 * holds its lock; the leader, which reads, does not hold it. So when the layer has got such
 * bytes twice it makes one more place of that length and leaves it here, and the next ones that
 * are as long are read into that (mg_land in decoder.h), instead of being copied there later.
 * One place for each loop. */
#ifndef MG_LANDING_H
#define MG_LANDING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/block.h"
#include "base/buf.h"
#include "wire/frame.h"

/* Shorter bytes are copied sooner than a place is made for them. More than MG_DECODER_AROUND. */
#ifndef MG_LANDING_MIN
#define MG_LANDING_MIN ((size_t) 96 << 10)
#endif

/* A place for longer bytes is not made: the loop would have to keep too much. A place from
 * MG_BLOCK_HUGE on costs address space only while it waits, since nobody has touched its pages. */
#define MG_LANDING_MAX MG_BLOCK_LARGE

/* All zero at first. */
typedef struct {
    _Atomic(mg_buf *) buf;
    _Atomic size_t len; /* of what came last, since the last drop: a hint */
    _Atomic uint64_t taken; /* how many places were taken, for statistics */
} mg_landing;

/* Large bytes of that length have come. Returns whether the caller should offer a place of this
 * length: the bytes before them were as long, and there is no place. Any thread, as all below. */
int mg_landing_came(mg_landing *l, size_t len);

/* Takes over the reference, and drops the place that is there. Nobody reads the bytes of the
 * place before it is taken: a drop gives its pages back to the system at once, while its owner
 * may have to wait for a lock before it can free the memory. */
void mg_landing_offer(mg_landing *l, mg_buf *buf);

/* The place that is there, if it is of just that length, with its reference; or NULL. */
mg_buf *mg_landing_take(mg_landing *l, size_t len);

int mg_landing_has(mg_landing *l);

/* The place for the payload of a message, for mg_land of decoder.h: returns its buffer with a
 * reference, and sets *at to where in the payload it begins. hdr: the announced header;
 * first[0..n): the beginning of the payload. NULL when there is no place of that length, or it
 * would take too little of the payload. */
mg_buf *mg_landing_for(mg_landing *l, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at);

/* Drops what is there. Whether there is, or may soon be, something to drop. */
void mg_landing_drop(mg_landing *l);
int mg_landing_to_look_after(mg_landing *l);

#endif
