/* A router, context 10, with its parent 3 and the children 11 (behind which is 12) and 20. No
 * thread and no waiting: frames are given to the router by hand, and what it sends is read at
 * the peers' ends. */
#ifndef MG_TEST_WORLD_H
#define MG_TEST_WORLD_H

#include "test/test_net.h"

enum { OWN = 10, PARENT = 3, CHILD = 11, GRANDCHILD = 12, SIBLING = 20, STRANGER = 1234 };
enum { HANDLE = 2000 };

struct world {
    struct node node;
    mg_router *r;
    mg_stream *parent, *child, *sibling;
    int parent_fd, child_fd, sibling_fd;
};

static inline int add_stream(struct world *w, uint32_t id, mg_stream **out)
{
    int fds[2];

    test_pair(fds, 0);
    *out = node_connect(&w->node, id, fds[0], 0);
    return fds[1];
}

static const mg_handler_spec plain = {.persist = 1, .respondent = -1};

static inline void make_world(struct world *w, int with_parent)
{
    static const char *const texts[MG_N_REASONS] = {
        [MG_REASON_INVALID_HANDLE] = "invalid handle",
        [MG_REASON_REFUSED] = "refused by policy",
        [MG_REASON_MISMATCH] = "unexpected context",
        [MG_REASON_NO_ROUTE] = "no route to %r from %r",
        [MG_REASON_UNIDIRECTIONAL] = "mode prevents %d to %d via %d",
        [MG_REASON_TOO_LARGE] = "too large (max %d bytes), 100%% sure",
    };

    memset(w, 0, sizeof *w);
    node_make(&w->node, OWN, with_parent ? PARENT : -1);
    w->r = w->node.router;
    w->parent_fd = -1;
    if (with_parent)
        w->parent_fd = add_stream(w, PARENT, &w->parent);
    w->child_fd = add_stream(w, CHILD, &w->child);
    w->sibling_fd = add_stream(w, SIBLING, &w->sibling);
    CHECK(mg_router_put_route(w->r, GRANDCHILD, w->child) == MG_OK);
    for (int i = 0; i < MG_N_REASONS; i++)
        if (texts[i])
            CHECK(mg_router_set_text(w->r, (mg_reason) i, texts[i]) == MG_OK);
    mg_loop_acquire(w->node.loop);
}

/* Lets the loop run the ops there are, and sees the events. */
static inline void turn(struct world *w)
{
    mg_loop_release(w->node.loop);
    node_take_events(&w->node);
    test_run_ops(w->node.loop);
    node_take_events(&w->node);
    mg_loop_acquire(w->node.loop);
}

static inline void end_world(struct world *w)
{
    mg_router_del_route(w->r, GRANDCHILD);
    mg_loop_release(w->node.loop);
    node_take_events(&w->node);
    node_disconnect(&w->node, w->child);
    node_disconnect(&w->node, w->sibling);
    close(w->child_fd);
    close(w->sibling_fd);
    if (w->parent) {
        node_disconnect(&w->node, w->parent);
        close(w->parent_fd);
    }
    size_t n;
    mg_entry *list = mg_router_take_handlers(w->r, -1, &n);
    while (n)
        mg_handler_unref(list[--n].value);
    mg_free(list);
    node_stop(&w->node);
}

/* A frame that comes in by s. feed() also writes what is forwarded, at the end of its turn. */
static inline void comes_by(mg_stream *s, mg_hdr hdr, const char *payload)
{
    uint8_t wire[70000];

    hdr.enc = MG_ENC_MGC;
    hdr.len = (uint32_t) strlen(payload);
    mg_hdr_encode(wire, &hdr);
    memcpy(wire + 26, payload, hdr.len);
    CHECK(mg_stream_feed(s, wire, 26 + hdr.len) == MG_OK);
}

/* Whether exactly this stands next on fd. */
static inline int goes_out(int fd, mg_hdr want, const char *payload)
{
    mg_hdr h;
    uint8_t *p;
    int same;

    if (!peer_has_input(fd) || !peer_recv(fd, &h, &p))
        return 0;
    same = h.enc == MG_ENC_MGC && h.dst_id == want.dst_id && h.src_id == want.src_id && h.auth_id == want.auth_id &&
           h.handle == want.handle && h.reply_to == want.reply_to && !strcmp((char *) p, payload);
    if (!same)
        fprintf(stderr, "got dst %u src %u auth %u handle %u reply_to %u: %s\n", h.dst_id, h.src_id, h.auth_id,
                h.handle, h.reply_to, (char *) p);
    free(p);
    return same;
}

/* A dead message of ours, to a handle of dst. */
static inline mg_hdr dead(uint32_t dst, uint32_t handle)
{
    return (mg_hdr) {.dst_id = dst, .src_id = OWN, .auth_id = OWN, .handle = handle, .reply_to = MG_IS_DEAD};
}

static inline int all_quiet(struct world *w)
{
    return !peer_has_input(w->child_fd) && !peer_has_input(w->sibling_fd) &&
           (w->parent_fd < 0 || !peer_has_input(w->parent_fd));
}

/* Takes the next refusal, and returns whether it is the expected one. */
static inline int refused(struct world *w, mg_reason reason, const mg_stream *s, const mg_stream *expected)
{
    mg_event ev;

    if (!mg_loop_pop_event(w->node.loop, &ev) || ev.kind != MG_EV_REFUSED)
        return 0;
    mg_refusal *x = ev.a;
    int same = x->reason == reason && x->stream == s && x->expected == expected && ev.b == w->r;
    mg_router_refusal_seen(w->r);
    mg_refusal_free(x);
    mg_router_unref(w->r);
    return same;
}

static inline mg_latch *listen_with(struct world *w, uint32_t handle, mg_policy policy, int64_t respondent, int persist)
{
    mg_latch *l = mg_latch_new(drop_item);
    mg_handler *h =
        mg_handler_new(&(mg_handler_spec) {.persist = persist, .policy = policy, .respondent = respondent, .latch = l});

    CHECK(mg_router_add_handler(w->r, h, handle, 0) == MG_OK);
    mg_handler_unref(h);
    return l;
}

/* Whether a frame with that payload is next in the latch. */
static inline int got(mg_latch *l, const char *payload)
{
    mg_item item;

    if (mg_latch_try(l, &item) != MG_OK)
        return 0;
    mg_frame *f = item.ptr;
    int same = f->hdr.len == strlen(payload) && !memcmp(mg_frame_payload(f), payload, f->hdr.len);
    mg_frame_unref(f);
    return same;
}

static inline void local(struct world *w, mg_hdr hdr, const char *payload)
{
    hdr.enc = MG_ENC_MGC;
    if (!hdr.src_id)
        hdr.src_id = hdr.auth_id = OWN;
    mg_router_route(w->r, test_frame(hdr, payload, strlen(payload)), NULL);
}

#define FROM(id, ...) ((mg_hdr) {.src_id = (id), .auth_id = (id), __VA_ARGS__})

#endif
