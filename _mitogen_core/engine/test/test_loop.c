#include "loop/loop.h"

#include <limits.h>
#include <sched.h>
#include <sys/wait.h>

#include "base/block.h"
#include "test/test_net.h"

/* --- a thread that waits, again and again when asked --- */

struct waiting {
    mg_loop *loop;
    mg_latch *latch;
    int64_t deadline;
    _Atomic(mg_waiter *) waiter;
    _Atomic int interrupted; /* how often the wait ended for a signal, and was taken up again */
    mg_item item;
    mg_err err;
    pthread_t thread;
};

static void *wait_main(void *arg)
{
    struct waiting *x = arg;
    mg_sleeper s;

    x->err = mg_latch_join(x->latch, &s, &x->item);
    atomic_store(&x->waiter, s.waiter);
    if (x->err != MG_EAGAIN)
        return NULL;
    while ((x->err = mg_loop_wait(x->loop, &s, x->deadline)) == MG_EINTR)
        atomic_fetch_add(&x->interrupted, 1);
    mg_err left = mg_latch_leave(x->latch, &s, &x->item);
    if (x->err == MG_OK)
        x->err = left;
    return NULL;
}

/* l may be NULL: then the latch is a new one. */
static void start_waiting(struct waiting *x, mg_loop *loop, mg_latch *l, int64_t deadline)
{
    memset(x, 0, sizeof *x);
    x->loop = loop;
    x->latch = l ? mg_latch_ref(l) : mg_latch_new(drop_item);
    x->deadline = deadline;
    x->thread = test_spawn(wait_main, x);
}

static void end_waiting(struct waiting *x)
{
    test_join(x->thread);
    mg_latch_unref(x->latch);
}

static int leads(struct waiting *x)
{
    mg_waiter *w = atomic_load(&x->waiter);

    return w && atomic_load(&w->elsewhere) != NULL;
}

static int is_parked(struct waiting *x)
{
    mg_waiter *w = atomic_load(&x->waiter);

    return w && atomic_load(&w->word) == MG_WAITER_PARKED;
}

/* --- a thread that attends --- */

enum { KEEP_AWAY = 8 }; /* the kind of an event that keeps it away from the loop, as a handler in Python does */

struct attending {
    mg_loop *loop;
    _Atomic int away, may_return;
    _Atomic(mg_waiter *) waiter;
    _Atomic uint64_t events, returns;
    uint64_t last[8]; /* the last number of each poster */
    mg_err err;
    pthread_t thread;
};

static void *attend_main(void *arg)
{
    struct attending *a = arg;
    mg_event ev;

    atomic_store(&a->waiter, mg_waiter_self());
    while ((a->err = mg_loop_attend(a->loop, MG_NEVER)) == MG_OK) {
        while (mg_loop_pop_event(a->loop, &ev)) {
            if (ev.kind == KEEP_AWAY) {
                atomic_store(&a->away, 1);
                while (!atomic_load(&a->may_return))
                    test_pause();
                continue;
            }
            CHECK(ev.n == a->last[ev.kind] + 1);
            a->last[ev.kind] = ev.n;
            atomic_fetch_add(&a->events, 1);
        }
        atomic_fetch_add(&a->returns, 1);
    }
    return NULL;
}

static void start_attending(struct attending *a, mg_loop *loop)
{
    memset(a, 0, sizeof *a);
    a->loop = loop;
    a->thread = test_spawn(attend_main, a);
    AWAIT(atomic_load(&a->waiter));
}

static void end_attending(struct attending *a)
{
    mg_loop_close(a->loop);
    test_join(a->thread);
    CHECK(a->err == MG_ECLOSED);
}

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

static int attendant_leads(struct attending *a)
{
    return atomic_load(&atomic_load(&a->waiter)->elsewhere) != NULL;
}

static int attendant_is_parked(struct attending *a)
{
    return atomic_load(&atomic_load(&a->waiter)->word) == MG_WAITER_PARKED;
}

/* Long enough that the attendant, while one thread leads on and on, has gone to sleep for good. Whether it has makes no
 * difference to what has to happen then, only to how. */
static void let_looks_pass(void)
{
    struct timespec ts = {0, 8000000};

    nanosleep(&ts, NULL);
}

/* --- a pipe that the loop reads; each byte counts, and is told to a latch --- */

struct bell {
    mg_loop *loop;
    int fds[2];
    mg_watch *watch;
    mg_latch *tells;
    _Atomic int rung;
    pthread_t by; /* who read the last byte; read it when nobody rings */
};

static void on_bell(void *arg, int events)
{
    struct bell *b = arg;
    mg_woken woken;
    char c;

    CHECK(events == MG_READ);
    if (read(b->fds[0], &c, 1) != 1)
        return;
    b->by = pthread_self();
    atomic_fetch_add(&b->rung, 1);
    if (b->tells) {
        CHECK(mg_latch_push(b->tells, number((uintptr_t) c), &woken) == MG_OK);
        mg_loop_note_woken(b->loop, &woken);
    }
}

static void bell_start(struct bell *b, mg_loop *loop, mg_latch *tells)
{
    memset(b, 0, sizeof *b);
    b->loop = loop;
    CHECK(!pipe(b->fds));
    CHECK(!fcntl(b->fds[0], F_SETFL, O_NONBLOCK));
    b->tells = tells;
    b->watch = mg_watch_new(loop, b->fds[0], MG_READ, on_bell, b);
    mg_loop_acquire(loop);
    mg_watch_start(b->watch);
    CHECK(mg_watch_active(b->watch));
    mg_loop_release(loop);
}

static void bell_ring(struct bell *b)
{
    CHECK(write(b->fds[1], "!", 1) == 1);
}

static void bell_end(struct bell *b, mg_loop *loop)
{
    mg_loop_acquire(loop);
    mg_watch_stop(b->watch);
    CHECK(mg_loop_closed(loop) || !mg_watch_active(b->watch)); /* with the loop, its watchers are gone anyhow */
    close(b->fds[0]); /* while nobody polls: libev forgets a stopped fd only when it next looks */
    mg_loop_release(loop);
    mg_watch_free(b->watch);
    close(b->fds[1]);
}

/* --- ops that count --- */

struct counting_op {
    mg_task task; /* first: run() gets its address */
    _Atomic int runs;
    int plain; /* guarded by being run by one thread at a time */
};

static void run_counting(mg_task *op)
{
    struct counting_op *c = (struct counting_op *) op;

    c->plain++;
    atomic_fetch_add(&c->runs, 1);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void a_loop_is_whole_or_not_there_when_memory_is_out(void)
{
    for (long n = 1;; n++) {
        mg_alloc_fail_at(n);
        mg_loop *loop = mg_loop_new();
        int failed = mg_alloc_failed();
        mg_alloc_fail_at(0);
        CHECK(failed == !loop);
        mg_loop_unref(loop);
        if (!failed)
            break;
    }
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

/* Waits for many items in a row, and asks for each by ringing. */
struct asking {
    mg_loop *loop;
    struct bell bell;
    mg_latch *latch;
    int rounds;
    pthread_t thread;
    int self_read;
};

static void *ask(void *arg)
{
    struct asking *x = arg;
    mg_item item;

    for (int i = 0; i < x->rounds; i++) {
        bell_ring(&x->bell);
        CHECK(test_get(x->loop, x->latch, mg_now() + TEST_PATIENCE, &item) == MG_OK);
        x->self_read += pthread_equal(x->bell.by, pthread_self()) != 0;
    }
    return NULL;
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

static void a_large_block_is_dropped_however_late_it_is_given_back(void)
{
    size_t size = (size_t) 20 << 20;
    mg_loop *loop = mg_loop_new();
    struct attending a;
    char *p = mg_block_new(size);

    CHECK(p);
    start_attending(&a, loop);
    AWAIT(attendant_leads(&a)); /* asleep by now, for all we know */
    p[0] = 1;
    mg_block_free(p, size);
    AWAIT(mg_block_spares() == 0);
    p = mg_block_new(size);
    CHECK(p);
    end_attending(&a);
    mg_loop_unref(loop);
    mg_block_free(p, size);
    CHECK(mg_block_spares() == 0);
}

static void a_place_to_land_in_is_dropped_after_an_idle_second(void)
{
    mg_loop *loop = mg_loop_new();
    mg_landing *l = mg_loop_landing(loop);
    struct attending a;

    CHECK(!mg_landing_came(l, MG_LANDING_MIN) && mg_landing_came(l, MG_LANDING_MIN));
    start_attending(&a, loop);
    AWAIT(attendant_leads(&a));
    mg_landing_offer(l, mg_buf_new(MG_LANDING_MIN)); /* by somebody who was told by then */
    AWAIT(!mg_landing_has(l) && !mg_landing_to_look_after(l));
    end_attending(&a);
    CHECK(!mg_landing_came(l, MG_LANDING_MIN));
    mg_landing_offer(l, mg_buf_new(MG_LANDING_MIN)); /* the end of the loop is its end */
    mg_loop_unref(loop);
}

static void what_comes_while_nobody_looks_is_not_kept(void)
{
    mg_loop *loop = mg_loop_new();
    mg_landing *l = mg_loop_landing(loop);
    char *p = mg_block_new(MG_BLOCK_MIN);
    struct attending a;

    start_attending(&a, loop);
    AWAIT(mg_loop_is_unwatched(loop)); /* a second after the block was made */
    CHECK(p);
    p[0] = 1;
    mg_block_free(p, MG_BLOCK_MIN);
    CHECK(mg_block_spares() == 0);
    CHECK(!mg_landing_came(l, MG_LANDING_MIN) && mg_landing_came(l, MG_LANDING_MIN));
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN));
    CHECK(!mg_landing_has(l));
    end_attending(&a);
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN)); /* whoever leads next looks after it */
    CHECK(mg_landing_has(l) && !mg_loop_is_unwatched(loop));
    mg_loop_unref(loop);
}

static void acquire_makes_a_blocked_leader_step_down(void)
{
    mg_loop *loop = mg_loop_new();
    struct attending a;
    struct waiting x;

    /* a waiter: it parks, and may lead again later */
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    mg_loop_acquire(loop);
    CHECK(!leads(&x));
    mg_loop_release(loop);
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    /* the attendant: it comes back */
    start_attending(&a, loop);
    for (int i = 0; i < 100; i++) {
        AWAIT(attendant_leads(&a));
        mg_loop_acquire(loop);
        CHECK(!attendant_leads(&a));
        mg_loop_release(loop);
    }
    /* and when it is deep while somebody else has the loop */
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

static void an_op_is_run_whoever_leads_or_nobody(void)
{
    mg_loop *loop = mg_loop_new();
    struct counting_op c = {.task.run = run_counting};
    struct attending a;
    struct waiting x;
    int runs = 0;

    /* a waiter leads */
    start_waiting(&x, loop, NULL, MG_NEVER);
    AWAIT(leads(&x));
    CHECK(mg_loop_post(loop, &c.task) == 1);
    AWAIT(atomic_load(&c.runs) == 1);
    /* nobody leads yet: posted while the loop is held */
    start_attending(&a, loop);
    mg_loop_acquire(loop);
    CHECK(mg_loop_post(loop, &c.task) == 1 && mg_loop_post(loop, &c.task) == 0); /* it is queued already */
    CHECK(atomic_load(&c.runs) == 1);
    mg_loop_release(loop);
    AWAIT(atomic_load(&c.runs) == 2);
    mg_latch_push(x.latch, number(1), NULL);
    end_waiting(&x);
    /* the attendant leads */
    AWAIT(attendant_leads(&a));
    mg_loop_post(loop, &c.task);
    AWAIT(atomic_load(&c.runs) == 3);
    /* at any moment about the end of a wait */
    for (runs = 4; runs < 500; runs++) {
        start_waiting(&x, loop, NULL, MG_NEVER);
        if (runs % 2)
            AWAIT(leads(&x) || is_parked(&x));
        mg_latch_push(x.latch, number(1), NULL);
        if (runs % 3 == 0)
            test_pause();
        CHECK(mg_loop_post(loop, &c.task) == 1);
        AWAIT(atomic_load(&c.runs) == runs);
        end_waiting(&x);
    }
    end_attending(&a);
    CHECK(c.plain == runs - 1);
    mg_loop_unref(loop);
}

static void an_op_can_be_taken_back_from_anywhere_in_the_row(void)
{
    for (int back = 0; back < 3; back++) {
        mg_loop *loop = mg_loop_new();
        struct counting_op c[3] = {{.task.run = run_counting}, {.task.run = run_counting}, {.task.run = run_counting}};
        int i;

        for (i = 0; i < 3; i++)
            CHECK(mg_loop_post(loop, &c[i].task) == 1);
        CHECK(mg_loop_unpost(loop, &c[back].task) == 1 && mg_loop_unpost(loop, &c[back].task) == 0);
        test_run_ops(loop);
        for (i = 0; i < 3; i++)
            CHECK(c[i].runs == (i != back));
        CHECK(mg_loop_post(loop, &c[back].task) == 1);
        test_run_ops(loop);
        CHECK(c[back].runs == 1);
        mg_loop_unref(loop);
    }
}

struct posting_op {
    mg_task task;
    mg_loop *loop;
    int left;
    _Atomic int runs;
};

static void run_posting(mg_task *op)
{
    struct posting_op *p = (struct posting_op *) op;

    atomic_fetch_add(&p->runs, 1);
    if (p->left-- > 0)
        CHECK(mg_loop_post(p->loop, op) == 1);
}

static void an_op_may_post_itself_again(void)
{
    mg_loop *loop = mg_loop_new();
    struct posting_op p = {.task.run = run_posting, .loop = loop, .left = 10};

    mg_loop_post(loop, &p.task);
    for (int i = 0; i < 11; i++)
        test_run_ops(loop);
    CHECK(p.runs == 11);
    mg_loop_unref(loop);
}

static void an_op_that_posts_itself_for_ever_keeps_nobody_waiting(void)
{
    mg_loop *loop = mg_loop_new();
    struct posting_op p = {.task.run = run_posting, .loop = loop, .left = INT_MAX};
    struct bell bell;
    struct attending a;

    bell_start(&bell, loop, NULL);
    start_attending(&a, loop);
    mg_loop_post(loop, &p.task);
    bell_ring(&bell);
    AWAIT(atomic_load(&bell.rung) == 1);
    mg_loop_acquire(loop);
    p.left = 0;
    mg_loop_release(loop);
    end_attending(&a);
    mg_loop_unpost(loop, &p.task);
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

struct polls {
    mg_latch *l;
    int n;
};

/* What is waited for comes with the twentieth poll. */
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

/* Two latches, through which two threads hand a turn to each other. */
struct turns {
    mg_latch *there, *back;
    _Atomic int enough;
};

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

    /* in vain, and said so: there may have been a signal meanwhile */
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
    /* none comes any more: it sleeps again, as it does for others whatever it is at */
    AWAIT(attendant_leads(&a));
    mg_spin_set(150000);
    mg_spin_assume_room(0);
    bell_end(&bell, loop);
    end_attending(&a);
    mg_loop_unref(loop);
}

static void a_forked_child_gives_the_loop_up_and_the_parent_does_not_notice(void)
{
    mg_loop *loop = mg_loop_new();
    struct bell bell;
    struct attending a;
    int status;

    bell_start(&bell, loop, NULL);
    mg_loop_offer_landing(loop, mg_buf_new(MG_LANDING_MIN));
    pid_t child = fork();
    if (!child) {
        int ok = mg_loop_closed(loop) && mg_loop_attend(loop, MG_NEVER) == MG_ECLOSED &&
                 !mg_landing_has(mg_loop_landing(loop));
        mg_loop_acquire(loop);
        mg_watch_stop(bell.watch);
        mg_loop_release(loop);
        mg_watch_free(bell.watch);
        mg_loop_unref(loop);
        _exit(ok ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(mg_landing_has(mg_loop_landing(loop)));
    start_attending(&a, loop);
    bell_ring(&bell);
    AWAIT(atomic_load(&bell.rung) == 1);
    end_attending(&a);
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

struct corking {
    mg_task task;
    _Atomic int flushed;
};

static void count_flush(mg_task *h)
{
    atomic_fetch_add(&((struct corking *) h)->flushed, 1);
}

static void what_is_held_is_flushed_once_by_whoever_comes_first(void)
{
    enum { HELD = 200 };
    static struct corking held[HELD];
    mg_loop *loop = mg_loop_new();
    struct attending a;

    for (int i = 0; i < HELD; i++) {
        held[i].task.run = count_flush;
        atomic_init(&held[i].flushed, 0);
    }
    CHECK(!mg_loop_cork(loop, &held[0].task)); /* nobody attends */
    mg_loop_uncork(loop);
    CHECK(atomic_load(&held[0].flushed) == 0);
    start_attending(&a, loop);
    for (int i = 0; i < HELD; i++) {
        AWAIT(mg_loop_cork(loop, &held[i].task)); /* it may be on its way back from an event */
        if (i % 3 == 0)
            mg_loop_uncork(loop);
        if (i % 3 == 1)
            mg_loop_interrupt(loop);
        if (i % 2)
            AWAIT(atomic_load(&held[i].flushed) == 1);
    }
    CHECK(mg_loop_unsent(loop) == 0);
    for (int i = 0; i < HELD; i++)
        AWAIT(atomic_load(&held[i].flushed) == 1);
    end_attending(&a);
    CHECK(!mg_loop_cork(loop, &held[0].task));
    mg_loop_unref(loop);
}

int main(void)
{
    test_watchdog(180);
    mg_spin_assume_room(0); /* but for the tests about that */
    RUN(a_thread_for_whose_waiter_there_is_no_memory_may_acquire_again_what_it_has);
    RUN(a_forked_child_gives_the_loop_up_and_the_parent_does_not_notice);
    RUN(a_loop_is_whole_or_not_there_when_memory_is_out);
    RUN(a_waiter_leads_when_nobody_does_and_reads_for_itself);
    RUN(what_was_ready_as_its_watch_was_settled_is_not_slept_over);
    RUN(a_push_wakes_a_thread_that_leads_and_one_that_follows);
    RUN(a_close_of_the_latch_wakes_a_thread_that_leads);
    RUN(a_leader_reads_what_a_follower_waits_for);
    RUN(a_loop_that_waiters_left_is_attended_to);
    RUN(a_follower_leads_once_the_leader_has_left_and_the_attendant_is_away);
    RUN(a_follower_leads_once_the_attendant_has_led_and_is_away);
    RUN(a_large_block_is_dropped_however_late_it_is_given_back);
    RUN(a_place_to_land_in_is_dropped_after_an_idle_second);
    RUN(what_comes_while_nobody_looks_is_not_kept);
    RUN(acquire_makes_a_blocked_leader_step_down);
    RUN(whoever_acquires_has_the_loop_alone);
    RUN(a_loop_that_was_taken_from_its_leader_is_led_again_without_a_look);
    RUN(an_op_is_run_whoever_leads_or_nobody);
    RUN(an_op_can_be_taken_back_from_anywhere_in_the_row);
    RUN(an_op_may_post_itself_again);
    RUN(an_op_that_posts_itself_for_ever_keeps_nobody_waiting);
    RUN(every_event_reaches_the_attendant_in_order_whoever_leads);
    RUN(an_attendant_that_reads_what_is_for_itself_is_not_kicked);
    RUN(an_event_without_memory_is_refused);
    RUN(an_interrupt_ends_the_present_or_the_next_attendance);
    RUN(a_close_sends_the_attendant_away_and_waits_go_on_without_the_loop);
    RUN(a_close_with_the_attendant_leading_returns);
    RUN(deadlines_are_kept_by_leaders_followers_and_the_attendant);
    RUN(a_signal_interrupts_leaders_and_followers);
    RUN(a_leader_that_was_awake_for_others_has_signals_looked_for);
    RUN(a_thread_whose_waits_were_short_spins_before_it_sleeps_and_then_says_so);
    RUN(a_spinning_leader_lets_others_on_its_core_run);
    RUN(a_spin_in_which_a_large_frame_begins_to_arrive_was_not_in_vain);
    RUN(a_thread_that_waits_for_another_one_spins_too);
    RUN(a_thread_that_waits_for_another_one_on_its_core_lets_it_run);
    RUN(a_leader_that_passes_frames_on_polls_for_the_next);
    RUN(askers_go_on_while_leaders_change_all_the_time);
    RUN(askers_go_on_while_the_attendant_is_away);
    mg_spin_assume_room(1);
    RUN(askers_go_on_while_leaders_change_all_the_time);
    RUN(askers_go_on_while_the_attendant_is_away);
    mg_spin_assume_room(0);
    RUN(the_attendant_steps_down_for_a_thread_that_it_served);
    RUN(what_is_held_is_flushed_once_by_whoever_comes_first);
    return 0;
}
