#include "module_state.h"

#include "wire/frame.h"

/* --- which state --- */

mg_state *mg_state_of_type(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &mg_module_def);
    return module ? PyModule_GetState(module) : NULL;
#else
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *) PyTuple_GET_ITEM(mro, i);
        if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = ((PyHeapTypeObject *) base)->ht_module;
        if (module && PyModule_GetDef(module) == &mg_module_def)
            return PyModule_GetState(module);
    }
    PyErr_Format(PyExc_TypeError, "%.100s is not a type of _mitogen_core", type->tp_name);
    return NULL;
#endif
}

int mg_need_configured(mg_state *st)
{
    if (st->configured)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "_mitogen_core is used through mitogen.core: import that first");
    return -1;
}

/* --- what is in it --- */

static int make_number(PyObject **slot, long value)
{
    *slot = PyLong_FromLong(value);
    return *slot ? 0 : -1;
}

static int make_name(PyObject **slot, const char *text)
{
    *slot = PyUnicode_InternFromString(text);
    return *slot ? 0 : -1;
}

int mg_state_init(mg_state *st)
{
    st->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    if (!st->empty_bytes || make_number(&st->own_id, 0) || make_number(&st->zero, 0) ||
        make_number(&st->enc_mgc, MG_ENC_MGC) || make_number(&st->enc_pkl, MG_ENC_PKL))
        return -1;
    if (make_name(&st->str_on_receive, "_on_receive") || make_name(&st->str_deliver, "_deliver") ||
        make_name(&st->str_route, "route") || make_name(&st->str_send, "send") ||
        make_name(&st->str_add_handler, "add_handler") || make_name(&st->str_respondent_of, "_respondent_of") ||
        make_name(&st->str_watch_respondent, "_watch_respondent") || make_name(&st->str_unwaiting, "_unwaiting") ||
        make_name(&st->str_pop, "pop") || make_name(&st->str_set_result, "set_result"))
        return -1;
    return 0;
}

/* Without a GIL another thread may be about to use the object that was there: that one lives as
 * long as the module. */
int mg_state_replace(mg_state *st, PyObject **slot, PyObject *value)
{
    PyObject *old = *slot;
    if (old == value)
        return 0;
#ifdef Py_GIL_DISABLED
    if (!st->replaced && !(st->replaced = PyList_New(0)))
        return -1;
    if (old && PyList_Append(st->replaced, old))
        return -1;
#else
    (void) st;
#endif
    __atomic_store_n(slot, Py_NewRef(value), __ATOMIC_RELEASE);
    Py_XDECREF(old);
    return 0;
}

static int take(mg_state *st, PyObject **slot, PyObject *dict, const char *name)
{
    PyObject *value = PyDict_GetItemString(dict, name); /* borrowed */
    if (!value) {
        PyErr_Format(PyExc_KeyError, "configure() needs %s", name);
        return -1;
    }
    return mg_state_replace(st, slot, value);
}

static int need_subclass(PyObject *type, PyTypeObject *base, const char *name)
{
    if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *) type, base))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s must be a subclass of %.100s", name, base->tp_name);
    return -1;
}

int mg_state_configure(mg_state *st, PyObject *dict)
{
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "a dict is needed");
        return -1;
    }
#define MG_TAKE(name)                                                                                                  \
    if (take(st, &st->name, dict, #name))                                                                              \
        return -1;
    MG_STATE_CONFIGURED(MG_TAKE)
#undef MG_TAKE
    if (need_subclass(st->message_type, st->Message, "message_type") ||
        need_subclass(st->receiver_type, st->Receiver, "receiver_type") || mg_codec_configure(&st->codec, dict))
        return -1;
    st->configured = 1;
    return 0;
}

int mg_state_traverse(mg_state *st, visitproc visit, void *arg)
{
#define MG_VISIT(name) Py_VISIT(st->name);
    MG_STATE_TYPES(MG_VISIT)
    MG_STATE_CONFIGURED(MG_VISIT)
    MG_STATE_INTERNAL(MG_VISIT)
#undef MG_VISIT
    return mg_codec_traverse(&st->codec, visit, arg);
}

void mg_state_clear(mg_state *st)
{
#define MG_CLEAR(name) Py_CLEAR(st->name);
    MG_STATE_TYPES(MG_CLEAR)
    MG_STATE_CONFIGURED(MG_CLEAR)
    MG_STATE_INTERNAL(MG_CLEAR)
#undef MG_CLEAR
    mg_codec_clear(&st->codec);
    st->configured = 0;
}
