/* The input of a stream is, in order: the frames taken, then either a large frame with a gap, or
 * a window of bytes.
 *
 *   big == NULL                 the window holds what comes next
 *   big with a gap              what comes next goes into the gap; the window is empty
 *   big complete                big comes next, then the window
 *
 * The window lies in the scratch during a turn, and in `own` otherwise. It moves from one to the
 * other at begin and end. */
#include "wire/decoder.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/block.h"

/* Some systems refuse to read more than INT_MAX bytes at once. */
#define MAX_READ ((size_t) 1 << 30)

void mg_decoder_init(mg_decoder *d, uint64_t max_size)
{
    memset(d, 0, sizeof *d);
    d->large = MG_DECODER_LARGE;
    d->step = MG_DECODER_STEP;
    d->direct = MG_DECODER_DIRECT;
    atomic_init(&d->max_size, max_size);
}

void mg_decoder_fini(mg_decoder *d)
{
    mg_frame_unref(d->big);
    mg_free(d->own);
    mg_decoder_init(d, mg_decoder_max_size(d));
}

/* Relaxed: the limit guards nothing else, it only must not be torn. */
void mg_decoder_set_max_size(mg_decoder *d, uint64_t max_size)
{
    atomic_store_explicit(&d->max_size, max_size, memory_order_relaxed);
}

uint64_t mg_decoder_max_size(const mg_decoder *d)
{
    return atomic_load_explicit(&d->max_size, memory_order_relaxed);
}

static mg_err fail(mg_decoder *d, mg_err err)
{
    d->err = err;
    return err;
}

static size_t left_in(const mg_decoder *d)
{
    return d->end - d->pos;
}

static int has_gap(const mg_decoder *d)
{
    return d->big && d->big_have < mg_frame_len(d->big);
}

const mg_hdr *mg_decoder_arriving(const mg_decoder *d)
{
    return has_gap(d) ? mg_frame_hdr(d->big) : NULL;
}

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- the window ---- */

static void set_window(mg_decoder *d, uint8_t *base, size_t len, size_t cap)
{
    d->base = base;
    d->pos = 0;
    d->end = len;
    d->cap = cap;
}

/* Moves the window into `own`, which gets room for at least `room` bytes behind it. */
static mg_err window_to_own(mg_decoder *d, size_t room)
{
    size_t left = left_in(d);
    size_t need = left + room;
    size_t cap;
    uint8_t *own;

    if (need < left)
        return fail(d, MG_ENOMEM);
    if (need <= d->own_cap) {
        if (left)
            memmove(d->own, d->base + d->pos, left);
    } else {
        cap = at_least(need, d->own_cap <= SIZE_MAX / 2 ? d->own_cap * 2 : 0);
        own = mg_malloc(cap);
        if (!own)
            return fail(d, MG_ENOMEM);
        if (left)
            memcpy(own, d->base + d->pos, left);
        mg_free(d->own);
        d->own = own;
        d->own_cap = cap;
    }
    set_window(d, d->own, left, d->own_cap);
    return MG_OK;
}

/* Makes room for n bytes behind the window. */
static mg_err window_reserve(mg_decoder *d, size_t n)
{
    if (d->cap - d->end >= n)
        return MG_OK;
    /* Asking for as much room again as there are bytes makes the moves rare: each byte moves a
     * few times at most. */
    return window_to_own(d, at_least(n, left_in(d)));
}

/* The window is in `own` and waits for input: frees what it does not need. */
static void own_settle(mg_decoder *d)
{
    size_t left = left_in(d);
    uint8_t *own;

    if (!left) {
        mg_free(d->own);
        d->own = NULL;
        d->own_cap = 0;
        set_window(d, NULL, 0, 0);
        return;
    }
    /* By a quarter, so that shrinking and growing do not alternate; and not for a few bytes. */
    if (d->own_cap < 4096 || left > d->own_cap / 4)
        return;
    memmove(d->own, d->base + d->pos, left);
    own = mg_realloc(d->own, left);
    if (own) {
        d->own = own;
        d->own_cap = left;
    }
    set_window(d, d->own, left, d->own_cap);
}

/* ---- the large frame ---- */

/* Sees to it that a gap has storage for its first byte, and for `want` bytes where the announced
 * length allows. */
static mg_err big_reserve(mg_decoder *d, size_t want)
{
    size_t len = mg_frame_len(d->big);
    size_t need = d->big_have + at_most(want, len - d->big_have);
    size_t room = d->big_room;
    mg_frame *f;

    if (need <= room)
        return MG_OK;
    while (room < need)
        room = room > len / 2 ? len : at_least(room * 2, at_most(d->step, len));
    f = mg_frame_grow(d->big, room);
    if (!f)
        return fail(d, MG_ENOMEM);
    d->big = f;
    d->big_room = room;
    return MG_OK;
}

/* The first byte that is missing, and how many there is storage for in a row. */
static uint8_t *big_gap(const mg_decoder *d, size_t *rest)
{
    uint8_t *gap = mg_frame_at(d->big, d->big_have, rest);
    *rest = at_most(*rest, d->big_room - d->big_have);
    return gap;
}

/* Copies as many of the n bytes as belong to the large frame into it. *taken: how many. */
static mg_err big_fill(mg_decoder *d, const uint8_t *ptr, size_t n, size_t *taken)
{
    size_t run;

    n = at_most(n, mg_frame_len(d->big) - d->big_have);
    *taken = n;
    if (!n)
        return MG_OK;
    if (big_reserve(d, n))
        return d->err;
    for (size_t done = 0; done < n; done += run) {
        uint8_t *to = mg_frame_at(d->big, d->big_have, &run);
        run = at_most(run, n - done);
        memcpy(to, ptr + done, run);
        d->big_have += run;
    }
    return MG_OK;
}

/* The window holds a header and a part of its payload, which is large: moves all of it into
 * storage of its own. */
static mg_err big_start(mg_decoder *d, const mg_hdr *hdr)
{
    size_t room = at_most(hdr->len, at_least(d->step, left_in(d) - MG_HEADER_LEN));
    size_t taken, at = 0;
    mg_buf *hole =
        d->land ? d->land(d->land_arg, hdr, d->base + d->pos + MG_HEADER_LEN, left_in(d) - MG_HEADER_LEN, &at) : NULL;

    if (hole || mg_block_has_spare(hdr->len))
        room = hdr->len; /* only address space, which costs nothing */

    d->big = hole ? mg_frame_new_hole(hdr, hole, at) : mg_frame_new_room(hdr, room);
    if (!d->big)
        return fail(d, MG_ENOMEM);
    d->big_have = 0;
    d->big_room = room;
    d->pos += MG_HEADER_LEN;
    if (big_fill(d, d->base + d->pos, left_in(d), &taken))
        return d->err;
    d->pos += taken;
    assert(d->pos == d->end);
    return MG_OK;
}

/* ---- a turn ---- */

/* Where to read while a large frame has a gap: the rest of its storage and, when that closes the
 * gap, the scratch after it. */
static int begin_big(mg_decoder *d, uint8_t *scratch, size_t cap, struct iovec iov[2])
{
    size_t rest;

    if (big_reserve(d, 1))
        return 0;
    set_window(d, scratch, 0, cap);
    iov[0].iov_base = big_gap(d, &rest);
    iov[0].iov_len = at_most(rest, MAX_READ);
    if (d->big_room < mg_frame_len(d->big) || rest > MAX_READ)
        return 1;
    iov[1].iov_base = scratch;
    iov[1].iov_len = d->direct_last ? at_most(cap, MG_DECODER_HEAD) : cap;
    return 2;
}

int mg_decoder_begin(mg_decoder *d, uint8_t *scratch, size_t cap, struct iovec iov[2])
{
    size_t left = left_in(d);

    assert(cap >= MG_DECODER_MIN_SCRATCH);
    if (d->err)
        return 0;
    if (has_gap(d))
        return begin_big(d, scratch, cap, iov);
    /* A part of a small frame always goes to the scratch. Many whole frames do so only while
     * enough space to read stays. */
    if (left < MG_DECODER_MIN_SCRATCH || left <= cap - MG_DECODER_MIN_SCRATCH) {
        if (left)
            memmove(scratch, d->base + d->pos, left);
        set_window(d, scratch, left, cap);
    } else if (window_reserve(d, MG_DECODER_MIN_SCRATCH)) {
        return 0;
    }
    iov[0].iov_base = d->base + d->end;
    iov[0].iov_len = d->cap - d->end;
    if (d->direct_last && !left)
        iov[0].iov_len = at_most(iov[0].iov_len, MG_DECODER_HEAD);
    return 1;
}

void mg_decoder_commit(mg_decoder *d, size_t n)
{
    size_t to_big = 0;

    if (d->err)
        return;
    if (has_gap(d)) {
        big_gap(d, &to_big);
        to_big = at_most(n, to_big);
    }
    d->big_have += to_big;
    d->end += n - to_big;
    assert(d->end <= d->cap);
    if (has_gap(d) && left_in(d)) {
        /* the bytes after the hole: there is room for all of them, so this cannot fail */
        size_t taken;
        big_fill(d, d->base + d->pos, left_in(d), &taken);
        d->pos += taken;
    }
}

/* Takes the next frame out of the window, or begins a large frame. */
static mg_err take(mg_decoder *d, mg_frame **out)
{
    size_t left = left_in(d);
    const uint8_t *in;
    mg_hdr hdr;

    if (left < MG_HEADER_LEN)
        return MG_EAGAIN;
    in = d->base + d->pos;
    mg_hdr_decode(&hdr, in);
    d->bad = hdr;
    d->direct_last = d->land && hdr.len >= d->direct;
    if (!mg_enc_known(hdr.enc))
        return fail(d, MG_ECORRUPT);
    if (hdr.len > mg_decoder_max_size(d))
        return fail(d, MG_ETOOBIG);
    if (left - MG_HEADER_LEN < hdr.len) {
        if (hdr.len >= d->large && big_start(d, &hdr))
            return d->err;
        return MG_EAGAIN;
    }
    *out = mg_frame_new(&hdr, hdr.len);
    if (!*out)
        return fail(d, MG_ENOMEM);
    memcpy(mg_frame_payload(*out), in + MG_HEADER_LEN, hdr.len);
    d->pos += MG_HEADER_LEN + (size_t) hdr.len;
    return MG_OK;
}

mg_err mg_decoder_next(mg_decoder *d, mg_frame **out)
{
    mg_err err;

    *out = NULL;
    if (d->err)
        return d->err;
    if (d->big) {
        if (has_gap(d))
            return MG_EAGAIN;
        *out = d->big;
        d->big = NULL;
        return MG_OK;
    }
    err = take(d, out);
    if (err == MG_EAGAIN && d->own && d->base == d->own)
        own_settle(d);
    return err;
}

mg_err mg_decoder_end(mg_decoder *d)
{
    mg_err err = d->err;

    if (err) {
        /* Nothing will be decoded any more: the header is kept for the error message. */
        mg_frame_unref(d->big);
        d->big = NULL;
        d->end = d->pos + at_most(left_in(d), MG_DECODER_PENDING);
    }
    if (left_in(d) && d->base != d->own && window_to_own(d, 0))
        set_window(d, NULL, 0, 0);
    if (!left_in(d))
        set_window(d, d->own, 0, d->own_cap);
    if (d->own)
        own_settle(d);
    if (err)
        d->err = err; /* the first error is the one that counts */
    return d->err;
}

mg_err mg_decoder_feed(mg_decoder *d, const void *ptr, size_t n)
{
    const uint8_t *from = ptr;
    size_t taken = 0;

    if (d->err)
        return d->err;
    if (has_gap(d) && big_fill(d, from, n, &taken))
        return d->err;
    n -= taken;
    if (!n)
        return MG_OK;
    if (window_reserve(d, n))
        return d->err;
    memcpy(d->base + d->end, from + taken, n);
    d->end += n;
    return MG_OK;
}

int mg_decoder_has_data(const mg_decoder *d)
{
    mg_hdr hdr;

    if (d->err)
        return 1;
    if (d->big)
        return !has_gap(d);
    if (left_in(d) < MG_HEADER_LEN)
        return 0;
    mg_hdr_decode(&hdr, d->base + d->pos);
    return !mg_enc_known(hdr.enc) || hdr.len > mg_decoder_max_size(d) || left_in(d) - MG_HEADER_LEN >= hdr.len;
}

uint64_t mg_decoder_kept(const mg_decoder *d)
{
    return (d->big ? (uint64_t) MG_HEADER_LEN + d->big_have : 0) + left_in(d);
}

void mg_decoder_pending(const mg_decoder *d, const uint8_t **ptr, size_t *len)
{
    *len = at_most(left_in(d), MG_DECODER_PENDING);
    *ptr = *len ? d->base + d->pos : NULL;
}
