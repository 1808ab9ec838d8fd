#include "loop/loop.h"

#include "test/actors.h"

/* This thread spins for so long from now on, as if its waits had been short and there were room. */
static mg_waiter *let_spin(int64_t nanoseconds)
{
    mg_waiter *w = mg_waiter_self();
    mg_spin_assume_room(1);
    mg_spin_set(nanoseconds);
    for (int i = 0; i < 100; i++)
        mg_spin_learn(&w->spin, 0);
    return w;
}

static void spin_no_more(mg_waiter *w)
{
    mg_spin_set(150000);
    mg_spin_assume_room(0);
    memset(&w->spin, 0, sizeof w->spin);
}

static void poll_with(mg_loop *loop, int (*fn)(void *arg), void *arg)
{
    mg_loop_acquire(loop);
    mg_loop_set_hot(loop, fn, arg);
    CHECK(mg_loop_hot(loop) == arg);
    mg_loop_release(loop);
}

static int count_hot(void *arg)
{
    ++*(int *) arg;
    return 0;
}

static void a_thread_whose_waits_were_short_spins_before_it_sleeps_and_then_says_so(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    mg_waiter *w = let_spin(200000);
    mg_sleeper s;
    mg_item item;
    mg_err err;
    int polls = 0, i;

    poll_with(loop, count_hot, &polls);
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    err = mg_loop_wait(loop, &s, mg_now() + TEST_PATIENCE);
    CHECK(err == MG_EINTR && polls > 0); /* a signal may have come meanwhile */
    i = polls;
    CHECK(mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 100) == MG_ETIMEDOUT && polls == i); /* once in each wait */
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);

    mg_spin_learn(&w->spin, MG_SECOND); /* a long one */
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 100) == MG_ETIMEDOUT && polls == i);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);

    for (i = 0; i < 1000; i++)
        mg_spin_learn(&w->spin, 0);
    mg_spin_set(0); /* switched off */
    i = polls;
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 100) == MG_ETIMEDOUT && polls == i);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);
    spin_no_more(w);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

/* The item that the thread waits for comes with the twentieth poll. */
static int push_at_last(void *arg)
{
    struct polls *polls = arg;
    mg_item item = {NULL, MG_ITEM_OBJECT, 0};
    if (++polls->n == 20)
        CHECK(mg_latch_push(polls->l, item, NULL) == MG_OK);
    return 0;
}

static void a_spinning_leader_lets_others_on_its_core_run(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    mg_waiter *w = let_spin(60 * MG_SECOND);
    struct polls polls = {l, 0};
    mg_sleeper s;
    mg_item item;
    mg_loop_stats stats;

    w->spin.losses = 2;
    poll_with(loop, push_at_last, &polls);
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    while (mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 10) == MG_EINTR)
        continue;
    mg_loop_get_stats(loop, &stats);
    if (polls.n == 20) {
        CHECK(stats.yields == 2 && stats.spins_won == 1 && w->spin.losses == 1);
        CHECK(mg_latch_leave(l, &s, &item) == MG_OK);
    } else { /* one took long: the machine is busy */
        CHECK(stats.yields >= 1 && !stats.spins_won && stats.spins_lost == 1 && w->spin.losses == 4);
        CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);
    }

    spin_no_more(w);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

/* Notes a part when it is polled the first time. */
static int hear_a_part(void *arg)
{
    mg_loop_stats stats;
    mg_loop_get_stats(arg, &stats);
    if (!stats.arriving)
        mg_loop_note_arriving(arg);
    return 0;
}

static void a_spin_in_which_a_large_frame_begins_to_arrive_was_not_in_vain(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    mg_waiter *w = let_spin(1000);
    mg_sleeper s;
    mg_item item;
    mg_loop_stats stats;

    w->spin.losses = 0;
    poll_with(loop, hear_a_part, loop);
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN && !s.arriving_at);
    mg_err err = mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 20);
    CHECK(err == MG_EINTR || err == MG_ETIMEDOUT); /* a signal may have come meanwhile */
    CHECK(s.spun && s.arriving_at >= s.since && w->spin.losses == 0);
    mg_loop_get_stats(loop, &stats);
    CHECK(stats.arriving == 1 && !stats.spins_lost && !stats.spins_won);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);

    /* the next one is in vain again */
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    err = mg_loop_wait(loop, &s, mg_now() + MG_SECOND / 20);
    CHECK(err == MG_EINTR || err == MG_ETIMEDOUT);
    CHECK(s.spun && !s.arriving_at && w->spin.losses == 2);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);

    spin_no_more(w);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

static void *push_soon(void *arg)
{
    mg_item item = {NULL, MG_ITEM_OBJECT, 0};
    struct timespec ms = {0, 1000000};
    nanosleep(&ms, NULL);
    CHECK(mg_latch_push(arg, item, NULL) == MG_OK);
    return NULL;
}

static void a_thread_that_waits_for_another_one_spins_too(void)
{
    mg_latch *l = mg_latch_new(drop_item);
    mg_waiter *w = let_spin(60 * MG_SECOND);
    mg_sleeper s;
    mg_item item;
    pthread_t thread;

    w->spin.losses = 2;
    while (w->spin.losses == 2) { /* the item may be there before we spin */
        CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
        CHECK(!pthread_create(&thread, NULL, push_soon, l));
        CHECK(mg_latch_sleep(&s, MG_NEVER) == MG_OK);
        CHECK(mg_latch_leave(l, &s, &item) == MG_OK);
        CHECK(!pthread_join(thread, NULL));
    }
    CHECK(w->spin.losses == 1);

    mg_spin_set(1000);
    w->spin.losses = 0;
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_sleep(&s, mg_now() + MG_SECOND / 100) == MG_EINTR); /* a signal may have come meanwhile */
    CHECK(mg_latch_sleep(&s, mg_now() + MG_SECOND / 100) == MG_ETIMEDOUT);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);
    CHECK(w->spin.losses == 2 && mg_spin_room(&w->spin, mg_now()) == MG_ROOM_NONE); /* not again soon */

    spin_no_more(w);
    mg_latch_unref(l);
}

static void take_turn(mg_latch *l)
{
    mg_item item;

    CHECK(test_get(NULL, l, MG_NEVER, &item) == MG_OK);
}

static void *answer_turns(void *arg)
{
    struct turns *t = arg;

    while (!atomic_load(&t->enough)) {
        take_turn(t->there);
        CHECK(mg_latch_push(t->back, number(1), NULL) == MG_OK);
    }
    return NULL;
}

static void a_thread_that_waits_for_another_one_on_its_core_lets_it_run(void)
{
    struct turns t = {mg_latch_new(drop_item), mg_latch_new(drop_item), 0};
    mg_waiter *w = mg_waiter_self();

    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    pthread_t thread = test_spawn(answer_turns, &t);
    do {
        w->spin.short_waits = 8;
        w->spin.losses = 1;
        mg_latch_push(t.there, number(1), NULL);
        take_turn(t.back);
    } while (w->spin.losses);
    atomic_store(&t.enough, 1);
    mg_latch_push(t.there, number(1), NULL);
    test_join(thread);

    /* a spin in vain looks like a signal, since one may have come meanwhile */
    mg_latch *l = mg_latch_new(drop_item);
    mg_sleeper s;
    mg_item item;
    w->spin.short_waits = 8;
    CHECK(mg_latch_join(l, &s, &item) == MG_EAGAIN);
    CHECK(mg_latch_sleep(&s, mg_now() + MG_SECOND / 100) == MG_EINTR);
    CHECK(mg_latch_sleep(&s, mg_now() + MG_SECOND / 100) == MG_ETIMEDOUT);
    CHECK(mg_latch_leave(l, &s, &item) == MG_EAGAIN);
    CHECK(w->spin.losses == 2);

    mg_spin_assume_room(MG_ROOM_NONE);
    w->spin.losses = 0;
    w->spin.short_waits = 0;
    mg_latch_unref(l);
    mg_latch_unref(t.there);
    mg_latch_unref(t.back);
}

static void on_foreign(void *arg, int events)
{
    struct bell *b = arg;

    on_bell(b, events);
    mg_loop_note_foreign(b->loop);
}

static void a_leader_that_passes_frames_on_polls_for_the_next(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct bell bell;
    mg_loop_stats stats = {0};
    int n = 0;

    mg_spin_assume_room(1);
    mg_spin_set(MG_SECOND);
    start_attending(&a, loop);
    memset(&bell, 0, sizeof bell);
    bell.loop = loop;
    CHECK(!pipe(bell.fds));
    CHECK(!fcntl(bell.fds[0], F_SETFL, O_NONBLOCK));
    bell.watch = mg_watch_new(loop, bell.fds[0], MG_READ, on_foreign, &bell);
    mg_loop_acquire(loop);
    mg_watch_start(bell.watch);
    mg_loop_release(loop);
    for (int64_t end = mg_now() + TEST_PATIENCE; stats.spins_won < 5; mg_loop_get_stats(loop, &stats)) {
        CHECK(mg_now() < end);
        bell_ring(&bell);
        n++;
        AWAIT(atomic_load(&bell.rung) == n);
    }
    /* no ring comes any more: the attendant stops spinning, and sleeps as it leads */
    AWAIT(attendant_leads(&a));
    mg_spin_set(150000);
    mg_spin_assume_room(0);
    bell_end(&bell, loop);
    end_attending(&a);
    mg_loop_unref(loop);
}

int main(void)
{
    test_watchdog(180);
    mg_spin_assume_room(0); /* but for the tests about that */
    RUN(a_thread_whose_waits_were_short_spins_before_it_sleeps_and_then_says_so);
    RUN(a_spinning_leader_lets_others_on_its_core_run);
    RUN(a_spin_in_which_a_large_frame_begins_to_arrive_was_not_in_vain);
    RUN(a_thread_that_waits_for_another_one_spins_too);
    RUN(a_thread_that_waits_for_another_one_on_its_core_lets_it_run);
    RUN(a_leader_that_passes_frames_on_polls_for_the_next);
    return 0;
}
