/* A stack machine in one loop; it never recurses, whatever the data. The bytes are not trusted,
 * so for each thing that the data asks for there is a bound:
 *   - memory: lengths are compared with what is left of the data before anything is allocated;
 *     the stack and the marks grow by one entry per opcode; a memo index may not exceed the
 *     number of opcodes read;
 *   - depth: each slot carries how deep containers nest in its value, up to what the stack
 *     allows (depth.h);
 *   - time: hashing keys costs no more than reading them, and they do not collide (probes.h);
 *   - code: the only callables ever called are those of mg_codec, on arguments that were
 *     checked. */
#include "codec/read.h"

#include "codec/probes.h"
#include "codec/read_containers.h"
#include "codec/read_objects.h"
#include "codec/read_values.h"
#include "wire/opcode.h"

enum { MAX_PROTOCOL = 5 };

/* Data of which no value can be made is a bad message, also if it is a constructor in Python
 * that refuses it. */
static void translate_error(mg_unpickler *up)
{
    if (PyErr_ExceptionMatches(up->codec->UnpicklingError) ||
        (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError)))
        return;
    PyObject *text;
#if PY_VERSION_HEX >= 0x030c0000
    PyObject *error = PyErr_GetRaisedException();
    text = PyUnicode_FromFormat("invalid message: %S", error);
    Py_DECREF(error);
#else
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    text = PyUnicode_FromFormat("invalid message: %S", error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
#endif
    if (text == NULL)
        return;
    PyErr_SetObject(up->codec->StreamError, text);
    Py_DECREF(text);
}

static int do_proto(mg_unpickler *up)
{
    const uint8_t *p = mg_up_take(up, 1);
    if (p == NULL)
        return -1;
    if (*p > MAX_PROTOCOL) {
        PyErr_Format(PyExc_ValueError, "unsupported pickle protocol: %d", *p);
        return -1;
    }
    return 0;
}

/* Frames only help readers that fetch their input piece by piece. */
static int do_frame(mg_unpickler *up)
{
    uint64_t n;
    if (mg_up_take_uint(up, 8, &n) < 0)
        return -1;
    return n > up->len - up->pos ? mg_malformed(up, "pickle data was truncated") : 0;
}

static int do_ext(mg_unpickler *up, size_t size)
{
    uint64_t code;
    if (mg_up_take_uint(up, size, &code) == 0)
        PyErr_Format(PyExc_ValueError, "unregistered extension code %llu", (unsigned long long) code);
    return -1;
}

static int unknown_opcode(mg_unpickler *up, uint8_t op)
{
    PyErr_Format(up->codec->UnpicklingError, "invalid load key, '\\x%02x'", op);
    return -1;
}

/* Carries out one opcode other than STOP. */
static int step(mg_unpickler *up, uint8_t op)
{
    size_t n = 0;
    uint64_t index = 0;
    const uint8_t *p;

    switch (op) {
    case OP_PROTO: return do_proto(up);
    case OP_FRAME: return do_frame(up);

    case OP_NONE: return mg_up_push_borrowed(up, Py_None);
    case OP_NEWTRUE: return mg_up_push_borrowed(up, Py_True);
    case OP_NEWFALSE: return mg_up_push_borrowed(up, Py_False);
    case OP_BININT1: return mg_read_binint(up, 1);
    case OP_BININT2: return mg_read_binint(up, 2);
    case OP_BININT: return mg_read_binint_signed(up);
    case OP_LONG1: p = mg_up_take_counted(up, 1, &n); return mg_read_long_counted(up, p, n);
    case OP_LONG4: p = mg_up_take_counted_signed(up, &n); return mg_read_long_counted(up, p, n);
    case OP_INT: return mg_read_int(up);
    case OP_LONG: return mg_read_long(up);
    case OP_FLOAT: return mg_read_float(up);
    case OP_BINFLOAT: return mg_read_binfloat(up);

    case OP_BINUNICODE: return mg_read_text(up, 4);
    case OP_SHORT_BINUNICODE: return mg_read_text(up, 1);
    case OP_BINUNICODE8: return mg_read_text(up, 8);
    case OP_UNICODE: return mg_read_raw_text(up);
    case OP_BINSTRING: p = mg_up_take_counted_signed(up, &n); return mg_read_bytes(up, p, n);
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES: p = mg_up_take_counted(up, 1, &n); return mg_read_bytes(up, p, n);
    case OP_BINBYTES: p = mg_up_take_counted(up, 4, &n); return mg_read_bytes(up, p, n);
    case OP_BINBYTES8: p = mg_up_take_counted(up, 8, &n); return mg_read_bytes(up, p, n);
    case OP_STRING: return mg_read_string(up);

    case OP_EMPTY_TUPLE: return mg_up_push(up, PyTuple_New(0), 1);
    case OP_TUPLE1: return mg_read_small_tuple(up, 1);
    case OP_TUPLE2: return mg_read_small_tuple(up, 2);
    case OP_TUPLE3: return mg_read_small_tuple(up, 3);
    case OP_TUPLE: return mg_read_marked_tuple(up);
    case OP_EMPTY_LIST: return mg_up_push(up, PyList_New(0), 1);
    case OP_LIST: return mg_read_list(up);
    case OP_APPEND: return mg_read_append(up);
    case OP_APPENDS: return mg_read_appends(up);
    case OP_EMPTY_DICT: return mg_up_push(up, PyDict_New(), 1);
    case OP_DICT: return mg_read_dict(up);
    case OP_SETITEM: return mg_read_setitem(up);
    case OP_SETITEMS: return mg_read_setitems(up);

    case OP_MARK: return mg_up_push_mark(up);
    case OP_POP: return mg_up_pop(up);
    case OP_POP_MARK:
        if (mg_up_pop_mark(up, &n) < 0)
            return -1;
        mg_up_drop_to(up, n);
        return 0;
    case OP_DUP: return mg_up_dup(up);

    case OP_BINPUT: return mg_up_take_uint(up, 1, &index) < 0 ? -1 : mg_up_memo_put(up, index);
    case OP_LONG_BINPUT: return mg_up_take_uint(up, 4, &index) < 0 ? -1 : mg_up_memo_put(up, index);
    case OP_PUT: return mg_up_take_index(up, &index) < 0 ? -1 : mg_up_memo_put(up, index);
    case OP_MEMOIZE: return mg_up_memo_put(up, up->memo_used);
    case OP_BINGET: return mg_up_take_uint(up, 1, &index) < 0 ? -1 : mg_up_memo_get(up, index);
    case OP_LONG_BINGET: return mg_up_take_uint(up, 4, &index) < 0 ? -1 : mg_up_memo_get(up, index);
    case OP_GET: return mg_up_take_index(up, &index) < 0 ? -1 : mg_up_memo_get(up, index);

    case OP_GLOBAL: return mg_read_global(up);
    case OP_STACK_GLOBAL: return mg_read_stack_global(up);
    case OP_REDUCE: return mg_read_reduce(up);
    case OP_NEWOBJ: return mg_read_newobj(up);
    case OP_INST: return mg_read_inst(up);
    case OP_OBJ: return mg_read_obj(up);
    case OP_BUILD: return mg_read_build(up);

    case OP_EMPTY_SET:
    case OP_ADDITEMS: return mg_refuse_type(up, "set");
    case OP_FROZENSET: return mg_refuse_type(up, "frozenset");
    case OP_BYTEARRAY8: return mg_refuse_type(up, "bytearray");
    case OP_EXT1: return do_ext(up, 1);
    case OP_EXT2: return do_ext(up, 2);
    case OP_EXT4: return do_ext(up, 4);
    case OP_PERSID:
    case OP_BINPERSID: return mg_malformed(up, "a persistent id is not accepted");
    case OP_NEWOBJ_EX: return mg_malformed(up, "NEWOBJ_EX is not accepted");
    default: return unknown_opcode(up, op);
    }
}

static PyObject *run(mg_unpickler *up)
{
    while (up->pos < up->len) {
        uint8_t op = up->data[up->pos++];
        if (op == OP_STOP) {
            if (mg_up_need(up, 1) < 0)
                return NULL;
            return up->stack[--up->stack_len].obj;
        }
        up->ops++;
        if (step(up, op) < 0)
            return NULL;
    }
    mg_malformed(up, "Ran out of input");
    return NULL;
}

PyObject *mg_unpickle_next(mg_unpickler *up)
{
    if (up->failed) {
        mg_malformed(up, "an earlier object of this message could not be read");
        return NULL;
    }
    if (up->pos == up->len)
        return NULL;
    PyObject *value = run(up);
    if (value == NULL) {
        up->failed = 1;
        translate_error(up);
        return NULL;
    }
    mg_up_drop_to(up, 0);
    up->marks_len = 0;
    return value;
}

void mg_unpickler_init(mg_unpickler *up, mg_codec *codec, const uint8_t *data, size_t len, PyObject *origin, int deny)
{
    up->data = data;
    up->len = len;
    up->pos = 0;
    up->codec = codec;
    up->origin = origin;
    up->deny = deny;
    up->failed = 0;
    up->hole = NULL;
    up->hole_at = 0;
    up->longest = 0;
    up->ops = 0;
    up->copied = 0;
    up->spent = 0;
    up->probes = (mg_probes) {0};
    up->stack = up->stack_inline;
    up->stack_len = 0;
    up->stack_cap = sizeof up->stack_inline / sizeof up->stack_inline[0];
    up->marks = up->marks_inline;
    up->marks_len = 0;
    up->marks_cap = sizeof up->marks_inline / sizeof up->marks_inline[0];
    up->memo = up->memo_inline;
    up->memo_len = 0;
    up->memo_cap = sizeof up->memo_inline / sizeof up->memo_inline[0];
    up->memo_used = 0;
}

void mg_unpickler_set_hole(mg_unpickler *up, PyObject *hole, size_t at)
{
    up->hole = hole;
    up->hole_at = at;
}

void mg_unpickler_fini(mg_unpickler *up)
{
    mg_up_drop_to(up, 0);
    mg_probes_clear(&up->probes);
    while (up->memo_len > 0) {
        PyObject *obj = up->memo[--up->memo_len].obj;
        Py_XDECREF(obj);
    }
    if (up->stack != up->stack_inline)
        PyMem_Free(up->stack);
    if (up->marks != up->marks_inline)
        PyMem_Free(up->marks);
    if (up->memo != up->memo_inline)
        PyMem_Free(up->memo);
    mg_unpickler_init(up, up->codec, NULL, 0, NULL, up->deny);
}
