/* The writer: values to pickle protocol 2.
 *
 * What is written differs from the standard pickler's in three ways, all of them readable by it: byte strings are raw
 * (BINSTRING), never text in disguise; memo entries are left out for objects to which nobody else has a reference; and
 * large byte strings leave as references to the objects that hold them.
 *
 * A write_* function returns 0, -1 with an exception, or OUTSIDE on meeting an object outside the closed set, which
 * unwinds everything: the whole message is then the fallback's work. So nothing here needs to undo what it has written.
 *
 * Attributes of a Context may run Python code, and without a GIL other threads may change a list while it is written.
 * So whatever is taken out of a mutable container is held by a reference meanwhile, and the memo owns its keys. */
#include "codec_internal.h"

#include <string.h>

enum { OUTSIDE = 1 };

/* As many items go between a MARK and its APPENDS or SETITEMS: bounds the stack of any reader. */
enum { BATCH = 1000 };

enum { MEMO_INLINE = 32 }; /* a power of 2 */

typedef struct {
    PyObject *obj; /* strong, NULL for a free entry */
    uint32_t index;
} memo_entry;

typedef struct {
    mg_codec *codec;
    mg_pickled *out;
    int depth;                       /* containers around what is being written */
    int open; /* shared tuples and Kwargs around it, up to the nearest list or dict in the memo */
    uint32_t next_index; /* memo indices given out, to objects and globals */
    uint32_t globals[GLOBAL_WRITTEN]; /* memo index plus 1 of each global written, else 0 */
    memo_entry *memo; /* open addressing by object address, never more than half full */
    size_t memo_mask, memo_used;
    memo_entry memo_inline[MEMO_INLINE];
} writer;

static int write_value(writer *w, PyObject *obj, Py_ssize_t known);

/* ---- output ---- */

void mg_pickled_init(mg_pickled *out)
{
    out->segs = out->segs_inline;
    out->nsegs = 0;
    out->total = 0;
    out->head = out->head_inline;
    out->head_len = 0;
    out->head_cap = sizeof out->head_inline;
    out->run_start = 0;
    out->segs_cap = sizeof out->segs_inline / sizeof out->segs_inline[0];
}

/* Forgets what was written; memory is kept. */
static void out_reset(mg_pickled *out)
{
    size_t n = out->nsegs;
    out->nsegs = 0;
    out->total = 0;
    out->head_len = 0;
    out->run_start = 0;
    for (size_t i = 0; i < n; i++)
        Py_XDECREF(out->segs[i].owner);
}

void mg_pickled_fini(mg_pickled *out)
{
    out_reset(out);
    if (out->segs != out->segs_inline)
        PyMem_Free(out->segs);
    if (out->head != out->head_inline)
        PyMem_Free(out->head);
    mg_pickled_init(out);
}

static int out_grow(mg_pickled *out, size_t n)
{
    if (n > PY_SSIZE_T_MAX - out->head_len) {
        PyErr_NoMemory();
        return -1;
    }
    size_t cap = out->head_len + n;
    if (cap < 2 * out->head_cap)
        cap = 2 * out->head_cap;
    uint8_t *head;
    if (out->head == out->head_inline) {
        head = PyMem_Malloc(cap);
        if (head != NULL)
            memcpy(head, out->head, out->head_len);
    } else {
        head = PyMem_Realloc(out->head, cap);
    }
    if (head == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    out->head = head;
    out->head_cap = cap;
    return 0;
}

/* Space for n more bytes of the head, or NULL with an exception. The caller adds to head_len what it uses. */
static inline uint8_t *out_reserve(mg_pickled *out, size_t n)
{
    if (out->head_cap - out->head_len < n && out_grow(out, n) < 0)
        return NULL;
    return out->head + out->head_len;
}

static inline int put_byte(mg_pickled *out, uint8_t byte)
{
    uint8_t *p = out_reserve(out, 1);
    if (p == NULL)
        return -1;
    p[0] = byte;
    out->head_len += 1;
    return 0;
}

static inline int put_bytes(mg_pickled *out, const void *src, size_t n)
{
    uint8_t *p = out_reserve(out, n);
    if (p == NULL)
        return -1;
    memcpy(p, src, n);
    out->head_len += n;
    return 0;
}

static inline void pack_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t) v;
    p[1] = (uint8_t) (v >> 8);
    p[2] = (uint8_t) (v >> 16);
    p[3] = (uint8_t) (v >> 24);
}

/* An opcode with a four byte argument. */
static inline int put_op_u32(mg_pickled *out, uint8_t op, uint32_t v)
{
    uint8_t *p = out_reserve(out, 5);
    if (p == NULL)
        return -1;
    p[0] = op;
    pack_u32(p + 1, v);
    out->head_len += 5;
    return 0;
}

/* Adds a seg; steals owner, also on failure. */
static int out_add_seg(mg_pickled *out, const uint8_t *ptr, size_t len, PyObject *owner)
{
    if (len == 0) {
        Py_XDECREF(owner);
        return 0;
    }
    if (out->nsegs == out->segs_cap) {
        size_t cap = 2 * out->segs_cap;
        int is_inline = out->segs == out->segs_inline;
        mg_piece *segs = PyMem_Realloc(is_inline ? NULL : out->segs, cap * sizeof *segs);
        if (segs == NULL) {
            Py_XDECREF(owner);
            PyErr_NoMemory();
            return -1;
        }
        if (is_inline)
            memcpy(segs, out->segs_inline, sizeof out->segs_inline);
        out->segs = segs;
        out->segs_cap = cap;
    }
    out->segs[out->nsegs++] = (mg_piece) {ptr, len, owner};
    out->total += len;
    return 0;
}

/* Ends the run of head bytes since the last seg. Its address is filled in by out_finish(): the head may still move. */
static int out_end_run(mg_pickled *out)
{
    size_t len = out->head_len - out->run_start;
    out->run_start = out->head_len;
    return out_add_seg(out, NULL, len, NULL);
}

/* Refers to bytes inside owner. */
static int out_refer(mg_pickled *out, const void *ptr, size_t len, PyObject *owner)
{
    if (out_end_run(out) < 0)
        return -1;
    Py_INCREF(owner);
    return out_add_seg(out, ptr, len, owner);
}

static int out_finish(mg_pickled *out)
{
    if (out_end_run(out) < 0)
        return -1;
    const uint8_t *p = out->head;
    for (size_t i = 0; i < out->nsegs; i++) {
        mg_piece *seg = &out->segs[i];
        if (seg->owner == NULL) {
            seg->ptr = p;
            p += seg->len;
        }
    }
    return 0;
}

PyObject *mg_pickled_bytes(const mg_pickled *out)
{
    if (out->total > PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    PyObject *joined = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) out->total);
    if (joined == NULL)
        return NULL;
    char *p = PyBytes_AS_STRING(joined);
    for (size_t i = 0; i < out->nsegs; i++) {
        memcpy(p, out->segs[i].ptr, out->segs[i].len);
        p += out->segs[i].len;
    }
    return joined;
}

/* ---- memo ---- */

static inline size_t memo_start(const PyObject *obj, size_t mask)
{
    /* Objects are 16 byte aligned; multiplying spreads neighbours, of which there are many. */
    return (size_t) ((((uint64_t) (uintptr_t) obj >> 4) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & mask;
}

/* The entry of obj, or the free one where it belongs. */
static inline memo_entry *memo_find(writer *w, const PyObject *obj)
{
    size_t i = memo_start(obj, w->memo_mask);
    while (w->memo[i].obj != NULL && w->memo[i].obj != obj)
        i = (i + 1) & w->memo_mask;
    return &w->memo[i];
}

static int memo_grow(writer *w)
{
    size_t old_size = w->memo_mask + 1;
    size_t size = 4 * old_size;
    memo_entry *old = w->memo;
    memo_entry *table = PyMem_Calloc(size, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    w->memo = table;
    w->memo_mask = size - 1;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].obj != NULL)
            *memo_find(w, old[i].obj) = old[i];
    }
    if (old != w->memo_inline)
        PyMem_Free(old);
    return 0;
}

static void memo_fini(writer *w)
{
    if (w->memo_used != 0) {
        for (size_t i = 0; i <= w->memo_mask; i++)
            Py_XDECREF(w->memo[i].obj);
    }
    if (w->memo != w->memo_inline)
        PyMem_Free(w->memo);
}

static int write_get(writer *w, uint32_t index)
{
    if (index > 0xff)
        return put_op_u32(w->out, OP_LONG_BINGET, index);
    return put_bytes(w->out, (uint8_t[]) {OP_BINGET, (uint8_t) index}, 2);
}

static int write_put(writer *w)
{
    uint32_t index = w->next_index++;
    if (index > 0xff)
        return put_op_u32(w->out, OP_LONG_BINPUT, index);
    return put_bytes(w->out, (uint8_t[]) {OP_BINPUT, (uint8_t) index}, 2);
}

/* Gives obj, which has just been written, the next memo index. */
static int memo_put(writer *w, PyObject *obj)
{
    if (2 * (w->memo_used + 1) > w->memo_mask + 1 && memo_grow(w) < 0)
        return -1;
    if (w->next_index == UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "too many objects for one message");
        return -1;
    }
    memo_entry *entry = memo_find(w, obj);
    Py_INCREF(obj);
    entry->obj = obj;
    entry->index = w->next_index;
    w->memo_used++;
    return write_put(w);
}

/* ---- plain values ---- */

static int too_large(const char *what, const char *limit)
{
    PyErr_Format(PyExc_OverflowError, "cannot send %s of %s or more", what, limit);
    return -1;
}

static int write_large_int(writer *w, PyObject *obj)
{
    int rc = -1;
    PyObject *bits = NULL, *to_bytes = NULL, *args = NULL, *kwargs = NULL, *raw = NULL;

    /* Public methods throughout: the C functions for this change from version to version, and such numbers are rare. */
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
        rc = put_op_u32(w->out, OP_LONG4, (uint32_t) n);
    else
        rc = put_bytes(w->out, (uint8_t[]) {OP_LONG1, (uint8_t) n}, 2);
    if (rc == 0)
        rc = put_bytes(w->out, p, n);
done:
    Py_XDECREF(bits);
    Py_XDECREF(to_bytes);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(raw);
    return rc;
}

static int write_int(writer *w, PyObject *obj)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(obj, &overflow);
    if (overflow)
        return write_large_int(w, obj);
    if (value == -1 && PyErr_Occurred())
        return -1;

    uint8_t *p = out_reserve(w->out, 2 + sizeof value);
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
        pack_u32(p + 1, (uint32_t) value);
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

static int write_float(writer *w, PyObject *obj)
{
    double value = PyFloat_AS_DOUBLE(obj);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint8_t *p = out_reserve(w->out, 9);
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

/* The content of a bytes object or of an instance of a subclass. */
static int write_bytes(writer *w, PyObject *obj, int top)
{
    size_t n = (size_t) PyBytes_GET_SIZE(obj);
    if (n > INT32_MAX) /* readers take the length as signed */
        return too_large("a byte string", "2 GiB");
    int rc;
    if (n > 0xff || top)
        rc = put_op_u32(w->out, OP_BINSTRING, (uint32_t) n);
    else
        rc = put_bytes(w->out, (uint8_t[]) {OP_SHORT_BINSTRING, (uint8_t) n}, 2);
    if (rc < 0)
        return rc;
    if (n >= MG_CODEC_BYREF)
        return out_refer(w->out, PyBytes_AS_STRING(obj), n, obj);
    return put_bytes(w->out, PyBytes_AS_STRING(obj), n);
}

/* Lone surrogates take three bytes like their neighbours, which is what readers of pickles expect. */
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

/* Text that is not ASCII. Encoded here, because the API would leave a second copy attached to the object. */
static int write_wide_text(writer *w, PyObject *obj)
{
    Py_ssize_t n = PyUnicode_GET_LENGTH(obj);
    int kind = (int) PyUnicode_KIND(obj);
    const void *chars = PyUnicode_DATA(obj);

    size_t size = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        size += utf8_len(PyUnicode_READ(kind, chars, i));
    if (size > UINT32_MAX)
        return too_large("a text", "4 GiB");
    if (put_op_u32(w->out, OP_BINUNICODE, (uint32_t) size) < 0)
        return -1;
    uint8_t *p = out_reserve(w->out, size);
    if (p == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++)
        p = utf8_put(p, PyUnicode_READ(kind, chars, i));
    w->out->head_len += size;
    return 0;
}

/* The content of a str object or of an instance of a subclass. */
static int write_text(writer *w, PyObject *obj)
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
        if (put_op_u32(w->out, OP_BINUNICODE, (uint32_t) n) < 0)
            return -1;
        return out_refer(w->out, PyUnicode_DATA(obj), n, obj);
    }
    uint8_t *p = out_reserve(w->out, 5 + n);
    if (p == NULL)
        return -1;
    p[0] = OP_BINUNICODE;
    pack_u32(p + 1, (uint32_t) n);
    memcpy(p + 5, PyUnicode_DATA(obj), n);
    w->out->head_len += 5 + n;
    return 0;
}

/* ---- containers ----
 *
 * A tuple or Kwargs gets its memo index when it is complete. Until then a cycle through it comes to it anew, and is broken
 * only by the first list or dict on the way, if that is in the memo, even one with a single reference. Hence writer.open. */

/* Goes levels deeper. Every success needs one leave(). */
static int enter(writer *w, int levels)
{
    if (w->depth + levels > MG_CODEC_MAX_DEPTH) {
        PyErr_Format(PyExc_RecursionError, "cannot send containers nested more than %d deep", MG_CODEC_MAX_DEPTH);
        return -1;
    }
    /* The interpreter knows the stack of this thread better. */
    if (Py_EnterRecursiveCall(" while pickling an object"))
        return -1;
    w->depth += levels;
    return 0;
}

static void leave(writer *w, int levels)
{
    w->depth -= levels;
    Py_LeaveRecursiveCall();
}

/* A tuple that contains itself, by way of a list or dict, is complete by the time its items are: drops those, and takes
 * the tuple from the memo. */
static int write_finished_tuple(writer *w, Py_ssize_t n, uint32_t index)
{
    if (n > 3) {
        if (put_byte(w->out, OP_POP_MARK) < 0)
            return -1;
    } else {
        for (Py_ssize_t i = 0; i < n; i++) {
            if (put_byte(w->out, OP_POP) < 0)
                return -1;
        }
    }
    return write_get(w, index);
}

static int write_tuple(writer *w, PyObject *obj, int shared)
{
    static const uint8_t ops[] = {OP_EMPTY_TUPLE, OP_TUPLE1, OP_TUPLE2, OP_TUPLE3};
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (n == 0)
        return put_byte(w->out, OP_EMPTY_TUPLE);

    if (n > 3 && put_byte(w->out, OP_MARK) < 0)
        return -1;
    w->open += shared;
    for (Py_ssize_t i = 0; i < n; i++) {
        int rc = write_value(w, PyTuple_GET_ITEM(obj, i), 1);
        if (rc != 0)
            return rc;
    }
    w->open -= shared;
    if (shared) {
        memo_entry *entry = memo_find(w, obj);
        if (entry->obj != NULL)
            return write_finished_tuple(w, n, entry->index);
    }
    if (put_byte(w->out, n > 3 ? OP_TUPLE : ops[n]) < 0)
        return -1;
    return shared ? memo_put(w, obj) : 0;
}

/* Item i as a new reference, or NULL, without an exception, past the end. */
static inline PyObject *list_item(PyObject *list, Py_ssize_t i)
{
#ifdef Py_GIL_DISABLED
    PyObject *item = PyList_GetItemRef(list, i);
    if (item == NULL)
        PyErr_Clear(); /* IndexError is all it raises: another thread made the list shorter */
    return item;
#else
    if (i >= PyList_GET_SIZE(list))
        return NULL;
    PyObject *item = PyList_GET_ITEM(list, i);
    Py_INCREF(item);
    return item;
#endif
}

/* Writes items from i on, at most limit, and returns through i where it stopped. */
static int write_list_items(writer *w, PyObject *list, Py_ssize_t *i, Py_ssize_t limit)
{
    PyObject *item;
    while (limit-- > 0 && (item = list_item(list, *i)) != NULL) {
        int rc = write_value(w, item, 2); /* the list's reference and the one held here */
        Py_DECREF(item);
        if (rc != 0)
            return rc;
        ++*i;
    }
    return 0;
}

/* An empty list was written: adds the items. */
static int write_all_items(writer *w, PyObject *obj)
{
    Py_ssize_t i = 0;
    if (PyList_GET_SIZE(obj) == 1) {
        int rc = write_list_items(w, obj, &i, 1);
        if (rc != 0)
            return rc;
        return i == 1 ? put_byte(w->out, OP_APPEND) : 0;
    }
    while (i < PyList_GET_SIZE(obj)) {
        if (put_byte(w->out, OP_MARK) < 0)
            return -1;
        int rc = write_list_items(w, obj, &i, BATCH);
        if (rc != 0)
            return rc;
        if (put_byte(w->out, OP_APPENDS) < 0)
            return -1;
    }
    return 0;
}

/* A list or dict, with what opens it and what writes its items. */
static int write_mutable(writer *w, PyObject *obj, int shared, uint8_t op, int (*write_items)(writer *w, PyObject *obj))
{
    int open = w->open;
    if (put_byte(w->out, op) < 0)
        return -1;
    if (shared) {
        if (memo_put(w, obj) < 0)
            return -1;
        w->open = 0;
    }
    int rc = write_items(w, obj);
    w->open = open;
    return rc;
}

static int write_list(writer *w, PyObject *obj, int shared)
{
    return write_mutable(w, obj, shared, OP_EMPTY_LIST, write_all_items);
}

/* PyDict_Next with new references. */
static inline int dict_next(PyObject *dict, Py_ssize_t *pos, PyObject **key, PyObject **value)
{
    int more;
#ifdef Py_GIL_DISABLED
    Py_BEGIN_CRITICAL_SECTION(dict);
#endif
    more = PyDict_Next(dict, pos, key, value);
    if (more) {
        Py_INCREF(*key);
        Py_INCREF(*value);
    }
#ifdef Py_GIL_DISABLED
    Py_END_CRITICAL_SECTION();
#endif
    return more;
}

/* An empty dict was written: adds the items of a dict or of an instance of a subclass. */
static int write_dict_items(writer *w, PyObject *dict)
{
    Py_ssize_t size = PyDict_Size(dict), pos = 0, count = 0;
    PyObject *key, *value;

    while (dict_next(dict, &pos, &key, &value)) {
        int rc = 0;
        if (size > 1 && count % BATCH == 0)
            rc = put_byte(w->out, OP_MARK);
        if (rc == 0)
            rc = write_value(w, key, 2);
        if (rc == 0)
            rc = write_value(w, value, 2);
        Py_DECREF(key);
        Py_DECREF(value);
        if (rc != 0)
            return rc;
        count++;
        if (size > 1 && (count % BATCH == 0 || count == size))
            rc = put_byte(w->out, OP_SETITEMS);
        else if (size == 1)
            rc = put_byte(w->out, OP_SETITEM);
        if (rc != 0)
            return rc;
        if (PyDict_Size(dict) != size)
            break;
    }
    if (count != size || PyDict_Size(dict) != size) {
        PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
        return -1;
    }
    return 0;
}

static int write_dict(writer *w, PyObject *obj, int shared)
{
    return write_mutable(w, obj, shared, OP_EMPTY_DICT, write_dict_items);
}

/* ---- objects ---- */

static int write_global(writer *w, int global)
{
#define TEXT(name) {"cmitogen.core\n" name "\n", sizeof("cmitogen.core\n" name "\n") - 1}
    static const struct {
        const char *text;
        size_t len;
    } texts[GLOBAL_WRITTEN] = {
        [GLOBAL_BLOB] = TEXT("Blob"),
        [GLOBAL_SECRET] = TEXT("Secret"),
        [GLOBAL_KWARGS] = TEXT("Kwargs"),
        [GLOBAL_CALL_ERROR] = TEXT("_unpickle_call_error"),
        [GLOBAL_CONTEXT] = TEXT("_unpickle_context"),
        [GLOBAL_SENDER] = TEXT("_unpickle_sender"),
    };
#undef TEXT
    if (w->globals[global] != 0)
        return write_get(w, w->globals[global] - 1);
    if (put_bytes(w->out, texts[global].text, texts[global].len) < 0)
        return -1;
    w->globals[global] = w->next_index + 1;
    return write_put(w);
}

static int write_reduce(writer *w, uint8_t tuple_op, PyObject *obj, int shared)
{
    if (put_bytes(w->out, (uint8_t[]) {tuple_op, OP_REDUCE}, 2) < 0)
        return -1;
    return shared ? memo_put(w, obj) : 0;
}

static int write_blob(writer *w, PyObject *obj, int shared)
{
    if (!PyBytes_Check(obj))
        return OUTSIDE;
    if (write_global(w, GLOBAL_BLOB) < 0 || write_bytes(w, obj, 0) < 0)
        return -1;
    return write_reduce(w, OP_TUPLE1, obj, shared);
}

static int write_secret(writer *w, PyObject *obj, int shared)
{
    if (!PyUnicode_Check(obj))
        return OUTSIDE;
    if (write_global(w, GLOBAL_SECRET) < 0 || write_text(w, obj) < 0)
        return -1;
    return write_reduce(w, OP_TUPLE1, obj, shared);
}

static int write_kwargs(writer *w, PyObject *obj, int shared)
{
    if (!PyDict_Check(obj))
        return OUTSIDE;
    if (write_global(w, GLOBAL_KWARGS) < 0 || put_byte(w->out, OP_EMPTY_DICT) < 0)
        return -1;
    w->open += shared;
    int rc = write_dict_items(w, obj);
    w->open -= shared;
    if (rc != 0)
        return rc;
    memo_entry *entry = shared ? memo_find(w, obj) : NULL;
    if (entry == NULL || entry->obj == NULL)
        return write_reduce(w, OP_TUPLE1, obj, shared);
    /* It contains itself, by way of a list or dict, and is complete by now: as with tuples. */
    if (put_bytes(w->out, (uint8_t[]) {OP_POP, OP_POP}, 2) < 0)
        return -1;
    return write_get(w, entry->index);
}

/* An attribute as a new reference through value. One that is missing makes the object OUTSIDE: the fallback says what is
 * wrong with it. */
static int get_attribute(PyObject *obj, PyObject *name, PyObject **value)
{
    *value = PyObject_GetAttr(obj, name);
    if (*value != NULL)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return OUTSIDE;
}

static int write_call_error(writer *w, PyObject *obj, int shared)
{
    PyObject *args;
    int rc = get_attribute(obj, w->codec->str_args, &args);
    if (rc != 0)
        return rc;
    /* A text too long for readers is for the fallback to shorten or not. */
    PyObject *text = PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (text == NULL || !PyUnicode_CheckExact(text) || PyUnicode_GetLength(text) >= 10000) {
        rc = OUTSIDE;
    } else {
        rc = write_global(w, GLOBAL_CALL_ERROR);
        if (rc == 0)
            rc = write_value(w, text, 1);
        if (rc == 0)
            rc = write_reduce(w, OP_TUPLE1, obj, shared);
    }
    Py_DECREF(args);
    return rc;
}

static int write_context(writer *w, PyObject *obj, int shared)
{
    PyObject *id = NULL, *name = NULL;
    int rc = get_attribute(obj, w->codec->str_context_id, &id);
    if (rc == 0)
        rc = get_attribute(obj, w->codec->str_name, &name);
    if (rc == 0 && (!PyLong_CheckExact(id) || !(name == Py_None || PyUnicode_CheckExact(name))))
        rc = OUTSIDE;
    if (rc == 0)
        rc = write_global(w, GLOBAL_CONTEXT);
    if (rc == 0)
        rc = write_int(w, id);
    if (rc == 0)
        rc = write_value(w, name, 2);
    if (rc == 0)
        rc = write_reduce(w, OP_TUPLE2, obj, shared);
    Py_XDECREF(id);
    Py_XDECREF(name);
    return rc;
}

static int write_sender(writer *w, PyObject *obj, int shared)
{
    PyObject *context = NULL, *id = NULL, *handle = NULL;
    int rc = get_attribute(obj, w->codec->str_context, &context);
    if (rc == 0)
        rc = get_attribute(context, w->codec->str_context_id, &id);
    if (rc == 0)
        rc = get_attribute(obj, w->codec->str_dst_handle, &handle);
    if (rc == 0 && (!PyLong_CheckExact(id) || !PyLong_CheckExact(handle)))
        rc = OUTSIDE;
    if (rc == 0)
        rc = write_global(w, GLOBAL_SENDER);
    if (rc == 0)
        rc = write_int(w, id);
    if (rc == 0)
        rc = write_int(w, handle);
    if (rc == 0)
        rc = write_reduce(w, OP_TUPLE2, obj, shared);
    Py_XDECREF(context);
    Py_XDECREF(id);
    Py_XDECREF(handle);
    return rc;
}

static int same_attribute(PyTypeObject *type, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr((PyObject *) type, name);
    if (value == NULL)
        return -1;
    int same = value == expected;
    Py_DECREF(value);
    return same;
}

/* Whether instances of type reduce themselves as a Context does: 1, 0, or -1 with an exception. */
static int is_context(mg_codec *codec, PyTypeObject *type)
{
    if ((PyObject *) type == codec->Context)
        return 1;
    if (!PyType_IsSubtype(type, (PyTypeObject *) codec->Context))
        return 0;
    int same = same_attribute(type, codec->str_reduce, codec->context_reduce);
    if (same == 1)
        same = same_attribute(type, codec->str_reduce_ex, codec->context_reduce_ex);
    return same;
}

typedef int (*write_fn)(writer *w, PyObject *obj, int shared);

/* The function for an object that nests; NULL when there is none, with an exception or without. levels is what it adds to
 * the depth: one for itself, and one for the dict inside a Kwargs. */
static write_fn find_write_fn(mg_codec *codec, PyObject *obj, int *levels)
{
    PyTypeObject *type = Py_TYPE(obj);
    PyObject *cls = (PyObject *) type;
    *levels = 1;
    if (type == &PyTuple_Type)
        return write_tuple;
    if (type == &PyDict_Type)
        return write_dict;
    if (type == &PyList_Type)
        return write_list;
    if (cls == codec->Kwargs) {
        *levels = 2;
        return write_kwargs;
    }
    if (cls == codec->Blob)
        return write_blob;
    if (cls == codec->Secret)
        return write_secret;
    if (cls == codec->CallError)
        return write_call_error;
    if (cls == codec->Sender)
        return write_sender;
    return is_context(codec, type) == 1 ? write_context : NULL;
}

/* Writes anything. known is how many references to obj the caller knows of, its own included: when there are no more, obj
 * cannot come up again, and the memo is spared. */
static int write_value(writer *w, PyObject *obj, Py_ssize_t known)
{
    PyTypeObject *type = Py_TYPE(obj);
    if (type == &PyLong_Type)
        return write_int(w, obj);
    if (obj == Py_None)
        return put_byte(w->out, OP_NONE);
    if (type == &PyBool_Type)
        return put_byte(w->out, obj == Py_True ? OP_NEWTRUE : OP_NEWFALSE);
    if (type == &PyFloat_Type)
        return write_float(w, obj);

    int shared = Py_REFCNT(obj) > known || (w->open != 0 && (type == &PyList_Type || type == &PyDict_Type));
    if (shared) {
        memo_entry *entry = memo_find(w, obj);
        if (entry->obj != NULL)
            return write_get(w, entry->index);
    }
    if (type == &PyUnicode_Type || type == &PyBytes_Type) {
        int rc = type == &PyUnicode_Type ? write_text(w, obj) : write_bytes(w, obj, 0);
        return rc == 0 && shared ? memo_put(w, obj) : rc;
    }

    int levels;
    write_fn fn = find_write_fn(w->codec, obj, &levels);
    if (fn == NULL)
        return PyErr_Occurred() ? -1 : OUTSIDE;
    if (enter(w, levels) < 0)
        return -1;
    int rc = fn(w, obj, shared);
    leave(w, levels);
    return rc;
}

static int write_top(writer *w, PyObject *obj)
{
    if (put_bytes(w->out, (uint8_t[]) {OP_PROTO, 2}, 2) < 0)
        return -1;
    /* Nothing is known of the caller's references: even a single one may be from inside obj. */
    int rc = PyBytes_CheckExact(obj) ? write_bytes(w, obj, 1) : write_value(w, obj, 0);
    if (rc == 0)
        rc = put_byte(w->out, OP_STOP);
    return rc;
}

static int write_by_fallback(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out)
{
    out_reset(out);
    PyObject *payload = PyObject_Vectorcall(codec->fallback_pickle, objs, (size_t) n, NULL);
    if (payload == NULL)
        return -1;
    if (!PyBytes_Check(payload)) {
        PyErr_Format(PyExc_TypeError, "fallback_pickle returned %.100s instead of bytes", Py_TYPE(payload)->tp_name);
        Py_DECREF(payload);
        return -1;
    }
    return out_add_seg(out, (const uint8_t *) PyBytes_AS_STRING(payload), (size_t) PyBytes_GET_SIZE(payload), payload);
}

int mg_pickle(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out)
{
    writer w;
    w.codec = codec;
    w.out = out;
    w.depth = 0;
    w.open = 0;
    w.next_index = 0;
    memset(w.globals, 0, sizeof w.globals);
    w.memo = w.memo_inline;
    w.memo_mask = MEMO_INLINE - 1;
    w.memo_used = 0;
    memset(w.memo_inline, 0, sizeof w.memo_inline);

    int rc = 0;
    for (Py_ssize_t i = 0; i < n && rc == 0; i++)
        rc = write_top(&w, objs[i]);
    memo_fini(&w);
    if (rc == OUTSIDE)
        return write_by_fallback(codec, objs, n, out);
    if (rc == 0)
        rc = out_finish(out);
    return rc;
}
