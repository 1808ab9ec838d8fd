#include "sync/waiter.h"

#include "test/test_net.h"

static void without_memory_there_is_no_waiter_and_later_there_is(void)
{
    mg_alloc_fail_at(1);
    CHECK(!mg_waiter_self() && mg_alloc_failed());
    mg_alloc_fail_at(0);
    CHECK(mg_waiter_self() && mg_waiter_self() == mg_waiter_self());
}

static void *get_self(void *arg)
{
    mg_waiter **out = arg;

    *out = mg_waiter_self();
    CHECK(*out == mg_waiter_self());
    return NULL;
}

static void each_thread_has_a_waiter_of_its_own_and_leaves_it_to_the_next(void)
{
    mg_waiter *first = NULL, *second = NULL;

    test_join(test_spawn(get_self, &first));
    CHECK(first && first != mg_waiter_self());
    mg_waiter_notify(first); /* too late, which harms nobody */
    test_join(test_spawn(get_self, &second));
    CHECK(first == second);
}

static void a_token_given_before_the_sleep_ends_it_at_once_and_only_once(void)
{
    mg_waiter *w = mg_waiter_self();

    CHECK(!mg_waiter_notify(w) && !mg_waiter_notify(w));
    CHECK(mg_waiter_park(w, MG_NEVER) == MG_OK);
    CHECK(mg_waiter_park(w, mg_now() + MG_SECOND / 1000) == MG_ETIMEDOUT);
}

static void a_token_can_be_taken_back(void)
{
    mg_waiter *w = mg_waiter_self();

    mg_waiter_notify(w);
    mg_waiter_take_token(w);
    mg_waiter_take_token(w);
    CHECK(mg_waiter_park(w, mg_now() + MG_SECOND / 1000) == MG_ETIMEDOUT);
}

static void a_deadline_ends_the_sleep_and_not_early(void)
{
    mg_waiter *w = mg_waiter_self();
    int64_t began = mg_now();
    int i;

    CHECK(mg_waiter_park(w, 0) == MG_ETIMEDOUT);
    CHECK(mg_waiter_park(w, began) == MG_ETIMEDOUT);
    for (i = 0; i < 5; i++) {
        int64_t deadline = mg_now() + i * MG_SECOND / 200;

        CHECK(mg_waiter_park(w, deadline) == MG_ETIMEDOUT && mg_now() >= deadline);
    }
    CHECK(mg_now() - began < TEST_PATIENCE);
}

struct parker {
    _Atomic(mg_waiter *) waiter;
    mg_err err;
};

static void *park_for_ever(void *arg)
{
    struct parker *p = arg;

    mg_waiter_take_token(mg_waiter_self()); /* one may have been left behind */
    atomic_store(&p->waiter, mg_waiter_self());
    p->err = mg_waiter_park(mg_waiter_self(), MG_NEVER);
    return NULL;
}

static int is_parked(struct parker *p)
{
    mg_waiter *w = atomic_load(&p->waiter);

    return w && atomic_load(&w->word) == MG_WAITER_PARKED;
}

static void a_parked_thread_is_woken(void)
{
    struct parker p = {0};
    pthread_t thread = test_spawn(park_for_ever, &p);

    AWAIT(is_parked(&p));
    CHECK(!mg_waiter_notify(p.waiter));
    test_join(thread);
    CHECK(p.err == MG_OK);
}

static void ignore_signal(int number)
{
    (void) number;
}

static void a_signal_ends_the_sleep(void)
{
    struct sigaction act, old;
    struct parker p = {0};
    pthread_t thread;

    memset(&act, 0, sizeof act);
    act.sa_handler = ignore_signal;
    act.sa_flags = SA_RESTART; /* which must not matter */
    sigaction(SIGUSR1, &act, &old);
    thread = test_spawn(park_for_ever, &p);
    AWAIT(is_parked(&p));
    /* the word is set a moment before the sleep: one signal could come between */
    AWAIT(!is_parked(&p) || (pthread_kill(thread, SIGUSR1), 0));
    test_join(thread);
    CHECK(p.err == MG_EINTR);
    sigaction(SIGUSR1, &old, NULL);
}

static void a_waiter_that_may_be_blocked_in_a_loop_is_told_of(void)
{
    mg_waiter *w = mg_waiter_self();
    mg_loop *loop = mg_loop_new();

    atomic_store(&w->leading, loop);
    CHECK(mg_waiter_notify(w) == 1);
    atomic_store(&w->leading, NULL);
    CHECK(mg_waiter_notify(w) == 0);
    mg_waiter_take_token(w);
    mg_loop_unref(loop);
}

/* Two threads hand a turn to each other by nothing but wakes. One that is missed hangs them. */
struct table {
    _Atomic(mg_waiter *) players[2];
    _Atomic int turn;
    int rounds;
};

struct player {
    struct table *table;
    int me;
};

static void *play(void *arg)
{
    struct player *p = arg;
    struct table *t = p->table;
    mg_waiter *w = mg_waiter_self();

    atomic_store(&t->players[p->me], w);
    AWAIT(atomic_load(&t->players[!p->me]));
    for (int i = 0; i < t->rounds; i++) {
        while (atomic_load(&t->turn) != p->me)
            CHECK(mg_waiter_park(w, mg_now() + TEST_PATIENCE) != MG_ETIMEDOUT);
        atomic_store(&t->turn, !p->me);
        mg_waiter_notify(atomic_load(&t->players[!p->me]));
    }
    return NULL;
}

static void no_wake_is_missed_in_many_rounds(void)
{
    struct table t = {.rounds = 20000};
    struct player a = {&t, 0}, b = {&t, 1};
    pthread_t thread = test_spawn(play, &b);

    play(&a);
    test_join(thread);
    mg_waiter_take_token(mg_waiter_self());
}

/* The same, asleep on an alarm that the other player sets and takes back all the time. */
static void *play_with_alarms(void *arg)
{
    struct player *p = arg;
    struct table *t = p->table;
    mg_waiter *w = mg_waiter_self();
    unsigned state = 5 + (unsigned) p->me;

    mg_waiter_open_alarm(w);
    atomic_store(&t->players[p->me], w);
    AWAIT(atomic_load(&t->players[!p->me]));
    for (int i = 0; i < t->rounds; i++) {
        for (int64_t end = mg_now() + TEST_PATIENCE; atomic_load(&t->turn) != p->me;) {
            mg_waiter_park_alarmed(w, MG_NEVER);
            CHECK(mg_now() < end);
        }
        mg_waiter *other = atomic_load(&t->players[!p->me]);
        mg_waiter_set_alarm(other, test_random(&state) % 3 * 2000);
        atomic_store(&t->turn, !p->me);
        mg_waiter_notify(other);
        mg_waiter_set_alarm(other, test_random(&state) % 2 * 1000);
    }
    return NULL;
}

static void no_wake_is_missed_whatever_the_alarm_does(void)
{
    struct table t = {.rounds = 20000};
    struct player a = {&t, 0}, b = {&t, 1};
    pthread_t thread = test_spawn(play_with_alarms, &b);

    play_with_alarms(&a);
    test_join(thread);
    mg_waiter_take_token(mg_waiter_self());
}

static void an_alarm_ends_the_sleep_unless_it_is_taken_back(void)
{
    mg_waiter *w = mg_waiter_self();
    mg_err err;

    mg_waiter_set_alarm(w, 1); /* what was never opened is left alone */
    if (!mg_waiter_open_alarm(w))
        return; /* not on this system */
    CHECK(mg_waiter_open_alarm(w));
    mg_waiter_set_alarm(w, MG_SECOND / 1000);
    while ((err = mg_waiter_park_alarmed(w, MG_NEVER)) == MG_EINTR)
        ;
    CHECK(err == MG_ETIMEDOUT);

    mg_waiter_set_alarm(w, MG_SECOND / 1000);
    mg_waiter_set_alarm(w, 0);
    int64_t until = mg_now() + MG_SECOND / 100;
    while ((err = mg_waiter_park_alarmed(w, until)) == MG_EINTR)
        ;
    CHECK(err == MG_ETIMEDOUT && mg_now() >= until);

    mg_waiter_notify(w);
    CHECK(mg_waiter_park_alarmed(w, MG_NEVER) == MG_OK);
    mg_waiter_forked(w);
    mg_waiter_set_alarm(w, 1); /* closed, and nothing happens */
    CHECK(mg_waiter_park_alarmed(w, mg_now()) == MG_ETIMEDOUT);
}

struct racer {
    mg_waiter *target;
    _Atomic int go, done;
    int rounds;
};

static void *notify_in_each_round(void *arg)
{
    struct racer *r = arg;
    unsigned state = 3;

    for (int i = 1; i <= r->rounds; i++) {
        while (atomic_load(&r->go) != i)
            sched_yield();
        for (unsigned spin = test_random(&state) % 3000; spin; spin--)
            atomic_load_explicit(&r->go, memory_order_relaxed);
        mg_waiter_notify(r->target);
        atomic_store(&r->done, i);
    }
    return NULL;
}

static void a_wake_that_races_with_the_deadline_is_never_lost(void)
{
    struct racer r = {.target = mg_waiter_self(), .rounds = 3000};
    pthread_t thread;

    mg_waiter_take_token(r.target);
    thread = test_spawn(notify_in_each_round, &r);
    for (int i = 1; i <= r.rounds; i++) {
        atomic_store(&r.go, i);
        mg_err err = mg_waiter_park(r.target, mg_now() + i % 20 * 1000);
        if (err != MG_OK) {
            do /* the token is still to come, or there */
                err = mg_waiter_park(r.target, mg_now() + TEST_PATIENCE);
            while (err == MG_EINTR);
            CHECK(err == MG_OK);
        }
        while (atomic_load(&r.done) != i)
            sched_yield();
        CHECK(atomic_load(&r.target->word) == MG_WAITER_AWAKE);
    }
    test_join(thread);
}

int main(void)
{
    test_watchdog(120);
    RUN(without_memory_there_is_no_waiter_and_later_there_is);
    RUN(each_thread_has_a_waiter_of_its_own_and_leaves_it_to_the_next);
    RUN(a_token_given_before_the_sleep_ends_it_at_once_and_only_once);
    RUN(a_token_can_be_taken_back);
    RUN(a_deadline_ends_the_sleep_and_not_early);
    RUN(a_parked_thread_is_woken);
    RUN(a_signal_ends_the_sleep);
    RUN(a_waiter_that_may_be_blocked_in_a_loop_is_told_of);
    RUN(no_wake_is_missed_in_many_rounds);
    RUN(an_alarm_ends_the_sleep_unless_it_is_taken_back);
    RUN(no_wake_is_missed_whatever_the_alarm_does);
    RUN(a_wake_that_races_with_the_deadline_is_never_lost);
    return 0;
}
