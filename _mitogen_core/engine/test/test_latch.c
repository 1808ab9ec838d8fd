#include "sync/latch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "test/items.h"

static size_t n_sleepers(mg_latch *l)
{
    size_t n = 0;

    pthread_mutex_lock(&l->mu);
    for (mg_node *node = mg_ilist_first(&l->sleepers); node; node = mg_ilist_next(&l->sleepers, node))
        n++;
    pthread_mutex_unlock(&l->mu);
    return n;
}

static int expect_next(mg_item item, void *arg)
{
    uintptr_t *next = arg;

    CHECK(is_number(item, *next));
    return ++*next == 7 ? 77 : 0;
}

static void a_visitor_sees_what_waits_and_leaves_it_there(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    uintptr_t next = 3;

    CHECK(mg_latch_visit(l, expect_next, &next) == 0 && next == 3);
    for (uintptr_t n = 0; n < 6; n++)
        CHECK(mg_latch_push(l, number(n), NULL) == MG_OK);
    for (uintptr_t n = 0; n < 3; n++)
        CHECK(has(l, n));
    CHECK(mg_latch_push(l, number(6), NULL) == MG_OK && mg_latch_push(l, number(7), NULL) == MG_OK);
    CHECK(mg_latch_visit(l, expect_next, &next) == 77 && next == 7); /* it may end the visit */
    for (uintptr_t n = 3; n < 8; n++)
        CHECK(has(l, n));
    CHECK(is_empty(l));
    mg_latch_unref(l);
}

static void items_come_out_in_the_order_they_went_in(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    unsigned state = 1;
    uintptr_t in = 0, out = 0;

    for (int i = 0; i < 5000; i++) {
        if (test_random(&state) % 100 < (i % 1000 < 500 ? 60u : 40u))
            CHECK(mg_latch_push(l, number(++in), NULL) == MG_OK);
        else if (in > out)
            CHECK(has(l, ++out));
        else
            CHECK(is_empty(l));
        CHECK(mg_latch_size(l) == in - out);
    }
    while (out < in)
        CHECK(has(l, ++out));
    CHECK(is_empty(l));
    mg_latch_unref(l);
}

static void the_sleeper_that_came_first_is_served_first_and_nobody_takes_its_item(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper a, b, c;
    mg_woken woken;
    mg_item item;

    CHECK(mg_latch_join(l, &a, &item) == MG_EAGAIN);
    CHECK(mg_latch_join(l, &b, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(1), &woken) == MG_OK);
    CHECK(woken.waiter == mg_waiter_self() && woken.since == a.since);
    CHECK(is_empty(l) && mg_latch_size(l) == 1); /* promised, not consumed */
    CHECK(a.state == MG_SLEEPER_SERVED && b.state == MG_SLEEPER_WAITING);
    CHECK(mg_latch_push(l, number(2), &woken) == MG_OK && woken.waiter);
    CHECK(mg_latch_push(l, number(3), &woken) == MG_OK && !woken.waiter);
    CHECK(mg_latch_join(l, &c, &item) == MG_OK && is_number(item, 3)); /* need not sleep */
    CHECK(mg_latch_size(l) == 2);
    CHECK(mg_latch_leave(l, &b, &item) == MG_OK && is_number(item, 2));
    CHECK(mg_latch_leave(l, &a, &item) == MG_OK && is_number(item, 1));
    CHECK(mg_latch_size(l) == 0);
    mg_latch_unref(l);
}

static void a_sleeper_may_leave_from_anywhere_in_the_row(void)
{
    for (int leaves = 0; leaves < 3; leaves++) {
        mg_latch *l = mg_latch_new(count_drop);
        mg_sleeper s[3];
        mg_item item;
        uintptr_t n = 0;
        int i;

        for (i = 0; i < 3; i++)
            CHECK(mg_latch_join(l, &s[i], &item) == MG_EAGAIN);
        CHECK(mg_latch_leave(l, &s[leaves], &item) == MG_EAGAIN && n_sleepers(l) == 2);
        for (i = 0; i < 3; i++)
            CHECK(mg_latch_push(l, number((uintptr_t) i + 1), NULL) == MG_OK);
        for (i = 0; i < 3; i++)
            if (i != leaves)
                CHECK(mg_latch_leave(l, &s[i], &item) == MG_OK && is_number(item, ++n));
        CHECK(has(l, 3) && !n_sleepers(l));
        mg_latch_unref(l);
    }
}

struct getter {
    mg_latch *latch;
    mg_item item;
    mg_err err;
    int64_t deadline;
};

static void *get_one(void *arg)
{
    struct getter *g = arg;

    g->err = test_get(NULL, g->latch, g->deadline, &g->item);
    return NULL;
}

static void threads_that_sleep_are_served_in_order_of_arrival(void)
{
    enum { N = 6 };
    mg_latch *l = mg_latch_new(count_drop);
    struct getter getters[N];
    pthread_t threads[N];
    size_t i;

    for (i = 0; i < N; i++) {
        getters[i] = (struct getter) {.latch = l, .deadline = MG_NEVER};
        threads[i] = test_spawn(get_one, &getters[i]);
        AWAIT(n_sleepers(l) == i + 1);
    }
    for (i = 0; i < N; i++)
        CHECK(mg_latch_push(l, number(i + 1), NULL) == MG_OK);
    for (i = 0; i < N; i++) {
        test_join(threads[i]);
        CHECK(getters[i].err == MG_OK && is_number(getters[i].item, i + 1));
    }
    CHECK(mg_latch_size(l) == 0);
    mg_latch_unref(l);
}

static void who_sleeps_and_since_when_can_be_seen(void)
{
    mg_latch *l = mg_latch_new(drop_item);
    mg_sleeper s;
    mg_item item;
    mg_asleep who[2];
    int64_t before = mg_now();

    CHECK(mg_latch_sleepers(l, who, 2) == 0);
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_sleepers(l, who, 0) == 1 && mg_latch_sleepers(l, who, 2) == 1);
    CHECK(who[0].thread == (uintptr_t) pthread_self() && who[0].since >= before && who[0].since <= mg_now());
    CHECK(mg_latch_push(l, (mg_item) {(void *) 1, MG_ITEM_OBJECT, 0}, NULL) == MG_OK);
    CHECK(mg_latch_sleepers(l, who, 2) == 0); /* it has its item, and only has to wake */
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK);
    mg_latch_unref(l);
}

static void a_deadline_ends_the_wait_and_the_next_item_is_kept(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    int64_t deadline = mg_now() + MG_SECOND / 100;
    mg_item item;

    CHECK(test_get(NULL, l, deadline, &item) == MG_ETIMEDOUT && mg_now() >= deadline);
    CHECK(test_get(NULL, l, mg_now(), &item) == MG_ETIMEDOUT);
    CHECK(test_get(NULL, l, 0, &item) == MG_ETIMEDOUT);
    CHECK(n_sleepers(l) == 0);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK);
    CHECK(test_get(NULL, l, 0, &item) == MG_OK && is_number(item, 1));
    mg_latch_unref(l);
}

static void an_item_that_comes_with_the_deadline_wins(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;

    /* the item comes before the wait looks at the clock */
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK);
    CHECK(mg_latch_sleep(&s, 0) == MG_OK);
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 1));
    /* after it */
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_sleep(&s, 0) == MG_ETIMEDOUT);
    CHECK(mg_latch_push(l, number(2), NULL) == MG_OK);
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 2));
    mg_latch_unref(l);
}

enum { RACE_ROUNDS = 3000 };

static void *push_in_a_race(void *arg)
{
    mg_latch *l = arg;
    unsigned state = 9;

    for (uintptr_t i = 1; i <= RACE_ROUNDS; i++) {
        for (volatile unsigned spin = test_random(&state) % 20000; spin; spin--)
            continue;
        CHECK(mg_latch_push(l, number(i), NULL) == MG_OK);
    }
    return NULL;
}

static void no_item_is_lost_between_pushes_and_deadlines(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    pthread_t thread = test_spawn(push_in_a_race, l);
    uintptr_t got = 0;
    mg_item item;

    for (int i = 0; got < RACE_ROUNDS; i++) {
        mg_err err = test_get(NULL, l, mg_now() + i % 30 * 1000, &item);
        if (err == MG_OK) {
            CHECK(is_number(item, got + 1));
            got++;
        } else
            CHECK(err == MG_ETIMEDOUT);
    }
    test_join(thread);
    CHECK(mg_latch_size(l) == 0);
    mg_latch_unref(l);
}

static void a_close_wakes_every_sleeper_and_a_second_close_changes_nothing(void)
{
    enum { N = 4 };
    mg_latch *l = mg_latch_new(count_drop);
    struct getter getters[N];
    pthread_t threads[N];
    size_t i;

    for (i = 0; i < N; i++) {
        getters[i] = (struct getter) {.latch = l, .deadline = MG_NEVER};
        threads[i] = test_spawn(get_one, &getters[i]);
    }
    AWAIT(n_sleepers(l) == N);
    CHECK(!mg_latch_closed(l));
    mg_latch_close(l);
    mg_latch_close(l);
    for (i = 0; i < N; i++) {
        test_join(threads[i]);
        CHECK(getters[i].err == MG_ECLOSED);
    }
    CHECK(mg_latch_closed(l));
    mg_latch_unref(l);
}

static void a_closed_latch_takes_nothing_drops_what_it_had_and_keeps_its_promises(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper s, later;
    mg_item item;
    int before = dropped;

    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    for (uintptr_t i = 1; i <= 7; i++)
        CHECK(mg_latch_push(l, number(i), NULL) == MG_OK);
    mg_latch_close(l);
    CHECK(dropped == before + 6);
    CHECK(mg_latch_push(l, number(9), NULL) == MG_ECLOSED && dropped == before + 6); /* the caller's still */
    CHECK(mg_latch_try(l, &item) == MG_ECLOSED);
    CHECK(mg_latch_join(l, &later, &item) == MG_ECLOSED);
    CHECK(mg_latch_sleep(&s, MG_NEVER) == MG_OK);
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 1));
    CHECK(mg_latch_size(l) == 0);
    mg_latch_unget(l, number(1));
    CHECK(dropped == before + 7);
    mg_latch_unref(l);
    CHECK(dropped == before + 7);
}

static void what_is_left_goes_to_the_drop_function_with_the_last_reference(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    int before = dropped;

    for (uintptr_t i = 1; i <= 5; i++)
        CHECK(mg_latch_push(l, number(i), NULL) == MG_OK);
    CHECK(has(l, 1));
    mg_latch_ref(l);
    mg_latch_unref(l);
    CHECK(dropped == before);
    mg_latch_unref(l);
    CHECK(dropped == before + 4);
    mg_latch_unref(NULL);
}

static void what_is_put_back_comes_first(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    uintptr_t i;

    mg_latch_unget(l, number(1));
    CHECK(has(l, 1));
    for (i = 10; i < 14; i++)
        CHECK(mg_latch_push(l, number(i), NULL) == MG_OK);
    for (i = 9; i >= 1; i--)
        mg_latch_unget(l, number(i));
    for (i = 1; i < 14; i++)
        CHECK(has(l, i));
    CHECK(is_empty(l));
    mg_latch_unref(l);
}

static void what_is_put_back_serves_the_first_sleeper(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper gone, a, b;
    mg_item item;

    CHECK(mg_latch_join(l, &gone, &item) == MG_EAGAIN);
    CHECK(mg_latch_join(l, &a, &item) == MG_EAGAIN);
    CHECK(mg_latch_join(l, &b, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK);
    CHECK(mg_latch_leave(l, &gone, &item) == MG_OK);
    mg_latch_unget(l, item);
    CHECK(a.state == MG_SLEEPER_SERVED && b.state == MG_SLEEPER_WAITING && mg_latch_size(l) == 1);
    CHECK(mg_latch_leave(l, &a, &item) == MG_OK && is_number(item, 1));
    CHECK(mg_latch_leave(l, &b, &item) == MG_EAGAIN);
    mg_latch_unref(l);
}

static void a_wait_given_up_can_be_taken_up_again(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;

    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_sleep(&s, mg_now() + MG_SECOND / 1000) == MG_ETIMEDOUT);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK);
    CHECK(mg_latch_sleep(&s, MG_NEVER) == MG_OK && mg_latch_sleep(&s, 0) == MG_OK);
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 1));
    mg_latch_unref(l);
}

enum { PRODUCERS = 3, EACH = 5000 };

struct producer {
    mg_latch *latch;
    uintptr_t me;
};

static void *produce(void *arg)
{
    struct producer *p = arg;

    for (uintptr_t i = 1; i <= EACH; i++)
        CHECK(mg_latch_push(p->latch, number(p->me << 20 | i), NULL) == MG_OK);
    return NULL;
}

struct consumer {
    mg_latch *latch;
    uintptr_t last[PRODUCERS];
    size_t got;
};

static void *consume(void *arg)
{
    struct consumer *c = arg;
    mg_item item;
    mg_err err;

    while ((err = test_get(NULL, c->latch, mg_now() + TEST_PATIENCE, &item)) == MG_OK) {
        uintptr_t who = (uintptr_t) item.ptr >> 20, n = (uintptr_t) item.ptr & 0xfffff;

        CHECK(who < PRODUCERS && n > c->last[who]);
        c->last[who] = n;
        c->got++;
    }
    CHECK(err == MG_ECLOSED);
    return NULL;
}

static void many_producers_and_consumers_lose_nothing_and_keep_the_order(void)
{
    enum { CONSUMERS = 3 };
    mg_latch *l = mg_latch_new(count_drop);
    struct producer producers[PRODUCERS];
    struct consumer consumers[CONSUMERS];
    pthread_t threads[PRODUCERS + CONSUMERS];
    size_t i, got = 0;

    memset(consumers, 0, sizeof consumers);
    for (i = 0; i < CONSUMERS; i++) {
        consumers[i].latch = l;
        threads[PRODUCERS + i] = test_spawn(consume, &consumers[i]);
    }
    for (i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer) {l, i};
        threads[i] = test_spawn(produce, &producers[i]);
    }
    for (i = 0; i < PRODUCERS; i++)
        test_join(threads[i]);
    AWAIT(mg_latch_size(l) == 0);
    mg_latch_close(l);
    for (i = 0; i < CONSUMERS; i++) {
        test_join(threads[PRODUCERS + i]);
        got += consumers[i].got;
    }
    CHECK(got == PRODUCERS * EACH);
    mg_latch_unref(l);
}

static void a_failed_allocation_leaves_the_item_with_the_caller(void)
{
    mg_latch *l;
    int before = dropped;

    mg_alloc_fail_at(1);
    CHECK(!mg_latch_new(count_drop));
    mg_alloc_fail_at(0);
    l = mg_latch_new(count_drop);
    for (uintptr_t i = 1; i <= 2 * MG_LATCH_FEW; i++) {
        /* only the first items need no memory */
        mg_alloc_fail_at(1);
        if (i == MG_LATCH_FEW + 1) {
            CHECK(mg_latch_push(l, number(i), NULL) == MG_ENOMEM && mg_latch_size(l) == MG_LATCH_FEW);
            mg_alloc_fail_at(0);
        }
        CHECK(mg_latch_push(l, number(i), NULL) == MG_OK);
        mg_alloc_fail_at(0);
    }
    for (uintptr_t i = 1; i <= 2 * MG_LATCH_FEW; i++)
        CHECK(has(l, i));
    CHECK(dropped == before);
    mg_latch_unref(l);
}

static void a_sleeper_is_served_and_a_token_is_optional_when_memory_is_out(void)
{
    mg_latch *l = mg_latch_new(count_drop), *watcher = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;

    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    for (uintptr_t i = 1; i <= MG_LATCH_FEW; i++)
        CHECK(mg_latch_push(watcher, number(i), NULL) == MG_OK);
    mg_latch_watch(l, watcher, 1);
    mg_alloc_fail_at(1);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && mg_alloc_failed()); /* for the token */
    mg_alloc_fail_at(0);
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 1));
    for (uintptr_t i = 1; i <= MG_LATCH_FEW; i++)
        CHECK(has(watcher, i));
    CHECK(is_empty(watcher) && l->refs == 1);
    mg_latch_watch(l, NULL, 0);
    mg_latch_unref(watcher);
    mg_latch_unref(l);
}

static void *join_without_memory(void *arg)
{
    mg_sleeper s;
    mg_item item;

    mg_alloc_fail_at(1);
    CHECK(mg_latch_join(arg, &s, &item) == MG_ENOMEM);
    mg_alloc_fail_at(0);
    CHECK(n_sleepers(arg) == 0);
    return NULL;
}

static void a_thread_for_which_there_is_no_memory_does_not_sleep(void)
{
    mg_latch *l = mg_latch_new(count_drop);

    test_join(test_spawn(join_without_memory, l)); /* no other thread has ended before: there is no waiter to inherit */
    mg_latch_unref(l);
}

static mg_item sized(uintptr_t n, uint32_t size)
{
    return (mg_item) {(void *) n, MG_ITEM_OBJECT, size};
}

static void a_limit_refuses_what_would_exceed_it(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    CHECK(mg_latch_limit(l) == 0);
    mg_latch_set_limit(l, 100);
    CHECK(mg_latch_limit(l) == 100);
    CHECK(mg_latch_push(l, sized(1, 1000), NULL) == MG_OK); /* nothing else waits */
    CHECK(mg_latch_push(l, sized(2, 1), NULL) == MG_EFULL);
    CHECK(mg_latch_overflow(l) && !mg_latch_overflow(l));
    CHECK(mg_latch_push(l, number(3), NULL) == MG_OK); /* counts nothing */
    CHECK(has(l, 1));
    CHECK(mg_latch_push(l, sized(4, 60), NULL) == MG_OK && mg_latch_push(l, sized(5, 40), NULL) == MG_OK);
    CHECK(mg_latch_push(l, sized(6, 1), NULL) == MG_EFULL && mg_latch_overflow(l));
    CHECK(has(l, 3) && has(l, 4));
    mg_latch_unget(l, sized(4, 60));
    CHECK(mg_latch_push(l, sized(7, 1), NULL) == MG_EFULL);
    CHECK(has(l, 4) && mg_latch_push(l, sized(7, 1), NULL) == MG_OK);
    CHECK(has(l, 5) && has(l, 7) && is_empty(l));
    mg_latch_set_limit(l, 0);
    CHECK(mg_latch_push(l, sized(8, 99), NULL) == MG_OK && mg_latch_push(l, sized(9, 99), NULL) == MG_OK);
    mg_latch_close(l);
    CHECK(mg_latch_push(l, sized(9, 9), NULL) == MG_ECLOSED);
    mg_latch_unref(l);
}

static void a_copy_of_the_process_forgets_the_sleepers(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
#if !defined(__SANITIZE_THREAD__) /* it goes by the address, and would hold the lock to be taken for ever */
    pthread_mutex_lock(&l->mu); /* by a thread that is not there */
#endif
    mg_latch_forked(l);
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && has(l, 1));
    mg_latch_unref(l);
}

static int rings(mg_latch *l)
{
    struct pollfd p = {.fd = mg_latch_bell(l), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void a_bell_rings_for_what_nobody_sleeps_for_until_it_is_hushed(void)
{
    mg_latch *l = mg_latch_new(count_drop);
    mg_sleeper s;
    mg_item item;
    int fd = mg_latch_bell(l);
    CHECK(fd >= 0 && mg_latch_bell(l) == fd && !rings(l));
    CHECK(mg_latch_push(l, number(1), NULL) == MG_OK && rings(l));
    CHECK(mg_latch_push(l, number(2), NULL) == MG_OK && rings(l));
    mg_latch_hush(l);
    CHECK(!rings(l) && has(l, 1) && has(l, 2));
    mg_latch_hush(l); /* again: no harm */
    CHECK(!mg_latch_has_rung(l) && mg_latch_has_rung(l));
    mg_latch_hush(l);
    CHECK(mg_latch_push(l, number(3), NULL) == MG_OK && rings(l) && has(l, 3));
    mg_latch_hush(l);
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_push(l, number(4), NULL) == MG_OK && !rings(l)); /* the sleeper has it */
    CHECK(mg_latch_leave(l, &s, &item) == MG_OK && is_number(item, 4));
    mg_latch_close(l);
    CHECK(mg_latch_push(l, number(5), NULL) == MG_ECLOSED && !rings(l));
    mg_latch_unref(l);
    CHECK(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

int main(void)
{
    test_watchdog(120);
    mg_spin_assume_room(0); /* a wait that has been polling says so once, which test_polling.c shows */
    RUN(a_thread_for_which_there_is_no_memory_does_not_sleep);
    RUN(items_come_out_in_the_order_they_went_in);
    RUN(a_visitor_sees_what_waits_and_leaves_it_there);
    RUN(the_sleeper_that_came_first_is_served_first_and_nobody_takes_its_item);
    RUN(a_sleeper_may_leave_from_anywhere_in_the_row);
    RUN(threads_that_sleep_are_served_in_order_of_arrival);
    RUN(who_sleeps_and_since_when_can_be_seen);
    RUN(a_deadline_ends_the_wait_and_the_next_item_is_kept);
    RUN(an_item_that_comes_with_the_deadline_wins);
    RUN(no_item_is_lost_between_pushes_and_deadlines);
    RUN(a_close_wakes_every_sleeper_and_a_second_close_changes_nothing);
    RUN(a_closed_latch_takes_nothing_drops_what_it_had_and_keeps_its_promises);
    RUN(what_is_left_goes_to_the_drop_function_with_the_last_reference);
    RUN(what_is_put_back_comes_first);
    RUN(what_is_put_back_serves_the_first_sleeper);
    RUN(a_wait_given_up_can_be_taken_up_again);
    RUN(many_producers_and_consumers_lose_nothing_and_keep_the_order);
    RUN(a_failed_allocation_leaves_the_item_with_the_caller);
    RUN(a_sleeper_is_served_and_a_token_is_optional_when_memory_is_out);
    RUN(a_limit_refuses_what_would_exceed_it);
    RUN(a_copy_of_the_process_forgets_the_sleepers);
    RUN(a_bell_rings_for_what_nobody_sleeps_for_until_it_is_hushed);
    return 0;
}
