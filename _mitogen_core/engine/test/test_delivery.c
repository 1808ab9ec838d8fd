#include "net/router.h"

#include "test/world.h"

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

static void the_guest_policy_asks_about_a_long_message_of_others(void)
{
    static char text[65536 + 2];
    struct world w;
    mg_event ev;

    memset(text, 'x', sizeof text - 1);
    make_world(&w, 1);
    mg_latch *l = listen_with(&w, HANDLE, MG_POLICY_GUEST, -1, 1);
    local(&w, (mg_hdr) {.dst_id = OWN, .handle = HANDLE}, text);
    CHECK(got(l, text));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), text + 1);
    CHECK(got(l, text + 1) && all_quiet(&w));
    comes_by(w.child, FROM(CHILD, .dst_id = OWN, .handle = HANDLE), text);
    CHECK(mg_latch_size(l) == 0 && w.child->in_python == 1);
    CHECK(mg_loop_pop_event(w.node.loop, &ev) && ev.kind == MG_EV_FRAME && mg_frame_len(ev.b) == sizeof text - 1);
    mg_handler_unref(ev.a);
    mg_frame_unref(ev.b);
    mg_stream_unref(ev.c);
    mg_stream_go_on(w.child);
    turn(&w);
    CHECK(all_quiet(&w));
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

int main(void)
{
    test_watchdog(120);
    RUN(an_unknown_handle_is_answered);
    RUN(a_dead_message_is_never_answered);
    RUN(only_the_respondent_may_answer_and_its_neighbour_to_us_with_a_dead_message);
    RUN(who_is_above_us_may_say_that_somebody_is_dead_and_a_sibling_may_not);
    RUN(the_parent_policy_asks_for_the_authority_of_us_or_a_parent);
    RUN(the_neighbour_policy_asks_for_the_context_at_the_other_end);
    RUN(the_guest_policy_asks_about_others_once_some_messages_wait);
    RUN(the_guest_policy_asks_about_a_long_message_of_others);
    RUN(a_handler_for_one_message_takes_one_and_not_one_that_is_refused);
    RUN(a_closed_latch_is_an_invalid_handle);
    RUN(what_python_handles_or_judges_is_an_event_that_holds_its_stream);
    RUN(a_hook_sees_each_frame_before_it_is_routed);
    RUN(a_message_that_is_too_large_wakes_who_waits_for_the_answer_or_the_message);
    return 0;
}
