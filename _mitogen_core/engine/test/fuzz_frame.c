/* Decodes the same bytes three ways and compares: by a plain walk over the headers, by the
 * decoder in one piece, and by the decoder in pieces, turns and stops that the input chooses.
 * Then encodes each frame again and compares with the input.
 *
 * Input: flags, step, limit (2 bytes), n, n bytes of script, then the stream. With flag BUILD
 * the stream is made of well-formed frames, 8 bytes of input describing each; then the payload
 * sizes reach beyond what a fuzzer would write out. With flag LAND long byte strings are looked
 * for in large payloads, and have a place made for them to be read into. */
#include <stdint.h>
#include <string.h>

#include "test/test.h"
#include "wire/decoder.h"
#include "wire/landing.h"
#include "wire/peek.h"

enum { BUILD = 1, SMALL_LARGE = 2, BIG_LIMIT = 4, SMALL_STEP = 8, HUGE_LIMIT = 16, DEFAULT_STEP = 32, LAND = 64 };

#define MAX_STREAM (1u << 18)

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

/* Bytes that differ from place to place, so that a misplaced piece shows. */
static void fill(uint8_t *to, size_t len, unsigned seed)
{
    static uint8_t bytes[MAX_STREAM + 256];
    size_t i;

    if (!bytes[1])
        for (i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t) (i * 13 + (i >> 8));
    memcpy(to, bytes + seed, len);
}

/* The start of a payload of len bytes that is a pickle of one long byte string, with a name
 * before it for odd seeds. */
static void begin_pickle(uint8_t *payload, size_t len, unsigned seed)
{
    static const char name[] = "\x80\x02"
                               "cmitogen.core\nBlob\n";
    size_t at = seed & 1 ? sizeof name - 1 : 2, around = at + 5 + seed % 7;

    memcpy(payload, name, at);
    payload[at] = seed & 2 ? 'B' : 'T';
    for (int i = 0; i < 4; i++)
        payload[at + 1 + i] = (uint8_t) ((len - around) >> 8 * i);
}

static struct source build_stream(struct source s, int land)
{
    struct source out = {built, 0};
    size_t len, i;
    unsigned seed;

    while (s.len) {
        uint8_t *p = built + out.len;

        len = take_byte(&s) << 8;
        len |= take_byte(&s);
        seed = take_byte(&s);
        if (land && seed % 3)
            len += MG_LANDING_MIN; /* in one piece, or most of one */
        if (out.len + 26 + len > MAX_STREAM)
            break;
        p[0] = 'M';
        p[1] = (uint8_t) ('I' + seed % 3);
        for (i = 2; i < 22; i++)
            p[i] = (uint8_t) (i % 4 ? seed * i : take_byte(&s));
        for (i = 0; i < 4; i++)
            p[22 + i] = (uint8_t) (len >> 8 * (3 - i));
        fill(p + 26, len, seed);
        if (land && seed % 3 == 1)
            begin_pickle(p + 26, len, seed / 3);
        out.len += 26 + len;
    }
    return out;
}

/* The frame f writes want[skip..len) from byte `skip` on. */
static void check_wire(const mg_frame *f, size_t skip, const uint8_t *want, size_t len)
{
    struct iovec iov[4];
    size_t done = skip;
    int n = mg_frame_iov(f, skip, iov, 4);

    for (int i = 0; i < n; i++) {
        CHECK(iov[i].iov_len <= len - done && !memcmp(iov[i].iov_base, want + done, iov[i].iov_len));
        done += iov[i].iov_len;
    }
    CHECK(done == len);
}

/* Writes f out again, in the form it has and as segments, and compares with the stream at `at`. */
static void check_encoding(const struct truth *t, size_t at, mg_frame *f)
{
    const uint8_t *want = t->stream.ptr + at;
    size_t len = mg_frame_wire_len(f);
    mg_buf *buf = mg_buf_wrap(want, len, NULL, NULL);
    mg_seg segs[3] = {{buf, 26, (len - 26) / 3}, {buf, 26 + (len - 26) / 3, 0}, {buf, 26 + (len - 26) / 3, 0}};
    uint8_t header[26];
    mg_frame *g;
    size_t skip = at % (len + 1);

    CHECK(at + len <= t->good);
    mg_hdr_encode(header, mg_frame_hdr(f));
    CHECK(!memcmp(header, want, 26));
    check_wire(f, 0, want, len);
    if (mg_frame_hole(f))
        check_wire(f, skip, want, len);
    segs[2].len = len - 26 - segs[0].len;
    g = mg_frame_new_segs(mg_frame_hdr(f), segs, 3);
    check_wire(g, skip, want, len);
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
    mg_landing places;
};

/* Offers a place of exactly the announced length, unless that is megabytes. The engine has to
 * find out whether it fits. */
static mg_buf *land(void *arg, const mg_hdr *hdr, const uint8_t *first, size_t n, size_t *at)
{
    mg_landing *places = arg;
    size_t len = hdr->len;
    mg_buf *place;

    for (int whole = 1; whole >= 0; whole--) {
        if (!whole)
            len = mg_peek_bytes(first, n, MG_LANDING_MIN, at);
        if (len < MAX_STREAM)
            mg_landing_offer(places, mg_buf_new(len));
        place = mg_landing_for(places, hdr, first, n, at);
        if (place)
            break;
    }
    CHECK(!place || (*at <= n && mg_buf_len(place) == len && len <= hdr->len - *at));
    return place;
}

static void run_init(struct run *r, const struct truth *t)
{
    memset(&r->places, 0, sizeof r->places);
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
            CHECK(mg_decoder_kept(&r->d) == r->in - r->at);
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
    mg_landing_drop(&r->places);
}

static void run_script(struct run *r, struct source script)
{
    size_t i, size;

    for (i = 0; !r->d.err && r->in < r->t->stream.len; i++) {
        unsigned op = script.len ? script.ptr[i % script.len] : 0;

        /* Sizes up to 62, 6200 or 620000. Each pass of the script moves on, and a long stream by
         * more than a byte. */
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
    t.stream = flags & BUILD ? build_stream(s, (flags & LAND) != 0) : s;
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
    if (flags & LAND) {
        r.d.land = land;
        r.d.land_arg = &r.places;
    }
    run_script(&r, script);
    run_finish(&r);
    return 0;
}
