/* Events of the loop, as the tuples that Loop.next_event() returns. */
#ifndef MG_EVENT_OBJECT_H
#define MG_EVENT_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loop/loop.h"
#include "module_state.h"

/* (kind, ...) for one event; NULL without an exception when its recipient is gone. The event keeps
 * its references, so that it is not lost when memory is out. */
PyObject *mg_event_tuple(mg_state *st, const mg_event *ev);

/* Releases all that an event holds. */
void mg_event_drop(const mg_event *ev);

#endif
