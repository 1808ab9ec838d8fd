#include "router_object.h"

#include <structmember.h>

#include "arguments.h"
#include "binding_event_kinds.h"
#include "codec/limits.h"
#include "counterpart.h"
#include "errors.h"
#include "fields.h"
#include "gil.h"
#include "items.h"
#include "later.h"
#include "link_object.h"
#include "loop/atfork.h"
#include "loop_object.h"
#include "message_object.h"
#include "net/router.h"
#include "router_handlers.h"
#include "router_tables.h"
#include "waiting.h"

static PyObject *router_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) args, (void) kwargs;
    mg_state *st = mg_state_of_type(type);
    if (!st || mg_need_configured(st))
        return NULL;
    RouterObject *self = (RouterObject *) type->tp_alloc(type, 0);
    if (self)
        self->st = st;
    return (PyObject *) self;
}

static int router_traverse(PyObject *obj, visitproc visit, void *arg)
{
    RouterObject *self = (RouterObject *) obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->losses);
    Py_VISIT(self->loop_object);
    Py_VISIT(self->dict);
    return 0;
}

static int router_clear(PyObject *obj)
{
    RouterObject *self = (RouterObject *) obj;
    Py_CLEAR(self->losses);
    Py_CLEAR(self->dict);
    return 0;
}

static void router_dealloc(PyObject *obj)
{
    RouterObject *self = (RouterObject *) obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(obj);
    mg_router_unref(self->router);
    router_clear(obj);
    Py_CLEAR(self->loop_object);
    mg_run_later();
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *router_open(PyObject *obj, PyObject *loop)
{
    RouterObject *self = (RouterObject *) obj;
    if (mg_need_type(loop, self->st->Loop, "a Loop"))
        return NULL;
    int is_open;
    Py_BEGIN_CRITICAL_SECTION(obj);
    if (!self->router && !self->loop_object) {
        self->router = mg_router_new(((LoopObject *) loop)->loop);
        if (self->router)
            self->loop_object = Py_NewRef(loop);
    }
    is_open = self->router != NULL;
    Py_END_CRITICAL_SECTION();
    return is_open ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

/* --- settings --- */

static PyObject *router_set_identity(PyObject *obj, PyObject *args)
{
    mg_router *r = mg_need_router(obj);
    mg_id_arg own_id = {"own_id", 0};
    uint32_t parent = 0;
    PyObject *parent_id, *parent_ids;
    if (!r || !PyArg_ParseTuple(args, "O&OO:_set_identity", mg_id_converter, &own_id, &parent_id, &parent_ids) ||
        (parent_id != Py_None && mg_parse_id(parent_id, "parent_id", &parent)))
        return NULL;
    PyObject *seq = PySequence_Tuple(parent_ids); /* which no thread changes meanwhile */
    if (!seq)
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(seq);
    uint32_t *ids = PyMem_Calloc((size_t) n + 1, sizeof *ids);
    int bad = 0;
    for (Py_ssize_t i = 0; ids && !bad && i < n; i++)
        bad = mg_parse_id(PyTuple_GET_ITEM(seq, i), "parent_ids", &ids[i]);
    Py_DECREF(seq);
    mg_err err = MG_ENOMEM;
    if (ids && !bad)
        err = mg_router_set_identity(r, own_id.value, parent_id == Py_None ? -1 : (int64_t) parent, ids, (size_t) n);
    PyMem_Free(ids);
    return bad ? NULL : mg_none_or_raise(((RouterObject *) obj)->st, err);
}

static PyObject *router_set_unidirectional(PyObject *obj, PyObject *value)
{
    mg_router *r = mg_need_router(obj);
    int on = PyObject_IsTrue(value);
    if (!r || on < 0)
        return NULL;
    mg_router_set_unidirectional(r, on);
    Py_RETURN_NONE;
}

static PyObject *router_set_text(PyObject *obj, PyObject *args)
{
    mg_router *r = mg_need_router(obj);
    int reason;
    const char *text;
    if (!r || !PyArg_ParseTuple(args, "is:_set_text", &reason, &text))
        return NULL;
    if (reason < 0 || reason >= MG_N_REASONS)
        return PyErr_Format(PyExc_ValueError, "no such reason: %d", reason);
    if (mg_router_set_text(r, (mg_reason) reason, text) != MG_OK)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *router_set_limits(PyObject *obj, PyObject *args)
{
    mg_router *r = mg_need_router(obj);
    unsigned long long max_size, high_water;
    if (!r || !PyArg_ParseTuple(args, "KK:_set_limits", &max_size, &high_water))
        return NULL;
    mg_router_set_limits(r, max_size, (size_t) high_water);
    Py_RETURN_NONE;
}

/* --- routes --- */

static PyObject *router_put_route(PyObject *obj, PyObject *args)
{
    mg_router *r = mg_need_router(obj);
    mg_id_arg id = {"context_id", 0};
    LinkObject *link;
    if (!r || !PyArg_ParseTuple(args, "O&O!:_put_route", mg_id_converter, &id, ((RouterObject *) obj)->st->Link, &link))
        return NULL;
    if (!link->stream) {
        PyErr_SetString(PyExc_ValueError, "the stream has not been given descriptors yet");
        return NULL;
    }
    return mg_none_or_raise(link->st, mg_router_put_route(r, id.value, link->stream));
}

static PyObject *router_del_route(PyObject *obj, PyObject *arg)
{
    mg_router *r = mg_need_router(obj);
    uint32_t id;
    int found = r ? mg_find_id(arg, &id) : -1;
    return found < 0 ? NULL : PyBool_FromLong(found && mg_router_del_route(r, id));
}

static PyObject *router_get_route(PyObject *obj, PyObject *args)
{
    mg_router *r = mg_need_router(obj);
    PyObject *arg;
    uint32_t id = 0;
    int with_parent, found = -1;
    if (r && PyArg_ParseTuple(args, "Op:_get_route", &arg, &with_parent))
        found = mg_find_id(arg, &id);
    if (found < 0)
        return NULL;
    mg_stream *s = found ? mg_router_get_route(r, id, with_parent) : with_parent ? mg_router_get_parent(r) : NULL;
    PyObject *link = s ? mg_link_object(s) : NULL;
    mg_stream_unref(s);
    return link ? link : Py_NewRef(Py_None);
}

static int add_route(uint32_t id, void *stream, void *dict)
{
    PyObject *link = mg_link_object(stream);
    return link ? mg_set_entry(dict, id, link) : 0;
}

/* _routes() -> {context id: Link} */
static PyObject *router_routes(PyObject *obj, PyObject *unused)
{
    (void) unused;
    return mg_table_dict(obj, MG_ROUTES, add_route);
}

/* _stats() -> dict */
static PyObject *router_stats(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_router *r = mg_need_router(obj);
    mg_router_stats stats;
    if (!r)
        return NULL;
    mg_err err = mg_router_get_stats(r, &stats);
    if (err != MG_OK)
        return mg_raise(((RouterObject *) obj)->st, err);
    unsigned long long refused = 0;
    for (int i = 0; i < MG_N_REASONS; i++)
        refused += stats.refused[i];
    return Py_BuildValue(
        "{sKsKsKsKsKsKsnsnsnsnsn}", "messages_in", (unsigned long long) stats.carried.frames_in, "bytes_in",
        (unsigned long long) stats.carried.bytes_in, "messages_out", (unsigned long long) stats.carried.frames_out,
        "bytes_out", (unsigned long long) stats.carried.bytes_out, "forwarded",
        (unsigned long long) stats.carried.frames_forwarded, "refused", refused, "streams", (Py_ssize_t) stats.streams,
        "routes", (Py_ssize_t) stats.routes, "handlers", (Py_ssize_t) stats.handlers, "queued_bytes",
        (Py_ssize_t) stats.queued, "blocked_senders", (Py_ssize_t) stats.blocked);
}

/* --- the way of a message --- */

static int is_brokers_thread(RouterObject *self)
{
    return ((LoopObject *) self->loop_object)->attendant == PyThread_get_thread_ident();
}

/* Whether this thread is one of router._unwaiting, or -1. */
static int is_unwaiting(RouterObject *self)
{
    PyObject *threads = PyObject_GetAttr((PyObject *) self, self->st->str_unwaiting);
    PyObject *ident = threads ? PyLong_FromUnsignedLong(PyThread_get_thread_ident()) : NULL;
    int is = ident ? PySequence_Contains(threads, ident) : -1;
    Py_XDECREF(ident);
    Py_XDECREF(threads);
    return is;
}

/* A thread that fills a stream faster than it empties waits here, without the GIL. The broker's
 * thread never waits, nor does a thread that has other callers to serve. */
static int wait_room(RouterObject *self, mg_stream *out)
{
    int exempt = is_brokers_thread(self) ? 1 : is_unwaiting(self);
    if (exempt)
        return exempt < 0 ? -1 : 0;
    for (;;) {
        mg_err err;
        MG_WITHOUT_GIL(err = mg_stream_wait_room(out));
        if (err == MG_OK)
            return 0;
        if (PyErr_CheckSignals())
            return -1;
    }
}

/* None for a message that was sent, and for one whose sender was told that it was not. Only a lack
 * of memory is an exception. */
static PyObject *answered(RouterObject *self, mg_err err)
{
    return mg_none_or_raise(self->st, err == MG_ENOMEM ? err : MG_OK);
}

/* Into the queue of a receiver here. */
static mg_err push_here(mg_router *r, mg_latch *queue, MessageObject *m, const mg_hdr *hdr)
{
    mg_item item = {Py_NewRef(m), MG_ITEM_OBJECT, mg_frame_counts(hdr)};
    mg_err err = mg_push_item(queue, item, NULL);
    if (err == MG_OK)
        return err;
    Py_DECREF(m);
    if (err == MG_EFULL)
        err = mg_router_overflow(r, queue, hdr, NULL);
    else if (err == MG_ECLOSED)
        err = mg_router_dead(r, hdr, MG_REASON_INVALID_HANDLE, 1, NULL, 0, 0, 0);
    return err;
}

/* Delivers a message to a function of this process: at once on the broker's thread, on any other
 * by an event for that thread. Takes over the reference to h. */
static PyObject *call_here(RouterObject *self, mg_handler *h, MessageObject *m)
{
    if (is_brokers_thread(self)) {
        PyObject *entry = Py_NewRef(mg_later_obj(mg_handler_owner(h)));
        mg_handler_unref(h);
        PyObject *result =
            PyObject_CallMethodObjArgs((PyObject *) self, self->st->str_deliver, entry, (PyObject *) m, Py_None, NULL);
        Py_DECREF(entry);
        return result;
    }
    mg_event ev = {.kind = MG_EV_OBJECT, .a = h, .b = Py_NewRef(m)};
    mg_err err = mg_loop_push_event(mg_router_loop(self->router), &ev);
    if (err != MG_OK) {
        mg_handler_unref(h);
        Py_DECREF(m);
    }
    return mg_none_or_raise(self->st, err);
}

/* The same object goes to a handler of this process; nothing is serialised. */
static PyObject *route_here(RouterObject *self, MessageObject *m, const mg_hdr *hdr)
{
    mg_handler *h;
    mg_reason why;
    if (mg_router_claim(self->router, hdr, &h, &why) != MG_OK)
        return answered(self, mg_router_dead(self->router, hdr, why, 1, NULL, 0, 0, 0));
    mg_latch *queue = mg_handler_latch(h, hdr->len);
    if (!queue)
        return call_here(self, h, m);
    mg_err err = push_here(self->router, queue, m, hdr);
    mg_handler_unref(h);
    return answered(self, err);
}

static mg_err route_through_gate(mg_router *r, mg_frame *f, mg_stream **out)
{
    mg_fork_enter();
    mg_err err = mg_router_route(r, f, out);
    mg_fork_leave();
    return err;
}

/* To another context. */
static PyObject *route_away(RouterObject *self, MessageObject *m, const mg_hdr *hdr)
{
    mg_frame *f = mg_message_frame(m);
    mg_stream *out = NULL;
    mg_err err;
    if (!f)
        return NULL;
    if (hdr->len < MG_CODEC_BYREF) /* a short write, which does not block: cheaper than releasing the GIL */
        err = mg_router_route(self->router, f, &out);
    else {
        MG_WITHOUT_GIL(err = route_through_gate(self->router, f, &out));
        mg_run_later();
    }
    /* not for a log record: its sender holds a lock of `logging`, which the broker's thread may
     * want */
    int bad = out && hdr->handle != MG_FORWARD_LOG && mg_stream_full(out) && wait_room(self, out);
    mg_stream_unref(out);
    return bad ? NULL : answered(self, err);
}

static PyObject *router_route(PyObject *obj, PyObject *arg)
{
    RouterObject *self = (RouterObject *) obj;
    MessageObject *m = (MessageObject *) arg;
    mg_router *r = mg_need_router(obj);
    mg_hdr hdr;
    if (!r || mg_need_type(arg, self->st->Message, "a Message"))
        return NULL;
    if (mg_loop_closed(mg_router_loop(r)))
        return mg_raise_shut_down(self->st);
    if (mg_message_hdr(m, &hdr))
        return NULL;
    uint64_t max_size = mg_router_max_size(r);
    if ((uint64_t) mg_message_size(m) > max_size)
        return answered(self, mg_router_dead(r, &hdr, MG_REASON_TOO_LARGE, 0, NULL, max_size, 0, 0));
    if (!mg_message_is_addressed(m))
        return answered(self, mg_router_dead(r, &hdr, MG_REASON_INVALID_HANDLE, 1, NULL, 0, 0, 0));
    return hdr.dst_id == mg_router_own_id(r) ? route_here(self, m, &hdr) : route_away(self, m, &hdr);
}

static PyObject *router_route_named(PyObject *obj, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *arg = mg_one_arg("route", "msg", args, n, names);
    return arg ? router_route(obj, arg) : NULL;
}

static PyMethodDef router_methods[] = {
    {"_open", router_open, METH_O, "_open(loop): once, before anything else."},
    {"_set_identity", router_set_identity, METH_VARARGS, "_set_identity(own_id, parent_id, parent_ids)"},
    {"_set_unidirectional", router_set_unidirectional, METH_O, "_set_unidirectional(flag)"},
    {"_set_text", router_set_text, METH_VARARGS, "_set_text(reason, text)"},
    {"_set_limits", router_set_limits, METH_VARARGS, "_set_limits(max_message_size, high_water), bytes"},
    {"_put_route", router_put_route, METH_VARARGS, "_put_route(context_id, link)"},
    {"_del_route", router_del_route, METH_O, "_del_route(context_id) -> whether there was one"},
    {"_get_route", router_get_route, METH_VARARGS, "_get_route(context_id, or_parent) -> Link or None"},
    {"_routes", router_routes, METH_NOARGS, "_routes() -> {context_id: Link}"},
    {"_stats", router_stats, METH_NOARGS, "_stats() -> counters of all streams, a dict."},
    {"add_handler", (PyCFunction) (void (*)(void)) mg_handlers_add, METH_VARARGS | METH_KEYWORDS,
     "add_handler($self, /, fn, handle=None, persist=True, "
     /* Signature and defaults: inspect.signature() has to tell the same of both cores. */
     "policy=None, respondent=None, overwrite=False)\n--\n\n"
     "Return the handle. fn(message) is called on the broker's thread. Error when the handle is\n"
     "taken. Any thread."},
    {"del_handler", (PyCFunction) (void (*)(void)) mg_handlers_del, METH_FASTCALL | METH_KEYWORDS,
     "del_handler($self, /, handle)\n--\n\nRemove a handler. KeyError. Any thread."},
    {"_take_handlers", mg_handlers_take, METH_O, "_take_handlers(respondent_id or None) -> [(handle, entry)], removed"},
    {"route", (PyCFunction) (void (*)(void)) router_route_named, METH_FASTCALL | METH_KEYWORDS,
     "route($self, /, msg)\n--\n\nSend it on its way. Any thread. Error after the broker's end."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef router_members[] = {
    {"_loop", T_OBJECT, offsetof(RouterObject, loop_object), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(RouterObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RouterObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef router_getset[] = {
    MG_FIELD_AS("_losses_mark", RouterObject, losses, "Another object after each loss of a context."),
    {"_handle_map", mg_handlers_map, NULL, "A copy: {handle: entry}.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot router_slots[] = {{Py_tp_new, router_new},
                                     {Py_tp_dealloc, router_dealloc},
                                     {Py_tp_traverse, router_traverse},
                                     {Py_tp_clear, router_clear},
                                     {Py_tp_methods, router_methods},
                                     {Py_tp_members, router_members},
                                     {Py_tp_getset, router_getset},
                                     {Py_tp_doc, "Routes, handles, and the rules of trust."},
                                     {0, NULL}};
PyType_Spec mg_router_spec = {"_mitogen_core.Router", sizeof(RouterObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, router_slots};
