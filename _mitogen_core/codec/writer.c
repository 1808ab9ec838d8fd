#include "codec/writer.h"

#include "codec/depth.h"
#include "wire/opcode.h"

#include <string.h>

void mg_writer_init(mg_writer *w, mg_codec *codec, mg_pickled *out)
{
    memset(w, 0, sizeof *w);
    w->codec = codec;
    w->out = out;
    w->memo = w->memo_inline;
    w->memo_mask = MG_MEMO_INLINE - 1;
}

static int memo_grow(mg_writer *w)
{
    size_t old_size = w->memo_mask + 1;
    size_t size = 4 * old_size;
    mg_memo_entry *old = w->memo;
    mg_memo_entry *table = PyMem_Calloc(size, sizeof *table);
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    w->memo = table;
    w->memo_mask = size - 1;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].obj != NULL)
            *mg_memo_find(w, old[i].obj) = old[i];
    }
    if (old != w->memo_inline)
        PyMem_Free(old);
    return 0;
}

void mg_writer_fini(mg_writer *w)
{
    if (w->memo == w->memo_inline) {
        for (size_t i = 0; i < w->memo_used; i++)
            Py_DECREF(w->memo_inline[w->places[i]].obj);
        return;
    }
    for (size_t i = 0; i <= w->memo_mask; i++)
        Py_XDECREF(w->memo[i].obj);
    PyMem_Free(w->memo);
}

int mg_write_get(mg_writer *w, uint32_t index)
{
    if (index > 0xff)
        return mg_put_op_u32(w->out, OP_LONG_BINGET, index);
    return mg_put_bytes(w->out, (uint8_t[]) {OP_BINGET, (uint8_t) index}, 2);
}

static int write_put(mg_writer *w)
{
    uint32_t index = w->next_index++;
    if (index > 0xff)
        return mg_put_op_u32(w->out, OP_LONG_BINPUT, index);
    return mg_put_bytes(w->out, (uint8_t[]) {OP_BINPUT, (uint8_t) index}, 2);
}

int mg_memo_put(mg_writer *w, PyObject *obj)
{
    if (2 * (w->memo_used + 1) > w->memo_mask + 1 && memo_grow(w) < 0)
        return -1;
    if (w->next_index == UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "too many objects for one message");
        return -1;
    }
    mg_memo_entry *entry = mg_memo_find(w, obj);
    Py_INCREF(obj);
    entry->obj = obj;
    entry->index = w->next_index;
    if (w->memo == w->memo_inline)
        w->places[w->memo_used] = (uint8_t) (entry - w->memo);
    w->memo_used++;
    return write_put(w);
}

int mg_enter(mg_writer *w, int levels)
{
    if (w->depth + levels > MG_CODEC_MAX_DEPTH) {
        PyErr_Format(PyExc_RecursionError, "cannot send containers nested more than %d deep", MG_CODEC_MAX_DEPTH);
        return -1;
    }
    if (w->depth > MG_CODEC_SHALLOW && !mg_depth_fits_stack((unsigned) levels)) {
        PyErr_SetString(PyExc_RecursionError, "cannot send containers nested so deep: this thread has little stack");
        return -1;
    }
    if (Py_EnterRecursiveCall(" while pickling an object"))
        return -1;
    w->depth += levels;
    return 0;
}

void mg_leave(mg_writer *w, int levels)
{
    w->depth -= levels;
    Py_LeaveRecursiveCall();
}

int mg_write_global(mg_writer *w, int global)
{
    if (w->globals[global] != 0)
        return mg_write_get(w, w->globals[global] - 1);
    size_t len;
    const char *text = mg_global_text(global, &len);
    if (mg_put_bytes(w->out, text, len) < 0)
        return -1;
    w->globals[global] = w->next_index + 1;
    return write_put(w);
}
