/* Decodes the same bytes three ways and compares: by a plain walk over the headers, by the decoder in one piece, and
 * by the decoder in pieces, turns and stops that the input chooses. Then encodes each frame again and compares with
 * the input.
 *
 * Input: flags, step, limit (2 bytes), n, n bytes of script, then the stream. With flag BUILD the stream is made of
 * well-formed frames, 8 bytes of input describing each; then the payload sizes reach beyond what a fuzzer would write
 * out. */
#include <stdint.h>
#include <string.h>

#include "wire/decoder.h"
#include "test/test.h"

enum { BUILD = 1, SMALL_LARGE = 2, BIG_LIMIT = 4, SMALL_STEP = 8, HUGE_LIMIT = 16, DEFAULT_STEP = 32 };

#define MAX_STREAM (1u << 17)

/* Instead of MG_DECODER_STEP, which costs ASan a millisecond each time. */
#define STEP 70000

static uint8_t built[MAX_STREAM];
static uint8_t scratch[MG_DECODER_MIN_SCRATCH + 3];

struct source {
    const uint8_t *ptr;
    size_t len;
};

static unsigned take_byte(struct source *s)
{
    if (!s->len)
        return 0;
    s->len--;
    return *s->ptr++;
}

/* The stream as it ought to be decoded: up to where, into how many frames, and what ends it. */
struct truth {
    struct source stream;
    uint64_t limit;
    size_t good;
    size_t frames;
    mg_err err; /* MG_EAGAIN: the input ends */
};

static void find_truth(struct truth *t)
{
    const uint8_t *p;
    size_t left, len;

    t->good = t->frames = 0;
    for (;;) {
        p = t->stream.ptr + t->good;
        left = t->stream.len - t->good;
        t->err = MG_EAGAIN;
        if (left < 26)
            return;
        t->err = MG_ECORRUPT;
        if (p[0] != 'M' || p[1] < 'I' || p[1] > 'K')
            return;
        len = (size_t) p[22] << 24 | (size_t) p[23] << 16 | (size_t) p[24] << 8 | p[25];
        t->err = MG_ETOOBIG;
        if (len > t->limit)
            return;
        t->err = MG_EAGAIN;
        if (left - 26 < len)
            return;
        t->good += 26 + len;
        t->frames++;
    }
}

/* 64 KiB and a bit of bytes in which no place looks like another nearby. */
static const uint8_t *filler(void)
{
    static uint8_t bytes[65536 + 256];
    size_t i;

    if (!bytes[1])
        for (i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t) (i * 13 + (i >> 8));
    return bytes;
}

static struct source build_stream(struct source s)
{
    struct source out = {built, 0};
    size_t len, i;
    unsigned seed;

    while (s.len) {
        uint8_t *p = built + out.len;

        len = take_byte(&s) << 8;
        len |= take_byte(&s);
        seed = take_byte(&s);
        if (out.len + 26 + len > MAX_STREAM)
            break;
        p[0] = 'M';
        p[1] = (uint8_t) ('I' + seed % 3);
        for (i = 2; i < 22; i++)
            p[i] = (uint8_t) (i % 4 ? seed * i : take_byte(&s));
        p[22] = p[23] = 0;
        p[24] = (uint8_t) (len >> 8);
        p[25] = (uint8_t) len;
        memcpy(p + 26, filler() + seed, len);
        out.len += 26 + len;
    }
    return out;
}

/* Writes f out again, in both forms, and compares with the stream at `at`. */
static void check_encoding(const struct truth *t, size_t at, mg_frame *f)
{
    const uint8_t *want = t->stream.ptr + at;
    size_t len = mg_frame_wire_len(f);
    mg_buf *buf = mg_buf_wrap(want, len, NULL, NULL);
    mg_seg segs[3] = {{buf, 26, (len - 26) / 3}, {buf, 26 + (len - 26) / 3, 0}, {buf, 26 + (len - 26) / 3, 0}};
    struct iovec iov[4];
    uint8_t header[26];
    mg_frame *g;
    size_t skip = at % (len + 1), done = skip;
    int n, i;

    CHECK(at + len <= t->good);
    mg_hdr_encode(header, mg_frame_hdr(f));
    CHECK(!memcmp(header, want, 26));
    CHECK(mg_frame_iov(f, 0, iov, 4) == 1 && iov[0].iov_len == len && !memcmp(iov[0].iov_base, want, len));
    segs[2].len = len - 26 - segs[0].len;
    g = mg_frame_new_segs(mg_frame_hdr(f), segs, 3);
    n = mg_frame_iov(g, skip, iov, 4);
    for (i = 0; i < n; i++) {
        CHECK(!memcmp(iov[i].iov_base, want + done, iov[i].iov_len));
        done += iov[i].iov_len;
    }
    CHECK(done == len);
    mg_frame_unref(g);
    mg_buf_unref(buf);
}

/* One decoding: the decoder, how much went in and came out. */
struct run {
    mg_decoder d;
    const struct truth *t;
    size_t in;
    size_t at;
    size_t frames;
};

static void run_init(struct run *r, const struct truth *t)
{
    mg_decoder_init(&r->d, t->limit);
    r->t = t;
    r->in = r->at = r->frames = 0;
}

/* Takes at most max frames. Returns what the last call said. */
static mg_err run_take(struct run *r, size_t max)
{
    mg_err err = MG_OK;
    mg_frame *f;
    int ready;

    while (max-- && !err) {
        ready = mg_decoder_has_data(&r->d);
        err = mg_decoder_next(&r->d, &f);
        CHECK(ready == (err != MG_EAGAIN));
        if (!err) {
            check_encoding(r->t, r->at, f);
            r->at += mg_frame_wire_len(f);
            r->frames++;
            mg_frame_unref(f);
        }
        if (!r->d.err)
            CHECK(mg_decoder_held(&r->d) == r->in - r->at);
    }
    return err;
}

static void run_read(struct run *r, size_t max)
{
    struct iovec iov[2];
    size_t got = 0, n;
    int i, n_iov = mg_decoder_begin(&r->d, scratch, sizeof scratch, iov);

    CHECK((n_iov == 0) == (r->d.err != MG_OK));
    for (i = 0; i < n_iov; i++) {
        CHECK(iov[i].iov_len > 0);
        n = r->t->stream.len - r->in;
        n = n < max - got ? n : max - got;
        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        memcpy(iov[i].iov_base, r->t->stream.ptr + r->in, n);
        r->in += n;
        got += n;
    }
    if (n_iov)
        mg_decoder_commit(&r->d, got);
}

static void run_end(struct run *r)
{
    mg_err had = r->d.err;
    size_t used = r->d.end < sizeof scratch ? r->d.end : sizeof scratch;

    CHECK(mg_decoder_end(&r->d) == had);
    memset(scratch, 0xee, used); /* somebody else's turn */
}

static void run_feed(struct run *r, size_t n)
{
    if (n > r->t->stream.len - r->in)
        n = r->t->stream.len - r->in;
    if (!mg_decoder_feed(&r->d, r->t->stream.ptr + r->in, n))
        r->in += n;
}

/* All frames are out; compares the outcome with the truth. */
static void run_finish(struct run *r)
{
    const struct truth *t = r->t;
    const uint8_t *ptr;
    size_t len, want;
    mg_err err = run_take(r, SIZE_MAX);

    CHECK(err == t->err && r->at == t->good && r->frames == t->frames);
    if (err != MG_EAGAIN) {
        want = r->in - r->at < MG_DECODER_PENDING ? r->in - r->at : MG_DECODER_PENDING;
        mg_decoder_pending(&r->d, &ptr, &len);
        CHECK(len == want && !memcmp(ptr, t->stream.ptr + r->at, len));
        CHECK(mg_decoder_end(&r->d) == err);
        mg_decoder_pending(&r->d, &ptr, &len);
        CHECK(len == want && !memcmp(ptr, t->stream.ptr + r->at, len));
    }
    mg_decoder_fini(&r->d);
}

static void run_script(struct run *r, struct source script)
{
    size_t i, size;

    for (i = 0; !r->d.err && r->in < r->t->stream.len; i++) {
        unsigned op = script.len ? script.ptr[i % script.len] : 0;

        /* Sizes up to 62, 6200 or 620000. Each pass of the script moves on, and a long stream by more than a byte. */
        size = (op >> 3) * (op & 4 ? (i & 1 ? 20000 : 200) : 2);
        if (i % script.len == 0)
            size += 1 + r->t->stream.len / 1024;
        switch (op & 3) {
        case 0: /* a turn as the loop does it */
            run_read(r, size);
            run_take(r, SIZE_MAX);
            run_end(r);
            break;
        case 1: /* a turn that stops early; some more outside it */
            run_read(r, size);
            run_take(r, i % 4);
            run_end(r);
            run_take(r, i % 3);
            break;
        case 2: /* from elsewhere */
            run_feed(r, size);
            run_take(r, i % 2 ? SIZE_MAX : 0);
            break;
        default: /* a turn with two reads and bytes from elsewhere */
            run_read(r, size);
            run_take(r, 1);
            run_read(r, size / 2);
            run_feed(r, size / 3);
            run_take(r, 2);
            run_end(r);
            break;
        }
    }
    run_end(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    static const uint8_t one_op[1] = {0};
    struct source s = {input, len};
    struct source script;
    struct truth t;
    struct run r;
    unsigned flags = take_byte(&s);
    size_t step = 1 + take_byte(&s);

    t.limit = take_byte(&s) << 8;
    t.limit |= take_byte(&s);
    if (flags & BIG_LIMIT)
        t.limit = flags & HUGE_LIMIT ? (uint64_t) 1 << 32 : 1 << 20;
    script.len = take_byte(&s) % 64;
    if (script.len > s.len)
        script.len = s.len;
    script.ptr = s.ptr;
    s.ptr += script.len;
    s.len -= script.len;
    if (!script.len)
        script = (struct source) {one_op, 1};
    t.stream = flags & BUILD ? build_stream(s) : s;
    find_truth(&t);

    run_init(&r, &t);
    if (!(flags & DEFAULT_STEP))
        r.d.step = STEP;
    run_feed(&r, t.stream.len);
    run_finish(&r);

    run_init(&r, &t);
    if (flags & SMALL_LARGE)
        r.d.large = step * 3;
    if (!(flags & DEFAULT_STEP))
        r.d.step = flags & SMALL_STEP ? step : STEP;
    run_script(&r, script);
    run_finish(&r);
    return 0;
}
