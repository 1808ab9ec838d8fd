/* The depth of a value is known exactly for tuples of tuples, which nothing can change later. A
 * list or dict that is changed again after it was put elsewhere may nest deeper than its figure.
 * Functions of CPython that recurse into lists and dicts check the depth themselves. */
#include "codec/read_containers.h"

#include "codec/depth.h"
#include "codec/probes.h"

#include <string.h>

static int too_deep(mg_unpickler *up)
{
    return mg_malformed(up, "containers are nested too deep");
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

int mg_read_tuple(mg_unpickler *up, size_t base)
{
    unsigned height = 1 + max_height(up, base);
    if (!mg_depth_fits(height))
        return too_deep(up);
    size_t n = up->stack_len - base;
    PyObject *tuple = PyTuple_New((Py_ssize_t) n);
    if (tuple == NULL)
        return -1;
    for (size_t i = 0; i < n; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t) i, up->stack[base + i].obj);
    up->stack_len = base;
    return mg_up_push(up, tuple, height);
}

int mg_read_small_tuple(mg_unpickler *up, size_t n)
{
    return mg_up_need(up, n) < 0 ? -1 : mg_read_tuple(up, up->stack_len - n);
}

int mg_read_marked_tuple(mg_unpickler *up)
{
    size_t base;
    return mg_up_pop_mark(up, &base) < 0 ? -1 : mg_read_tuple(up, base);
}

/* The container at stack index i is about to get the slots from base on. */
static int raise_height(mg_unpickler *up, size_t i, size_t base)
{
    unsigned height = 1 + max_height(up, base);
    mg_slot *slot = &up->stack[i];
    if (height <= slot->height)
        return 0;
    if (!mg_depth_fits(height))
        return too_deep(up);
    slot->height = (uint16_t) height;
    if (slot->memo != 0 && up->memo[slot->memo - 1].obj == slot->obj)
        up->memo[slot->memo - 1].height = (uint16_t) height;
    return 0;
}

/* Moves the slots from base on to the end of the list just below them. */
static int append_from(mg_unpickler *up, size_t base)
{
    if (base <= mg_up_fence(up))
        return mg_underflow(up);
    PyObject *list = up->stack[base - 1].obj;
    if (up->stack_len == base)
        return 0;
    if (!PyList_CheckExact(list))
        return mg_malformed(up, "APPEND to what is not a list");
    if (raise_height(up, base - 1, base) < 0)
        return -1;
    for (size_t i = base; i < up->stack_len; i++) {
        if (PyList_Append(list, up->stack[i].obj) < 0)
            return -1;
    }
    mg_up_drop_to(up, base);
    return 0;
}

/* Moves the pairs of slots from base on into the dict just below them. */
static int set_from(mg_unpickler *up, size_t base)
{
    if (base <= mg_up_fence(up))
        return mg_underflow(up);
    PyObject *dict = up->stack[base - 1].obj;
    if (up->stack_len == base)
        return 0;
    if (!PyDict_Check(dict))
        return mg_malformed(up, "SETITEM on what is not a dict");
    if ((up->stack_len - base) % 2 != 0)
        return mg_malformed(up, "odd number of items for SETITEMS");
    if (raise_height(up, base - 1, base) < 0)
        return -1;
    for (size_t i = base; i < up->stack_len; i += 2) {
        PyObject *key = up->stack[i].obj;
        if (mg_probes_allow(up, dict, key) < 0 || PyDict_SetItem(dict, key, up->stack[i + 1].obj) < 0)
            return -1;
    }
    mg_up_drop_to(up, base);
    return 0;
}

/* For opcodes that add one item: the n values on top of the stack belong to it, and the
 * container is below them. */
static int need_container(mg_unpickler *up, size_t n, size_t *base)
{
    if (mg_up_need(up, n + 1) < 0)
        return -1;
    *base = up->stack_len - n;
    return 0;
}

int mg_read_append(mg_unpickler *up)
{
    size_t base;
    return need_container(up, 1, &base) < 0 ? -1 : append_from(up, base);
}

int mg_read_appends(mg_unpickler *up)
{
    size_t base;
    return mg_up_pop_mark(up, &base) < 0 ? -1 : append_from(up, base);
}

int mg_read_setitem(mg_unpickler *up)
{
    size_t base;
    return need_container(up, 2, &base) < 0 ? -1 : set_from(up, base);
}

int mg_read_setitems(mg_unpickler *up)
{
    size_t base;
    return mg_up_pop_mark(up, &base) < 0 ? -1 : set_from(up, base);
}

/* Puts the empty container beneath the items first. */
static int make_marked(mg_unpickler *up, PyObject *container, int (*fill)(mg_unpickler *up, size_t base))
{
    size_t base;
    if (container == NULL)
        return -1;
    if (mg_up_pop_mark(up, &base) < 0) {
        Py_DECREF(container);
        return -1;
    }
    if (mg_up_push(up, container, 1) < 0)
        return -1;
    mg_slot made = up->stack[up->stack_len - 1];
    memmove(&up->stack[base + 1], &up->stack[base], (up->stack_len - 1 - base) * sizeof *up->stack);
    up->stack[base] = made;
    return fill(up, base + 1);
}

int mg_read_list(mg_unpickler *up)
{
    return make_marked(up, PyList_New(0), append_from);
}

int mg_read_dict(mg_unpickler *up)
{
    return make_marked(up, PyDict_New(), set_from);
}
