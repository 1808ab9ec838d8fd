/* The reader: pickles of any protocol to values of the closed set.
 *
 * A stack machine in one loop; it never recurses, whatever the data. The bytes come from strangers, so for each thing
 * that the data asks for there is a bound:
 *   - memory: lengths are compared with what is left of the data before anything is allocated; the stack and the marks
 *     grow by one entry per opcode; a memo index may not exceed the number of opcodes read;
 *   - depth: each slot carries how deep containers nest in its value, up to MG_CODEC_MAX_DEPTH. The figure is exact for
 *     tuples of tuples, which nothing can change later. A list or dict that is changed again after it was put elsewhere
 *     may nest deeper than its figure; all that recurses into those in CPython checks for itself;
 *   - code: the only callables ever called are those of mg_codec, on arguments that were checked.
 *
 * Ownership: a slot owns its object. push() and its callers steal the object passed, also on failure. */
#include "codec_internal.h"

#include <string.h>

#include "base/block.h"
#include "wire/landing.h"

enum { MAX_FLOAT_TEXT = 500, MAX_CALL_ERROR = 10000, MAX_CONTEXT_NAME = 500, MAX_PROTOCOL = 5 };

/* ---- errors ---- */

/* The bytes are no pickle. Returns -1. */
static int malformed(mg_unpickler *up, const char *what)
{
    PyErr_SetString(up->codec->UnpicklingError, what);
    return -1;
}

static int underflow(mg_unpickler *up)
{
    return malformed(up, "unexpected MARK found, or the stack is empty");
}

/* What no value can be made of is reported as a bad message, whoever found it out. */
static void translate_error(mg_unpickler *up)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError))
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

/* ---- input ---- */

/* The next n bytes, or NULL with an exception. */
static inline const uint8_t *take(mg_unpickler *up, size_t n)
{
    if (n > up->len - up->pos) {
        malformed(up, "pickle data was truncated");
        return NULL;
    }
    const uint8_t *p = up->data + up->pos;
    up->pos += n;
    return p;
}

/* A little-endian number of n bytes, at most 8. */
static inline int take_uint(mg_unpickler *up, size_t n, uint64_t *value)
{
    const uint8_t *p = take(up, n);
    if (p == NULL)
        return -1;
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    *value = v;
    return 0;
}

/* A length of n bytes, and then as many bytes. */
static inline const uint8_t *take_counted(mg_unpickler *up, size_t n, size_t *len)
{
    uint64_t count;
    if (take_uint(up, n, &count) < 0)
        return NULL;
    if (count > up->len - up->pos) {
        if (up->hole && up->pos == up->hole_at && count == (uint64_t) PyBytes_GET_SIZE(up->hole)) {
            *len = (size_t) count;
            return (const uint8_t *) PyBytes_AS_STRING(up->hole);
        }
        malformed(up, "pickle data was truncated");
        return NULL;
    }
    *len = (size_t) count;
    return take(up, *len);
}

/* The same for the opcodes whose length of 4 bytes is signed. */
static const uint8_t *take_counted_signed(mg_unpickler *up, size_t *len)
{
    if (up->len - up->pos >= 4 && up->data[up->pos + 3] >= 0x80) {
        malformed(up, "pickle has a negative byte count");
        return NULL;
    }
    return take_counted(up, 4, len);
}

/* Up to the next newline, which is skipped. */
static const uint8_t *take_line(mg_unpickler *up, size_t *len)
{
    const uint8_t *p = up->data + up->pos;
    const uint8_t *nl = up->pos < up->len ? memchr(p, '\n', up->len - up->pos) : NULL;
    if (nl == NULL) {
        malformed(up, "pickle data was truncated");
        return NULL;
    }
    *len = (size_t) (nl - p);
    up->pos += *len + 1;
    return p;
}

/* ---- stack ---- */

/* Makes room for at least need entries of size bytes in an array that may still be the inline one. */
static int grow(void **array, const void *inline_array, size_t len, size_t *cap, size_t need, size_t size)
{
    size_t wanted = *cap > need / 2 ? 2 * *cap : need;
    if (wanted > PY_SSIZE_T_MAX / size) {
        PyErr_NoMemory();
        return -1;
    }
    int is_inline = *array == inline_array;
    void *grown = PyMem_Realloc(is_inline ? NULL : *array, wanted * size);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (is_inline)
        memcpy(grown, inline_array, len * size);
    *array = grown;
    *cap = wanted;
    return 0;
}

/* Pushes a slot, and steals its object. A NULL object means that making it failed: returns -1. */
static inline int push_slot(mg_unpickler *up, mg_slot slot)
{
    if (slot.obj == NULL)
        return -1;
    if (up->stack_len == up->stack_cap) {
        void *array = up->stack;
        if (grow(&array, up->stack_inline, up->stack_len, &up->stack_cap, up->stack_len + 1, sizeof *up->stack) < 0) {
            Py_DECREF(slot.obj);
            return -1;
        }
        up->stack = array;
    }
    assert(up->stack);
    up->stack[up->stack_len++] = slot;
    return 0;
}

static inline int push(mg_unpickler *up, PyObject *obj, unsigned height)
{
    return push_slot(up, (mg_slot) {.obj = obj, .height = (uint16_t) height});
}

static inline int push_borrowed(mg_unpickler *up, PyObject *obj)
{
    Py_INCREF(obj);
    return push(up, obj, 0);
}

/* Where the items above the last MARK begin: nothing below may be popped. */
static inline size_t fence(const mg_unpickler *up)
{
    return up->marks_len != 0 ? up->marks[up->marks_len - 1] : 0;
}

static inline int need(mg_unpickler *up, size_t n)
{
    return up->stack_len - fence(up) < n ? underflow(up) : 0;
}

/* Drops the slots from base on. */
static void drop_to(mg_unpickler *up, size_t base)
{
    while (up->stack_len > base) {
        PyObject *obj = up->stack[--up->stack_len].obj;
        Py_DECREF(obj);
    }
}

static int push_mark(mg_unpickler *up)
{
    if (up->marks_len == up->marks_cap) {
        void *array = up->marks;
        if (grow(&array, up->marks_inline, up->marks_len, &up->marks_cap, up->marks_len + 1, sizeof *up->marks) < 0)
            return -1;
        up->marks = array;
    }
    up->marks[up->marks_len++] = up->stack_len;
    return 0;
}

/* Removes the last MARK; through base the index of the first item after it. */
static inline int pop_mark(mg_unpickler *up, size_t *base)
{
    if (up->marks_len == 0)
        return malformed(up, "could not find MARK");
    *base = up->marks[--up->marks_len];
    return 0;
}

static int do_pop(mg_unpickler *up)
{
    if (up->marks_len != 0 && fence(up) == up->stack_len) {
        up->marks_len--; /* a MARK without items counts as the topmost item */
        return 0;
    }
    if (need(up, 1) < 0)
        return -1;
    drop_to(up, up->stack_len - 1);
    return 0;
}

static int do_dup(mg_unpickler *up)
{
    if (need(up, 1) < 0)
        return -1;
    mg_slot top = up->stack[up->stack_len - 1];
    Py_INCREF(top.obj);
    return push_slot(up, top);
}

/* ---- memo ---- */

static int memo_put(mg_unpickler *up, uint64_t index)
{
    if (need(up, 1) < 0)
        return -1;
    /* Writers count up from 0 or 1, one for each object at most, and each object takes an opcode. */
    if (index > up->ops || index >= UINT32_MAX)
        return malformed(up, "memo index out of bounds");
    size_t i = (size_t) index;
    if (i >= up->memo_cap) {
        void *array = up->memo;
        if (grow(&array, up->memo_inline, up->memo_len, &up->memo_cap, i + 1, sizeof *up->memo) < 0)
            return -1;
        up->memo = array;
    }
    while (up->memo_len <= i)
        up->memo[up->memo_len++] = (mg_slot) {0};

    mg_slot *top = &up->stack[up->stack_len - 1];
    top->memo = (uint32_t) i + 1;
    PyObject *old = up->memo[i].obj;
    up->memo[i] = (mg_slot) {.obj = top->obj, .height = top->height, .global = top->global};
    Py_INCREF(top->obj);
    if (old == NULL)
        up->memo_used++;
    else
        Py_DECREF(old);
    return 0;
}

static int memo_get(mg_unpickler *up, uint64_t index)
{
    if (index >= up->memo_len || up->memo[index].obj == NULL) {
        PyErr_Format(up->codec->UnpicklingError, "memo value not found at index %llu", (unsigned long long) index);
        return -1;
    }
    mg_slot slot = up->memo[index];
    slot.memo = (uint32_t) index + 1;
    Py_INCREF(slot.obj);
    return push_slot(up, slot);
}

/* A memo index in decimal. */
static int take_index(mg_unpickler *up, uint64_t *index)
{
    size_t len;
    const uint8_t *p = take_line(up, &len);
    if (p == NULL)
        return -1;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return malformed(up, "a number is not written as one");
        if (v > UINT32_MAX)
            return malformed(up, "bad memo index");
        v = 10 * v + (p[i] - '0');
    }
    if (len == 0)
        return malformed(up, "bad memo index");
    *index = v;
    return 0;
}

/* ---- plain values ---- */

/* A two's complement little-endian number. */
static PyObject *int_from_bytes(const uint8_t *p, size_t n)
{
    if (n == 0)
        return PyLong_FromLong(0);
    if (n <= 8) {
        uint64_t v = p[n - 1] >= 0x80 ? UINT64_MAX : 0;
        for (size_t i = n; i-- > 0;)
            v = v << 8 | p[i];
        int64_t value;
        memcpy(&value, &v, sizeof value);
        return PyLong_FromLongLong(value);
    }

    /* The public method, for the reason given at the writer. */
    PyObject *result = NULL;
    PyObject *method = PyObject_GetAttrString((PyObject *) &PyLong_Type, "from_bytes");
    PyObject *args = method != NULL ? Py_BuildValue("(y#s)", (const char *) p, (Py_ssize_t) n, "little") : NULL;
    PyObject *kwargs = args != NULL ? Py_BuildValue("{sO}", "signed", Py_True) : NULL;
    if (kwargs != NULL)
        result = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

static PyObject *bad_number(void)
{
    PyErr_SetString(PyExc_ValueError, "a number is not written as one");
    return NULL;
}

/* Only what pickle writes: of blanks, plus signs and zeros in front, the readers of several Pythons make different numbers. */
static PyObject *int_from_decimal(const uint8_t *p, size_t n)
{
    size_t sign = n > 0 && p[0] == '-';
    if (n == sign || (p[sign] == '0' && n > 1))
        return bad_number();
    if (n - sign > MG_CODEC_MAX_DIGITS)
        return bad_number();
    for (size_t i = sign; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return bad_number();
    }
    if (n - sign <= 18) {
        long long v = 0;
        for (size_t i = sign; i < n; i++)
            v = 10 * v + (p[i] - '0');
        return PyLong_FromLongLong(p[0] == '-' ? -v : v);
    }
    char text[1 + MG_CODEC_MAX_DIGITS + 1];
    memcpy(text, p, n);
    text[n] = '\0';
    return PyLong_FromString(text, NULL, 10);
}

/* INT also wrote the two truth values. */
static int do_int(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1'))
        return push_borrowed(up, p[1] == '1' ? Py_True : Py_False);
    return push(up, int_from_decimal(p, n), 0);
}

static int do_long(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n > 0 && p[n - 1] == 'L')
        n--;
    return push(up, int_from_decimal(p, n), 0);
}

static int do_binint(mg_unpickler *up, size_t n)
{
    uint64_t v;
    if (take_uint(up, n, &v) < 0)
        return -1;
    return push(up, PyLong_FromLong((long) v), 0);
}

static int do_binint_signed(mg_unpickler *up)
{
    const uint8_t *p = take(up, 4);
    if (p == NULL)
        return -1;
    return push(up, int_from_bytes(p, 4), 0);
}

static int do_float(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = take_line(up, &n);
    if (p == NULL)
        return -1;
    char text[MAX_FLOAT_TEXT + 1], *end;
    if (n > MAX_FLOAT_TEXT)
        return push(up, bad_number(), 0);
    memcpy(text, p, n);
    text[n] = '\0';
    double value = PyOS_string_to_double(text, &end, NULL);
    if (value == -1.0 && PyErr_Occurred())
        return -1;
    if (end != text + n)
        return push(up, bad_number(), 0);
    return push(up, PyFloat_FromDouble(value), 0);
}

static int do_binfloat(mg_unpickler *up)
{
    const uint8_t *p = take(up, 8);
    if (p == NULL)
        return -1;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    double value;
    memcpy(&value, &bits, sizeof value);
    return push(up, PyFloat_FromDouble(value), 0);
}

static inline int push_text(mg_unpickler *up, const uint8_t *p, size_t n)
{
    return push(up, PyUnicode_DecodeUTF8((const char *) p, (Py_ssize_t) n, "surrogatepass"), 0);
}

static int do_text(mg_unpickler *up, size_t length_size)
{
    size_t n;
    const uint8_t *p = take_counted(up, length_size, &n);
    if (p == NULL)
        return -1;
    return push_text(up, p, n);
}

static int do_raw_text(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = take_line(up, &n);
    if (p == NULL)
        return -1;
    return push(up, PyUnicode_DecodeRawUnicodeEscape((const char *) p, (Py_ssize_t) n, NULL), 0);
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static PyObject *bad_escape(PyObject *bytes)
{
    Py_DECREF(bytes);
    PyErr_SetString(PyExc_ValueError, "bad escape in a string");
    return NULL;
}

/* The inside of a string literal as Python 2's repr() writes it. Not the interpreter's own function: that warns of
 * unknown escapes, and so runs whatever shows warnings. */
static PyObject *bytes_from_literal(const uint8_t *p, size_t n)
{
    static const char letters[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) n);
    if (bytes == NULL)
        return NULL;
    char *out = PyBytes_AS_STRING(bytes), *start = out;
    const uint8_t *end = p + n;

    while (p < end) {
        if (*p != '\\') {
            *out++ = (char) *p++;
            continue;
        }
        if (++p == end)
            return bad_escape(bytes);
        uint8_t c = *p++;
        const char *letter = c != '\0' ? strchr(letters, c) : NULL;
        if (letter != NULL) {
            *out++ = meanings[letter - letters];
        } else if (c == 'x') {
            int high = end - p >= 2 ? hex_digit(p[0]) : -1, low = end - p >= 2 ? hex_digit(p[1]) : -1;
            if (high < 0 || low < 0)
                return bad_escape(bytes);
            *out++ = (char) (high << 4 | low);
            p += 2;
        } else if (c >= '0' && c <= '7') {
            unsigned v = c - '0';
            for (int i = 0; i < 2 && p < end && *p >= '0' && *p <= '7'; i++)
                v = v << 3 | (unsigned) (*p++ - '0');
            *out++ = (char) v;
        } else {
            *out++ = '\\';
            *out++ = (char) c;
        }
    }
    _PyBytes_Resize(&bytes, out - start); /* leaves NULL and an exception if it fails */
    return bytes;
}

static int do_string(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n < 2 || (p[0] != '\'' && p[0] != '"') || p[n - 1] != p[0])
        return malformed(up, "the argument of STRING must be quoted");
    return push(up, bytes_from_literal(p + 1, n - 2), 0);
}

/* A Blob around a copy of p[0..n): the one copy that a large byte string gets. */
static PyObject *blob_from_memory(mg_codec *codec, const uint8_t *p, size_t n)
{
    PyTypeObject *type = (PyTypeObject *) codec->Blob;
    PyObject *blob = type->tp_alloc(type, (Py_ssize_t) n);
    if (blob == NULL)
        return NULL;
    mg_block_advise(PyBytes_AS_STRING(blob), n);
    memcpy(PyBytes_AS_STRING(blob), p, n);
    /* The hash is not known yet. The member is deprecated for everybody but those who make bytes objects. */
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
    ((PyBytesObject *) blob)->ob_shash = -1;
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
    return blob;
}

static int do_bytes(mg_unpickler *up, const uint8_t *p, size_t n)
{
    if (p == NULL)
        return -1;
    if (n > up->longest)
        up->longest = n;
    /* Our own writer's Blob: global, content, TUPLE1, REDUCE. */
    mg_slot *top = up->stack_len > fence(up) ? &up->stack[up->stack_len - 1] : NULL;
    if (top != NULL && top->global == GLOBAL_BLOB && up->codec->blob_is_bytes && up->len - up->pos >= 2 &&
        up->data[up->pos] == OP_TUPLE1 && up->data[up->pos + 1] == OP_REDUCE) {
        PyObject *blob = blob_from_memory(up->codec, p, n);
        if (blob == NULL)
            return -1;
        up->pos += 2;
        up->ops += 2;
        PyObject *global = top->obj;
        *top = (mg_slot) {.obj = blob, .height = 1};
        Py_DECREF(global);
        return 0;
    }
    if (up->hole && p == (const uint8_t *) PyBytes_AS_STRING(up->hole))
        return push_borrowed(up, up->hole);
    if (n < MG_BLOCK_HUGE)
        return push(up, PyBytes_FromStringAndSize((const char *) p, (Py_ssize_t) n), 0);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) n);
    if (bytes != NULL) {
        mg_block_advise(PyBytes_AS_STRING(bytes), n);
        memcpy(PyBytes_AS_STRING(bytes), p, n);
    }
    return push(up, bytes, 0);
}

/* ---- containers ---- */

static int too_deep(mg_unpickler *up)
{
    return malformed(up, "containers are nested too deep");
}

/* The largest height among the slots from base on. */
static unsigned max_height(const mg_unpickler *up, size_t base)
{
    unsigned height = 0;
    for (size_t i = base; i < up->stack_len; i++) {
        if (up->stack[i].height > height)
            height = up->stack[i].height;
    }
    return height;
}

/* Replaces the slots from base on by a tuple of them. */
static int make_tuple(mg_unpickler *up, size_t base)
{
    unsigned height = 1 + max_height(up, base);
    if (height > MG_CODEC_MAX_DEPTH)
        return too_deep(up);
    size_t n = up->stack_len - base;
    PyObject *tuple = PyTuple_New((Py_ssize_t) n);
    if (tuple == NULL)
        return -1;
    for (size_t i = 0; i < n; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t) i, up->stack[base + i].obj);
    up->stack_len = base;
    return push(up, tuple, height);
}

static int make_small_tuple(mg_unpickler *up, size_t n)
{
    return need(up, n) < 0 ? -1 : make_tuple(up, up->stack_len - n);
}

static int make_marked_tuple(mg_unpickler *up)
{
    size_t base;
    return pop_mark(up, &base) < 0 ? -1 : make_tuple(up, base);
}

/* The container at stack index i is about to get the slots from base on. */
static int raise_height(mg_unpickler *up, size_t i, size_t base)
{
    unsigned height = 1 + max_height(up, base);
    mg_slot *slot = &up->stack[i];
    if (height <= slot->height)
        return 0;
    if (height > MG_CODEC_MAX_DEPTH)
        return too_deep(up);
    slot->height = (uint16_t) height;
    if (slot->memo != 0 && up->memo[slot->memo - 1].obj == slot->obj)
        up->memo[slot->memo - 1].height = (uint16_t) height;
    return 0;
}

/* Moves the slots from base on to the end of the list just below them. */
static int append_from(mg_unpickler *up, size_t base)
{
    if (base <= fence(up))
        return underflow(up);
    PyObject *list = up->stack[base - 1].obj;
    if (up->stack_len == base)
        return 0;
    if (!PyList_CheckExact(list))
        return malformed(up, "APPEND to what is not a list");
    if (raise_height(up, base - 1, base) < 0)
        return -1;
    for (size_t i = base; i < up->stack_len; i++) {
        if (PyList_Append(list, up->stack[i].obj) < 0)
            return -1;
    }
    drop_to(up, base);
    return 0;
}

/* Moves the pairs of slots from base on into the dict just below them. */
static int set_from(mg_unpickler *up, size_t base)
{
    if (base <= fence(up))
        return underflow(up);
    PyObject *dict = up->stack[base - 1].obj;
    if (up->stack_len == base)
        return 0;
    if (!PyDict_Check(dict))
        return malformed(up, "SETITEM on what is not a dict");
    if ((up->stack_len - base) % 2 != 0)
        return malformed(up, "odd number of items for SETITEMS");
    if (raise_height(up, base - 1, base) < 0)
        return -1;
    for (size_t i = base; i < up->stack_len; i += 2) {
        if (PyDict_SetItem(dict, up->stack[i].obj, up->stack[i + 1].obj) < 0)
            return -1;
    }
    drop_to(up, base);
    return 0;
}

/* For the single forms: n items on top, the container below them. */
static int need_container(mg_unpickler *up, size_t n, size_t *base)
{
    if (need(up, n + 1) < 0)
        return -1;
    *base = up->stack_len - n;
    return 0;
}

static int do_append(mg_unpickler *up)
{
    size_t base;
    return need_container(up, 1, &base) < 0 ? -1 : append_from(up, base);
}

static int do_appends(mg_unpickler *up)
{
    size_t base;
    return pop_mark(up, &base) < 0 ? -1 : append_from(up, base);
}

static int do_setitem(mg_unpickler *up)
{
    size_t base;
    return need_container(up, 2, &base) < 0 ? -1 : set_from(up, base);
}

static int do_setitems(mg_unpickler *up)
{
    size_t base;
    return pop_mark(up, &base) < 0 ? -1 : set_from(up, base);
}

/* LIST and DICT: a container of the items above the mark. Puts the empty one beneath them first. */
static int make_marked(mg_unpickler *up, PyObject *container, int (*fill)(mg_unpickler *up, size_t base))
{
    size_t base;
    if (container == NULL)
        return -1;
    if (pop_mark(up, &base) < 0) {
        Py_DECREF(container);
        return -1;
    }
    if (push(up, container, 1) < 0)
        return -1;
    mg_slot made = up->stack[up->stack_len - 1];
    memmove(&up->stack[base + 1], &up->stack[base], (up->stack_len - 1 - base) * sizeof *up->stack);
    up->stack[base] = made;
    return fill(up, base + 1);
}

/* ---- globals ---- */

static int is_text(const uint8_t *p, size_t n, const char *text)
{
    return n == strlen(text) && memcmp(p, text, n) == 0;
}

static int find_global(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len)
{
    static const struct {
        const char *module, *name;
        int global;
    } permitted[] = {
        {"mitogen.core", "Kwargs", GLOBAL_KWARGS},
        {"mitogen.core", "_unpickle_call_error", GLOBAL_CALL_ERROR},
        {"mitogen.core", "CallError", GLOBAL_CALL_ERROR},
        {"mitogen.core", "_unpickle_context", GLOBAL_CONTEXT},
        {"mitogen.core", "_unpickle_sender", GLOBAL_SENDER},
        {"mitogen.core", "Blob", GLOBAL_BLOB},
        {"mitogen.core", "Secret", GLOBAL_SECRET},
        {"_codecs", "encode", GLOBAL_ENCODE},
        {"__builtin__", "bytes", GLOBAL_BYTES},
    };
    for (size_t i = 0; i < sizeof permitted / sizeof permitted[0]; i++) {
        if (is_text(name, name_len, permitted[i].name) && is_text(module, module_len, permitted[i].module))
            return permitted[i].global;
    }
    return GLOBAL_NONE;
}

static PyObject *global_value(mg_codec *codec, int global)
{
    switch (global) {
    case GLOBAL_BLOB: return codec->Blob;
    case GLOBAL_SECRET: return codec->Secret;
    case GLOBAL_KWARGS: return codec->Kwargs;
    case GLOBAL_CALL_ERROR: return codec->unpickle_call_error;
    case GLOBAL_CONTEXT: return codec->unpickle_context;
    case GLOBAL_SENDER: return codec->unpickle_sender;
    case GLOBAL_ENCODE: return codec->codecs_encode;
    default: return (PyObject *) &PyBytes_Type;
    }
}

static int refuse_global(mg_unpickler *up, const uint8_t *module, size_t module_len, const uint8_t *name,
                         size_t name_len)
{
    PyObject *m = PyUnicode_DecodeUTF8((const char *) module, (Py_ssize_t) module_len, NULL);
    PyObject *n = m != NULL ? PyUnicode_DecodeUTF8((const char *) name, (Py_ssize_t) name_len, NULL) : NULL;
    if (n != NULL) {
        if (up->deny)
            PyErr_Format(up->codec->UnpicklingError, "no global is accepted here: %R/%R", m, n);
        else
            PyErr_Format(up->codec->StreamError, "cannot unpickle %R/%R", m, n);
    }
    Py_XDECREF(m);
    Py_XDECREF(n);
    return -1;
}

/* An opcode that stands for a type of its own. */
static int refuse_type(mg_unpickler *up, const char *name)
{
    static const char module[] = "__builtin__";
    return refuse_global(up, (const uint8_t *) module, strlen(module), (const uint8_t *) name, strlen(name));
}

static int push_global(mg_unpickler *up, const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len)
{
    int global = up->deny ? GLOBAL_NONE : find_global(module, module_len, name, name_len);
    if (global == GLOBAL_NONE)
        return refuse_global(up, module, module_len, name, name_len);
    PyObject *value = global_value(up->codec, global);
    Py_INCREF(value);
    return push_slot(up, (mg_slot) {.obj = value, .global = (uint16_t) global});
}

static int do_global(mg_unpickler *up)
{
    size_t module_len, name_len;
    const uint8_t *module = take_line(up, &module_len);
    const uint8_t *name = module != NULL ? take_line(up, &name_len) : NULL;
    if (name == NULL)
        return -1;
    return push_global(up, module, module_len, name, name_len);
}

static int do_stack_global(mg_unpickler *up)
{
    if (need(up, 2) < 0)
        return -1;
    PyObject *module = up->stack[up->stack_len - 2].obj, *name = up->stack[up->stack_len - 1].obj;
    if (!PyUnicode_CheckExact(module) || !PyUnicode_CheckExact(name))
        return malformed(up, "STACK_GLOBAL requires str");
    Py_ssize_t module_len, name_len;
    const char *m = PyUnicode_AsUTF8AndSize(module, &module_len);
    const char *n = m != NULL ? PyUnicode_AsUTF8AndSize(name, &name_len) : NULL;
    if (n == NULL)
        return -1;
    if (push_global(up, (const uint8_t *) m, (size_t) module_len, (const uint8_t *) n, (size_t) name_len) < 0)
        return -1;
    mg_slot made = up->stack[--up->stack_len];
    drop_to(up, up->stack_len - 2);
    return push_slot(up, made);
}

/* ---- objects ---- */

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

    /* The constructor's one job is to turn keys of bytes into text. Mostly there are none, and a call into Python is most
     * of the cost of reading a small message. */
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
    if (n != 1 || !PyUnicode_CheckExact(args[0]) || PyUnicode_GetLength(args[0]) >= MAX_CALL_ERROR)
        return bad_arguments("CallError");
    return PyObject_Vectorcall(codec->unpickle_call_error, args, 1, NULL);
}

static PyObject *make_context(mg_codec *codec, PyObject *router, PyObject *const *args, Py_ssize_t n)
{
    if (n != 2 || !is_int_from(args[0], 0) ||
        !(args[1] == Py_None || (PyUnicode_Check(args[1]) && PyUnicode_GetLength(args[1]) <= MAX_CONTEXT_NAME)))
        return bad_arguments("Context");
    PyObject *call[] = {router != NULL ? router : Py_None, args[0], args[1]};
    return PyObject_Vectorcall(codec->unpickle_context, call, 3, NULL);
}

static PyObject *make_sender(mg_codec *codec, PyObject *router, PyObject *const *args, Py_ssize_t n)
{
    if (router == NULL || n != 2 || !is_int_from(args[0], 0) || !is_int_from(args[1], 1))
        return bad_arguments("Sender");
    PyObject *call[] = {router, args[0], args[1]};
    return PyObject_Vectorcall(codec->unpickle_sender, call, 3, NULL);
}

/* Python 3's disguise for bytes in protocols up to 2: nothing, or Latin-1 text and the name of the encoding, which is ignored.
 * Never a number, which would be a length. */
static PyObject *make_bytes(PyObject *const *args, Py_ssize_t n)
{
    if (n == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (n > 2 || !PyUnicode_CheckExact(args[0]))
        return bad_arguments("bytes");
    return PyUnicode_AsLatin1String(args[0]);
}

static PyObject *make_object(mg_unpickler *up, int global, PyObject *tuple)
{
    mg_codec *codec = up->codec;
    PyObject *const *args = PySequence_Fast_ITEMS(tuple);
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    switch (global) {
    case GLOBAL_BLOB: return make_blob(codec, args, n);
    case GLOBAL_SECRET: return make_secret(codec, args, n);
    case GLOBAL_KWARGS: return make_kwargs(codec, args, n);
    case GLOBAL_CALL_ERROR: return make_call_error(codec, args, n);
    case GLOBAL_CONTEXT: return make_context(codec, up->router, args, n);
    case GLOBAL_SENDER: return make_sender(codec, up->router, args, n);
    case GLOBAL_ENCODE:
    case GLOBAL_BYTES: return make_bytes(args, n);
    default: PyErr_SetString(PyExc_TypeError, "a value is not callable"); return NULL;
    }
}

/* A global and a tuple are on top: replaces them by the object made of them. */
static int call_global(mg_unpickler *up)
{
    mg_slot *slots = &up->stack[up->stack_len - 2];
    if (!PyTuple_CheckExact(slots[1].obj))
        return malformed(up, "arguments are not a tuple");
    unsigned height = slots[1].height;
    PyObject *made = make_object(up, slots[0].global, slots[1].obj);
    if (made == NULL)
        return -1;
    drop_to(up, up->stack_len - 2);
    return push(up, made, height);
}

static int do_reduce(mg_unpickler *up)
{
    return need(up, 2) < 0 ? -1 : call_global(up);
}

/* NEWOBJ: how protocol 2 writes instances of str subclasses that do not say otherwise. Only right for classes, and only
 * for those whose constructor is all there is to them. */
static int do_newobj(mg_unpickler *up)
{
    if (need(up, 2) < 0)
        return -1;
    int global = up->stack[up->stack_len - 2].global;
    if (global != GLOBAL_BLOB && global != GLOBAL_SECRET)
        return malformed(up, "NEWOBJ is not accepted for this");
    return call_global(up);
}

/* INST and OBJ, the forms of protocols 0 and 1: the arguments are what lies above the mark. Without any, a class is not called:
 * that is NEWOBJ by another name. */
static int call_old_style(mg_unpickler *up)
{
    return PyTuple_GET_SIZE(up->stack[up->stack_len - 1].obj) ? call_global(up) : do_newobj(up);
}

static int do_inst(mg_unpickler *up)
{
    if (make_marked_tuple(up) < 0 || do_global(up) < 0)
        return -1;
    mg_slot global = up->stack[up->stack_len - 1];
    up->stack[up->stack_len - 1] = up->stack[up->stack_len - 2];
    up->stack[up->stack_len - 2] = global;
    return call_old_style(up);
}

static int do_obj(mg_unpickler *up)
{
    size_t base;
    if (pop_mark(up, &base) < 0)
        return -1;
    if (up->stack_len == base)
        return underflow(up);
    if (make_tuple(up, base + 1) < 0)
        return -1;
    return call_old_style(up);
}

/* Python 2 adds the instance's empty __dict__ after NEWOBJ. State that is not empty would change an object in ways that
 * no type of the closed set has any use for. */
static int do_build(mg_unpickler *up)
{
    if (need(up, 2) < 0)
        return -1;
    PyObject *state = up->stack[up->stack_len - 1].obj;
    mg_slot *target = &up->stack[up->stack_len - 2];
    int empty = PyDict_CheckExact(state) && PyDict_Size(state) == 0 &&
                (target->global != GLOBAL_NONE || PyObject_HasAttrString(target->obj, "__dict__"));
    if (state != Py_None && !empty)
        return malformed(up, "BUILD is not accepted");
    drop_to(up, up->stack_len - 1);
    return 0;
}

/* ---- the loop ---- */

static int do_proto(mg_unpickler *up)
{
    const uint8_t *p = take(up, 1);
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
    if (take_uint(up, 8, &n) < 0)
        return -1;
    return n > up->len - up->pos ? malformed(up, "pickle data was truncated") : 0;
}

static int do_long_counted(mg_unpickler *up, const uint8_t *p, size_t n)
{
    return p == NULL ? -1 : push(up, int_from_bytes(p, n), 0);
}

static int do_ext(mg_unpickler *up, size_t size)
{
    uint64_t code;
    if (take_uint(up, size, &code) == 0)
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

    case OP_NONE: return push_borrowed(up, Py_None);
    case OP_NEWTRUE: return push_borrowed(up, Py_True);
    case OP_NEWFALSE: return push_borrowed(up, Py_False);
    case OP_BININT1: return do_binint(up, 1);
    case OP_BININT2: return do_binint(up, 2);
    case OP_BININT: return do_binint_signed(up);
    case OP_LONG1: p = take_counted(up, 1, &n); return do_long_counted(up, p, n);
    case OP_LONG4: p = take_counted_signed(up, &n); return do_long_counted(up, p, n);
    case OP_INT: return do_int(up);
    case OP_LONG: return do_long(up);
    case OP_FLOAT: return do_float(up);
    case OP_BINFLOAT: return do_binfloat(up);

    case OP_BINUNICODE: return do_text(up, 4);
    case OP_SHORT_BINUNICODE: return do_text(up, 1);
    case OP_BINUNICODE8: return do_text(up, 8);
    case OP_UNICODE: return do_raw_text(up);
    case OP_BINSTRING: p = take_counted_signed(up, &n); return do_bytes(up, p, n);
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES: p = take_counted(up, 1, &n); return do_bytes(up, p, n);
    case OP_BINBYTES: p = take_counted(up, 4, &n); return do_bytes(up, p, n);
    case OP_BINBYTES8: p = take_counted(up, 8, &n); return do_bytes(up, p, n);
    case OP_STRING: return do_string(up);

    case OP_EMPTY_TUPLE: return push(up, PyTuple_New(0), 1);
    case OP_TUPLE1: return make_small_tuple(up, 1);
    case OP_TUPLE2: return make_small_tuple(up, 2);
    case OP_TUPLE3: return make_small_tuple(up, 3);
    case OP_TUPLE: return make_marked_tuple(up);
    case OP_EMPTY_LIST: return push(up, PyList_New(0), 1);
    case OP_LIST: return make_marked(up, PyList_New(0), append_from);
    case OP_APPEND: return do_append(up);
    case OP_APPENDS: return do_appends(up);
    case OP_EMPTY_DICT: return push(up, PyDict_New(), 1);
    case OP_DICT: return make_marked(up, PyDict_New(), set_from);
    case OP_SETITEM: return do_setitem(up);
    case OP_SETITEMS: return do_setitems(up);

    case OP_MARK: return push_mark(up);
    case OP_POP: return do_pop(up);
    case OP_POP_MARK:
        if (pop_mark(up, &n) < 0)
            return -1;
        drop_to(up, n);
        return 0;
    case OP_DUP: return do_dup(up);

    case OP_BINPUT: return take_uint(up, 1, &index) < 0 ? -1 : memo_put(up, index);
    case OP_LONG_BINPUT: return take_uint(up, 4, &index) < 0 ? -1 : memo_put(up, index);
    case OP_PUT: return take_index(up, &index) < 0 ? -1 : memo_put(up, index);
    case OP_MEMOIZE: return memo_put(up, up->memo_used);
    case OP_BINGET: return take_uint(up, 1, &index) < 0 ? -1 : memo_get(up, index);
    case OP_LONG_BINGET: return take_uint(up, 4, &index) < 0 ? -1 : memo_get(up, index);
    case OP_GET: return take_index(up, &index) < 0 ? -1 : memo_get(up, index);

    case OP_GLOBAL: return do_global(up);
    case OP_STACK_GLOBAL: return do_stack_global(up);
    case OP_REDUCE: return do_reduce(up);
    case OP_NEWOBJ: return do_newobj(up);
    case OP_INST: return do_inst(up);
    case OP_OBJ: return do_obj(up);
    case OP_BUILD: return do_build(up);

    case OP_EMPTY_SET:
    case OP_ADDITEMS: return refuse_type(up, "set");
    case OP_FROZENSET: return refuse_type(up, "frozenset");
    case OP_BYTEARRAY8: return refuse_type(up, "bytearray");
    case OP_EXT1: return do_ext(up, 1);
    case OP_EXT2: return do_ext(up, 2);
    case OP_EXT4: return do_ext(up, 4);
    case OP_PERSID:
    case OP_BINPERSID: return malformed(up, "a persistent id is not accepted");
    case OP_NEWOBJ_EX: return malformed(up, "NEWOBJ_EX is not accepted");
    default: return unknown_opcode(up, op);
    }
}

static PyObject *run(mg_unpickler *up)
{
    while (up->pos < up->len) {
        uint8_t op = up->data[up->pos++];
        if (op == OP_STOP) {
            if (need(up, 1) < 0)
                return NULL;
            return up->stack[--up->stack_len].obj;
        }
        up->ops++;
        if (step(up, op) < 0)
            return NULL;
    }
    PyErr_SetString(PyExc_EOFError, "Ran out of input");
    return NULL;
}

PyObject *mg_unpickle_next(mg_unpickler *up)
{
    if (up->failed) {
        malformed(up, "an earlier object of this message could not be read");
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
    drop_to(up, 0);
    up->marks_len = 0;
    return value;
}

void mg_unpickler_init(mg_unpickler *up, mg_codec *codec, const uint8_t *data, size_t len, PyObject *router, int deny)
{
    up->data = data;
    up->len = len;
    up->pos = 0;
    up->codec = codec;
    up->router = router;
    up->deny = deny;
    up->failed = 0;
    up->hole = NULL;
    up->hole_at = 0;
    up->longest = 0;
    up->ops = 0;
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
    drop_to(up, 0);
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
