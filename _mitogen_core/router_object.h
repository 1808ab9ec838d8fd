/* Router: the engine's tables, and the way of a message from Python into them. */
#ifndef MG_ROUTER_OBJECT_H
#define MG_ROUTER_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"
#include "net/router.h"

typedef struct {
    PyObject_HEAD mg_state *st; /* as in RoutedObject */
    mg_router *router;
    PyObject *losses;
    PyObject *loop_object; /* strong */
    PyObject *dict, *weakrefs;
} RouterObject;

extern PyType_Spec mg_router_spec;

#endif
