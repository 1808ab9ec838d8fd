#include "wire/frame.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/block.h"

/* Where the fields stand in the wire bytes. */
enum { AT_ENC = 0, AT_DST = 2, AT_SRC = 6, AT_AUTH = 10, AT_HANDLE = 14, AT_REPLY = 18, AT_LEN = 22 };

/* A frame as it lies in memory. */
typedef struct {
    mg_frame front; /* what others see */
    _Atomic uint32_t refs;
    uint32_t n_segs;
    size_t size;    /* of this allocation; from MG_BLOCK_MIN on it is a block */
    mg_seg *segs;   /* NULL: INLINE. Else n_segs entries, each with a reference, behind the wire header */
    mg_buf *hole;   /* WITH A HOLE: the bytes that belong there, with a reference; else NULL */
    size_t hole_at; /* how much of the payload comes before it */
    _Alignas(8) uint8_t lead[6]; /* puts the payload on a multiple of 8 */
    uint8_t wire[];              /* the header's wire bytes; INLINE: and the payload */
} body;

_Static_assert(AT_LEN + 4 == MG_HEADER_LEN, "the header has no gaps");
_Static_assert((offsetof(body, wire) + MG_HEADER_LEN) % 8 == 0, "the payload stands on a multiple of 8");
_Static_assert(_Alignof(mg_seg) <= 8, "the segments stand where a payload would");
_Static_assert(offsetof(body, front) == 0, "a frame is where its visible part is");

/* A process that gets a few frames of this size at once, such as the parts of a file, has its
 * heap shrink and grow. */
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

static body *body_of(const mg_frame *f)
{
    return (body *) (void *) f;
}

static uint8_t *payload_of(const body *b)
{
    return (uint8_t *) b->wire + MG_HEADER_LEN;
}

static void free_body(body *b)
{
    if (b->size < MG_BLOCK_MIN)
        mg_free(b);
    else
        mg_block_free(b, b->size);
}

/* The size of a body with `extra` bytes behind the wire header; 0 when there is no such size. */
static size_t body_size(size_t extra)
{
    return extra > SIZE_MAX - sizeof(body) - MG_HEADER_LEN ? 0 : sizeof(body) + MG_HEADER_LEN + extra;
}

static body *alloc_body(size_t size)
{
    if (size >= KEEP_HEAP_FROM)
        mg_alloc_keep_heap();
    return size < MG_BLOCK_MIN ? mg_malloc(size) : mg_block_new(size);
}

/* Allocates `extra` bytes behind the wire header and sets everything but n_segs and segs, which
 * say INLINE. */
static body *new_body(const mg_hdr *hdr, uint32_t len, size_t extra)
{
    size_t size = body_size(extra);
    body *b = size ? alloc_body(size) : NULL;
    if (!b)
        return NULL;
    b->front = (mg_frame) {.hdr = *hdr};
    b->front.hdr.len = len;
    atomic_init(&b->refs, 1);
    b->size = size;
    b->n_segs = 0;
    b->segs = NULL;
    b->hole = NULL;
    b->hole_at = 0;
    mg_hdr_encode(b->wire, &b->front.hdr);
    return b;
}

static mg_frame *front_of(body *b)
{
    return b ? &b->front : NULL;
}

/* --- one piece --- */

mg_frame *mg_frame_new(const mg_hdr *hdr, size_t len)
{
    return len > UINT32_MAX ? NULL : front_of(new_body(hdr, (uint32_t) len, len));
}

mg_frame *mg_frame_new_room(const mg_hdr *hdr, size_t room)
{
    return front_of(new_body(hdr, hdr->len, room));
}

/* Moves what is in b to another allocation of `size` bytes, one of which is a block and one is
 * not. */
static body *move_body(body *b, size_t size)
{
    body *moved = alloc_body(size);
    if (!moved)
        return NULL;
    memcpy(moved, b, b->size < size ? b->size : size);
    free_body(b);
    return moved;
}

mg_frame *mg_frame_grow(mg_frame *f, size_t room)
{
    body *b = body_of(f), *grown;
    size_t size = body_size(room);
    assert(!b->segs && !b->hole && atomic_load_explicit(&b->refs, memory_order_relaxed) == 1);
    if (!size)
        return NULL;
    if (size < MG_BLOCK_MIN && b->size < MG_BLOCK_MIN)
        grown = mg_realloc(b, size);
    else if (size >= MG_BLOCK_MIN && b->size >= MG_BLOCK_MIN)
        grown = mg_block_resize(b, b->size, size);
    else
        grown = move_body(b, size);
    if (grown)
        grown->size = size;
    return front_of(grown);
}

uint8_t *mg_frame_payload(const mg_frame *f)
{
    const body *b = body_of(f);
    return b->segs || b->hole ? NULL : payload_of(b);
}

/* --- with a hole --- */

mg_frame *mg_frame_new_hole(const mg_hdr *hdr, mg_buf *hole, size_t at)
{
    assert(at <= hdr->len && mg_buf_len(hole) <= hdr->len - at);
    body *b = new_body(hdr, hdr->len, hdr->len - mg_buf_len(hole));
    if (!b) {
        mg_buf_unref(hole);
        return NULL;
    }
    b->hole = hole;
    b->hole_at = at;
    return &b->front;
}

mg_buf *mg_frame_hole(const mg_frame *f)
{
    return body_of(f)->hole;
}

size_t mg_frame_hole_at(const mg_frame *f)
{
    return body_of(f)->hole_at;
}

const uint8_t *mg_frame_around_hole(const mg_frame *f)
{
    assert(body_of(f)->hole);
    return payload_of(body_of(f));
}

uint8_t *mg_frame_at(const mg_frame *f, size_t at, size_t *run)
{
    const body *b = body_of(f);
    size_t len = b->hole ? mg_buf_len(b->hole) : 0, end = b->hole_at + len;

    assert(!b->segs && at <= f->hdr.len);
    if (b->hole && at < b->hole_at) {
        *run = b->hole_at - at;
        return payload_of(b) + at;
    }
    if (b->hole && at < end) {
        *run = end - at;
        return mg_buf_ptr(b->hole) + (at - b->hole_at);
    }
    *run = f->hdr.len - at;
    return payload_of(b) + (at - len);
}

/* --- segments --- */

/* The sum of their lengths, UINT64_MAX when that exceeds 32 bits. */
static uint64_t segs_len(const mg_seg *segs, size_t n)
{
    uint64_t len = 0;
    for (size_t i = 0; i < n; i++) {
        assert(segs[i].off <= mg_buf_len(segs[i].buf) && segs[i].len <= mg_buf_len(segs[i].buf) - segs[i].off);
        if (segs[i].len > UINT32_MAX - len)
            return UINT64_MAX;
        len += segs[i].len;
    }
    return len;
}

mg_frame *mg_frame_new_segs(const mg_hdr *hdr, const mg_seg *segs, size_t n)
{
    if (n > UINT32_MAX || n > SIZE_MAX / sizeof *segs)
        return NULL;
    uint64_t len = segs_len(segs, n);
    body *b = len <= UINT32_MAX ? new_body(hdr, (uint32_t) len, n * sizeof *segs) : NULL;
    if (!b)
        return NULL;
    b->n_segs = (uint32_t) n;
    b->segs = (mg_seg *) (void *) payload_of(b);
    for (size_t i = 0; i < n; i++) {
        b->segs[i] = segs[i];
        mg_buf_ref(segs[i].buf);
    }
    return &b->front;
}

/* --- any frame --- */

mg_frame *mg_frame_ref(mg_frame *f)
{
    /* Relaxed: the caller has a reference already. */
    atomic_fetch_add_explicit(&body_of(f)->refs, 1, memory_order_relaxed);
    return f;
}

void mg_frame_unref(mg_frame *f)
{
    body *b = body_of(f);

    /* Release and acquire as in mg_buf_unref(). */
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < b->n_segs; i++)
        mg_buf_unref(b->segs[i].buf);
    mg_buf_unref(b->hole);
    free_body(b);
}

void mg_frame_set_auth(mg_frame *f, uint32_t auth_id)
{
    body *b = body_of(f);
    assert(atomic_load_explicit(&b->refs, memory_order_relaxed) == 1);
    f->hdr.auth_id = auth_id;
    put32(b->wire + AT_AUTH, auth_id);
}

/* Adds ptr[*skip..len) as an entry; or, when *skip reaches beyond it, takes len off *skip.
 * Returns the entries added. */
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

static int iov_with_hole(const body *b, size_t skip, struct iovec *iov, int max)
{
    size_t before = MG_HEADER_LEN + b->hole_at, len = mg_buf_len(b->hole);
    int n = add_piece(iov, b->wire, before, &skip);
    if (n < max)
        n += add_piece(iov + n, mg_buf_ptr(b->hole), len, &skip);
    if (n < max)
        n += add_piece(iov + n, b->wire + before, b->front.hdr.len - b->hole_at - len, &skip);
    return n;
}

static int iov_of_segs(const body *b, size_t skip, struct iovec *iov, int max)
{
    int n = add_piece(iov, b->wire, MG_HEADER_LEN, &skip);
    for (uint32_t i = 0; i < b->n_segs && n < max; i++)
        n += add_piece(iov + n, mg_buf_ptr(b->segs[i].buf) + b->segs[i].off, b->segs[i].len, &skip);
    return n;
}

int mg_frame_iov(const mg_frame *f, size_t skip, struct iovec *iov, int max)
{
    const body *b = body_of(f);
    if (max <= 0)
        return 0;
    if (b->segs)
        return iov_of_segs(b, skip, iov, max);
    if (b->hole)
        return iov_with_hole(b, skip, iov, max);
    return add_piece(iov, b->wire, mg_frame_wire_len(f), &skip);
}

static void copy_segs(const body *b, uint8_t *to)
{
    for (uint32_t i = 0; i < b->n_segs; i++) {
        if (b->segs[i].len)
            memcpy(to, mg_buf_ptr(b->segs[i].buf) + b->segs[i].off, b->segs[i].len);
        to += b->segs[i].len;
    }
}

void mg_frame_copy_payload(const mg_frame *f, void *dst)
{
    if (body_of(f)->segs) {
        copy_segs(body_of(f), dst);
        return;
    }
    size_t run;
    for (size_t at = 0; at < f->hdr.len; at += run) {
        const uint8_t *from = mg_frame_at(f, at, &run);
        memcpy((uint8_t *) dst + at, from, run);
    }
}
