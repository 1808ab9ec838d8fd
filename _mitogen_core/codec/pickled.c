#include "codec/pickled.h"

void mg_pickled_init(mg_pickled *out)
{
    out->segs = out->segs_inline;
    out->nsegs = 0;
    out->total = 0;
    out->is_special = 0;
    out->head = out->head_inline;
    out->head_len = 0;
    out->head_cap = sizeof out->head_inline;
    out->run_start = 0;
    out->segs_cap = sizeof out->segs_inline / sizeof out->segs_inline[0];
}

void mg_out_reset(mg_pickled *out)
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
    mg_out_reset(out);
    if (out->segs != out->segs_inline)
        PyMem_Free(out->segs);
    if (out->head != out->head_inline)
        PyMem_Free(out->head);
    mg_pickled_init(out);
}

int mg_out_grow(mg_pickled *out, size_t n)
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

int mg_out_add_seg(mg_pickled *out, const uint8_t *ptr, size_t len, PyObject *owner)
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

/* Ends the run of head bytes since the last seg. Its address is filled in by mg_out_finish():
 * the head may still move. */
static int out_end_run(mg_pickled *out)
{
    size_t len = out->head_len - out->run_start;
    out->run_start = out->head_len;
    return mg_out_add_seg(out, NULL, len, NULL);
}

int mg_out_refer(mg_pickled *out, const void *ptr, size_t len, PyObject *owner)
{
    if (out_end_run(out) < 0)
        return -1;
    Py_INCREF(owner);
    return mg_out_add_seg(out, ptr, len, owner);
}

int mg_out_finish(mg_pickled *out)
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

int mg_pickled_traverse(const mg_pickled *out, visitproc visit, void *arg)
{
    for (size_t i = 0; i < out->nsegs; i++)
        Py_VISIT(out->segs[i].owner);
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
