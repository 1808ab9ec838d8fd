#include "loop/poller.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#include "base/alloc.h"
#include "base/clock.h"

struct mg_poller {
    _Atomic uint32_t refs;
    mg_poller_owner owner; /* set once */
    struct ev_loop *ev;    /* of the thread that takes the turns; NULL once closed */
    ev_timer timer;        /* likewise, as all without a note */
    ev_io kicked;
    int may_sleep;         /* this turn may */
    int called, timed_out; /* in this turn */
    _Atomic int asleep;    /* written by the thread that takes the turn */
    pthread_mutex_t kick_mu;
    int kick_out, kick_in; /* written under kick_mu: a byte, or a count, in here ends a sleep. -1 once closed */
};

/* --- the kick --- */

#if defined(__linux__)

static int open_kick(mg_poller *p)
{
    p->kick_out = p->kick_in = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return p->kick_out < 0 ? -1 : 0;
}

#else

static int open_kick(mg_poller *p)
{
    int fds[2];
    if (pipe(fds))
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    p->kick_out = fds[0];
    p->kick_in = fds[1];
    return 0;
}

#endif

static void close_kick(mg_poller *p)
{
    if (p->kick_out >= 0)
        close(p->kick_out);
    if (p->kick_in >= 0 && p->kick_in != p->kick_out)
        close(p->kick_in);
    p->kick_out = p->kick_in = -1;
}

static void write_kick(mg_poller *p)
{
    uint64_t one = 1;
    ssize_t ignored = write(p->kick_in, &one, sizeof one); /* full: then the sleeper will wake soon */
    (void) ignored;
}

int mg_poller_kick(mg_poller *p)
{
    if (!atomic_load(&p->asleep))
        return 0;
    pthread_mutex_lock(&p->kick_mu);
    if (p->kick_in >= 0)
        write_kick(p);
    pthread_mutex_unlock(&p->kick_mu);
    return 1;
}

static void on_kick(struct ev_loop *ev, ev_io *io, int events)
{
    mg_poller *p = ev_userdata(ev);
    uint64_t counts[8];
    (void) events;
    p->called++;
    while (read(io->fd, counts, sizeof counts) == (ssize_t) sizeof counts)
        continue;
}

/* --- turns --- */

static void on_timer(struct ev_loop *ev, ev_timer *timer, int events)
{
    (void) timer, (void) events;
    ((mg_poller *) ev_userdata(ev))->timed_out = 1;
}

/* libev calls these two just before and after it sleeps, or looks without sleeping. */
static void on_sleep(struct ev_loop *ev)
{
    mg_poller *p = ev_userdata(ev);
    if (!p->may_sleep)
        return;
        /* asleep is set first. So a reason to stay awake is either seen by may_sleep below, or
         * came later: then mg_poller_kick sees asleep. */
    atomic_store(&p->asleep, 1);
    if (!p->owner.may_sleep(p->owner.arg))
        write_kick(p);
}

static void on_woken(struct ev_loop *ev)
{
    mg_poller *p = ev_userdata(ev);
    if (!p->may_sleep)
        return;
    atomic_store(&p->asleep, 0);
    p->owner.woken(p->owner.arg);
}

int mg_poller_is_asleep(const mg_poller *p)
{
    return atomic_load(&p->asleep);
}

int mg_poller_turn(mg_poller *p, int sleep, int64_t now, int64_t deadline)
{
    if (!p->ev)
        return 0;
    /* watches that were ready in mg_poller_settle are called first; the thread might sleep for
     * one of them */
    sleep = sleep && !ev_pending_count(p->ev);
    int is_timed = sleep && deadline != MG_NEVER;
    if (is_timed) {
        ev_now_update(p->ev);
        ev_timer_set(&p->timer, (double) (deadline - now) / 1e9, 0.);
        ev_timer_start(p->ev, &p->timer);
    }
    p->called = p->timed_out = 0;
    p->may_sleep = sleep;
    ev_run(p->ev, sleep ? EVRUN_ONCE : EVRUN_NOWAIT);
    p->may_sleep = 0;
    if (is_timed)
        ev_timer_stop(p->ev, &p->timer);
    return (p->timed_out ? MG_TURN_TIMEOUT : 0) | (p->called ? MG_TURN_CALLED : 0);
}

static void call_nothing(struct ev_loop *ev)
{
    (void) ev; /* ready watches stay pending until the next turn */
}

void mg_poller_settle(mg_poller *p)
{
    if (!p->ev)
        return;
    ev_set_invoke_pending_cb(p->ev, call_nothing);
    ev_run(p->ev, EVRUN_NOWAIT);
    ev_set_invoke_pending_cb(p->ev, ev_invoke_pending);
}

void mg_poller_retire(mg_poller *p, int fd)
{
    if (p->ev && dup2(p->kick_out, fd) >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* --- life --- */

/* Without a free descriptor libev would choose poll(), and abort later. */
static struct ev_loop *open_ev(const mg_poller *p)
{
    unsigned slow = EVBACKEND_SELECT | EVBACKEND_POLL, good = ev_recommended_backends() & ~slow;
    int probe = fcntl(p->kick_out, F_DUPFD_CLOEXEC, 0);
    if (probe < 0)
        return NULL;
    close(probe);
    struct ev_loop *ev = good ? ev_loop_new(good | EVFLAG_NOENV) : NULL;
    if (ev)
        return ev;
    probe = fcntl(p->kick_out, F_DUPFD_CLOEXEC, 0);
    if (probe < 0)
        return NULL;
    close(probe);
    return ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV); /* where the system forbids the better backends */
}

mg_poller *mg_poller_new(const mg_poller_owner *owner)
{
    mg_poller *p = mg_calloc(1, sizeof *p);
    if (!p) {
        errno = ENOMEM;
        return NULL;
    }
    atomic_init(&p->refs, 1);
    p->owner = *owner;
    pthread_mutex_init(&p->kick_mu, NULL);
    p->kick_out = p->kick_in = -1;
    p->ev = open_kick(p) ? NULL : open_ev(p);
    if (!p->ev) {
        int err = errno;
        mg_poller_unref(p);
        errno = err;
        return NULL;
    }
    ev_set_userdata(p->ev, p);
    ev_set_loop_release_cb(p->ev, on_sleep, on_woken);
    ev_timer_init(&p->timer, on_timer, 0, 0);
    ev_io_init(&p->kicked, on_kick, p->kick_out, EV_READ);
    ev_io_start(p->ev, &p->kicked);
    mg_poller_settle(p);
    return p;
}

mg_poller *mg_poller_ref(mg_poller *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

int mg_poller_close(mg_poller *p)
{
    pthread_mutex_lock(&p->kick_mu);
    int was = p->ev != NULL;
    if (was)
        ev_loop_destroy(p->ev);
    p->ev = NULL;
    close_kick(p);
    pthread_mutex_unlock(&p->kick_mu);
    return was;
}

void mg_poller_unref(mg_poller *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    mg_poller_close(p);
    pthread_mutex_destroy(&p->kick_mu);
    mg_free(p);
}

void mg_poller_forked(mg_poller *p)
{
    pthread_mutex_init(&p->kick_mu, NULL);
    atomic_store(&p->asleep, 0);
    mg_poller_close(p);
}

/* --- watches --- */

struct mg_watch {
    ev_io io;
    mg_poller *poller; /* with a reference */
    void (*fn)(void *arg, int events);
    void *arg;
};

static void on_io(struct ev_loop *ev, ev_io *io, int events)
{
    mg_watch *w = io->data;
    ((mg_poller *) ev_userdata(ev))->called++;
    w->fn(w->arg, (events & (EV_READ | EV_ERROR) ? MG_READ : 0) | (events & EV_WRITE ? MG_WRITE : 0));
}

mg_watch *mg_poller_watch(mg_poller *p, int fd, int events, void (*fn)(void *arg, int events), void *arg)
{
    mg_watch *w = mg_calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->poller = mg_poller_ref(p);
    w->fn = fn;
    w->arg = arg;
    ev_io_init(&w->io, on_io, fd, (events & MG_READ ? EV_READ : 0) | (events & MG_WRITE ? EV_WRITE : 0));
    w->io.data = w;
    return w;
}

mg_err mg_watch_start(mg_watch *w)
{
    if (!w->poller->ev || ev_is_active(&w->io))
        return MG_OK;
    if (fcntl(w->io.fd, F_GETFD) < 0)
        return MG_EIO;
    ev_io_start(w->poller->ev, &w->io);
    return MG_OK;
}

void mg_watch_stop(mg_watch *w)
{
    if (w->poller->ev)
        ev_io_stop(w->poller->ev, &w->io);
}

int mg_watch_active(const mg_watch *w)
{
    return ev_is_active(&w->io);
}

void mg_watch_free(mg_watch *w)
{
    if (!w)
        return;
    mg_poller_unref(w->poller);
    mg_free(w);
}
