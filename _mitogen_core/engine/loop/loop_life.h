/* The begin and the end of a loop. For the files of this folder; loop_ref.h has what others may
 * do. */
#ifndef MG_LOOP_LIFE_H
#define MG_LOOP_LIFE_H

#include "loop/loop_ref.h"
#include "loop/poller.h"

/* One reference, and in the list of all; or NULL with errno. */
mg_loop *mg_loop_make(const mg_poller_owner *owner);

/* Gives the poller's descriptors back. With leadership, or with no other thread about. */
void mg_loop_close_poller(mg_loop *loop);

#endif
