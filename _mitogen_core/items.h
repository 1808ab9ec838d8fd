/* Items of a latch: Python objects, frames that become messages when they are taken, tokens of
 * other latches. */
#ifndef MG_ITEMS_H
#define MG_ITEMS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"
#include "sync/latch.h"

/* The object that an item stands for: a new reference, or NULL with an exception, or NULL
 * without one for the token of a latch that is gone. The item is used up. */
PyObject *mg_item_object(mg_state *st, mg_item item, PyObject *router);

/* The drop function of all latches. Any thread, without the GIL too. */
void mg_drop_item(mg_item item);

/* For the collector: the objects in a latch; l may be NULL. Only for the object that owns the
 * latch. */
int mg_visit_items(mg_latch *l, visitproc visit, void *arg);
void mg_clear_items(mg_latch *l);

#endif
