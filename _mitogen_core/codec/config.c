#include "codec/config.h"

#include <stddef.h>

/* Every object in mg_codec, by offset. The first GIVEN ones come from the dict under the name
 * here. */
typedef struct {
    size_t offset;
    const char *name;
    enum { IS_TYPE, IS_EXCEPTION, IS_CALLABLE, IS_DERIVED } kind;
} member;

#define MEMBER(name, kind) {offsetof(mg_codec, name), #name, kind}

static const member members[] = {
    MEMBER(Blob, IS_TYPE),
    MEMBER(Secret, IS_TYPE),
    MEMBER(Kwargs, IS_TYPE),
    MEMBER(CallError, IS_TYPE),
    MEMBER(Context, IS_TYPE),
    MEMBER(Sender, IS_TYPE),
    MEMBER(StreamError, IS_EXCEPTION),
    MEMBER(UnpicklingError, IS_EXCEPTION),
    MEMBER(unpickle_call_error, IS_CALLABLE),
    MEMBER(unpickle_context, IS_CALLABLE),
    MEMBER(unpickle_sender, IS_CALLABLE),
    MEMBER(take_buffer_apart, IS_CALLABLE),
    MEMBER(unpickle_buffer, IS_CALLABLE),
    MEMBER(find_value, IS_CALLABLE),
    MEMBER(fallback_pickle, IS_CALLABLE),
    MEMBER(codecs_encode, IS_DERIVED),
    MEMBER(context_reduce, IS_DERIVED),
    MEMBER(context_reduce_ex, IS_DERIVED),
    MEMBER(str_args, IS_DERIVED),
    MEMBER(str_context, IS_DERIVED),
    MEMBER(str_context_id, IS_DERIVED),
    MEMBER(str_dst_handle, IS_DERIVED),
    MEMBER(str_name, IS_DERIVED),
    MEMBER(str_auth_id, IS_DERIVED),
    MEMBER(str_reduce, IS_DERIVED),
    MEMBER(str_reduce_ex, IS_DERIVED),
    MEMBER(no_args, IS_DERIVED),
};

#define NMEMBERS (sizeof members / sizeof members[0])

static PyObject **slot_of(mg_codec *codec, const member *m)
{
    return (PyObject **) ((char *) codec + m->offset);
}

static int take_given(mg_codec *codec, const member *m, PyObject *dict)
{
    PyObject *name = PyUnicode_FromString(m->name);
    if (name == NULL)
        return -1;
    PyObject *value = PyDict_GetItemWithError(dict, name); /* borrowed */
    if (value == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetObject(PyExc_KeyError, name);
        Py_DECREF(name);
        return -1;
    }
    Py_DECREF(name);

    int fits = 0;
    switch (m->kind) {
    case IS_TYPE: fits = PyType_Check(value); break;
    case IS_EXCEPTION: fits = PyExceptionClass_Check(value); break;
    default: fits = PyCallable_Check(value); break;
    }
    if (!fits) {
        PyErr_Format(PyExc_TypeError, "codec: %s cannot be %R", m->name, value);
        return -1;
    }
    Py_INCREF(value);
    *slot_of(codec, m) = value;
    return 0;
}

static int intern(PyObject **slot, const char *text)
{
    *slot = PyUnicode_InternFromString(text);
    return *slot == NULL ? -1 : 0;
}

/* Notes whether hashes of text depend on a seed, which is not so with PYTHONHASHSEED=0. An
 * untrusted sender cannot know any other seed. */
static int take_hash_flag(mg_codec *codec)
{
    PyObject *flags = PySys_GetObject("flags"); /* borrowed */
    PyObject *flag = flags != NULL ? PyObject_GetAttrString(flags, "hash_randomization") : NULL;
    if (flag == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_RuntimeError, "codec: sys.flags is lost");
        return -1;
    }
    codec->text_hash_is_secret = PyObject_IsTrue(flag);
    Py_DECREF(flag);
    return codec->text_hash_is_secret < 0 ? -1 : 0;
}

static int take_derived(mg_codec *codec)
{
    if (intern(&codec->str_args, "args") < 0 || intern(&codec->str_context, "context") < 0 ||
        intern(&codec->str_context_id, "context_id") < 0 || intern(&codec->str_dst_handle, "dst_handle") < 0 ||
        intern(&codec->str_name, "name") < 0 || intern(&codec->str_reduce, "__reduce__") < 0 ||
        intern(&codec->str_reduce_ex, "__reduce_ex__") < 0 || intern(&codec->str_auth_id, "auth_id") < 0)
        return -1;
    codec->no_args = PyTuple_New(0);
    if (codec->no_args == NULL)
        return -1;
    codec->context_reduce = PyObject_GetAttr(codec->Context, codec->str_reduce);
    if (codec->context_reduce == NULL)
        return -1;
    codec->context_reduce_ex = PyObject_GetAttr(codec->Context, codec->str_reduce_ex);
    if (codec->context_reduce_ex == NULL)
        return -1;

    PyObject *codecs = PyImport_ImportModule("_codecs"); /* _codecs is built in, and loaded in every interpreter */
    if (codecs == NULL)
        return -1;
    codec->codecs_encode = PyObject_GetAttrString(codecs, "encode");
    Py_DECREF(codecs);
    if (codec->codecs_encode == NULL)
        return -1;

    if (take_hash_flag(codec) < 0)
        return -1;
    PyTypeObject *kwargs = (PyTypeObject *) codec->Kwargs;
    codec->kwargs_is_dict = PyType_IsSubtype(kwargs, &PyDict_Type) && kwargs->tp_new == PyDict_Type.tp_new;
    PyTypeObject *blob = (PyTypeObject *) codec->Blob;
    codec->blob_is_bytes = PyType_IsSubtype(blob, &PyBytes_Type) && blob->tp_new == PyBytes_Type.tp_new &&
                           blob->tp_init == PyBaseObject_Type.tp_init;
    return 0;
}

int mg_codec_configure(mg_codec *codec, PyObject *dict)
{
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "codec: a dict is needed");
        return -1;
    }
    mg_codec fresh = {0};
    for (size_t i = 0; i < NMEMBERS && members[i].kind != IS_DERIVED; i++) {
        if (take_given(&fresh, &members[i], dict) < 0)
            goto error;
    }
    if (take_derived(&fresh) < 0)
        goto error;
    mg_codec old = *codec;
    *codec = fresh;
    mg_codec_clear(&old);
    return 0;
error:
    mg_codec_clear(&fresh);
    return -1;
}

int mg_codec_traverse(mg_codec *codec, visitproc visit, void *arg)
{
    for (size_t i = 0; i < NMEMBERS; i++)
        Py_VISIT(*slot_of(codec, &members[i]));
    return 0;
}

void mg_codec_clear(mg_codec *codec)
{
    for (size_t i = 0; i < NMEMBERS; i++)
        Py_CLEAR(*slot_of(codec, &members[i]));
}
