#include "wire/decoder.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "test/bytes.h"

#define LIMIT (128u << 20)

static uint8_t scratch[128 * 1024];

/* A stream of bytes to be decoded, and where its frames are. */
struct stream {
    uint8_t *ptr;
    size_t len;
};

static void stream_add(struct stream *s, unsigned number, uint32_t len)
{
    mg_hdr h = {.enc = MG_ENC_MGC + (int) (number % 3), .dst_id = number, .src_id = 1, .auth_id = 2, .len = len};

    s->ptr = realloc(s->ptr, s->len + MG_HEADER_LEN + len);
    mg_hdr_encode(s->ptr + s->len, &h);
    test_fill(s->ptr + s->len + MG_HEADER_LEN, len, number);
    s->len += MG_HEADER_LEN + len;
}

/* As readv(): puts up to n bytes into the entries. Returns how many. */
static size_t fill(const struct iovec *iov, int n_iov, const uint8_t *from, size_t n)
{
    size_t done = 0, part;
    int i;

    for (i = 0; i < n_iov && done < n; i++) {
        part = iov[i].iov_len < n - done ? iov[i].iov_len : n - done;
        memcpy(iov[i].iov_base, from + done, part);
        done += part;
    }
    return done;
}

/* Checks that f stands in the stream at *at, moves on behind it and drops it. */
static void expect_and_drop(const struct stream *s, size_t *at, mg_frame *f)
{
    struct iovec iov[3];
    size_t len = mg_frame_wire_len(f), done = 0;
    int n_iov = mg_frame_iov(f, 0, iov, 3);

    CHECK(*at + len <= s->len);
    CHECK(mg_frame_hole(f) ? !mg_frame_payload(f) : n_iov == 1 && (uintptr_t) mg_frame_payload(f) % 8 == 0);
    for (int i = 0; i < n_iov; done += iov[i++].iov_len)
        CHECK(!memcmp(iov[i].iov_base, s->ptr + *at + done, iov[i].iov_len));
    CHECK(done == len);
    *at += len;
    mg_frame_unref(f);
}

/* Takes frames while there are any; returns what ended it. */
static mg_err take_all(mg_decoder *d, const struct stream *s, size_t *at)
{
    mg_frame *f;
    mg_err err;
    int ready;

    for (;;) {
        ready = mg_decoder_has_data(d);
        err = mg_decoder_next(d, &f);
        CHECK(ready == (err != MG_EAGAIN));
        if (err) {
            CHECK(!f);
            return err;
        }
        expect_and_drop(s, at, f);
    }
}

/* One turn: up to n bytes of the stream from *in on. */
static mg_err turn(mg_decoder *d, const struct stream *s, size_t *in, size_t n, size_t *at)
{
    struct iovec iov[2];
    mg_err err;
    int n_iov = mg_decoder_begin(d, scratch, sizeof scratch, iov);

    CHECK(n_iov > 0);
    n = fill(iov, n_iov, s->ptr + *in, n < s->len - *in ? n : s->len - *in);
    mg_decoder_commit(d, n);
    *in += n;
    err = take_all(d, s, at);
    CHECK(mg_decoder_end(d) == (err == MG_EAGAIN ? MG_OK : err));
    if (n > 1000)
        memset(scratch, 0xee, sizeof scratch); /* somebody else's turn */
    else
        memset(scratch, 0xee, 1000);
    return err;
}

/* Some of the payloads have a place for a part of theirs. */
static mg_buf *land_somewhere(void *arg, const mg_hdr *h, const uint8_t *first, size_t n, size_t *at)
{
    unsigned *state = arg;
    (void) first;
    CHECK(n < h->len);
    size_t len = test_random(state) % (h->len + 1);
    if (h->len > MG_DECODER_AROUND)
        len = h->len - test_random(state) % MG_DECODER_AROUND;
    *at = test_random(state) % (n + 1);
    if (*at > h->len - len)
        *at = h->len - len;
    return test_random(state) % 4 ? mg_buf_new(len) : NULL;
}

/* With `direct`, parts of large payloads land somewhere else. */
static void decode_directly(const struct stream *s, size_t portion, size_t large, size_t step, size_t direct)
{
    mg_decoder d;
    size_t in = 0, at = 0;
    unsigned state = (unsigned) (portion + large);

    mg_decoder_init(&d, LIMIT);
    d.large = large;
    d.step = step;
    if (direct) {
        d.direct = direct;
        d.land = land_somewhere;
        d.land_arg = &state;
    }
    while (in < s->len) {
        CHECK(turn(&d, s, &in, portion, &at) == MG_EAGAIN);
        CHECK(mg_decoder_kept(&d) == in - at);
        const mg_hdr *part = mg_decoder_arriving(&d);
        CHECK(!part || (part->len >= large && at < s->len));
    }
    CHECK(at == s->len && mg_decoder_kept(&d) == 0 && !d.own && !d.big && !mg_decoder_arriving(&d));
    mg_decoder_fini(&d);
}

static void decode_in_portions(const struct stream *s, size_t portion, size_t large, size_t step)
{
    decode_directly(s, portion, large, step, 0);
}

static void any_portions_give_the_same_frames(void)
{
    struct stream s = {NULL, 0};
    size_t portion;
    unsigned i;

    for (i = 0; i < 40; i++)
        stream_add(&s, i, i % 7 * 20);
    stream_add(&s, i++, 300);
    stream_add(&s, i++, 0);
    for (portion = 1; portion < 400; portion++) {
        decode_in_portions(&s, portion, MG_DECODER_LARGE, MG_DECODER_STEP);
        decode_in_portions(&s, portion, 50, MG_DECODER_STEP);
        decode_in_portions(&s, portion, 50, 60);
        decode_in_portions(&s, portion, 0, 1);
        decode_directly(&s, portion, 50, 60, 70);
        decode_directly(&s, portion, 10, MG_DECODER_STEP, 1);
    }
    free(s.ptr);
}

static void sizes_about_the_large_one_and_beyond_the_scratch_arrive_whole(void)
{
    static const size_t portions[] = {1000, 26, 4096, 32 * 1024, 65536, 131072, 1 << 20, 1 << 24};
    struct stream s = {NULL, 0};
    size_t i;

    for (i = 0; i < 3; i++) {
        stream_add(&s, 1, MG_DECODER_LARGE - 1);
        stream_add(&s, 2, MG_DECODER_LARGE);
        stream_add(&s, 3, 5);
        stream_add(&s, 4, MG_DECODER_LARGE + 1);
        stream_add(&s, 5, sizeof scratch - MG_HEADER_LEN);
        stream_add(&s, 6, 600000);
    }
    for (i = 0; i < sizeof portions / sizeof portions[0]; i++) {
        decode_in_portions(&s, portions[i], MG_DECODER_LARGE, MG_DECODER_STEP);
        decode_in_portions(&s, portions[i], MG_DECODER_LARGE, 40000);
        decode_directly(&s, portions[i], MG_DECODER_LARGE, MG_DECODER_STEP, MG_DECODER_DIRECT);
        decode_directly(&s, portions[i], 100, 40000, 100);
    }
    free(s.ptr);
}

static void a_large_frame_is_read_into_its_own_storage(void)
{
    struct stream s = {NULL, 0};
    struct iovec iov[2];
    mg_decoder d;
    mg_frame *f;
    size_t in = 0, at = 0;
    void *storage;

    stream_add(&s, 1, 1 << 20);
    stream_add(&s, 2, 3);
    mg_decoder_init(&d, LIMIT);
    CHECK(turn(&d, &s, &in, 1000, &at) == MG_EAGAIN);
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 2);
    CHECK(iov[0].iov_len == (1 << 20) - (1000 - 26) && iov[1].iov_base == scratch && iov[1].iov_len == sizeof scratch);
    storage = iov[0].iov_base;
    CHECK(fill(iov, 2, s.ptr + in, s.len - in) == s.len - in);
    mg_decoder_commit(&d, s.len - in);
    CHECK(mg_decoder_next(&d, &f) == MG_OK && mg_frame_payload(f) + 974 == storage);
    expect_and_drop(&s, &at, f);
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len);
    CHECK(mg_decoder_end(&d) == MG_OK);
    mg_decoder_fini(&d);
    free(s.ptr);
}

/* Bytes of a payload that are to land in a buffer of the test's. */
static mg_buf *land_in(void *arg, const mg_hdr *h, const uint8_t *first, size_t n, size_t *at)
{
    CHECK(h->len == 200000 && n >= 7 && test_filled(first, 7, 1));
    *at = 7;
    return mg_buf_ref(arg);
}

static void most_of_a_payload_is_read_to_where_it_belongs(void)
{
    struct stream s = {NULL, 0};
    struct iovec iov[2];
    mg_decoder d;
    mg_buf *place = mg_buf_new(199990);
    size_t in = 0, at = 0, n;

    stream_add(&s, 1, 200000);
    stream_add(&s, 1, 200000);
    mg_decoder_init(&d, LIMIT);
    d.land = land_in;
    d.land_arg = place;
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 1 && iov[0].iov_len == sizeof scratch);
    CHECK(mg_decoder_end(&d) == MG_OK);
    CHECK(turn(&d, &s, &in, 1000, &at) == MG_EAGAIN);
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 2);
    CHECK(iov[0].iov_base == mg_buf_ptr(place) + (1000 - MG_HEADER_LEN - 7) && iov[1].iov_len == MG_DECODER_HEAD);
    n = fill(iov, 2, s.ptr + in, s.len - in);
    mg_decoder_commit(&d, n);
    in += n;
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len / 2);
    CHECK(mg_decoder_end(&d) == MG_OK && mg_decoder_kept(&d) == MG_DECODER_HEAD - 3);
    CHECK(turn(&d, &s, &in, s.len, &at) == MG_EAGAIN && at == s.len);
    /* the next may be like that */
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 1 && iov[0].iov_len == MG_DECODER_HEAD);
    CHECK(mg_decoder_end(&d) == MG_OK);
    in = at = 0;
    CHECK(turn(&d, &s, &in, 1000, &at) == MG_EAGAIN && mg_frame_hole(d.big) == place);
    mg_decoder_fini(&d); /* its reference goes with the frame that has not come */
    mg_buf_unref(place);
    free(s.ptr);
}

static void an_idle_decoder_holds_no_memory(void)
{
    struct stream s = {NULL, 0};
    mg_decoder d;
    struct iovec iov[2];
    size_t in = 0, at = 0;

    stream_add(&s, 1, 1000);
    mg_alloc_fail_at(1);
    mg_decoder_init(&d, LIMIT);
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 1 && iov[0].iov_len == sizeof scratch);
    CHECK(mg_decoder_end(&d) == MG_OK && !mg_alloc_failed());
    mg_alloc_fail_at(0);
    CHECK(turn(&d, &s, &in, 500, &at) == MG_EAGAIN && d.own && d.own_cap == 500);
    CHECK(turn(&d, &s, &in, 5000, &at) == MG_EAGAIN && !d.own && !d.base);
    mg_decoder_fini(&d);
    free(s.ptr);
}

static void frames_not_taken_wait_and_more_input_queues_behind_them(void)
{
    struct stream s = {NULL, 0};
    mg_decoder d;
    mg_frame *f;
    struct iovec iov[2];
    size_t in = 0, at = 0, n;
    unsigned state = 11;
    unsigned i;

    for (i = 0; i < 3000; i++)
        stream_add(&s, i, i % 100 == 0 ? 40000 : i % 250);
    mg_decoder_init(&d, LIMIT);
    /* More arrives than is taken, so that what waits outgrows the scratch. */
    while (in < s.len) {
        int n_iov = mg_decoder_begin(&d, scratch, sizeof scratch, iov);

        CHECK(n_iov > 0);
        n = 1 + test_random(&state) % (2 * sizeof scratch);
        n = fill(iov, n_iov, s.ptr + in, n < s.len - in ? n : s.len - in);
        CHECK(n > 0);
        mg_decoder_commit(&d, n);
        in += n;
        for (i = 0; i < 4 && mg_decoder_next(&d, &f) == MG_OK; i++)
            expect_and_drop(&s, &at, f);
        if (test_random(&state) % 3) {
            CHECK(mg_decoder_end(&d) == MG_OK);
            memset(scratch, 0xee, sizeof scratch);
            for (i = 0; i < 1 && mg_decoder_next(&d, &f) == MG_OK; i++)
                expect_and_drop(&s, &at, f);
        }
        CHECK(mg_decoder_kept(&d) == in - at);
    }
    CHECK(in - at > 2 * sizeof scratch && d.own_cap < 4 * (in - at));
    CHECK(mg_decoder_end(&d) == MG_OK);
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len);
    CHECK(!d.own); /* freed with the last of them, without another turn */
    mg_decoder_fini(&d);
    free(s.ptr);
}

static void a_store_that_outlived_its_need_shrinks(void)
{
    struct stream s = {NULL, 0};
    mg_decoder d;
    size_t at = 0;
    unsigned i;

    for (i = 0; i < 1000; i++)
        stream_add(&s, i, 200);
    mg_decoder_init(&d, LIMIT);
    CHECK(mg_decoder_feed(&d, s.ptr, s.len - 1) == MG_OK);
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && d.own_cap == 225);
    CHECK(mg_decoder_feed(&d, s.ptr + s.len - 1, 1) == MG_OK);
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len);
    mg_decoder_fini(&d);
    free(s.ptr);
}

static void bytes_from_elsewhere_mix_with_bytes_read(void)
{
    struct stream s = {NULL, 0};
    unsigned state = 2;
    unsigned i;
    int round;

    for (i = 0; i < 300; i++)
        stream_add(&s, i, test_random(&state) % 400);
    for (round = 0; round < 50; round++) {
        mg_decoder d;
        size_t in = 0, at = 0, n;

        mg_decoder_init(&d, LIMIT);
        d.large = round % 2 ? 100 : MG_DECODER_LARGE;
        d.step = round % 3 ? 30 : MG_DECODER_STEP;
        while (in < s.len) {
            n = test_random(&state) % 2000;
            if (n > s.len - in)
                n = s.len - in;
            if (test_random(&state) % 2) {
                CHECK(turn(&d, &s, &in, n, &at) == MG_EAGAIN);
            } else {
                CHECK(mg_decoder_feed(&d, s.ptr + in, n) == MG_OK);
                in += n;
                if (test_random(&state) % 2)
                    CHECK(take_all(&d, &s, &at) == MG_EAGAIN);
            }
            CHECK(mg_decoder_kept(&d) == in - at);
        }
        CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len);
        mg_decoder_fini(&d);
    }
    free(s.ptr);
}

static void bad_input_is_an_error_that_stays(mg_err want, const mg_hdr *bad)
{
    struct stream s = {NULL, 0};
    const uint8_t *ptr;
    struct iovec iov[2];
    mg_decoder d;
    mg_frame *f;
    size_t in, at, len, portion;
    mg_err err;

    stream_add(&s, 1, 10);
    s.ptr = realloc(s.ptr, s.len + 5000);
    memset(s.ptr + s.len, 'y', 5000);
    mg_hdr_encode(s.ptr + s.len, bad);
    s.len += 5000;
    for (portion = 1; portion < 6000; portion = portion * 3 / 2 + 1) {
        mg_decoder_init(&d, 1000);
        in = at = 0;
        while ((err = turn(&d, &s, &in, portion, &at)) == MG_EAGAIN)
            CHECK(in < 36 + MG_HEADER_LEN); /* judged as soon as the header is there */
        CHECK(err == want && d.err == want && at == 36);
        CHECK(d.bad.enc == bad->enc && d.bad.len == bad->len && d.bad.dst_id == bad->dst_id);
        mg_decoder_pending(&d, &ptr, &len);
        CHECK(len == (in - at < 2048 ? in - at : 2048) && !memcmp(ptr, s.ptr + at, len));
        CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 0);
        CHECK(mg_decoder_feed(&d, "more", 4) == want && mg_decoder_has_data(&d));
        CHECK(mg_decoder_next(&d, &f) == want && !f && mg_decoder_end(&d) == want);
        mg_decoder_fini(&d);
        CHECK(mg_decoder_kept(&d) == 0 && d.err == MG_OK && mg_decoder_max_size(&d) == 1000);
    }
    free(s.ptr);
}

static void an_unknown_enc_is_corrupt(void)
{
    mg_hdr bad = {.enc = MG_ENC_BIN + 1, .dst_id = 77, .len = 3};

    bad_input_is_an_error_that_stays(MG_ECORRUPT, &bad);
    bad.enc = -1;
    bad.len = UINT32_MAX; /* corruption is seen first */
    bad_input_is_an_error_that_stays(MG_ECORRUPT, &bad);
}

static void a_length_over_the_limit_is_refused_from_the_header(void)
{
    mg_hdr bad = {.enc = MG_ENC_PKL, .dst_id = 77, .len = 1001};

    bad_input_is_an_error_that_stays(MG_ETOOBIG, &bad);
    bad.len = UINT32_MAX;
    bad_input_is_an_error_that_stays(MG_ETOOBIG, &bad);
}

static void twenty_six_x_are_corrupt_and_pending(void)
{
    const uint8_t *ptr;
    mg_decoder d;
    mg_frame *f;
    size_t len;

    mg_decoder_init(&d, LIMIT);
    CHECK(mg_decoder_feed(&d, "xxxxxxxxxxxxxxxxxxxxxxxxx", 25) == MG_OK && mg_decoder_next(&d, &f) == MG_EAGAIN);
    CHECK(mg_decoder_feed(&d, "x", 1) == MG_OK && mg_decoder_next(&d, &f) == MG_ECORRUPT);
    mg_decoder_pending(&d, &ptr, &len);
    CHECK(len == 26 && !memcmp(ptr, "xxxxxxxxxxxxxxxxxxxxxxxxxx", 26));
    mg_decoder_fini(&d);
}

static void the_limit_itself_is_allowed_and_may_change(void)
{
    struct stream s = {NULL, 0};
    mg_decoder d;
    size_t at = 0, in = 0;

    stream_add(&s, 1, 1000);
    stream_add(&s, 2, 1001);
    stream_add(&s, 3, 1001);
    mg_decoder_init(&d, 1000);
    CHECK(turn(&d, &s, &in, 1500, &at) == MG_ETOOBIG && at == 1026 && d.bad.len == 1001);
    mg_decoder_fini(&d);

    mg_decoder_init(&d, 1000);
    at = in = 0;
    CHECK(turn(&d, &s, &in, 1030, &at) == MG_EAGAIN && at == 1026);
    mg_decoder_set_max_size(&d, 1001);
    CHECK(turn(&d, &s, &in, 1300, &at) == MG_EAGAIN && at == 2053);
    mg_decoder_set_max_size(&d, 0);
    CHECK(turn(&d, &s, &in, 1300, &at) == MG_ETOOBIG && at == 2053);
    mg_decoder_fini(&d);

    /* A limit over 32 bits is not cut short. */
    mg_decoder_init(&d, (uint64_t) 4096 << 20);
    CHECK(mg_decoder_max_size(&d) == 4294967296u);
    CHECK(mg_decoder_feed(&d, s.ptr, s.len) == MG_OK);
    at = 0;
    CHECK(take_all(&d, &s, &at) == MG_EAGAIN && at == s.len);
    mg_decoder_fini(&d);
    free(s.ptr);
}

static void a_header_that_lies_costs_little(void)
{
    mg_hdr h = {.enc = MG_ENC_BIN, .len = UINT32_MAX};
    uint8_t wire[MG_HEADER_LEN];
    struct iovec iov[2];
    mg_decoder d;
    mg_frame *f;
    size_t sent = 0;

    mg_hdr_encode(wire, &h);
    mg_decoder_init(&d, UINT64_MAX);
    CHECK(mg_decoder_feed(&d, wire, sizeof wire) == MG_OK && mg_decoder_next(&d, &f) == MG_EAGAIN);
    CHECK(d.big_room == MG_DECODER_STEP && mg_decoder_kept(&d) == MG_HEADER_LEN);
    mg_decoder_fini(&d);

    mg_decoder_init(&d, UINT64_MAX);
    d.step = 50000;
    CHECK(mg_decoder_feed(&d, wire, sizeof wire) == MG_OK && mg_decoder_next(&d, &f) == MG_EAGAIN);
    while (sent < 3000000) {
        CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 1); /* no scratch: this frame goes on */
        CHECK(d.big_room <= (sent < 25000 ? 50000 : 2 * sent + 50000));
        memset(iov[0].iov_base, 'z', iov[0].iov_len);
        mg_decoder_commit(&d, iov[0].iov_len);
        sent += iov[0].iov_len;
        CHECK(mg_decoder_next(&d, &f) == MG_EAGAIN && mg_decoder_end(&d) == MG_OK);
    }
    mg_decoder_fini(&d);
}

static void input_that_ends_within_a_frame_is_seen(void)
{
    struct stream s = {NULL, 0};
    mg_decoder d;
    size_t in, at, cut;

    stream_add(&s, 1, 10);
    for (cut = 0; cut <= s.len; cut++) {
        mg_decoder_init(&d, LIMIT);
        d.large = 5;
        in = at = 0;
        CHECK(turn(&d, &s, &in, cut, &at) == MG_EAGAIN);
        CHECK((mg_decoder_kept(&d) != 0) == (cut != 0 && cut != s.len));
        mg_decoder_fini(&d);
    }
    free(s.ptr);
}

static void whatever_allocation_fails_is_an_error_and_leaks_nothing(void)
{
    struct stream s = {NULL, 0};
    unsigned i;
    long n;

    for (i = 0; i < 60; i++)
        stream_add(&s, i, i % 10 == 3 ? 500 : i);
    for (n = 1;; n++) {
        mg_decoder d;
        mg_frame *f;
        size_t in = 0, at = 0;
        mg_err err = MG_OK;
        const uint8_t *ptr;
        size_t len;

        mg_decoder_init(&d, LIMIT);
        d.large = 200;
        d.step = 80;
        mg_alloc_fail_at(n);
        while (!d.err && in < s.len) {
            struct iovec iov[2];
            int n_iov = mg_decoder_begin(&d, scratch, sizeof scratch, iov);
            size_t got = s.len - in < 70 ? s.len - in : 70;

            if (n_iov == 0)
                break;
            got = fill(iov, n_iov, s.ptr + in, got);
            mg_decoder_commit(&d, got);
            in += got;
            if (in % 3 == 0 && in < s.len) {
                CHECK(mg_decoder_feed(&d, s.ptr + in, 1) == d.err);
                in++;
            }
            while ((err = mg_decoder_next(&d, &f)) == MG_OK)
                expect_and_drop(&s, &at, f);
            CHECK(mg_decoder_end(&d) == (err == MG_EAGAIN ? d.err : err));
        }
        CHECK((d.err == MG_ENOMEM) == mg_alloc_failed() && (d.err || at == s.len));
        mg_decoder_pending(&d, &ptr, &len);
        CHECK(!len || ptr);
        mg_decoder_fini(&d);
        if (!mg_alloc_failed())
            break;
    }
    CHECK(n > 60); /* a frame is one allocation; stores and growing make some more */
    mg_alloc_fail_at(0);
    free(s.ptr);
}

static void no_memory_for_what_is_left_is_seen_at_begin_and_end(void)
{
    struct stream s = {NULL, 0};
    struct iovec iov[2];
    mg_decoder d;
    unsigned i;

    for (i = 0; i < 1200; i++)
        stream_add(&s, i, 100);
    mg_decoder_init(&d, LIMIT);
    CHECK(mg_decoder_feed(&d, s.ptr, s.len) == MG_OK);
    mg_alloc_fail_at(1);
    CHECK(mg_decoder_begin(&d, scratch, MG_DECODER_MIN_SCRATCH, iov) == 0 && d.err == MG_ENOMEM);
    mg_decoder_fini(&d);

    mg_decoder_init(&d, LIMIT);
    CHECK(mg_decoder_begin(&d, scratch, sizeof scratch, iov) == 1);
    memcpy(iov[0].iov_base, s.ptr, 100);
    mg_decoder_commit(&d, 100);
    mg_alloc_fail_at(1);
    CHECK(mg_decoder_end(&d) == MG_ENOMEM && mg_decoder_kept(&d) == 0);
    mg_alloc_fail_at(0);
    mg_decoder_fini(&d);
    free(s.ptr);
}

static void *change_limit(void *arg)
{
    mg_decoder *d = arg;
    int i;

    for (i = 0; i < 20000; i++)
        mg_decoder_set_max_size(d, 1000 + (unsigned) i);
    return NULL;
}

static void the_limit_may_be_set_from_another_thread(void)
{
    struct stream s = {NULL, 0};
    pthread_t thread;
    mg_decoder d;
    size_t at = 0, in = 0;
    unsigned i;

    for (i = 0; i < 2000; i++)
        stream_add(&s, i, 10);
    mg_decoder_init(&d, 1000);
    pthread_create(&thread, NULL, change_limit, &d);
    while (in < s.len)
        CHECK(turn(&d, &s, &in, 50, &at) == MG_EAGAIN);
    pthread_join(thread, NULL);
    CHECK(mg_decoder_max_size(&d) == 20999);
    mg_decoder_fini(&d);
    free(s.ptr);
}

int main(void)
{
    RUN(any_portions_give_the_same_frames);
    RUN(sizes_about_the_large_one_and_beyond_the_scratch_arrive_whole);
    RUN(a_large_frame_is_read_into_its_own_storage);
    RUN(most_of_a_payload_is_read_to_where_it_belongs);
    RUN(an_idle_decoder_holds_no_memory);
    RUN(frames_not_taken_wait_and_more_input_queues_behind_them);
    RUN(a_store_that_outlived_its_need_shrinks);
    RUN(bytes_from_elsewhere_mix_with_bytes_read);
    RUN(an_unknown_enc_is_corrupt);
    RUN(a_length_over_the_limit_is_refused_from_the_header);
    RUN(twenty_six_x_are_corrupt_and_pending);
    RUN(the_limit_itself_is_allowed_and_may_change);
    RUN(a_header_that_lies_costs_little);
    RUN(input_that_ends_within_a_frame_is_seen);
    RUN(whatever_allocation_fails_is_an_error_and_leaks_nothing);
    RUN(no_memory_for_what_is_left_is_seen_at_begin_and_end);
    RUN(the_limit_may_be_set_from_another_thread);
    return 0;
}
