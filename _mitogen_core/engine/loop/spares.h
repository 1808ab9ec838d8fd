/* Memory that is kept for the next large message: spare blocks, and a place to land in. It is dropped once the loop has
 * been idle for a second. For the files of this folder. */
#ifndef MG_SPARES_H
#define MG_SPARES_H

#include <stdint.h>

#include "loop/state.h"

/* The leader, awake: until when it may sleep that would sleep until then. Drops the memory that was kept for a message
 * that has not come. */
int64_t mg_spares_sleep_until(mg_loop *loop, int64_t now, int64_t until);

/* The leader is about to sleep until then. 0: not yet, something is there that it would have to drop. */
int mg_spares_leave(mg_loop *loop, int64_t now, int64_t until);

/* The leader is awake, and looks after them again. */
void mg_spares_watch(mg_loop *loop);

#endif
