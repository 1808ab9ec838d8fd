/* Memory that is kept for the next large message: spare blocks, and a place to land in. It is
 * dropped once the loop has been idle for a second. For the files of this folder. */
#ifndef MG_SPARES_H
#define MG_SPARES_H

#include <stdint.h>

#include "loop/loop_body.h"

/* The leader, awake. `until` is the end of the sleep that it intends; returns an earlier one if
 * spares are to be dropped before. Drops those that were kept for long enough. */
int64_t mg_spares_sleep_until(mg_loop *loop, int64_t now, int64_t until);

/* The leader is about to sleep. Returns 0 if it must not yet, since there is something that it
 * would have to drop. */
int mg_spares_leave(mg_loop *loop, int64_t now, int64_t until);

/* The leader is awake, and looks after them again. */
void mg_spares_watch(mg_loop *loop);

#endif
