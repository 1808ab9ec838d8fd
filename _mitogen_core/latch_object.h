/* Latch: a closable queue that threads wait at. */
#ifndef MG_LATCH_OBJECT_H
#define MG_LATCH_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "counterpart.h"
#include "loop/loop.h"
#include "module_state.h"
#include "sync/latch.h"

typedef struct {
    PyObject_HEAD mg_state *st; /* as in LatchedObject */
    mg_latch *latch;
    uint32_t n_kept;
    _Atomic(mg_loop *) loop; /* with a reference, or NULL: the loop that a waiting thread may lead. Set once. */
    PyObject *notify; /* strong or NULL, read by mg_field() */
    PyObject *kept; /* a list, or NULL: nobody else refers to these, but their tokens lie here. Under the lock of all
                     * watchers. */
    int shared; /* the latch belongs to a receiver */
    PyObject *dict, *weakrefs;
} LatchObject;

extern PyType_Spec mg_latch_spec;

/* tp_new of the types that begin as LatchedObject does: one with a latch of its own. */
PyObject *mg_latched_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* A Latch for a latch that another object owns. New reference, or NULL with an exception. */
PyObject *mg_latch_sharing(mg_state *st, mg_latch *l, mg_loop *loop);

/* Guards the watchers of all latches, and the objects that latches keep alive. */
void mg_watchers_lock(void);
void mg_watchers_unlock(void);

/* A latch of ours notifies no other any more. For a dealloc. */
void mg_end_watching(mg_latch *l);

/* Sets the `notify` of self, a Latch or a Receiver, which is called for new items: None, the put
 * method of a latch of ours, or any other callable. A latch of ours that has tokens of self
 * still gets self for each. watch_always: also when a sleeper gets the item. 0, or -1 with an
 * exception. */
int mg_set_notify(PyObject *self, mg_loop *loop, PyObject **field, PyObject *value, int watch_always);

/* Calls notify(self): 0, or -1 with an exception. */
int mg_call_notify(PyObject *notify, PyObject *self);

/* For a finalizer. Where self's `notify` is the put method of a latch of ours, and tokens of
 * self lie there, that latch keeps self alive until they are taken. With the lock of all
 * watchers. */
void mg_keep_for_tokens(PyObject *self, PyObject *notify);

#endif
