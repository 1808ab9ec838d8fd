/* The names by which a function is called in another context. */
#ifndef MG_CALLEE_H
#define MG_CALLEE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* (module, None, name) of a function without attributes that its module has under its own name, as nearly all have.
 * None of anything else: whether and how that can be called takes a longer look. New reference, or NULL with an
 * exception. */
PyObject *mg_callee_names(PyObject *unused, PyObject *function);

#endif
