/* The clock of all deadlines: monotonic nanoseconds. */
#ifndef MG_CLOCK_H
#define MG_CLOCK_H

#include <stdint.h>
#include <time.h>

#define MG_NEVER  INT64_MAX /* a deadline that does not come */
#define MG_SECOND INT64_C(1000000000)

static inline int64_t mg_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t) ts.tv_sec * MG_SECOND + ts.tv_nsec;
}

/* mg_now, a few milliseconds behind and much cheaper: for times that only people read. */
static inline int64_t mg_now_coarse(void)
{
#if defined(CLOCK_MONOTONIC_COARSE)
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (int64_t) ts.tv_sec * MG_SECOND + ts.tv_nsec;
#else
    return mg_now();
#endif
}

/* Nanoseconds that this thread has run for; a system call. */
static inline int64_t mg_thread_cpu(void)
{
    struct timespec ts;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts))
        return 0;
    return (int64_t) ts.tv_sec * MG_SECOND + ts.tv_nsec;
}

/* now + seconds, with anything too far away (or not a number) becoming MG_NEVER. */
static inline int64_t mg_deadline(double seconds)
{
    if (!(seconds < 4e9))
        return MG_NEVER;
    if (seconds < 0)
        seconds = 0;
    return mg_now() + (int64_t) (seconds * 1e9);
}

#endif
