/* A thread with the GIL that waits for an item of a latch, or gives one to a thread that waits. */
#ifndef MG_WAITING_H
#define MG_WAITING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "loop/loop.h"
#include "module_state.h"
#include "sync/latch.h"

/* Takes an item from l, waiting for it until the deadline if `block`: 0; 1 when l is closed; -1
 * with an exception (TimeoutError, that of a signal handler). loop, which may be NULL: the one
 * that the thread may lead meanwhile. */
int mg_wait_item(mg_state *st, mg_latch *l, mg_loop *loop, int64_t deadline, int block, mg_item *item);

/* mg_latch_push, but the GIL is dropped while a parked thread is woken: that one wants it next. */
mg_err mg_push_item(mg_latch *l, mg_item item, mg_woken *woken);

/* The threads that sleep on a latch, the longest first: a list of (thread ident, seconds). New
 * reference, or NULL with an exception. */
PyObject *mg_sleepers(mg_latch *l);

#endif
