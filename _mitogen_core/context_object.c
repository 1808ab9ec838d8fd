#include "context_object.h"

#include <structmember.h>

#include "arguments.h"
#include "fields.h"
#include "message_object.h"
#include "receiver_object.h"

static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) args, (void) kwargs;
    mg_state *st = mg_state_of_type(type);
    ContextObject *self = st ? (ContextObject *) type->tp_alloc(type, 0) : NULL;
    if (self)
        self->st = st;
    return (PyObject *) self;
}

static int context_traverse(PyObject *obj, visitproc visit, void *arg)
{
    ContextObject *self = (ContextObject *) obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->router);
    Py_VISIT(self->context_id);
    Py_VISIT(self->auth_id);
    Py_VISIT(self->dict);
    return 0;
}

static int context_clear(PyObject *obj)
{
    ContextObject *self = (ContextObject *) obj;
    Py_CLEAR(self->router);
    Py_CLEAR(self->context_id);
    Py_CLEAR(self->auth_id);
    Py_CLEAR(self->dict);
    return 0;
}

static void context_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (((ContextObject *) obj)->weakrefs)
        PyObject_ClearWeakRefs(obj);
    context_clear(obj);
    type->tp_free(obj);
    Py_DECREF(type);
}

/* A message to a context that was named to us carries the authority that it was named with. */
static int lower(ContextObject *self, PyObject *msg)
{
    PyObject *auth_id = mg_field((PyObject *) self, &self->auth_id);
    int is_ours = !auth_id || auth_id == Py_None;
    Py_XDECREF(auth_id);
    if (is_ours)
        return 0;
    PyObject *r = PyObject_CallMethod((PyObject *) self, "_lower", "O", msg);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* Addresses msg and hands it to the router. */
static int send_to(ContextObject *self, PyObject *msg)
{
    PyObject *router = mg_field((PyObject *) self, &self->router), *r = NULL;
    PyObject *context_id = mg_field((PyObject *) self, &self->context_id);
    if (!router || !context_id)
        PyErr_SetString(PyExc_AttributeError, "Context.__init__ was not called");
    else if (!mg_message_set(self->st, msg, MG_FIELD_DST_ID, context_id) && !lower(self, msg))
        r = PyObject_CallMethodObjArgs(router, self->st->str_route, msg, NULL);
    Py_XDECREF(context_id);
    Py_XDECREF(router);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static PyObject *context_send(PyObject *obj, PyObject *msg)
{
    if (send_to((ContextObject *) obj, msg))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *context_send_named(PyObject *obj, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *arg = mg_one_arg("send", "msg", args, n, names);
    return arg ? context_send(obj, arg) : NULL;
}

static PyObject *context_send_async(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"msg", "persist", NULL};
    ContextObject *self = (ContextObject *) obj;
    mg_state *st = self->st;
    PyObject *msg;
    int persist = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|p:send_async", names, &msg, &persist) || mg_need_configured(st))
        return NULL;
    PyObject *router = mg_field(obj, &self->router);
    PyObject *receiver = mg_receiver_for(st, router ? router : Py_None, persist, obj);
    Py_XDECREF(router);
    if (!receiver)
        return NULL;
    PyObject *handle = mg_field(receiver, &((ReceiverObject *) receiver)->handle), *sent = NULL;
    if (!mg_message_set(st, msg, MG_FIELD_REPLY_TO, handle ? handle : Py_None))
        /* Called by name: a program may have replaced the method. */
        sent = PyObject_CallMethodObjArgs(obj, st->str_send, msg, NULL);
    Py_XDECREF(handle);
    Py_XDECREF(sent);
    if (!sent) {
        PyObject *type, *value, *tb;
        PyErr_Fetch(&type, &value, &tb);
        Py_XDECREF(PyObject_CallMethod(receiver, "close", NULL));
        Py_DECREF(receiver);
        PyErr_Restore(type, value, tb);
        return NULL;
    }
    return receiver;
}

static PyMethodDef context_methods[] = {
    {"send", (PyCFunction) (void (*)(void)) context_send_named, METH_FASTCALL | METH_KEYWORDS,
     "send($self, /, msg)\n--\n\nSend a message there. Any thread."},
    {"send_async", (PyCFunction) (void (*)(void)) context_send_async, METH_VARARGS | METH_KEYWORDS,
     "send_async($self, /, msg, persist=False)\n--\n\n"
     "Send a message and return the Receiver of the reply. Any thread."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef context_members[] = {
    /* without a value: AttributeError. Python reads these as mg_field() does. */
    {"router", T_OBJECT_EX, offsetof(ContextObject, router), 0, "The router, or None."},
    {"context_id", T_OBJECT_EX, offsetof(ContextObject, context_id), 0, "Its number."},
    {"__dictoffset__", T_PYSSIZET, offsetof(ContextObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ContextObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef context_getset[] = {
    MG_FIELD(ContextObject, auth_id, "The auth_id of messages to this context. None: our own."),
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot context_slots[] = {{Py_tp_new, context_new},
                                      {Py_tp_dealloc, context_dealloc},
                                      {Py_tp_traverse, context_traverse},
                                      {Py_tp_clear, context_clear},
                                      {Py_tp_methods, context_methods},
                                      {Py_tp_members, context_members},
                                      {Py_tp_getset, context_getset},
                                      {Py_tp_doc, "Another context, as seen from here."},
                                      {0, NULL}};
PyType_Spec mg_context_spec = {"_mitogen_core.Context", sizeof(ContextObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, context_slots};
