#include "loop/loop.h"

#include "test/actors.h"

static void keep_away(struct attending *a)
{
    mg_event ev = {.kind = KEEP_AWAY};

    CHECK(mg_loop_push_event(a->loop, &ev) == MG_OK);
    AWAIT(atomic_load(&a->away));
}

static void let_return(struct attending *a)
{
    atomic_store(&a->may_return, 1);
}

static void a_waiter_leads_when_nobody_does_and_reads_for_itself(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    struct waiting x;
    struct bell bell;
    mg_loop_stats stats;
    pthread_t who;

    bell_start(&bell, loop, l);
    start_waiting(&x, loop, l, MG_NEVER);
    who = x.thread;
    AWAIT(leads(&x));
    bell_ring(&bell);
    end_waiting(&x);
    CHECK(x.err == MG_OK && x.item.ptr == (void *) '!' && pthread_equal(bell.by, who));
    mg_loop_get_stats(loop, &stats);
    CHECK(stats.leads == 1 && stats.attends == 0);
    CHECK(stats.turns >= 1 && stats.kicks == 0 && stats.events == 0 && stats.followers == 0);
    bell_end(&bell, loop);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

static void what_was_ready_as_its_watch_was_settled_is_not_slept_over(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    struct bell bell;
    mg_item item;

    bell_start(&bell, loop, l);
    bell_ring(&bell);
    mg_loop_acquire(loop);
    mg_loop_settle(loop);
    CHECK(!atomic_load(&bell.rung)); /* it calls nothing */
    mg_loop_release(loop);
    CHECK(test_get(loop, l, MG_NEVER, &item) == MG_OK);
    bell_end(&bell, loop);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

static void a_push_wakes_a_thread_that_leads_and_one_that_follows(void)
{
    mg_loop *loop = mg_loop_new();
    struct waiting leader, follower;

    start_waiting(&leader, loop, NULL, MG_NEVER);
    AWAIT(leads(&leader));
    start_waiting(&follower, loop, NULL, MG_NEVER);
    AWAIT(is_parked(&follower));
    CHECK(mg_latch_push(follower.latch, number(2), NULL) == MG_OK);
    end_waiting(&follower);
    CHECK(leads(&leader));
    CHECK(mg_latch_push(leader.latch, number(1), NULL) == MG_OK);
    end_waiting(&leader);
    CHECK(leader.err == MG_OK && follower.err == MG_OK);
    mg_loop_unref(loop);
}

static void a_close_of_the_latch_wakes_a_thread_that_leads(void)
{
    mg_loop *loop = mg_loop_new();
    struct waiting x;

    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    mg_latch_close(x.latch);
    end_waiting(&x);
    CHECK(x.err == MG_ECLOSED);
    mg_loop_unref(loop);
}

static void a_leader_reads_what_a_follower_waits_for(void)
{
    mg_loop *loop = mg_loop_new();
    mg_latch *l = mg_latch_new(drop_item);
    struct waiting leader, follower;
    struct bell bell;
    pthread_t who;

    bell_start(&bell, loop, l);
    start_waiting(&leader, loop, NULL, MG_NEVER);
    who = leader.thread;
    AWAIT(leads(&leader));
    start_waiting(&follower, loop, l, MG_NEVER);
    AWAIT(is_parked(&follower));
    bell_ring(&bell);
    end_waiting(&follower);
    CHECK(follower.err == MG_OK && pthread_equal(bell.by, who));
    mg_latch_push(leader.latch, number(1), NULL);
    end_waiting(&leader);
    bell_end(&bell, loop);
    mg_latch_unref(l);
    mg_loop_unref(loop);
}

static void a_follower_leads_once_the_leader_has_left_and_the_attendant_is_away(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct waiting x[3];

    start_waiting(&x[0], loop, NULL, MG_NEVER);
    AWAIT(leads(&x[0])); /* before the attendant comes */
    start_attending(&a, loop);
    keep_away(&a);
    for (int i = 1; i < 3; i++) {
        start_waiting(&x[i], loop, NULL, MG_NEVER);
        AWAIT(is_parked(&x[i]));
    }
    for (int i = 0; i < 3; i++) {
        AWAIT(leads(&x[0]) || leads(&x[1]) || leads(&x[2]));
        struct waiting *leader = leads(&x[0]) ? &x[0] : leads(&x[1]) ? &x[1] : &x[2];
        mg_latch_push(leader->latch, number(1), NULL);
        end_waiting(leader);
        atomic_store(&leader->waiter, NULL);
    }
    let_return(&a);
    end_attending(&a);
    mg_loop_unref(loop);
}

static void a_follower_leads_once_the_attendant_has_led_and_is_away(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct waiting x;

    start_attending(&a, loop);
    AWAIT(attendant_leads(&a));
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(is_parked(&x));
    keep_away(&a);
    AWAIT(leads(&x));
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    let_return(&a);
    end_attending(&a);
    mg_loop_unref(loop);
}

static void the_attendant_steps_down_for_a_thread_that_it_served(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct asking x = {.loop = loop, .rounds = 4};
    int64_t until = mg_now() + TEST_PATIENCE;

    mg_spin_set(0);
    start_attending(&a, loop);
    x.latch = mg_latch_new(drop_item);
    bell_start(&x.bell, loop, x.latch);
    while (!x.self_read) { /* how soon depends on who else needs the cores */
        CHECK(mg_now() < until);
        AWAIT(attendant_leads(&a));
        let_looks_pass();
        ask(&x); /* the first answer, perhaps the second, are the attendant's */
    }
    end_attending(&a);
    bell_end(&x.bell, loop);
    mg_latch_unref(x.latch);
    mg_loop_unref(loop);
    mg_spin_set(150000);
}

static void acquire_makes_a_blocked_leader_step_down(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct waiting x;

    /* a leader that waits for an item: it parks, and may lead again later */
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    mg_loop_acquire(loop);
    CHECK(!leads(&x));
    mg_loop_release(loop);
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    /* an attendant that leads: it comes back */
    start_attending(&a, loop);
    for (int i = 0; i < 100; i++) {
        AWAIT(attendant_leads(&a));
        mg_loop_acquire(loop);
        CHECK(!attendant_leads(&a));
        mg_loop_release(loop);
    }
    /* also if it sleeps without a limit while another thread has the loop */
    mg_loop_acquire(loop);
    let_looks_pass();
    AWAIT(attendant_is_parked(&a));
    mg_loop_release(loop);
    AWAIT(attendant_leads(&a));
    end_attending(&a);
    mg_loop_unref(loop);
}

struct acquiring {
    mg_loop *loop;
    int *shared; /* guarded by having the loop */
    int rounds;
};

static void *acquire_often(void *arg)
{
    struct acquiring *x = arg;

    for (int i = 0; i < x->rounds; i++) {
        mg_loop_acquire(x->loop);
        int before = (*x->shared)++;
        for (volatile int spin = 0; spin < 50; spin++)
            continue;
        CHECK(*x->shared == before + 1);
        mg_loop_release(x->loop);
    }
    return NULL;
}

static void whoever_acquires_has_the_loop_alone(void)
{
    enum { N = 4 };
    mg_loop *loop = mg_loop_new();
    int shared = 0;
    struct acquiring x = {loop, &shared, 200};
    struct attending a;
    struct asking asking = {.loop = loop, .rounds = 200};
    pthread_t threads[N];

    asking.latch = mg_latch_new(drop_item);
    start_attending(&a, loop);
    bell_start(&asking.bell, loop, asking.latch);
    asking.thread = test_spawn(ask, &asking);
    for (int i = 0; i < N; i++)
        threads[i] = test_spawn(acquire_often, &x);
    for (int i = 0; i < N; i++)
        test_join(threads[i]);
    test_join(asking.thread);
    CHECK(shared == N * 200);
    end_attending(&a);
    bell_end(&asking.bell, loop);
    mg_latch_unref(asking.latch);
    mg_loop_unref(loop);
}

static void *acquire_twice_without_a_waiter(void *arg)
{
    mg_loop *loop = arg;

    for (int i = 0; i < 2; i++) {
        mg_alloc_fail_at(1);
        mg_loop_acquire(loop);
        CHECK(mg_alloc_failed());
    }
    mg_alloc_fail_at(1);
    CHECK(mg_loop_leads(loop) && mg_alloc_failed());
    mg_alloc_fail_at(1);
    CHECK(mg_loop_try_acquire(loop) && mg_alloc_failed());
    mg_alloc_fail_at(0);
    for (int i = 0; i < 3; i++)
        mg_loop_release(loop);
    CHECK(!mg_loop_leads(loop));
    return NULL;
}

/* Before any other thread has ended, and left a waiter behind. */
static void a_thread_for_whose_waiter_there_is_no_memory_may_acquire_again_what_it_has(void)
{
    mg_loop *loop = mg_loop_new();

    test_join(test_spawn(acquire_twice_without_a_waiter, loop));
    mg_loop_acquire(loop);
    mg_loop_release(loop);
    mg_loop_unref(loop);
}

static uint64_t times_led(mg_loop *loop)
{
    mg_loop_stats stats;

    mg_loop_get_stats(loop, &stats);
    return stats.leads;
}

static int any_leads(struct waiting *x, int n)
{
    for (int i = 0; i < n; i++)
        if (leads(&x[i]))
            return 1;
    return 0;
}

/* No caretaker looks before the test is over, so a thread that should lead has to be called. */
static void a_loop_that_was_taken_from_its_leader_is_led_again_without_a_look(void)
{
    mg_lead_set_look(3600 * MG_SECOND);
    for (int n = 1; n <= 3; n++) {
        mg_loop *loop = mg_loop_new();
        struct waiting x[3];

        for (int i = 0; i < n; i++)
            start_waiting(&x[i], loop, NULL, MG_NEVER);
        AWAIT(any_leads(x, n));
        for (int i = 0; i < 300; i++) {
            mg_loop_acquire(loop);
            uint64_t before = times_led(loop);
            mg_loop_release(loop);
            AWAIT(any_leads(x, n) || times_led(loop) > before); /* it may have stopped again, to look for a signal */
        }
        for (int i = 0; i < n; i++) {
            CHECK(mg_latch_push(x[i].latch, number(1), NULL) == MG_OK);
            end_waiting(&x[i]);
            CHECK(x[i].err == MG_OK);
        }
        mg_loop_unref(loop);
    }
    mg_lead_set_look(MG_SECOND / 500);
}

static void deadlines_are_kept_by_leaders_followers_and_the_attendant(void)
{
    mg_loop *loop = mg_loop_new();
    struct waiting leader, follower;
    struct attending a;
    int64_t deadline;
    int i;

    for (i = 0; i < 5; i++) {
        deadline = mg_now() + i * MG_SECOND / 200;
        CHECK(mg_loop_attend(loop, deadline) == MG_ETIMEDOUT && mg_now() >= deadline);
    }
    start_waiting(&leader, loop, NULL, mg_now() + MG_SECOND / 20);
    start_waiting(&follower, loop, NULL, mg_now() + MG_SECOND / 25);
    end_waiting(&leader);
    CHECK(leader.err == MG_ETIMEDOUT && mg_now() >= leader.deadline);
    end_waiting(&follower);
    CHECK(follower.err == MG_ETIMEDOUT && mg_now() >= follower.deadline);
    /* the attendant sits there too */
    start_attending(&a, loop);
    for (i = 0; i < 20; i++) {
        start_waiting(&leader, loop, NULL, mg_now() + i * MG_SECOND / 2000);
        end_waiting(&leader);
        CHECK(leader.err == MG_ETIMEDOUT && mg_now() >= leader.deadline);
    }
    end_attending(&a);
    mg_loop_unref(loop);
}

static void ignore_signal(int number)
{
    (void) number;
}

static void a_signal_interrupts_leaders_and_followers(void)
{
    mg_loop *loop = mg_loop_new();
    struct waiting x, y;
    struct sigaction act, old;

    memset(&act, 0, sizeof act);
    act.sa_handler = ignore_signal; /* no SA_RESTART, as Python has it */
    sigaction(SIGUSR1, &act, &old);
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    start_waiting(&y, loop, NULL, MG_NEVER);
    AWAIT(is_parked(&y));
    int before = atomic_load(&x.interrupted);
    AWAIT(atomic_load(&x.interrupted) > before || (pthread_kill(x.thread, SIGUSR1), 0));
    AWAIT(leads(&x) || leads(&y));
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    CHECK(x.err == MG_OK);
    before = atomic_load(&y.interrupted);
    AWAIT(atomic_load(&y.interrupted) > before || (pthread_kill(y.thread, SIGUSR1), 0));
    AWAIT(leads(&y)); /* nobody else does */
    mg_latch_push(y.latch, number(1), NULL);
    end_waiting(&y);
    CHECK(y.err == MG_OK);
    sigaction(SIGUSR1, &old, NULL);
    mg_loop_unref(loop);
}

/* A signal that comes just then interrupts no sleep. */
static void a_leader_that_was_awake_for_others_has_signals_looked_for(void)
{
    mg_loop *loop = mg_loop_new();
    struct waiting x;
    struct bell bell;

    bell_start(&bell, loop, NULL);
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    int before = atomic_load(&x.interrupted);
    bell_ring(&bell);
    AWAIT(atomic_load(&x.interrupted) > before);
    AWAIT(leads(&x));

    before = atomic_load(&x.interrupted);
    mg_loop_acquire(loop); /* it parks meanwhile */
    mg_loop_release(loop);
    AWAIT(atomic_load(&x.interrupted) > before);
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    bell_end(&bell, loop);
    mg_loop_unref(loop);
}

/* Everything at once. */
struct chaos {
    mg_loop *loop;
    _Atomic int stop;
    uint64_t posts;
};

static void *make_chaos(void *arg)
{
    struct chaos *c = arg;
    struct counting_op op = {.task.run = run_counting};
    int runs = 0;

    while (!atomic_load(&c->stop)) {
        mg_loop_post(c->loop, &op.task);
        runs++;
        AWAIT(atomic_load(&op.runs) == runs);
        mg_loop_acquire(c->loop);
        mg_loop_release(c->loop);
        mg_event ev = {.kind = 1, .n = ++c->posts};
        CHECK(mg_loop_push_event(c->loop, &ev) == MG_OK);
        test_pause();
    }
    return NULL;
}

static void askers_go_on_while_leaders_change_all_the_time(void)
{
    enum { ASKERS = 3 };
    mg_loop *loop = mg_loop_new();
    struct chaos chaos = {.loop = loop};
    struct asking asking[ASKERS];
    struct attending a;
    pthread_t troublemaker;
    int i;

    start_attending(&a, loop);
    for (i = 0; i < ASKERS; i++) {
        asking[i] = (struct asking) {.loop = loop, .rounds = 2000, .latch = mg_latch_new(drop_item)};
        bell_start(&asking[i].bell, loop, asking[i].latch);
    }
    troublemaker = test_spawn(make_chaos, &chaos);
    for (i = 0; i < ASKERS; i++)
        asking[i].thread = test_spawn(ask, &asking[i]);
    for (i = 0; i < ASKERS; i++)
        test_join(asking[i].thread);
    atomic_store(&chaos.stop, 1);
    test_join(troublemaker);
    AWAIT(atomic_load(&a.events) == chaos.posts);
    end_attending(&a);
    for (i = 0; i < ASKERS; i++) {
        bell_end(&asking[i].bell, loop);
        mg_latch_unref(asking[i].latch);
    }
    mg_loop_unref(loop);
}

static void askers_go_on_while_the_attendant_is_away(void)
{
    enum { ASKERS = 4 };
    mg_loop *loop = mg_loop_new();
    struct asking asking[ASKERS];
    struct attending a;

    start_attending(&a, loop);
    for (int i = 0; i < ASKERS; i++) {
        asking[i] = (struct asking) {.loop = loop, .rounds = 2000, .latch = mg_latch_new(drop_item)};
        bell_start(&asking[i].bell, loop, asking[i].latch);
    }
    keep_away(&a);
    for (int i = 0; i < ASKERS; i++)
        asking[i].thread = test_spawn(ask, &asking[i]);
    for (int i = 0; i < ASKERS; i++)
        test_join(asking[i].thread);
    let_return(&a);
    end_attending(&a);
    for (int i = 0; i < ASKERS; i++) {
        bell_end(&asking[i].bell, loop);
        mg_latch_unref(asking[i].latch);
    }
    mg_loop_unref(loop);
}

/* A thread that waits elsewhere looks here first: whether it had an item. */
static int glances(mg_loop *loop, mg_latch *l)
{
    mg_sleeper s;
    mg_item item;
    if (mg_latch_join(l, &s, &item) == MG_OK)
        return 1;
    mg_loop_glance(loop, &s);
    return mg_latch_leave(l, &s, &item) == MG_OK;
}

static void *glance_once(void *arg)
{
    struct asking *a = arg;

    bell_ring(&a->bell);
    CHECK(!glances(a->loop, a->latch)); /* its waits were not short so far */
    for (int i = 0; i < 3; i++)
        mg_latch_learn(1000);
    CHECK(glances(a->loop, a->latch) && pthread_equal(a->bell.by, pthread_self()));
    mg_spin_assume_room(0);
    bell_ring(&a->bell);
    CHECK(!glances(a->loop, a->latch)); /* others want the cores */
    return NULL;
}

static void a_glance_leads_if_polling_pays_and_leaves_a_loop_that_can_be_kept_led(void)
{
    mg_loop *loop = mg_loop_new();
    struct asking a = {.loop = loop, .latch = mg_latch_new(drop_item)};
    struct attending attendant;
    mg_item item;

    bell_start(&a.bell, loop, a.latch);
    mg_spin_assume_room(1);
    test_join(test_spawn(glance_once, &a));
    start_attending(&attendant, loop);
    mg_loop_keep_led(loop);
    AWAIT(attendant_leads(&attendant));
    AWAIT(mg_latch_try(a.latch, &item) == MG_OK);
    mg_loop_keep_led(loop);
    CHECK(attendant_leads(&attendant)); /* it is led: nobody is woken */
    end_attending(&attendant);
    bell_end(&a.bell, loop);
    mg_latch_unref(a.latch);
    mg_loop_unref(loop);
}

int main(void)
{
    test_watchdog(180);
    mg_spin_assume_room(0); /* test_polling.c is about that */
    RUN(a_thread_for_whose_waiter_there_is_no_memory_may_acquire_again_what_it_has);
    RUN(a_waiter_leads_when_nobody_does_and_reads_for_itself);
    RUN(what_was_ready_as_its_watch_was_settled_is_not_slept_over);
    RUN(a_push_wakes_a_thread_that_leads_and_one_that_follows);
    RUN(a_close_of_the_latch_wakes_a_thread_that_leads);
    RUN(a_leader_reads_what_a_follower_waits_for);
    RUN(a_follower_leads_once_the_leader_has_left_and_the_attendant_is_away);
    RUN(a_follower_leads_once_the_attendant_has_led_and_is_away);
    RUN(acquire_makes_a_blocked_leader_step_down);
    RUN(whoever_acquires_has_the_loop_alone);
    RUN(a_loop_that_was_taken_from_its_leader_is_led_again_without_a_look);
    RUN(deadlines_are_kept_by_leaders_followers_and_the_attendant);
    RUN(a_signal_interrupts_leaders_and_followers);
    RUN(a_leader_that_was_awake_for_others_has_signals_looked_for);
    RUN(askers_go_on_while_leaders_change_all_the_time);
    RUN(askers_go_on_while_the_attendant_is_away);
    mg_spin_assume_room(1);
    RUN(askers_go_on_while_leaders_change_all_the_time);
    RUN(askers_go_on_while_the_attendant_is_away);
    mg_spin_assume_room(0);
    RUN(the_attendant_steps_down_for_a_thread_that_it_served);
    RUN(a_glance_leads_if_polling_pays_and_leaves_a_loop_that_can_be_kept_led);
    return 0;
}
