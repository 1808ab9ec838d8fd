#include "net/stream.h"

#include "test/filled.h"

/* --- holding back --- */

/* Sends a frame as if it came right after the one before it. */
static void send_at_once(mg_stream *s, uint32_t nth)
{
    pthread_mutex_lock(&s->wmu);
    s->sent_at = mg_now() + 100 * MG_SECOND;
    pthread_mutex_unlock(&s->wmu);
    CHECK(mg_stream_send(s, filled_frame((mg_hdr) {.dst_id = 1, .handle = LATCH}, 64, 7, nth)) == MG_OK);
}

static void expect_filled(int fd, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        mg_hdr hdr;
        uint8_t *p;
        CHECK(peer_recv(fd, &hdr, &p) && hdr.len == 64);
        check_filled(p, 64, 7, i);
        free(p);
    }
}

static void frames_sent_without_a_pause_are_corked_but_not_for_long(void)
{
    enum { MANY = 300 };
    struct node node;
    mg_loop_stats stats;
    int fds[2];

    mg_stream *s = node_with_peer(&node, fds, 0, 1);
    for (uint32_t i = 0; i < 7; i++) {
        send_at_once(s, i);
        CHECK(!mg_stream_pending(s));
    }
    for (uint32_t i = 7; i < MANY; i++)
        send_at_once(s, i);
    /* nobody does anything more for them but the loop */
    AWAIT(!mg_stream_pending(s));
    mg_loop_get_stats(node.loop, &stats);
    CHECK(stats.corks > 0);
    expect_filled(fds[1], MANY);
    node_end_with_peer(&node, s, fds);
}

static void no_more_is_corked_than_a_sender_waits_for(void)
{
    struct node node;
    int fds[2];

    node_start(&node, 0, -1);
    atomic_store(&node.router->sink.high_water, 300);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    for (uint32_t i = 0; i < 100; i++) {
        send_at_once(s, i);
        CHECK(!mg_stream_full(s));
    }
    expect_filled(fds[1], 100);
    node_end_with_peer(&node, s, fds);
}

static void nothing_is_corked_where_nobody_would_flush_it(void)
{
    struct node node;
    int fds[2];

    node_make(&node, 0, -1);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 0);
    for (uint32_t i = 0; i < 100; i++) {
        send_at_once(s, i);
        CHECK(!mg_stream_pending(s));
    }
    expect_filled(fds[1], 100);
    node_end_with_peer(&node, s, fds);
}

/* Sends a frame as if three had come in a row, and then none for 50 us, in which the sender ran
 * for `busy`. Checks whether the row goes on. */
static void check_row_after_a_pause(mg_stream *s, int64_t busy, int goes_on)
{
    enum { PAUSE = 50000 };
    int64_t at;
    uint32_t nth = 0;
    do {
        pthread_mutex_lock(&s->wmu);
        at = s->sent_at = mg_now() - PAUSE;
        s->late.cpu = mg_thread_cpu() - busy;
        s->quick_row = 3;
        pthread_mutex_unlock(&s->wmu);
        CHECK(mg_stream_send(s, filled_frame((mg_hdr) {.dst_id = 1, .handle = LATCH}, 64, 7, nth++)) == MG_OK);
        /* once more, if this thread was away for so long that the row ended for that reason */
    } while (goes_on && s->quick_row == 0 && mg_now() - at > 2 * PAUSE);
    CHECK(s->quick_row == (goes_on ? 4 : 0));
}

static void on_one_core_a_row_goes_on_after_others_ran_but_not_after_a_wait(void)
{
    const int64_t idle = -100 * MG_SECOND, busy = 100 * MG_SECOND;
    struct node node;
    int fds[2];

    mg_stream *s = node_with_peer(&node, fds, 0, 1);
    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    check_row_after_a_pause(s, idle, 0); /* nothing is known of this thread */
    check_row_after_a_pause(s, idle, 1);
    check_row_after_a_pause(s, busy, 0);
    check_row_after_a_pause(s, idle, 1);
    atomic_fetch_add(&mg_waiter_self()->waits, 1);
    check_row_after_a_pause(s, idle, 0);
    check_row_after_a_pause(s, idle, 1);
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    check_row_after_a_pause(s, idle, 0);
    mg_spin_assume_room(-1);
    node_end_with_peer(&node, s, fds);
}

static void a_stream_that_is_closed_sends_what_it_has_corked(void)
{
    for (uint32_t n = 8; n < 60; n++) {
        struct node node;
        int fds[2];
        mg_hdr hdr;
        uint8_t *p;

        node_start(&node, 0, -1);
        test_pair(fds, 0);
        mg_stream *s = node_connect(&node, 1, fds[0], 1);
        for (uint32_t i = 0; i < n; i++)
            send_at_once(s, i);
        node_disconnect(&node, s);
        expect_filled(fds[1], n);
        CHECK(!peer_recv(fds[1], &hdr, &p));
        close(fds[1]);
        node_stop(&node);
    }
}

int main(void)
{
    test_watchdog(240);
    RUN(frames_sent_without_a_pause_are_corked_but_not_for_long);
    RUN(on_one_core_a_row_goes_on_after_others_ran_but_not_after_a_wait);
    RUN(no_more_is_corked_than_a_sender_waits_for);
    RUN(nothing_is_corked_where_nobody_would_flush_it);
    RUN(a_stream_that_is_closed_sends_what_it_has_corked);
    return 0;
}
