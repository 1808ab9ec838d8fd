/* A frame: the 26 byte header and the payload, ready to be written. */
#ifndef MG_FRAME_H
#define MG_FRAME_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/ilist.h"

#define MG_HEADER_LEN 26

/* The values of enc, which is also the magic number at the start of each frame. */
#define MG_ENC_MGC 0x4d49 /* "MI": whatever the handle expects */
#define MG_ENC_PKL 0x4d4a /* "MJ": one or more pickles */
#define MG_ENC_BIN 0x4d4b /* "MK": opaque bytes */

/* The header in native form. On the wire: enc, dst_id, src_id, auth_id, handle, reply_to, len;
 * big-endian, no gaps. */
typedef struct {
    int16_t enc;
    uint32_t dst_id;
    uint32_t src_id;
    uint32_t auth_id;
    uint32_t handle;
    uint32_t reply_to; /* 0: none; MG_IS_DEAD: this is a dead message */
    uint32_t len;      /* payload bytes, header excluded */
} mg_hdr;

/* Convert between the native and the wire form. They accept any values; see mg_enc_known(). */
void mg_hdr_encode(uint8_t out[MG_HEADER_LEN], const mg_hdr *hdr);
void mg_hdr_decode(mg_hdr *hdr, const uint8_t in[MG_HEADER_LEN]);

/* 1 when enc is one of the MG_ENC_ values. */
int mg_enc_known(int16_t enc);

/* A stretch of a block: buf's bytes [off, off+len). */
typedef struct {
    mg_buf *buf;
    size_t off;
    size_t len;
} mg_seg;

/* A frame has one of three forms. INLINE: the wire bytes of the header and the payload stand in
 * one row in the frame's own allocation, so one iovec writes both. WITH A HOLE: like INLINE, but
 * a stretch of the payload stands in a buffer of its own. SEGMENTED: the header's wire bytes,
 * then an array of segments. Header and payload do not change any more once a second thread or
 * holder has a reference. This is the visible part of a frame; the rest is frame.c's. */
typedef struct mg_frame {
    /* For the queue that it is in. It is in one at a time: a second queue needs another frame of
     * the same mg_buf. */
    mg_node queued;
    mg_hdr hdr; /* for mg_frame_hdr() and the like */
} mg_frame;

/* An INLINE frame with room for len payload bytes, uninitialised, to be written through
 * mg_frame_payload(). hdr is copied, its len is replaced by len. Returns a new reference; NULL
 * when memory is out or len exceeds 32 bits. */
mg_frame *mg_frame_new(const mg_hdr *hdr, size_t len);

/* A SEGMENTED frame of n segments, which may be 0, and each of which may be empty. Copies hdr
 * and segs and takes a reference on each buf; the caller keeps its own. The header's len becomes
 * the sum. Returns a new reference; NULL when memory is out or the sum exceeds 32 bits, and
 * nothing is referenced then. */
mg_frame *mg_frame_new_segs(const mg_hdr *hdr, const mg_seg *segs, size_t n);

/* mg_frame_ref returns f. The last mg_frame_unref drops the segments' references (so a drop
 * function of mg_buf_wrap may run) and frees f; NULL is allowed. Any thread. */
mg_frame *mg_frame_ref(mg_frame *f);
void mg_frame_unref(mg_frame *f);

/* Borrowed, valid as long as the reference. */
static inline const mg_hdr *mg_frame_hdr(const mg_frame *f)
{
    return &f->hdr;
}

/* The payload, in bytes. */
static inline size_t mg_frame_len(const mg_frame *f)
{
    return f->hdr.len;
}

/* Replaces auth_id, in the wire bytes too. Only while nobody else has a reference. */
void mg_frame_set_auth(mg_frame *f, uint32_t auth_id);

/* Header and payload, in bytes. */
static inline size_t mg_frame_wire_len(const mg_frame *f)
{
    return MG_HEADER_LEN + mg_frame_len(f);
}

/* How many bytes a message counts where a latch has a limit. */
static inline uint32_t mg_frame_counts(const mg_hdr *hdr)
{
    return hdr->len > UINT32_MAX - MG_HEADER_LEN ? UINT32_MAX : hdr->len + MG_HEADER_LEN;
}

/* Describes the wire bytes from offset skip on in at most max entries of iov; entries are never
 * empty. Returns the number filled, 0 when skip is the wire length or more. The memory is
 * borrowed from f. */
int mg_frame_iov(const mg_frame *f, size_t skip, struct iovec *iov, int max);

/* The payload of an INLINE frame in one piece, on a multiple of 8; NULL for another one. */
uint8_t *mg_frame_payload(const mg_frame *f);

/* The buffer in the hole, borrowed, NULL for a frame without one; and how much of the payload
 * comes before it. */
mg_buf *mg_frame_hole(const mg_frame *f);
size_t mg_frame_hole_at(const mg_frame *f);

/* The payload of a frame WITH A HOLE but for what is in the hole, in one piece, mg_frame_len(f) -
 * mg_buf_len(mg_frame_hole(f)) bytes. */
const uint8_t *mg_frame_around_hole(const mg_frame *f);

/* Copies the payload of any frame, mg_frame_len(f) bytes, to dst. */
void mg_frame_copy_payload(const mg_frame *f, void *dst);

/* For the decoder, which fills a frame as its bytes arrive: an INLINE frame whose header says
 * hdr->len but which has room for the first `room` payload bytes only; and the same frame,
 * perhaps moved, with more room. mg_frame_grow needs the only reference; when memory is out it
 * returns NULL and leaves f as it was. */
mg_frame *mg_frame_new_room(const mg_hdr *hdr, size_t room);
mg_frame *mg_frame_grow(mg_frame *f, size_t room);

/* For the decoder as well: a frame WITH A HOLE, where hole[] belongs after `at` bytes of the
 * payload and lies within it. Takes over the reference, also when memory is out and it returns
 * NULL. */
mg_frame *mg_frame_new_hole(const mg_hdr *hdr, mg_buf *hole, size_t at);

/* Where byte `at` of the payload of such a frame, or of an INLINE one, stands. *run: how many
 * stand there in a row, to the end of the payload or to where the hole begins or ends. */
uint8_t *mg_frame_at(const mg_frame *f, size_t at, size_t *run);

#endif
