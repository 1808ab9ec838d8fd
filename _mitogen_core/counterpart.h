/* An object of the engine and the Python object that stands for it: from the one to the other.
 *
 * The Python object holds a counted reference to the engine's. The way back is a borrowed pointer, the engine
 * object's `owner`, which the Python object clears when it goes. It is read with the GIL held. */
#ifndef MG_COUNTERPART_H
#define MG_COUNTERPART_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "compat.h"
#include "module_state.h"
#include "net/router.h"
#include "net/stream.h"
#include "sync/latch.h"

/* How a Latch and a Receiver begin. */
typedef struct {
    PyObject_HEAD mg_state *st; /* borrowed: the type keeps the module alive */
    mg_latch *latch;
    uint32_t n_kept; /* tokens of it that lie in latches which keep it alive until they are taken */
} LatchedObject;

/* How a Router begins. */
typedef struct {
    PyObject_HEAD mg_state *st;
    mg_router *router; /* NULL before _open() */
    PyObject *losses; /* strong, or NULL; another object after each loss of a context. Compared, and not looked into. */
} RoutedObject;

/* A new reference to an owner; NULL (no exception) when that is gone, or is about to go: between its last reference
 * and its dealloc other code may run. */
static inline PyObject *mg_owner(void *owner)
{
    return owner && Py_REFCNT((PyObject *) owner) > 0 ? Py_NewRef((PyObject *) owner) : NULL;
}

/* The Latch or Receiver, or the Link. */
static inline PyObject *mg_latch_object(mg_latch *l)
{
    return mg_owner(mg_latch_owner(l));
}

static inline PyObject *mg_link_object(mg_stream *s)
{
    return mg_owner(mg_stream_owner(s));
}

/* The engine's router of a Router of ours that was opened, or NULL. Borrowed. */
static inline mg_router *mg_router_behind(mg_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->Router) ? ((RoutedObject *) obj)->router : NULL;
}

/* The same of a Router; NULL with ValueError before its __init__. */
static inline mg_router *mg_need_router(PyObject *router)
{
    mg_router *r = ((RoutedObject *) router)->router;
    if (!r)
        PyErr_SetString(PyExc_ValueError, "Router.__init__ was not called");
    return r;
}

#endif
