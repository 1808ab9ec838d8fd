/* A fork beside threads that lead loops and send: the copy has no lock of theirs, and the parent goes on. */
#include "loop/fork.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "loop/loop.h"
#include "test/test.h"

static void hold_all(void)
{
    CHECK(mg_fork_begin());
    while (mg_loops_acquire())
        ;
    CHECK(mg_loops_are_acquired());
    mg_fork_shut();
}

/* A thread that leads its loop most of the time. */
struct leader {
    pthread_t thread;
    mg_loop *loop;
    _Atomic int stop;
};

static void *lead(void *arg)
{
    struct leader *l = arg;
    while (!atomic_load(&l->stop))
        mg_loop_attend(l->loop, mg_now() + MG_SECOND / 1000);
    return NULL;
}

static void leader_start(struct leader *l)
{
    l->loop = mg_loop_new();
    atomic_init(&l->stop, 0);
    CHECK(pthread_create(&l->thread, NULL, lead, l) == 0);
}

static void leader_end(struct leader *l)
{
    atomic_store(&l->stop, 1);
    pthread_join(l->thread, NULL);
    mg_loop_unref(l->loop);
}

/* A thread that goes through the gate all the time, and knows whether it is alone with a fork. */
static _Atomic int passing, stop_passing;

static void *pass(void *arg)
{
    (void) arg;
    while (!atomic_load(&stop_passing)) {
        mg_fork_enter();
        atomic_fetch_add(&passing, 1);
        atomic_fetch_sub(&passing, 1);
        mg_fork_leave();
    }
    return NULL;
}

static void a_copy_gives_up_what_it_has_and_the_parent_goes_on(void)
{
    struct leader a, b;
    pthread_t passer;
    leader_start(&a);
    leader_start(&b);
    CHECK(pthread_create(&passer, NULL, pass, NULL) == 0);
    for (int i = 0; i < 50; i++) {
        int status;
        hold_all();
        CHECK(atomic_load(&passing) == 0);
        pid_t pid = fork();
        if (!pid) {
            mg_fork_child();
            if (!mg_loop_was_forked(a.loop) || !mg_loop_closed(b.loop))
                _exit(1);
            mg_fork_enter();
            mg_fork_leave();
            mg_loop *own = mg_loop_new(); /* the list of all can be changed, too */
            hold_all();
            mg_fork_parent();
            mg_loop_unref(own);
            _exit(mg_loop_was_forked(a.loop) ? 0 : 2);
        }
        mg_fork_parent();
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        CHECK(!mg_loop_was_forked(a.loop) && !mg_loop_closed(a.loop));
    }
    atomic_store(&stop_passing, 1);
    pthread_join(passer, NULL);
    leader_end(&a);
    leader_end(&b);
}

/* One that sleeps until a byte comes. */
struct sleeper {
    struct leader leader;
    int pipe[2];
    _Atomic int bytes;
    mg_watch *watch;
};

static void take_byte(void *arg, int events)
{
    struct sleeper *s = arg;
    char byte;
    (void) events;
    CHECK(read(s->pipe[0], &byte, 1) == 1);
    atomic_fetch_add(&s->bytes, 1);
}

static void *sleep_long(void *arg)
{
    struct leader *l = arg;
    while (!atomic_load(&l->stop))
        mg_loop_attend(l->loop, MG_NEVER);
    return NULL;
}

static void sleeper_start(struct sleeper *s)
{
    CHECK(pipe(s->pipe) == 0);
    atomic_init(&s->bytes, 0);
    s->leader.loop = mg_loop_new();
    atomic_init(&s->leader.stop, 0);
    s->watch = mg_watch_new(s->leader.loop, s->pipe[0], MG_READ, take_byte, s);
    mg_watch_start(s->watch);
    CHECK(pthread_create(&s->leader.thread, NULL, sleep_long, &s->leader) == 0);
}

static void sleeper_end(struct sleeper *s)
{
    atomic_store(&s->leader.stop, 1);
    mg_loop_interrupt(s->leader.loop);
    pthread_join(s->leader.thread, NULL);
    mg_watch_stop(s->watch);
    mg_watch_free(s->watch);
    mg_loop_unref(s->leader.loop);
    close(s->pipe[0]);
    close(s->pipe[1]);
}

/* hold_all at a moment when the leader sleeps already. */
static void hold_asleep(struct sleeper *s)
{
    for (;;) {
        mg_loop_stats before, after;
        mg_loop_get_stats(s->leader.loop, &before);
        hold_all();
        mg_loop_get_stats(s->leader.loop, &after);
        if (after.kicks == before.kicks && !mg_loop_leads(s->leader.loop))
            return;
        mg_fork_parent();
        usleep(100);
    }
}

static void send_byte(struct sleeper *s)
{
    CHECK(write(s->pipe[1], "x", 1) == 1);
}

static void await_bytes(struct sleeper *s, int n)
{
    while (atomic_load(&s->bytes) < n)
        usleep(100);
}

static void a_leader_that_sleeps_is_left_asleep_and_does_nothing(void)
{
    struct sleeper s;
    int status;
    sleeper_start(&s);
    hold_asleep(&s);
    send_byte(&s);
    usleep(20000);
    pid_t pid = fork();
    if (!pid) {
        /* what runs in the child before mg_fork_child may drop a stream */
        mg_loop_acquire(s.leader.loop);
        mg_loop_release(s.leader.loop);
        mg_fork_child();
        mg_loop_acquire(s.leader.loop);
        mg_loop_release(s.leader.loop);
        _exit(mg_loop_was_forked(s.leader.loop) && mg_loop_closed(s.leader.loop) ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(atomic_load(&s.bytes) == 0);
    mg_fork_parent();
    await_bytes(&s, 1);
    sleeper_end(&s);
}

static void who_forks_may_hold_a_loop_whose_leader_it_left_asleep(void)
{
    struct sleeper s;
    sleeper_start(&s);
    hold_asleep(&s);
    mg_loop_acquire(s.leader.loop);
    mg_watch_stop(s.watch);
    mg_watch_start(s.watch);
    mg_loop_release(s.leader.loop);
    CHECK(mg_loop_leads(s.leader.loop)); /* for the fork */
    CHECK(mg_loops_are_acquired());
    send_byte(&s);
    CHECK(atomic_load(&s.bytes) == 0);
    mg_fork_parent();
    await_bytes(&s, 1);
    sleeper_end(&s);
}

static void who_holds_a_loop_may_hold_it_again_and_lose_its_last_reference(void)
{
    mg_loop *kept = mg_loop_new(), *lost = mg_loop_new();
    hold_all();
    mg_loop_acquire(kept);
    CHECK(mg_loop_try_acquire(kept));
    mg_loop_release(kept);
    mg_loop_release(kept);
    mg_loop_unref(lost); /* the fork has one, too */
    mg_fork_parent();
    mg_loop_acquire(kept);
    mg_loop_release(kept);
    mg_loop_unref(kept);
}

static void a_fork_before_a_fork_needs_nothing_more(void)
{
    mg_loop *loop = mg_loop_new();
    hold_all();
    CHECK(!mg_fork_begin());
    mg_fork_enter(); /* the forking thread passes its own gate */
    mg_fork_leave();
    mg_fork_parent();
    CHECK(mg_loops_are_acquired());
    mg_fork_parent();
    CHECK(!mg_loops_are_acquired());
    mg_loop_unref(loop);
}

static _Atomic int forks;

static void *fork_often(void *arg)
{
    (void) arg;
    for (int i = 0; i < 20; i++) {
        hold_all();
        CHECK(atomic_fetch_add(&forks, 1) == 0); /* one at a time */
        atomic_fetch_sub(&forks, 1);
        mg_fork_parent();
    }
    return NULL;
}

static void threads_that_fork_wait_for_each_other(void)
{
    struct leader a;
    pthread_t threads[3];
    leader_start(&a);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, fork_often, NULL) == 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    leader_end(&a);
}

int main(void)
{
    RUN(a_copy_gives_up_what_it_has_and_the_parent_goes_on);
    RUN(a_leader_that_sleeps_is_left_asleep_and_does_nothing);
    RUN(who_forks_may_hold_a_loop_whose_leader_it_left_asleep);
    RUN(who_holds_a_loop_may_hold_it_again_and_lose_its_last_reference);
    RUN(a_fork_before_a_fork_needs_nothing_more);
    RUN(threads_that_fork_wait_for_each_other);
    return 0;
}
