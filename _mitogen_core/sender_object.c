#include "sender_object.h"

#include "message_object.h"

/* Whether a value is refused, with an exception: it may name a context of another router. */
static int look_at(mg_state *st, PyObject *context, PyObject *value)
{
    PyObject *check = mg_state_get(&st->value_check);
    if (!check)
        return 0;
    PyObject *r = PyObject_CallFunctionObjArgs(check, context, value, NULL);
    Py_DECREF(check);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static PyObject *sender_send(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "enc", NULL};
    mg_state *st = mg_state_of_type(Py_TYPE(obj));
    PyObject *value, *enc = NULL, *msg, *result = NULL;
    if (!st || mg_need_configured(st) || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:send", names, &value, &enc))
        return NULL;
    PyObject *context = PyObject_GetAttr(obj, st->codec.str_context);
    PyObject *handle =
        context ? PyObject_GetAttr(obj, st->codec.str_dst_handle) : NULL; /* never with an exception set */
    if (!handle || look_at(st, context, value))
        goto done;
    int overflow;
    if (!enc || (PyLong_Check(enc) && PyLong_AsLongAndOverflow(enc, &overflow) == MG_ENC_PKL))
        msg = mg_message_pickled(st, (PyTypeObject *) st->message_type, &value, 1);
    else
        msg = PyObject_CallMethod(st->message_type, "encoded", "OO", value, enc);
    if (msg && !mg_message_set(st, msg, MG_FIELD_HANDLE, handle))
        result = PyObject_CallMethodObjArgs(context, st->str_send, msg, NULL);
    Py_XDECREF(msg);
done:
    Py_XDECREF(context);
    Py_XDECREF(handle);
    return result;
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction) (void (*)(void)) sender_send, METH_VARARGS | METH_KEYWORDS,
     "send($self, /, data, enc=0x4d4a)\n--\n\nSend an object, or bytes as they are. Any thread."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot sender_slots[] = {
    {Py_tp_methods, sender_methods}, {Py_tp_doc, "Sends to one handle of a context."}, {0, NULL}};
PyType_Spec mg_sender_spec = {"_mitogen_core.Sender", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                              sender_slots};
