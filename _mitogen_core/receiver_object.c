#include "receiver_object.h"

#include <structmember.h>

#include "arguments.h"
#include "binding_event_kinds.h"
#include "counterpart.h"
#include "errors.h"
#include "fields.h"
#include "items.h"
#include "latch_object.h"
#include "later.h"
#include "message_object.h"
#include "net/router.h"
#include "router_handlers.h"
#include "waiting.h"

static void bind(ReceiverObject *self, PyObject *router)
{
    mg_router *ours = mg_router_behind(self->st, router);
    mg_put_field((PyObject *) self, &self->router, Py_NewRef(router));
    Py_BEGIN_CRITICAL_SECTION(self);
    if (ours && !self->engine) {
        atomic_store(&self->loop, mg_loop_ref(mg_router_loop(ours)));
        atomic_store(&self->engine, mg_router_ref(ours));
    }
    Py_END_CRITICAL_SECTION();
}

/* Registers the receiver at a router; asks as in mg_add_handler(). */
static int set_up(ReceiverObject *self, PyObject *router, PyObject *handle, int persist, PyObject *respondent,
                  PyObject *policy, int overwrite, int asks)
{
    mg_state *st = self->st;
    bind(self, router);
    PyObject *receive = PyObject_GetAttr((PyObject *) self, st->str_on_receive), *got = NULL;
    if (!receive)
        return -1;
    PyObject *add = PyObject_GetAttr(router, st->str_add_handler);
    if (add && mg_is_add_handler(add, router) && mg_router_behind(st, router))
        got = mg_add_handler(router, receive, handle, persist, policy, respondent, overwrite, asks);
    else if (add) {
        /* a method that a subclass or a test has put in its place */
        PyObject *no_args = PyTuple_New(0);
        PyObject *kw =
            Py_BuildValue("{sOsOsOsOsOsO}", "fn", receive, "handle", handle, "persist", persist ? Py_True : Py_False,
                          "policy", policy, "respondent", respondent, "overwrite", overwrite ? Py_True : Py_False);
        if (no_args && kw)
            got = PyObject_Call(add, no_args, kw);
        Py_XDECREF(no_args);
        Py_XDECREF(kw);
    }
    Py_XDECREF(add);
    Py_DECREF(receive);
    if (!got)
        return -1;
    mg_put_field((PyObject *) self, &self->handle, got);
    return 0;
}

static PyObject *get_max_bytes(PyObject *obj, void *closure)
{
    (void) closure;
    size_t limit = mg_latch_limit(((ReceiverObject *) obj)->latch);
    if (!limit)
        Py_RETURN_NONE;
    return PyLong_FromSize_t(limit);
}

static int set_max_bytes(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    size_t limit = 0;
    if (value && value != Py_None) {
        limit = PyLong_AsSize_t(value);
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        if (PyErr_Occurred()) {
            PyErr_Clear();
            limit = 0;
        }
        if (!limit) {
            PyErr_SetString(PyExc_ValueError, "max_bytes must be at least 1");
            return -1;
        }
    }
    mg_latch_set_limit(((ReceiverObject *) obj)->latch, limit);
    return 0;
}

static int receiver_init(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"router", "handle", "persist", "respondent", "policy", "overwrite", "max_bytes", NULL};
    PyObject *router, *handle = Py_None, *respondent = Py_None, *policy = Py_None, *max_bytes = Py_None;
    int persist = 1, overwrite = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OpOOpO:Receiver", names, &router, &handle, &persist, &respondent,
                                     &policy, &overwrite, &max_bytes) ||
        set_max_bytes(obj, max_bytes, NULL))
        return -1;
    return set_up((ReceiverObject *) obj, router, handle, persist, respondent, policy, overwrite, 0);
}

PyObject *mg_receiver_for(mg_state *st, PyObject *router, int persist, PyObject *respondent)
{
    PyObject *self = mg_latched_new((PyTypeObject *) st->receiver_type, NULL, NULL);
    if (self && set_up((ReceiverObject *) self, router, Py_None, persist, respondent, Py_None, 0, 1))
        Py_CLEAR(self);
    return self;
}

static int receiver_traverse(PyObject *obj, visitproc visit, void *arg)
{
    ReceiverObject *self = (ReceiverObject *) obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->router);
    Py_VISIT(self->handle);
    Py_VISIT(self->notify);
    Py_VISIT(self->latch_object);
    Py_VISIT(self->dict);
    return mg_visit_items(self->latch, visit, arg);
}

static int clear_fields(ReceiverObject *self)
{
    Py_CLEAR(self->router);
    Py_CLEAR(self->handle);
    Py_CLEAR(self->notify);
    Py_CLEAR(self->latch_object);
    Py_CLEAR(self->dict);
    return 0;
}

static int receiver_clear(PyObject *obj)
{
    mg_clear_items(((ReceiverObject *) obj)->latch);
    return clear_fields((ReceiverObject *) obj);
}

/* Nobody refers to the receiver any more, but `notify` was not called yet for messages that have
 * come, or the receiver lies as a token in another latch: keeps it alive until then. */
static void keep_until_told(ReceiverObject *self)
{
    if (mg_latch_refs(self->latch) <= (self->latch_object ? 2 : 1))
        return;
    mg_watchers_lock();
    int is_watched = mg_latch_watcher(self->latch) != NULL;
    if (is_watched)
        mg_keep_for_tokens((PyObject *) self, self->notify);
    mg_watchers_unlock();
    if (is_watched)
        return;
    /* the events that call `notify` come before this one */
    mg_event ev = {.kind = MG_EV_KEEP, .b = self};
    if (self->loop && !mg_loop_closed(self->loop) && mg_loop_push_event(self->loop, &ev) == MG_OK)
        Py_INCREF(self);
}

static void receiver_finalize(PyObject *obj)
{
    ReceiverObject *self = (ReceiverObject *) obj;
    if (!self->notify || !self->latch)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    keep_until_told(self);
    PyErr_Restore(type, value, traceback);
}

static void receiver_dealloc(PyObject *obj)
{
    ReceiverObject *self = (ReceiverObject *) obj;
    if (mg_owner_finalize(obj, self->latch, receiver_finalize))
        return;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(obj);
    if (self->latch) {
        mg_end_watching(self->latch);
        mg_latch_unref(self->latch);
    }
    clear_fields(self);
    mg_router_unref(self->engine);
    mg_loop_unref(self->loop);
    mg_run_later();
    type->tp_free(obj);
    Py_DECREF(type);
}

/* Whether a message counts for max_bytes. A dead message that was made here, as the respondent
 * was lost, does not: nothing would come after it. */
static int counts(ReceiverObject *self, PyObject *msg)
{
    MessageObject *m = (MessageObject *) msg;
    if (!self->engine || !mg_latch_limit(self->latch) || !PyObject_TypeCheck(msg, self->st->Message))
        return 0;
    return !mg_message_is_dead(m) || mg_message_has_come(m);
}

/* Calls `notify`, if Python has to. */
static PyObject *call_notify(ReceiverObject *self)
{
    PyObject *notify = mg_field((PyObject *) self, &self->notify); /* the call may replace `notify` itself */
    int failed = notify && !mg_latch_watcher(self->latch) && mg_call_notify(notify, (PyObject *) self);
    Py_XDECREF(notify);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* Answers a message that has come just when another thread has closed the receiver. Takes over the
 * message. */
static PyObject *refuse_late(ReceiverObject *self, PyObject *msg)
{
    mg_hdr hdr;
    MessageObject *m = (MessageObject *) msg;
    int is_sent = self->engine && PyObject_TypeCheck(msg, self->st->Message) && mg_message_is_addressed(m);
    int bad = is_sent && mg_message_hdr(m, &hdr);
    Py_DECREF(msg);
    if (bad)
        return NULL;
    return mg_none_or_raise(
        self->st, is_sent ? mg_router_dead(self->engine, &hdr, MG_REASON_INVALID_HANDLE, 1, NULL, 0, 0, 0) : MG_OK);
}

/* As the handler of its handle (for routers that are not ours, and in tests): queue, then
 * notify. */
static PyObject *receiver_on_receive(PyObject *obj, PyObject *msg)
{
    ReceiverObject *self = (ReceiverObject *) obj;
    mg_item item = {msg, MG_ITEM_OBJECT, 0};
    mg_hdr hdr;
    if (counts(self, msg)) {
        if (mg_message_hdr((MessageObject *) msg, &hdr))
            return NULL;
        item.size = mg_frame_counts(&hdr);
    }
    Py_INCREF(msg);
    mg_err err = mg_latch_push_untold(self->latch, item, NULL);
    if (err == MG_OK)
        return call_notify(self);
    if (err == MG_ECLOSED)
        return refuse_late(self, msg);
    Py_DECREF(msg);
    if (err == MG_EFULL)
        err = mg_router_overflow(self->engine, self->latch, &hdr, NULL);
    return mg_none_or_raise(self->st, err);
}

/* Raises ChannelError, since the receiver is closed. */
static void raise_closed(PyObject *receiver)
{
    PyObject *text = PyObject_GetAttrString(receiver, "closed_msg");
    if (text)
        PyErr_SetObject(((ReceiverObject *) receiver)->st->ChannelError, text);
    Py_XDECREF(text);
}

PyObject *mg_receiver_message(ReceiverObject *self, mg_item item)
{
    if (item.kind == MG_ITEM_TOKEN) {
        mg_token_end(item.ptr);
        PyErr_SetString(PyExc_SystemError, "a receiver cannot watch another one");
        return NULL;
    }
    if (item.kind != MG_ITEM_FRAME)
        return mg_item_object(self->st, item, NULL);
    mg_frame_ref(item.ptr);
    PyObject *router = mg_field((PyObject *) self, &self->router);
    PyObject *msg = mg_item_object(self->st, item, router);
    Py_XDECREF(router);
    if (msg)
        mg_frame_unref(item.ptr);
    else
        mg_latch_unget(self->latch, item);
    return msg;
}

/* Whether a message is a dead one that raises: 1; 0; or -1 with an exception. */
static int is_raised(PyObject *receiver, PyObject *msg)
{
    if (!PyObject_TypeCheck(msg, ((ReceiverObject *) receiver)->st->Message) ||
        !mg_message_is_dead((MessageObject *) msg))
        return 0;
    PyObject *raises = PyObject_GetAttrString(receiver, "raise_channelerror");
    int yes = raises ? PyObject_IsTrue(raises) : -1;
    Py_XDECREF(raises);
    return yes;
}

static PyObject *receiver_get(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", "block", "throw_dead", NULL};
    ReceiverObject *self = (ReceiverObject *) obj;
    PyObject *timeout = Py_None;
    int block = 1, throw_dead = 1;
    int64_t deadline;
    mg_item item;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Opp:get", names, &timeout, &block, &throw_dead) ||
        mg_parse_timeout(timeout, &deadline))
        return NULL;
    int bad = mg_wait_item(self->st, self->latch, self->loop, deadline, block, &item);
    if (bad > 0)
        raise_closed(obj);
    PyObject *msg = bad ? NULL : mg_receiver_message(self, item);
    int raised = msg && throw_dead ? is_raised(obj, msg) : 0;
    if (raised > 0)
        mg_raise_dead(self->st, msg);
    if (raised)
        Py_CLEAR(msg);
    return msg;
}

static PyObject *receiver_size(PyObject *obj, PyObject *unused)
{
    (void) unused;
    ReceiverObject *self = (ReceiverObject *) obj;
    if (mg_latch_closed(self->latch))
        return mg_raise(self->st, MG_ECLOSED);
    return PyLong_FromSize_t(mg_latch_size(self->latch));
}

/* The Latch that shares our queue. */
static PyObject *get_latch(PyObject *obj, void *closure)
{
    (void) closure;
    ReceiverObject *self = (ReceiverObject *) obj;
    PyObject *latch = mg_field(obj, &self->latch_object);
    PyObject *made = latch ? NULL : mg_latch_sharing(self->st, self->latch, self->loop);
    if (made) {
        Py_BEGIN_CRITICAL_SECTION(obj);
        if (!self->latch_object)
            self->latch_object = Py_NewRef(made);
        latch = Py_NewRef(self->latch_object); /* another thread's Latch, if that was quicker */
        Py_END_CRITICAL_SECTION();
        Py_DECREF(made);
    }
    return latch;
}

static PyObject *get_notify(PyObject *obj, void *closure)
{
    (void) closure;
    PyObject *notify = mg_field(obj, &((ReceiverObject *) obj)->notify);
    return notify ? notify : Py_NewRef(Py_None);
}

/* The broker's thread tells Python of an item that the loop has pushed. */
static void push_notify_event(mg_latch *l, void *loop)
{
    mg_event ev = {.kind = MG_EV_NOTIFY, .a = mg_latch_ref(l)};
    if (mg_loop_push_event(loop, &ev) != MG_OK)
        mg_latch_unref(l);
}

static int set_notify(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    ReceiverObject *self = (ReceiverObject *) obj;
    if (mg_set_notify(obj, self->loop, &self->notify, value, 1))
        return -1;
    mg_watchers_lock();
    Py_BEGIN_CRITICAL_SECTION(obj);
    int in_python = self->notify && !mg_latch_watcher(self->latch) && self->loop;
    mg_latch_tell(self->latch, in_python ? push_notify_event : NULL, in_python ? self->loop : NULL);
    Py_END_CRITICAL_SECTION();
    mg_watchers_unlock();
    return 0;
}

static PyMethodDef receiver_methods[] = {
    {"get", (PyCFunction) (void (*)(void)) receiver_get, METH_VARARGS | METH_KEYWORDS,
     "get($self, /, timeout=None, block=True, throw_dead=True)\n--\n\n"
     "Return the next Message. timeout in seconds. TimeoutError; ChannelError when closed, or for\n"
     "a dead message unless throw_dead is false. Any thread."},
    {"_on_receive", receiver_on_receive, METH_O, "Queue a message, then tell `notify`."},
    {"size", receiver_size, METH_NOARGS, "size($self, /)\n--\n\nMessages that wait. LatchError once closed."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef receiver_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(ReceiverObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ReceiverObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef receiver_getset[] = {
    MG_FIELD(ReceiverObject, router, "The router."),
    MG_FIELD(ReceiverObject, handle, "Number, or None once closed."),
    {"notify", get_notify, set_notify, "None, or called with this receiver for each message.", NULL},
    {"max_bytes", get_max_bytes, set_max_bytes, "Bytes that may wait here, headers included, or None.", NULL},
    {"_latch", get_latch, NULL, "The queue, as a Latch.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot receiver_slots[] = {
    {Py_tp_new, mg_latched_new},
    {Py_tp_init, receiver_init},
    {Py_tp_dealloc, receiver_dealloc},
    {Py_tp_finalize, receiver_finalize},
    {Py_tp_traverse, receiver_traverse},
    {Py_tp_clear, receiver_clear},
    {Py_tp_methods, receiver_methods},
    {Py_tp_members, receiver_members},
    {Py_tp_getset, receiver_getset},
    {Py_tp_doc,
     "Receiver(router, handle=None, persist=True, respondent=None, policy=None, overwrite=False, max_bytes=None)"
     "\n--\n\nA handle and the queue of the messages sent to it."},
    {0, NULL}};

PyType_Spec mg_receiver_spec = {"_mitogen_core.Receiver", sizeof(ReceiverObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, receiver_slots};
