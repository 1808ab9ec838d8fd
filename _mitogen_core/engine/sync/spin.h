/* Polling for some microseconds before a sleep: when that pays, and for how long.
 *
 * DESIGN. To wake a thread that sleeps on another core costs more than most answers take. So a thread whose last waits were all short
 * polls first. It does so only where it may use more cores than one and the machine has little else to run, for a bounded time. Each spin in vain
 * quadruples how many short waits it takes until the next try, and one that was not makes up for half of that: where
 * others need the cores, or the kernel packs both ends on one, spinning fades out by itself.
 *
 * Who answers may be on the spinner's own core all the same, so a leader yields again and again while it spins. A yield that takes long went
 * to somebody else, and counts as a spin in vain.
 *
 * Where a thread may use one core only, whoever it waits for cannot answer while it polls. If that is a thread of the same process, to let
 * it run once before the sleep saves both of them a wake: it is likely to have been ready. */
#ifndef MG_SPIN_H
#define MG_SPIN_H

#include <stdint.h>

/* What a waiting thread may do instead of sleeping, with regard to others. */
typedef enum { MG_ROOM_NONE, MG_ROOM_TO_SPIN, MG_ROOM_TO_YIELD } mg_room;

/* What is known of earlier waits; of one thread, which alone touches it. All zero at first. */
typedef struct {
    int short_waits; /* rises with each wait that ended soon; no spinning until it has risen enough */
    int losses;      /* rises by two with each spin in vain, falls by one with each that was not */
    mg_room room;    /* as seen at looked_at */
    int64_t looked_at;
} mg_spin;

/* The switch for the whole process: for how long a thread may poll, in nanoseconds; 0 is off. Any thread. */
void mg_spin_set(int64_t nanoseconds);

/* For tests: the room that there is; -1: look. */
void mg_spin_assume_room(int room);

/* A wait has taken so many nanoseconds. */
void mg_spin_learn(mg_spin *h, int64_t took);

/* Until when to poll, in a wait that begins to sleep at `now`; 0: not at all. */
int64_t mg_spin_until(mg_spin *h, int64_t now);

/* Whether to let others run once instead. */
int mg_spin_yields(mg_spin *h, int64_t now);

/* Whether this process may use one core only, as of a moment ago. Any thread. */
int mg_spin_one_core(int64_t now);

/* How that went. */
void mg_spin_won(mg_spin *h);
void mg_spin_lost(mg_spin *h);

/* Between two looks. */
static inline void mg_spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

#endif
