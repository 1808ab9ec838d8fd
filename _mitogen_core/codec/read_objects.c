#include "codec/read_objects.h"

#include "codec/globals.h"
#include "codec/limits.h"
#include "codec/read_containers.h"

#include <string.h>

enum { MAX_CONTEXT_NAME = 500 };

/* Arguments after the first one cost nothing up to this size: most are names of a kind. */
enum { FREE_ARGUMENT = 16 };

static int refuse_names(mg_unpickler *up, PyObject *module, PyObject *name)
{
    if (up->deny)
        PyErr_Format(up->codec->UnpicklingError, "no global is accepted here: %R/%R", module, name);
    else
        PyErr_Format(up->codec->StreamError, "cannot unpickle %R/%R", module, name);
    return -1;
}

int mg_refuse_type(mg_unpickler *up, const char *name)
{
    PyObject *m = PyUnicode_FromString("__builtin__"), *n = PyUnicode_FromString(name);
    if (m != NULL && n != NULL)
        refuse_names(up, m, n);
    Py_XDECREF(m);
    Py_XDECREF(n);
    return -1;
}

/* Asks Python for the function that makes values of the class of these names, and pushes it.
 * Refuses the names if there is none. */
static int push_value_maker(mg_unpickler *up, const uint8_t *module, size_t module_len, const uint8_t *name,
                            size_t name_len)
{
    int rc = -1;
    PyObject *m = PyUnicode_DecodeUTF8((const char *) module, (Py_ssize_t) module_len, NULL);
    PyObject *n = m != NULL ? PyUnicode_DecodeUTF8((const char *) name, (Py_ssize_t) name_len, NULL) : NULL;
    PyObject *maker = NULL;
    if (n != NULL && !up->deny) {
        maker = PyObject_CallFunctionObjArgs(up->codec->find_value, m, n, NULL);
        if (maker == Py_None)
            Py_CLEAR(maker);
    }
    if (maker != NULL)
        rc = mg_up_push_slot(up, (mg_slot) {.obj = maker, .global = GLOBAL_VALUE});
    else if (n != NULL && !PyErr_Occurred())
        rc = refuse_names(up, m, n);
    Py_XDECREF(m);
    Py_XDECREF(n);
    return rc;
}

static int push_global(mg_unpickler *up, const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len)
{
    int global = up->deny ? GLOBAL_NONE : mg_find_global(module, module_len, name, name_len);
    if (global == GLOBAL_NONE)
        return push_value_maker(up, module, module_len, name, name_len);
    PyObject *value = mg_global_value(up->codec, global);
    Py_INCREF(value);
    return mg_up_push_slot(up, (mg_slot) {.obj = value, .global = (uint16_t) global});
}

int mg_read_global(mg_unpickler *up)
{
    size_t module_len, name_len;
    const uint8_t *module = mg_up_take_line(up, &module_len);
    const uint8_t *name = module != NULL ? mg_up_take_line(up, &name_len) : NULL;
    if (name == NULL)
        return -1;
    return push_global(up, module, module_len, name, name_len);
}

int mg_read_stack_global(mg_unpickler *up)
{
    if (mg_up_need(up, 2) < 0)
        return -1;
    PyObject *module = up->stack[up->stack_len - 2].obj, *name = up->stack[up->stack_len - 1].obj;
    if (!PyUnicode_CheckExact(module) || !PyUnicode_CheckExact(name))
        return mg_malformed(up, "STACK_GLOBAL requires str");
    Py_ssize_t module_len, name_len;
    const char *m = PyUnicode_AsUTF8AndSize(module, &module_len);
    const char *n = m != NULL ? PyUnicode_AsUTF8AndSize(name, &name_len) : NULL;
    if (n == NULL)
        return -1;
    if (push_global(up, (const uint8_t *) m, (size_t) module_len, (const uint8_t *) n, (size_t) name_len) < 0)
        return -1;
    mg_slot made = up->stack[--up->stack_len];
    mg_up_drop_to(up, up->stack_len - 2);
    return mg_up_push_slot(up, made);
}

static PyObject *bad_arguments(const char *what)
{
    PyErr_Format(PyExc_TypeError, "bad arguments for %s", what);
    return NULL;
}

/* Whether obj is an int >= least. */
static int is_int_from(PyObject *obj, long long least)
{
    if (!PyLong_Check(obj))
        return 0;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    return overflow > 0 || (overflow == 0 && value >= least);
}

static PyObject *make_blob(mg_codec *codec, PyObject *const *args, Py_ssize_t n)
{
    if (n > 1 || (n == 1 && !PyBytes_Check(args[0])))
        return bad_arguments("Blob");
    return PyObject_Vectorcall(codec->Blob, args, (size_t) n, NULL);
}

static PyObject *make_secret(mg_codec *codec, PyObject *const *args, Py_ssize_t n)
{
    if (n > 1 || (n == 1 && !PyUnicode_Check(args[0])))
        return bad_arguments("Secret");
    return PyObject_Vectorcall(codec->Secret, args, (size_t) n, NULL);
}

static PyObject *make_kwargs(mg_codec *codec, PyObject *const *args, Py_ssize_t n)
{
    if (n != 1 || !PyDict_Check(args[0]))
        return bad_arguments("Kwargs");

    /* The constructor's one job is to turn keys of bytes into text. Mostly there are no such
     * keys, and the call into Python would be most of the cost of reading a small message. */
    PyObject *key;
    Py_ssize_t pos = 0;
    int all_text = codec->kwargs_is_dict;
    while (all_text && PyDict_Next(args[0], &pos, &key, NULL))
        all_text = PyUnicode_CheckExact(key);
    if (!all_text)
        return PyObject_Vectorcall(codec->Kwargs, args, 1, NULL);

    PyObject *kwargs = PyDict_Type.tp_new((PyTypeObject *) codec->Kwargs, codec->no_args, NULL);
    if (kwargs != NULL && pos > 0 && PyDict_Update(kwargs, args[0]) < 0)
        Py_CLEAR(kwargs);
    return kwargs;
}

static PyObject *make_call_error(mg_codec *codec, PyObject *const *args, Py_ssize_t n)
{
    if (n != 1 || !PyUnicode_CheckExact(args[0]) || PyUnicode_GetLength(args[0]) >= MG_CODEC_MAX_CALL_ERROR)
        return bad_arguments("CallError");
    return PyObject_Vectorcall(codec->unpickle_call_error, args, 1, NULL);
}

/* Whether a third argument, the authority that somebody was named with, is none or an id. */
static int is_authority(PyObject *const *args, Py_ssize_t n)
{
    return n == 2 || (n == 3 && is_int_from(args[2], 0));
}

static PyObject *make_context(mg_codec *codec, PyObject *origin, PyObject *const *args, Py_ssize_t n)
{
    if (!is_authority(args, n) || !is_int_from(args[0], 0) ||
        !(args[1] == Py_None || (PyUnicode_Check(args[1]) && PyUnicode_GetLength(args[1]) <= MAX_CONTEXT_NAME)))
        return bad_arguments("Context");
    PyObject *call[] = {origin != NULL ? origin : Py_None, args[0], args[1], args[n - 1]};
    return PyObject_Vectorcall(codec->unpickle_context, call, (size_t) n + 1, NULL);
}

static PyObject *make_sender(mg_codec *codec, PyObject *origin, PyObject *const *args, Py_ssize_t n)
{
    if (origin == NULL || !is_authority(args, n) || !is_int_from(args[0], 0) || !is_int_from(args[1], 1))
        return bad_arguments("Sender");
    PyObject *call[] = {origin, args[0], args[1], args[n - 1]};
    return PyObject_Vectorcall(codec->unpickle_sender, call, (size_t) n + 1, NULL);
}

/* Python 3's disguise for bytes in protocols up to 2: nothing, or Latin-1 text and the name of
 * the encoding, which is ignored. Never a number, which would be a length. */
static PyObject *make_bytes(PyObject *const *args, Py_ssize_t n)
{
    if (n == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (n > 2 || !PyUnicode_CheckExact(args[0]))
        return bad_arguments("bytes");
    return PyUnicode_AsLatin1String(args[0]);
}

static PyObject *make_object(mg_unpickler *up, PyObject *callee, int global, PyObject *tuple)
{
    mg_codec *codec = up->codec;
    PyObject *const *args = PySequence_Fast_ITEMS(tuple);
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    switch (global) {
    case GLOBAL_BLOB: return make_blob(codec, args, n);
    case GLOBAL_SECRET: return make_secret(codec, args, n);
    case GLOBAL_KWARGS: return make_kwargs(codec, args, n);
    case GLOBAL_CALL_ERROR: return make_call_error(codec, args, n);
    case GLOBAL_CONTEXT: return make_context(codec, up->origin, args, n);
    case GLOBAL_SENDER: return make_sender(codec, up->origin, args, n);
    case GLOBAL_BUFFER: return PyObject_Vectorcall(codec->unpickle_buffer, args, (size_t) n, NULL);
    case GLOBAL_ENCODE:
    case GLOBAL_BYTES: return make_bytes(args, n);
    case GLOBAL_VALUE: return PyObject_Vectorcall(callee, args, (size_t) n, NULL);
    default: PyErr_SetString(PyExc_TypeError, "a value is not callable"); return NULL;
    }
}

/* How many characters, bytes or items an argument has. */
static size_t size_of(PyObject *arg)
{
    if (PyUnicode_Check(arg))
        return (size_t) PyUnicode_GET_LENGTH(arg);
    if (PyBytes_Check(arg))
        return (size_t) PyBytes_GET_SIZE(arg);
    if (PyDict_Check(arg))
        return (size_t) PyDict_GET_SIZE(arg);
    if (PyList_CheckExact(arg))
        return (size_t) PyList_GET_SIZE(arg);
    return PyTuple_CheckExact(arg) ? (size_t) PyTuple_GET_SIZE(arg) : 0;
}

/* Pays for the copy that is about to be made: a message may name one long text many times, but a
 * copy of it each time would fill memory. Texts that are named once are never longer than the
 * message, and are copied twice at most: Python 3 makes bytes of a text, and a Blob of these. */
static int pay_for_copy(mg_unpickler *up, PyObject *tuple)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        size_t size = size_of(PyTuple_GET_ITEM(tuple, i));
        if (i == 0 || size > FREE_ARGUMENT)
            up->copied += size;
    }
    size_t hole = up->hole != NULL ? (size_t) PyBytes_GET_SIZE(up->hole) : 0;
    return up->copied / 2 > up->len + hole + MG_CODEC_FREE_COPIES ? mg_malformed(up, "a message copies itself") : 0;
}

/* A global and a tuple are on top: replaces them by the object made of them. */
static int call_global(mg_unpickler *up)
{
    mg_slot *slots = &up->stack[up->stack_len - 2];
    if (!PyTuple_CheckExact(slots[1].obj))
        return mg_malformed(up, "arguments are not a tuple");
    if (pay_for_copy(up, slots[1].obj) < 0)
        return -1;
    unsigned height = slots[1].height;
    PyObject *made = make_object(up, slots[0].obj, slots[0].global, slots[1].obj);
    if (made == NULL)
        return -1;
    mg_up_drop_to(up, up->stack_len - 2);
    return mg_up_push(up, made, height);
}

int mg_read_reduce(mg_unpickler *up)
{
    return mg_up_need(up, 2) < 0 ? -1 : call_global(up);
}

/* NEWOBJ, by which protocol 2 writes instances of subclasses of str. It is accepted only for the
 * two classes whose instances are complete after the call of the class. */
int mg_read_newobj(mg_unpickler *up)
{
    if (mg_up_need(up, 2) < 0)
        return -1;
    int global = up->stack[up->stack_len - 2].global;
    if (global != GLOBAL_BLOB && global != GLOBAL_SECRET)
        return mg_malformed(up, "NEWOBJ is not accepted for this");
    return call_global(up);
}

/* INST and OBJ, the forms of protocols 0 and 1: the arguments lie above the mark. Without
 * arguments they mean the same as NEWOBJ. */
static int call_old_style(mg_unpickler *up)
{
    return PyTuple_GET_SIZE(up->stack[up->stack_len - 1].obj) ? call_global(up) : mg_read_newobj(up);
}

int mg_read_inst(mg_unpickler *up)
{
    if (mg_read_marked_tuple(up) < 0 || mg_read_global(up) < 0)
        return -1;
    mg_slot global = up->stack[up->stack_len - 1];
    up->stack[up->stack_len - 1] = up->stack[up->stack_len - 2];
    up->stack[up->stack_len - 2] = global;
    return call_old_style(up);
}

int mg_read_obj(mg_unpickler *up)
{
    size_t base;
    if (mg_up_pop_mark(up, &base) < 0)
        return -1;
    if (up->stack_len == base)
        return mg_underflow(up);
    if (mg_read_tuple(up, base + 1) < 0)
        return -1;
    return call_old_style(up);
}

/* Python 2 adds the instance's empty __dict__ after NEWOBJ. State that is not empty would change
 * an object in ways that no type of the closed set has any use for. */
int mg_read_build(mg_unpickler *up)
{
    if (mg_up_need(up, 2) < 0)
        return -1;
    PyObject *state = up->stack[up->stack_len - 1].obj;
    mg_slot *target = &up->stack[up->stack_len - 2];
    int empty = PyDict_CheckExact(state) && PyDict_Size(state) == 0 &&
                (target->global != GLOBAL_NONE || PyObject_HasAttrString(target->obj, "__dict__"));
    if (state != Py_None && !empty)
        return mg_malformed(up, "BUILD is not accepted");
    mg_up_drop_to(up, up->stack_len - 1);
    return 0;
}
