/* The output differs from that of the standard pickler in three ways, each of which the standard
 * reader accepts: byte strings are raw (BINSTRING), never text in disguise; objects to which
 * there is no other reference get no memo entry; and large byte strings leave as references to
 * the objects that hold them.
 *
 * Attributes of a Context may run Python code, and without a GIL other threads may change a list
 * while it is written. So the writer holds a reference to each object that it takes out of a
 * mutable container, and the memo owns its keys. */
#include "codec/write.h"

#include "codec/write_containers.h"
#include "codec/write_objects.h"
#include "codec/write_values.h"
#include "codec/writer.h"
#include "wire/opcode.h"

static mg_write_fn *container_writer(PyTypeObject *type)
{
    if (type == &PyTuple_Type)
        return mg_write_tuple;
    if (type == &PyDict_Type)
        return mg_write_dict;
    return type == &PyList_Type ? mg_write_list : NULL;
}

/* Writes anything. known is how many references to obj the caller knows of, its own included:
 * when there are no more, obj cannot come up again, and gets no memo entry. */
static int write_value(mg_writer *w, PyObject *obj, Py_ssize_t known)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyLong_Type)
        return mg_write_int(w, obj);
    if (obj == Py_None)
        return mg_put_byte(w->out, OP_NONE);
    if (type == &PyBool_Type)
        return mg_put_byte(w->out, obj == Py_True ? OP_NEWTRUE : OP_NEWFALSE);
    if (type == &PyFloat_Type)
        return mg_write_float(w, obj);

    int shared = Py_REFCNT(obj) > known || (w->open != 0 && (type == &PyList_Type || type == &PyDict_Type));
    if (shared) {
        mg_memo_entry *entry = mg_memo_find(w, obj);
        if (entry->obj != NULL)
            return mg_write_get(w, entry->index);
    }
    if (type == &PyUnicode_Type || type == &PyBytes_Type) {
        int rc = type == &PyUnicode_Type ? mg_write_text(w, obj) : mg_write_bytes(w, obj, 0);
        return rc == 0 && shared ? mg_memo_put(w, obj) : rc;
    }

    int levels = 1;
    mg_write_fn *fn = container_writer(type);
    if (fn == NULL)
        fn = mg_find_object_writer(w->codec, obj, &levels);
    if (fn == NULL)
        return PyErr_Occurred() ? -1 : MG_OUTSIDE;
    if (mg_enter(w, levels) < 0)
        return -1;
    int rc = fn(w, obj, shared);
    mg_leave(w, levels);
    return rc;
}

static int write_top(mg_writer *w, PyObject *obj)
{
    if (mg_put_bytes(w->out, (uint8_t[]) {OP_PROTO, 2}, 2) < 0)
        return -1;
    /* Nothing is known of the caller's references: even a single one may be from inside obj. */
    int rc = PyBytes_CheckExact(obj) ? mg_write_bytes(w, obj, 1) : write_value(w, obj, 0);
    if (rc == 0)
        rc = mg_put_byte(w->out, OP_STOP);
    return rc;
}

static int write_by_fallback(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out)
{
    mg_out_reset(out);
    PyObject *payload = PyObject_Vectorcall(codec->fallback_pickle, objs, (size_t) n, NULL);
    if (payload == NULL)
        return -1;
    if (!PyBytes_Check(payload)) {
        PyErr_Format(PyExc_TypeError, "fallback_pickle returned %.100s instead of bytes", Py_TYPE(payload)->tp_name);
        Py_DECREF(payload);
        return -1;
    }
    out->is_special = 1;
    return mg_out_add_seg(out, (const uint8_t *) PyBytes_AS_STRING(payload), (size_t) PyBytes_GET_SIZE(payload),
                          payload);
}

int mg_pickle(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out)
{
    mg_writer w;
    mg_writer_init(&w, codec, out);
    w.value = write_value;

    int rc = 0;
    for (Py_ssize_t i = 0; i < n && rc == 0; i++)
        rc = write_top(&w, objs[i]);
    mg_writer_fini(&w);
    if (rc == MG_OUTSIDE)
        return write_by_fallback(codec, objs, n, out);
    if (rc == 0)
        rc = mg_out_finish(out);
    return rc;
}
