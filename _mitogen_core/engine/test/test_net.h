/* Helpers that the tests of the threaded parts share: threads, deadlines, socket pairs, raw
 * peers, and a node of its own. */
#ifndef MG_TEST_NET_H
#define MG_TEST_NET_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/event_drop.h"
#include "net/router.h"
#include "net/router_body.h"
#include "net/stream.h"
#include "net/stream_body.h"
#include "test/broker.h"
#include "test/test.h"

/* Longer than anything takes, even under a sanitizer on a busy machine. Reaching it is a
 * failure. */
#define TEST_PATIENCE (40 * MG_SECOND)

/* Waits for a condition that another thread brings about. */
#define AWAIT(cond)                                                                                                    \
    do {                                                                                                               \
        int64_t await_until = mg_now() + TEST_PATIENCE;                                                                \
        while (!(cond)) {                                                                                              \
            if (mg_now() > await_until) {                                                                              \
                fprintf(stderr, "%s:%d: never came true: %s\n", __FILE__, __LINE__, #cond);                            \
                abort();                                                                                               \
            }                                                                                                          \
            test_pause();                                                                                              \
        }                                                                                                              \
    } while (0)

static inline void test_pause(void)
{
    struct timespec ts = {0, 50000};

    nanosleep(&ts, NULL);
}

/* A hang ends the program, with a core or a trace of where it is. */
static inline void test_watchdog(unsigned seconds)
{
    signal(SIGALRM, SIG_DFL);
    alarm(seconds);
}

static inline pthread_t test_spawn(void *(*fn)(void *), void *arg)
{
    pthread_t thread;

    CHECK(!pthread_create(&thread, NULL, fn, arg));
    return thread;
}

static inline void test_join(pthread_t thread)
{
    CHECK(!pthread_join(thread, NULL));
}

/* fds[0] is the engine's end: non-blocking. fds[1] is the test's: it blocks, but not for ever.
 * sndbuf 0: the default. */
static inline void test_pair(int fds[2], int sndbuf)
{
    struct timeval tv = {40, 0};

    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    CHECK(!fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK));
    CHECK(!setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    CHECK(!setsockopt(fds[1], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv));
    if (sndbuf)
        for (int i = 0; i < 2; i++)
            CHECK(!setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf));
}

/* --- a peer that is no engine --- */

static inline void peer_write(int fd, const void *ptr, size_t n)
{
    const char *at = ptr;

    while (n) {
        ssize_t done = send(fd, at, n, MSG_NOSIGNAL);

        if (done < 0 && errno == EINTR)
            continue;
        CHECK(done > 0);
        at += done;
        n -= (size_t) done;
    }
}

/* Returns 0 when the input ended instead. */
static inline int peer_read(int fd, void *ptr, size_t n)
{
    char *at = ptr;

    while (n) {
        ssize_t got = read(fd, at, n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0 || (got < 0 && errno == ECONNRESET))
            return 0;
        CHECK(got > 0);
        at += got;
        n -= (size_t) got;
    }
    return 1;
}

static inline void peer_send(int fd, mg_hdr hdr, const void *payload, size_t len)
{
    uint8_t *wire = malloc(MG_HEADER_LEN + len);

    if (!hdr.enc)
        hdr.enc = MG_ENC_BIN;
    hdr.len = (uint32_t) len;
    mg_hdr_encode(wire, &hdr);
    if (len)
        memcpy(wire + MG_HEADER_LEN, payload, len);
    peer_write(fd, wire, MG_HEADER_LEN + len);
    free(wire);
}

/* Reads one frame; the payload is the caller's to free. Returns 0 when the input ended. */
static inline int peer_recv(int fd, mg_hdr *hdr, uint8_t **payload)
{
    uint8_t wire[MG_HEADER_LEN];

    *payload = NULL;
    if (!peer_read(fd, wire, sizeof wire))
        return 0;
    mg_hdr_decode(hdr, wire);
    CHECK(mg_enc_known(hdr->enc));
    *payload = malloc(hdr->len + 1);
    if (hdr->len && !peer_read(fd, *payload, hdr->len)) {
        free(*payload);
        *payload = NULL;
        return 0;
    }
    (*payload)[hdr->len] = 0;
    return 1;
}

/* Whether there is anything to be read, an end included. */
static inline int peer_has_input(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static inline mg_frame *test_frame(mg_hdr hdr, const void *payload, size_t len)
{
    if (!hdr.enc)
        hdr.enc = MG_ENC_BIN;
    mg_frame *f = mg_frame_new(&hdr, len);
    CHECK(f);
    if (len)
        memcpy(mg_frame_payload(f), payload, len);
    return f;
}

/* --- items of latches --- */

static inline mg_item number(uintptr_t n)
{
    return (mg_item) {(void *) n, MG_ITEM_OBJECT, 0};
}

static inline void drop_item(mg_item item)
{
    if (item.kind == MG_ITEM_FRAME)
        mg_frame_unref(item.ptr);
    else if (item.kind == MG_ITEM_TOKEN)
        mg_token_end(item.ptr);
}

/* Gets an item as the layer above does: joins, waits, leaves. loop may be NULL. */
static inline mg_err test_get(mg_loop *loop, mg_latch *l, int64_t deadline, mg_item *item)
{
    mg_sleeper s;
    mg_err err = mg_latch_join(l, &s, item);

    if (err != MG_EAGAIN)
        return err;
    do
        err = loop ? mg_loop_wait(loop, &s, deadline) : mg_latch_sleep(&s, deadline);
    while (err == MG_EINTR);
    mg_spin_learn(&s.waiter->spin, s.since);
    mg_err left = mg_latch_leave(l, &s, item);
    CHECK(err == MG_ETIMEDOUT || left != MG_EAGAIN);
    return left == MG_EAGAIN ? MG_ETIMEDOUT : left;
}

/* The next frame of a latch, within patience. The reference is the caller's. */
static inline mg_frame *test_get_frame(mg_loop *loop, mg_latch *l)
{
    mg_item item;

    CHECK(test_get(loop, l, mg_now() + TEST_PATIENCE, &item) == MG_OK && item.kind == MG_ITEM_FRAME);
    return item.ptr;
}

/* --- a node: loop, router and the thread that attends --- */

struct seen {
    int kind;
    mg_hdr hdr; /* FRAME, HOOK, REFUSED */
    uint32_t first; /* FRAME: the first four payload bytes, as they are */
    mg_reason reason;
    uint64_t n; /* GONE, BAD: n; REFUSED: lost */
    mg_stream *stream; /* for comparing only */
    size_t pending; /* BAD: how many bytes */
};

#define MAX_SEEN 20000

struct node {
    mg_loop *loop;
    mg_router *router;
    mg_broker *broker;
    mg_waiter *waiter; /* the attendant's, once it runs */
    mg_task up_task;
    _Atomic int up;
    _Atomic int keep_in_python; /* streams do not go on after MG_EV_FRAME and MG_EV_HOOK */
    pthread_mutex_t mu;
    struct seen *seen;
    size_t n_seen;
};

static inline void node_see(struct node *node, mg_event *ev)
{
    struct seen x = {.kind = ev->kind, .n = ev->n};

    if (ev->kind == MG_EV_FRAME || ev->kind == MG_EV_HOOK) {
        mg_frame *f = ev->b;
        x.hdr = f->hdr;
        x.stream = ev->c;
        if (f->hdr.len >= 4 && mg_frame_payload(f))
            memcpy(&x.first, mg_frame_payload(f), 4);
    } else if (ev->kind == MG_EV_GONE || ev->kind == MG_EV_BAD) {
        x.stream = ev->a;
        x.pending = ev->b ? mg_buf_len(ev->b) : 0;
    } else if (ev->kind == MG_EV_REFUSED) {
        mg_refusal *refusal = ev->a;
        x.reason = refusal->reason;
        x.hdr = refusal->hdr;
        x.n = refusal->lost;
        x.stream = refusal->stream;
    }
    pthread_mutex_lock(&node->mu);
    CHECK(node->n_seen < MAX_SEEN);
    node->seen[node->n_seen++] = x;
    pthread_mutex_unlock(&node->mu);
}

/* Takes an event as the layer above would, without a program's code behind it. */
static inline void node_handle(struct node *node, mg_event *ev)
{
    node_see(node, ev);
    switch (ev->kind) {
    case MG_EV_FRAME:
        if (ev->c && !atomic_load(&node->keep_in_python))
            mg_stream_go_on(ev->c);
        mg_net_event_drop(ev);
        break;
    case MG_EV_HOOK:
        mg_router_after_hook(node->router, ev->b, ev->c); /* takes over the frame */
        if (!atomic_load(&node->keep_in_python))
            mg_stream_go_on(ev->c);
        mg_stream_unref(ev->c);
        break;
    default: mg_net_event_drop(ev);
    }
}

static inline void node_take_events(struct node *node)
{
    mg_event ev;

    while (mg_loop_pop_event(node->loop, &ev))
        node_handle(node, &ev);
}

static inline void node_event(void *arg, mg_event *ev)
{
    node_handle(arg, ev);
}

static inline void node_is_up(mg_task *task)
{
    struct node *node = (struct node *) ((char *) task - offsetof(struct node, up_task));

    node->waiter = mg_waiter_self();
    atomic_store(&node->up, 1);
}

/* Everything but the attendant. */
static inline void node_make(struct node *node, uint32_t own_id, int64_t parent_id)
{
    uint32_t parent = (uint32_t) parent_id;

    memset(node, 0, sizeof *node);
    pthread_mutex_init(&node->mu, NULL);
    node->seen = malloc(MAX_SEEN * sizeof *node->seen);
    node->loop = mg_loop_new();
    node->router = mg_router_new(node->loop);
    CHECK(node->loop && node->router);
    CHECK(mg_router_set_identity(node->router, own_id, parent_id, &parent, parent_id >= 0) == MG_OK);
}

static inline void node_attend(struct node *node)
{
    node->broker = mg_broker_start(node->loop, node_event, node);
    CHECK(node->broker);
    node->up_task.run = node_is_up;
    mg_loop_post(node->loop, &node->up_task);
    AWAIT(atomic_load(&node->up));
}

static inline void node_start(struct node *node, uint32_t own_id, int64_t parent_id)
{
    node_make(node, own_id, parent_id);
    node_attend(node);
}

/* Streams and handlers are gone by now. */
static inline void node_stop(struct node *node)
{
    if (node->broker) {
        mg_broker_shutdown(node->broker, 0);
        mg_broker_join(node->broker);
    } else
        mg_loop_close(node->loop);
    node_take_events(node);
    mg_router_unref(node->router);
    mg_loop_unref(node->loop);
    pthread_mutex_destroy(&node->mu);
    free(node->seen);
}

struct test_mark {
    mg_task task;
    mg_loop *loop;
    int passed;
};

static inline void test_mark_run(mg_task *task)
{
    struct test_mark *mark = (struct test_mark *) task;

    mark->passed = 1;
    mg_loop_interrupt(mark->loop); /* there is nothing more to wait for */
}

/* Attends until all ops that are queued now have run. For a loop without other threads. */
static inline void test_run_ops(mg_loop *loop)
{
    struct test_mark mark = {.task.run = test_mark_run, .loop = loop};
    int64_t until = mg_now() + TEST_PATIENCE;

    CHECK(mg_loop_post(loop, &mark.task) == 1);
    while (!mark.passed)
        CHECK(mg_loop_attend(loop, mg_now() + MG_SECOND / 500) != MG_ECLOSED && mg_now() < until);
}

static inline size_t node_count(struct node *node, int kind)
{
    size_t n = 0;

    pthread_mutex_lock(&node->mu);
    for (size_t i = 0; i < node->n_seen; i++)
        n += node->seen[i].kind == kind;
    pthread_mutex_unlock(&node->mu);
    return n;
}

static inline struct seen node_nth(struct node *node, int kind, size_t nth)
{
    struct seen x = {0};

    pthread_mutex_lock(&node->mu);
    for (size_t i = 0; i < node->n_seen; i++)
        if (node->seen[i].kind == kind && !nth--) {
            x = node->seen[i];
            break;
        }
    pthread_mutex_unlock(&node->mu);
    CHECK(x.kind == kind);
    return x;
}

/* A stream on fd with a route of its own. started: it is read from now on. */
static inline mg_stream *node_connect(struct node *node, uint32_t remote_id, int fd, int started)
{
    mg_stream *s = mg_router_new_stream(node->router, remote_id, fd, fd);

    CHECK(s && mg_router_put_route(node->router, remote_id, s) == MG_OK);
    if (started) {
        mg_loop_acquire(node->loop);
        CHECK(mg_stream_start(s) == MG_OK);
        mg_loop_release(node->loop);
    }
    return s;
}

/* Closes s and its fd, and drops the caller's reference. */
static inline void node_disconnect(struct node *node, mg_stream *s)
{
    int fd = s->rfd;

    mg_loop_acquire(node->loop);
    mg_stream_close(s);
    close(fd); /* while nobody polls: libev forgets a stopped fd only when it next looks */
    mg_loop_release(node->loop);
    mg_router_del_route(node->router, atomic_load(&s->peer.remote_id));
    mg_stream_unref(s);
}

/* The master, and a raw peer of it at fds[1] that is context 1. */
static inline mg_stream *node_with_peer(struct node *node, int fds[2], int sndbuf, int started)
{
    node_start(node, 0, -1);
    test_pair(fds, sndbuf);
    return node_connect(node, 1, fds[0], started);
}

static inline void node_end_with_peer(struct node *node, mg_stream *s, const int fds[2])
{
    node_disconnect(node, s);
    close(fds[1]);
    node_stop(node);
}

/* The master m, with room for little, between its children a and b. Made, and then connected. */
struct three {
    struct node a, b, m;
    int fds[2], gds[2];        /* a's connection and b's; m has the second of each */
    mg_stream *s, *t, *u, *v;  /* of a, of b, and of m to each of them */
};

static inline void three_make(struct three *x)
{
    node_start(&x->a, 1, 0);
    node_start(&x->b, 2, 0);
    node_start(&x->m, 0, -1);
    atomic_store(&x->a.router->sink.high_water, 100000);
    atomic_store(&x->b.router->sink.high_water, 100000);
    atomic_store(&x->m.router->sink.high_water, 100000);
    test_pair(x->fds, 0);
    test_pair(x->gds, 0);
    CHECK(!fcntl(x->fds[1], F_SETFL, O_NONBLOCK) && !fcntl(x->gds[1], F_SETFL, O_NONBLOCK));
}

static inline void three_connect(struct three *x)
{
    x->s = node_connect(&x->a, 0, x->fds[0], 1);
    x->t = node_connect(&x->b, 0, x->gds[0], 1);
    x->u = node_connect(&x->m, 1, x->fds[1], 1);
    x->v = node_connect(&x->m, 2, x->gds[1], 1);
}

static inline void three_disconnect(struct three *x)
{
    node_disconnect(&x->a, x->s);
    node_disconnect(&x->b, x->t);
    node_disconnect(&x->m, x->u);
    node_disconnect(&x->m, x->v);
}

static inline void three_stop(struct three *x)
{
    node_stop(&x->a);
    node_stop(&x->b);
    node_stop(&x->m);
}

/* A handler that puts frames into a new latch, or, without one, gives them to Python. */
static inline mg_latch *node_listen(struct node *node, uint32_t handle)
{
    mg_latch *l = mg_latch_new(drop_item);
    mg_handler *h = mg_handler_new(&(mg_handler_spec) {.persist = 1, .respondent = -1, .latch = l});

    CHECK(mg_router_add_handler(node->router, h, handle, 0) == MG_OK);
    mg_handler_unref(h);
    return l;
}

static inline void node_unlisten(struct node *node, uint32_t handle, mg_latch *l)
{
    CHECK(mg_router_del_handler(node->router, handle) == MG_OK);
    mg_latch_unref(l);
}

static inline void node_handle_in_python(struct node *node, uint32_t handle)
{
    mg_handler *h = mg_handler_new(&(mg_handler_spec) {.persist = 1, .respondent = -1});

    CHECK(mg_router_add_handler(node->router, h, handle, 0) == MG_OK);
    mg_handler_unref(h);
}

#endif
