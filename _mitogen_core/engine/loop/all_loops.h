/* The list of all loops of the process, for a fork. For the files of this folder. */
#ifndef MG_ALL_LOOPS_H
#define MG_ALL_LOOPS_H

#include "loop/loop_ref.h"

/* Held during a fork. */
void mg_loops_lock(void);
void mg_loops_unlock(void);
void mg_loops_init_lock(void); /* in a child made by fork, when the thread that forked had locked it */
/* REQUIRES(that lock), as all below. Adds a new loop. A loop that ends takes its own node out. */
void mg_loops_add(mg_loop *loop);
/* A loop that is not held for the fork yet, with a reference; and one that is held. NULL when
 * there is none. */
mg_loop *mg_loops_first_free(void);
mg_loop *mg_loops_first_held(void);
/* Calls fn for each, also for one whose last reference has gone and that is about to leave the
 * list. */
void mg_loops_visit(void (*fn)(mg_loop *loop));

#endif
