#include "loop/loop.h"

#include <limits.h>

#include "test/actors.h"

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
    /* a task that is posted at any moment around the end of a wait is run */
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
    mg_spin_assume_room(0); /* test_polling.c is about that */
    RUN(an_op_is_run_whoever_leads_or_nobody);
    RUN(an_op_can_be_taken_back_from_anywhere_in_the_row);
    RUN(an_op_may_post_itself_again);
    RUN(an_op_that_posts_itself_for_ever_keeps_nobody_waiting);
    RUN(what_is_held_is_flushed_once_by_whoever_comes_first);
    return 0;
}
