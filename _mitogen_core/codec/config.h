/* Classes and functions of Python that the codec makes, knows and calls. */
#ifndef MG_CODEC_CONFIG_H
#define MG_CODEC_CONFIG_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Belongs to the module state: zeroed memory, then mg_codec_configure(). Read only
 * afterwards. All members are strong references. */
typedef struct {
    /* Types. Only exact instances are written natively; for Context also subclasses that leave
     * its __reduce__ alone. */
    PyObject *Blob, *Secret, *Kwargs, *CallError, *Context, *Sender;
    /* Exception classes, raised with one argument, the finished text. */
    PyObject *StreamError, *UnpicklingError;
    PyObject *unpickle_call_error; /* (text) -> CallError */
    PyObject *unpickle_context; /* (origin or None, context_id, name or None[, auth_id]) -> Context */
    PyObject *unpickle_sender; /* (origin, context_id, dst_handle[, auth_id]) -> Sender */
    PyObject *take_buffer_apart; /* (obj) -> tuple for unpickle_buffer, or None */
    PyObject *unpickle_buffer; /* (data, kind, dtype, shape) -> buffer */
    PyObject *find_value; /* (module, name) -> what makes values of that class, or None */
    PyObject *fallback_pickle; /* (*objs) -> bytes; writes a message that holds an object outside the closed set */
    /* Derived by mg_codec_configure(). */
    PyObject *codecs_encode; /* the plain value for the global _codecs.encode */
    PyObject *context_reduce, *context_reduce_ex; /* Context's own, to know a subclass that overrides them */
    PyObject *str_args, *str_context, *str_context_id; /* attribute names, interned */
    PyObject *str_dst_handle, *str_name, *str_auth_id; /* more of them */
    PyObject *str_reduce, *str_reduce_ex; /* and these */
    PyObject *no_args; /* () */
    int kwargs_is_dict; /* Kwargs is a dict subclass with dict's own __new__, so instances can be made directly */
    int text_hash_is_secret; /* the interpreter hashes text and bytes with a random key */
    int blob_is_bytes; /* Blob is a bytes subclass that overrides no constructor: made without a plain copy first */
} mg_codec;

/* Takes the members from a dict with their names as keys; other keys are ignored. May be called
 * again, when the types have changed: all or nothing, but no other thread may be using the
 * codec. KeyError names a missing member, TypeError one of the wrong kind. */
int mg_codec_configure(mg_codec *codec, PyObject *dict);

/* For the module's m_traverse and m_clear. A codec may be cleared twice, or without having been
 * configured. */
int mg_codec_traverse(mg_codec *codec, visitproc visit, void *arg);
void mg_codec_clear(mg_codec *codec);

#endif
