#include "codec/write_objects.h"

#include "codec/limits.h"
#include "codec/write_containers.h"
#include "codec/write_values.h"
#include "wire/opcode.h"

static int write_reduce(mg_writer *w, uint8_t tuple_op, PyObject *obj, int shared)
{
    if (mg_put_bytes(w->out, (uint8_t[]) {tuple_op, OP_REDUCE}, 2) < 0)
        return -1;
    return shared ? mg_memo_put(w, obj) : 0;
}

static int write_blob(mg_writer *w, PyObject *obj, int shared)
{
    if (!PyBytes_Check(obj))
        return MG_OUTSIDE;
    if (mg_write_global(w, GLOBAL_BLOB) < 0 || mg_write_bytes(w, obj, 0) < 0)
        return -1;
    return write_reduce(w, OP_TUPLE1, obj, shared);
}

static int write_secret(mg_writer *w, PyObject *obj, int shared)
{
    if (!PyUnicode_Check(obj))
        return MG_OUTSIDE;
    if (mg_write_global(w, GLOBAL_SECRET) < 0 || mg_write_text(w, obj) < 0)
        return -1;
    return write_reduce(w, OP_TUPLE1, obj, shared);
}

static int write_kwargs(mg_writer *w, PyObject *obj, int shared)
{
    if (!PyDict_Check(obj))
        return MG_OUTSIDE;
    if (mg_write_global(w, GLOBAL_KWARGS) < 0 || mg_put_byte(w->out, OP_EMPTY_DICT) < 0)
        return -1;
    w->open += shared;
    int rc = mg_write_dict_items(w, obj);
    w->open -= shared;
    if (rc != 0)
        return rc;
    mg_memo_entry *entry = shared ? mg_memo_find(w, obj) : NULL;
    if (entry == NULL || entry->obj == NULL)
        return write_reduce(w, OP_TUPLE1, obj, shared);
    /* Kwargs that contain themselves, by way of a list or dict, are complete by now, as tuples
     * are. */
    if (mg_put_bytes(w->out, (uint8_t[]) {OP_POP, OP_POP}, 2) < 0)
        return -1;
    return mg_write_get(w, entry->index);
}

/* An attribute as a new reference through value. If it is missing, the object is MG_OUTSIDE, and
 * the fallback raises the right error. */
static int get_attribute(PyObject *obj, PyObject *name, PyObject **value)
{
    *value = PyObject_GetAttr(obj, name);
    if (*value != NULL)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return MG_OUTSIDE;
}

static int write_call_error(mg_writer *w, PyObject *obj, int shared)
{
    PyObject *args;
    int rc = get_attribute(obj, w->codec->str_args, &args);
    if (rc != 0)
        return rc;
        /* The fallback decides whether to shorten a text that is too long for readers. */
    PyObject *text = PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (text == NULL || !PyUnicode_CheckExact(text) || PyUnicode_GetLength(text) >= MG_CODEC_MAX_CALL_ERROR) {
        rc = MG_OUTSIDE;
    } else {
        rc = mg_write_global(w, GLOBAL_CALL_ERROR);
        if (rc == 0)
            rc = w->value(w, text, 1);
        if (rc == 0)
            rc = write_reduce(w, OP_TUPLE1, obj, shared);
    }
    Py_DECREF(args);
    return rc;
}

/* Messages to a context may have to carry the authority that it was named with. Then the pickle
 * names that, too. This is rare, so the fallback does it: MG_OUTSIDE. */
static int needs_no_authority(mg_writer *w, PyObject *context)
{
    PyObject *auth_id;
    int rc = get_attribute(context, w->codec->str_auth_id, &auth_id);
    if (rc != 0)
        return rc;
    int none = auth_id == Py_None;
    Py_DECREF(auth_id);
    return none ? 0 : MG_OUTSIDE;
}

static int write_context(mg_writer *w, PyObject *obj, int shared)
{
    PyObject *id = NULL, *name = NULL;
    int rc = needs_no_authority(w, obj);
    if (rc == 0)
        rc = get_attribute(obj, w->codec->str_context_id, &id);
    if (rc == 0)
        rc = get_attribute(obj, w->codec->str_name, &name);
    if (rc == 0 && (!PyLong_CheckExact(id) || !(name == Py_None || PyUnicode_CheckExact(name))))
        rc = MG_OUTSIDE;
    if (rc == 0)
        rc = mg_write_global(w, GLOBAL_CONTEXT);
    if (rc == 0)
        rc = mg_write_int(w, id);
    if (rc == 0)
        rc = w->value(w, name, 2);
    if (rc == 0)
        rc = write_reduce(w, OP_TUPLE2, obj, shared);
    Py_XDECREF(id);
    Py_XDECREF(name);
    return rc;
}

static int write_sender(mg_writer *w, PyObject *obj, int shared)
{
    PyObject *context = NULL, *id = NULL, *handle = NULL;
    w->out->is_special = 1;
    int rc = get_attribute(obj, w->codec->str_context, &context);
    if (rc == 0)
        rc = needs_no_authority(w, context);
    if (rc == 0)
        rc = get_attribute(context, w->codec->str_context_id, &id);
    if (rc == 0)
        rc = get_attribute(obj, w->codec->str_dst_handle, &handle);
    if (rc == 0 && (!PyLong_CheckExact(id) || !PyLong_CheckExact(handle)))
        rc = MG_OUTSIDE;
    if (rc == 0)
        rc = mg_write_global(w, GLOBAL_SENDER);
    if (rc == 0)
        rc = mg_write_int(w, id);
    if (rc == 0)
        rc = mg_write_int(w, handle);
    if (rc == 0)
        rc = write_reduce(w, OP_TUPLE2, obj, shared);
    Py_XDECREF(context);
    Py_XDECREF(id);
    Py_XDECREF(handle);
    return rc;
}

/* Some buffers are arrays of numbers. Python knows which, and makes bytes of them. */
static int write_buffer(mg_writer *w, PyObject *obj, int shared)
{
    PyObject *parts = PyObject_CallOneArg(w->codec->take_buffer_apart, obj);
    if (parts == NULL)
        return -1;
    int rc = PyTuple_CheckExact(parts) ? mg_write_global(w, GLOBAL_BUFFER) : MG_OUTSIDE;
    if (rc == 0)
        rc = w->value(w, parts, 1);
    Py_DECREF(parts);
    if (rc == 0)
        rc = mg_put_byte(w->out, OP_REDUCE);
    return rc == 0 && shared ? mg_memo_put(w, obj) : rc;
}

static int same_attribute(PyTypeObject *type, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr((PyObject *) type, name);
    if (value == NULL)
        return -1;
    int same = value == expected;
    Py_DECREF(value);
    return same;
}

/* Whether instances of type reduce themselves as a Context does: 1, 0, or -1 with an exception. */
static int is_context(mg_codec *codec, PyTypeObject *type)
{
    if ((PyObject *) type == codec->Context)
        return 1;
    if (!PyType_IsSubtype(type, (PyTypeObject *) codec->Context))
        return 0;
    int same = same_attribute(type, codec->str_reduce, codec->context_reduce);
    if (same == 1)
        same = same_attribute(type, codec->str_reduce_ex, codec->context_reduce_ex);
    return same;
}

mg_write_fn *mg_find_object_writer(mg_codec *codec, PyObject *obj, int *levels)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *cls = (PyObject *) type;
    *levels = 1;
    if (cls == codec->Kwargs) {
        *levels = 2;
        return write_kwargs;
    }
    if (cls == codec->Blob)
        return write_blob;
    if (cls == codec->Secret)
        return write_secret;
    if (cls == codec->CallError)
        return write_call_error;
    if (cls == codec->Sender)
        return write_sender;
    int is = is_context(codec, type);
    if (is == 0 && PyObject_CheckBuffer(obj))
        return write_buffer;
    return is == 1 ? write_context : NULL;
}
