/* The codec by itself, as the extension module _codec_test. Built by codec_build.py for the
 * tests and the fuzzer. */
#include "codec/config.h"
#include "codec/limits.h"
#include "codec/read.h"
#include "codec/write.h"
#include "wire/landing.h"
#include "wire/peek.h"

#include <string.h>

typedef struct {
    mg_codec codec;
} state;

static mg_codec *get_codec(PyObject *module)
{
    mg_codec *codec = &((state *)PyModule_GetState(module))->codec;
    if (codec->Blob == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "not configured");
        return NULL;
    }
    return codec;
}

static PyObject *configure(PyObject *module, PyObject *dict)
{
    state *st = PyModule_GetState(module);
    if (mg_codec_configure(&st->codec, dict) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* pickle(*objs) -> bytes */
static PyObject *pickle(PyObject *module, PyObject *const *objs, Py_ssize_t n)
{
    mg_codec *codec = get_codec(module);
    if (codec == NULL)
        return NULL;
    mg_pickled out;
    mg_pickled_init(&out);
    PyObject *result = mg_pickle(codec, objs, n, &out) == 0 ? mg_pickled_bytes(&out) : NULL;
    mg_pickled_fini(&out);
    return result;
}

/* segments(*objs) -> [(owner or None, content), ...] */
static PyObject *segments(PyObject *module, PyObject *const *objs, Py_ssize_t n)
{
    mg_codec *codec = get_codec(module);
    if (codec == NULL)
        return NULL;
    mg_pickled out;
    mg_pickled_init(&out);
    PyObject *result = NULL;
    if (mg_pickle(codec, objs, n, &out) == 0)
        result = PyList_New(0);
    for (size_t i = 0; result != NULL && i < out.nsegs; i++) {
        mg_piece *seg = &out.segs[i];
        PyObject *pair = Py_BuildValue("(Oy#)", seg->owner != NULL ? seg->owner : Py_None, (const char *)seg->ptr,
                                       (Py_ssize_t)seg->len);
        if (pair == NULL || PyList_Append(result, pair) < 0)
            Py_CLEAR(result);
        Py_XDECREF(pair);
    }
    mg_pickled_fini(&out);
    return result;
}

/* unpickle_all(data, router=None, deny=False) -> [object, ...] */
static PyObject *unpickle_all(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    PyObject *router = Py_None;
    int deny = 0;
    mg_codec *codec = get_codec(module);
    if (codec == NULL || !PyArg_ParseTuple(args, "y*|Op", &buffer, &router, &deny))
        return NULL;

    /* A block of exactly this size lets a sanitizer see a read past its end. */
    size_t len = (size_t)buffer.len;
    uint8_t *data = PyMem_RawMalloc(len != 0 ? len : 1);
    PyObject *result = data != NULL ? PyList_New(0) : PyErr_NoMemory();
    if (result != NULL) {
        memcpy(data, buffer.buf, len);
        mg_unpickler up;
        mg_unpickler_init(&up, codec, data, len, router != Py_None ? router : NULL, deny);
        PyObject *obj = NULL;
        while (result != NULL && (obj = mg_unpickle_next(&up)) != NULL) {
            if (PyList_Append(result, obj) < 0)
                Py_CLEAR(result);
            Py_DECREF(obj);
        }
        if (result != NULL && PyErr_Occurred()) {
            Py_CLEAR(result);
            /* A further call must fail cleanly, and leave the first error to be seen. */
            PyObject *type, *error, *traceback;
            PyErr_Fetch(&type, &error, &traceback);
            if (mg_unpickle_next(&up) != NULL || !PyErr_Occurred())
                Py_FatalError("mg_unpickle_next() went on after a failure");
            PyErr_Restore(type, error, traceback);
        }
        mg_unpickler_fini(&up);
    }
    PyMem_RawFree(data);
    PyBuffer_Release(&buffer);
    return result;
}

/* unpickle_landed(data, router=None) -> (object, length): the first object, read with its first
 * long byte string in a place of its own; None where no string would be. */
static PyObject *unpickle_landed(PyObject *module, PyObject *args)
{
    Py_buffer buffer;
    PyObject *router = Py_None, *result = NULL, *hole = NULL;
    mg_codec *codec = get_codec(module);
    if (codec == NULL || !PyArg_ParseTuple(args, "y*|O", &buffer, &router))
        return NULL;
    const uint8_t *data = buffer.buf;
    size_t len = (size_t)buffer.len, at = 0, n = mg_peek_bytes(data, len, MG_LANDING_MIN, &at);
    if (n == 0 || at > len || n > len - at || n <= len - n) {
        PyBuffer_Release(&buffer);
        Py_RETURN_NONE;
    }
    uint8_t *around = PyMem_RawMalloc(len - n);
    hole = around != NULL ? PyBytes_FromStringAndSize((const char *)data + at, (Py_ssize_t)n) : PyErr_NoMemory();
    if (hole != NULL) {
        memcpy(around, data, at);
        memcpy(around + at, data + at + n, len - n - at);
        mg_unpickler up;
        mg_unpickler_init(&up, codec, around, len - n, router != Py_None ? router : NULL, 0);
        mg_unpickler_set_hole(&up, hole, at);
        PyObject *obj = mg_unpickle_next(&up);
        if (obj != NULL)
            result = Py_BuildValue("(Nn)", obj, (Py_ssize_t)n);
        else if (!PyErr_Occurred())
            PyErr_SetString(PyExc_EOFError, "no object");
        mg_unpickler_fini(&up);
    }
    Py_XDECREF(hole);
    PyMem_RawFree(around);
    PyBuffer_Release(&buffer);
    return result;
}

/* repeat_pickle(n, *objs): writes n times, for timing. */
static PyObject *repeat_pickle(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    mg_codec *codec = get_codec(module);
    if (codec == NULL)
        return NULL;
    long n = nargs > 0 ? PyLong_AsLong(args[0]) : 0;
    if (n == -1 && PyErr_Occurred())
        return NULL;
    int rc = 0;
    while (n-- > 0 && rc == 0) {
        mg_pickled out;
        mg_pickled_init(&out);
        rc = mg_pickle(codec, args + 1, nargs - 1, &out);
        mg_pickled_fini(&out);
    }
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* repeat_unpickle(n, data): reads the first object n times, for timing. */
static PyObject *repeat_unpickle(PyObject *module, PyObject *args)
{
    long n;
    const char *data;
    Py_ssize_t len;
    mg_codec *codec = get_codec(module);
    if (codec == NULL || !PyArg_ParseTuple(args, "ly#", &n, &data, &len))
        return NULL;
    while (n-- > 0) {
        mg_unpickler up;
        mg_unpickler_init(&up, codec, (const uint8_t *)data, (size_t)len, NULL, 0);
        PyObject *obj = mg_unpickle_next(&up);
        mg_unpickler_fini(&up);
        if (obj == NULL && PyErr_Occurred())
            return NULL;
        Py_XDECREF(obj);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"configure", configure, METH_O, NULL},
    {"pickle", (PyCFunction)(void (*)(void))pickle, METH_FASTCALL, NULL},
    {"segments", (PyCFunction)(void (*)(void))segments, METH_FASTCALL, NULL},
    {"unpickle_all", unpickle_all, METH_VARARGS, NULL},
    {"unpickle_landed", unpickle_landed, METH_VARARGS, NULL},
    {"repeat_pickle", (PyCFunction)(void (*)(void))repeat_pickle, METH_FASTCALL, NULL},
    {"repeat_unpickle", repeat_unpickle, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "MAX_DEPTH", MG_CODEC_MAX_DEPTH) < 0 ||
        PyModule_AddIntConstant(module, "BYREF", MG_CODEC_BYREF) < 0 ||
        PyModule_AddIntConstant(module, "MAX_DIGITS", MG_CODEC_MAX_DIGITS) < 0)
        return -1;
    return 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    state *st = PyModule_GetState(module);
    return st != NULL ? mg_codec_traverse(&st->codec, visit, arg) : 0;
}

static int clear(PyObject *module)
{
    state *st = PyModule_GetState(module);
    if (st != NULL)
        mg_codec_clear(&st->codec);
    return 0;
}

static void free_module(void *module)
{
    clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)exec_module},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_codec_test",
    .m_size = sizeof(state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};

PyMODINIT_FUNC PyInit__codec_test(void)
{
    return PyModuleDef_Init(&definition);
}
