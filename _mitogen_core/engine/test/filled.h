/* Frames whose payload tells their sender and their number, and can be checked to the last byte. */
#ifndef MG_TEST_FILLED_H
#define MG_TEST_FILLED_H

#include "test/bytes.h"
#include "test/test_net.h"

enum { LATCH = 2000, PYTHON = 2001 };

/* A payload that tells its sender and its number, and can be checked to the last byte. */
static inline void fill(uint8_t *p, size_t len, uint32_t who, uint32_t nth)
{
    CHECK(len >= 8);
    memcpy(p, &nth, 4);
    memcpy(p + 4, &who, 4);
    test_fill(p + 8, len - 8, who * 57 + nth);
}

static inline void check_filled(const uint8_t *p, size_t len, uint32_t who, uint32_t nth)
{
    uint32_t word[2];

    CHECK(len >= 8);
    memcpy(word, p, 8);
    CHECK(word[0] == nth && word[1] == who);
    CHECK(test_filled(p + 8, len - 8, who * 57 + nth));
}

static inline mg_frame *filled_frame(mg_hdr hdr, size_t len, uint32_t who, uint32_t nth)
{
    hdr.enc = MG_ENC_BIN;
    mg_frame *f = mg_frame_new(&hdr, len);
    fill(mg_frame_payload(f), len, who, nth);
    return f;
}

/* A frame from the raw peer of stream 1 to our node, context 0. */
static inline void peer_filled(int fd, uint32_t dst, uint32_t src, uint32_t handle, size_t len, uint32_t nth)
{
    uint8_t *p = malloc(len);

    fill(p, len, src, nth);
    peer_send(fd, (mg_hdr) {.dst_id = dst, .src_id = src, .auth_id = src, .handle = handle}, p, len);
    free(p);
}

/* Sends from an ordinary thread, as the layer above does. */
static inline void send_politely(mg_router *r, mg_frame *f)
{
    mg_stream *out;

    mg_router_route(r, f, &out);
    CHECK(out);
    if (mg_stream_full(out))
        while (mg_stream_wait_room(out) == MG_EAGAIN)
            continue;
    mg_stream_unref(out);
}

/* Any thread's way to know that the loop has looked at everything there was: an op and a turn
 * around it. */
static inline void let_the_loop_look(struct node *node)
{
    for (int i = 0; i < 3; i++) {
        mg_loop_acquire(node->loop);
        mg_loop_release(node->loop);
        AWAIT(atomic_load(&node->waiter->elsewhere) != NULL);
    }
}

struct writer {
    struct node *node;
    uint32_t who, n;
    size_t (*length)(uint32_t who, uint32_t nth);
    uint32_t dst, handle;
};

static inline void *write_many(void *arg)
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

struct feeder {
    int fd;
    uint32_t me, dst, n;
    size_t len;
    _Atomic uint32_t sent;
};

static inline void *feed_many(void *arg)
{
    struct feeder *x = arg;

    for (uint32_t i = 0; i < x->n; i++) {
        peer_filled(x->fd, x->dst, x->me, 500, x->len, i);
        atomic_store(&x->sent, i + 1);
    }
    return NULL;
}

#endif
