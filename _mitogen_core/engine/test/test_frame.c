#include "wire/frame.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/well_known.h"
#include "test/test.h"

static const mg_hdr hdr = {
    .enc = MG_ENC_PKL,
    .dst_id = 0x01020304,
    .src_id = 0xf1f2f3f4,
    .auth_id = 7,
    .handle = MG_CALL_FUNCTION,
    .reply_to = 1000,
    .len = 0,
};

/* Copies the wire bytes from skip on, `max` entries at a time, to out. Returns how many. */
static size_t gather(const mg_frame *f, size_t skip, int max, uint8_t *out)
{
    struct iovec iov[8];
    size_t from = skip;
    int n, i;

    while ((n = mg_frame_iov(f, skip, iov, max)) > 0) {
        for (i = 0; i < n; i++) {
            CHECK(iov[i].iov_len > 0);
            memcpy(out + (skip - from), iov[i].iov_base, iov[i].iov_len);
            skip += iov[i].iov_len;
        }
    }
    return skip - from;
}

static void the_header_is_big_endian_and_has_no_gaps(void)
{
    static const uint8_t wire[MG_HEADER_LEN] = {
        'M', 'J', 1, 2, 3, 4, 0xf1, 0xf2, 0xf3, 0xf4, 0, 0, 0, 7, 0, 0, 0, 101, 0, 0, 3, 0xe8, 0, 1, 0, 2,
    };
    mg_hdr in = hdr;
    uint8_t out[MG_HEADER_LEN];

    in.len = 65538;
    mg_hdr_encode(out, &in);
    CHECK(!memcmp(out, wire, sizeof wire));
}

static void a_message_for_123_without_a_payload_has_26_bytes(void)
{
    mg_hdr h = {.enc = MG_ENC_MGC, .dst_id = 123, .handle = 123};
    mg_frame *f = mg_frame_new(&h, 0);
    static const uint8_t zeros[8];
    uint8_t wire[64];

    CHECK(mg_frame_wire_len(f) == 26 && gather(f, 0, 8, wire) == 26);
    CHECK(wire[0] == 'M' && wire[1] == 'I' && wire[5] == 123 && wire[17] == 123);
    CHECK(!memcmp(wire + 18, zeros, 8));
    mg_frame_unref(f);
}

static void any_header_survives_the_round_trip(void)
{
    unsigned state = 1;
    int i, j;

    for (i = 0; i < 10000; i++) {
        uint8_t in[MG_HEADER_LEN], out[MG_HEADER_LEN];
        mg_hdr h;

        for (j = 0; j < MG_HEADER_LEN; j++)
            in[j] = (uint8_t) test_random(&state);
        mg_hdr_decode(&h, in);
        mg_hdr_encode(out, &h);
        CHECK(!memcmp(in, out, sizeof in));
    }
}

static void enc_is_signed_and_three_values_are_known(void)
{
    uint8_t in[MG_HEADER_LEN] = {0xff, 0xfe};
    int known = 0;
    mg_hdr h;
    int v;

    mg_hdr_decode(&h, in);
    CHECK(h.enc == -2);
    for (v = INT16_MIN; v <= INT16_MAX; v++)
        known += mg_enc_known((int16_t) v);
    CHECK(known == 3 && mg_enc_known(0x4d49) && mg_enc_known(0x4d4a) && mg_enc_known(0x4d4b));
}

static void an_inline_frame_is_written_with_one_iovec(void)
{
    mg_frame *f = mg_frame_new(&hdr, 5);
    struct iovec iov[4];
    uint8_t copy[5];

    CHECK((uintptr_t) mg_frame_payload(f) % 8 == 0);
    memcpy(mg_frame_payload(f), "hello", 5);
    CHECK(mg_frame_hdr(f)->len == 5 && mg_frame_hdr(f)->src_id == hdr.src_id);
    CHECK(!mg_node_listed(&f->queued) && !mg_frame_hole(f));
    CHECK(mg_frame_iov(f, 0, iov, 4) == 1 && iov[0].iov_len == 31);
    CHECK(!memcmp((char *) iov[0].iov_base + 22, "\0\0\0\5hello", 9));
    CHECK(mg_frame_iov(f, 0, iov, 0) == 0);
    mg_frame_copy_payload(f, copy);
    CHECK(!memcmp(copy, "hello", 5));
    mg_frame_unref(f);
    mg_frame_unref(NULL);
}

static mg_frame *make_segmented(void)
{
    mg_buf *buf = mg_buf_wrap("0123456789", 10, NULL, NULL);
    mg_buf *own = mg_buf_new(3);
    mg_seg segs[5] = {{buf, 0, 4}, {buf, 5, 0}, {own, 0, 3}, {buf, 9, 1}, {buf, 10, 0}};
    mg_frame *f;

    memcpy(mg_buf_ptr(own), "abc", 3);
    f = mg_frame_new_segs(&hdr, segs, 5);
    mg_buf_unref(buf);
    mg_buf_unref(own);
    return f;
}

static void both_forms_have_the_same_wire_bytes_from_any_offset(void)
{
    mg_frame *a = mg_frame_new(&hdr, 8);
    mg_frame *b = make_segmented();
    uint8_t wire_a[64], wire_b[64], payload[8];
    size_t skip, n;
    int max;

    memcpy(mg_frame_payload(a), "0123abc9", 8);
    CHECK(!mg_frame_payload(b) && mg_frame_hdr(b)->len == 8 && mg_frame_wire_len(b) == 34);
    mg_frame_copy_payload(b, payload);
    CHECK(!memcmp(payload, "0123abc9", 8));
    for (max = 1; max < 6; max++) {
        for (skip = 0; skip < 40; skip++) {
            n = gather(a, skip, max, wire_a);
            CHECK(n == (skip < 34 ? 34 - skip : 0));
            CHECK(gather(b, skip, max, wire_b) == n && !memcmp(wire_a, wire_b, n));
        }
    }
    mg_frame_unref(a);
    mg_frame_unref(b);
}

static void a_frame_with_a_hole_has_the_same_wire_bytes_from_any_offset(void)
{
    enum { LEN = 40 };
    uint8_t want[MG_HEADER_LEN + LEN], got[MG_HEADER_LEN + LEN], copy[LEN];
    mg_hdr h = hdr;

    h.len = LEN;
    mg_hdr_encode(want, &h);
    for (size_t i = 0; i < LEN; i++)
        want[MG_HEADER_LEN + i] = (uint8_t) (i * 5 + 1);
    for (size_t at = 0; at <= LEN; at++)
        for (size_t len = 1; len <= LEN - at; len++) {
            mg_frame *f = mg_frame_new_hole(&h, mg_buf_new(len), at);
            size_t run;
            for (size_t i = 0; i < LEN; i++) {
                *mg_frame_at(f, i, &run) = want[MG_HEADER_LEN + i];
                CHECK(run == (i < at ? at : i < at + len ? at + len : LEN) - i);
            }
            CHECK(!mg_frame_payload(f) && mg_frame_wire_len(f) == sizeof want);
            CHECK(!memcmp(mg_buf_ptr(mg_frame_hole(f)), want + MG_HEADER_LEN + at, len));
            CHECK(!memcmp(mg_frame_around_hole(f), want + MG_HEADER_LEN, at));
            CHECK(!memcmp(mg_frame_around_hole(f) + at, want + MG_HEADER_LEN + at + len, LEN - at - len));
            mg_frame_copy_payload(f, copy);
            CHECK(!memcmp(copy, want + MG_HEADER_LEN, LEN));
            for (size_t skip = 0; skip <= sizeof want; skip++)
                for (int max = 1; max <= 4; max++)
                    CHECK(gather(f, skip, max, got) == sizeof want - skip &&
                          !memcmp(got, want + skip, sizeof want - skip));
            mg_frame_unref(f);
        }
    mg_alloc_fail_at(2);
    CHECK(!mg_frame_new_hole(&h, mg_buf_new(4), 4)); /* and the bytes for the hole are freed */
    mg_alloc_fail_at(0);
}

static void a_frame_of_no_segments_is_a_header(void)
{
    mg_frame *f = mg_frame_new_segs(&hdr, NULL, 0);
    struct iovec iov[2];

    CHECK(mg_frame_iov(f, 0, iov, 2) == 1 && iov[0].iov_len == 26 && mg_frame_hdr(f)->len == 0);
    mg_frame_copy_payload(f, NULL);
    mg_frame_unref(f);
}

static void set_auth_changes_the_wire_bytes_too(void)
{
    mg_frame *forms[2];
    int i;

    forms[0] = mg_frame_new(&hdr, 0);
    forms[1] = make_segmented();
    for (i = 0; i < 2; i++) {
        uint8_t wire[64];
        mg_hdr h;

        mg_frame_set_auth(forms[i], 0xcafe0001);
        CHECK(mg_frame_hdr(forms[i])->auth_id == 0xcafe0001);
        gather(forms[i], 0, 8, wire);
        mg_hdr_decode(&h, wire);
        CHECK(h.auth_id == 0xcafe0001 && h.src_id == hdr.src_id && h.handle == hdr.handle);
        mg_frame_unref(forms[i]);
    }
}

static void more_than_32_bits_of_payload_are_refused(void)
{
    mg_buf *buf = mg_buf_wrap("", UINT32_MAX, NULL, NULL); /* never looked at */
    mg_seg segs[2] = {{buf, 0, UINT32_MAX}, {buf, 0, 1}};
    mg_frame *f;

    if (sizeof(size_t) > 4)
        CHECK(!mg_frame_new(&hdr, (size_t) UINT32_MAX + 1));
    CHECK(!mg_frame_new_segs(&hdr, segs, 2));
    f = mg_frame_new_segs(&hdr, segs, 1);
    CHECK(f && mg_frame_hdr(f)->len == UINT32_MAX);
    mg_frame_unref(f);
    mg_buf_unref(buf);
}

static void no_memory_means_no_frame_and_no_references(void)
{
    mg_buf *buf;
    mg_seg seg;
    long n;

    for (n = 1;; n++) {
        mg_frame *a, *b = NULL;

        mg_alloc_fail_at(n);
        buf = mg_buf_new(4);
        a = mg_frame_new(&hdr, 4);
        if (buf) {
            seg = (mg_seg) {buf, 0, 4};
            b = mg_frame_new_segs(&hdr, &seg, 1);
        }
        CHECK((buf && a && b) == (n > 3));
        mg_frame_unref(a);
        mg_frame_unref(b);
        mg_buf_unref(buf);
        if (!mg_alloc_failed())
            break;
    }
    mg_alloc_fail_at(0);
}

static void a_growing_frame_keeps_what_is_in_it(void)
{
    mg_hdr h = hdr;
    mg_frame *f, *g;

    h.len = 1000000;
    f = mg_frame_new_room(&h, 3);
    CHECK(mg_frame_hdr(f)->len == 1000000);
    memcpy(mg_frame_payload(f), "abc", 3);
    mg_alloc_fail_at(1);
    CHECK(!mg_frame_grow(f, 1000000));
    mg_alloc_fail_at(0);
    g = mg_frame_grow(f, 1000000);
    CHECK(g && !memcmp(mg_frame_payload(g), "abc", 3));
    memset(mg_frame_payload(g), 'z', 1000000);
    mg_frame_unref(g);
}

static void count_release(void *arg)
{
    ++*(int *) arg;
}

static void *use_and_drop(void *arg)
{
    mg_frame *f = arg;
    uint8_t copy[4];
    int i;

    for (i = 0; i < 10000; i++) {
        mg_frame_ref(f);
        mg_frame_copy_payload(f, copy);
        mg_frame_unref(f);
    }
    mg_frame_unref(f);
    return NULL;
}

static void threads_share_a_frame_and_its_blocks_go_once(void)
{
    pthread_t threads[4];
    int released = 0;
    mg_buf *buf = mg_buf_wrap("text", 4, count_release, &released);
    mg_seg seg = {buf, 0, 4};
    mg_frame *f = mg_frame_new_segs(&hdr, &seg, 1);
    int i;

    mg_buf_unref(buf);
    for (i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, use_and_drop, mg_frame_ref(f));
    mg_frame_unref(f);
    for (i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(released == 1);
}

int main(void)
{
    RUN(the_header_is_big_endian_and_has_no_gaps);
    RUN(a_message_for_123_without_a_payload_has_26_bytes);
    RUN(any_header_survives_the_round_trip);
    RUN(enc_is_signed_and_three_values_are_known);
    RUN(an_inline_frame_is_written_with_one_iovec);
    RUN(both_forms_have_the_same_wire_bytes_from_any_offset);
    RUN(a_frame_with_a_hole_has_the_same_wire_bytes_from_any_offset);
    RUN(a_frame_of_no_segments_is_a_header);
    RUN(set_auth_changes_the_wire_bytes_too);
    RUN(more_than_32_bits_of_payload_are_refused);
    RUN(no_memory_means_no_frame_and_no_references);
    RUN(a_growing_frame_keeps_what_is_in_it);
    RUN(threads_share_a_frame_and_its_blocks_go_once);
    return 0;
}
