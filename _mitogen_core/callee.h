/* The names by which a function is called in another context. */
#ifndef MG_CALLEE_H
#define MG_CALLEE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* (module, None, name) for the usual case: a function without attributes that its module has
 * under its own name. None for any other object; the caller has to find out how it can be
 * called. New reference, or NULL with an exception. */
PyObject *mg_callee_names(PyObject *unused, PyObject *function);

#endif
