/* Context: the methods that are on the way of each message. */
#ifndef MG_CONTEXT_OBJECT_H
#define MG_CONTEXT_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"

typedef struct {
    PyObject_HEAD mg_state *st;
    PyObject *router, *context_id; /* strong, NULL before __init__ */
    PyObject *auth_id; /* strong, or NULL, or None: our own */
    PyObject *dict, *weakrefs;
} ContextObject;

extern PyType_Spec mg_context_spec;

#endif
