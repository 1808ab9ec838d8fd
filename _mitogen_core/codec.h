/* Values to message bytes and back: the closed set of types, as a subset of pickle.
 *
 * Every function here runs with an attached thread state (the GIL held, where there is one). There is no state besides
 * the structs passed in, and no object in them is shared between threads except mg_codec, which is only read once it
 * is configured. Functions that return int return 0, or -1 with an exception set. */
#ifndef MG_CODEC_H
#define MG_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* How deep containers may nest in a value, both ways. (((),),) is 3 deep; what a message carries besides plain types
 * (Kwargs, Context, ...) counts one for the object and one for the arguments it is made of.
 *
 * The reader needs the bound: it does not recurse itself, but nearly everything done with its result afterwards does,
 * and hashing a tuple, the one recursion that CPython leaves unguarded, would run off the end of a thread's stack. The
 * writer recurses, and must not write what a reader refuses. 1000 is the interpreter's own default recursion limit, so
 * nothing deeper could have come from the standard pickler either. */
#define MG_CODEC_MAX_DEPTH 1000

/* Byte strings and ASCII texts of this many bytes or more are not copied into the output but referred to. Below, the copy
 * is cheaper than one more vector entry for the kernel. */
#define MG_CODEC_BYREF 16384

/* Decimal digits of one integer in the text form of protocol 0, where reading costs time quadratic in them. It is the
 * interpreter's own default limit from 3.11 on. */
#define MG_CODEC_MAX_DIGITS 4300

/* What the codec needs of Python. Belongs to the module state: zeroed memory, then mg_codec_configure(). Read only
 * afterwards. All members are strong references. */
typedef struct {
    /* Types. Only exact instances are written natively; for Context also subclasses that leave its __reduce__ alone. */
    PyObject *Blob, *Secret, *Kwargs, *CallError, *Context, *Sender;
    /* Exception classes, raised with one argument, the finished text. */
    PyObject *StreamError, *UnpicklingError;
    PyObject *unpickle_call_error; /* (text) -> CallError */
    PyObject *unpickle_context; /* (router or None, context_id, name or None) -> Context */
    PyObject *unpickle_sender; /* (router, context_id, dst_handle) -> Sender */
    PyObject *fallback_pickle; /* (*objs) -> bytes; writes a message that holds anything outside the closed set */
    /* Derived by mg_codec_configure(). */
    PyObject *codecs_encode; /* what the global _codecs.encode is as a plain value */
    PyObject *context_reduce, *context_reduce_ex; /* Context's own, to know a subclass that overrides them */
    PyObject *str_args, *str_context, *str_context_id; /* attribute names, interned */
    PyObject *str_dst_handle, *str_name; /* more of them */
    PyObject *str_reduce, *str_reduce_ex; /* and these */
    PyObject *no_args; /* () */
    int kwargs_is_dict; /* Kwargs is a dict subclass with dict's own __new__, so instances can be made directly */
    int blob_is_bytes; /* Blob is a bytes subclass that overrides no constructor: made without a plain copy first */
} mg_codec;

/* Takes the members from a dict with their names as keys; other keys are ignored. May be called again, when the types
 * have changed: all or nothing, but no other thread may be using the codec. KeyError names what is missing, TypeError
 * what is of the wrong kind. */
int mg_codec_configure(mg_codec *codec, PyObject *dict);

/* For the module's m_traverse and m_clear. Clearing twice, or what was never configured, is fine. */
int mg_codec_traverse(mg_codec *codec, visitproc visit, void *arg);
void mg_codec_clear(mg_codec *codec);

/* ---- writing ---- */

/* A run of output bytes. owner is a strong reference to the object that ptr points into, or NULL when the bytes are in
 * memory of the mg_pickled. A reference may be taken over by setting owner to NULL before mg_pickled_fini(). */
typedef struct {
    const uint8_t *ptr;
    size_t len;
    PyObject *owner;
} mg_piece;

/* A written message payload. The body is visible so that it can live on a stack. It points into itself: it must not be
 * moved or copied. */
typedef struct {
    mg_piece *segs; /* in order; none is empty */
    size_t nsegs;
    size_t total; /* bytes in all segs */
    /* private */
    uint8_t *head;
    size_t head_len, head_cap, run_start, segs_cap;
    mg_piece segs_inline[4];
    uint8_t head_inline[512];
} mg_pickled;

/* Never fails, allocates nothing. Every init needs one fini, whether mg_pickle() was called or failed. */
void mg_pickled_init(mg_pickled *out);
void mg_pickled_fini(mg_pickled *out);

/* Writes one pickle per object into out, which is fresh from mg_pickled_init(). objs are borrowed. Objects outside the
 * closed set make fallback_pickle write the whole message. May run Python code (attributes of a Context or a Sender, the
 * fallback). Raises RecursionError beyond MG_CODEC_MAX_DEPTH, OverflowError for a byte string of 2 GiB or a text of
 * 4 GiB, MemoryError, and what fallback_pickle raises. */
int mg_pickle(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out);

/* A joined copy as a new bytes object, or NULL with MemoryError. */
PyObject *mg_pickled_bytes(const mg_pickled *out);

/* ---- reading ---- */

/* A value on the reader's stack or in its memo. */
typedef struct {
    PyObject *obj; /* strong; NULL in a memo slot that was never set */
    uint32_t memo; /* where the value is in the memo, plus 1; 0 when it is not, or in the memo itself */
    uint16_t height; /* how deep containers nest in it, as far as known; 0 for a plain value */
    uint16_t global; /* which permitted global it is; 0 for a value */
} mg_slot;

/* The pickles of one message. The body is visible so that it can be embedded. It points into itself: it must not be
 * moved or copied. All members but pos are private. */
typedef struct {
    const uint8_t *data; /* borrowed */
    size_t len, pos;
    mg_codec *codec; /* borrowed */
    PyObject *router; /* borrowed or NULL */
    int deny;
    int failed;
    PyObject *hole; /* borrowed or NULL: bytes that belong into data, but stand here */
    size_t hole_at;
    size_t longest; /* of the byte strings that were read */
    size_t ops; /* opcodes read so far: bounds the memo */
    mg_slot *stack;
    size_t stack_len, stack_cap;
    size_t *marks; /* stack lengths at each MARK */
    size_t marks_len, marks_cap;
    mg_slot *memo; /* shared by all pickles of the message */
    size_t memo_len, memo_cap, memo_used;
    mg_slot stack_inline[24], memo_inline[24];
    size_t marks_inline[8];
} mg_unpickler;

/* data[0..len) must stay as it is until mg_unpickler_fini(); the caller also keeps codec and router alive. router is NULL
 * for a message that has none. With deny set, each global raises UnpicklingError. Never fails, allocates nothing. */
void mg_unpickler_init(mg_unpickler *up, mg_codec *codec, const uint8_t *data, size_t len, PyObject *router, int deny);
void mg_unpickler_fini(mg_unpickler *up);

/* data lacks the bytes of `hole` after its first `at` bytes; they are the content of a byte string, which mg_peek_bytes() found
 * there and which is longer than data is. So `hole` itself becomes the value. Before the first object is read; the caller
 * keeps it alive. */
void mg_unpickler_set_hole(mg_unpickler *up, PyObject *hole, size_t at);

/* The next object, a new reference; NULL without an exception at the end of the data, NULL with one on failure, after
 * which only mg_unpickler_fini() makes sense (a further call returns UnpicklingError).
 *
 * StreamError: a global that is not permitted ("cannot unpickle 'module'/'name'"), or data of which no value can be made
 * ("invalid message: ..."). UnpicklingError: bytes that are no pickle, or cut short. EOFError: cut short between two
 * opcodes. MemoryError. Others come from the unpickle_* callables. May run Python code: those callables, and the
 * __hash__ and __eq__ of a Context. */
PyObject *mg_unpickle_next(mg_unpickler *up);

#endif
