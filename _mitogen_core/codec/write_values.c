#include "codec/write_values.h"

#include "codec/limits.h"
#include "wire/opcode.h"

#include <string.h>

static int too_large(const char *what, const char *limit)
{
    PyErr_Format(PyExc_OverflowError, "cannot send %s of %s or more", what, limit);
    return -1;
}

static int write_large_int(mg_writer *w, PyObject *obj)
{
    int rc = -1;
    PyObject *bits = NULL, *to_bytes = NULL, *args = NULL, *kwargs = NULL, *raw = NULL;

    /* Public methods throughout: the C functions for this change from version to version, and
     * such numbers are rare. */
    bits = PyObject_CallMethod(obj, "bit_length", NULL);
    if (bits == NULL)
        goto done;
    Py_ssize_t nbits = PyLong_AsSsize_t(bits);
    if (nbits < 0)
        goto done;
    to_bytes = PyObject_GetAttrString(obj, "to_bytes");
    if (to_bytes == NULL)
        goto done;
    args = Py_BuildValue("(ns)", nbits / 8 + 1, "little");
    if (args == NULL)
        goto done;
    kwargs = Py_BuildValue("{sO}", "signed", Py_True);
    if (kwargs == NULL)
        goto done;
    raw = PyObject_Call(to_bytes, args, kwargs);
    if (raw == NULL)
        goto done;

    const uint8_t *p = (const uint8_t *) PyBytes_AS_STRING(raw);
    size_t n = (size_t) PyBytes_GET_SIZE(raw);
    if (n > 1 && p[n - 1] == 0xff && p[n - 2] >= 0x80)
        n--; /* the lowest number of its length carries its sign already */
    if (n > INT32_MAX) {
        rc = too_large("an integer", "2 GiB");
        goto done;
    }
    if (n > 0xff)
        rc = mg_put_op_u32(w->out, OP_LONG4, (uint32_t) n);
    else
        rc = mg_put_bytes(w->out, (uint8_t[]) {OP_LONG1, (uint8_t) n}, 2);
    if (rc == 0)
        rc = mg_put_bytes(w->out, p, n);
done:
    Py_XDECREF(bits);
    Py_XDECREF(to_bytes);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(raw);
    return rc;
}

int mg_write_int(mg_writer *w, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow)
        return write_large_int(w, obj);
    if (value == -1 && PyErr_Occurred())
        return -1;

    uint8_t *p = mg_out_reserve(w->out, 2 + sizeof value);
    if (p == NULL)
        return -1;
    if (value >= 0 && value <= 0xff) {
        p[0] = OP_BININT1;
        p[1] = (uint8_t) value;
        w->out->head_len += 2;
    } else if (value >= 0 && value <= 0xffff) {
        p[0] = OP_BININT2;
        p[1] = (uint8_t) value;
        p[2] = (uint8_t) (value >> 8);
        w->out->head_len += 3;
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        p[0] = OP_BININT;
        mg_pack_u32(p + 1, (uint32_t) value);
        w->out->head_len += 5;
    } else {
        unsigned long long bits = (unsigned long long) value;
        size_t n = 0;
        do
            p[2 + n++] = (uint8_t) bits;
        while ((bits >>= 8) != 0);
        if (value < 0) {
            while (n > 1 && p[1 + n] == 0xff && p[n] >= 0x80)
                n--;
        } else if (p[1 + n] >= 0x80) {
            p[2 + n++] = 0; /* fits: only a number below 2**63 gets here */
        }
        p[0] = OP_LONG1;
        p[1] = (uint8_t) n;
        w->out->head_len += 2 + n;
    }
    return 0;
}

int mg_write_float(mg_writer *w, PyObject *obj)
{
    double value = PyFloat_AS_DOUBLE(obj);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint8_t *p = mg_out_reserve(w->out, 9);
    if (p == NULL)
        return -1;
    p[0] = OP_BINFLOAT;
    for (int i = 8; i > 0; i--) {
        p[i] = (uint8_t) bits;
        bits >>= 8;
    }
    w->out->head_len += 9;
    return 0;
}

int mg_write_bytes(mg_writer *w, PyObject *obj, int top)
{
    size_t n = (size_t) PyBytes_GET_SIZE(obj);
    if (n > INT32_MAX) /* readers take the length as signed */
        return too_large("a byte string", "2 GiB");
    int rc;
    if (n > 0xff || top)
        rc = mg_put_op_u32(w->out, OP_BINSTRING, (uint32_t) n);
    else
        rc = mg_put_bytes(w->out, (uint8_t[]) {OP_SHORT_BINSTRING, (uint8_t) n}, 2);
    if (rc < 0)
        return rc;
    if (n >= MG_CODEC_BYREF)
        return mg_out_refer(w->out, PyBytes_AS_STRING(obj), n, obj);
    return mg_put_bytes(w->out, PyBytes_AS_STRING(obj), n);
}

/* Lone surrogates take three bytes like their neighbours, which is what readers of pickles
 * expect. */
static inline size_t utf8_len(Py_UCS4 c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

static inline uint8_t *utf8_put(uint8_t *p, Py_UCS4 c)
{
    if (c < 0x80) {
        *p++ = (uint8_t) c;
        return p;
    }
    if (c < 0x800) {
        *p++ = (uint8_t) (0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *p++ = (uint8_t) (0xe0 | c >> 12);
        } else {
            *p++ = (uint8_t) (0xf0 | c >> 18);
            *p++ = (uint8_t) (0x80 | (c >> 12 & 0x3f));
        }
        *p++ = (uint8_t) (0x80 | (c >> 6 & 0x3f));
    }
    *p++ = (uint8_t) (0x80 | (c & 0x3f));
    return p;
}

/* Text that is not ASCII. Encoded here, because the API would leave a second copy attached to
 * the object. */
static int write_wide_text(mg_writer *w, PyObject *obj)
{
    Py_ssize_t n = PyUnicode_GET_LENGTH(obj);
    int kind = (int) PyUnicode_KIND(obj);
    const void *chars = PyUnicode_DATA(obj);

    size_t size = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        size += utf8_len(PyUnicode_READ(kind, chars, i));
    if (size > UINT32_MAX)
        return too_large("a text", "4 GiB");
    if (mg_put_op_u32(w->out, OP_BINUNICODE, (uint32_t) size) < 0)
        return -1;
    uint8_t *p = mg_out_reserve(w->out, size);
    if (p == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++)
        p = utf8_put(p, PyUnicode_READ(kind, chars, i));
    w->out->head_len += size;
    return 0;
}

int mg_write_text(mg_writer *w, PyObject *obj)
{
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(obj) < 0)
        return -1;
#endif
    if (!PyUnicode_IS_ASCII(obj))
        return write_wide_text(w, obj);

    size_t n = (size_t) PyUnicode_GET_LENGTH(obj);
    if (n > UINT32_MAX)
        return too_large("a text", "4 GiB");
    if (n >= MG_CODEC_BYREF) {
        if (mg_put_op_u32(w->out, OP_BINUNICODE, (uint32_t) n) < 0)
            return -1;
        return mg_out_refer(w->out, PyUnicode_DATA(obj), n, obj);
    }
    uint8_t *p = mg_out_reserve(w->out, 5 + n);
    if (p == NULL)
        return -1;
    p[0] = OP_BINUNICODE;
    mg_pack_u32(p + 1, (uint32_t) n);
    memcpy(p + 5, PyUnicode_DATA(obj), n);
    w->out->head_len += 5 + n;
    return 0;
}
