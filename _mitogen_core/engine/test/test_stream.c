#include "net/stream.h"

#include "test/bytes.h"
#include "test/test_net.h"

enum { LATCH = 2000, PYTHON = 2001 };

/* A payload that tells who sent it and the how manyth it is, and can be checked to the last byte. */
static void fill(uint8_t *p, size_t len, uint32_t who, uint32_t nth)
{
    CHECK(len >= 8);
    memcpy(p, &nth, 4);
    memcpy(p + 4, &who, 4);
    test_fill(p + 8, len - 8, who * 57 + nth);
}

static void check_filled(const uint8_t *p, size_t len, uint32_t who, uint32_t nth)
{
    uint32_t word[2];

    CHECK(len >= 8);
    memcpy(word, p, 8);
    CHECK(word[0] == nth && word[1] == who);
    CHECK(test_filled(p + 8, len - 8, who * 57 + nth));
}

static mg_frame *filled_frame(mg_hdr hdr, size_t len, uint32_t who, uint32_t nth)
{
    hdr.enc = MG_ENC_BIN;
    mg_frame *f = mg_frame_new(&hdr, len);
    fill(mg_frame_payload(f), len, who, nth);
    return f;
}

/* A frame from the raw peer of stream 1 to our node, context 0. */
static void peer_filled(int fd, uint32_t dst, uint32_t src, uint32_t handle, size_t len, uint32_t nth)
{
    uint8_t *p = malloc(len);

    fill(p, len, src, nth);
    peer_send(fd, (mg_hdr) {.dst_id = dst, .src_id = src, .auth_id = src, .handle = handle}, p, len);
    free(p);
}

/* Sends from an ordinary thread, as the layer above does. */
static void send_politely(mg_router *r, mg_frame *f)
{
    mg_stream *out;

    mg_router_route(r, f, &out);
    CHECK(out);
    if (mg_stream_full(out))
        while (mg_stream_wait_room(out) == MG_EAGAIN)
            continue;
    mg_stream_unref(out);
}

/* Any thread's way to know that the loop has looked at everything there was: an op and a turn around it. */
static void let_the_loop_look(struct node *node)
{
    for (int i = 0; i < 3; i++) {
        mg_loop_acquire(node->loop);
        mg_loop_release(node->loop);
        AWAIT(atomic_load(&node->waiter->elsewhere) != NULL);
    }
}

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

/* Sends a frame as if three had come in a row, and then none for 50 us, of which the sender was running for so long.
 * Whether the row goes on is to be as expected. */
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
        /* again, if we were away for so long that it ended for that */
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

/* --- writing --- */

enum { WRITERS = 4, FRAMES_EACH = 2500 };

static size_t length_of(uint32_t who, uint32_t nth)
{
    return nth % 500 == 499 ? 120000 + who : 8 + (nth * 37 + who * 11) % 700;
}

struct writer {
    struct node *node;
    uint32_t who, n;
    size_t (*length)(uint32_t who, uint32_t nth);
    uint32_t dst, handle;
};

static void *write_many(void *arg)
{
    struct writer *w = arg;

    for (uint32_t i = 0; i < w->n; i++) {
        mg_hdr h = {.dst_id = w->dst,
                    .handle = w->handle,
                    .src_id = w->node->router->own_id,
                    .auth_id = w->node->router->own_id};
        send_politely(w->node->router, filled_frame(h, w->length(w->who, i), w->who, i));
    }
    return NULL;
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

struct feeder {
    int fd;
    uint32_t me, dst, n;
    size_t len;
    _Atomic uint32_t sent;
};

static void *feed_many(void *arg)
{
    struct feeder *x = arg;

    for (uint32_t i = 0; i < x->n; i++) {
        peer_filled(x->fd, x->dst, x->me, 500, x->len, i);
        atomic_store(&x->sent, i + 1);
    }
    return NULL;
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

/* A frame that is forwarded onto what a sender pushes makes the stream full: the loop takes over, so that the feeder
 * is resumed. */
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

static void a_release_that_comes_after_everything_is_closed_leaks_nothing(void)
{
    struct node node;
    int fds[2];

    node_make(&node, 0, -1);
    test_pair(fds, 0);
    mg_stream *s = mg_stream_ref(node_connect(&node, 1, fds[0], 1));
    node_disconnect(&node, s);
    mg_loop_close(node.loop);
    mg_stream_go_on(s);
    mg_stream_unref(s);
    close(fds[1]);
    node_stop(&node);
}

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
    peer_write(fds[1], "MIxxx", 5); /* and an end within a frame is an end */
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
    /* until the feeders are stuck: nothing was sent for a tenth of a second. (Were they only slow, less would be
     * proven.) */
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

/* --- memory --- */

static void a_stream_is_whole_or_not_there_when_memory_is_out(void)
{
    struct node node;
    int fds[2];

    node_make(&node, 0, -1);
    test_pair(fds, 0);
    for (long n = 1;; n++) {
        mg_alloc_fail_at(n);
        mg_stream *s = mg_router_new_stream(node.router, 1, fds[0], fds[0]);
        int failed = mg_alloc_failed();
        mg_alloc_fail_at(0);
        CHECK(failed == !s);
        mg_stream_unref(s);
        if (!failed)
            break;
    }
    close(fds[0]);
    close(fds[1]);
    node_stop(&node);
}

/* One of each: to a latch, to Python, forwarded, refused with an answer, to nobody, a large one; in this thread
 * alone. */
static void messages_in_short_memory_are_lost_at_worst(void)
{
    int done = 0;

    for (long n = 1; !done; n++) {
        struct node node;
        uint8_t *wire = malloc(400000), *at = wire;
        static const struct {
            uint32_t dst, handle, reply_to;
            size_t len;
        } what[] = {
            {0, LATCH, 0, 10}, {0, PYTHON, 0, 10},   {2, 5, 0, 100},   {0, 66, 1000, 8},
            {77, 1, 1000, 8},  {0, LATCH, 0, 50000}, {2, 6, 0, 50000}, {0, LATCH, 0, 8},
            {0, LATCH, 0, 8},  {0, LATCH, 0, 8},     {0, LATCH, 0, 8},
        };
        int fds[2], other[2];

        node_make(&node, 0, -1);
        mg_latch *l = node_listen(&node, LATCH);
        node_handle_in_python(&node, PYTHON);
        test_pair(fds, 0);
        test_pair(other, 0);
        mg_stream *s = node_connect(&node, 1, fds[0], 0), *t = node_connect(&node, 2, other[0], 0);
        for (size_t i = 0; i < sizeof what / sizeof *what; i++) {
            mg_hdr h = {.enc = MG_ENC_BIN,
                        .dst_id = what[i].dst,
                        .src_id = 1,
                        .auth_id = 1,
                        .handle = what[i].handle,
                        .reply_to = what[i].reply_to,
                        .len = (uint32_t) what[i].len};
            mg_hdr_encode(at, &h);
            fill(at + 26, what[i].len, 1, (uint32_t) i);
            at += 26 + what[i].len;
        }
        mg_alloc_fail_at(n);
        mg_loop_acquire(node.loop);
        /* cut within the second large one */
        mg_err err = mg_stream_feed(s, wire, (size_t) (at - wire) - 20000);
        if (err == MG_OK)
            err = mg_stream_feed(s, at - 20000, 20000);
        CHECK(err == MG_OK || err == MG_ENOMEM || err == MG_ECLOSED);
        mg_loop_release(node.loop);
        node_take_events(&node);
        test_run_ops(node.loop); /* the release */
        node_take_events(&node);
        done = !mg_alloc_failed();
        mg_alloc_fail_at(0);
        if (done)
            CHECK(mg_latch_size(l) == 6 && err == MG_OK);
        node_disconnect(&node, s);
        node_disconnect(&node, t);
        node_unlisten(&node, LATCH, l);
        close(fds[1]);
        close(other[1]);
        node_stop(&node);
        free(wire);
    }
}

/* The end of a stream must not go untold, or whoever waits for its answers waits for ever. */
static void the_end_is_told_even_when_memory_is_out(void)
{
    struct node node;
    int fds[2];

    node_make(&node, 0, -1);
    test_pair(fds, 0);
    mg_stream *s = node_connect(&node, 1, fds[0], 1);
    close(fds[1]);
    mg_alloc_fail_at(1);
    AWAIT(mg_loop_attend(node.loop, mg_now() + MG_SECOND / 100) == MG_OK); /* there is an event */
    mg_alloc_fail_at(0);
    node_take_events(&node);
    CHECK(node_count(&node, MG_EV_GONE) == 1);
    node_disconnect(&node, s);
    node_stop(&node);
}

/* --- a sink of one's own --- */

struct own_sink {
    mg_sink sink;
    int refs, ended;
    mg_frame *frame; /* the last one */
    mg_err why;
    size_t pending;
};

#define OWN_SINK(s) MG_CONTAINER(s, struct own_sink, sink)

static void own_ref(mg_sink *sink)
{
    OWN_SINK(sink)->refs++;
}

static void own_unref(mg_sink *sink)
{
    OWN_SINK(sink)->refs--;
}

static void own_frame(mg_sink *sink, mg_stream *s, mg_frame *f)
{
    CHECK(!OWN_SINK(sink)->frame);
    OWN_SINK(sink)->frame = f;
    mg_stream_set_in_python(s, 1);
}

static void own_broken(mg_sink *sink, mg_stream *s, mg_err err, int sys_errno, mg_buf *pending)
{
    CHECK(OWN_SINK(sink)->ended == 1 && !sys_errno);
    OWN_SINK(sink)->why = err;
    OWN_SINK(sink)->pending = mg_buf_len(pending);
    mg_buf_unref(pending);
    mg_loop_unreserve_event(mg_stream_loop(s)); /* not posted here */
}

static void own_ended(mg_sink *sink, mg_stream *s)
{
    (void) s;
    OWN_SINK(sink)->ended++;
}

static const mg_sink_ops own_ops = {own_ref, own_unref, own_frame, own_broken, own_ended};

static void feed_filled(mg_stream *s, size_t len, uint32_t nth)
{
    uint8_t wire[MG_HEADER_LEN + 500];
    mg_frame *f = filled_frame((mg_hdr) {.enc = MG_ENC_BIN, .dst_id = 7}, len, 1, nth);
    struct iovec iov;
    CHECK(mg_frame_iov(f, 0, &iov, 1) == 1);
    memcpy(wire, iov.iov_base, iov.iov_len);
    mg_stream_feed(s, wire, iov.iov_len);
    mg_frame_unref(f);
}

static void a_stream_gives_its_frames_and_its_end_to_the_sink_of_its_birth(void)
{
    struct own_sink own = {.refs = 1};
    int fds[2];
    mg_loop *loop = mg_loop_new();

    test_pair(fds, 0);
    mg_sink_init(&own.sink, &own_ops);
    atomic_store(&own.sink.max_size, 400);
    mg_stream *s = mg_stream_new(loop, &own.sink, 5, fds[0], fds[0]);
    CHECK(s && own.refs == 2 && mg_stream_remote_id(s) == 5);
    mg_loop_acquire(loop);
    feed_filled(s, 400, 0);
    feed_filled(s, 300, 1); /* waits while the first is in Python */
    CHECK(own.frame && mg_frame_len(own.frame) == 400);
    mg_frame_unref(own.frame);
    own.frame = NULL;
    mg_stream_go_on(s);
    mg_loop_release(loop);
    test_run_ops(loop);
    CHECK(own.frame && mg_frame_len(own.frame) == 300 && !own.ended);
    mg_loop_acquire(loop);
    mg_stream_set_in_python(s, 0);
    feed_filled(s, 401, 2);
    CHECK(own.ended == 1 && own.why == MG_ETOOBIG && own.pending == MG_HEADER_LEN + 401);
    mg_stream_close(s);
    mg_loop_release(loop);
    mg_stream_unref(s);
    CHECK(own.refs == 1);
    mg_frame_unref(own.frame);
    mg_loop_close(loop);
    mg_loop_unref(loop);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    test_watchdog(240);
    RUN(a_stream_gives_its_frames_and_its_end_to_the_sink_of_its_birth);
    RUN(frames_sent_without_a_pause_are_corked_but_not_for_long);
    RUN(on_one_core_a_row_goes_on_after_others_ran_but_not_after_a_wait);
    RUN(no_more_is_corked_than_a_sender_waits_for);
    RUN(nothing_is_corked_where_nobody_would_flush_it);
    RUN(a_stream_that_is_closed_sends_what_it_has_corked);
    RUN(frames_of_many_threads_arrive_whole_and_in_each_threads_order);
    RUN(what_the_kernel_does_not_take_is_written_by_the_loop);
    RUN(who_sends_a_large_frame_writes_all_of_it_while_the_peer_reads);
    RUN(what_is_forwarded_onto_a_large_frame_is_not_forgotten);
    RUN(a_stream_can_be_closed_under_who_sends_a_large_frame);
    RUN(a_stream_counts_as_unsent_until_the_kernel_has_all_of_it_or_it_ends);
    RUN(a_closed_stream_takes_nothing_and_lets_its_senders_go);
    RUN(a_stream_is_not_read_until_it_is_started_and_not_after_it_is_stopped);
    RUN(bytes_that_are_fed_come_before_those_that_are_read);
    RUN(large_frames_arrive_whole_between_small_ones);
    RUN(parts_of_large_frames_for_us_are_noted);
    RUN(the_end_of_the_input_is_told_once_and_after_all_frames);
    RUN(bad_input_ends_its_stream_once_and_costs_no_other);
    RUN(a_held_stream_delivers_nothing_until_it_is_released_and_then_in_order);
    RUN(a_failed_write_leaves_what_the_peer_said_before_to_be_read);
    RUN(a_write_that_fails_in_the_loop_ends_the_stream_as_well);
    RUN(a_full_stream_pauses_what_feeds_it_and_nothing_is_lost);
    RUN(a_low_high_water_mark_pauses_and_resumes_too);
    RUN(frames_larger_than_the_high_water_mark_pass);
    RUN(a_stream_that_ends_while_it_is_full_lets_its_feeders_go);
    RUN(a_feeder_that_ends_while_it_is_paused_is_forgotten);
    RUN(two_that_flood_each_other_both_get_everything);
    RUN(two_that_flood_each_other_through_a_third_both_get_everything);
    RUN(a_stream_is_whole_or_not_there_when_memory_is_out);
    RUN(messages_in_short_memory_are_lost_at_worst);
    RUN(a_release_that_comes_after_everything_is_closed_leaks_nothing);
    RUN(a_peer_that_asks_and_does_not_read_the_answers_costs_no_end_of_memory);
    RUN(the_end_is_told_even_when_memory_is_out);
    return 0;
}
