#include "codec/unpickler.h"

#include <string.h>

const uint8_t *mg_up_take_counted_signed(mg_unpickler *up, size_t *len)
{
    if (up->len - up->pos >= 4 && up->data[up->pos + 3] >= 0x80) {
        mg_malformed(up, "pickle has a negative byte count");
        return NULL;
    }
    return mg_up_take_counted(up, 4, len);
}

const uint8_t *mg_up_take_line(mg_unpickler *up, size_t *len)
{
    const uint8_t *p = up->data + up->pos;
    const uint8_t *nl = up->pos < up->len ? memchr(p, '\n', up->len - up->pos) : NULL;
    if (nl == NULL) {
        mg_malformed(up, "pickle data was truncated");
        return NULL;
    }
    *len = (size_t) (nl - p);
    up->pos += *len + 1;
    return p;
}

int mg_up_take_index(mg_unpickler *up, uint64_t *index)
{
    size_t len;
    const uint8_t *p = mg_up_take_line(up, &len);
    if (p == NULL)
        return -1;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return mg_malformed(up, "a number is not written as one");
        if (v > UINT32_MAX)
            return mg_malformed(up, "bad memo index");
        v = 10 * v + (p[i] - '0');
    }
    if (len == 0)
        return mg_malformed(up, "bad memo index");
    *index = v;
    return 0;
}

/* Makes room for at least need entries of size bytes in an array that may still be the inline
 * one. */
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

int mg_up_grow_stack(mg_unpickler *up)
{
    void *array = up->stack;
    if (grow(&array, up->stack_inline, up->stack_len, &up->stack_cap, up->stack_len + 1, sizeof *up->stack) < 0)
        return -1;
    up->stack = array;
    return 0;
}

void mg_up_drop_to(mg_unpickler *up, size_t base)
{
    while (up->stack_len > base) {
        PyObject *obj = up->stack[--up->stack_len].obj;
        Py_DECREF(obj);
    }
}

int mg_up_push_mark(mg_unpickler *up)
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

int mg_up_pop(mg_unpickler *up)
{
    if (up->marks_len != 0 && mg_up_fence(up) == up->stack_len) {
        up->marks_len--; /* a MARK without items counts as the topmost item */
        return 0;
    }
    if (mg_up_need(up, 1) < 0)
        return -1;
    mg_up_drop_to(up, up->stack_len - 1);
    return 0;
}

int mg_up_dup(mg_unpickler *up)
{
    if (mg_up_need(up, 1) < 0)
        return -1;
    mg_slot top = up->stack[up->stack_len - 1];
    Py_INCREF(top.obj);
    return mg_up_push_slot(up, top);
}

int mg_up_memo_put(mg_unpickler *up, uint64_t index)
{
    if (mg_up_need(up, 1) < 0)
        return -1;
    /* Writers count up from 0 or 1, one for each object at most, and each object takes an
     * opcode. */
    if (index > up->ops || index >= UINT32_MAX)
        return mg_malformed(up, "memo index out of bounds");
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

int mg_up_memo_get(mg_unpickler *up, uint64_t index)
{
    if (index >= up->memo_len || up->memo[index].obj == NULL) {
        PyErr_Format(up->codec->UnpicklingError, "memo value not found at index %llu", (unsigned long long) index);
        return -1;
    }
    mg_slot slot = up->memo[index];
    slot.memo = (uint32_t) index + 1;
    Py_INCREF(slot.obj);
    return mg_up_push_slot(up, slot);
}
