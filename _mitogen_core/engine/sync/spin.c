#include "sync/spin.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* Waits that end within this are short: spinning for them may pay. Blocking ping-pong between
 * two cores takes half of it. */
#define SHORT_WAIT          (MG_SECOND / 5000)
#define SHORT_WAITS_MAX     8
#define SHORT_WAITS_TO_SPIN 3
#define LOSSES_MAX          10

/* The load of the machine is looked at again this often. */
#define FRESH (MG_SECOND / 10)

/* A spin takes no time from other programs while at most this many threads want to run besides
 * one on each core: the spinner itself, and the thread that it waits for. On a single core,
 * which the spinner leaves, only the latter. */
#define OTHERS_RUNNING 2
#define OTHERS_ON_ONE  1

/* A yield that took longer than this gave the core to an unrelated process. */
#define YIELDED_LONG (MG_SECOND / 5000)

/* How long a spin goes on after a part, for the next one. */
#define NEXT_PART (MG_SECOND / 50000)

static _Atomic int64_t spin_ns = 150000;
static _Atomic int assumed = -1;

void mg_spin_set(int64_t nanoseconds)
{
    atomic_store(&spin_ns, nanoseconds);
}

void mg_spin_assume_room(int room)
{
    atomic_store(&assumed, room);
}

void mg_spin_learn(mg_spin *h, int64_t took)
{
    if (took > SHORT_WAIT) {
        if (h->short_waits > 0)
            h->short_waits = 0;
    } else if (h->short_waits < SHORT_WAITS_MAX)
        h->short_waits++;
}

#if defined(__linux__)

static int cores_allowed(void)
{
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set))
        return CPU_COUNT(&set);
    /* a machine may have more than a set can name */
    return errno == EINVAL ? (int) sysconf(_SC_NPROCESSORS_ONLN) : 1;
}

/* The number of threads of the machine that run or want to; 0 where it cannot be known. */
static int running(void)
{
    char text[128], *at;
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    /* the number before the only slash */
    at = strchr(text, '/');
    while (at && at > text && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return at ? atoi(at) : 0;
}

#else

static int cores_allowed(void)
{
    return (int) sysconf(_SC_NPROCESSORS_ONLN);
}

static int running(void)
{
    return 0;
}

#endif

static mg_room room_of(mg_spin *h, int64_t now)
{
    int room = atomic_load_explicit(&assumed, memory_order_relaxed);
    if (room >= 0)
        return (mg_room) room;
    if (!h->looked_at || now - h->looked_at > FRESH) {
        int cores = cores_allowed();
        h->looked_at = now;
        if (running() > cores + (cores > 1 ? OTHERS_RUNNING : OTHERS_ON_ONE))
            h->room = MG_ROOM_NONE;
        else
            h->room = cores > 1 ? MG_ROOM_TO_SPIN : MG_ROOM_TO_YIELD;
    }
    return h->room;
}

int mg_spin_one_core(int64_t now)
{
    /* Another thread may look at the same time, which does no harm. */
    static _Atomic int64_t looked_at;
    static _Atomic int one_core;
    int room = atomic_load_explicit(&assumed, memory_order_relaxed);
    if (room >= 0)
        return room == MG_ROOM_TO_YIELD;
    int64_t last = atomic_load_explicit(&looked_at, memory_order_relaxed);
    if (!last || now - last > FRESH) {
        atomic_store_explicit(&one_core, cores_allowed() == 1, memory_order_relaxed);
        atomic_store_explicit(&looked_at, now, memory_order_relaxed);
    }
    return atomic_load_explicit(&one_core, memory_order_relaxed);
}

mg_room mg_spin_room(mg_spin *h, int64_t now)
{
    if (!atomic_load_explicit(&spin_ns, memory_order_relaxed) || h->short_waits < SHORT_WAITS_TO_SPIN)
        return MG_ROOM_NONE;
    return room_of(h, now);
}

static void won(mg_spin *h)
{
    if (h->losses > 0)
        h->losses--;
}

static void lost(mg_spin *h)
{
    h->losses += 2;
    if (h->losses > LOSSES_MAX)
        h->losses = LOSSES_MAX;
    h->short_waits = SHORT_WAITS_TO_SPIN - (2 << h->losses);
}

/* Lets others run. Returns whether that took long. */
static int yield_long(mg_poll *p)
{
    int64_t before = mg_now();
    p->yields++;
    sched_yield();
    return mg_now() - before > YIELDED_LONG;
}

static mg_spun poll_until(mg_poll *p, int64_t now, int64_t end)
{
    for (unsigned i = 1; now < end; i++, now = mg_now()) {
        mg_polled polled = p->fn(p, i);
        if (polled == MG_POLL_WON)
            return MG_SPUN_WON;
        if (polled == MG_POLL_STOP)
            return MG_SPUN_STOP;
        if (polled == MG_POLL_PART) {
            p->has_part = 1;
            now = mg_now();
            end = end < now + NEXT_PART ? now + NEXT_PART : end;
        }
        if (p->yield_every && !p->has_part && i % p->yield_every == p->yield_every / 2 && yield_long(p))
            break;
        mg_spin_relax();
    }
    return MG_SPUN_LOST;
}

static mg_spun spin(mg_spin *h, mg_poll *p, int64_t now)
{
    mg_spun how = poll_until(p, now, now + atomic_load_explicit(&spin_ns, memory_order_relaxed));
    if (how == MG_SPUN_WON)
        won(h);
    else if (how == MG_SPUN_LOST && !p->has_part) /* a part has saved a wake, even if the rest came too late */
        lost(h);
    return how;
}

static mg_spun yield_once(mg_spin *h, mg_poll *p)
{
    int took_long = yield_long(p);
    int is_there = p->fn(p, 0) == MG_POLL_WON;
    if (is_there && !took_long)
        won(h);
    else
        lost(h); /* a sleeper would have been given the core sooner */
    return is_there ? MG_SPUN_WON : MG_SPUN_LOST;
}

mg_spun mg_spin_run(mg_spin *h, mg_poll *p, int64_t now)
{
    switch (mg_spin_room(h, now)) {
    case MG_ROOM_TO_SPIN: return spin(h, p, now);
    case MG_ROOM_TO_YIELD: return p->yields_once ? yield_once(h, p) : MG_SPUN_NOT;
    default: return MG_SPUN_NOT;
    }
}
