/* Loop: the engine's loop, for the broker's thread. */
#ifndef MG_LOOP_OBJECT_H
#define MG_LOOP_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "locks.h"
#include "loop/loop.h"
#include "module_state.h"

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_loop *loop;
    mg_lock reading; /* held from the look at an event until it is taken */
    _Atomic unsigned long attendant; /* thread id of the broker's thread, 0 before its first turn */
    PyObject *weakrefs;
} LoopObject;

extern PyType_Spec mg_loop_spec;

#endif
