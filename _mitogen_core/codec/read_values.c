#include "codec/read_values.h"

#include "base/block.h"
#include "codec/globals.h"
#include "codec/limits.h"
#include "wire/opcode.h"

#include <string.h>

enum { MAX_FLOAT_TEXT = 500 };

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

/* Only what pickle writes: of blanks, plus signs and zeros in front, the readers of several
 * Pythons make different numbers. */
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

int mg_read_int(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = mg_up_take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1'))
        return mg_up_push_borrowed(up, p[1] == '1' ? Py_True : Py_False);
    return mg_up_push(up, int_from_decimal(p, n), 0);
}

int mg_read_long(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = mg_up_take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n > 0 && p[n - 1] == 'L')
        n--;
    return mg_up_push(up, int_from_decimal(p, n), 0);
}

int mg_read_long_counted(mg_unpickler *up, const uint8_t *p, size_t n)
{
    return p == NULL ? -1 : mg_up_push(up, int_from_bytes(p, n), 0);
}

int mg_read_binint(mg_unpickler *up, size_t n)
{
    uint64_t v;
    if (mg_up_take_uint(up, n, &v) < 0)
        return -1;
    return mg_up_push(up, PyLong_FromLong((long) v), 0);
}

int mg_read_binint_signed(mg_unpickler *up)
{
    const uint8_t *p = mg_up_take(up, 4);
    if (p == NULL)
        return -1;
    return mg_up_push(up, int_from_bytes(p, 4), 0);
}

int mg_read_float(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = mg_up_take_line(up, &n);
    if (p == NULL)
        return -1;
    char text[MAX_FLOAT_TEXT + 1], *end;
    if (n > MAX_FLOAT_TEXT)
        return mg_up_push(up, bad_number(), 0);
    memcpy(text, p, n);
    text[n] = '\0';
    double value = PyOS_string_to_double(text, &end, NULL);
    if (value == -1.0 && PyErr_Occurred())
        return -1;
    if (end != text + n)
        return mg_up_push(up, bad_number(), 0);
    return mg_up_push(up, PyFloat_FromDouble(value), 0);
}

int mg_read_binfloat(mg_unpickler *up)
{
    const uint8_t *p = mg_up_take(up, 8);
    if (p == NULL)
        return -1;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    double value;
    memcpy(&value, &bits, sizeof value);
    return mg_up_push(up, PyFloat_FromDouble(value), 0);
}

static inline int push_text(mg_unpickler *up, const uint8_t *p, size_t n)
{
    return mg_up_push(up, PyUnicode_DecodeUTF8((const char *) p, (Py_ssize_t) n, "surrogatepass"), 0);
}

int mg_read_text(mg_unpickler *up, size_t length_size)
{
    size_t n;
    const uint8_t *p = mg_up_take_counted(up, length_size, &n);
    if (p == NULL)
        return -1;
    return push_text(up, p, n);
}

int mg_read_raw_text(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = mg_up_take_line(up, &n);
    if (p == NULL)
        return -1;
    return mg_up_push(up, PyUnicode_DecodeRawUnicodeEscape((const char *) p, (Py_ssize_t) n, NULL), 0);
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

/* The inside of a string literal as Python 2's repr() writes it. The interpreter's own function
 * is not used: it warns of unknown escapes, and a program's code may be called to show a
 * warning. */
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

int mg_read_string(mg_unpickler *up)
{
    size_t n;
    const uint8_t *p = mg_up_take_line(up, &n);
    if (p == NULL)
        return -1;
    if (n < 2 || (p[0] != '\'' && p[0] != '"') || p[n - 1] != p[0])
        return mg_malformed(up, "the argument of STRING must be quoted");
    return mg_up_push(up, bytes_from_literal(p + 1, n - 2), 0);
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
    /* The hash is not known yet. The member is deprecated, except for code that makes bytes
     * objects. */
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

int mg_read_bytes(mg_unpickler *up, const uint8_t *p, size_t n)
{
    if (p == NULL)
        return -1;
    if (n > up->longest)
        up->longest = n;
    /* Our own writer's Blob: global, content, TUPLE1, REDUCE. */
    mg_slot *top = up->stack_len > mg_up_fence(up) ? &up->stack[up->stack_len - 1] : NULL;
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
        return mg_up_push_borrowed(up, up->hole);
    if (n < MG_BLOCK_HUGE)
        return mg_up_push(up, PyBytes_FromStringAndSize((const char *) p, (Py_ssize_t) n), 0);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) n);
    if (bytes != NULL) {
        mg_block_advise(PyBytes_AS_STRING(bytes), n);
        memcpy(PyBytes_AS_STRING(bytes), p, n);
    }
    return mg_up_push(up, bytes, 0);
}
