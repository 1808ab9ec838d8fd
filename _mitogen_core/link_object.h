/* Link: the engine's stream to one neighbour, as a MitogenProtocol sees it. */
#ifndef MG_LINK_OBJECT_H
#define MG_LINK_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "loop/lifeline.h"
#include "module_state.h"
#include "net/router.h"
#include "net/stream.h"

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_router *router; /* with a reference */
    _Atomic(mg_stream *) stream; /* with a reference, NULL before open(). Set once. */
    PyObject *protocol; /* strong or NULL: the Python object this link belongs to. Read by mg_field(). */
    _Atomic(mg_lifeline *) lifeline; /* owned, or NULL */
    /* all below in a critical section of the link */
    uint32_t remote_id;
    int64_t auth_stamp;
    int privileged, hooked;
    PyObject *weakrefs;
} LinkObject;

extern PyType_Spec mg_link_spec;

#endif
