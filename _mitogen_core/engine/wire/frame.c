#include "wire/frame.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/block.h"

/* Where the fields stand in the wire bytes. */
enum { AT_ENC = 0, AT_DST = 2, AT_SRC = 6, AT_AUTH = 10, AT_HANDLE = 14, AT_REPLY = 18, AT_LEN = 22 };

_Static_assert(AT_LEN + 4 == MG_HEADER_LEN, "the header has no gaps");
_Static_assert((offsetof(mg_frame, wire) + MG_HEADER_LEN) % 8 == 0, "the payload stands on a multiple of 8");
_Static_assert(_Alignof(mg_seg) <= 8, "the segments stand where a payload would");

/* Whoever gets a few frames of this size at once, such as the parts of a file, has the C library's heap shrink and grow. */
#define KEEP_HEAP_FROM ((size_t) 64 << 10)

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t) (v >> 24);
    p[1] = (uint8_t) (v >> 16);
    p[2] = (uint8_t) (v >> 8);
    p[3] = (uint8_t) v;
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

void mg_hdr_encode(uint8_t out[MG_HEADER_LEN], const mg_hdr *hdr)
{
    uint16_t enc = (uint16_t) hdr->enc;

    out[AT_ENC] = (uint8_t) (enc >> 8);
    out[AT_ENC + 1] = (uint8_t) enc;
    put32(out + AT_DST, hdr->dst_id);
    put32(out + AT_SRC, hdr->src_id);
    put32(out + AT_AUTH, hdr->auth_id);
    put32(out + AT_HANDLE, hdr->handle);
    put32(out + AT_REPLY, hdr->reply_to);
    put32(out + AT_LEN, hdr->len);
}

void mg_hdr_decode(mg_hdr *hdr, const uint8_t in[MG_HEADER_LEN])
{
    int enc = in[AT_ENC] << 8 | in[AT_ENC + 1];

    /* By arithmetic, as the conversion of a value out of range is the compiler's choice. */
    hdr->enc = (int16_t) (enc < 0x8000 ? enc : enc - 0x10000);
    hdr->dst_id = get32(in + AT_DST);
    hdr->src_id = get32(in + AT_SRC);
    hdr->auth_id = get32(in + AT_AUTH);
    hdr->handle = get32(in + AT_HANDLE);
    hdr->reply_to = get32(in + AT_REPLY);
    hdr->len = get32(in + AT_LEN);
}

int mg_enc_known(int16_t enc)
{
    return enc == MG_ENC_MGC || enc == MG_ENC_PKL || enc == MG_ENC_BIN;
}

static void frame_free(mg_frame *f)
{
    if (f->size < MG_BLOCK_MIN)
        mg_free(f);
    else
        mg_block_free(f, f->size);
}

/* Allocates `extra` bytes behind the wire header and sets everything but n_segs and segs, which say INLINE. */
static mg_frame *frame_alloc(const mg_hdr *hdr, uint32_t len, size_t extra)
{
    mg_frame *f;

    if (extra > SIZE_MAX - sizeof *f - MG_HEADER_LEN)
        return NULL;
    size_t size = sizeof *f + MG_HEADER_LEN + extra;
    if (size >= KEEP_HEAP_FROM)
        mg_alloc_keep_heap();
    f = size < MG_BLOCK_MIN ? mg_malloc(size) : mg_block_new(size);
    if (!f)
        return NULL;
    f->size = size;
    f->next = NULL;
    atomic_init(&f->refs, 1);
    f->n_segs = 0;
    f->segs = NULL;
    f->hole = NULL;
    f->hole_at = 0;
    f->hdr = *hdr;
    f->hdr.len = len;
    mg_hdr_encode(f->wire, &f->hdr);
    return f;
}

mg_frame *mg_frame_new(const mg_hdr *hdr, size_t len)
{
    if (len > UINT32_MAX)
        return NULL;
    return frame_alloc(hdr, (uint32_t) len, len);
}

mg_frame *mg_frame_new_room(const mg_hdr *hdr, size_t room)
{
    return frame_alloc(hdr, hdr->len, room);
}

mg_frame *mg_frame_new_hole(const mg_hdr *hdr, mg_buf *hole, size_t at)
{
    assert(at <= hdr->len && mg_buf_len(hole) <= hdr->len - at);
    mg_frame *f = frame_alloc(hdr, hdr->len, hdr->len - mg_buf_len(hole));
    if (!f) {
        mg_buf_unref(hole);
        return NULL;
    }
    f->hole = hole;
    f->hole_at = at;
    return f;
}

uint8_t *mg_frame_at(const mg_frame *f, size_t at, size_t *run)
{
    uint8_t *own = (uint8_t *) f->wire + MG_HEADER_LEN;
    size_t len = f->hole ? mg_buf_len(f->hole) : 0, end = f->hole_at + len;

    assert(!f->segs && at <= f->hdr.len);
    if (f->hole && at < f->hole_at) {
        *run = f->hole_at - at;
        return own + at;
    }
    if (f->hole && at < end) {
        *run = end - at;
        return mg_buf_ptr(f->hole) + (at - f->hole_at);
    }
    *run = f->hdr.len - at;
    return own + (at - len);
}

mg_frame *mg_frame_grow(mg_frame *f, size_t room)
{
    assert(!f->segs && !f->hole && atomic_load_explicit(&f->refs, memory_order_relaxed) == 1);
    if (room > SIZE_MAX - sizeof *f - MG_HEADER_LEN)
        return NULL;
    size_t size = sizeof *f + MG_HEADER_LEN + room, old = f->size;
    mg_frame *grown;
    if (size < MG_BLOCK_MIN && old < MG_BLOCK_MIN) {
        grown = mg_realloc(f, size);
    } else if (size >= MG_BLOCK_MIN && old >= MG_BLOCK_MIN) {
        grown = mg_block_resize(f, old, size);
    } else {
        grown = size < MG_BLOCK_MIN ? mg_malloc(size) : mg_block_new(size);
        if (grown) {
            memcpy(grown, f, old < size ? old : size);
            frame_free(f);
        }
    }
    if (grown)
        grown->size = size;
    return grown;
}

mg_frame *mg_frame_new_segs(const mg_hdr *hdr, const mg_seg *segs, size_t n)
{
    mg_frame *f;
    uint64_t len = 0;
    size_t i;

    if (n > UINT32_MAX || n > SIZE_MAX / sizeof *segs)
        return NULL;
    for (i = 0; i < n; i++) {
        assert(segs[i].off <= mg_buf_len(segs[i].buf) && segs[i].len <= mg_buf_len(segs[i].buf) - segs[i].off);
        if (segs[i].len > UINT32_MAX - len)
            return NULL;
        len += segs[i].len;
    }
    f = frame_alloc(hdr, (uint32_t) len, n * sizeof *segs);
    if (!f)
        return NULL;
    f->n_segs = (uint32_t) n;
    f->segs = (mg_seg *) (void *) (f->wire + MG_HEADER_LEN);
    for (i = 0; i < n; i++) {
        f->segs[i] = segs[i];
        mg_buf_ref(segs[i].buf);
    }
    return f;
}

mg_frame *mg_frame_ref(mg_frame *f)
{
    /* Relaxed: the caller has a reference already. */
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void mg_frame_unref(mg_frame *f)
{
    uint32_t i;

    /* Release and acquire as in mg_buf_unref(). */
    if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (i = 0; i < f->n_segs; i++)
        mg_buf_unref(f->segs[i].buf);
    mg_buf_unref(f->hole);
    frame_free(f);
}

void mg_frame_set_auth(mg_frame *f, uint32_t auth_id)
{
    assert(atomic_load_explicit(&f->refs, memory_order_relaxed) == 1);
    f->hdr.auth_id = auth_id;
    put32(f->wire + AT_AUTH, auth_id);
}

size_t mg_frame_wire_len(const mg_frame *f)
{
    return MG_HEADER_LEN + (size_t) f->hdr.len;
}

uint8_t *mg_frame_payload(const mg_frame *f)
{
    return f->segs || f->hole ? NULL : (uint8_t *) f->wire + MG_HEADER_LEN;
}

const uint8_t *mg_frame_around_hole(const mg_frame *f)
{
    assert(f->hole);
    return f->wire + MG_HEADER_LEN;
}

/* Adds ptr[*skip..len) as an entry; or, when *skip reaches beyond it, takes len off *skip. Returns the entries added.
 * */
static int add_piece(struct iovec *iov, const uint8_t *ptr, size_t len, size_t *skip)
{
    size_t from = *skip;

    if (from >= len) {
        *skip = from - len;
        return 0;
    }
    *skip = 0;
    iov->iov_base = (void *) (ptr + from); /* struct iovec has no const form */
    iov->iov_len = len - from;
    return 1;
}

int mg_frame_iov(const mg_frame *f, size_t skip, struct iovec *iov, int max)
{
    uint32_t i;
    int n = 0;

    if (max <= 0)
        return 0;
    if (f->hole) {
        size_t before = MG_HEADER_LEN + f->hole_at, len = mg_buf_len(f->hole);
        n += add_piece(iov, f->wire, before, &skip);
        if (n < max)
            n += add_piece(iov + n, mg_buf_ptr(f->hole), len, &skip);
        if (n < max)
            n += add_piece(iov + n, f->wire + before, f->hdr.len - f->hole_at - len, &skip);
        return n;
    }
    if (!f->segs)
        return add_piece(iov, f->wire, mg_frame_wire_len(f), &skip);
    n += add_piece(iov, f->wire, MG_HEADER_LEN, &skip);
    for (i = 0; i < f->n_segs && n < max; i++)
        n += add_piece(iov + n, mg_buf_ptr(f->segs[i].buf) + f->segs[i].off, f->segs[i].len, &skip);
    return n;
}

void mg_frame_copy_payload(const mg_frame *f, void *dst)
{
    uint8_t *to = dst;
    uint32_t i;

    if (!f->hdr.len)
        return;
    if (!f->segs) {
        size_t run;
        for (size_t at = 0; at < f->hdr.len; at += run) {
            const uint8_t *from = mg_frame_at(f, at, &run);
            memcpy(to + at, from, run);
        }
        return;
    }
    for (i = 0; i < f->n_segs; i++) {
        if (f->segs[i].len)
            memcpy(to, mg_buf_ptr(f->segs[i].buf) + f->segs[i].off, f->segs[i].len);
        to += f->segs[i].len;
    }
}
