/* The state of one reading: the input, the stack and the memo, with the bounds that untrusted
 * data must not exceed.
 *
 * Ownership: a slot owns its object. mg_up_push() and its callers steal the object passed, also
 * on failure. */
#ifndef MG_CODEC_UNPICKLER_H
#define MG_CODEC_UNPICKLER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/config.h"

/* A value on the reader's stack or in its memo. */
typedef struct {
    PyObject *obj; /* strong; NULL in a memo slot that was never set */
    uint32_t memo; /* where the value is in the memo, plus 1; 0 when it is not, or in the memo itself */
    uint16_t height; /* how deep containers nest in it, as far as known; 0 for a plain value */
    uint16_t global; /* which permitted global it is; 0 for a value */
} mg_slot;

/* Which places are taken in the table of a large dictionary, see probes.h. */
typedef struct {
    PyObject *dict; /* strong, or NULL: the dictionary */
    uint64_t *taken; /* a bit for each place, or NULL while no two keys want one place */
    unsigned bits; /* of the number of places */
} mg_probes;

/* The pickles of one message. The body is visible so that it can be embedded. It points into
 * itself: it must not be moved or copied. All members but pos are private. */
typedef struct {
    const uint8_t *data; /* borrowed */
    size_t len, pos;
    mg_codec *codec; /* borrowed */
    PyObject *origin; /* borrowed or NULL */
    int deny;
    int failed;
    PyObject *hole; /* borrowed or NULL: bytes that belong into data, but are kept in this object */
    size_t hole_at;
    size_t longest; /* of the byte strings that were read */
    size_t ops; /* opcodes read so far: bounds the memo */
    size_t copied; /* bytes, characters and items that objects were made of */
    size_t spent; /* on the keys of dictionaries, see probes.c */
    mg_probes probes;
    mg_slot *stack;
    size_t stack_len, stack_cap;
    size_t *marks; /* stack lengths at each MARK */
    size_t marks_len, marks_cap;
    mg_slot *memo; /* shared by all pickles of the message */
    size_t memo_len, memo_cap, memo_used;
    mg_slot stack_inline[24], memo_inline[24];
    size_t marks_inline[8];
} mg_unpickler;

/* The bytes are no pickle. Returns -1, as the functions below do that return int and fail. */
static inline int mg_malformed(mg_unpickler *up, const char *what)
{
    PyErr_SetString(up->codec->UnpicklingError, what);
    return -1;
}

static inline int mg_underflow(mg_unpickler *up)
{
    return mg_malformed(up, "unexpected MARK found, or the stack is empty");
}

/* ---- input ---- */

/* The next n bytes, or NULL with an exception. */
static inline const uint8_t *mg_up_take(mg_unpickler *up, size_t n)
{
    if (n > up->len - up->pos) {
        mg_malformed(up, "pickle data was truncated");
        return NULL;
    }
    const uint8_t *p = up->data + up->pos;
    up->pos += n;
    return p;
}

/* A little-endian number of n bytes, at most 8. */
static inline int mg_up_take_uint(mg_unpickler *up, size_t n, uint64_t *value)
{
    const uint8_t *p = mg_up_take(up, n);
    if (p == NULL)
        return -1;
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    *value = v;
    return 0;
}

/* A length of n bytes, and then as many bytes. */
static inline const uint8_t *mg_up_take_counted(mg_unpickler *up, size_t n, size_t *len)
{
    uint64_t count;
    if (mg_up_take_uint(up, n, &count) < 0)
        return NULL;
    if (count > up->len - up->pos) {
        if (up->hole && up->pos == up->hole_at && count == (uint64_t) PyBytes_GET_SIZE(up->hole)) {
            *len = (size_t) count;
            return (const uint8_t *) PyBytes_AS_STRING(up->hole);
        }
        mg_malformed(up, "pickle data was truncated");
        return NULL;
    }
    *len = (size_t) count;
    return mg_up_take(up, *len);
}

/* Like mg_up_take_counted with 4 bytes, for the opcodes whose length is signed. */
const uint8_t *mg_up_take_counted_signed(mg_unpickler *up, size_t *len);

/* Up to the next newline, which is skipped. */
const uint8_t *mg_up_take_line(mg_unpickler *up, size_t *len);

/* A memo index in decimal. */
int mg_up_take_index(mg_unpickler *up, uint64_t *index);

/* ---- stack ---- */

/* Makes room for one more slot. */
int mg_up_grow_stack(mg_unpickler *up);

/* Pushes a slot, and steals its object. A NULL object means that making it failed: returns -1. */
static inline int mg_up_push_slot(mg_unpickler *up, mg_slot slot)
{
    if (slot.obj == NULL)
        return -1;
    if (up->stack_len == up->stack_cap && mg_up_grow_stack(up) < 0) {
        Py_DECREF(slot.obj);
        return -1;
    }
    assert(up->stack);
    up->stack[up->stack_len++] = slot;
    return 0;
}

static inline int mg_up_push(mg_unpickler *up, PyObject *obj, unsigned height)
{
    return mg_up_push_slot(up, (mg_slot) {.obj = obj, .height = (uint16_t) height});
}

static inline int mg_up_push_borrowed(mg_unpickler *up, PyObject *obj)
{
    Py_INCREF(obj);
    return mg_up_push(up, obj, 0);
}

/* Where the items above the last MARK begin: nothing below may be popped. */
static inline size_t mg_up_fence(const mg_unpickler *up)
{
    return up->marks_len != 0 ? up->marks[up->marks_len - 1] : 0;
}

static inline int mg_up_need(mg_unpickler *up, size_t n)
{
    return up->stack_len - mg_up_fence(up) < n ? mg_underflow(up) : 0;
}

/* Drops the slots from base on. */
void mg_up_drop_to(mg_unpickler *up, size_t base);

int mg_up_push_mark(mg_unpickler *up);

/* Removes the last MARK, and sets *base to the index of the first item after it. */
static inline int mg_up_pop_mark(mg_unpickler *up, size_t *base)
{
    if (up->marks_len == 0)
        return mg_malformed(up, "could not find MARK");
    *base = up->marks[--up->marks_len];
    return 0;
}

/* Drops, or doubles, the topmost item. */
int mg_up_pop(mg_unpickler *up);
int mg_up_dup(mg_unpickler *up);

/* ---- memo ---- */

/* Remembers the topmost item; pushes the one remembered. */
int mg_up_memo_put(mg_unpickler *up, uint64_t index);
int mg_up_memo_get(mg_unpickler *up, uint64_t index);

#endif
