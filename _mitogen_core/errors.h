/* Exceptions: the one place where an error of the engine becomes one. */
#ifndef MG_ERRORS_H
#define MG_ERRORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/err.h"
#include "module_state.h"

/* Raises the exception for an error of the engine, and returns NULL. Not for MG_OK.
 *
 * MG_ENOMEM: MemoryError. MG_EAGAIN, MG_ETIMEDOUT: TimeoutError. MG_ECLOSED: LatchError, of a
 * closed latch. MG_EEXIST: Error, of a handle that is taken. MG_EIO: OSError, by errno. Anything
 * else: RuntimeError with the engine's text. */
PyObject *mg_raise(mg_state *st, mg_err err);

/* None for MG_OK, else as mg_raise. */
PyObject *mg_none_or_raise(mg_state *st, mg_err err);

/* Raises the ChannelError of a dead message, and returns NULL. */
PyObject *mg_raise_dead(mg_state *st, PyObject *msg);

/* Raises Error, since the router's broker has ended, and returns NULL. */
PyObject *mg_raise_shut_down(mg_state *st);

/* Raises TypeError unless obj is an instance of type: 0 or -1. name: the type that is needed,
 * with its article. */
int mg_need_type(PyObject *obj, PyTypeObject *type, const char *name);

#endif
