#include "net/stream.h"

#include "test/filled.h"

/* --- high water --- */

/* Feeders 1..n send to context 9, which does not read for a while. */
static void flood_through(size_t high_water, size_t len, uint32_t n)
{
    enum { FEEDERS = 3 };
    struct node node;
    struct feeder feeders[FEEDERS];
    mg_stream *in[FEEDERS], *out;
    pthread_t threads[FEEDERS];
    uint32_t next[FEEDERS] = {0}, i, before, now = 0;
    size_t most = 0;
    uint8_t *payload;
    mg_hdr h;
    int fds[FEEDERS][2], sink[2];

    node_start(&node, 0, -1);
    atomic_store(&node.router->sink.high_water, high_water);
    test_pair(sink, 0);
    out = node_connect(&node, 9, sink[0], 1);
    memset(feeders, 0, sizeof feeders);
    for (i = 0; i < FEEDERS; i++) {
        test_pair(fds[i], 0);
        in[i] = node_connect(&node, i + 1, fds[i][0], 1);
        feeders[i].fd = fds[i][1];
        feeders[i].me = i + 1;
        feeders[i].dst = 9;
        feeders[i].n = n;
        feeders[i].len = len;
        threads[i] = test_spawn(feed_many, &feeders[i]);
    }
    /* until the feeders are stuck: nothing was sent for a tenth of a second. (Were they only
     * slow, less would be proven.) */
    do {
        before = now;
        for (int64_t until = mg_now() + MG_SECOND / 10; mg_now() < until; test_pause()) {
            size_t pending = mg_stream_pending(out);
            most = pending > most ? pending : most;
        }
        for (now = i = 0; i < FEEDERS; i++)
            now += atomic_load(&feeders[i].sent);
    } while (now != before || most <= high_water);
    CHECK(now < FEEDERS * n); /* they are stuck */
    CHECK(most > high_water && most <= high_water + FEEDERS * (MG_SCRATCH_SIZE + len + 26));
    /* read everything */
    for (i = 0; i < FEEDERS * n; i++) {
        CHECK(peer_recv(sink[1], &h, &payload));
        CHECK(h.src_id >= 1 && h.src_id <= FEEDERS && h.len == len);
        check_filled(payload, len, h.src_id, next[h.src_id - 1]++);
        free(payload);
        size_t pending = mg_stream_pending(out);
        CHECK(pending <= high_water + FEEDERS * (MG_SCRATCH_SIZE + len + 26));
    }
    for (i = 0; i < FEEDERS; i++) {
        test_join(threads[i]);
        CHECK(next[i] == n && atomic_load(&in[i]->frames_forwarded) == n);
        node_disconnect(&node, in[i]);
        close(fds[i][1]);
    }
    node_disconnect(&node, out);
    close(sink[1]);
    node_stop(&node);
}

static void a_full_stream_pauses_what_feeds_it_and_nothing_is_lost(void)
{
    flood_through(1 << 20, 3000, 1500);
}

static void a_low_high_water_mark_pauses_and_resumes_too(void)
{
    flood_through(20000, 900, 3000);
}

static void frames_larger_than_the_high_water_mark_pass(void)
{
    flood_through(50000, 400000, 12);
}

static void a_stream_that_ends_while_it_is_full_lets_its_feeders_go(void)
{
    for (int how = 0; how < 3; how++) {
        struct node node;
        struct feeder feeder = {.me = 1, .dst = 9, .n = 400, .len = 10000};
        char rest[4096];
        int fds[2], sink[2];

        node_start(&node, 0, -1);
        atomic_store(&node.router->sink.high_water, 100000);
        mg_latch *l = node_listen(&node, LATCH);
        test_pair(sink, 0);
        test_pair(fds, 0);
        mg_stream *out = node_connect(&node, 9, sink[0], 1), *in = node_connect(&node, 1, fds[0], 1);
        feeder.fd = fds[1];
        pthread_t thread = test_spawn(feed_many, &feeder);
        AWAIT(mg_stream_full(out));
        if (how == 0)
            close(sink[1]); /* the peer is gone */
        else if (how == 1) { /* the write fails, once there is room */
            shutdown(sink[1], SHUT_RD);
            while (read(sink[1], rest, sizeof rest) > 0)
                continue;
        } else
            node_disconnect(&node, out); /* we close it ourselves */
        test_join(thread);
        if (how < 2)
            AWAIT(node_count(&node, MG_EV_GONE) == 1);
        peer_filled(fds[1], 0, 1, LATCH, 30, 0);
        mg_frame_unref(test_get_frame(node.loop, l)); /* it is read again */
        if (how < 2)
            node_disconnect(&node, out);
        node_disconnect(&node, in);
        close(fds[1]);
        if (how)
            close(sink[1]);
        node_unlisten(&node, LATCH, l);
        node_stop(&node);
    }
}

static void a_feeder_that_ends_while_it_is_paused_is_forgotten(void)
{
    struct node node;
    struct feeder feeder = {.me = 1, .dst = 9, .n = 40, .len = 10000};
    int fds[2], sink[2];
    mg_hdr h;
    uint8_t *payload;

    node_start(&node, 0, -1);
    atomic_store(&node.router->sink.high_water, 100000);
    test_pair(sink, 0);
    test_pair(fds, 0);
    mg_stream *out = node_connect(&node, 9, sink[0], 1), *in = node_connect(&node, 1, fds[0], 1);
    feeder.fd = fds[1];
    pthread_t thread = test_spawn(feed_many, &feeder);
    AWAIT(mg_stream_full(out));
    test_join(thread);
    node_disconnect(&node, in);
    close(fds[1]);
    CHECK(atomic_load(&out->refs) == 2);
    for (size_t left = mg_stream_pending(out); left; left = mg_stream_pending(out)) {
        CHECK(peer_recv(sink[1], &h, &payload));
        free(payload);
    }
    node_disconnect(&node, out);
    close(sink[1]);
    node_stop(&node);
}

static void a_peer_that_asks_and_does_not_read_the_answers_costs_no_end_of_memory(void)
{
    struct node node;
    int fds[2];

    node_start(&node, 0, -1);
    atomic_store(&node.router->sink.high_water, 20000);
    for (int i = 0; i < MG_N_REASONS; i++)
        CHECK(mg_router_set_text(node.router, (mg_reason) i, "a reason that is a little longer than what was asked") ==
              MG_OK);
    test_pair(fds, 0);
    struct timeval tv = {0, 200000}; /* it may block: that is one way to be bounded */
    setsockopt(fds[1], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    mg_hdr h = {.enc = MG_ENC_BIN, .src_id = 1, .auth_id = 1, .handle = 77, .reply_to = 1000};
    uint8_t wire[26 * 100];
    for (int i = 0; i < 100; i++)
        mg_hdr_encode(wire + i * 26, &h);
    for (int i = 0; i < 400; i++)
        if (send(fds[1], wire, sizeof wire, MSG_NOSIGNAL) != sizeof wire)
            break;
    let_the_loop_look(&node);
    CHECK(mg_stream_pending(s) < 1000000);
    node_end_with_peer(&node, s, fds);
}

/* --- floods in both directions --- */

struct flood {
    struct writer writer;
    mg_latch *latch;
    size_t n;
    uint32_t who;
    pthread_t writing, reading;
};

static void *read_flood(void *arg)
{
    struct flood *x = arg;

    for (uint32_t i = 0; i < x->n; i++) {
        mg_frame *f = test_get_frame(x->writer.node->loop, x->latch);
        check_filled(mg_frame_payload(f), f->hdr.len, x->who, i);
        mg_frame_unref(f);
    }
    return NULL;
}

static size_t five_thousand(uint32_t who, uint32_t nth)
{
    (void) who, (void) nth;
    return 5000;
}

/* a and b write n frames to each other, and read after they have written, or meanwhile. */
static void flood_both_ways(struct node *a, uint32_t id_a, struct node *b, uint32_t id_b, uint32_t n)
{
    struct flood x = {.writer = {a, id_a, n, five_thousand, id_b, LATCH}, .n = n, .who = id_b};
    struct flood y = {.writer = {b, id_b, n, five_thousand, id_a, LATCH}, .n = n, .who = id_a};

    x.latch = node_listen(a, LATCH);
    y.latch = node_listen(b, LATCH);
    x.writing = test_spawn(write_many, &x.writer);
    y.writing = test_spawn(write_many, &y.writer);
    y.reading = test_spawn(read_flood, &y);
    test_join(x.writing);
    test_join(y.writing);
    read_flood(&x);
    test_join(y.reading);
    node_unlisten(a, LATCH, x.latch);
    node_unlisten(b, LATCH, y.latch);
}

static void two_that_flood_each_other_both_get_everything(void)
{
    struct node a, b;
    int fds[2];

    node_start(&a, 1, -1);
    node_start(&b, 2, -1);
    atomic_store(&a.router->sink.high_water, 100000);
    atomic_store(&b.router->sink.high_water, 100000);
    test_pair(fds, 0);
    CHECK(!fcntl(fds[1], F_SETFL, O_NONBLOCK));
    mg_stream *s = node_connect(&a, 2, fds[0], 1), *t = node_connect(&b, 1, fds[1], 1);
    flood_both_ways(&a, 1, &b, 2, 3000);
    node_disconnect(&a, s);
    node_disconnect(&b, t);
    node_stop(&a);
    node_stop(&b);
}

static void two_that_flood_each_other_through_a_third_both_get_everything(void)
{
    struct three x;

    three_make(&x);
    three_connect(&x);
    flood_both_ways(&x.a, 1, &x.b, 2, 3000);
    CHECK(atomic_load(&x.u->frames_forwarded) == 3000 && atomic_load(&x.v->frames_forwarded) == 3000);
    three_disconnect(&x);
    three_stop(&x);
}

int main(void)
{
    test_watchdog(240);
    RUN(a_full_stream_pauses_what_feeds_it_and_nothing_is_lost);
    RUN(a_low_high_water_mark_pauses_and_resumes_too);
    RUN(frames_larger_than_the_high_water_mark_pass);
    RUN(a_stream_that_ends_while_it_is_full_lets_its_feeders_go);
    RUN(a_feeder_that_ends_while_it_is_paused_is_forgotten);
    RUN(two_that_flood_each_other_both_get_everything);
    RUN(two_that_flood_each_other_through_a_third_both_get_everything);
    RUN(a_peer_that_asks_and_does_not_read_the_answers_costs_no_end_of_memory);
    return 0;
}
