#include "net/stream.h"

#include "test/filled.h"

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

/* One of each: to a latch, to Python, forwarded, refused with an answer, to nobody, a large one;
 * in this thread alone. */
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
    RUN(a_stream_is_whole_or_not_there_when_memory_is_out);
    RUN(messages_in_short_memory_are_lost_at_worst);
    RUN(a_release_that_comes_after_everything_is_closed_leaks_nothing);
    RUN(the_end_is_told_even_when_memory_is_out);
    return 0;
}
