#include "payload.h"

#include <string.h>

#include "base/block.h"
#include "codec/limits.h"
#include "counterpart.h"
#include "later.h"
#include "loop/loop.h"
#include "net/router.h"
#include "wire/landing.h"

int mg_payload_clear(mg_payload *p)
{
    mg_payload old = *p;
    *p = (mg_payload) {0};
    int had_place = old.frame && mg_frame_hole(old.frame);
    mg_frame_unref(old.frame);
    if (old.pickled) {
        mg_pickled_fini(old.pickled);
        PyMem_Free(old.pickled);
    }
    Py_XDECREF(old.data);
    return had_place;
}

int mg_payload_traverse(const mg_payload *p, visitproc visit, void *arg)
{
    Py_VISIT(p->data); /* an instance of a subclass of bytes may refer to anything */
    return p->pickled ? mg_pickled_traverse(p->pickled, visit, arg) : 0;
}

Py_ssize_t mg_payload_size(const mg_payload *p)
{
    return p->data      ? PyBytes_GET_SIZE(p->data)
           : p->frame   ? (Py_ssize_t) mg_frame_len(p->frame)
           : p->pickled ? (Py_ssize_t) p->pickled->total
                        : 0;
}

int mg_payload_is_special(const mg_payload *p)
{
    return p->data || !p->pickled || p->pickled->is_special;
}

/* --- places for large bytes --- */

void mg_payload_came(mg_state *st, PyObject *router, size_t len)
{
    mg_router *r = len && router ? mg_router_behind(st, router) : NULL;
    mg_landing *l = r && !mg_loop_closed(mg_router_loop(r)) ? mg_loop_landing(mg_router_loop(r)) : NULL;
    if (!l || !mg_landing_came(l, len))
        return;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) len);
    if (bytes)
        mg_block_advise(PyBytes_AS_STRING(bytes), len);
    mg_later *later = bytes ? mg_later_new(bytes) : NULL;
    mg_buf *buf = later ? mg_buf_wrap(PyBytes_AS_STRING(bytes), len, mg_later_decref, later) : NULL;
    if (buf)
        mg_loop_offer_landing(mg_router_loop(r), buf);
    else {
        if (later)
            mg_later_decref(later);
        PyErr_Clear(); /* so it is copied */
    }
    Py_XDECREF(bytes);
}

/* Borrowed: the object that is in the hole of a frame. */
static PyObject *landed(const mg_frame *frame)
{
    return mg_later_obj(mg_buf_arg(mg_frame_hole(frame)));
}

/* --- as a bytes object --- */

static PyObject *frame_bytes(const mg_frame *frame)
{
    size_t len = mg_frame_len(frame);
    if (mg_frame_hole(frame) && mg_buf_len(mg_frame_hole(frame)) == len)
        return Py_NewRef(landed(frame));
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t) len);
    if (bytes) {
        mg_block_advise(PyBytes_AS_STRING(bytes), len);
        mg_frame_copy_payload(frame, PyBytes_AS_STRING(bytes));
    }
    return bytes;
}

PyObject *mg_payload_data(mg_state *st, mg_payload *p, PyObject *router)
{
    if (!p->data) {
        p->data = p->frame     ? frame_bytes(p->frame)
                  : p->pickled ? mg_pickled_bytes(p->pickled)
                               : Py_NewRef(st->empty_bytes);
        if (p->data && p->frame && mg_frame_hdr(p->frame)->enc == MG_ENC_BIN)
            mg_payload_came(st, router, mg_frame_len(p->frame));
    }
    return Py_XNewRef(p->data);
}

int mg_payload_look(mg_state *st, mg_payload *p, PyObject *router, int holes, mg_payload_view *view)
{
    const mg_frame *frame = p->data ? NULL : p->frame;
    *view = (mg_payload_view) {0};
    if (frame && mg_frame_hole(frame) && holes) {
        view->ptr = mg_frame_around_hole(frame);
        view->len = mg_frame_len(frame) - mg_buf_len(mg_frame_hole(frame));
        view->hole = landed(frame);
        view->hole_at = mg_frame_hole_at(frame);
    } else if (frame && mg_frame_payload(frame)) {
        view->ptr = mg_frame_payload(frame);
        view->len = mg_frame_len(frame);
    }
    if (view->ptr) {
        view->frame = mg_frame_ref(p->frame);
        return 0;
    }
    view->data = mg_payload_data(st, p, router);
    if (!view->data)
        return -1;
    view->ptr = (const uint8_t *) PyBytes_AS_STRING(view->data);
    view->len = (size_t) PyBytes_GET_SIZE(view->data);
    return 0;
}

void mg_payload_end_look(mg_payload_view *view)
{
    Py_XDECREF(view->data);
    mg_frame_unref(view->frame);
}

/* --- as a frame --- */

/* Makes one segment, with a reference to its buffer. A piece that is part of a Python object is
 * referred to, and any other is copied. */
static int segment(const mg_piece *piece, mg_seg *seg)
{
    mg_buf *buf;
    if (piece->owner) {
        mg_later *later = mg_later_new(piece->owner);
        buf = later ? mg_buf_wrap(piece->ptr, piece->len, mg_later_decref, later) : NULL;
        if (later && !buf)
            mg_later_decref(later);
    } else if ((buf = mg_buf_new(piece->len)) && piece->len)
        memcpy(mg_buf_ptr(buf), piece->ptr, piece->len);
    *seg = (mg_seg) {buf, 0, piece->len};
    return buf ? 0 : -1;
}

static mg_frame *segmented(const mg_hdr *hdr, const mg_piece *pieces, size_t n)
{
    mg_frame *frame = NULL;
    size_t made = 0;
    mg_seg *list = PyMem_Calloc(n, sizeof *list);
    if (!list)
        return (mg_frame *) PyErr_NoMemory();
    while (made < n && !segment(&pieces[made], &list[made]))
        made++;
    if (made == n)
        frame = mg_frame_new_segs(hdr, list, n);
    while (made)
        mg_buf_unref(list[--made].buf);
    PyMem_Free(list);
    if (!frame && !PyErr_Occurred())
        PyErr_NoMemory();
    return frame;
}

static mg_frame *inline_frame(const mg_hdr *hdr, const mg_piece *pieces, size_t n)
{
    mg_frame *frame = mg_frame_new(hdr, hdr->len);
    if (!frame)
        return (mg_frame *) PyErr_NoMemory();
    uint8_t *at = mg_frame_payload(frame);
    for (size_t i = 0; i < n; at += pieces[i++].len)
        if (pieces[i].len)
            memcpy(at, pieces[i].ptr, pieces[i].len);
    return frame;
}

static mg_frame *copied_frame(const mg_hdr *hdr, const mg_frame *old)
{
    mg_frame *frame = mg_frame_new(hdr, mg_frame_len(old));
    if (!frame)
        return (mg_frame *) PyErr_NoMemory();
    mg_frame_copy_payload(old, mg_frame_payload(frame));
    return frame;
}

mg_frame *mg_payload_frame(const mg_payload *p, const mg_hdr *hdr)
{
    if (p->frame && !p->data)
        return copied_frame(hdr, p->frame);
    mg_piece one = {0};
    const mg_piece *pieces = &one;
    size_t n = 1;
    if (p->data) {
        one = (mg_piece) {(const uint8_t *) PyBytes_AS_STRING(p->data), (size_t) PyBytes_GET_SIZE(p->data), p->data};
    } else if (p->pickled) {
        pieces = p->pickled->segs;
        n = p->pickled->nsegs;
    }
    return hdr->len >= MG_CODEC_BYREF ? segmented(hdr, pieces, n) : inline_frame(hdr, pieces, n);
}
