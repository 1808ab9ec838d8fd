/* The leader's work besides its descriptors: tasks that other threads have posted, frames that
 * are corked for a moment, and slow polls. For the files of this folder; the rest of the engine
 * asks for work by loop.h. */
#ifndef MG_LEADER_WORK_H
#define MG_LEADER_WORK_H

#include <stdint.h>

#include "loop/loop_ref.h"

/* Leader only. Runs what is due. */
void mg_work_run(mg_loop *loop, int64_t now);

/* Leader only. `until` is the end of the sleep that the leader intends; returns an earlier one
 * if work is due before. */
int64_t mg_work_sleep_until(mg_loop *loop, int64_t now, int64_t until);

/* Runs all that is corked. Any thread, with no lock held. Whether there was anything. */
int mg_work_uncork(mg_loop *loop);

/* In a child made by fork: forgets all work. */
void mg_work_forked(mg_loop *loop);

#endif
