#include "net/router.h"

#include "test/world.h"

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
    /* unknown contexts are above */
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

int main(void)
{
    test_watchdog(120);
    RUN(an_authority_of_another_stream_is_dropped_without_an_answer);
    RUN(a_source_of_another_stream_is_dropped_without_an_answer);
    RUN(a_stamp_replaces_the_authority_of_what_comes_in);
    RUN(anybody_may_send_without_authority_and_no_stamp_changes_that);
    RUN(a_parent_lends_what_it_passes_down_any_authority_but_speaks_for_no_child);
    RUN(in_unidirectional_mode_children_reach_only_us_and_what_is_above);
    return 0;
}
