#include "sync/latch.h"

#include "test/items.h"

/* Whether the latch has a token of `of`, which is taken. */
static int has_token(mg_latch *l, mg_latch *of)
{
    mg_item item;

    if (mg_latch_try(l, &item) != MG_OK || item.kind != MG_ITEM_TOKEN || item.ptr != of)
        return 0;
    mg_token_end(of);
    return 1;
}

static void a_watcher_gets_a_token_for_each_item_that_nobody_slept_for(void)
{
    mg_latch *l = mg_latch_new(count_drop), *watcher = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;

    mg_latch_watch(l, watcher, 0);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && mg_latch_push(l, number(2), NULL) == MG_OK);
    CHECK(has_token(watcher, l) && has_token(watcher, l) && is_empty(watcher));
    CHECK(has(l, 1) && has(l, 2));
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(3), NULL) == MG_OK && is_empty(watcher));
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK);

    mg_latch_watch(l, watcher, 1); /* always */
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(4), NULL) == MG_OK && has_token(watcher, l));
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 4));

    mg_latch_watch(l, NULL, 0);
    CHECK(mg_latch_push(l, number(5), NULL) == MG_OK && is_empty(watcher));
    CHECK(watcher->refs == 1 && l->refs == 1);
    mg_latch_unref(watcher);
    mg_latch_unref(l);
}

static void a_push_tells_who_woke_at_the_watcher(void)
{
    mg_latch *l = mg_latch_new(count_drop), *watcher = mg_latch_new(count_drop);
    mg_sleeper here, there;
    mg_woken woken;
    mg_item item;

    mg_latch_watch(l, watcher, 1);
    CHECK(mg_latch_join(watcher, &there, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(1), &woken) == MG_OK);
    CHECK(woken.waiter == mg_waiter_self() && woken.since == there.since);
    CHECK(mg_latch_leave(watcher, &there, &item) == MG_OK && item.kind == MG_ITEM_TOKEN && item.ptr == l);
    CHECK(mg_latch_tokens(l) == 1);
    mg_token_end(item.ptr);
    CHECK(has(l, 1) && mg_latch_tokens(l) == 0);

    CHECK(mg_latch_join(watcher, &there, &item) == MG_EAGAIN && mg_latch_join(l, &here, &item) == MG_EAGAIN);
    there.since = 77;
    here.since = 88;
    CHECK(mg_latch_push(l, number(2), &woken) == MG_OK && woken.since == 88);
    CHECK(mg_latch_leave(l, &here, &item) == MG_OK && mg_latch_leave(watcher, &there, &item) == MG_OK);
    mg_token_end(item.ptr);
    mg_latch_watch(l, NULL, 0);
    mg_latch_unref(watcher);
    mg_latch_unref(l);
}

static void tokens_pass_a_row_of_latches_and_a_closed_watcher_costs_nothing(void)
{
    mg_latch *a = mg_latch_new(count_drop), *b = mg_latch_new(count_drop), *c = mg_latch_new(count_drop);

    mg_latch_watch(a, b, 0);
    mg_latch_watch(b, c, 0);
    CHECK(mg_latch_push(a, number(1), NULL) == MG_OK);
    CHECK(has_token(c, b) && has_token(b, a) && has(a, 1));
    mg_latch_close(b);
    CHECK(mg_latch_push(a, number(2), NULL) == MG_OK && has(a, 2) && is_empty(c));
    CHECK(a->refs == 1 && b->refs == 2 && c->refs == 2);
    mg_latch_unref(c);
    mg_latch_unref(b);
    CHECK(b->refs == 1);
    mg_latch_unref(a); /* the last of each */
}

static void a_dropped_watcher_gives_its_tokens_back(void)
{
    mg_latch *l = mg_latch_new(count_drop), *watcher = mg_latch_new(count_drop);

    mg_latch_watch(l, watcher, 0);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && l->refs == 2);
    mg_latch_close(watcher);
    CHECK(l->refs == 1);
    mg_latch_unref(watcher);
    mg_latch_unref(l);
}

static void count_told(mg_latch *l, void *arg)
{
    CHECK(!pthread_mutex_trylock(&l->mu)); /* under no lock */
    pthread_mutex_unlock(&l->mu);
    ++*(int *) arg;
}

static void each_push_tells_afterwards_but_for_those_that_say_they_do_not(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    int told = 0;

    mg_latch_tell(l, count_told, &told);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && told == 1);
    CHECK(mg_latch_push_untold(l, number(2), NULL) == MG_OK && told == 1);
    mg_alloc_fail_at(1);
    CHECK(has(l, 1) && has(l, 2));
    mg_alloc_fail_at(0);
    mg_latch_close(l);
    CHECK(mg_latch_push(l, number(3), NULL) == MG_ECLOSED && told == 1);
    mg_latch_tell(l, NULL, NULL);
    mg_latch_unref(l);
}

int main(void)
{
    test_watchdog(120);
    mg_spin_assume_room(0); /* a wait that has been polling says so once, which test_polling.c shows */
    RUN(a_watcher_gets_a_token_for_each_item_that_nobody_slept_for);
    RUN(a_push_tells_who_woke_at_the_watcher);
    RUN(tokens_pass_a_row_of_latches_and_a_closed_watcher_costs_nothing);
    RUN(a_dropped_watcher_gives_its_tokens_back);
    RUN(each_push_tells_afterwards_but_for_those_that_say_they_do_not);
    return 0;
}
