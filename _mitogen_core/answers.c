#include "answers.h"

#include "base/clock.h"
#include "binding_event_kinds.h"
#include "callee.h"
#include "errors.h"
#include "fields.h"
#include "gil.h"
#include "later.h"
#include "loop/lead.h"
#include "message_object.h"
#include "receiver_object.h"
#include "router_handlers.h"

/* The receiver, or NULL with TypeError. */
static ReceiverObject *need_receiver(PyObject *module, PyObject *obj)
{
    mg_state *st = PyModule_GetState(module);
    if (PyObject_TypeCheck(obj, st->Receiver))
        return (ReceiverObject *) obj;
    PyErr_SetString(PyExc_TypeError, "a Receiver is needed");
    return NULL;
}

static int need_count(const char *name, Py_ssize_t n, Py_ssize_t wanted)
{
    if (n == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments", name, wanted);
    return -1;
}

PyObject *mg_answers_bell(PyObject *module, PyObject *receiver)
{
    ReceiverObject *self = need_receiver(module, receiver);
    if (!self)
        return NULL;
    int fd = mg_latch_bell(self->latch);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* --- a call --- */

PyObject *mg_answers_call(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    mg_state *st = PyModule_GetState(module);
    if (need_count("call_message", n, 3) || mg_need_configured(st))
        return NULL;
    PyObject *names = mg_callee_names(NULL, args[0]);
    if (!names || names == Py_None)
        return names;
    PyObject *call = PyTuple_Pack(6, Py_None, PyTuple_GET_ITEM(names, 0), PyTuple_GET_ITEM(names, 1),
                                  PyTuple_GET_ITEM(names, 2), args[1], args[2]);
    Py_DECREF(names);
    if (!call || !st->message_type) {
        Py_XDECREF(call);
        return NULL;
    }
    PyObject *msg = mg_message_pickled(st, (PyTypeObject *) st->message_type, &call, 1);
    Py_DECREF(call);
    return msg;
}

/* Takes back what mg_answers_ask has begun, and keeps the exception that is set. */
static void give_up(PyObject *router, PyObject *pending, PyObject *handle)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (PyDict_DelItem(pending, handle))
        PyErr_Clear();
    PyObject *r = PyObject_CallMethod(router, "del_handler", "O", handle);
    if (!r)
        PyErr_Clear(); /* its answer, a dead message, is there already */
    Py_XDECREF(r);
    PyErr_Restore(type, value, tb);
}

PyObject *mg_answers_ask(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    if (need_count("ask", n, 5))
        return NULL;
    ReceiverObject *self = need_receiver(module, args[0]);
    PyObject *context = args[1], *msg = args[2], *pending = args[3], *future = args[4], *sent = NULL;
    if (!self)
        return NULL;
    mg_state *st = self->st;
    PyObject *router = mg_field(args[0], &self->router);
    PyObject *receive = router ? PyObject_GetAttr(args[0], st->str_on_receive) : NULL;
    PyObject *handle = receive ? mg_add_handler(router, receive, Py_None, 0, Py_None, context, 0, 1) : NULL;
    Py_XDECREF(receive);
    /* before the message is sent: from then on its answer may come */
    if (handle && PyDict_SetItem(pending, handle, future) == 0 &&
        mg_message_set(st, msg, MG_FIELD_REPLY_TO, handle) == 0) {
        atomic_store(&self->asked_at, mg_now());
        sent = PyObject_CallMethodObjArgs(context, st->str_send, msg, NULL);
    }
    if (handle && !sent) {
        give_up(router, pending, handle);
        Py_CLEAR(handle);
    }
    Py_XDECREF(sent);
    Py_XDECREF(router);
    return handle;
}

/* --- answers --- */

/* Where answers go. All borrowed. */
typedef struct {
    PyObject *pending;
    PyObject *other;  /* called with a future and a message that is long, dead, an error or damaged */
    PyObject *method; /* of a future, called with the value of any other message */
    Py_ssize_t limit; /* bytes of a message that is not long */
} answer_taker;

/* Returns -1 if the exception that is set is for the caller: Ctrl-C, or whatever else that is no
 * Exception came while an answer was given. Nobody is there for any other one. */
static int raised(PyObject *where)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyErr_WriteUnraisable(where);
    return 0;
}

/* Calls what takes an answer. A long one is not read here. */
static PyObject *hand_over(PyObject *future, MessageObject *msg, const answer_taker *to)
{
    PyObject *value = mg_message_size(msg) <= to->limit ? mg_message_plain_value(msg) : NULL;
    if (!value && PyErr_Occurred())
        return NULL;
    PyObject *r = value ? PyObject_CallMethodObjArgs(future, to->method, value, NULL)
                        : PyObject_CallFunctionObjArgs(to->other, future, (PyObject *) msg, NULL);
    Py_XDECREF(value);
    return r;
}

/* Gives a message to the future that waits for it. */
static int give(ReceiverObject *self, PyObject *msg, const answer_taker *to)
{
    mg_state *st = self->st;
    if (!PyObject_TypeCheck(msg, st->Message))
        return 0;
    PyObject *handle = mg_field(msg, &((MessageObject *) msg)->handle);
    PyObject *future =
        handle ? PyObject_CallMethodObjArgs(to->pending, st->str_pop, handle, Py_None, NULL) : Py_NewRef(Py_None);
    Py_XDECREF(handle);
    if (!future)
        return raised(to->pending);
    PyObject *r = future == Py_None ? Py_NewRef(Py_None) : hand_over(future, (MessageObject *) msg, to);
    int err = r ? 0 : raised(future);
    Py_XDECREF(r);
    Py_DECREF(future);
    return err;
}

static int give_item(ReceiverObject *self, mg_item item, const answer_taker *to)
{
    PyObject *msg = mg_receiver_message(self, item);
    if (!msg)
        return -1;
    int err = give(self, msg, to);
    Py_DECREF(msg);
    return err;
}

/* Gives the answers that have come by now. Those that come meanwhile ring. The first exception is
 * raised when all have been given: the bell does not ring for them again. */
static int give_all(ReceiverObject *self, const answer_taker *to)
{
    mg_item item;
    PyObject *type = NULL, *value = NULL, *tb = NULL;
    mg_latch_hush(self->latch);
    for (size_t left = mg_latch_size(self->latch); left && mg_latch_try(self->latch, &item) == MG_OK; left--)
        if (give_item(self, item, to)) {
            if (type)
                PyErr_Clear();
            else
                PyErr_Fetch(&type, &value, &tb);
        }
    mg_run_later();
    if (!type)
        return 0;
    PyErr_Restore(type, value, tb);
    return -1;
}

PyObject *mg_answers_settle(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    if (need_count("settle", n, 5))
        return NULL;
    ReceiverObject *self = need_receiver(module, args[0]);
    answer_taker to = {args[1], args[2], args[3], self ? PyLong_AsSsize_t(args[4]) : -1};
    if (!self || (to.limit < 0 && PyErr_Occurred()))
        return NULL;
    if (PyDict_Size(to.pending) == 1)
        mg_latch_learn(mg_now() - atomic_load(&self->asked_at));
    if (give_all(self, &to))
        return NULL;
    Py_RETURN_NONE;
}

static void push_one_event(mg_latch *l, void *loop)
{
    mg_event ev = {.kind = MG_EV_NOTIFY, .a = l};
    if (mg_latch_has_rung(l))
        return;
    mg_latch_ref(l);
    if (mg_loop_push_event(loop, &ev) == MG_OK)
        return;
    mg_latch_unref(l);
    mg_latch_hush(l); /* there is no memory; the next item may find some */
}

PyObject *mg_answers_tell_once(PyObject *module, PyObject *receiver)
{
    ReceiverObject *self = need_receiver(module, receiver);
    mg_loop *loop = self ? atomic_load(&self->loop) : NULL;
    if (!self)
        return NULL;
    if (loop)
        mg_latch_tell(self->latch, push_one_event, loop);
    Py_RETURN_NONE;
}

/* Polls for one item: MG_OK; MG_EAGAIN; or another error. */
static mg_err glance(ReceiverObject *self, mg_loop *loop, mg_item *item)
{
    mg_sleeper *s = PyMem_RawMalloc(sizeof *s); /* not on the stack, as in mg_wait_item() */
    mg_err err = s ? mg_latch_join(self->latch, s, item) : MG_ENOMEM;
    if (err == MG_EAGAIN) {
        MG_WITHOUT_GIL(mg_loop_glance(loop, s));
        err = mg_latch_leave(self->latch, s, item);
        if (err == MG_OK)
            mg_sleeper_learn(s);
    }
    PyMem_RawFree(s);
    return err;
}

PyObject *mg_answers_glance(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    if (need_count("glance", n, 4))
        return NULL;
    ReceiverObject *self = need_receiver(module, args[0]);
    mg_loop *loop = self ? atomic_load(&self->loop) : NULL;
    PyObject *pending = args[1];
    answer_taker to = {pending, args[2], self ? self->st->str_set_result : NULL, PY_SSIZE_T_MAX};
    mg_item item;
    if (!self)
        return NULL;
    /* with more calls under way, others have more to do than to wait for this thread */
    if (loop && args[3] == Py_True && PyDict_Size(pending) == 1 && glance(self, loop, &item) == MG_OK &&
        give_item(self, item, &to))
        return NULL;
    if (loop && PyDict_Size(pending) > 0) {
        MG_WITHOUT_GIL(mg_loop_keep_led(loop));
    }
    Py_RETURN_NONE;
}
