/* A fork beside threads that lead loops and send: the copy has no lock of theirs, and the parent
 * goes on. */
#include "loop/atfork.h"

#include <sys/wait.h>

#include "base/clock.h"
#include "loop/loop.h"
#include "loop/loop_body.h"
#include "test/test_net.h"

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

/* A thread passes the gate again and again. `passing` is 1 while it is inside. */
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

/* Forks. The child ends with what `check` says: 0 is well. */
static void fork_and_check(int (*check)(void *arg), void *arg)
{
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid)
        _exit(check(arg));
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

struct two {
    struct leader a, b;
};

static int gives_up_what_it_has(void *arg)
{
    struct two *x = arg;
    if (!mg_loop_was_forked(x->a.loop) || !mg_loop_closed(x->b.loop) || atomic_load(&passing))
        return 1;
    mg_fork_enter();
    mg_fork_leave();
    mg_loop_acquire(x->a.loop);
    mg_loop_release(x->a.loop);
    mg_loop *own = mg_loop_new(); /* the list of all can be changed, too */
    if (!own || mg_loop_was_forked(own))
        return 2;
    pid_t pid = fork();
    if (!pid)
        _exit(mg_loop_was_forked(own) ? 0 : 3);
    int status;
    if (waitpid(pid, &status, 0) != pid || status || mg_loop_was_forked(own))
        return 4;
    mg_loop_unref(own);
    return 0;
}

static void a_copy_gives_up_what_it_has_and_the_parent_goes_on(void)
{
    struct two x;
    pthread_t passers[3];
    leader_start(&x.a);
    leader_start(&x.b);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&passers[i], NULL, pass, NULL) == 0);
    for (int i = 0; i < 50; i++) {
        fork_and_check(gives_up_what_it_has, &x);
        CHECK(!mg_loop_was_forked(x.a.loop) && !mg_loop_closed(x.a.loop));
    }
    atomic_store(&stop_passing, 1);
    for (int i = 0; i < 3; i++)
        pthread_join(passers[i], NULL);
    leader_end(&x.a);
    leader_end(&x.b);
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

static void send_byte(struct sleeper *s)
{
    CHECK(write(s->pipe[1], "x", 1) == 1);
}

static void await_bytes(struct sleeper *s, int n)
{
    while (atomic_load(&s->bytes) < n)
        usleep(100);
}

static int is_given_up(void *arg)
{
    struct sleeper *s = arg;
    return mg_loop_was_forked(s->leader.loop) && !atomic_load(&s->bytes) ? 0 : 1;
}

/* Handlers that are registered before those of the loop are called after them: while all loops
 * are held. */
static struct sleeper *watched;
static _Atomic int held_rightly, was_frozen;

static void while_it_is_held(void)
{
    if (!watched)
        return;
    send_byte(watched);
    usleep(20000);
    const mg_loop *loop = watched->leader.loop;
    int is_frozen = atomic_load(&loop->frozen), has_begun = is_frozen && !atomic_load(&loop->unwatched);
    atomic_store(&was_frozen, is_frozen);
    if (!atomic_load(&watched->bytes) && !has_begun)
        atomic_fetch_add(&held_rightly, 1);
}

static void a_leader_that_sleeps_is_left_asleep_and_does_nothing(void)
{
    struct sleeper s;
    sleeper_start(&s);
    int n = 0;
    do { /* until it slept as we forked */
        atomic_store(&s.bytes, 0);
        watched = &s;
        fork_and_check(is_given_up, &s);
        watched = NULL;
        CHECK(atomic_load(&held_rightly) == ++n);
        await_bytes(&s, 1);
    } while (!atomic_load(&was_frozen));
    sleeper_end(&s);
}

struct held {
    mg_loop *loop;
    _Atomic int holds, may_release, may_end;
};

/* A thread that has ended as the process is copied is a leak to a sanitizer. */
static void *stay(struct held *h)
{
    while (!atomic_load(&h->may_end))
        usleep(100);
    return NULL;
}

static void *hold_until_told(void *arg)
{
    struct held *h = arg;
    mg_loop_acquire(h->loop);
    atomic_store(&h->holds, 1);
    while (!atomic_load(&h->may_release))
        usleep(100);
    mg_loop_release(h->loop);
    return stay(h);
}

static void *allow_soon(void *arg)
{
    struct held *h = arg;
    usleep(20000);
    atomic_store(&h->may_release, 1);
    return stay(h);
}

static int was_released_before(void *arg)
{
    struct held *h = arg;
    return atomic_load(&h->may_release) && mg_loop_was_forked(h->loop) ? 0 : 1;
}

static void a_fork_waits_for_a_thread_that_has_acquired_a_loop(void)
{
    struct held h = {.loop = mg_loop_new()};
    pthread_t holder, allower;
    CHECK(pthread_create(&holder, NULL, hold_until_told, &h) == 0);
    while (!atomic_load(&h.holds))
        usleep(100);
    CHECK(pthread_create(&allower, NULL, allow_soon, &h) == 0);
    fork_and_check(was_released_before, &h);
    atomic_store(&h.may_end, 1);
    pthread_join(holder, NULL);
    pthread_join(allower, NULL);
    mg_loop_unref(h.loop);
}

#if !defined(__SANITIZE_ADDRESS__)
static void *make_and_end_loops(void *arg)
{
    while (!atomic_load((_Atomic int *) arg)) {
        mg_loop *loop = mg_loop_new();
        CHECK(loop);
        mg_loop_unref(loop);
    }
    return NULL;
}

/* The lowest number that is free while there is one loop more. */
static int free_number(void)
{
    mg_loop *loop = mg_loop_new();
    int fd = dup(0);
    CHECK(loop && fd >= 0 && close(fd) == 0);
    mg_loop_unref(loop);
    return fd;
}

static int has_no_more_descriptors(void *arg)
{
    return free_number() <= *(int *) arg ? 0 : 1;
}

static void a_copy_has_no_descriptor_of_loops_that_come_and_go(void)
{
    _Atomic int stop = 0;
    pthread_t threads[2];
    int number = free_number();
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, make_and_end_loops, (void *) &stop) == 0);
    for (int i = 0; i < 50; i++)
        fork_and_check(has_no_more_descriptors, &number);
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
#endif

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* A thread that sends under the lock of the layer above, and so not through the gate. */
struct sending {
    struct node node;
    int fds[2];
    mg_stream *s;
    _Atomic int stop;
};

static void *send_and_take_back(void *arg)
{
    struct sending *x = arg;
    while (!atomic_load(&x->stop)) {
        mg_hdr hdr;
        uint8_t *payload;
        CHECK(mg_stream_send(x->s, test_frame((mg_hdr) {.dst_id = 1, .handle = 2000}, "hello", 5)) == MG_OK);
        CHECK(peer_recv(x->fds[1], &hdr, &payload) && hdr.len == 5);
        free(payload);
    }
    return NULL;
}

static int gives_up_the_loop_of_a_stream(void *arg)
{
    struct sending *x = arg;
    return mg_loop_was_forked(x->node.loop) && mg_stream_pending(x->s) == 0 ? 0 : 1;
}

static void a_thread_without_the_lock_of_the_layer_above_forks_while_another_one_sends_under_it(void)
{
    struct sending x = {.stop = 0};
    x.s = node_with_peer(&x.node, x.fds, 0, 0);
    pthread_t sender = test_spawn(send_and_take_back, &x);
    for (int i = 0; i < 100; i++)
        fork_and_check(gives_up_the_loop_of_a_stream, &x);
    atomic_store(&x.stop, 1);
    test_join(sender);
    node_end_with_peer(&x.node, x.s, x.fds);
}
#endif

static int always_well(void *arg)
{
    (void) arg;
    return 0;
}

static void *fork_often(void *arg)
{
    for (int i = 0; i < 20; i++)
        fork_and_check(always_well, arg);
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
    CHECK(pthread_atfork(while_it_is_held, NULL, NULL) == 0);
    RUN(a_copy_gives_up_what_it_has_and_the_parent_goes_on);
    RUN(a_leader_that_sleeps_is_left_asleep_and_does_nothing);
    RUN(a_fork_waits_for_a_thread_that_has_acquired_a_loop);
#if !defined(__SANITIZE_ADDRESS__) /* whose allocator another thread may have locked in the copy */
    RUN(a_copy_has_no_descriptor_of_loops_that_come_and_go);
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* likewise: the sender allocates all the time */
    RUN(a_thread_without_the_lock_of_the_layer_above_forks_while_another_one_sends_under_it);
#endif
    RUN(threads_that_fork_wait_for_each_other);
    return 0;
}
