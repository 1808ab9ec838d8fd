#include "spin.h"

#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "clock.h"

/* Waits that end within this are short: spinning for them may pay. Blocking ping-pong between two cores takes half of it. */
#define SHORT_WAIT          (MG_SECOND / 5000)
#define SHORT_WAITS_MAX     8
#define SHORT_WAITS_TO_SPIN 3
#define LOSSES_MAX          10

/* How many cores we may use is asked again this often: an affinity mask can change. */
#define CORES_FRESH MG_SECOND

static _Atomic int64_t spin_ns = 50000;

void mg_spin_set(int64_t nanoseconds)
{
    atomic_store(&spin_ns, nanoseconds);
}

void mg_spin_learn(mg_spin *h, int64_t since)
{
    if (mg_now() - since > SHORT_WAIT) {
        if (h->short_waits > 0)
            h->short_waits = 0;
    } else if (h->short_waits < SHORT_WAITS_MAX)
        h->short_waits++;
}

static int cores_allowed(mg_spin *h, int64_t now)
{
    if (!h->cores || now - h->cores_at > CORES_FRESH) {
        h->cores_at = now;
#if defined(__linux__)
        cpu_set_t set;
        h->cores = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
#else
        h->cores = (int) sysconf(_SC_NPROCESSORS_ONLN);
#endif
    }
    return h->cores;
}

int64_t mg_spin_until(mg_spin *h, int64_t now)
{
    int64_t limit = atomic_load_explicit(&spin_ns, memory_order_relaxed);
    return limit && h->short_waits >= SHORT_WAITS_TO_SPIN && cores_allowed(h, now) > 1 ? now + limit : 0;
}

void mg_spin_won(mg_spin *h)
{
    if (h->losses > 0)
        h->losses--;
}

void mg_spin_lost(mg_spin *h)
{
    h->losses += 2;
    if (h->losses > LOSSES_MAX)
        h->losses = LOSSES_MAX;
    h->short_waits = SHORT_WAITS_TO_SPIN - (2 << h->losses);
}
