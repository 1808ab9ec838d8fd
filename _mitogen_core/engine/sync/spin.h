/* Polling for some microseconds before a sleep: when that pays, for how long, and how.
 *
 * DESIGN. To wake a thread that sleeps on another core costs more than most answers take. So a
 * thread whose last waits were all short polls first. It does so only where it may use more
 * cores than one and the machine has little else to run, for a bounded time. Each spin in vain
 * quadruples how many short waits it takes until the next try, and each spin that was not in
 * vain makes up for half of that: where others need the cores, or the kernel packs both ends on
 * one, spinning fades out by itself.
 *
 * The thread that answers may be on the spinner's own core all the same, so a leader yields
 * again and again while it spins. A yield that took long gave the core to an unrelated process,
 * and the spin counts as one in vain.
 *
 * Where a thread may use one core only, the thread it waits for cannot answer while it polls. If
 * that is a thread of the same process, to let it run once before the sleep saves both of them a
 * wake: it is likely to have been ready. */
#ifndef MG_SPIN_H
#define MG_SPIN_H

#include <stdint.h>

/* How a waiting thread may spend its time instead of sleeping, as the load of the machine
 * allows. */
typedef enum { MG_ROOM_NONE, MG_ROOM_TO_SPIN, MG_ROOM_TO_YIELD } mg_room;

/* Memory of the earlier waits of one thread, which alone touches it. All zero at first. */
typedef struct {
    int short_waits; /* rises with each wait that ended soon; no spinning until it has risen enough */
    int losses;      /* rises by two with each spin in vain, falls by one with each that was not */
    mg_room room;    /* as seen at looked_at */
    int64_t looked_at;
} mg_spin;

/* The switch for the whole process: for how long a thread may poll, in nanoseconds; 0 is off.
 * Any thread. */
void mg_spin_set(int64_t nanoseconds);

/* For tests: the room to assume (MG_ROOM_); -1: look. */
void mg_spin_assume_room(int room);

/* A wait has taken so many nanoseconds. */
void mg_spin_learn(mg_spin *h, int64_t took);

/* Whether this process may use one core only, as of a moment ago. Any thread. */
int mg_spin_one_core(int64_t now);

/* --- one spin --- */

/* The result of one poll. After a part the spin goes on for the next one, yields no more, and is
 * not in vain. */
typedef enum {
    MG_POLL_ON,   /* nothing yet */
    MG_POLL_PART, /* a part of it is there */
    MG_POLL_WON,  /* it is there */
    MG_POLL_STOP  /* the thread has something else to do */
} mg_polled;

/* One way to poll. */
typedef struct mg_poll {
    mg_polled (*fn)(struct mg_poll *p, unsigned round);
    unsigned yield_every; /* rounds from one yield to the next; 0: it does not yield */
    int yields_once;      /* on a single core it yields once, in place of a spin */
    int has_part;         /* MG_POLL_PART was returned, or would have been before */
    unsigned yields;      /* out: how often it did */
} mg_poll;

typedef enum {
    MG_SPUN_NOT, /* polling does not pay at present */
    MG_SPUN_WON,
    MG_SPUN_STOP,
    MG_SPUN_LOST
} mg_spun;

/* The room that a wait has which begins to sleep at `now`; MG_ROOM_NONE also where the earlier
 * waits were not short. */
mg_room mg_spin_room(mg_spin *h, int64_t now);

/* Polls, in a wait that begins to sleep at `now`, if that is likely to pay, and remembers in h
 * whether it did. */
mg_spun mg_spin_run(mg_spin *h, mg_poll *p, int64_t now);

/* Between two looks. */
static inline void mg_spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

#endif
