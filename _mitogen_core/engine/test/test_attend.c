#include "loop/loop.h"

#include "test/actors.h"

static void a_loop_that_waiters_left_is_attended_to(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct bell bell;
    struct waiting x;

    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x)); /* before the attendant comes */
    start_attending(&a, loop);
    AWAIT(attendant_is_parked(&a));
    let_looks_pass(); /* deep by now */
    CHECK(leads(&x) && !attendant_leads(&a));
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    AWAIT(attendant_leads(&a));

    bell_start(&bell, loop, NULL);
    for (int i = 1; i <= 300; i++) {
        /* the thread leads or follows for a moment or for long, then leaves for good */
        start_waiting(&x, loop, NULL, MG_NEVER);
        if (i % 3)
            AWAIT(leads(&x) || is_parked(&x));
        if (i % 30 == 0)
            let_looks_pass();
        mg_latch_push(x.latch, number(1), NULL);
        end_waiting(&x);
        bell_ring(&bell);
        AWAIT(atomic_load(&bell.rung) == i);
    }
    end_attending(&a);
    bell_end(&bell, loop);
    mg_loop_unref(loop);
}

enum { POSTERS = 4, EVENTS_EACH = 3000 };

struct posting {
    mg_loop *loop;
    int kind;
};

static void *post_events(void *arg)
{
    struct posting *p = arg;

    for (uint64_t i = 1; i <= EVENTS_EACH; i++) {
        mg_event ev = {.kind = p->kind, .n = i};
        CHECK(mg_loop_push_event(p->loop, &ev) == MG_OK);
        if (i % 64 == 0)
            test_pause(); /* so that the attendant gets to sleep now and then */
    }
    return NULL;
}

static void every_event_reaches_the_attendant_in_order_whoever_leads(void)
{
    mg_loop *loop = mg_loop_new();
    struct posting posters[POSTERS];
    pthread_t threads[POSTERS];
    struct attending a;
    struct waiting x;
    struct asking asking = {.loop = loop, .rounds = 1000};
    mg_event ev = {.kind = 7, .n = 1};
    int i;

    CHECK(mg_loop_push_event(loop, &ev) == MG_OK && mg_loop_n_events(loop) == 1); /* before there is an attendant */
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    start_attending(&a, loop);
    AWAIT(atomic_load(&a.events) == 1);
    AWAIT(attendant_is_parked(&a));
    let_looks_pass(); /* deep */
    ev.n = 2;
    CHECK(mg_loop_push_event(loop, &ev) == MG_OK);
    AWAIT(atomic_load(&a.events) == 2);

    asking.latch = mg_latch_new(drop_item);
    bell_start(&asking.bell, loop, asking.latch);
    asking.thread = test_spawn(ask, &asking);
    for (i = 0; i < POSTERS; i++) {
        posters[i] = (struct posting) {loop, i};
        threads[i] = test_spawn(post_events, &posters[i]);
    }
    for (i = 0; i < POSTERS; i++)
        test_join(threads[i]);
    AWAIT(atomic_load(&a.events) == 2 + POSTERS * EVENTS_EACH);
    test_join(asking.thread);
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    end_attending(&a);
    bell_end(&asking.bell, loop);
    mg_latch_unref(asking.latch);
    CHECK(mg_loop_n_events(loop) == 0);
    mg_loop_unref(loop);
}

static void on_bell_for_python(void *arg, int events)
{
    struct bell *b = arg;
    mg_event ev = {.kind = 1, .n = (uint64_t) atomic_load(&b->rung) + 1};

    CHECK(mg_loop_push_event(b->loop, &ev) == MG_OK);
    on_bell(b, events);
}

static void an_attendant_that_reads_what_is_for_itself_is_not_kicked(void)
{
    mg_loop *loop = mg_loop_new();
    mg_loop_stats before, after;
    struct attending a;
    struct bell bell = {.loop = loop};

    start_attending(&a, loop);
    CHECK(!pipe(bell.fds));
    CHECK(!fcntl(bell.fds[0], F_SETFL, O_NONBLOCK));
    bell.watch = mg_watch_new(loop, bell.fds[0], MG_READ, on_bell_for_python, &bell);
    mg_loop_acquire(loop);
    mg_watch_start(bell.watch);
    mg_loop_release(loop);
    AWAIT(attendant_leads(&a));
    mg_loop_get_stats(loop, &before);
    for (uint64_t i = 1; i <= 100; i++) {
        bell_ring(&bell);
        AWAIT(atomic_load(&a.events) == i);
    }
    mg_loop_get_stats(loop, &after);
    CHECK(after.kicks == before.kicks);
    end_attending(&a);
    bell_end(&bell, loop);
    mg_loop_unref(loop);
}

static void an_event_without_memory_is_refused(void)
{
    mg_loop *loop = mg_loop_new();
    mg_event ev = {.kind = 1};

    mg_alloc_fail_at(1);
    CHECK(mg_loop_push_event(loop, &ev) == MG_ENOMEM && mg_loop_n_events(loop) == 0);
    mg_alloc_fail_at(0);
    for (ev.n = 1; ev.n <= 100; ev.n++)
        CHECK(mg_loop_push_event(loop, &ev) == MG_OK);
    for (uint64_t i = 1; i <= 100; i++)
        CHECK(mg_loop_pop_event(loop, &ev) && ev.n == i);
    CHECK(!mg_loop_pop_event(loop, &ev));
    mg_loop_unref(loop);
}

static void an_interrupt_ends_the_present_or_the_next_attendance(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct waiting x;
    uint64_t returns;

    mg_loop_interrupt(loop);
    CHECK(mg_loop_attend(loop, MG_NEVER) == MG_OK);
    CHECK(mg_loop_attend(loop, mg_now() + MG_SECOND / 500) == MG_ETIMEDOUT);

    start_attending(&a, loop);
    AWAIT(attendant_leads(&a));
    mg_loop_interrupt(loop);
    AWAIT(atomic_load(&a.returns) == 1);
    end_attending(&a);
    mg_loop_unref(loop);

    loop = mg_loop_new();
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    start_attending(&a, loop);
    for (returns = 1; returns <= 50; returns++) {
        if (returns % 5 == 0)
            let_looks_pass();
        mg_loop_interrupt(loop);
        AWAIT(atomic_load(&a.returns) == returns);
    }
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    end_attending(&a);
    mg_loop_unref(loop);
}

static void a_close_sends_the_attendant_away_and_waits_go_on_without_the_loop(void)
{
    for (int attended = 0; attended < 2; attended++) {
        mg_loop *loop = mg_loop_new();
        struct waiting x, y, z;
        struct attending a;

        start_waiting(&x, loop, NULL, MG_NEVER);
        AWAIT(leads(&x));
        start_waiting(&y, loop, NULL, MG_NEVER);
        AWAIT(is_parked(&y));
        if (attended)
            start_attending(&a, loop);
        CHECK(!mg_loop_closed(loop));
        mg_loop_close(loop);
        mg_loop_close(loop);
        CHECK(mg_loop_closed(loop));
        if (attended) {
            test_join(a.thread);
            CHECK(a.err == MG_ECLOSED);
        }
        CHECK(mg_loop_attend(loop, MG_NEVER) == MG_ECLOSED);
        start_waiting(&z, loop, NULL, mg_now() + MG_SECOND / 100);
        AWAIT(is_parked(&x) && is_parked(&y));
        mg_latch_push(x.latch, number(1), NULL);
        mg_latch_push(y.latch, number(1), NULL);
        end_waiting(&x);
        end_waiting(&y);
        end_waiting(&z);
        CHECK(x.err == MG_OK && y.err == MG_OK && z.err == MG_ETIMEDOUT);
        mg_loop_acquire(loop); /* still possible: to take watchers down */
        mg_loop_release(loop);
        mg_loop_unref(loop);
    }
}

static void a_close_with_the_attendant_leading_returns(void)
{
    for (int i = 0; i < 200; i++) {
        mg_loop *loop = mg_loop_new();
        struct attending a;

        start_attending(&a, loop);
        if (i % 2)
            AWAIT(attendant_leads(&a));
        end_attending(&a);
        mg_loop_unref(loop);
    }
}

int main(void)
{
    test_watchdog(180);
    mg_spin_assume_room(0); /* test_polling.c is about that */
    RUN(a_loop_that_waiters_left_is_attended_to);
    RUN(every_event_reaches_the_attendant_in_order_whoever_leads);
    RUN(an_attendant_that_reads_what_is_for_itself_is_not_kicked);
    RUN(an_event_without_memory_is_refused);
    RUN(an_interrupt_ends_the_present_or_the_next_attendance);
    RUN(a_close_sends_the_attendant_away_and_waits_go_on_without_the_loop);
    RUN(a_close_with_the_attendant_leading_returns);
    return 0;
}
