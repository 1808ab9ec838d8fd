#include "net/stream.h"

#include <sched.h>

#include "test/filled.h"

/* --- writing --- */

enum { WRITERS = 4, FRAMES_EACH = 2500 };

static size_t length_of(uint32_t who, uint32_t nth)
{
    return nth % 500 == 499 ? 120000 + who : 8 + (nth * 37 + who * 11) % 700;
}

static void frames_of_many_threads_arrive_whole_and_in_each_threads_order(void)
{
    struct node node;
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    uint32_t next[WRITERS] = {0}, word[2];
    uint8_t *payload;
    mg_hdr h;
    int fds[2];

    node_start(&node, 0, -1);
    test_pair(fds, 8192); /* few fit: most writes are cut short */
    atomic_store(&node.router->sink.high_water, 300000);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer) {&node, i, FRAMES_EACH, length_of, 1, 500};
        threads[i] = test_spawn(write_many, &writers[i]);
    }
    for (int i = 0; i < WRITERS * FRAMES_EACH; i++) {
        CHECK(peer_recv(fds[1], &h, &payload));
        CHECK(h.dst_id == 1 && h.handle == 500 && h.len >= 8);
        memcpy(word, payload, 8);
        CHECK(word[1] < WRITERS && word[0] == next[word[1]]++);
        CHECK(h.len == length_of(word[1], word[0]));
        check_filled(payload, h.len, word[1], word[0]);
        free(payload);
    }
    for (int i = 0; i < WRITERS; i++)
        test_join(threads[i]);
    AWAIT(mg_stream_pending(s) == 0);
    CHECK(!peer_has_input(fds[1]) && atomic_load(&s->frames_out) == WRITERS * FRAMES_EACH);
    node_end_with_peer(&node, s, fds);
}

static void what_the_kernel_does_not_take_is_written_by_the_loop(void)
{
    enum { BIG = 3000000 };
    struct node node;
    uint8_t *payload;
    mg_hdr h = {.dst_id = 1, .handle = 7};
    int fds[2];

    mg_stream *s = node_with_peer(&node, fds, 4096, 0); /* sending needs no reading */
    CHECK(mg_stream_send(s, filled_frame(h, BIG, 3, 1)) == MG_OK);
    CHECK(mg_stream_send(s, filled_frame(h, 10, 3, 2)) == MG_OK);
    CHECK(mg_stream_pending(s) > BIG / 2);
    CHECK(peer_recv(fds[1], &h, &payload) && h.len == BIG);
    check_filled(payload, BIG, 3, 1);
    free(payload);
    CHECK(peer_recv(fds[1], &h, &payload) && h.len == 10);
    check_filled(payload, 10, 3, 2);
    free(payload);
    AWAIT(mg_stream_pending(s) == 0);
    node_end_with_peer(&node, s, fds);
}

static void *read_whole_frames(void *arg)
{
    struct feeder *x = arg;
    uint8_t *payload;
    mg_hdr h;

    for (uint32_t i = 0; i < x->n; i++) {
        CHECK(peer_recv(x->fd, &h, &payload) && h.len == x->len);
        check_filled(payload, x->len, 0, i);
        free(payload);
        atomic_store(&x->sent, i + 1);
    }
    return NULL;
}

static void who_sends_a_large_frame_writes_all_of_it_while_the_peer_reads(void)
{
    struct node node;
    mg_hdr h = {.dst_id = 1};
    struct feeder reader = {.n = 50, .len = 1000000};
    int fds[2];

    mg_stream *s = node_with_peer(&node, fds, 0, 0);
    reader.fd = fds[1];
    pthread_t thread = test_spawn(read_whole_frames, &reader);
    for (uint32_t i = 0; i < reader.n; i++)
        CHECK(mg_stream_send(s, filled_frame(h, reader.len, 0, i)) == MG_OK);
    test_join(thread);
    AWAIT(mg_stream_pending(s) == 0);
    CHECK(mg_loop_unsent(node.loop) == 0);
    node_end_with_peer(&node, s, fds);
}

struct pusher {
    mg_stream *s;
    _Atomic int done;
};

static void *send_a_large_frame(void *arg)
{
    struct pusher *p = arg;
    mg_hdr h = {.dst_id = 9, .src_id = 4};

    CHECK(mg_stream_send(p->s, filled_frame(h, 3000000, 4, 0)) == MG_OK);
    atomic_store(&p->done, 1);
    return NULL;
}

static int is_pushing(mg_stream *s)
{
    pthread_mutex_lock(&s->wmu);
    int draining = s->draining;
    pthread_mutex_unlock(&s->wmu);
    return draining;
}

/* A frame that is forwarded onto what a sender pushes makes the stream full: the loop takes
 * over, so that the feeder is resumed. */
static void what_is_forwarded_onto_a_large_frame_is_not_forgotten(void)
{
    enum { TIMES = 30 };
    struct node node;
    mg_stream *in, *out;
    uint8_t *payload;
    mg_hdr h;
    int fds[2], sink[2];

    node_start(&node, 0, -1);
    atomic_store(&node.router->sink.high_water, 100000);
    test_pair(sink, 4096);
    test_pair(fds, 0);
    out = node_connect(&node, 9, sink[0], 1);
    in = node_connect(&node, 1, fds[0], 1);
    for (int i = 0; i < TIMES; i++) {
        struct pusher p = {.s = out};
        struct feeder f = {.fd = fds[1], .me = 1, .dst = 9, .n = 3, .len = 60000};
        pthread_t sender = test_spawn(send_a_large_frame, &p);
        while (!is_pushing(out) && !atomic_load(&p.done))
            sched_yield();
        pthread_t feeder = test_spawn(feed_many, &f);
        uint32_t from_feeder = 0;
        for (int n = 0; n < 4; n++) {
            CHECK(peer_recv(sink[1], &h, &payload));
            if (h.src_id == 1)
                check_filled(payload, f.len, 1, from_feeder++);
            else
                check_filled(payload, 3000000, 4, 0);
            free(payload);
        }
        CHECK(from_feeder == 3);
        test_join(sender);
        test_join(feeder);
        AWAIT(mg_stream_pending(out) == 0 && !is_pushing(out));
    }
    node_disconnect(&node, in);
    node_disconnect(&node, out);
    close(fds[1]);
    close(sink[1]);
    node_stop(&node);
}

static void a_stream_can_be_closed_under_who_sends_a_large_frame(void)
{
    struct node node;
    int fds[2];

    node_start(&node, 0, -1);
    for (int i = 0; i < 50; i++) {
        test_pair(fds, 4096);
        struct pusher p = {.s = node_connect(&node, 1, fds[0], 1)};
        mg_stream_ref(p.s);
        pthread_t sender = test_spawn(send_a_large_frame, &p);
        while (!is_pushing(p.s) && !atomic_load(&p.done))
            sched_yield();
        node_disconnect(&node, p.s);
        test_join(sender);
        CHECK(mg_stream_pending(p.s) == 0 && !is_pushing(p.s) && mg_loop_unsent(node.loop) == 0);
        mg_stream_unref(p.s);
        close(fds[1]);
    }
    node_stop(&node);
}

static void a_stream_counts_as_unsent_until_the_kernel_has_all_of_it_or_it_ends(void)
{
    struct node node;
    mg_hdr h = {.dst_id = 1};
    uint8_t *payload;
    int fds[2][2];
    mg_stream *s[2];

    node_start(&node, 0, -1);
    for (int i = 0; i < 2; i++) {
        test_pair(fds[i], 4096);
        s[i] = node_connect(&node, (uint32_t) i + 1, fds[i][0], 1);
    }
    CHECK(mg_loop_unsent(node.loop) == 0);
    CHECK(mg_stream_send(s[0], filled_frame(h, 10, 0, 0)) == MG_OK);
    CHECK(mg_loop_unsent(node.loop) == 0); /* taken at once */
    for (int i = 0; i < 2; i++)
        CHECK(mg_stream_send(s[i], filled_frame(h, 500000, 0, 1)) == MG_OK);
    CHECK(mg_loop_unsent(node.loop) == 2);
    for (int i = 0; i < 2; i++) {
        CHECK(peer_recv(fds[0][1], &h, &payload));
        free(payload);
    }
    AWAIT(mg_loop_unsent(node.loop) == 1);
    node_disconnect(&node, s[1]);
    CHECK(mg_loop_unsent(node.loop) == 0);
    node_disconnect(&node, s[0]);
    close(fds[0][1]);
    close(fds[1][1]);
    node_stop(&node);
}

static void a_closed_stream_takes_nothing_and_lets_its_senders_go(void)
{
    struct node node;
    mg_hdr h = {.dst_id = 1};
    struct writer w = {&node, 0, 1, length_of, 1, 500};
    int fds[2], own;

    node_start(&node, 0, -1);
    test_pair(fds, 4096);
    own = dup(fds[0]);
    atomic_store(&node.router->sink.high_water, 100000);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    CHECK(mg_stream_send(s, filled_frame(h, 500000, 0, 0)) == MG_OK && mg_stream_full(s));
    CHECK(mg_stream_wait_room(s) == MG_EAGAIN); /* a while without success */
    pthread_t thread = test_spawn(write_many, &w); /* blocks: nobody reads */
    AWAIT(atomic_load(&s->frames_out) == 2);
    AWAIT(atomic_load(&s->blocked) == 1);
    mg_loop_acquire(node.loop);
    mg_stream_close(s);
    mg_stream_close(s);
    mg_loop_release(node.loop);
    test_join(thread);
    CHECK(atomic_load(&s->blocked) == 0);
    CHECK(mg_stream_pending(s) == 0 && !mg_stream_full(s) && mg_stream_wait_room(s) == MG_OK);
    CHECK(mg_stream_send(s, filled_frame(h, 10, 0, 0)) == MG_ECLOSED);
    mg_loop_acquire(node.loop);
    CHECK(mg_stream_start(s) == MG_ECLOSED && mg_stream_feed(s, "x", 1) == MG_ECLOSED);
    mg_loop_release(node.loop);
    mg_stream_go_on(s); /* too late, which harms nobody */
    let_the_loop_look(&node);
    node_disconnect(&node, s);
    CHECK(node_count(&node, MG_EV_GONE) == 0 && node_count(&node, MG_EV_BAD) == 0);
    close(fds[1]);
    close(own);
    node_stop(&node);
}

int main(void)
{
    test_watchdog(240);
    RUN(frames_of_many_threads_arrive_whole_and_in_each_threads_order);
    RUN(what_the_kernel_does_not_take_is_written_by_the_loop);
    RUN(who_sends_a_large_frame_writes_all_of_it_while_the_peer_reads);
    RUN(what_is_forwarded_onto_a_large_frame_is_not_forgotten);
    RUN(a_stream_can_be_closed_under_who_sends_a_large_frame);
    RUN(a_stream_counts_as_unsent_until_the_kernel_has_all_of_it_or_it_ends);
    RUN(a_closed_stream_takes_nothing_and_lets_its_senders_go);
    return 0;
}
