/* The rules of routing: where a frame goes. */
#include "net/router.h"

#include "test/world.h"

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
    /* src is unknown, and expected from above as well */
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
    RUN(a_flood_of_refusals_is_reported_up_to_a_bound_and_then_counted);
    RUN(texts_longer_than_any_message_are_cut);
    RUN(each_constructor_gives_all_or_nothing);
    RUN(a_route_without_memory_is_not_there);
    RUN(the_tables_serve_many_threads);
    return 0;
}
