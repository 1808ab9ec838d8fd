/* The life of a broker without Python: start, events, an end with a grace period, fork. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "test/broker.h"
#include "test/test_net.h"

struct seer {
    pthread_t thread;
    _Atomic int n;
};

static void see(void *arg, mg_event *ev)
{
    struct seer *x = arg;

    (void) ev;
    x->thread = pthread_self();
    atomic_fetch_add(&x->n, 1);
}

static void events_are_handled_on_the_brokers_thread(void)
{
    mg_loop *loop = mg_loop_new();
    struct seer x = {.n = 0};
    mg_event ev = {.kind = 1};
    mg_broker *b = mg_broker_start(loop, see, &x);

    CHECK(b);
    for (int i = 0; i < 3; i++)
        CHECK(mg_loop_push_event(loop, &ev) == MG_OK);
    AWAIT(atomic_load(&x.n) == 3);
    mg_broker_shutdown(b, 0);
    CHECK(mg_broker_join(b) == MG_OK);
    CHECK(!pthread_equal(x.thread, pthread_self()));
    CHECK(mg_loop_closed(loop));
    mg_loop_unref(loop);
}

/* A node with one stream on which len bytes wait. */
static mg_stream *fill(struct node *node, int fds[2], size_t len)
{
    mg_hdr h = {.enc = MG_ENC_BIN, .dst_id = 1};

    node_start(node, 0, -1);
    test_pair(fds, 4096);
    mg_stream *s = node_connect(node, 1, fds[0], 1);
    mg_frame *f = mg_frame_new(&h, len);
    memset(mg_frame_payload(f), 'x', len);
    CHECK(mg_stream_send(s, f) == MG_OK);
    CHECK(mg_loop_unsent(node->loop) == 1);
    return s;
}

static void what_was_sent_is_written_within_the_grace_period(void)
{
    struct node node;
    mg_hdr h;
    uint8_t *payload;
    int fds[2];
    mg_stream *s = fill(&node, fds, 3000000);

    mg_broker_shutdown(node.broker, TEST_PATIENCE);
    CHECK(peer_recv(fds[1], &h, &payload));
    CHECK(h.len == 3000000 && payload[2999999] == 'x');
    free(payload);
    CHECK(mg_broker_join(node.broker) == MG_OK);
    node.broker = NULL;
    node_disconnect(&node, s);
    close(fds[1]);
    node_stop(&node);
}

static void a_peer_that_does_not_read_costs_the_grace_period_only(void)
{
    struct node node;
    int fds[2];
    mg_stream *s = fill(&node, fds, 3000000);

    mg_broker_shutdown(node.broker, MG_SECOND / 20);
    mg_broker_shutdown(node.broker, TEST_PATIENCE); /* the first one counts */
    CHECK(mg_broker_join(node.broker) == MG_ETIMEDOUT);
    node.broker = NULL;
    node_disconnect(&node, s);
    close(fds[1]);
    node_stop(&node);
}

static void a_loop_closed_by_somebody_else_ends_the_broker(void)
{
    mg_loop *loop = mg_loop_new();
    struct seer x = {.n = 0};
    mg_broker *b = mg_broker_start(loop, see, &x);

    mg_loop_close(loop);
    CHECK(mg_broker_join(b) == MG_OK);
    mg_loop_unref(loop);
}

static void a_fork_leaves_the_parents_broker_alone(void)
{
    mg_loop *loop = mg_loop_new();
    struct seer x = {.n = 0};
    mg_event ev = {.kind = 1};
    mg_broker *b = mg_broker_start(loop, see, &x);
    int status;

    mg_loop_acquire(loop); /* as the binding does: no thread is inside while the process is copied */
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        mg_broker_forked(b);
        int fine = mg_loop_closed(loop) && mg_loop_was_forked(loop);
        _exit(fine ? 0 : 1);
    }
    mg_loop_release(loop);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(mg_loop_push_event(loop, &ev) == MG_OK);
    AWAIT(atomic_load(&x.n) == 1);
    mg_broker_shutdown(b, 0);
    CHECK(mg_broker_join(b) == MG_OK);
    mg_loop_unref(loop);
}

int main(void)
{
    test_watchdog(240);
    RUN(events_are_handled_on_the_brokers_thread);
    RUN(what_was_sent_is_written_within_the_grace_period);
    RUN(a_peer_that_does_not_read_costs_the_grace_period_only);
    RUN(a_loop_closed_by_somebody_else_ends_the_broker);
    RUN(a_fork_leaves_the_parents_broker_alone);
    return 0;
}
