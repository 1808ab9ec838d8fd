/* Threads that wait on a loop and that attend to it, a pipe that the loop reads, and tasks that
 * count. */
#ifndef MG_TEST_ACTORS_H
#define MG_TEST_ACTORS_H

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

static inline void *wait_main(void *arg)
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
static inline void start_waiting(struct waiting *x, mg_loop *loop, mg_latch *l, int64_t deadline)
{
    memset(x, 0, sizeof *x);
    x->loop = loop;
    x->latch = l ? mg_latch_ref(l) : mg_latch_new(drop_item);
    x->deadline = deadline;
    x->thread = test_spawn(wait_main, x);
}

static inline void end_waiting(struct waiting *x)
{
    test_join(x->thread);
    mg_latch_unref(x->latch);
}

static inline int leads(struct waiting *x)
{
    mg_waiter *w = atomic_load(&x->waiter);

    return w && atomic_load(&w->elsewhere) != NULL;
}

static inline int is_parked(struct waiting *x)
{
    mg_waiter *w = atomic_load(&x->waiter);

    return w && atomic_load(&w->word) == MG_WAITER_PARKED;
}

/* --- a thread that attends --- */

enum { KEEP_AWAY = 8 }; /* an event that keeps the attendant away from the loop, as a handler in Python does */

struct attending {
    mg_loop *loop;
    _Atomic int away, may_return;
    _Atomic(mg_waiter *) waiter;
    _Atomic uint64_t events, returns;
    uint64_t last[8]; /* the last number of each poster */
    mg_err err;
    pthread_t thread;
};

static inline void *attend_main(void *arg)
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

static inline void start_attending(struct attending *a, mg_loop *loop)
{
    memset(a, 0, sizeof *a);
    a->loop = loop;
    a->thread = test_spawn(attend_main, a);
    AWAIT(atomic_load(&a->waiter));
}

static inline void end_attending(struct attending *a)
{
    mg_loop_close(a->loop);
    test_join(a->thread);
    CHECK(a->err == MG_ECLOSED);
}

static inline int attendant_leads(struct attending *a)
{
    return atomic_load(&atomic_load(&a->waiter)->elsewhere) != NULL;
}

static inline int attendant_is_parked(struct attending *a)
{
    return atomic_load(&atomic_load(&a->waiter)->word) == MG_WAITER_PARKED;
}

/* Long enough that the attendant, while one thread leads on and on, has gone to sleep for good.
 * Whether it has makes no difference to what has to happen then, only to how. */
static inline void let_looks_pass(void)
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
    pthread_t by; /* the reader of the last byte; look at it only while no byte is under way */
};

static inline void on_bell(void *arg, int events)
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

static inline void bell_start(struct bell *b, mg_loop *loop, mg_latch *tells)
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

static inline void bell_ring(struct bell *b)
{
    CHECK(write(b->fds[1], "!", 1) == 1);
}

static inline void bell_end(struct bell *b, mg_loop *loop)
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

static inline void run_counting(mg_task *op)
{
    struct counting_op *c = (struct counting_op *) op;

    c->plain++;
    atomic_fetch_add(&c->runs, 1);
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

static inline void *ask(void *arg)
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

struct polls {
    mg_latch *l;
    int n;
};

/* Two latches, through which two threads hand a turn to each other. */
struct turns {
    mg_latch *there, *back;
    _Atomic int enough;
};

#endif
