#include "event_object.h"

#include "binding_event_kinds.h"
#include "counterpart.h"
#include "later.h"
#include "message_object.h"
#include "net/event_drop.h"
#include "net/router.h"
#include "net/stream.h"
#include "watch_object.h"

/* The Link a stream event speaks of, None when it is gone or there is none. New reference. */
static PyObject *link_or_none(mg_stream *s)
{
    PyObject *link = s ? mg_link_object(s) : NULL;
    return link ? link : Py_NewRef(Py_None);
}

static PyObject *entry_of(const mg_handler *h)
{
    PyObject *entry = mg_handler_owner(h) ? mg_later_obj(mg_handler_owner(h)) : Py_None;
    Py_INCREF(entry);
    return entry;
}

PyObject *mg_event_tuple(mg_state *st, const mg_event *ev)
{
    switch (ev->kind) {
    case MG_EV_IO: {
        PyObject *watch = mg_io_owner(ev->a);
        return watch ? Py_BuildValue("(iiN)", ev->kind, (int) ev->n, watch) : NULL;
    }
    case MG_EV_FRAME: {
        PyObject *entry = entry_of(ev->a);
        PyObject *router = PyTuple_Check(entry) ? PyTuple_GET_ITEM(entry, 0) : NULL;
        PyObject *msg = mg_message_from_frame(st, mg_frame_ref(ev->b), router);
        return Py_BuildValue("(iNNNO)", ev->kind, entry, msg, link_or_none(ev->c),
                             mg_handler_removed(ev->a) ? Py_True : Py_False);
    }
    case MG_EV_OBJECT:
        return Py_BuildValue("(iNOOO)", MG_EV_FRAME, entry_of(ev->a), (PyObject *) ev->b, Py_None,
                             mg_handler_removed(ev->a) ? Py_True : Py_False);
    case MG_EV_HOOK: {
        PyObject *msg = mg_message_from_frame(st, mg_frame_ref(ev->b), NULL);
        return Py_BuildValue("(iNN)", ev->kind, msg, link_or_none(ev->c));
    }
    case MG_EV_GONE: return Py_BuildValue("(iNK)", ev->kind, link_or_none(ev->a), (unsigned long long) ev->n);
    case MG_EV_BAD: {
        mg_stream *s = ev->a;
        PyObject *bytes = ev->b ? PyBytes_FromStringAndSize((char *) mg_buf_ptr(ev->b), (Py_ssize_t) mg_buf_len(ev->b))
                                : PyBytes_FromStringAndSize(NULL, 0);
        return Py_BuildValue("(iNsNI)", ev->kind, link_or_none(s), mg_strerror((mg_err) ev->n), bytes,
                             ev->n == MG_ETOOBIG ? mg_stream_refused_len(s) : 0);
    }
    case MG_EV_REFUSED: {
        const mg_refusal *r = ev->a;
        const unsigned long long a = r->numbers[0], b = r->numbers[1], c = r->numbers[2];
        return Py_BuildValue("(iiNNNK(KKK))", ev->kind, (int) r->reason, mg_hdr_tuple(&r->hdr), link_or_none(r->stream),
                             link_or_none(r->expected), (unsigned long long) r->lost, a, b, c);
    }
    case MG_EV_NOTIFY: {
        PyObject *owner = mg_latch_object(ev->a);
        return owner ? Py_BuildValue("(iN)", ev->kind, owner) : NULL;
    }
    case MG_EV_CALL: return Py_BuildValue("(i)", ev->kind);
    default: return NULL;
    }
}

void mg_event_drop(const mg_event *ev)
{
    switch (ev->kind) {
    case MG_EV_IO: mg_io_unref(ev->a); break;
    case MG_EV_OBJECT:
        mg_handler_unref(ev->a);
        Py_DECREF((PyObject *) ev->b);
        break;
    case MG_EV_NOTIFY: mg_latch_unref(ev->a); break;
    case MG_EV_KEEP: Py_DECREF((PyObject *) ev->b); break;
    default: mg_net_event_drop(ev);
    }
}
