#include "net/stream.h"

#include "test/filled.h"

/* --- reading and the end --- */

static void a_stream_is_not_read_until_it_is_started_and_not_after_it_is_stopped(void)
{
    struct node node;
    int fds[2];

    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 0);
    peer_filled(fds[1], 0, 1, LATCH, 20, 0);
    let_the_loop_look(&node);
    CHECK(mg_latch_size(l) == 0);
    mg_loop_acquire(node.loop);
    CHECK(mg_stream_start(s) == MG_OK && mg_stream_start(s) == MG_OK);
    mg_loop_release(node.loop);
    mg_frame_unref(test_get_frame(node.loop, l));
    mg_loop_acquire(node.loop);
    mg_stream_stop(s);
    mg_loop_release(node.loop);
    peer_filled(fds[1], 0, 1, LATCH, 20, 1);
    let_the_loop_look(&node);
    CHECK(mg_latch_size(l) == 0);
    mg_loop_acquire(node.loop);
    CHECK(mg_stream_start(s) == MG_OK);
    mg_loop_release(node.loop);
    mg_frame_unref(test_get_frame(node.loop, l));
    CHECK(atomic_load(&s->frames_in) == 2 && atomic_load(&s->bytes_in) == 2 * 46);
    node_disconnect(&node, s);
    node_unlisten(&node, LATCH, l);
    close(fds[1]);
    node_stop(&node);
}

static void bytes_that_are_fed_come_before_those_that_are_read(void)
{
    struct node node;
    uint8_t wire[3 * 46 + 10];
    mg_hdr h = {.enc = MG_ENC_BIN, .src_id = 1, .auth_id = 1, .handle = LATCH, .len = 20};
    int fds[2];

    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 0);
    for (uint32_t i = 0; i < 3; i++) {
        mg_hdr_encode(wire + i * 46, &h);
        fill(wire + i * 46 + 26, 20, 1, i);
    }
    peer_write(fds[1], wire + 2 * 46 + 30, 16); /* the rest of the third */
    peer_filled(fds[1], 0, 1, LATCH, 20, 3);
    mg_loop_acquire(node.loop);
    CHECK(mg_stream_feed(s, wire, 50) == MG_OK && mg_stream_feed(s, wire + 50, 2 * 46 - 20) == MG_OK);
    CHECK(mg_stream_start(s) == MG_OK);
    mg_loop_release(node.loop);
    for (uint32_t i = 0; i < 4; i++) {
        mg_frame *f = test_get_frame(node.loop, l);
        check_filled(mg_frame_payload(f), f->hdr.len, 1, i);
        mg_frame_unref(f);
    }
    node_disconnect(&node, s);
    node_unlisten(&node, LATCH, l);
    close(fds[1]);
    node_stop(&node);
}

static void large_frames_arrive_whole_between_small_ones(void)
{
    static const size_t sizes[] = {8, 32767, 32768, 33000, 9, 262144 - 26, 262144, 2000000, 8, 300000, 100};
    struct node node;
    int fds[2];
    size_t i;

    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        peer_filled(fds[1], 0, 1, LATCH, sizes[i], (uint32_t) i);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mg_frame *f = test_get_frame(node.loop, l);
        CHECK(f->hdr.len == sizes[i]);
        check_filled(mg_frame_payload(f), sizes[i], 1, (uint32_t) i);
        mg_frame_unref(f);
    }
    node_disconnect(&node, s);
    node_unlisten(&node, LATCH, l);
    close(fds[1]);
    node_stop(&node);
}

/* How many parts of a frame the loop notes when half of it has come. */
static uint64_t parts_noted(uint32_t dst, size_t len)
{
    struct node node;
    mg_loop_stats stats;
    mg_hdr hdr = {.enc = MG_ENC_BIN, .dst_id = dst, .src_id = 1, .auth_id = 1, .handle = LATCH, .len = (uint32_t) len};
    uint8_t *wire = calloc(1, MG_HEADER_LEN + len);
    int fds[2];

    mg_hdr_encode(wire, &hdr);
    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    peer_write(fds[1], wire, MG_HEADER_LEN + len / 2);
    AWAIT(atomic_load(&s->bytes_in) == MG_HEADER_LEN + len / 2);
    let_the_loop_look(&node);
    mg_loop_get_stats(node.loop, &stats);
    peer_write(fds[1], wire + MG_HEADER_LEN + len / 2, len - len / 2);
    if (dst == 0)
        mg_frame_unref(test_get_frame(node.loop, l));
    node_disconnect(&node, s);
    node_unlisten(&node, LATCH, l);
    close(fds[1]);
    node_stop(&node);
    free(wire);
    return stats.arriving;
}

static void parts_of_large_frames_for_us_are_noted(void)
{
    CHECK(parts_noted(0, 1 << 20) > 0);
    CHECK(parts_noted(0, 100000) == 0);
    CHECK(parts_noted(9, 1 << 20) == 0);
}

static void the_end_of_the_input_is_told_once_and_after_all_frames(void)
{
    enum { N = 300 };
    struct node node;
    int fds[2];

    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    node_handle_in_python(&node, PYTHON);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    for (uint32_t i = 0; i < N; i++)
        peer_filled(fds[1], 0, 1, i % 7 ? LATCH : PYTHON, 30, i);
    peer_write(fds[1], "MIxxx", 5); /* the end of the input within a frame is an end, too */
    close(fds[1]);
    AWAIT(node_count(&node, MG_EV_GONE));
    CHECK(node_count(&node, MG_EV_FRAME) == (N + 6) / 7 && mg_latch_size(l) == N - (N + 6) / 7);
    CHECK(node.seen[node.n_seen - 1].kind == MG_EV_GONE && node.seen[node.n_seen - 1].n == 0);
    CHECK(node.seen[node.n_seen - 1].stream == s);
    CHECK(mg_stream_send(s, filled_frame((mg_hdr) {.dst_id = 1}, 8, 0, 0)) == MG_ECLOSED);
    let_the_loop_look(&node);
    node_disconnect(&node, s);
    let_the_loop_look(&node);
    CHECK(node_count(&node, MG_EV_GONE) == 1 && node_count(&node, MG_EV_BAD) == 0);
    node_unlisten(&node, LATCH, l);
    node_stop(&node);
}

static void bad_input_ends_its_stream_once_and_costs_no_other(void)
{
    for (int oversize = 0; oversize < 2; oversize++) {
        struct node node;
        uint8_t bad[40];
        int fds[2], other[2];

        node_start(&node, 0, -1);
        atomic_store(&node.router->sink.max_size, 1000);
        mg_latch *l = node_listen(&node, LATCH);
        test_pair(fds, 0);
        test_pair(other, 0);
        mg_stream *s = node_connect(&node, 1, fds[0], 1), *t = node_connect(&node, 2, other[0], 1);
        peer_filled(fds[1], 0, 1, LATCH, 1000, 0); /* the limit itself is allowed */
        memset(bad, 'x', sizeof bad);
        if (oversize)
            mg_hdr_encode(bad, &(mg_hdr) {.enc = MG_ENC_BIN, .src_id = 1, .auth_id = 1, .handle = LATCH, .len = 1001});
        peer_write(fds[1], bad, MG_HEADER_LEN); /* judged without a byte of payload */
        AWAIT(node_count(&node, MG_EV_BAD));
        struct seen x = node_nth(&node, MG_EV_BAD, 0);
        CHECK(x.n == (oversize ? MG_ETOOBIG : MG_ECORRUPT) && x.stream == s && x.pending == MG_HEADER_LEN);
        mg_frame_unref(test_get_frame(node.loop, l));
        CHECK(mg_stream_send(s, filled_frame((mg_hdr) {.dst_id = 1}, 8, 0, 0)) == MG_ECLOSED);
        peer_filled(other[1], 0, 2, LATCH, 10, 0);
        mg_frame_unref(test_get_frame(node.loop, l));
        CHECK(mg_stream_send(t, filled_frame((mg_hdr) {.dst_id = 2}, 8, 0, 0)) == MG_OK);
        close(fds[1]);
        let_the_loop_look(&node);
        node_disconnect(&node, s);
        node_disconnect(&node, t);
        CHECK(node_count(&node, MG_EV_BAD) == 1 && node_count(&node, MG_EV_GONE) == 0);
        close(other[1]);
        node_unlisten(&node, LATCH, l);
        node_stop(&node);
    }
}

static void a_held_stream_delivers_nothing_until_it_is_released_and_then_in_order(void)
{
    struct node node;
    int fds[2], other[2];

    node_start(&node, 0, -1);
    atomic_store(&node.keep_in_python, 1);
    mg_latch *l = node_listen(&node, LATCH);
    node_handle_in_python(&node, PYTHON);
    test_pair(fds, 0);
    test_pair(other, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1), *t = node_connect(&node, 2, other[0], 1);
    for (uint32_t i = 0; i < 12; i++)
        peer_filled(fds[1], 0, 1, i % 4 ? LATCH : PYTHON, i == 6 ? 100000 : 30, i);
    close(fds[1]); /* the end waits its turn too */
    for (uint32_t held = 0; held < 3; held++) {
        AWAIT(node_count(&node, MG_EV_FRAME) == held + 1);
        CHECK(node_nth(&node, MG_EV_FRAME, held).first == held * 4);
        peer_filled(other[1], 0, 2, LATCH, 10, 99); /* the other stream goes on */
        let_the_loop_look(&node);
        CHECK(node_count(&node, MG_EV_FRAME) == held + 1 && node_count(&node, MG_EV_GONE) == 0);
        mg_frame *f = test_get_frame(node.loop, l);
        CHECK(f->hdr.src_id == 2 && mg_latch_size(l) == 0);
        mg_frame_unref(f);
        mg_stream_go_on(s);
        for (uint32_t i = held * 4 + 1; i < held * 4 + 4; i++) {
            f = test_get_frame(node.loop, l);
            check_filled(mg_frame_payload(f), f->hdr.len, 1, i);
            mg_frame_unref(f);
        }
    }
    AWAIT(node_count(&node, MG_EV_GONE) == 1);
    node_disconnect(&node, s);
    node_disconnect(&node, t);
    close(other[1]);
    node_unlisten(&node, LATCH, l);
    node_stop(&node);
}

static void a_failed_write_leaves_what_the_peer_said_before_to_be_read(void)
{
    for (int held = 0; held < 2; held++) {
        struct node node;
        mg_hdr h = {.dst_id = 1};
        int fds[2];

        node_start(&node, 0, -1);
        mg_latch *l = node_listen(&node, LATCH);
        node_handle_in_python(&node, PYTHON);
        atomic_store(&node.keep_in_python, held);
        test_pair(fds, 0);
        mg_stream *s = node_connect(&node, 1, fds[0], 1);
        mg_loop_acquire(node.loop); /* nobody reads for now */
        for (uint32_t i = 0; i < 50; i++)
            peer_filled(fds[1], 0, 1, i == 20 ? PYTHON : LATCH, i % 9 ? 30 : 3000, i);
        CHECK(!shutdown(fds[1], SHUT_RD));
        CHECK(mg_stream_send(s, filled_frame(h, 8, 0, 0)) == MG_OK); /* taken, and lost */
        CHECK(mg_stream_send(s, filled_frame(h, 8, 0, 1)) == MG_ECLOSED);
        mg_loop_release(node.loop);
        AWAIT(node_count(&node, MG_EV_FRAME) == 1);
        if (held) {
            let_the_loop_look(&node);
            CHECK(node_count(&node, MG_EV_GONE) == 0 && mg_latch_size(l) == 20);
            mg_stream_go_on(s);
        }
        AWAIT(node_count(&node, MG_EV_GONE) == 1);
        CHECK(node_nth(&node, MG_EV_GONE, 0).n == EPIPE && mg_latch_size(l) == 49);
        for (uint32_t i = 0; i < 50; i++)
            if (i != 20) {
                mg_frame *f = test_get_frame(node.loop, l);
                check_filled(mg_frame_payload(f), f->hdr.len, 1, i);
                mg_frame_unref(f);
            }
        node_disconnect(&node, s);
        close(fds[1]);
        node_unlisten(&node, LATCH, l);
        node_stop(&node);
    }
}

static void a_write_that_fails_in_the_loop_ends_the_stream_as_well(void)
{
    struct node node;
    mg_hdr h = {.dst_id = 1};
    char sink[4096];
    int fds[2];

    node_start(&node, 0, -1);
    mg_latch *l = node_listen(&node, LATCH);
    test_pair(fds, 4096);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    CHECK(mg_stream_send(s, filled_frame(h, 1000000, 0, 0)) == MG_OK && mg_stream_pending(s));
    let_the_loop_look(&node); /* it waits to write */
    peer_filled(fds[1], 0, 1, LATCH, 30, 0);
    CHECK(!shutdown(fds[1], SHUT_RD));
    while (read(fds[1], sink, sizeof sink) > 0) /* makes room, which is noticed */
        continue;
    AWAIT(node_count(&node, MG_EV_GONE) == 1);
    CHECK(mg_latch_size(l) == 1 && mg_stream_pending(s) == 0);
    node_disconnect(&node, s);
    close(fds[1]);
    node_unlisten(&node, LATCH, l);
    node_stop(&node);
}

int main(void)
{
    test_watchdog(240);
    RUN(a_stream_is_not_read_until_it_is_started_and_not_after_it_is_stopped);
    RUN(bytes_that_are_fed_come_before_those_that_are_read);
    RUN(large_frames_arrive_whole_between_small_ones);
    RUN(parts_of_large_frames_for_us_are_noted);
    RUN(the_end_of_the_input_is_told_once_and_after_all_frames);
    RUN(bad_input_ends_its_stream_once_and_costs_no_other);
    RUN(a_held_stream_delivers_nothing_until_it_is_released_and_then_in_order);
    RUN(a_failed_write_leaves_what_the_peer_said_before_to_be_read);
    RUN(a_write_that_fails_in_the_loop_ends_the_stream_as_well);
    return 0;
}
