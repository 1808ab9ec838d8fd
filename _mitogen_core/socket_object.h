/* Socket: one end of a pair of connected sockets, with as much of the interface of
 * `_socket.socket` as the streams of a child's standard output and standard error use. It is
 * here because a child then need not load `_socket`, which takes longer than all else that these
 * streams cost. */
#ifndef MG_SOCKET_OBJECT_H
#define MG_SOCKET_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"

extern PyType_Spec mg_socket_spec;

/* A tuple of two connected ends, closed on exec; NULL with OSError. */
PyObject *mg_socket_pair(mg_state *st);

#endif
