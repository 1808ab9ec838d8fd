#include "errors.h"

PyObject *mg_raise(mg_state *st, mg_err err)
{
    switch (err) {
    case MG_ENOMEM: return PyErr_NoMemory();
    case MG_EAGAIN:
    case MG_ETIMEDOUT: PyErr_SetNone(st->TimeoutError); break;
    case MG_ECLOSED: PyErr_SetObject(st->LatchError, st->latch_closed_msg); break;
    case MG_EEXIST: PyErr_SetObject(st->Error, st->duplicate_handle_msg); break;
    case MG_EIO: return PyErr_SetFromErrno(PyExc_OSError);
    default: PyErr_SetString(PyExc_RuntimeError, mg_strerror(err)); break;
    }
    return NULL;
}

PyObject *mg_none_or_raise(mg_state *st, mg_err err)
{
    if (err != MG_OK)
        return mg_raise(st, err);
    Py_RETURN_NONE;
}

PyObject *mg_raise_dead(mg_state *st, PyObject *msg)
{
    PyObject *text = PyObject_CallOneArg(st->dead_text, msg);
    if (text) {
        PyErr_SetObject(st->ChannelError, text);
        Py_DECREF(text);
    }
    return NULL;
}

PyObject *mg_raise_shut_down(mg_state *st)
{
    PyErr_SetObject(st->Error, st->broker_shutdown_msg);
    return NULL;
}

int mg_need_type(PyObject *obj, PyTypeObject *type, const char *name)
{
    if (PyObject_TypeCheck(obj, type))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s is needed, not %.100s", name, Py_TYPE(obj)->tp_name);
    return -1;
}
