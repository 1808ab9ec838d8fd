#include "loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/timerfd.h>
#endif

#include "base/alloc.h"
#include "base/block.h"
#include "base/clock.h"
#include "sync/spin.h"

/* How often a ticking attendant looks. Long enough to cost nothing beside a thread that makes a hundred thousand calls a
 * second, short enough that nobody notices a loop that was left alone. */
#define TICK (MG_SECOND / 2000)

/* And how long it sleeps after a tick that found a leader: where threads lead one after the other, each for less than that, nobody
 * has to wake it, which for each of them would cost more than all the rest of a short call. */
#define DOZE (4 * TICK)

/* How long a loop stays alone before the alarm of an attendant that sleeps deep. Later than the kernel's own next tick (4 ms apart, most
 * often): an earlier one has to be told to the hardware, which, where that is virtual, takes longer than all else that setting the
 * alarm and taking it back does. */
#define ALARM (MG_SECOND / 200)

/* How long frames are held back. A thread that sends without a pause makes about a hundred in that time. */
#define HOLD (MG_SECOND / 5000)

/* Foreign traffic older than this is forgotten. */
#define FOREIGN_FRESH (MG_SECOND / 200)

/* An attendant that has served the same waiter so often in a row leaves the loop to it, however many others sleep. */
#define SERVED_ROW 4

/* Who had waited for no longer than that when it was served is likely to wait again soon. */
#define SERVED_SOON (MG_SECOND / 1000)

/* A signal that comes while a leader is not asleep in libev does not end its next sleep. So one that was awake for others sleeps for no
 * longer than this at first, and then has the layer above look. */
#define SIGNALS_SEEN (MG_SECOND / 50)

/* What a thread that was served while it span gives the other one to let go of the GIL: some statements of Python. */
#define LET_GO (MG_SECOND / 200000)

/* Who yields once, for one answer, comes back sooner than this. */
#define YIELDED_LONG (MG_SECOND / 5000)

/* How long a spin goes on after a part of a large frame, for the next one. */
#define NEXT_PART (MG_SECOND / 50000)

/* A loop that was idle for so long drops the spare blocks for large payloads. */
#define SPARES_FRESH MG_SECOND

/* How often looks are called. */
#define LOOK_EVERY (MG_SECOND / 4)

/* Stands for a leader whose own waiter could not be had. */
static mg_waiter nobody = {.alarm_fd = -1};

/* All loops of the process, for a fork. A store of one pointer adds or removes one, so the list is whole in a child, too, whoever was about to
 * change it. */
static pthread_mutex_t all_mu = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(mg_loop *) all_loops; /* written under all_mu */

/* A waiter that is parked, or about to be; on the stack of its thread. */
typedef struct follower {
    struct follower *next, **at; /* guarded by the loop's mu */
    mg_waiter *waiter;
    uint64_t seen; /* changes_locked() as it parked */
} follower;

struct mg_loop {
    _Atomic uint32_t refs;
    _Atomic(mg_loop *) next_all; /* in the list of all loops; written under all_mu */
    int forking; /* guarded by all_mu: held by mg_loops_acquire, with a reference */
    _Atomic int asleep; /* written by the leader: the kernel has it, and nothing of the loop is half done */
    _Atomic uintptr_t
        frozen; /* written with freeze_mu: by which thread; a leader that wakes waits for that mutex before all else */
    pthread_mutex_t freeze_mu; /* held for as long as it is frozen */
    pid_t frozen_in; /* guarded by freeze_mu: the process that forks */
    struct ev_loop *ev; /* leader only, but for kick(); NULL after close */
    pthread_mutex_t kick_mu; /* keeps ev from being destroyed while it is kicked */
    ev_async async;
    ev_timer timer;

    pthread_mutex_t mu;
    mg_waiter *leader; /* guarded by mu; NULL: nobody leads */
    uint64_t lead_seq; /* guarded by mu: counts how often somebody began to lead, or a waiter ended */
    int wanted; /* guarded by mu: threads in mg_loop_acquire */
    mg_waiter *wanter; /* guarded by mu: one of them */
    int acquired; /* guarded by mu: how often the leader has acquired it */
    int attendant_deep; /* guarded by mu: the attendant must be told, by an alarm if it has one, when leadership ends */
    _Atomic int attendant_alarmed; /* it has */
    _Atomic int alarm_set; /* written under mu: it was, for the end of leadership number alarm_seq */
    uint64_t alarm_seq; /* guarded by mu */
    int attendant_dozes; /* guarded by mu: it may sleep for longer than a tick */
    int attend_now; /* guarded by mu: the attendant leads without waiting for a tick */
    follower *followers; /* guarded by mu: the youngest first */
    const mg_waiter
        *deputy; /* guarded by mu: one in mg_loop_wait that looks every doze, as the attendant is away; or NULL */
    mg_op *ops, **ops_tail; /* guarded by mu */
    size_t n_ops; /* guarded by mu */
    int attending; /* guarded by mu: the attendant is in mg_loop_attend */
    uint64_t attended; /* guarded by mu: how often it has been */
    mg_hold *held; /* guarded by mu */
    _Atomic int any_held; /* whether there may be some; written under mu */
    int hold_fd; /* guarded by kick_mu: a timer that epoll can wait for to the microsecond, or -1 */
    mg_op hold_op; /* does its work where there is none */
    ev_io hold_io; /* leader only */

    _Atomic int step_down; /* the leader is asked to leave */
    _Atomic int have_ops;
    _Atomic int interrupted;
    _Atomic int closed;
    _Atomic int forked;
    _Atomic int unwatched; /* the leader sleeps, and would not drop spare blocks or a place to land in */
    _Atomic int unsent; /* streams with frames the kernel did not take yet */
    _Atomic int draining; /* somebody waits for that to be 0 */
    _Atomic(mg_waiter *) attendant;
    _Atomic int n_followers; /* written under mu */
    /* Who of them parked last, when, and when the last one before that was another. Hints: each is read and written by itself. */
    _Atomic(mg_waiter *) youngest_follower;
    _Atomic int64_t youngest_at, older_at;

    pthread_mutex_t events_mu;
    mg_event *events; /* guarded by events_mu: a ring */
    size_t ev_cap, ev_head; /* likewise */
    size_t ev_reserved; /* likewise: places kept for mg_loop_push_reserved */
    _Atomic size_t n_events; /* written under events_mu */

    /* leader only */
    uint64_t activity; /* callbacks that ran */
    int timed_out;
    int sleeps; /* libev may */
    int64_t last_rest; /* how long a leader's last sleep took */
    mg_look *looks;
    int64_t looks_due; /* when they are due, if there are any */
    int64_t traffic_at; /* when a callback ran last that was not for a timeout */
    int64_t foreign_at;
    mg_spin passing; /* of the waits for the next such traffic */
    int served_other;
    const mg_waiter *served_last; /* whom a push has woken last, and how often in a row; only compared */
    int served_row;
    mg_landing landing;
    int (*hot_fn)(void *);
    void *hot_arg;
    uint8_t *scratch;

    /* as in mg_loop_stats */
    _Atomic uint64_t turns, leads, arriving, yields, attends, ticks, spins_won, spins_lost, kicks, wakes, holds;
};

/* The writer is alone (it leads, or holds mu), so this needs no locked instruction. */
static inline void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* --- waking --- */

static void kick(mg_loop *loop)
{
    pthread_mutex_lock(&loop->kick_mu);
    count(&loop->kicks);
    if (loop->ev)
        ev_async_send(loop->ev, &loop->async);
    pthread_mutex_unlock(&loop->kick_mu);
}

/* With leadership, or with no other thread about. Gives the descriptors back. */
static void destroy_ev(mg_loop *loop)
{
    pthread_mutex_lock(&loop->kick_mu);
    int was = loop->ev != NULL;
    if (was)
        ev_loop_destroy(loop->ev);
    loop->ev = NULL;
    if (loop->hold_fd >= 0)
        close(loop->hold_fd);
    loop->hold_fd = -1;
    pthread_mutex_unlock(&loop->kick_mu);
    if (was)
        mg_block_keeper(-1);
}

/* Sets the token and unparks; returns the loop that w may be blocked in, and has to be kicked, or NULL. Who wakes itself is in a callback, not
 * blocked, and looks once libev returns. */
static mg_loop *notify(mg_waiter *w)
{
    return mg_waiter_notify(w) && w != mg_waiter_self() ? atomic_load(&w->leading) : NULL;
}

void mg_loop_wake(mg_waiter *w)
{
    mg_loop *loop = notify(w);
    if (loop)
        kick(loop);
}

int mg_loop_wake_later(mg_waiter *w)
{
    if (w == mg_waiter_self())
        return 0; /* a leader that has read its own answer looks at its sleep anyway; a kick would cost it an empty turn */
    uint32_t was = mg_waiter_set_token(w);
    mg_loop *loop = was == MG_WAITER_PARKED ? NULL : atomic_load(&w->leading);
    if (loop)
        kick(loop);
    return was == MG_WAITER_PARKED;
}

/* As mg_loop_wake, for callers that hold nothing but their reference to the loop: a loop of another broker which that thread
 * may lead by now is left alone. */
static void wake_in(mg_loop *loop, mg_waiter *w)
{
    if (!w)
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    mg_loop *in = notify(w);
    if (in && in == loop)
        kick(in);
}

/* A leader is about, and awake, that drops them in time. */
static void watch_spares(mg_loop *loop)
{
    if (atomic_load_explicit(&loop->unwatched, memory_order_relaxed)) {
        atomic_store(&loop->unwatched, 0);
        mg_block_keeper(1);
    }
}

/* A callback runs, and may give blocks back. */
static void note_activity(mg_loop *loop)
{
    loop->activity++;
    watch_spares(loop);
}

static void on_async(struct ev_loop *ev, ev_async *async, int events)
{
    (void) async, (void) events;
    note_activity(ev_userdata(ev));
}

static void on_timer(struct ev_loop *ev, ev_timer *timer, int events)
{
    (void) timer, (void) events;
    mg_loop *loop = ev_userdata(ev);
    note_activity(loop);
    loop->timed_out = 1;
}

static void run_ops(mg_loop *loop);

/* --- what is held back for a moment --- */

/* libev's timers, like epoll_wait, count whole milliseconds. */
static int open_hold_timer(void)
{
#if defined(__linux__)
    return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
#else
    return -1;
#endif
}

static void on_hold_timer(struct ev_loop *ev, ev_io *io, int events)
{
    (void) events;
    mg_loop *loop = ev_userdata(ev);
    uint64_t times;
    note_activity(loop);
    if (read(io->fd, &times, sizeof times) > 0)
        mg_loop_flush_held(loop);
}

static void run_hold_op(mg_op *op)
{
    mg_loop_flush_held((mg_loop *) ((char *) op - offsetof(mg_loop, hold_op)));
}

static void start_hold_timer(mg_loop *loop)
{
    int timed = 0;
#if defined(__linux__)
    struct itimerspec spec = {.it_value = {.tv_nsec = HOLD}};
    pthread_mutex_lock(&loop->kick_mu);
    timed = loop->hold_fd >= 0 && timerfd_settime(loop->hold_fd, 0, &spec, NULL) == 0;
    pthread_mutex_unlock(&loop->kick_mu);
#endif
    if (!timed)
        mg_loop_post(loop, &loop->hold_op); /* held for as long as it takes to wake the leader */
}

int mg_loop_hold(mg_loop *loop, mg_hold *h)
{
    int first = 0, ok = 0;
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    if (loop->attending && !atomic_load(&loop->closed)) {
        first = !loop->held;
        if (!loop->leader && loop->attendant_dozes) {
            loop->attendant_dozes = 0;
            whom = atomic_load(&loop->attendant);
        }
        h->next = loop->held;
        loop->held = h;
        atomic_store(&loop->any_held, 1);
        count(&loop->holds);
        ok = 1;
    }
    pthread_mutex_unlock(&loop->mu);
    if (first)
        start_hold_timer(loop);
    wake_in(loop, whom);
    return ok;
}

void mg_loop_flush_held(mg_loop *loop)
{
    if (!atomic_load(&loop->any_held))
        return;
    pthread_mutex_lock(&loop->mu);
    mg_hold *h = loop->held;
    loop->held = NULL;
    atomic_store(&loop->any_held, 0);
    pthread_mutex_unlock(&loop->mu);
    while (h) {
        mg_hold *next = h->next;
        h->flush(h);
        h = next;
    }
}

/* --- what a fork does with a leader that sleeps: it is left asleep --- */

/* libev calls these two just before and after it sleeps. */
static void on_sleep(struct ev_loop *ev)
{
    mg_loop *loop = ev_userdata(ev);
    if (loop->sleeps)
        atomic_store(&loop->asleep, 1);
}

static void on_woken(struct ev_loop *ev)
{
    mg_loop *loop = ev_userdata(ev);
    if (!loop->sleeps)
        return;
    atomic_store(&loop->asleep, 0);
    /* either this sees `frozen`, or freeze() sees that we are awake */
    if (atomic_load(&loop->frozen)) {
        pthread_mutex_lock(&loop->freeze_mu);
        pthread_mutex_unlock(&loop->freeze_mu);
    }
}

/* Keeps a leader that is asleep from doing anything, which costs less than to wake it and to have it leave and come back. Returns whether
 * there was one. */
static int freeze(mg_loop *loop)
{
    pthread_mutex_lock(&loop->freeze_mu);
    atomic_store(&loop->frozen, (uintptr_t) pthread_self());
    loop->frozen_in = getpid();
    if (atomic_load(&loop->asleep))
        return 1;
    atomic_store(&loop->frozen, 0);
    pthread_mutex_unlock(&loop->freeze_mu);
    return 0;
}

static void thaw(mg_loop *loop)
{
    atomic_store(&loop->frozen, 0);
    pthread_mutex_unlock(&loop->freeze_mu);
}

/* --- life --- */

mg_loop *mg_loop_new(void)
{
    mg_loop *loop = mg_calloc(1, sizeof *loop);
    if (!loop)
        return NULL;
    atomic_init(&loop->refs, 1);
    pthread_mutex_init(&loop->mu, NULL);
    pthread_mutex_init(&loop->events_mu, NULL);
    pthread_mutex_init(&loop->kick_mu, NULL);
    pthread_mutex_init(&loop->freeze_mu, NULL);
    loop->ops_tail = &loop->ops;
    loop->traffic_at = mg_now();
    loop->scratch = mg_malloc(MG_SCRATCH_SIZE);
    loop->hold_fd = open_hold_timer();
    loop->hold_op.run = run_hold_op;
    loop->ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (loop->ev)
        mg_block_keeper(1);
    if (!loop->ev || !loop->scratch) {
        mg_loop_unref(loop);
        return NULL;
    }
    ev_set_userdata(loop->ev, loop);
    ev_set_loop_release_cb(loop->ev, on_sleep, on_woken);
    ev_async_init(&loop->async, on_async);
    ev_async_start(loop->ev, &loop->async);
    ev_timer_init(&loop->timer, on_timer, 0, 0);
    ev_io_init(&loop->hold_io, on_hold_timer, loop->hold_fd, EV_READ);
    if (loop->hold_fd >= 0)
        ev_io_start(loop->ev, &loop->hold_io);
    pthread_mutex_lock(&all_mu);
    atomic_store(&loop->next_all, atomic_load(&all_loops));
    atomic_store(&all_loops, loop);
    pthread_mutex_unlock(&all_mu);
    return loop;
}

mg_loop *mg_loop_ref(mg_loop *loop)
{
    atomic_fetch_add_explicit(&loop->refs, 1, memory_order_relaxed);
    return loop;
}

/* A reference to a loop that may be on its way out; whether there still was one to share. REQUIRES(all_mu). */
static int try_ref(mg_loop *loop)
{
    uint32_t refs = atomic_load(&loop->refs);
    while (refs && !atomic_compare_exchange_weak(&loop->refs, &refs, refs + 1))
        ;
    return refs != 0;
}

/* Takes a loop out of the list of all; one that was never there is no harm. */
static void forget_loop(mg_loop *loop)
{
    pthread_mutex_lock(&all_mu);
    for (_Atomic(mg_loop *) *at = &all_loops; atomic_load(at); at = &atomic_load(at)->next_all)
        if (atomic_load(at) == loop) {
            atomic_store(at, atomic_load(&loop->next_all));
            break;
        }
    pthread_mutex_unlock(&all_mu);
}

void mg_loop_unref(mg_loop *loop)
{
    if (!loop || atomic_fetch_sub_explicit(&loop->refs, 1, memory_order_acq_rel) != 1)
        return;
    forget_loop(loop);
    destroy_ev(loop);
    mg_landing_drop(&loop->landing);
    mg_free(loop->scratch);
    mg_free(loop->events);
    pthread_mutex_destroy(&loop->freeze_mu);
    pthread_mutex_destroy(&loop->kick_mu);
    pthread_mutex_destroy(&loop->mu);
    pthread_mutex_destroy(&loop->events_mu);
    mg_free(loop);
}

void mg_loop_offer_landing(mg_loop *loop, mg_buf *buf)
{
    mg_landing_offer(&loop->landing, buf);
    if (mg_loop_is_unwatched(loop))
        mg_landing_drop(&loop->landing);
}

int mg_loop_is_unwatched(const mg_loop *loop)
{
    return atomic_load(&loop->unwatched);
}

void mg_loop_close(mg_loop *loop)
{
    mg_loop_flush_held(loop);
    mg_loop_acquire(loop);
    pthread_mutex_lock(&loop->mu);
    atomic_store(&loop->closed, 1);
    pthread_mutex_unlock(&loop->mu);
    run_ops(loop); /* what was posted before */
    mg_landing_drop(&loop->landing);
    destroy_ev(loop);
    mg_loop_release(loop);
    wake_in(loop, atomic_load(&loop->attendant));
}

int mg_loop_closed(const mg_loop *loop)
{
    return atomic_load(&loop->closed);
}

/* whole: no thread was inside when the process was copied, or just asleep there. */
static void give_up(mg_loop *loop, int whole)
{
    /* the threads that held these are in the other process */
    pthread_mutex_init(&loop->mu, NULL);
    pthread_mutex_init(&loop->events_mu, NULL);
    pthread_mutex_init(&loop->freeze_mu, NULL);
    atomic_store(&loop->asleep, 0);
    atomic_store(&loop->frozen, 0);
    loop->leader = NULL;
    loop->acquired = 0;
    loop->wanted = 0;
    loop->wanter = NULL;
    if (atomic_load(&loop->attendant))
        mg_waiter_forked(atomic_load(&loop->attendant));
    atomic_store(&loop->step_down, 0);
    atomic_store(&loop->attendant, NULL);
    loop->followers = NULL;
    loop->deputy = NULL;
    atomic_store(&loop->n_followers, 0);
    loop->attending = 0;
    loop->held = NULL;
    atomic_store(&loop->any_held, 0);
    atomic_store(&loop->closed, 1);
    atomic_store(&loop->forked, 1);
    pthread_mutex_init(&loop->kick_mu, NULL);
    watch_spares(loop);
    mg_landing_drop(&loop->landing);
    if (whole)
        destroy_ev(loop);
    else if (loop->ev) {
        loop->ev = NULL; /* half of a change may be in there: memory and two descriptors are lost, and nothing else */
        mg_block_keeper(-1);
        if (loop->hold_fd >= 0)
            close(loop->hold_fd);
        loop->hold_fd = -1;
    }
}

void mg_loop_forked(mg_loop *loop)
{
    give_up(loop, 1);
}

int mg_loops_acquire(void)
{
    mg_loop *loop;
    pthread_mutex_lock(&all_mu);
    for (loop = atomic_load(&all_loops); loop; loop = atomic_load(&loop->next_all))
        /* one whose last reference has gone is about to leave the list */
        if (!loop->forking && try_ref(loop))
            break;
    if (loop)
        loop->forking = 1;
    pthread_mutex_unlock(&all_mu);
    if (!loop)
        return 0;
    if (!freeze(loop))
        mg_loop_acquire(loop);
    return 1;
}

int mg_loops_are_acquired(void)
{
    int all = 1;
    pthread_mutex_lock(&all_mu);
    for (mg_loop *loop = atomic_load(&all_loops); loop; loop = atomic_load(&loop->next_all))
        all = all && (loop->forking || !atomic_load(&loop->refs));
    pthread_mutex_unlock(&all_mu);
    return all;
}

/* One that was acquired so, and is not any more; the reference is the caller's. */
static mg_loop *pop_acquired(void)
{
    mg_loop *loop;
    pthread_mutex_lock(&all_mu);
    for (loop = atomic_load(&all_loops); loop && !loop->forking; loop = atomic_load(&loop->next_all))
        ;
    if (loop)
        loop->forking = 0;
    pthread_mutex_unlock(&all_mu);
    return loop;
}

void mg_loops_release(void)
{
    for (mg_loop *loop; (loop = pop_acquired());) {
        if (atomic_load(&loop->frozen))
            thaw(loop);
        else
            mg_loop_release(loop);
        mg_loop_unref(loop);
    }
}

void mg_loops_forked(void)
{
    pthread_mutex_init(&all_mu, NULL);
    for (mg_loop *loop = atomic_load(&all_loops); loop; loop = atomic_load(&loop->next_all))
        if (!atomic_load(&loop->forked))
            give_up(loop, loop->forking);
    for (mg_loop *loop; (loop = pop_acquired());)
        mg_loop_unref(loop);
}

int mg_loop_was_forked(const mg_loop *loop)
{
    return atomic_load(&loop->forked);
}

/* --- ops --- */

int mg_loop_post(mg_loop *loop, mg_op *op)
{
    mg_waiter *whom = NULL;
    int queued = 0;
    pthread_mutex_lock(&loop->mu);
    if (!op->queued && !atomic_load(&loop->closed)) { /* once closed, nobody would run it any more */
        queued = op->queued = 1;
        op->next = NULL;
        *loop->ops_tail = op;
        loop->ops_tail = &op->next;
        loop->n_ops++;
        atomic_store(&loop->have_ops, 1);
        if (loop->leader)
            mg_loop_wake(loop->leader);
        else {
            loop->attend_now = 1;
            whom = atomic_load(&loop->attendant);
        }
    }
    pthread_mutex_unlock(&loop->mu);
    wake_in(loop, whom);
    return queued;
}

int mg_loop_unpost(mg_loop *loop, mg_op *op)
{
    int was = 0;
    pthread_mutex_lock(&loop->mu);
    for (mg_op **at = &loop->ops; *at; at = &(*at)->next)
        if (*at == op) {
            *at = op->next;
            if (loop->ops_tail == &op->next)
                loop->ops_tail = at;
            loop->n_ops--;
            op->queued = 0;
            was = 1;
            break;
        }
    pthread_mutex_unlock(&loop->mu);
    return was;
}

/* Runs what is queued now. What that posts again has its turn after everybody else: a peer that does not stop talking makes a stream do
 * so for ever. */
static void run_ops(mg_loop *loop)
{
    pthread_mutex_lock(&loop->mu);
    for (size_t n = loop->n_ops; n && loop->ops; n--) {
        mg_op *op = loop->ops;
        loop->ops = op->next;
        loop->n_ops--;
        if (!loop->ops)
            loop->ops_tail = &loop->ops;
        op->queued = 0;
        pthread_mutex_unlock(&loop->mu);
        op->run(op);
        pthread_mutex_lock(&loop->mu);
    }
    atomic_store(&loop->have_ops, loop->n_ops > 0);
    pthread_mutex_unlock(&loop->mu);
}

/* --- looks --- */

void mg_loop_look(mg_loop *loop, mg_look *look)
{
    if (look->listed)
        return;
    if (!loop->looks)
        loop->looks_due = mg_now() + LOOK_EVERY;
    look->listed = 1;
    look->next = loop->looks;
    loop->looks = look;
}

void mg_loop_unlook(mg_loop *loop, mg_look *look)
{
    if (!look->listed)
        return;
    look->listed = 0;
    for (mg_look **at = &loop->looks; *at; at = &(*at)->next)
        if (*at == look) {
            *at = look->next;
            break;
        }
}

static void run_looks(mg_loop *loop, int64_t now)
{
    loop->looks_due = now + LOOK_EVERY;
    for (mg_look *look = loop->looks, *next; look; look = next) {
        next = look->next;
        look->fn(look);
    }
}

/* --- events --- */

/* REQUIRES(loop->events_mu). Makes room for `more` events besides those that are queued and reserved. */
static mg_err make_room_locked(mg_loop *loop, size_t more)
{
    size_t n = atomic_load_explicit(&loop->n_events, memory_order_relaxed), need = n + loop->ev_reserved + more;
    if (need <= loop->ev_cap)
        return MG_OK;
    size_t cap = loop->ev_cap ? loop->ev_cap * 2 : 16;
    if (cap < need)
        cap = need;
    mg_event *ring = mg_malloc(cap * sizeof *ring);
    if (!ring)
        return MG_ENOMEM;
    assert(n <= loop->ev_cap);
    for (size_t i = 0; i < n; i++)
        ring[i] = loop->events[(loop->ev_head + i) % loop->ev_cap];
    mg_free(loop->events);
    loop->events = ring;
    loop->ev_cap = cap;
    loop->ev_head = 0;
    return MG_OK;
}

static mg_err push_event(mg_loop *loop, const mg_event *ev, int reserved)
{
    pthread_mutex_lock(&loop->events_mu);
    mg_err err = reserved ? MG_OK : make_room_locked(loop, 1);
    if (err == MG_OK) {
        size_t n = atomic_load_explicit(&loop->n_events, memory_order_relaxed);
        loop->ev_reserved -= reserved ? 1 : 0;
        loop->events[(loop->ev_head + n) % loop->ev_cap] = *ev;
        atomic_store(&loop->n_events, n + 1);
    }
    pthread_mutex_unlock(&loop->events_mu);
    if (err == MG_OK)
        wake_in(loop, atomic_load(&loop->attendant));
    return err;
}

mg_err mg_loop_push_event(mg_loop *loop, const mg_event *ev)
{
    return push_event(loop, ev, 0);
}

mg_err mg_loop_reserve_event(mg_loop *loop)
{
    pthread_mutex_lock(&loop->events_mu);
    mg_err err = make_room_locked(loop, 1);
    loop->ev_reserved += err == MG_OK;
    pthread_mutex_unlock(&loop->events_mu);
    return err;
}

void mg_loop_unreserve_event(mg_loop *loop)
{
    pthread_mutex_lock(&loop->events_mu);
    loop->ev_reserved--;
    pthread_mutex_unlock(&loop->events_mu);
}

void mg_loop_push_reserved(mg_loop *loop, const mg_event *ev)
{
    push_event(loop, ev, 1);
}

static int take_event(mg_loop *loop, mg_event *ev, int leave)
{
    pthread_mutex_lock(&loop->events_mu);
    size_t n = atomic_load_explicit(&loop->n_events, memory_order_relaxed);
    if (n) {
        *ev = loop->events[loop->ev_head];
        if (!leave) {
            loop->ev_head = (loop->ev_head + 1) % loop->ev_cap;
            atomic_store(&loop->n_events, n - 1);
        }
    }
    pthread_mutex_unlock(&loop->events_mu);
    return n != 0;
}

int mg_loop_pop_event(mg_loop *loop, mg_event *ev)
{
    return take_event(loop, ev, 0);
}

int mg_loop_peek_event(mg_loop *loop, mg_event *ev)
{
    return take_event(loop, ev, 1);
}

size_t mg_loop_n_events(const mg_loop *loop)
{
    return atomic_load(&loop->n_events);
}

void mg_loop_interrupt(mg_loop *loop)
{
    atomic_store(&loop->interrupted, 1);
    wake_in(loop, atomic_load(&loop->attendant));
}

void mg_loop_note_unsent(mg_loop *loop, int change)
{
    if (atomic_fetch_add(&loop->unsent, change) + change == 0 && atomic_load(&loop->draining))
        mg_loop_interrupt(loop);
}

int mg_loop_unsent(mg_loop *loop)
{
    mg_loop_flush_held(loop);
    atomic_store(&loop->draining, 1);
    return atomic_load(&loop->unsent);
}

/* --- spinning --- */

/* Whether there were more parts of a large frame than at the last look; the wait s remembers the first. */
static int note_arriving(const mg_loop *loop, mg_sleeper *s, uint64_t *parts)
{
    uint64_t before = *parts;
    *parts = atomic_load_explicit(&loop->arriving, memory_order_relaxed);
    if (*parts == before)
        return 0;
    if (s && !s->arriving_at)
        s->arriving_at = mg_now();
    return 1;
}

void mg_loop_note_arriving(mg_loop *loop)
{
    count(&loop->arriving);
}

/* What a leader does instead of sleeping. Returns 0 when it was in vain. */
static int spin(mg_loop *loop, mg_waiter *w, mg_sleeper *s, int64_t now, int64_t end)
{
    uint64_t parts = atomic_load_explicit(&loop->arriving, memory_order_relaxed);
    for (unsigned i = 1; now < end; i++, now = mg_now()) {
        if (loop->hot_fn)
            loop->hot_fn(loop->hot_arg);
        if (i % 8 == 0 || !loop->hot_fn)
            ev_run(loop->ev, EVRUN_NOWAIT);
        if (atomic_load(&s->state) != MG_SLEEPER_WAITING) {
            count(&loop->spins_won);
            mg_spin_won(&w->spin);
            return 1;
        }
        if (atomic_load(&w->word) != MG_WAITER_AWAKE || atomic_load(&loop->have_ops) || atomic_load(&loop->step_down))
            return 1;
        if (note_arriving(loop, s, &parts)) {
            now = mg_now();
            if (end < now + NEXT_PART)
                end = now + NEXT_PART;
        }
        /* Now and then the kernel puts who is to answer on this very core; not whoever is sending us a large frame meanwhile. */
        if (i % 8 == 4 && !s->arriving_at) {
            int64_t yielded = mg_now();
            count(&loop->yields);
            sched_yield();
            if (mg_now() - yielded > YIELDED_LONG)
                break; /* to somebody else, and a sleeper gets the core back sooner */
        }
        mg_spin_relax();
    }
    if (s->arriving_at)
        return 0; /* it has saved a wake, and has not lasted to the end */
    count(&loop->spins_lost);
    mg_spin_lost(&w->spin);
    return 0;
}

/* What a leader does between frames that it passes on. The next one comes when a process has run that the last one went to, on this core
 * perhaps: hence the yield. */
static int spin_passing(mg_loop *loop, mg_waiter *w, mg_sleeper *s, int64_t now, int64_t end)
{
    int64_t passed = loop->foreign_at;
    for (; now < end; now = mg_now()) {
        ev_run(loop->ev, EVRUN_NOWAIT);
        if (loop->foreign_at != passed) {
            count(&loop->spins_won);
            mg_spin_won(&loop->passing);
            return 1;
        }
        if ((s && atomic_load(&s->state) != MG_SLEEPER_WAITING) || atomic_load(&w->word) != MG_WAITER_AWAKE ||
            atomic_load(&loop->have_ops) || atomic_load(&loop->step_down))
            return 1;
        sched_yield();
    }
    count(&loop->spins_lost);
    mg_spin_lost(&loop->passing);
    return 0;
}

/* And what one does that waits for another thread of the process. Whoever served us holds what we need next (the GIL) until it waits
 * itself, and most do so at once: to be woken for that would cost what was just saved. Returns 0 when it was in vain. */
static int spin_parked(mg_waiter *w, mg_sleeper *s, int64_t end)
{
    while (atomic_load(&s->state) == MG_SLEEPER_WAITING) {
        for (int i = 0; i < 16; i++)
            mg_spin_relax();
        if (atomic_load(&w->word) != MG_WAITER_AWAKE && atomic_load(&s->state) == MG_SLEEPER_WAITING)
            return 0;
        if (mg_now() >= end) {
            mg_spin_lost(&w->spin);
            return 0;
        }
    }
    mg_spin_won(&w->spin);
    const mg_waiter *by = s->served_by;
    if (by && by != w)
        for (end = mg_now() + LET_GO; atomic_load(&by->waits) == s->served_at && mg_now() < end;)
            mg_spin_relax();
    return 1;
}

/* And what one does there where both have to share a core. */
static int yield_parked(mg_waiter *w, const mg_sleeper *s, int64_t now)
{
    sched_yield();
    int served = atomic_load(&s->state) != MG_SLEEPER_WAITING;
    /* where somebody else has used the core for long, a sleeper would have been given it sooner */
    if (served && mg_now() - now < YIELDED_LONG)
        mg_spin_won(&w->spin);
    else
        mg_spin_lost(&w->spin);
    return served;
}

/* --- leading --- */

typedef enum { LEFT_DONE, LEFT_TIMEOUT, LEFT_SIGNAL, LEFT_ASKED, LEFT_SERVED } left;

static int foreign_traffic(const mg_loop *loop, int64_t now)
{
    return loop->foreign_at && now - loop->foreign_at < FOREIGN_FRESH;
}

/* Whether messages come so seldom that an alarm for each of them costs less than an attendant that looks every tick. */
static int sparse(const mg_loop *loop)
{
    return loop->last_rest > TICK;
}

/* How soon the alarm of a loop that is left alone goes off. */
static int64_t alarm_in(const mg_loop *loop)
{
    return atomic_load(&loop->any_held) ? TICK : ALARM;
}

/* The attendant need not look: there is a leader again, about to sleep. */
static void take_back_alarm(mg_loop *loop)
{
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    if (atomic_load(&loop->alarm_set))
        whom = atomic_load(&loop->attendant);
    atomic_store(&loop->alarm_set, 0);
    pthread_mutex_unlock(&loop->mu);
    if (whom)
        mg_waiter_set_alarm(whom, 0);
}

/* Whether the leader can sleep for long: what is given back from now on is not kept. */
static int leave_spares(mg_loop *loop)
{
    atomic_store(&loop->unwatched, 1);
    mg_block_keeper(-1);
    return !mg_landing_has(
        &loop->landing); /* either this sees what mg_loop_offer_landing offers, or that sees `unwatched` */
}

static int64_t look_soon(const mg_sleeper *s, int64_t look_at, int64_t now)
{
    return s && look_at == MG_NEVER ? now + SIGNALS_SEEN : look_at;
}

/* Until when a leader may sleep that would sleep until then. Drops what was kept for a message that has not come. */
static int64_t rest_until(mg_loop *loop, int64_t now, int64_t until)
{
    int spares = mg_block_to_look_after() || mg_landing_to_look_after(&loop->landing);
    int64_t drop_at = loop->traffic_at + SPARES_FRESH;
    if (spares && now >= drop_at) {
        mg_block_drop_spares();
        mg_landing_drop(&loop->landing);
    } else if (spares && drop_at < until)
        until = drop_at;
    return loop->looks && loop->looks_due < until ? loop->looks_due : until;
}

/* One turn of libev, asleep if there is nothing to do. Returns whether it slept and no callback ran: a signal, perhaps. */
static int take_turn(mg_loop *loop, mg_waiter *w, mg_sleeper *s, int64_t now, int64_t until)
{
    if (until != MG_NEVER) {
        ev_now_update(loop->ev);
        ev_timer_set(&loop->timer, (double) (until - now) / 1e9, 0.);
        ev_timer_start(loop->ev, &loop->timer);
    }
    if (s && atomic_load(&loop->alarm_set) && sparse(loop))
        take_back_alarm(loop);
    uint64_t before = loop->activity, parts = atomic_load_explicit(&loop->arriving, memory_order_relaxed);
    loop->timed_out = 0;
    atomic_store(&w->leading, loop);
    int block =
        atomic_load(&w->word) == MG_WAITER_AWAKE && !atomic_load(&loop->have_ops) && !atomic_load(&loop->step_down);
    loop->sleeps = block;
    ev_run(loop->ev, block ? EVRUN_ONCE : EVRUN_NOWAIT);
    loop->sleeps = 0;
    atomic_store(&w->leading, NULL);
    count(&loop->turns);
    note_arriving(loop, s, &parts);
    if (until != MG_NEVER)
        ev_timer_stop(loop->ev, &loop->timer);
    watch_spares(loop);
    if (loop->activity != before + (uint64_t) loop->timed_out)
        loop->traffic_at = mg_now_coarse();
    return block && loop->activity == before;
}

/* The leader's work, as a waiter (s is its sleep) or as the attendant (s is NULL). look_at: when to look for a signal that may have come
 * already. */
static left lead(mg_loop *loop, mg_waiter *w, mg_sleeper *s, int64_t deadline, int64_t look_at)
{
    int64_t now = mg_now(), began = now, turn;
    loop->served_other = 0;
    int64_t passed = loop->foreign_at;
    for (;; now = mg_now(), loop->last_rest = now - turn, look_at = look_soon(s, look_at, now)) {
        turn = now;
        mg_waiter_take_token(w);
        if (atomic_load(&loop->have_ops))
            run_ops(loop);
        if (loop->looks && now >= loop->looks_due)
            run_looks(loop, now);
        if (s ? atomic_load(&s->state) != MG_SLEEPER_WAITING
              : atomic_load(&loop->n_events) || atomic_load(&loop->interrupted))
            return LEFT_DONE;
        if (atomic_load(&loop->step_down) || atomic_load(&loop->closed))
            return LEFT_ASKED;
        if (loop->served_other && !foreign_traffic(loop, now) &&
            (s ? now - began > 2 * TICK : atomic_load(&loop->n_followers) <= 1 || loop->served_row >= SERVED_ROW))
            return LEFT_SERVED;
        loop->served_other = 0;
        if (now >= deadline)
            return LEFT_TIMEOUT;
        if (now >= look_at)
            return LEFT_SIGNAL;
        int64_t end = 0;
        if (loop->foreign_at != passed) {
            mg_spin_learn(&loop->passing, now - passed);
            passed = loop->foreign_at;
            end = mg_spin_until(&loop->passing, now);
        }
        if (end && spin_passing(loop, w, s, now, end))
            continue;
        end = s && !s->spun ? mg_spin_until(&w->spin, now) : 0;
        if (end) {
            if (spin(loop, w, s, now, end))
                continue;
            s->spun = 1;
            look_at = look_soon(s, look_at, now);
        }
        int64_t until = rest_until(loop, now, deadline < look_at ? deadline : look_at);
        if (until > now + SPARES_FRESH && !leave_spares(loop)) {
            watch_spares(loop);
            continue;
        }
        int quiet = take_turn(loop, w, s, now, until);
        if (s && quiet)
            return LEFT_SIGNAL;
    }
}

static int try_lead(mg_loop *loop, mg_waiter *w)
{
    int ok = 0;
    pthread_mutex_lock(&loop->mu);
    if (!loop->leader && !loop->wanted && !atomic_load(&loop->closed)) {
        loop->leader = w;
        loop->lead_seq++;
        ok = 1;
    }
    pthread_mutex_unlock(&loop->mu);
    return ok;
}

static void note_parked(mg_loop *loop, mg_waiter *w)
{
    if (atomic_exchange(&loop->youngest_follower, w) != w)
        atomic_store(&loop->older_at, atomic_load(&loop->youngest_at));
    atomic_store(&loop->youngest_at, mg_now());
}

/* When a follower other than w parked last. */
static int64_t other_parked_at(const mg_loop *loop, const mg_waiter *w)
{
    return atomic_load(&loop->youngest_follower) == w ? atomic_load(&loop->older_at) : atomic_load(&loop->youngest_at);
}

/* REQUIRES(loop->mu). Nobody leads, and the attendant, which would see to that, is away. */
static int is_deserted_locked(const mg_loop *loop)
{
    return !loop->leader && !loop->wanted && !loop->attending && !atomic_load(&loop->closed);
}

/* REQUIRES(loop->mu). Makes a follower the deputy, if one is needed; returns who has to be woken for that, or NULL. */
static mg_waiter *appoint_locked(mg_loop *loop)
{
    if (loop->deputy || !loop->followers || !is_deserted_locked(loop))
        return NULL;
    loop->deputy = loop->followers->waiter;
    return loop->followers->waiter;
}

/* REQUIRES(loop->mu). As long as this stays the same, nobody has come or gone. */
static uint64_t changes_locked(const mg_loop *loop)
{
    return loop->lead_seq + loop->attended;
}

/* Before f->waiter parks: until when, at most. */
static int64_t follow(mg_loop *loop, follower *f)
{
    note_parked(loop, f->waiter);
    pthread_mutex_lock(&loop->mu);
    f->at = &loop->followers;
    f->next = loop->followers;
    if (f->next)
        f->next->at = &f->next;
    loop->followers = f;
    atomic_fetch_add(&loop->n_followers, 1);
    appoint_locked(loop); /* us, if anybody */
    int is_deputy = loop->deputy == f->waiter;
    f->seen = changes_locked(loop);
    pthread_mutex_unlock(&loop->mu);
    return is_deputy ? mg_now() + DOZE : MG_NEVER;
}

/* Afterwards. Returns whether f->waiter may lead now. The deputy may not before nothing has changed for a whole doze: a handler is over in
 * less, mostly, and threads that wait for an answer each, one after the other, lead for themselves. */
static int unfollow(mg_loop *loop, follower *f, int doze_passed)
{
    pthread_mutex_lock(&loop->mu);
    *f->at = f->next;
    if (f->next)
        f->next->at = f->at;
    atomic_fetch_sub(&loop->n_followers, 1);
    int may_lead = loop->deputy != f->waiter || (doze_passed && f->seen == changes_locked(loop));
    if (may_lead && loop->deputy == f->waiter)
        loop->deputy = NULL; /* somebody leads, or is about to; as he leaves he appoints another one */
    pthread_mutex_unlock(&loop->mu);
    return may_lead;
}

/* The end of a wait that has followed. */
static void resign(mg_loop *loop, mg_sleeper *s)
{
    pthread_mutex_lock(&loop->mu);
    s->was_deputy = loop->deputy == s->waiter;
    if (s->was_deputy)
        loop->deputy = NULL;
    mg_waiter *whom = appoint_locked(loop);
    pthread_mutex_unlock(&loop->mu);
    wake_in(loop, whom);
}

static void set_attending(mg_loop *loop, int on)
{
    pthread_mutex_lock(&loop->mu);
    loop->attending = on;
    loop->attended += !on;
    mg_waiter *whom = appoint_locked(loop);
    pthread_mutex_unlock(&loop->mu);
    wake_in(loop, whom);
}

/* A waiter stops leading. See DESIGN in loop.h for who is told. */
static void unlead(mg_loop *loop, const mg_waiter *w)
{
    mg_waiter *whom = NULL, *alarm = NULL;
    int64_t now = mg_now();
    int needed = foreign_traffic(loop, now) || atomic_load(&loop->have_ops) ||
                 (atomic_load(&loop->n_followers) && now - other_parked_at(loop, w) < 4 * TICK);
    count(&loop->leads);
    pthread_mutex_lock(&loop->mu);
    loop->leader = NULL;
    loop->lead_seq++;
    if (loop->wanted)
        whom = loop->wanter;
    else if (!loop->attending)
        whom = appoint_locked(loop); /* the attendant looks anyway, when it is back */
    else if (needed || (loop->attendant_deep && !atomic_load(&loop->attendant_alarmed))) {
        loop->attend_now = needed;
        loop->attendant_deep = 0;
        whom = atomic_load(&loop->attendant);
    } else if (loop->attendant_deep && (!atomic_load(&loop->alarm_set) || atomic_load(&loop->any_held))) {
        atomic_store(&loop->alarm_set, 1);
        loop->alarm_seq = loop->lead_seq;
        alarm = atomic_load(&loop->attendant);
    }
    pthread_mutex_unlock(&loop->mu);
    if (alarm)
        mg_waiter_set_alarm(alarm, alarm_in(loop));
    wake_in(loop, whom);
}

/* *followed: whether w has been among the followers. */
static mg_err wait_for(mg_loop *loop, mg_sleeper *s, int64_t deadline, int *followed)
{
    mg_waiter *w = s->waiter;
    int64_t look_at = MG_NEVER; /* as in lead() */
    int may_lead = !s->was_deputy; /* it looked for a signal, and still is none that leads at once */
    s->was_deputy = 0;
    atomic_store_explicit(&w->waits, atomic_load_explicit(&w->waits, memory_order_relaxed) + 1, memory_order_release);
    if (loop)
        mg_loop_flush_held(loop); /* what we wait for may be the answer to it */
    for (;;) {
        mg_waiter_take_token(w);
        if (atomic_load(&s->state) != MG_SLEEPER_WAITING)
            return MG_OK;
        if (deadline != MG_NEVER && mg_now() >= deadline)
            return MG_ETIMEDOUT;
        if (loop && may_lead && try_lead(loop, w)) {
            left how = lead(loop, w, s, deadline, look_at);
            unlead(loop, w);
            if (how == LEFT_DONE)
                return MG_OK;
            if (how == LEFT_TIMEOUT)
                return MG_ETIMEDOUT;
            if (how == LEFT_SIGNAL)
                return MG_EINTR;
            look_at = look_soon(s, look_at, mg_now());
        }
        if (!loop && !s->spun) {
            int64_t now = mg_now(), end = mg_spin_until(&w->spin, now);
            if (end || mg_spin_yields(&w->spin, now)) {
                s->spun = 1;
                int served = end ? spin_parked(w, s, end) : yield_parked(w, s, now);
                return served ? MG_OK : MG_EINTR; /* there may have been a signal meanwhile */
            }
        }
        follower f = {.waiter = w};
        int64_t until = deadline < look_at ? deadline : look_at, doze = loop ? follow(loop, &f) : MG_NEVER;
        mg_err err = mg_waiter_park(w, doze < until ? doze : until);
        if (loop) {
            may_lead = unfollow(loop, &f, err == MG_ETIMEDOUT && doze < until);
            *followed = 1;
        }
        if (err == MG_EINTR || (err == MG_ETIMEDOUT && look_at < deadline && look_at <= doze))
            return MG_EINTR;
        look_at = look_soon(s, look_at, mg_now());
    }
}

mg_err mg_loop_wait(mg_loop *loop, mg_sleeper *s, int64_t deadline)
{
    int followed = 0;
    mg_err err = wait_for(loop, s, deadline, &followed);
    if (followed)
        resign(loop, s);
    return err;
}

int mg_loop_attended(mg_loop *loop, uint64_t *count)
{
    pthread_mutex_lock(&loop->mu);
    int attending = loop->attending;
    *count = loop->attended;
    pthread_mutex_unlock(&loop->mu);
    return attending;
}

static mg_err attend(mg_loop *loop, mg_waiter *w, int64_t deadline)
{
    uint64_t seq = 0; /* lead_seq when we looked last */
    int ticking = 0; /* we have left the loop to waiters */
    int tick_passed = 0; /* since we looked a whole tick, or doze, has passed */
    int dozed = 0; /* it was a doze */
    for (;;) {
        mg_waiter_take_token(w);
        if (atomic_load(&loop->n_events) || atomic_exchange(&loop->interrupted, 0))
            return MG_OK;
        if (atomic_load(&loop->closed))
            return MG_ECLOSED;
        int64_t now = mg_now();
        if (now >= deadline)
            return MG_ETIMEDOUT;
        mg_loop_flush_held(loop);

        int left_sparse = 0; /* we have just left it to a waiter, and messages are few */
        pthread_mutex_lock(&loop->mu);
        loop->attendant_deep = loop->attendant_dozes = 0;
        if (atomic_exchange(&loop->alarm_set, 0))
            seq = loop->alarm_seq; /* who went off has waited for a tick from there */
        if (!loop->leader && !loop->wanted &&
            (!ticking || loop->attend_now || (tick_passed && seq == loop->lead_seq))) {
            loop->attend_now = 0;
            loop->leader = w;
            loop->lead_seq++;
            pthread_mutex_unlock(&loop->mu);
            left how = lead(loop, w, NULL, deadline, MG_NEVER);
            left_sparse = how == LEFT_SERVED && sparse(loop) && atomic_load(&loop->attendant_alarmed);
            pthread_mutex_lock(&loop->mu);
            loop->leader = NULL;
            count(&loop->attends);
            seq = loop->lead_seq;
            mg_waiter *whom = loop->wanted ? loop->wanter : NULL;
            pthread_mutex_unlock(&loop->mu);
            wake_in(loop, whom);
            ticking = how == LEFT_SERVED || how == LEFT_ASKED;
            tick_passed = dozed = 0;
            if (how != LEFT_SERVED)
                continue;
            now = mg_now(); /* a tick from now, not from before we led */
            pthread_mutex_lock(&loop->mu);
        }
        int64_t until = now + TICK;
        int doze = loop->leader && tick_passed;
        if (doze)
            until = now + DOZE;
        int deep = left_sparse || (doze && dozed && seq == loop->lead_seq);
        if (deep) {
            loop->attendant_deep = 1;
            until = MG_NEVER;
        }
        if (left_sparse && !loop->leader) {
            atomic_store(&loop->alarm_set, 1);
            loop->alarm_seq = loop->lead_seq;
            mg_waiter_set_alarm(w, alarm_in(loop));
        }
        dozed = doze;
        loop->attendant_dozes = doze || deep;
        loop->attend_now = 0;
        ticking = 1;
        seq = loop->lead_seq;
        count(&loop->ticks);
        pthread_mutex_unlock(&loop->mu);
        if (deadline < until)
            until = deadline;
        tick_passed = (deep ? mg_waiter_park_alarmed(w, until) : mg_waiter_park(w, until)) == MG_ETIMEDOUT;
    }
}

mg_err mg_loop_attend(mg_loop *loop, int64_t deadline)
{
    mg_waiter *w = mg_waiter_self();
    if (!w)
        return MG_ENOMEM;
    int alarmed = mg_waiter_open_alarm(w);
    atomic_store(&loop->attendant, w);
    atomic_store(&loop->attendant_alarmed, alarmed);
    set_attending(loop, 1);
    mg_err err = attend(loop, w, deadline);
    set_attending(loop, 0);
    mg_loop_flush_held(loop); /* for as long as we are away nobody else might */
    return err;
}

/* REQUIRES(loop->mu). Whether w has acquired the loop already; that counts. */
static int acquire_again_locked(mg_loop *loop, const mg_waiter *w)
{
    if (!w || loop->leader != w || !loop->acquired)
        return 0;
    loop->acquired++;
    return 1;
}

void mg_loop_acquire(mg_loop *loop)
{
    mg_waiter *w = mg_waiter_self();
    if (atomic_load(&loop->frozen) == (uintptr_t) pthread_self()) {
        if (getpid() != loop->frozen_in)
            give_up(loop,
                    1); /* a child that has not come to mg_fork_child yet: who sleeps there is in the other process */
        else {
            /* what runs before a fork changes watchers: it is to be held like one whose leader was awake */
            thaw(loop);
            mg_loop_acquire(loop);
        }
    }
    pthread_mutex_lock(&loop->mu);
    if (acquire_again_locked(loop, w)) {
        pthread_mutex_unlock(&loop->mu);
        return;
    }
    loop->wanted++;
    while (loop->leader) {
        loop->wanter = w;
        atomic_store(&loop->step_down, 1);
        mg_loop_wake(loop->leader);
        pthread_mutex_unlock(&loop->mu);
        /* several may want it, one is remembered: hence a short sleep */
        if (w)
            mg_waiter_park(w, mg_now() + TICK);
        else
            sched_yield();
        pthread_mutex_lock(&loop->mu);
    }
    if (!--loop->wanted)
        atomic_store(&loop->step_down, 0);
    loop->leader = w ? w : &nobody;
    loop->acquired = 1;
    loop->lead_seq++;
    pthread_mutex_unlock(&loop->mu);
}

int mg_loop_try_acquire(mg_loop *loop)
{
    mg_waiter *w = mg_waiter_self();
    pthread_mutex_lock(&loop->mu);
    int ok = acquire_again_locked(loop, w);
    if (!loop->leader && !loop->wanted) {
        loop->leader = w ? w : &nobody;
        loop->acquired = 1;
        loop->lead_seq++;
        ok = 1;
    }
    pthread_mutex_unlock(&loop->mu);
    return ok;
}

int mg_loop_leads(mg_loop *loop)
{
    mg_waiter *w = mg_waiter_self();
    pthread_mutex_lock(&loop->mu);
    int leads = w && loop->leader == w;
    pthread_mutex_unlock(&loop->mu);
    return leads;
}

int mg_loop_serves(mg_loop *loop)
{
    return mg_loop_leads(loop) || atomic_load(&loop->attendant) == mg_waiter_self();
}

void mg_loop_release(mg_loop *loop)
{
    pthread_mutex_lock(&loop->mu);
    if (--loop->acquired) {
        pthread_mutex_unlock(&loop->mu);
        return;
    }
    loop->leader = NULL;
    mg_waiter *whom = loop->wanted      ? loop->wanter
                      : loop->attending ? atomic_load(&loop->attendant)
                                        : appoint_locked(loop);
    if (!loop->wanted) {
        loop->attend_now = 1;
        loop->attendant_deep = 0;
    }
    pthread_mutex_unlock(&loop->mu);
    if (whom != mg_waiter_self())
        wake_in(loop, whom);
}

/* --- watchers --- */

struct mg_watch {
    ev_io io;
    mg_loop *loop; /* with a reference */
    void (*fn)(void *arg, int events);
    void *arg;
};

static void on_io(struct ev_loop *ev, ev_io *io, int events)
{
    mg_watch *w = io->data;
    note_activity(ev_userdata(ev));
    w->fn(w->arg, (events & (EV_READ | EV_ERROR) ? MG_READ : 0) | (events & EV_WRITE ? MG_WRITE : 0));
}

mg_watch *mg_watch_new(mg_loop *loop, int fd, int events, void (*fn)(void *arg, int events), void *arg)
{
    mg_watch *w = mg_calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->loop = mg_loop_ref(loop);
    w->fn = fn;
    w->arg = arg;
    ev_io_init(&w->io, on_io, fd, (events & MG_READ ? EV_READ : 0) | (events & MG_WRITE ? EV_WRITE : 0));
    w->io.data = w;
    return w;
}

void mg_watch_start(mg_watch *w)
{
    if (w->loop->ev)
        ev_io_start(w->loop->ev, &w->io);
}

void mg_watch_stop(mg_watch *w)
{
    if (w->loop->ev)
        ev_io_stop(w->loop->ev, &w->io);
}

int mg_watch_active(const mg_watch *w)
{
    return ev_is_active(&w->io);
}

void mg_watch_free(mg_watch *w)
{
    if (!w)
        return;
    mg_loop_unref(w->loop);
    mg_free(w);
}

/* --- for streams --- */

uint8_t *mg_loop_scratch(mg_loop *loop)
{
    return loop->scratch;
}

void mg_loop_note_foreign(mg_loop *loop)
{
    loop->foreign_at = mg_now();
}

void mg_loop_note_woken(mg_loop *loop, const mg_woken *woken)
{
    if (!woken->waiter)
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    if (woken->waiter == loop->leader)
        return;
    loop->served_row = woken->waiter == loop->served_last ? loop->served_row + (loop->served_row < SERVED_ROW) : 1;
    loop->served_last = woken->waiter;
    int alarmed = atomic_load(&loop->attendant_alarmed) && loop->leader == atomic_load(&loop->attendant);
    if (alarmed || mg_now() - woken->since < SERVED_SOON)
        loop->served_other = 1;
}

void mg_loop_set_hot(mg_loop *loop, int (*fn)(void *arg), void *arg)
{
    loop->hot_fn = fn;
    loop->hot_arg = arg;
}

mg_landing *mg_loop_landing(mg_loop *loop)
{
    return &loop->landing;
}

void *mg_loop_hot(mg_loop *loop)
{
    return loop->hot_arg;
}

void mg_loop_get_stats(mg_loop *loop, mg_loop_stats *out)
{
#define GET(name) out->name = atomic_load_explicit(&loop->name, memory_order_relaxed)
    GET(turns);
    GET(leads);
    GET(attends);
    GET(ticks);
    GET(arriving);
    GET(yields);
    GET(spins_won);
    GET(spins_lost);
    GET(kicks);
    GET(wakes);
    GET(holds);
#undef GET
    out->landed = atomic_load_explicit(&loop->landing.taken, memory_order_relaxed);
    out->events = atomic_load(&loop->n_events);
    out->followers = (uint32_t) atomic_load(&loop->n_followers);
}
