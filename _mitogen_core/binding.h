/* What the files of the binding share: the module's state, its objects, and the rules between them.
 *
 * The binding parses arguments, lets go of the GIL, calls the engine, and turns the result into objects or exceptions. Nothing
 * else. It never sees wire bytes, and the engine never sees Python.
 *
 * Who owns whom. A Python object holds a counted reference to its engine object. The way back is a borrowed pointer, the engine object's
 * `owner`, which the Python object clears when it goes; it is read with the GIL held. Where the engine itself keeps a Python
 * object alive (an item in a latch, the owner of a handler, the memory of a big argument), the last reference may go while no
 * GIL is held: such references go through mg_later_decref() and are dropped the next time somebody holds it. */
#ifndef MG_BINDING_H
#define MG_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "compat.h"

#include <stdatomic.h>

#include "codec.h"

#include "base/clock.h"
#include "loop/fork.h"
#include "wire/frame.h"
#include "sync/latch.h"
#include "loop/lifeline.h"
#include "loop/loop.h"
#include "net/router.h"
#include "net/stream.h"

typedef struct mg_state {
    PyTypeObject *Message, *Latch, *Receiver, *Sender, *Context, *Router, *Link, *Loop, *Watch; /* our types, strong */

    /* set by configure(); NULL before. Strong. */
    PyObject *message_type; /* the class that received messages are instances of */
    PyObject *receiver_type; /* the class of the receivers that send_async makes */
    PyObject *TimeoutError, *LatchError, *ChannelError, *Error, *StreamError;
    PyObject *CallError;
    PyObject *has_parent_authority; /* the policies the engine knows by itself */
    PyObject *neighbour_policies; /* a tuple */
    PyObject *slow_unpickle; /* (message, find_class) -> object: for look-ups of the caller's own */
    PyObject *dead_text; /* (message) -> text of the ChannelError */
    PyObject *broker_shutdown_msg, *latch_closed_msg, *duplicate_handle_msg;
    mg_codec codec;
    int configured;

    PyObject *own_id; /* mitogen.context_id, for new messages. Strong */
    PyObject *empty_bytes, *enc_mgc, *enc_pkl, *zero, *str_on_receive, *str_deliver, *str_respondent_of,
        *str_watch_respondent, *str_route, *str_send, *str_add_handler;
} mg_state;

/* --- objects --- */

typedef struct {
    PyObject_HEAD mg_state *st; /* borrowed: the type keeps the module alive */
    PyObject *dst_id, *src_id, *auth_id, *handle, *reply_to, *enc, *router, *receiver; /* strong, NULL is None */
    PyObject *data; /* strong; NULL while the payload is only in one of the next two */
    mg_frame *frame; /* received: with a reference, or NULL */
    mg_pickled *pickled; /* made by pickled(): owned, or NULL */
} MessageObject;

/* How the objects begin that threads wait at. */
typedef struct {
    PyObject_HEAD mg_state *st;
    mg_latch *latch;
} LatchedObject;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_latch *latch;
    mg_loop *loop; /* with a reference, or NULL: whom a waiting thread may lead */
    PyObject *notify; /* strong or NULL */
    int shared; /* the latch belongs to a receiver */
    PyObject *dict, *weakrefs;
} LatchObject;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_latch *latch;
    mg_loop *loop; /* with a reference, or NULL for a router that is not ours */
    mg_router *engine; /* likewise */
    PyObject *router; /* strong, as all below; NULL before __init__ */
    PyObject *handle; /* int, or None after close */
    PyObject *notify; /* NULL is None */
    PyObject *latch_object;
    PyObject *dict, *weakrefs;
} ReceiverObject;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_router *router;
    PyObject *loop_object; /* strong */
    PyObject *dict, *weakrefs;
} RouterObject;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_router *router; /* with a reference */
    mg_stream *stream; /* with a reference, NULL before open() */
    PyObject *protocol; /* strong or NULL: the Python object this link belongs to */
    mg_lifeline *lifeline; /* owned, or NULL */
    uint32_t remote_id;
    int64_t auth_stamp;
    int privileged, hooked;
    PyObject *weakrefs;
} LinkObject;

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_loop *loop;
    unsigned long attendant; /* thread id of the broker's thread, 0 before its first turn */
    PyObject *weakrefs;
} LoopObject;

/* --- types: each file makes its own --- */

extern PyType_Spec mg_message_spec, mg_latch_spec, mg_receiver_spec, mg_context_spec, mg_sender_spec, mg_router_spec,
    mg_link_spec, mg_loop_spec, mg_watch_spec;
extern struct PyModuleDef mg_module_def;

/* The state behind a type or an object of ours, subclasses included; NULL with an exception. */
mg_state *mg_state_of_type(PyTypeObject *type);

/* TypeError until configure() has run. */
int mg_need_configured(mg_state *st);

/* A new reference to what a borrowed pointer to an owner points to; NULL (no exception) when that is gone, or is about to go:
 * between its last reference and its dealloc other code may run. With the GIL. */
static inline PyObject *mg_owner(void *owner)
{
    return owner && Py_REFCNT((PyObject *) owner) > 0 ? Py_NewRef((PyObject *) owner) : NULL;
}

/* --- references that end without the GIL --- */

/* Drops a reference to obj: now if this thread holds the GIL for sure (have_gil), else later. A place to remember it is taken
 * beforehand by mg_later_new, so that this cannot fail. */
typedef struct mg_later mg_later;
mg_later *mg_later_new(PyObject *obj); /* takes a reference of its own; NULL with MemoryError */
void mg_later_decref(void *later); /* any thread, GIL or not; signature of a release function */
PyObject *mg_later_obj(mg_later *later);
void mg_run_later(void); /* with the GIL: drops what waits */
/* A reference without a place: for what is handed to the engine by the thousand. */
void mg_decref_anywhere(PyObject *obj);
void mg_drop_item(mg_item item);

/* --- messages --- */

/* New references or NULL. frame's reference is taken over, also on failure. router: may be NULL. */
PyObject *mg_message_from_frame(mg_state *st, mg_frame *frame, PyObject *router);
/* The frame of a message; dst_id and handle must be there. NULL with an exception. */
mg_frame *mg_message_frame(MessageObject *m);
/* The header: -1 with an exception when a field is not a number of 32 bits. */
int mg_message_hdr(MessageObject *m, mg_hdr *hdr);
int mg_message_is_dead(MessageObject *m);
Py_ssize_t mg_message_size(MessageObject *m);
PyObject *mg_hdr_tuple(const mg_hdr *hdr);
PyObject *mg_message_pickled(mg_state *st, PyTypeObject *cls, PyObject *const *objs, Py_ssize_t n);

/* --- receivers --- */

/* A receiver on a handle of its own, for the messages of a respondent. New reference or NULL. */
PyObject *mg_receiver_for(mg_state *st, PyObject *router, int persist, PyObject *respondent);

/* Whether a function is the add_handler of that router of ours, which nobody has replaced. */
int mg_is_add_handler(PyObject *fn, PyObject *router);

/* The same for a receiver of ours; the handle, new reference, or NULL. */
PyObject *mg_add_handler(PyObject *router, PyObject *fn, PyObject *handle, int persist, PyObject *policy,
                         PyObject *respondent, int overwrite);

/* --- waiting --- */

/* mg_latch_push for a thread with the GIL, which is dropped while a parked thread is woken: that one wants it next. */
mg_err mg_push_item(mg_latch *l, mg_item item, mg_woken *woken);

/* tp_new of the types that begin as LatchedObject does: one with a latch of its own. */
PyObject *mg_latched_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* When a timeout in seconds ends, None never does: 0, or -1 with an exception. */
int mg_parse_timeout(PyObject *timeout, int64_t *deadline);
/* Takes an item from l, waiting if need be: 0; 1 when l is closed; -1 with an exception (TimeoutError; of a signal handler). */
int mg_wait_item(mg_state *st, mg_latch *l, mg_loop *loop, int64_t deadline, int block, mg_item *item);
/* What an item stands for: a new reference, or NULL with an exception, or NULL without one for the token of something gone. */
PyObject *mg_item_object(mg_state *st, mg_item item, PyObject *router);
/* For the collector: the objects in a latch that belongs to the one who asks; l may be NULL. */
int mg_visit_items(mg_latch *l, visitproc visit, void *arg);
void mg_clear_items(mg_latch *l);
/* Who sleeps on a latch, the longest first: a list of (thread ident, seconds). New reference or NULL. */
PyObject *mg_sleepers(mg_latch *l);
/* Seconds since a mark of mg_now(), or None where that is 0. New reference or NULL. */
PyObject *mg_age(int64_t mark);
/* Sets what is to be told of items: handles None, the put method of a latch of ours, and any other callable.
 * watch_always: also when a sleeper gets the item. */
int mg_set_notify(mg_state *st, mg_latch *l, mg_loop *loop, PyObject **slot, PyObject *value, int watch_always);

/* --- events of the binding's own --- */
enum {
    MG_EV_IO = MG_EV_USER, /* a: mg_io with a reference; n: MG_READ or MG_WRITE */
    MG_EV_NOTIFY, /* a: mg_latch with a reference */
    MG_EV_OBJECT, /* a: mg_handler with a reference, b: PyObject with a reference */
    MG_EV_CALL /* a function was deferred */
};
typedef struct mg_io mg_io;
PyObject *mg_io_owner(mg_io *io); /* its Watch; new reference, or NULL (no exception) when that is gone */
void mg_io_unref(mg_io *io);

/* mg_loop_acquire, letting go of the GIL when it has to wait: whoever leads may be a thread that holds the loop from Python and needs
 * the GIL to give it back. Ended by mg_loop_release. */
void mg_acquire_loop(mg_loop *loop);

/* The link of a stream: new reference or NULL (no exception). */
PyObject *mg_link_of(mg_stream *s);

/* The argument of a method that takes exactly one, by place or by name (METH_FASTCALL | METH_KEYWORDS). Borrowed; NULL
 * with TypeError when it was called otherwise. */
static inline PyObject *mg_one_arg(const char *method, const char *name, PyObject *const *args, Py_ssize_t n,
                                   PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (n + named == 1 && (n == 1 || !PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), name)))
        return args[0];
    return PyErr_Format(PyExc_TypeError, "%s() takes one argument, %s", method, name);
}

#endif
