#include "net/router.h"

#include "test/world.h"

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

int main(void)
{
    test_watchdog(120);
    RUN(handles_are_given_out_in_order_and_taken_ones_are_left_out);
    RUN(handlers_are_taken_by_respondent_or_all);
    RUN(a_router_drops_the_handlers_it_still_has);
    RUN(a_snapshot_has_the_routes_of_one_moment_even_if_they_go_meanwhile);
    RUN(a_snapshot_has_the_handlers_and_what_came_in_by_a_stream);
    RUN(a_visit_ends_a_snapshot_early_and_without_memory_there_is_none);
    return 0;
}
