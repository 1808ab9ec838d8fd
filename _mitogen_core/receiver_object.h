/* Receiver: a latch with a handle. Frames go from the loop into its latch without Python; get()
 * makes them Messages. */
#ifndef MG_RECEIVER_OBJECT_H
#define MG_RECEIVER_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loop/loop.h"
#include "module_state.h"
#include "net/router.h"
#include "sync/latch.h"

typedef struct {
    PyObject_HEAD mg_state *st; /* as in LatchedObject */
    mg_latch *latch;
    uint32_t n_kept;
    _Atomic(mg_loop *) loop; /* with a reference, or NULL if the router is not a compiled one. Set once. */
    _Atomic(mg_router *) engine; /* likewise */
    PyObject *router; /* strong, as all below, and read by mg_field(); NULL before __init__ */
    PyObject *handle; /* int, or None after close */
    PyObject *notify; /* NULL is None */
    PyObject *latch_object;
    PyObject *dict, *weakrefs;
    _Atomic int64_t asked_at; /* when answers.c has last sent a call whose answer comes here */
} ReceiverObject;

extern PyType_Spec mg_receiver_spec;

/* A receiver on a handle of its own, for the messages of a respondent. New reference, or NULL
 * with an exception. */
PyObject *mg_receiver_for(mg_state *st, PyObject *router, int persist, PyObject *respondent);

/* The message that an item of its latch stands for: new reference, or NULL with an exception. A
 * frame for which there is no memory goes back: it is for the thread that asks when there is. */
PyObject *mg_receiver_message(ReceiverObject *self, mg_item item);

#endif
