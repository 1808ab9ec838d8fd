#include "sync/waiter.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/clock.h"

#if defined(__linux__)
#include <poll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
#endif

static pthread_mutex_t free_mu = PTHREAD_MUTEX_INITIALIZER;
static mg_waiter *free_list; /* guarded by free_mu */
static pthread_key_t own_key;
static pthread_once_t own_once = PTHREAD_ONCE_INIT;
static int own_key_ok; /* set once, in own_once */

static void close_alarm(mg_waiter *w);
static void forget_sleepers(void);

static void give_back(void *arg)
{
    mg_waiter *w = arg;
    close_alarm(w);
    pthread_mutex_lock(&free_mu);
    w->next_free = free_list;
    free_list = w;
    pthread_mutex_unlock(&free_mu);
}

static void after_fork_child(void)
{
    pthread_mutex_init(&free_mu, NULL);
    forget_sleepers();
    for (mg_waiter *w = free_list; w; w = w->next_free)
        pthread_mutex_init(&w->alarm_mu, NULL);
}

static void make_key(void)
{
    own_key_ok = pthread_key_create(&own_key, give_back) == 0;
    pthread_atfork(NULL, NULL, after_fork_child);
}

mg_waiter *mg_waiter_self(void)
{
    pthread_once(&own_once, make_key);
    if (!own_key_ok)
        return NULL;
    mg_waiter *w = pthread_getspecific(own_key);
    if (w)
        return w;
    pthread_mutex_lock(&free_mu);
    w = free_list;
    if (w)
        free_list = w->next_free;
    pthread_mutex_unlock(&free_mu);
    if (!w) {
        w = mg_calloc(1, sizeof *w);
        if (!w)
            return NULL;
        pthread_mutex_init(&w->alarm_mu, NULL);
        w->alarm_fd = -1;
    }
    w->spin.short_waits = 0;
    atomic_store_explicit(&w->thread, (uintptr_t) pthread_self(), memory_order_relaxed);
    if (pthread_setspecific(own_key, w)) {
        give_back(w);
        return NULL;
    }
    return w;
}

void mg_waiter_take_token(mg_waiter *w)
{
    /* PARKED is not possible here: only this thread sets it, and takes it back before it goes on */
    if (atomic_load_explicit(&w->word, memory_order_relaxed) == MG_WAITER_TOKEN)
        atomic_exchange(&w->word, MG_WAITER_AWAKE);
}

#if defined(__linux__)

/* The raw system call: the C library's waits either hide EINTR (condition variables) or know only the wall clock (old
 * semaphores). The kernel's numbers, as <linux/futex.h> is not there where only a C library is, such as musl. */
#define WAIT_BITSET 9
#define WAKE_BITSET 10
#define PRIVATE     128
#define ANY         0xffffffffu

/* What the kernel takes, which is no timespec where a 32-bit system counts seconds in 64 bits. */
#if defined(SYS_futex)
#define FUTEX SYS_futex
typedef struct {
    long sec, nsec;
} kernel_time;
#define LATEST (LONG_MAX > INT32_MAX ? MG_NEVER / MG_SECOND : INT32_MAX)
#else
#define FUTEX  SYS_futex_time64
typedef struct {
    int64_t sec, nsec;
} kernel_time;
#define LATEST (MG_NEVER / MG_SECOND)
#endif

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const kernel_time *until)
{
    return syscall(FUTEX, (void *) word, op | PRIVATE, value, until, NULL, ANY);
}

/* REQUIRES(w->alarm_mu). */
static void set_timer_locked(mg_waiter *w, int64_t nanoseconds)
{
    struct itimerspec spec = {.it_value = {nanoseconds / MG_SECOND, nanoseconds % MG_SECOND}};
    timerfd_settime(w->alarm_fd, 0, &spec, NULL);
    w->alarm_set = nanoseconds != 0;
}

static void ring(mg_waiter *w)
{
    pthread_mutex_lock(&w->alarm_mu);
    if (w->alarm_fd >= 0) {
        w->rung = 1;
        set_timer_locked(w, 1);
    }
    pthread_mutex_unlock(&w->alarm_mu);
}

static void wake_parked(mg_waiter *w)
{
    if (atomic_load(&w->on_alarm))
        ring(w);
    else
        futex(&w->word, WAKE_BITSET, 1, NULL);
}

static mg_err sleep_parked(mg_waiter *w, int64_t deadline)
{
    int64_t sec = deadline / MG_SECOND;
    /* always with a timeout: without one, a signal handler with SA_RESTART would not end the call */
    kernel_time until = {sec < LATEST ? sec : LATEST, deadline % MG_SECOND};
    if (futex(&w->word, WAIT_BITSET, MG_WAITER_PARKED, &until) == 0)
        return MG_OK;
    return errno == ETIMEDOUT ? MG_ETIMEDOUT : errno == EINTR ? MG_EINTR : MG_OK;
}

int mg_waiter_open_alarm(mg_waiter *w)
{
    pthread_mutex_lock(&w->alarm_mu);
    if (w->alarm_fd < 0)
        w->alarm_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int ok = w->alarm_fd >= 0;
    pthread_mutex_unlock(&w->alarm_mu);
    return ok;
}

static void close_alarm(mg_waiter *w)
{
    pthread_mutex_lock(&w->alarm_mu);
    if (w->alarm_fd >= 0)
        close(w->alarm_fd);
    w->alarm_fd = -1;
    w->alarm_set = w->rung = 0;
    pthread_mutex_unlock(&w->alarm_mu);
}

void mg_waiter_set_alarm(mg_waiter *w, int64_t nanoseconds)
{
    pthread_mutex_lock(&w->alarm_mu);
    if (w->alarm_fd >= 0 && !w->rung)
        set_timer_locked(w, nanoseconds);
    pthread_mutex_unlock(&w->alarm_mu);
}

/* Takes what the timer has to tell, and stops it. Whether it was set and went off. */
static int take_alarm(mg_waiter *w)
{
    uint64_t times;
    int off = read(w->alarm_fd, &times, sizeof times) > 0; /* which only this thread closes */
    pthread_mutex_lock(&w->alarm_mu);
    off = off && !w->rung;
    if (w->alarm_set && !off)
        set_timer_locked(w, 0);
    w->alarm_set = w->rung = 0;
    pthread_mutex_unlock(&w->alarm_mu);
    return off;
}

/* The same as sleep_parked. */
static mg_err sleep_alarmed(mg_waiter *w, int64_t deadline)
{
    struct pollfd fd = {w->alarm_fd, POLLIN, 0};
    struct timespec left, *timeout = NULL;
    if (deadline != MG_NEVER) {
        int64_t ns = deadline - mg_now();
        if (ns < 0)
            ns = 0;
        left.tv_sec = ns / MG_SECOND;
        left.tv_nsec = ns % MG_SECOND;
        timeout = &left;
    }
    int n = ppoll(&fd, 1, timeout, NULL);
    return take_alarm(w) || n == 0 ? MG_ETIMEDOUT : MG_EINTR;
}

static void forget_sleepers(void)
{
}

#else

int mg_waiter_open_alarm(mg_waiter *w)
{
    (void) w;
    return 0;
}

static void close_alarm(mg_waiter *w)
{
    (void) w;
}

void mg_waiter_set_alarm(mg_waiter *w, int64_t nanoseconds)
{
    (void) w, (void) nanoseconds;
}

/* Elsewhere one condition variable serves all threads, in slices of 50 ms, so that a signal is looked at in time. */
static pthread_mutex_t park_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t park_cond = PTHREAD_COND_INITIALIZER;

/* In a child made by fork: who had the lock, and who slept, is in the other process. */
static void forget_sleepers(void)
{
    pthread_mutex_init(&park_mu, NULL);
    park_cond = (pthread_cond_t) PTHREAD_COND_INITIALIZER;
}

static void wake_parked(mg_waiter *w)
{
    (void) w;
    pthread_mutex_lock(&park_mu);
    pthread_cond_broadcast(&park_cond);
    pthread_mutex_unlock(&park_mu);
}

static mg_err sleep_parked(mg_waiter *w, int64_t deadline)
{
    const int64_t slice = MG_SECOND / 20;
    int64_t now = mg_now(), left = deadline == MG_NEVER ? slice : deadline - now;
    if (left <= 0)
        return MG_ETIMEDOUT;
    mg_err err = left > slice ? MG_EINTR : MG_ETIMEDOUT;
    if (left > slice)
        left = slice;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_nsec += (long) left;
    ts.tv_sec += ts.tv_nsec / MG_SECOND;
    ts.tv_nsec %= MG_SECOND;
    pthread_mutex_lock(&park_mu);
    while (atomic_load(&w->word) == MG_WAITER_PARKED)
        if (pthread_cond_timedwait(&park_cond, &park_mu, &ts)) {
            pthread_mutex_unlock(&park_mu);
            return deadline == MG_NEVER ? MG_EINTR : err;
        }
    pthread_mutex_unlock(&park_mu);
    return MG_OK;
}

#endif

uint32_t mg_waiter_set_token(mg_waiter *w)
{
    return atomic_exchange(&w->word, MG_WAITER_TOKEN);
}

void mg_waiter_unpark(mg_waiter *w)
{
    wake_parked(w);
}

int mg_waiter_notify(mg_waiter *w)
{
    if (mg_waiter_set_token(w) == MG_WAITER_PARKED) {
        wake_parked(w);
        return 0;
    }
    return atomic_load(&w->leading) != NULL;
}

static mg_err park(mg_waiter *w, int64_t deadline, mg_err (*sleep)(mg_waiter *, int64_t))
{
    uint32_t expected = MG_WAITER_AWAKE;
    if (!atomic_compare_exchange_strong(&w->word, &expected, MG_WAITER_PARKED)) {
        atomic_store(&w->word, MG_WAITER_AWAKE);
        return MG_OK;
    }
    mg_err err = sleep(w, deadline);
    if (atomic_exchange(&w->word, MG_WAITER_AWAKE) == MG_WAITER_TOKEN)
        return MG_OK; /* the token came together with the signal or the deadline */
    return err == MG_OK ? MG_EINTR : err;
}

mg_err mg_waiter_park(mg_waiter *w, int64_t deadline)
{
    return park(w, deadline, sleep_parked);
}

#if defined(__linux__)

mg_err mg_waiter_park_alarmed(mg_waiter *w, int64_t deadline)
{
    if (w->alarm_fd < 0) /* only this thread changes it */
        return mg_waiter_park(w, deadline);
    atomic_store(&w->on_alarm, 1);
    mg_err err = park(w, deadline, sleep_alarmed);
    atomic_store(&w->on_alarm, 0);
    return err;
}

#else

mg_err mg_waiter_park_alarmed(mg_waiter *w, int64_t deadline)
{
    return mg_waiter_park(w, deadline);
}

#endif

void mg_waiter_forked(mg_waiter *w)
{
    pthread_mutex_init(&w->alarm_mu, NULL);
    close_alarm(w);
}
