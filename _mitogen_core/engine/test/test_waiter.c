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
    mg_waiter_wake(first); /* too late, which harms nobody */
    test_join(test_spawn(get_self, &second));
    CHECK(first == second);
}

static void a_token_given_before_the_sleep_ends_it_at_once_and_only_once(void)
{
    mg_waiter *w = mg_waiter_self();

    mg_waiter_wake(w);
    mg_waiter_wake(w);
    CHECK(mg_waiter_park(w, MG_NEVER) == MG_OK);
    CHECK(mg_waiter_park(w, mg_now() + MG_SECOND / 1000) == MG_ETIMEDOUT);
}

static void a_token_can_be_taken_back(void)
{
    mg_waiter *w = mg_waiter_self();

    mg_waiter_wake(w);
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
    mg_waiter_wake(p.waiter);
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

static void a_parked_thread_can_be_given_its_token_now_and_be_woken_later(void)
{
    struct parker p = {0};
    pthread_t thread = test_spawn(park_for_ever, &p);

    AWAIT(is_parked(&p));
    CHECK(mg_waiter_wake_later(p.waiter) && !mg_waiter_wake_later(p.waiter));
    mg_waiter_unpark(p.waiter);
    test_join(thread);
    CHECK(p.err == MG_OK);
    CHECK(!mg_waiter_wake_later(mg_waiter_self()));
    CHECK(mg_waiter_park(mg_waiter_self(), mg_now() + MG_SECOND / 1000) == MG_ETIMEDOUT); /* it was not given one */
}

/* A place where a thread sleeps otherwise. */
struct place {
    mg_kick kick;
    _Atomic int kicks;
};

static void count_kick(mg_kick *kick)
{
    atomic_fetch_add(&((struct place *) kick)->kicks, 1);
}

struct elsewhere {
    struct place *place;
    _Atomic(mg_waiter *) waiter;
    _Atomic int may_end;
};

static void *be_elsewhere(void *arg)
{
    struct elsewhere *x = arg;
    mg_waiter *w = mg_waiter_self();

    atomic_store(&w->elsewhere, &x->place->kick);
    atomic_store(&x->waiter, w);
    AWAIT(atomic_load(&x->may_end));
    atomic_store(&w->elsewhere, NULL);
    mg_waiter_take_token(w);
    return NULL;
}

static void a_thread_that_sleeps_elsewhere_is_kicked_there(void)
{
    struct place place = {.kick.fn = count_kick}, other = {.kick.fn = count_kick};
    struct elsewhere x = {.place = &place};
    pthread_t thread = test_spawn(be_elsewhere, &x);

    AWAIT(atomic_load(&x.waiter));
    mg_waiter_wake(x.waiter);
    CHECK(place.kicks == 1);
    CHECK(!mg_waiter_wake_later(x.waiter) && place.kicks == 2);
    mg_waiter_wake_here(x.waiter, &other.kick); /* it has gone on */
    CHECK(place.kicks == 2 && other.kicks == 0);
    mg_waiter_wake_here(x.waiter, &place.kick);
    CHECK(place.kicks == 3);
    atomic_store(&x.may_end, 1);
    test_join(thread);
    mg_waiter_wake(x.waiter);
    CHECK(place.kicks == 3);
}

static void a_thread_that_wakes_itself_is_not_kicked(void)
{
    struct place place = {.kick.fn = count_kick};
    mg_waiter *w = mg_waiter_self();

    atomic_store(&w->elsewhere, &place.kick);
    mg_waiter_wake(w);
    CHECK(mg_waiter_park(w, MG_NEVER) == MG_OK && !place.kicks);
    atomic_store(&w->elsewhere, NULL);
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
        mg_waiter_wake(atomic_load(&t->players[!p->me]));
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

enum { SLEEPERS = 32 };

static void a_wake_reaches_its_thread_and_no_other(void)
{
    struct parker p[SLEEPERS];
    pthread_t threads[SLEEPERS];

    memset(p, 0, sizeof p);
    for (int i = 0; i < SLEEPERS; i++)
        threads[i] = test_spawn(park_for_ever, &p[i]);
    for (int i = 0; i < SLEEPERS; i++)
        AWAIT(is_parked(&p[i]) || p[i].err); /* where there are no futexes a sleep ends now and then, as for a signal */
    for (int i = 0; i < SLEEPERS; i++) {
        mg_waiter_wake(p[i].waiter);
        test_join(threads[i]);
        CHECK(p[i].err == MG_OK || p[i].err == MG_EINTR);
    }
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
        mg_waiter_wake(r->target);
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
    RUN(a_parked_thread_can_be_given_its_token_now_and_be_woken_later);
    RUN(a_thread_that_sleeps_elsewhere_is_kicked_there);
    RUN(a_thread_that_wakes_itself_is_not_kicked);
    RUN(no_wake_is_missed_in_many_rounds);
    RUN(a_wake_reaches_its_thread_and_no_other);
    RUN(a_wake_that_races_with_the_deadline_is_never_lost);
    return 0;
}
