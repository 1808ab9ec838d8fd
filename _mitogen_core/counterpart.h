/* From an object of the engine to the Python object that stands for it, and back.
 *
 * The Python object holds a counted reference to the engine's. The way back is a borrowed
 * pointer, the engine object's `owner`, which the Python object clears when it goes. It is read
 * with the GIL held; where there is none, it is read, and cleared, under a lock (mg_owner_lock),
 * so that the object is still there when the reader takes a reference. */
#ifndef MG_COUNTERPART_H
#define MG_COUNTERPART_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "compat.h"
#include "locks.h"
#include "module_state.h"
#include "net/router.h"
#include "net/stream.h"
#include "sync/latch.h"

/* How a Latch and a Receiver begin. */
typedef struct {
    PyObject_HEAD mg_state *st; /* borrowed: the type keeps the module alive */
    mg_latch *latch;
    uint32_t n_kept; /* tokens of it that lie in latches which keep it alive until they are taken. Under the lock of all
                      * watchers. */
} LatchedObject;

/* How a Router begins. */
typedef struct {
    PyObject_HEAD mg_state *st;
    mg_router *router; /* NULL before _open() */
    PyObject *losses; /* strong, or NULL; another object after each loss of a context. Compared, and not looked into. */
} RoutedObject;

/* The lock of the owner of an object of the engine's. */
mg_lock *mg_owner_lock(const void *of);

/* For a new object, which is going to be an owner. */
void mg_owner_begin(PyObject *obj);

/* A new reference to an owner; NULL (no exception) when that is gone, or is about to go: between
 * its last reference and its dealloc other code may run. With its lock. */
PyObject *mg_owner(void *owner);

/* The Latch or Receiver, or the Link. */
PyObject *mg_latch_object(mg_latch *l);
PyObject *mg_link_object(mg_stream *s);

/* For the dealloc of the owner of a latch: runs its finalizer and returns whether the object
 * stays after all. Otherwise it is the owner no more. ours: the finalizer of the binding, which
 * runs no code of a program. l may be NULL. */
int mg_owner_finalize(PyObject *obj, mg_latch *l, destructor ours);

/* The engine's router of a Router of ours that was opened, or NULL. Borrowed. */
static inline mg_router *mg_router_behind(mg_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->Router) ? ((RoutedObject *) obj)->router : NULL;
}

/* The engine's router of a Router; NULL with ValueError before its __init__. */
static inline mg_router *mg_need_router(PyObject *router)
{
    mg_router *r = ((RoutedObject *) router)->router;
    if (!r)
        PyErr_SetString(PyExc_ValueError, "Router.__init__ was not called");
    return r;
}

#endif
