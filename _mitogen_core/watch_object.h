/* Watch: one descriptor that Python code wants to hear of. Loop.watch() makes them. */
#ifndef MG_WATCH_OBJECT_H
#define MG_WATCH_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loop/loop.h"
#include "module_state.h"

/* The engine's side of a Watch, which lives on while an event speaks of it. */
typedef struct mg_io mg_io;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_io *io;
    PyObject *data; /* strong, read by mg_field() */
} WatchObject;

extern PyType_Spec mg_watch_spec;

/* Not armed yet. New reference, or NULL with an exception. */
PyObject *mg_watch_object_new(mg_state *st, mg_loop *loop, int fd, int writing, PyObject *data);

/* The Watch: new reference, or NULL (no exception) when that is gone. */
PyObject *mg_io_owner(mg_io *io);
void mg_io_unref(mg_io *io);

#endif
