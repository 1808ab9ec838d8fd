#include "sync/waiter.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>

#include "base/alloc.h"
#include "base/clock.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static pthread_mutex_t free_mu = PTHREAD_MUTEX_INITIALIZER;
static mg_ilist free_list = {{&free_list.ends, &free_list.ends}}; /* waiters without a thread; guarded by free_mu */
static pthread_key_t own_key;
static pthread_once_t own_once = PTHREAD_ONCE_INIT;
static int own_key_ok; /* set once, in own_once */

static void sleep_init(mg_waiter *w);

static void give_back(void *arg)
{
    mg_waiter *w = arg;
    pthread_mutex_lock(&free_mu);
    mg_ilist_prepend(&free_list, &w->node);
    pthread_mutex_unlock(&free_mu);
}

static void before_fork(void)
{
    pthread_mutex_lock(&free_mu);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&free_mu);
}

/* A thread of the parent process may have locked the mutex that a waiter sleeps with. */
static void after_fork_child(void)
{
    mg_waiter *own = own_key_ok ? pthread_getspecific(own_key) : NULL;
    if (own)
        sleep_init(own);
    for (mg_node *node = mg_ilist_first(&free_list); node; node = mg_ilist_next(&free_list, node))
        sleep_init(MG_CONTAINER(node, mg_waiter, node));
    pthread_mutex_unlock(&free_mu);
}

static void make_key(void)
{
    own_key_ok = pthread_key_create(&own_key, give_back) == 0;
    pthread_atfork(before_fork, after_fork, after_fork_child);
}

/* A waiter that a thread has left behind, or a new one; NULL when memory is out. */
static mg_waiter *take_one(void)
{
    pthread_mutex_lock(&free_mu);
    mg_node *left = mg_ilist_pop(&free_list);
    pthread_mutex_unlock(&free_mu);
    if (left)
        return MG_CONTAINER(left, mg_waiter, node);
    mg_waiter *w = mg_calloc(1, sizeof *w);
    if (w)
        sleep_init(w);
    return w;
}

mg_waiter *mg_waiter_self(void)
{
    pthread_once(&own_once, make_key);
    if (!own_key_ok)
        return NULL;
    mg_waiter *w = pthread_getspecific(own_key);
    if (w)
        return w;
    w = take_one();
    if (!w)
        return NULL;
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

/* The raw system call: the C library's waits either hide EINTR (condition variables) or know
 * only the wall clock (old semaphores). The kernel's numbers, as <linux/futex.h> is not there
 * where only a C library is, such as musl. */
#define WAIT_BITSET 9
#define WAKE_BITSET 10
#define PRIVATE     128
#define ANY         0xffffffffu

/* The time as the kernel reads it. It is not struct timespec on a 32-bit system whose time_t has
 * 64 bits. */
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

static void sleep_init(mg_waiter *w)
{
    (void) w;
}

static void wake_parked(mg_waiter *w)
{
    futex(&w->word, WAKE_BITSET, 1, NULL);
}

static mg_err sleep_parked(mg_waiter *w, int64_t deadline)
{
    int64_t sec = deadline / MG_SECOND;
    /* always with a timeout: without one, a signal handler with SA_RESTART would not end the
     * call */
    kernel_time until = {sec < LATEST ? sec : LATEST, deadline % MG_SECOND};
    if (futex(&w->word, WAIT_BITSET, MG_WAITER_PARKED, &until) == 0)
        return MG_OK;
    return errno == ETIMEDOUT ? MG_ETIMEDOUT : errno == EINTR ? MG_EINTR : MG_OK;
}

#else

/* Elsewhere a thread sleeps on a condition variable of its own, in slices of 50 ms, so that a
 * signal is looked at in time. */
static void sleep_init(mg_waiter *w)
{
    pthread_mutex_init(&w->mu, NULL);
    w->woken = (pthread_cond_t) PTHREAD_COND_INITIALIZER;
}

static void wake_parked(mg_waiter *w)
{
    pthread_mutex_lock(&w->mu);
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->mu);
}

static mg_err sleep_parked(mg_waiter *w, int64_t deadline)
{
    const int64_t slice = MG_SECOND / 20;
    int64_t left = deadline == MG_NEVER ? slice + 1 : deadline - mg_now();
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
    int timed_out = 0;
    pthread_mutex_lock(&w->mu);
    while (!timed_out && atomic_load(&w->word) == MG_WAITER_PARKED)
        timed_out = pthread_cond_timedwait(&w->woken, &w->mu, &ts) != 0;
    pthread_mutex_unlock(&w->mu);
    if (!timed_out)
        return MG_OK;
    return err == MG_ETIMEDOUT && mg_now() < deadline ? MG_EINTR : err; /* the wall clock was set */
}

#endif

void mg_waiter_unpark(mg_waiter *w)
{
    wake_parked(w);
}

/* only: kick the thread only if it sleeps in this place; NULL: in any. */
static void wake(mg_waiter *w, const mg_kick *only)
{
    if (atomic_exchange(&w->word, MG_WAITER_TOKEN) == MG_WAITER_PARKED)
        wake_parked(w);
    else if (w != mg_waiter_self()) {
        mg_kick *elsewhere = atomic_load(&w->elsewhere);
        if (elsewhere && (!only || elsewhere == only))
            elsewhere->fn(elsewhere);
    }
}

void mg_waiter_wake(mg_waiter *w)
{
    wake(w, NULL);
}

void mg_waiter_wake_here(mg_waiter *w, mg_kick *here)
{
    wake(w, here);
}

int mg_waiter_wake_later(mg_waiter *w)
{
    /* a leader that has read its own answer looks at its sleep anyway; a token would cost it an
     * empty turn */
    if (w == mg_waiter_self())
        return 0;
    if (atomic_exchange(&w->word, MG_WAITER_TOKEN) == MG_WAITER_PARKED)
        return 1;
    mg_kick *elsewhere = atomic_load(&w->elsewhere);
    if (elsewhere)
        elsewhere->fn(elsewhere);
    return 0;
}

mg_err mg_waiter_park(mg_waiter *w, int64_t deadline)
{
    uint32_t expected = MG_WAITER_AWAKE;
    if (!atomic_compare_exchange_strong(&w->word, &expected, MG_WAITER_PARKED)) {
        atomic_store(&w->word, MG_WAITER_AWAKE);
        return MG_OK;
    }
    mg_err err = sleep_parked(w, deadline);
    if (atomic_exchange(&w->word, MG_WAITER_AWAKE) == MG_WAITER_TOKEN)
        return MG_OK; /* the token came together with the signal or the deadline */
    return err == MG_OK ? MG_EINTR : err;
}
