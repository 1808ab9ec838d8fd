/* The rules of routing. No thread and no waiting: frames are given to the router by hand, and what it sends is read at
 * the other ends of the socket pairs. */
#include "net/router.h"

#include "test/test_net.h"

enum { OWN = 10, PARENT = 3, CHILD = 11, GRANDCHILD = 12, SIBLING = 20, STRANGER = 1234 };
enum { HANDLE = 2000 };

/* Context 10: parent 3, children 11 (behind which is 12) and 20. */
struct world {
    struct node node;
    mg_router *r;
    mg_stream *parent, *child, *sibling;
    int parent_fd, child_fd, sibling_fd;
};

static int add_stream(struct world *w, uint32_t id, mg_stream **out)
{
    int fds[2];

    test_pair(fds, 0);
    *out = node_connect(&w->node, id, fds[0], 0);
    return fds[1];
}

static const mg_handler_spec plain = {.persist = 1, .respondent = -1};

static void make_world(struct world *w, int with_parent)
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
static void turn(struct world *w)
{
    mg_loop_release(w->node.loop);
    node_take_events(&w->node);
    test_run_ops(w->node.loop);
    node_take_events(&w->node);
    mg_loop_acquire(w->node.loop);
}

static void end_world(struct world *w)
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
static void comes_by(mg_stream *s, mg_hdr hdr, const char *payload)
{
    uint8_t wire[1000];

    hdr.enc = MG_ENC_MGC;
    hdr.len = (uint32_t) strlen(payload);
    mg_hdr_encode(wire, &hdr);
    memcpy(wire + 26, payload, hdr.len);
    CHECK(mg_stream_feed(s, wire, 26 + hdr.len) == MG_OK);
}

/* Whether exactly this stands next on fd. */
static int goes_out(int fd, mg_hdr want, const char *payload)
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
static mg_hdr dead(uint32_t dst, uint32_t handle)
{
    return (mg_hdr) {.dst_id = dst, .src_id = OWN, .auth_id = OWN, .handle = handle, .reply_to = MG_IS_DEAD};
}

static int all_quiet(struct world *w)
{
    return !peer_has_input(w->child_fd) && !peer_has_input(w->sibling_fd) &&
           (w->parent_fd < 0 || !peer_has_input(w->parent_fd));
}

/* Takes the next refusal: whether it is that one. */
static int refused(struct world *w, mg_reason reason, const mg_stream *s, const mg_stream *expected)
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

static mg_latch *listen_with(struct world *w, uint32_t handle, mg_policy policy, int64_t respondent, int persist)
{
    mg_latch *l = mg_latch_new(drop_item);
    mg_handler *h =
        mg_handler_new(&(mg_handler_spec) {.persist = persist, .policy = policy, .respondent = respondent, .latch = l});

    CHECK(mg_router_add_handler(w->r, h, handle, 0) == MG_OK);
    mg_handler_unref(h);
    return l;
}

/* Whether a frame with that payload is next in the latch. */
static int got(mg_latch *l, const char *payload)
{
    mg_item item;

    if (mg_latch_try(l, &item) != MG_OK)
        return 0;
    mg_frame *f = item.ptr;
    int same = f->hdr.len == strlen(payload) && !memcmp(mg_frame_payload(f), payload, f->hdr.len);
    mg_frame_unref(f);
    return same;
}

static void local(struct world *w, mg_hdr hdr, const char *payload)
{
    hdr.enc = MG_ENC_MGC;
    if (!hdr.src_id)
        hdr.src_id = hdr.auth_id = OWN;
    mg_router_route(w->r, test_frame(hdr, payload, strlen(payload)), NULL);
}

#define FROM(id, ...) ((mg_hdr) {.src_id = (id), .auth_id = (id), __VA_ARGS__})

/* --- where frames go --- */

static void a_frame_goes_out_unchanged_by_the_route_of_its_destination(void)
{
    struct world w;

    make_world(&w, 1);
    mg_hdr h = FROM(GRANDCHILD, .dst_id = SIBLING, .handle = 5, .reply_to = 6);
    comes_by(w.child, h, "hello");
    CHECK(goes_out(w.sibling_fd, h, "hello") && all_quiet(&w));
    h = FROM(SIBLING, .dst_id = GRANDCHILD, .handle = 7, .reply_to = MG_IS_DEAD);
    comes_by(w.sibling, h, "");
    CHECK(goes_out(w.child_fd, h, "") && all_quiet(&w));
    h = FROM(PARENT, .dst_id = CHILD, .handle = 8);
    comes_by(w.parent, h, "down");
    CHECK(goes_out(w.child_fd, h, "down") && all_quiet(&w));
    CHECK(atomic_load(&w.parent->frames_forwarded) == 1 && mg_loop_n_events(w.node.loop) == 0);
    end_world(&w);
}

static void an_unknown_destination_is_up(void)
{
    struct world w;

    make_world(&w, 1);
    mg_hdr h = FROM(CHILD, .dst_id = STRANGER, .handle = 5);
    comes_by(w.child, h, "x");
    CHECK(goes_out(w.parent_fd, h, "x") && all_quiet(&w));
    h = FROM(OWN, .dst_id = STRANGER, .handle = 5);
    local(&w, h, "y");
    CHECK(goes_out(w.parent_fd, h, "y") && all_quiet(&w));
    end_world(&w);
}

static void what_came_from_above_never_goes_up_again(void)
{
    struct world w;

    make_world(&w, 1);
    comes_by(w.parent, FROM(PARENT, .dst_id = STRANGER, .handle = 5, .reply_to = 1001), "x");
    CHECK(goes_out(w.parent_fd, dead(PARENT, 1001), "no route to 1234 from 10") && all_quiet(&w));
    CHECK(refused(&w, MG_REASON_NO_ROUTE, w.parent, NULL));
    /* src is a stranger, whom one expects from above as well */
    comes_by(w.parent, FROM(777, .dst_id = STRANGER, .handle = 5, .reply_to = 1001), "x");
    CHECK(goes_out(w.parent_fd, dead(777, 1001), "no route to 1234 from 10") && all_quiet(&w));
    end_world(&w);
}

static void a_router_without_a_parent_has_no_route_to_strangers(void)
{
    struct world w;

    make_world(&w, 0);
    comes_by(w.child, FROM(CHILD, .dst_id = STRANGER, .handle = 5, .reply_to = 1001), "x");
    CHECK(goes_out(w.child_fd, dead(CHILD, 1001), "no route to 1234 from 10") && all_quiet(&w));
    CHECK(refused(&w, MG_REASON_NO_ROUTE, w.child, NULL));
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    local(&w, (mg_hdr) {.dst_id = STRANGER, .handle = 5, .reply_to = HANDLE}, "x");
    CHECK(got(l, "no route to 1234 from 10") && all_quiet(&w));
    local(&w, (mg_hdr) {.dst_id = STRANGER, .handle = 5}, "nobody waits for an answer");
    CHECK(all_quiet(&w) && mg_latch_size(l) == 0);
    CHECK(!mg_router_get_route(w.r, STRANGER, 1));
    mg_latch_unref(l);
    end_world(&w);
}

static void routes_can_be_replaced_and_removed_and_the_parent_stands_in(void)
{
    struct world w;
    mg_stream *s;

    make_world(&w, 1);
    s = mg_router_get_route(w.r, GRANDCHILD, 0);
    CHECK(s == w.child);
    mg_stream_unref(s);
    CHECK(mg_router_put_route(w.r, GRANDCHILD, w.sibling) == MG_OK);
    s = mg_router_get_route(w.r, GRANDCHILD, 1);
    CHECK(s == w.sibling);
    mg_stream_unref(s);
    CHECK(mg_router_del_route(w.r, GRANDCHILD) == 1 && mg_router_del_route(w.r, GRANDCHILD) == 0);
    CHECK(!mg_router_get_route(w.r, GRANDCHILD, 0));
    s = mg_router_get_route(w.r, GRANDCHILD, 1);
    CHECK(s == w.parent);
    mg_stream_unref(s);
    CHECK(atomic_load(&w.child->refs) == 2 && mg_router_own_id(w.r) == OWN);
    end_world(&w);
}

static void the_route_tells_which_stream_it_took(void)
{
    struct world w;
    mg_stream *out;

    make_world(&w, 1);
    mg_router_route(w.r, test_frame(FROM(OWN, .dst_id = GRANDCHILD), "x", 1), &out);
    CHECK(out == w.child);
    mg_stream_unref(out);
    mg_router_route(w.r, test_frame(FROM(OWN, .dst_id = OWN, .handle = 1), "x", 1), &out);
    CHECK(!out);
    end_world(&w);
}

static void destinations_are_remembered_with_the_stream_they_came_in_by(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    for (int i = 0; i < 3; i++) {
        comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "x");
        comes_by(w.child, FROM(GRANDCHILD, .dst_id = SIBLING, .handle = 1), "x");
    }
    comes_by(w.child, FROM(SIBLING, .dst_id = STRANGER, .handle = 1), "a lie");
    CHECK(mg_idmap_count(&w.child->peer.egress) == 2 && mg_idmap_get(&w.child->peer.egress, OWN) &&
          mg_idmap_get(&w.child->peer.egress, SIBLING));
    CHECK(mg_idmap_count(&w.sibling->peer.egress) == 0);
    mg_latch_unref(l);
    end_world(&w);
}

/* --- statistics --- */

static void what_streams_carry_is_counted_and_not_forgotten_when_they_close(void)
{
    struct world w;
    mg_router_stats stats;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "1234");
    comes_by(w.child, FROM(GRANDCHILD, .dst_id = SIBLING, .handle = 1), "56");
    comes_by(w.child, FROM(SIBLING, .dst_id = OWN, .handle = 1), "a lie");
    CHECK(goes_out(w.sibling_fd, FROM(GRANDCHILD, .dst_id = SIBLING, .handle = 1), "56"));
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.sibling));
    for (int i = 0; i < 3; i++) {
        CHECK(mg_router_get_stats(w.r, &stats) == MG_OK);
        /* fed, not read: no bytes came in */
        CHECK(stats.carried.frames_in == 3 && stats.carried.frames_forwarded == 1 && stats.carried.bytes_in == 0);
        CHECK(stats.carried.frames_out == 1 && stats.carried.bytes_out == 26 + 2);
        CHECK(stats.refused[MG_REASON_BAD_AUTH] == 1 && stats.refused[MG_REASON_NO_ROUTE] == 0);
        CHECK(stats.handlers == 1 && stats.queued == 0 && stats.blocked == 0);
        CHECK(stats.routes == (i == 2 ? 3 : 4) && stats.streams == (i == 0 ? 3 : 2));
        if (i == 0)
            mg_stream_close(w.child); /* its routes are still there, for a moment */
        else
            mg_router_del_route(w.r, CHILD);
    }
    CHECK(atomic_load(&w.sibling->last_out) > 0 && atomic_load(&w.sibling->last_in) == 0);
    mg_alloc_fail_at(1);
    CHECK(mg_router_get_stats(w.r, &stats) == MG_ENOMEM && mg_alloc_failed());
    mg_alloc_fail_at(0);
    mg_latch_unref(l);
    end_world(&w);
}

/* --- whom to believe --- */

static void an_authority_of_another_stream_is_dropped_without_an_answer(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    comes_by(w.child, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE, .reply_to = 1001), "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.sibling));
    /* auth is judged before src */
    comes_by(w.child, (mg_hdr) {.src_id = CHILD, .auth_id = PARENT, .dst_id = OWN, .handle = HANDLE, .reply_to = 1},
             "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.parent));
    /* our own id is no child's */
    comes_by(w.child, FROM(OWN, .dst_id = OWN, .handle = HANDLE), "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.parent));
    /* strangers are above */
    comes_by(w.child, FROM(STRANGER, .dst_id = OWN, .handle = HANDLE), "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.parent));
    /* and the parent cannot speak for a child */
    comes_by(w.parent, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.parent, w.child));
    CHECK(all_quiet(&w) && mg_latch_size(l) == 0 && mg_loop_n_events(w.node.loop) == 0);
    mg_latch_unref(l);
    end_world(&w);

    make_world(&w, 0);
    comes_by(w.child, FROM(STRANGER, .dst_id = OWN, .handle = HANDLE, .reply_to = 1), "x");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, NULL) && all_quiet(&w));
    end_world(&w);
}

static void a_source_of_another_stream_is_dropped_without_an_answer(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    comes_by(w.child, (mg_hdr) {.src_id = SIBLING, .auth_id = CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = 1},
             "x");
    CHECK(refused(&w, MG_REASON_BAD_SRC, w.child, w.sibling));
    comes_by(w.child, (mg_hdr) {.src_id = SIBLING, .auth_id = CHILD, .dst_id = SIBLING, .handle = 9, .reply_to = 1},
             "x");
    CHECK(refused(&w, MG_REASON_BAD_SRC, w.child, w.sibling));
    CHECK(all_quiet(&w) && mg_latch_size(l) == 0);
    /* two of one stream are fine */
    comes_by(w.child, (mg_hdr) {.src_id = GRANDCHILD, .auth_id = CHILD, .dst_id = OWN, .handle = HANDLE}, "y");
    CHECK(got(l, "y"));
    mg_latch_unref(l);
    end_world(&w);
}

static mg_hdr with_authority(mg_hdr h, uint32_t auth_id)
{
    h.auth_id = auth_id;
    return h;
}

static void anybody_may_send_without_authority_and_no_stamp_changes_that(void)
{
    struct world w;

    make_world(&w, 1);
    atomic_store(&w.child->peer.auth_stamp, OWN);
    mg_latch *orders = listen_with(&w, HANDLE, MG_POLICY_PARENT, -1, 1);
    mg_latch *near = listen_with(&w, HANDLE + 1, MG_POLICY_NEIGHBOUR, -1, 1);
    mg_latch *data = listen_with(&w, HANDLE + 2, MG_POLICY_NONE, -1, 1);
    mg_hdr h = with_authority(FROM(CHILD, .dst_id = SIBLING, .handle = 4), MG_NOBODY);
    comes_by(w.child, h, "on");
    CHECK(goes_out(w.sibling_fd, h, "on"));
    for (uint32_t i = 0; i < 3; i++) {
        h = with_authority(FROM(CHILD, .dst_id = OWN, .handle = HANDLE + i, .reply_to = 6), MG_NOBODY);
        comes_by(w.child, h, "in");
    }
    CHECK(got(data, "in") && mg_latch_size(orders) == 0 && mg_latch_size(near) == 0);
    CHECK(goes_out(w.child_fd, dead(CHILD, 6), "refused by policy"));
    CHECK(goes_out(w.child_fd, dead(CHILD, 6), "refused by policy"));
    CHECK(refused(&w, MG_REASON_REFUSED, w.child, NULL) && refused(&w, MG_REASON_REFUSED, w.child, NULL));
    comes_by(w.child, with_authority(FROM(SIBLING, .dst_id = OWN, .handle = HANDLE + 2), MG_NOBODY), "a lie");
    CHECK(refused(&w, MG_REASON_BAD_SRC, w.child, w.sibling));
    comes_by(w.child, FROM(MG_NOBODY, .dst_id = OWN, .handle = HANDLE + 2), "nobody sends");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.parent));
    CHECK(mg_latch_size(data) == 0 && all_quiet(&w));
    mg_latch_unref(orders);
    mg_latch_unref(near);
    mg_latch_unref(data);
    end_world(&w);
}

static void a_parent_lends_what_it_passes_down_any_authority_but_speaks_for_no_child(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *near = listen_with(&w, HANDLE, MG_POLICY_NEIGHBOUR, -1, 1);
    const uint32_t lent[] = {CHILD, GRANDCHILD, SIBLING, STRANGER, MG_NOBODY};
    for (size_t i = 0; i < sizeof lent / sizeof *lent; i++) {
        mg_hdr h = with_authority(FROM(PARENT, .dst_id = GRANDCHILD, .handle = 4), lent[i]);
        comes_by(w.parent, h, "down");
        CHECK(goes_out(w.child_fd, h, "down"));
        comes_by(w.parent, with_authority(FROM(PARENT, .dst_id = OWN, .handle = HANDLE), lent[i]), "for another");
        CHECK(mg_latch_size(near) == 0 && refused(&w, MG_REASON_REFUSED, w.parent, NULL));
    }
    comes_by(w.parent, with_authority(FROM(CHILD, .dst_id = SIBLING, .handle = 4), PARENT), "a lie");
    CHECK(refused(&w, MG_REASON_BAD_SRC, w.parent, w.child));
    comes_by(w.parent, FROM(CHILD, .dst_id = SIBLING, .handle = 4), "a lie");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.parent, w.child));
    comes_by(w.sibling, with_authority(FROM(SIBLING, .dst_id = CHILD, .handle = 4), CHILD), "no parent");
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.sibling, w.child));
    CHECK(all_quiet(&w));
    mg_latch_unref(near);
    end_world(&w);
}

static void a_stamp_replaces_the_authority_of_what_comes_in(void)
{
    struct world w;

    make_world(&w, 1);
    atomic_store(&w.child->peer.auth_stamp, OWN);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_PARENT, -1, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "mine");
    comes_by(w.sibling, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE), "not mine");
    CHECK(got(l, "mine") && mg_latch_size(l) == 0);
    mg_hdr h = FROM(GRANDCHILD, .dst_id = SIBLING, .handle = 4, .reply_to = 8);
    comes_by(w.child, h, "on");
    h.auth_id = OWN; /* on the wire too, and nothing else changes */
    CHECK(goes_out(w.sibling_fd, h, "on"));
    comes_by(w.child, FROM(SIBLING, .dst_id = SIBLING, .handle = 4), "judged before");
    CHECK(all_quiet(&w));
    h.auth_id = SIBLING; /* less than it could say */
    comes_by(w.child, h, "humble");
    CHECK(goes_out(w.sibling_fd, h, "humble"));
    mg_latch_unref(l);
    end_world(&w);
}

static void in_unidirectional_mode_children_reach_only_us_and_what_is_above(void)
{
    struct world w;

    make_world(&w, 1);
    mg_router_set_unidirectional(w.r, 1);
    atomic_store(&w.parent->peer.privileged, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    mg_hdr h = FROM(CHILD, .dst_id = SIBLING, .handle = 5, .reply_to = 1001);
    comes_by(w.child, h, "x");
    CHECK(goes_out(w.child_fd, dead(CHILD, 1001), "mode prevents 11 to 20 via 10") && all_quiet(&w));
    CHECK(refused(&w, MG_REASON_UNIDIRECTIONAL, w.child, NULL));
    h = FROM(CHILD, .dst_id = STRANGER, .handle = 5);
    comes_by(w.child, h, "up");
    CHECK(goes_out(w.parent_fd, h, "up"));
    h = FROM(PARENT, .dst_id = SIBLING, .handle = 5);
    comes_by(w.parent, h, "down");
    CHECK(goes_out(w.sibling_fd, h, "down"));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "to us");
    CHECK(got(l, "to us"));
    local(&w, FROM(OWN, .dst_id = SIBLING, .handle = 5), "ours");
    CHECK(goes_out(w.sibling_fd, FROM(OWN, .dst_id = SIBLING, .handle = 5), "ours"));
    /* either end may be privileged */
    h = FROM(CHILD, .dst_id = SIBLING, .handle = 5);
    atomic_store(&w.sibling->peer.privileged, 1);
    comes_by(w.child, h, "a");
    CHECK(goes_out(w.sibling_fd, h, "a"));
    atomic_store(&w.sibling->peer.privileged, 0);
    atomic_store(&w.child->peer.privileged, 1);
    comes_by(w.child, h, "b");
    CHECK(goes_out(w.sibling_fd, h, "b"));
    atomic_store(&w.child->peer.privileged, 0);
    mg_router_set_unidirectional(w.r, 0);
    comes_by(w.child, h, "c");
    CHECK(goes_out(w.sibling_fd, h, "c") && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

/* --- local delivery --- */

static void an_unknown_handle_is_answered(void)
{
    struct world w;

    make_world(&w, 1);
    comes_by(w.child, FROM(GRANDCHILD, .dst_id = OWN, .handle = 999, .reply_to = 1001), "x");
    CHECK(goes_out(w.child_fd, dead(GRANDCHILD, 1001), "invalid handle") && all_quiet(&w));
    CHECK(refused(&w, MG_REASON_INVALID_HANDLE, w.child, NULL));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = 0), "nobody waits");
    CHECK(all_quiet(&w));
    end_world(&w);
}

static void a_dead_message_is_never_answered(void)
{
    struct world w;

    make_world(&w, 1);
    mg_router_set_unidirectional(w.r, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = 77, .reply_to = MG_IS_DEAD), "x"); /* unknown handle */
    comes_by(w.child, FROM(CHILD, .dst_id = SIBLING, .handle = 77, .reply_to = MG_IS_DEAD), "x"); /* unidirectional */
    comes_by(w.parent, FROM(PARENT, .dst_id = STRANGER, .handle = 77, .reply_to = MG_IS_DEAD), "x"); /* no route */
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_PARENT, -1, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "x"); /* refused */
    CHECK(all_quiet(&w) && mg_latch_size(l) == 0);
    mg_latch_unref(l);
    end_world(&w);
}

static void only_the_respondent_may_answer_and_its_neighbour_to_us_with_a_dead_message(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, CHILD, 1);
    comes_by(w.sibling, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE, .reply_to = 1001), "x");
    CHECK(goes_out(w.sibling_fd, dead(SIBLING, 1001), "unexpected context"));
    CHECK(refused(&w, MG_REASON_MISMATCH, w.sibling, NULL));
    comes_by(w.child, FROM(GRANDCHILD, .dst_id = OWN, .handle = HANDLE), "nor one behind it");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.child, NULL) && mg_latch_size(l) == 0);
    comes_by(w.child, FROM(GRANDCHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "nor that it is dead");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.child, NULL) && mg_latch_size(l) == 0);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "a");
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD}, "b");
    CHECK(got(l, "a") && got(l, "b") && all_quiet(&w));
    comes_by(w.sibling, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "not its business");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.sibling, NULL));
    comes_by(w.parent, FROM(PARENT, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "nor its");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.parent, NULL) && mg_latch_size(l) == 0 && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);

    /* one behind the neighbour, and one that nothing leads to */
    make_world(&w, 0);
    l = listen_with(&w, HANDLE, MG_POLICY_NONE, GRANDCHILD, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "gone");
    CHECK(got(l, "gone") && all_quiet(&w));
    mg_latch_unref(l);
    l = listen_with(&w, HANDLE + 1, MG_POLICY_NONE, STRANGER, 1);
    comes_by(w.sibling, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE + 1, .reply_to = MG_IS_DEAD), "not its business");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.sibling, NULL) && mg_latch_size(l) == 0);
    mg_latch_unref(l);
    end_world(&w);
}

static void who_is_above_us_may_say_that_somebody_is_dead_and_a_sibling_may_not(void)
{
    struct world w;
    const uint32_t parents[] = {PARENT, 1, 0};

    make_world(&w, 1);
    CHECK(mg_router_set_identity(w.r, OWN, PARENT, parents, 3) == MG_OK);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, STRANGER, 1);
    comes_by(w.parent, FROM(STRANGER + 1, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "not its business");
    CHECK(refused(&w, MG_REASON_MISMATCH, w.parent, NULL) && mg_latch_size(l) == 0);
    comes_by(w.parent, FROM(1, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "gone");
    comes_by(w.parent, FROM(PARENT, .dst_id = OWN, .handle = HANDLE, .reply_to = MG_IS_DEAD), "and so says the parent");
    CHECK(got(l, "gone") && got(l, "and so says the parent") && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

static void the_parent_policy_asks_for_the_authority_of_us_or_a_parent(void)
{
    struct world w;
    const uint32_t parents[] = {PARENT, 1, 0};

    make_world(&w, 1);
    CHECK(mg_router_set_identity(w.r, OWN, PARENT, parents, 3) == MG_OK);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_PARENT, -1, 1);
    comes_by(w.parent, FROM(PARENT, .dst_id = OWN, .handle = HANDLE), "parent");
    comes_by(w.parent, FROM(0, .dst_id = OWN, .handle = HANDLE), "master");
    comes_by(w.parent, (mg_hdr) {.src_id = STRANGER, .auth_id = 1, .dst_id = OWN, .handle = HANDLE}, "lent");
    comes_by(w.parent, FROM(OWN, .dst_id = OWN, .handle = HANDLE), "ours, from above");
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE}, "local");
    CHECK(got(l, "parent") && got(l, "master") && got(l, "lent") && got(l, "ours, from above") && got(l, "local"));
    comes_by(w.parent, FROM(STRANGER, .dst_id = OWN, .handle = HANDLE, .reply_to = 5), "no");
    CHECK(goes_out(w.parent_fd, dead(STRANGER, 5), "refused by policy"));
    CHECK(refused(&w, MG_REASON_REFUSED, w.parent, NULL));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = 6), "no");
    CHECK(goes_out(w.child_fd, dead(CHILD, 6), "refused by policy") && mg_latch_size(l) == 0 && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

static void the_neighbour_policy_asks_for_the_context_at_the_other_end(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NEIGHBOUR, -1, 1);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "child");
    comes_by(w.parent, FROM(PARENT, .dst_id = OWN, .handle = HANDLE), "parent");
    CHECK(got(l, "child") && got(l, "parent"));
    comes_by(w.child, FROM(GRANDCHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = 6), "no");
    CHECK(goes_out(w.child_fd, dead(GRANDCHILD, 6), "refused by policy"));
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE}, "no stream, no neighbour");
    CHECK(mg_latch_size(l) == 0 && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

static void the_guest_policy_asks_about_others_once_some_messages_wait(void)
{
    struct world w;
    mg_event ev;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_GUEST, -1, 1);
    for (int i = 0; i < 32; i++)
        comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "guest");
    CHECK(mg_latch_size(l) == 32 && mg_loop_n_events(w.node.loop) == 0);
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE}, "ours");
    CHECK(mg_latch_size(l) == 33 && mg_loop_n_events(w.node.loop) == 0);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "one too many");
    CHECK(mg_latch_size(l) == 33 && w.child->in_python == 1);
    mg_handler *there = mg_router_get_handler(w.r, HANDLE);
    CHECK(mg_loop_pop_event(w.node.loop, &ev) && ev.kind == MG_EV_FRAME && ev.a == there && ev.c == w.child);
    mg_handler_unref(there);
    mg_handler_unref(ev.a);
    mg_frame_unref(ev.b);
    mg_stream_unref(ev.c);
    for (int i = 0; i < 32; i++)
        CHECK(got(l, "guest"));
    CHECK(got(l, "ours"));
    mg_stream_go_on(w.child);
    turn(&w);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "few wait again");
    CHECK(got(l, "few wait again") && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

static void a_handler_for_one_message_takes_one_and_not_one_that_is_refused(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, CHILD, 0);
    comes_by(w.sibling, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE), "mismatch");
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "first");
    CHECK(!mg_router_get_handler(w.r, HANDLE));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = 6), "second");
    CHECK(goes_out(w.child_fd, dead(CHILD, 6), "invalid handle"));
    CHECK(got(l, "first") && mg_latch_size(l) == 0 && all_quiet(&w));
    CHECK(l->refs == 1);
    mg_latch_unref(l);
    end_world(&w);
}

static void a_closed_latch_is_an_invalid_handle(void)
{
    struct world w;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    mg_latch_close(l);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE, .reply_to = 6), "x");
    CHECK(goes_out(w.child_fd, dead(CHILD, 6), "invalid handle") && all_quiet(&w));
    mg_latch_unref(l);
    end_world(&w);
}

static void what_python_handles_or_judges_is_an_event_that_holds_its_stream(void)
{
    struct world w;
    mg_event ev;

    make_world(&w, 1);
    for (int ask = 0; ask < 2; ask++) {
        mg_latch *l = ask ? mg_latch_new(drop_item) : NULL;
        mg_handler *h = mg_handler_new(
            &(mg_handler_spec) {.policy = ask ? MG_POLICY_ASK : MG_POLICY_NONE, .respondent = -1, .latch = l});
        uint32_t handle = HANDLE + (uint32_t) ask;
        CHECK(mg_router_add_handler(w.r, h, handle, 0) == MG_OK);
        comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = handle), "a");
        CHECK(w.child->in_python == 1);
        comes_by(w.child, FROM(CHILD, .dst_id = SIBLING, .handle = 1), "b");
        CHECK(all_quiet(&w)); /* they wait */
        CHECK(mg_loop_pop_event(w.node.loop, &ev) && ev.kind == MG_EV_FRAME && ev.a == h && ev.c == w.child);
        mg_handler *there = mg_router_get_handler(w.r, handle);
        CHECK(there == (ask ? h : NULL)); /* undecided: still registered */
        if (ask) {
            CHECK(mg_latch_size(l) == 0 && mg_router_del_handler(w.r, handle) == MG_OK);
            mg_handler_unref(there);
        }
        mg_handler_unref(ev.a);
        mg_frame_unref(ev.b);
        mg_stream_unref(ev.c);
        mg_handler_unref(h);
        mg_latch_unref(l);
        mg_stream_go_on(w.child);
        turn(&w);
        CHECK(w.child->in_python == 0 && goes_out(w.sibling_fd, FROM(CHILD, .dst_id = SIBLING, .handle = 1), "b"));
    }
    /* a local one holds nothing */
    mg_handler *h = mg_handler_new(&plain);
    CHECK(mg_router_add_handler(w.r, h, HANDLE, 0) == MG_OK);
    mg_handler_unref(h);
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE}, "x");
    CHECK(mg_loop_pop_event(w.node.loop, &ev) && ev.kind == MG_EV_FRAME && !ev.c);
    mg_handler_unref(ev.a);
    mg_frame_unref(ev.b);
    end_world(&w);
}

static void a_hook_sees_each_frame_before_it_is_routed(void)
{
    struct world w;
    mg_event ev;

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NEIGHBOUR, -1, 1);
    atomic_store(&w.child->peer.hooked, 1);
    atomic_store(&w.child->peer.auth_stamp, OWN);
    comes_by(w.child, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE), "a lie"); /* not even shown */
    CHECK(refused(&w, MG_REASON_BAD_AUTH, w.child, w.sibling));
    comes_by(w.child, FROM(CHILD, .dst_id = SIBLING, .handle = 1), "on");
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "in");
    CHECK(all_quiet(&w) && mg_idmap_count(&w.child->peer.egress) == 0);
    CHECK(mg_loop_pop_event(w.node.loop, &ev) && ev.kind == MG_EV_HOOK && ev.c == w.child);
    CHECK(mg_frame_hdr(ev.b)->auth_id == OWN); /* stamped by now */
    mg_router_after_hook(w.r, ev.b, ev.c);
    mg_hdr h = FROM(CHILD, .dst_id = SIBLING, .handle = 1);
    h.auth_id = OWN;
    CHECK(goes_out(w.sibling_fd, h, "on") && mg_idmap_get(&w.child->peer.egress, SIBLING));
    CHECK(mg_latch_size(l) == 0 && mg_loop_n_events(w.node.loop) == 0); /* held until released */
    mg_stream_go_on(w.child);
    mg_stream_unref(ev.c);
    turn(&w);
    turn(&w);
    CHECK(got(l, "in"));
    mg_latch_unref(l);
    end_world(&w);
}

/* --- too large --- */

static void a_message_that_is_too_large_wakes_who_waits_for_the_answer_or_the_message(void)
{
    struct world w;

    make_world(&w, 1);
    atomic_store(&w.r->sink.max_size, 100);
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1),
             *m = listen_with(&w, HANDLE + 1, MG_POLICY_NONE, -1, 1);
    local(&w, (mg_hdr) {.dst_id = CHILD, .handle = 1, .reply_to = HANDLE}, big);
    CHECK(got(l, "too large (max 100 bytes), 100% sure") && all_quiet(&w));
    CHECK(refused(&w, MG_REASON_TOO_LARGE, NULL, NULL));
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE + 1}, big);
    CHECK(got(m, "too large (max 100 bytes), 100% sure"));
    local(&w, (mg_hdr) {.dst_id = CHILD, .handle = 4}, big);
    CHECK(goes_out(w.child_fd, dead(CHILD, 4), "too large (max 100 bytes), 100% sure"));
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE + 1, .reply_to = MG_IS_DEAD},
          big); /* dead, and not lost either */
    CHECK(got(m, "too large (max 100 bytes), 100% sure"));
    big[100] = 0; /* the limit itself is allowed */
    local(&w, FROM(OWN, .dst_id = CHILD, .handle = 4), big);
    CHECK(goes_out(w.child_fd, FROM(OWN, .dst_id = CHILD, .handle = 4), big) && all_quiet(&w));
    atomic_store(&w.r->sink.max_size, 5); /* less than the text of the dead message: nothing goes round in circles */
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE + 1, .reply_to = HANDLE}, "123456");
    CHECK(mg_latch_size(l) <= 1 && mg_latch_size(m) == 0 && all_quiet(&w));
    mg_latch_unref(l);
    mg_latch_unref(m);
    end_world(&w);
}

/* --- reports --- */

static void a_flood_of_refusals_is_reported_up_to_a_bound_and_then_counted(void)
{
    enum { FLOOD = 2000 };
    struct world w;
    size_t reported, lost = 0;

    make_world(&w, 1);
    for (int i = 0; i < FLOOD; i++)
        comes_by(w.child, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE), "x");
    reported = mg_loop_n_events(w.node.loop);
    CHECK(reported > 0 && reported < 1000);
    node_take_events(&w.node);
    comes_by(w.child, FROM(SIBLING, .dst_id = OWN, .handle = HANDLE), "x");
    CHECK(mg_loop_n_events(w.node.loop) == 1); /* reporting goes on */
    node_take_events(&w.node);
    for (size_t i = 0; i < w.node.n_seen; i++)
        lost += w.node.seen[i].n;
    CHECK(w.node.n_seen + lost == FLOOD + 1);
    CHECK(atomic_load(&w.r->refusals_waiting) == 0);
    end_world(&w);
}

/* --- the handle table --- */

static void handles_are_given_out_in_order_and_taken_ones_are_left_out(void)
{
    struct world w;
    mg_handler *h = mg_handler_new(&plain), *other = mg_handler_new(&plain);
    mg_handler *replaced;

    make_world(&w, 1);
    CHECK(mg_router_add_handler(w.r, other, 1001, 0) == MG_OK && mg_handler_handle(other) == 1001);
    CHECK(mg_router_add_handler(w.r, h, 0, 0) == MG_OK && mg_handler_handle(h) == 1000);
    CHECK(mg_router_add_handler(w.r, h, 1001, 0) == MG_EEXIST);
    CHECK(mg_router_del_handler(w.r, 1000) == MG_OK && mg_router_del_handler(w.r, 1000) == MG_ENOENT);
    CHECK(mg_router_add_handler(w.r, h, 0, 0) == MG_OK && mg_handler_handle(h) == 1002);
    CHECK(mg_router_del_handler(w.r, 1002) == MG_OK);
    CHECK(mg_router_add_handler(w.r, h, 1001, 1) == MG_OK);
    CHECK(mg_handler_handle(h) == 1001 && mg_handler_removed(other) && !mg_handler_removed(h));
    replaced = mg_router_get_handler(w.r, 1001);
    CHECK(replaced == h);
    mg_handler_unref(replaced);
    CHECK(mg_router_del_handler(w.r, 1001) == MG_OK);
    pthread_mutex_lock(&w.r->mu);
    w.r->next_handle = UINT32_MAX; /* after four thousand million it begins anew */
    pthread_mutex_unlock(&w.r->mu);
    CHECK(mg_router_add_handler(w.r, h, 0, 0) == MG_OK && mg_handler_handle(h) == UINT32_MAX);
    CHECK(mg_router_add_handler(w.r, other, 0, 0) == MG_OK && mg_handler_handle(other) == 1000);
    mg_handler_unref(h);
    mg_handler_unref(other);
    end_world(&w);
}

static void count_owner(void *arg)
{
    ++*(int *) arg;
}

static void handlers_are_taken_by_respondent_or_all(void)
{
    struct world w;
    int ended = 0;
    size_t n;

    make_world(&w, 1);
    for (int i = 0; i < 10; i++) {
        mg_handler *h = mg_handler_new(&(mg_handler_spec) {
            .persist = 1, .respondent = i % 2 ? CHILD : -1, .owner = &ended, .drop_owner = count_owner});
        CHECK(mg_router_add_handler(w.r, h, 0, 0) == MG_OK);
        mg_handler_unref(h);
    }
    mg_entry *list = mg_router_take_handlers(w.r, CHILD, &n);
    CHECK(list && n == 5 && ended == 0);
    mg_handler *again = list[0].value;
    CHECK(mg_handler_removed(again));
    CHECK(mg_router_add_handler(w.r, again, mg_handler_handle(again), 0) == MG_OK && !mg_handler_removed(again));
    CHECK(mg_router_del_handler(w.r, mg_handler_handle(again)) == MG_OK && mg_handler_removed(again));
    while (n) {
        mg_handler *h = list[--n].value;
        CHECK(mg_handler_respondent(h) == CHILD && mg_handler_handle(h) == list[n].id &&
              !mg_router_get_handler(w.r, list[n].id));
        mg_handler_unref(h);
    }
    mg_free(list);
    CHECK(ended == 5);
    list = mg_router_take_handlers(w.r, -1, &n);
    CHECK(list && n == 5);
    while (n)
        mg_handler_unref(list[--n].value);
    mg_free(list);
    CHECK(ended == 10);
    end_world(&w);
}

static void a_router_drops_the_handlers_it_still_has(void)
{
    mg_loop *loop = mg_loop_new();
    mg_router *r = mg_router_new(loop);
    int ended = 0;
    mg_handler *h =
        mg_handler_new(&(mg_handler_spec) {.persist = 1, .respondent = -1, .owner = &ended, .drop_owner = count_owner});

    CHECK(mg_router_add_handler(r, h, 0, 0) == MG_OK && mg_router_loop(r) == loop);
    mg_handler_unref(h);
    mg_router_unref(r);
    CHECK(ended == 1);
    mg_loop_unref(loop);
}

static void texts_longer_than_any_message_are_cut(void)
{
    struct world w;
    char text[5000];

    make_world(&w, 1);
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    CHECK(mg_router_set_text(w.r, MG_REASON_REFUSED, text) == MG_OK);
    mg_frame *f = mg_router_dead_frame(w.r, 1, 2, MG_REASON_REFUSED, 0, 0, 0);
    CHECK(f && f->hdr.len > 100 && f->hdr.len <= 5000);
    mg_frame_unref(f);
    CHECK(mg_router_set_text(w.r, MG_REASON_REFUSED, "%d %d %d %d %%%") == MG_OK);
    f = mg_router_dead_frame(w.r, 1, 2, MG_REASON_REFUSED, UINT64_MAX, 0, 7);
    CHECK(f->hdr.len == 28 && !memcmp(mg_frame_payload(f), "18446744073709551615 0 7 0 %", 28));
    mg_frame_unref(f);
    end_world(&w);
}

/* --- what the tables have at one moment --- */

struct snapshot {
    struct world *w;
    uint32_t ids[8];
    void *values[8];
    size_t n, most;
};

static int see(uint32_t id, void *value, void *arg)
{
    struct snapshot *seen = arg;
    seen->ids[seen->n] = id;
    seen->values[seen->n++] = value;
    mg_router_del_route(seen->w->r, id); /* no lock is held */
    return seen->n == seen->most;
}

/* The pointer that a snapshot has for an id, or NULL. */
static void *seen_value(const struct snapshot *seen, uint32_t id)
{
    for (size_t i = 0; i < seen->n; i++)
        if (seen->ids[i] == id)
            return seen->values[i];
    return NULL;
}

static void a_snapshot_has_the_routes_of_one_moment_even_if_they_go_meanwhile(void)
{
    struct world w;
    struct snapshot seen = {.w = &w};

    make_world(&w, 1);
    CHECK(mg_router_snapshot(w.r, MG_ROUTES, NULL, see, &seen) == MG_OK);
    CHECK(seen_value(&seen, CHILD) == w.child && seen_value(&seen, GRANDCHILD) == w.child);
    CHECK(seen_value(&seen, SIBLING) == w.sibling && seen_value(&seen, PARENT) == w.parent && seen.n == 4);
    seen.n = 0;
    CHECK(mg_router_snapshot(w.r, MG_ROUTES, NULL, see, &seen) == MG_OK && seen.n == 0);
    end_world(&w);
}

static void a_snapshot_has_the_handlers_and_what_came_in_by_a_stream(void)
{
    struct world w;
    struct snapshot handlers = {.w = &w}, egress = {.w = &w};

    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_NONE, -1, 1);
    mg_handler *h = mg_router_get_handler(w.r, HANDLE);
    CHECK(mg_router_snapshot(w.r, MG_HANDLERS, NULL, see, &handlers) == MG_OK);
    CHECK(handlers.n == 1 && seen_value(&handlers, HANDLE) == h && mg_handler_handle(h) == HANDLE);
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), "x");
    comes_by(w.child, FROM(CHILD, .dst_id = SIBLING, .handle = HANDLE), "x");
    CHECK(mg_router_snapshot(w.r, MG_EGRESS, w.child, see, &egress) == MG_OK);
    CHECK(egress.n == 2 && seen_value(&egress, OWN) == w.child && seen_value(&egress, SIBLING) == w.child);
    mg_handler_unref(h);
    mg_latch_unref(l);
    end_world(&w);
}

static void a_visit_ends_a_snapshot_early_and_without_memory_there_is_none(void)
{
    struct world w;
    struct snapshot seen = {.w = &w, .most = 2};

    make_world(&w, 1);
    mg_alloc_fail_at(1);
    CHECK(mg_router_snapshot(w.r, MG_ROUTES, NULL, see, &seen) == MG_ENOMEM && seen.n == 0);
    mg_alloc_fail_at(0);
    CHECK(mg_router_snapshot(w.r, MG_ROUTES, NULL, see, &seen) == MG_OK && seen.n == 2);
    end_world(&w);
}

/* --- memory --- */

static void each_constructor_gives_all_or_nothing(void)
{
    mg_loop *loop = mg_loop_new();
    const uint32_t parents[] = {1, 0};

    for (int step = 0; step < 7; step++) {
        for (long n = 1, more = 1; more; n++) {
            mg_router *r = mg_router_new(loop);
            mg_handler *h = mg_handler_new(&plain), *made = NULL;
            mg_entry *list = NULL;
            mg_router *second = NULL;
            mg_frame *f = NULL;
            size_t count = 0;
            int ok = 0;

            CHECK(mg_router_set_text(r, MG_REASON_REFUSED, "old") == MG_OK);
            mg_alloc_fail_at(n);
            switch (step) {
            case 0: ok = (second = mg_router_new(loop)) != NULL; break;
            case 1: ok = (made = mg_handler_new(&plain)) != NULL; break;
            case 2: ok = mg_router_add_handler(r, h, 0, 0) == MG_OK; break;
            case 3: ok = mg_router_set_identity(r, 5, 1, parents, 2) == MG_OK; break;
            case 4: ok = mg_router_set_text(r, MG_REASON_REFUSED, "new") == MG_OK; break;
            case 5: ok = (list = mg_router_take_handlers(r, -1, &count)) != NULL; break;
            case 6: ok = (f = mg_router_dead_frame(r, 1, 2, MG_REASON_REFUSED, 0, 0, 0)) != NULL; break;
            }
            more = mg_alloc_failed();
            mg_alloc_fail_at(0);
            CHECK(ok == !more);
            CHECK(mg_idmap_count(&r->handlers) == (step == 2 && ok));
            CHECK(!more || !strcmp(r->texts[MG_REASON_REFUSED], "old"));
            mg_router_unref(second);
            mg_handler_unref(made);
            mg_frame_unref(f);
            mg_free(list);
            mg_handler_unref(h);
            mg_router_unref(r);
        }
    }
    mg_loop_unref(loop);
}

static void a_route_without_memory_is_not_there(void)
{
    struct world w;

    make_world(&w, 1);
    for (uint32_t id = 100, failed = 0; !failed; id++) {
        mg_alloc_fail_at(1);
        mg_err err = mg_router_put_route(w.r, id, w.child);
        failed = err != MG_OK;
        mg_alloc_fail_at(0);
        mg_stream *s = mg_router_get_route(w.r, id, 0);
        CHECK(!!s == !failed && (!failed || err == MG_ENOMEM));
        mg_stream_unref(s);
        if (failed)
            while (--id >= 100)
                CHECK(mg_router_del_route(w.r, id));
    }
    end_world(&w);
}

/* --- many threads --- */

struct router_worker {
    struct world *w;
    uint32_t me;
};

static void *use_tables(void *arg)
{
    struct router_worker *x = arg;
    mg_router *r = x->w->r;
    const uint32_t parents[] = {PARENT, 0};

    for (uint32_t i = 0; i < 1500; i++) {
        mg_latch *l = mg_latch_new(drop_item);
        mg_handler *h = mg_handler_new(&(mg_handler_spec) {.persist = i % 2, .respondent = -1, .latch = l});
        CHECK(mg_router_add_handler(r, h, 0, 0) == MG_OK);
        CHECK(mg_router_put_route(r, 5000 + x->me, x->w->child) == MG_OK);
        local(x->w, (mg_hdr) {.dst_id = OWN, .handle = mg_handler_handle(h)}, "x");
        CHECK(got(l, "x"));
        local(x->w, (mg_hdr) {.dst_id = OWN, .handle = 1, .reply_to = mg_handler_handle(h)}, "x");
        CHECK((int) (i % 2) == got(l, "invalid handle"));
        CHECK(mg_router_set_identity(r, OWN, PARENT, parents, 2) == MG_OK);
        CHECK(mg_router_set_text(r, MG_REASON_REFUSED, "refused") == MG_OK);
        CHECK(mg_router_del_route(r, 5000 + x->me) == 1);
        CHECK((mg_router_del_handler(r, mg_handler_handle(h)) == MG_OK) == (int) (i % 2));
        mg_handler_unref(h);
        mg_latch_unref(l);
        if (x->me == 0)
            node_take_events(&x->w->node);
    }
    return NULL;
}

static void the_tables_serve_many_threads(void)
{
    enum { N = 4 };
    struct world w;
    struct router_worker workers[N];
    pthread_t threads[N];

    make_world(&w, 1);
    for (uint32_t i = 0; i < N; i++) {
        workers[i] = (struct router_worker) {&w, i};
        threads[i] = test_spawn(use_tables, &workers[i]);
    }
    for (int i = 0; i < N; i++)
        test_join(threads[i]);
    CHECK(mg_idmap_count(&w.r->handlers) == 0);
    end_world(&w);
}

int main(void)
{
    test_watchdog(120);
    RUN(a_frame_goes_out_unchanged_by_the_route_of_its_destination);
    RUN(an_unknown_destination_is_up);
    RUN(what_came_from_above_never_goes_up_again);
    RUN(a_router_without_a_parent_has_no_route_to_strangers);
    RUN(routes_can_be_replaced_and_removed_and_the_parent_stands_in);
    RUN(the_route_tells_which_stream_it_took);
    RUN(destinations_are_remembered_with_the_stream_they_came_in_by);
    RUN(what_streams_carry_is_counted_and_not_forgotten_when_they_close);
    RUN(an_authority_of_another_stream_is_dropped_without_an_answer);
    RUN(a_source_of_another_stream_is_dropped_without_an_answer);
    RUN(a_stamp_replaces_the_authority_of_what_comes_in);
    RUN(anybody_may_send_without_authority_and_no_stamp_changes_that);
    RUN(a_parent_lends_what_it_passes_down_any_authority_but_speaks_for_no_child);
    RUN(in_unidirectional_mode_children_reach_only_us_and_what_is_above);
    RUN(an_unknown_handle_is_answered);
    RUN(a_dead_message_is_never_answered);
    RUN(only_the_respondent_may_answer_and_its_neighbour_to_us_with_a_dead_message);
    RUN(who_is_above_us_may_say_that_somebody_is_dead_and_a_sibling_may_not);
    RUN(the_parent_policy_asks_for_the_authority_of_us_or_a_parent);
    RUN(the_neighbour_policy_asks_for_the_context_at_the_other_end);
    RUN(the_guest_policy_asks_about_others_once_some_messages_wait);
    RUN(a_handler_for_one_message_takes_one_and_not_one_that_is_refused);
    RUN(a_closed_latch_is_an_invalid_handle);
    RUN(what_python_handles_or_judges_is_an_event_that_holds_its_stream);
    RUN(a_hook_sees_each_frame_before_it_is_routed);
    RUN(a_message_that_is_too_large_wakes_who_waits_for_the_answer_or_the_message);
    RUN(a_flood_of_refusals_is_reported_up_to_a_bound_and_then_counted);
    RUN(handles_are_given_out_in_order_and_taken_ones_are_left_out);
    RUN(handlers_are_taken_by_respondent_or_all);
    RUN(a_router_drops_the_handlers_it_still_has);
    RUN(texts_longer_than_any_message_are_cut);
    RUN(a_snapshot_has_the_routes_of_one_moment_even_if_they_go_meanwhile);
    RUN(a_snapshot_has_the_handlers_and_what_came_in_by_a_stream);
    RUN(a_visit_ends_a_snapshot_early_and_without_memory_there_is_none);
    RUN(each_constructor_gives_all_or_nothing);
    RUN(a_route_without_memory_is_not_there);
    RUN(the_tables_serve_many_threads);
    return 0;
}
