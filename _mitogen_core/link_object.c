#include "link_object.h"

#include <errno.h>
#include <structmember.h>

#include "arguments.h"
#include "counterpart.h"
#include "errors.h"
#include "fields.h"
#include "gil.h"
#include "later.h"
#include "loop/atfork.h"
#include "message_object.h"

static PyObject *link_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"router", "remote_id", "protocol", NULL};
    mg_state *st = mg_state_of_type(type);
    PyObject *router, *protocol;
    mg_id_arg remote_id = {"remote_id", 0};
    if (!st || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&O:Link", names, st->Router, &router, mg_id_converter,
                                            &remote_id, &protocol))
        return NULL;
    mg_router *r = mg_router_behind(st, router);
    if (!r) {
        PyErr_SetString(PyExc_TypeError, "Link: the router's __init__() has not run");
        return NULL;
    }
    LinkObject *self = (LinkObject *) type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = st;
    self->router = mg_router_ref(r);
    self->protocol = Py_NewRef(protocol);
    self->remote_id = remote_id.value;
    self->auth_stamp = -1;
    return (PyObject *) self;
}

static int link_traverse(PyObject *obj, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(((LinkObject *) obj)->protocol);
    return 0;
}

static int link_clear(PyObject *obj)
{
    Py_CLEAR(((LinkObject *) obj)->protocol);
    return 0;
}

/* --- what mg_with_loop calls --- */

typedef struct {
    mg_stream *stream;
    mg_err err;
    int sys_errno; /* of the thread that started it, for MG_EIO */
} starting;

static void start_stream(void *arg)
{
    starting *x = arg;
    x->err = mg_stream_start(x->stream);
    x->sys_errno = errno;
    mg_loop_settle(mg_stream_loop(x->stream));
}

static void stop_stream(void *stream)
{
    mg_stream_stop(stream);
}

static void end_stream(void *stream)
{
    mg_stream_close(stream);
}

typedef struct {
    mg_stream *stream;
    const void *ptr;
    size_t len;
} fed;

static void feed_stream(void *arg)
{
    const fed *x = arg;
    mg_stream_feed(x->stream, x->ptr, x->len);
}

typedef struct {
    mg_router *router;
    mg_frame *frame; /* whose reference is taken over */
    mg_stream *stream;
    int holds; /* out, of route_after_hook */
} routed;

static void route_as_read(void *arg)
{
    const routed *x = arg;
    mg_router_feed(x->router, x->frame, x->stream);
}

static void route_after_hook(void *arg)
{
    routed *x = arg;
    x->holds = mg_router_after_hook(x->router, x->frame, x->stream);
}

/* --- the type --- */

static void close_stream(LinkObject *self)
{
    mg_stream *s = self->stream;
    mg_lifeline_end(atomic_exchange(&self->lifeline, NULL));
    if (!s)
        return;
    mg_with_loop(mg_stream_loop(s), end_stream, s);
}

static void disown(mg_stream *s)
{
    mg_lock *lock = mg_owner_lock(s);
    MG_LOCK(lock);
    mg_stream_set_owner(s, NULL);
    MG_UNLOCK(lock);
}

static void link_dealloc(PyObject *obj)
{
    LinkObject *self = (LinkObject *) obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->stream)
        disown(self->stream);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(obj);
    if (self->stream) {
        mg_lifeline_end(self->lifeline);
        mg_stream_give_up(self->stream); /* does not wait: a dealloc may run anywhere, with any lock held */
        mg_stream_unref(self->stream);
    }
    mg_router_unref(self->router);
    link_clear(obj);
    mg_run_later();
    type->tp_free(obj);
    Py_DECREF(type);
}

/* REQUIRES(self). */
static void apply(LinkObject *self)
{
    if (!self->stream)
        return;
    mg_stream_set_remote_id(self->stream, self->remote_id);
    mg_stream_set_auth_stamp(self->stream, self->auth_stamp);
    mg_stream_set_privileged(self->stream, self->privileged);
    mg_stream_set_hooked(self->stream, self->hooked);
}

/* REQUIRES(self). Whether there is memory for it. */
static int open_stream(LinkObject *self, int rfd, int wfd)
{
    mg_stream *s = mg_router_new_stream(self->router, self->remote_id, rfd, wfd);
    if (!s)
        return 0;
    mg_owner_begin((PyObject *) self);
    mg_stream_set_owner(s, self);
    self->stream = s;
    apply(self);
    return 1;
}

static PyObject *link_open(PyObject *obj, PyObject *args)
{
    LinkObject *self = (LinkObject *) obj;
    int rfd, wfd;
    if (!PyArg_ParseTuple(args, "ii:open", &rfd, &wfd))
        return NULL;
    int is_open;
    Py_BEGIN_CRITICAL_SECTION(obj);
    is_open = self->stream || open_stream(self, rfd, wfd);
    Py_END_CRITICAL_SECTION();
    return is_open ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

static mg_stream *need_stream(LinkObject *self)
{
    if (!self->stream)
        PyErr_SetString(PyExc_ValueError, "the stream has not been given descriptors yet");
    return self->stream;
}

static PyObject *link_start(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_stream *s = need_stream((LinkObject *) obj);
    if (!s)
        return NULL;
    starting x = {.stream = s};
    mg_with_loop(mg_stream_loop(s), start_stream, &x);
    if (x.err == MG_EIO) {
        errno = x.sys_errno;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *link_stop(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_stream *s = ((LinkObject *) obj)->stream;
    if (s)
        mg_with_loop(mg_stream_loop(s), stop_stream, s);
    Py_RETURN_NONE;
}

static PyObject *link_close(PyObject *obj, PyObject *unused)
{
    (void) unused;
    close_stream((LinkObject *) obj);
    mg_run_later();
    Py_RETURN_NONE;
}

static PyObject *link_end_with(PyObject *obj, PyObject *grace)
{
    LinkObject *self = (LinkObject *) obj;
    mg_stream *s = need_stream(self);
    double seconds = s ? PyFloat_AsDouble(grace) : -1.0;
    if (!s || (seconds == -1.0 && PyErr_Occurred()))
        return NULL;
    if (self->lifeline)
        Py_RETURN_TRUE;
    mg_lifeline *none = NULL;
    mg_lifeline *line = mg_lifeline_start(mg_stream_loop(s), mg_stream_read_fd(s), (int64_t) (seconds * 1e9));
    if (line && !atomic_compare_exchange_strong(&self->lifeline, &none, line))
        mg_lifeline_end(line); /* another thread was quicker */
    return PyBool_FromLong(line != NULL);
}

static PyObject *link_feed(PyObject *obj, PyObject *bytes)
{
    mg_stream *s = need_stream((LinkObject *) obj);
    Py_buffer view;
    if (!s || PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE))
        return NULL;
    fed x = {s, view.buf, (size_t) view.len};
    mg_with_loop(mg_stream_loop(s), feed_stream, &x);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static mg_frame *frame_of(LinkObject *self, PyObject *msg)
{
    return mg_need_type(msg, self->st->Message, "a Message") ? NULL : mg_message_frame((MessageObject *) msg);
}

static void send_through_gate(mg_stream *s, mg_frame *f)
{
    mg_fork_enter();
    mg_stream_send(s, f);
    mg_fork_leave();
}

static PyObject *link_send(PyObject *obj, PyObject *msg)
{
    LinkObject *self = (LinkObject *) obj;
    mg_stream *s = need_stream(self);
    mg_frame *f = s ? frame_of(self, msg) : NULL;
    if (!f)
        return NULL;
    MG_WITHOUT_GIL(send_through_gate(s, f));
    mg_run_later();
    Py_RETURN_NONE;
}

/* ingress(msg): treat a message as if it had been read from this link. */
static PyObject *link_ingress(PyObject *obj, PyObject *msg)
{
    LinkObject *self = (LinkObject *) obj;
    mg_stream *s = need_stream(self);
    mg_frame *f = s ? frame_of(self, msg) : NULL;
    if (!f)
        return NULL;
    uint64_t max = mg_router_max_size(self->router);
    if (mg_frame_len(f) > max) {
        /* this frame was made here, so its size was not checked as that of a frame that is read */
        mg_router_dead(self->router, mg_frame_hdr(f), MG_REASON_TOO_LARGE, 0, NULL, max, 0, 0);
        mg_frame_unref(f);
        Py_RETURN_NONE;
    }
    routed x = {self->router, f, s, 0};
    mg_with_loop(mg_stream_loop(s), route_as_read, &x);
    Py_RETURN_NONE;
}

static PyObject *link_after_hook(PyObject *obj, PyObject *msg)
{
    LinkObject *self = (LinkObject *) obj;
    mg_stream *s = need_stream(self);
    mg_frame *f = s ? frame_of(self, msg) : NULL;
    if (!f)
        return NULL;
    routed x = {self->router, f, s, 0};
    mg_with_loop(mg_stream_loop(s), route_after_hook, &x);
    return PyBool_FromLong(x.holds);
}

static PyObject *link_release(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_stream *s = ((LinkObject *) obj)->stream;
    if (s)
        mg_stream_go_on(s);
    Py_RETURN_NONE;
}

static PyObject *link_pending(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_stream *s = ((LinkObject *) obj)->stream;
    return PyLong_FromSize_t(s ? mg_stream_pending(s) : 0);
}

static int add_id(uint32_t id, void *stream, void *set)
{
    (void) stream;
    PyObject *number = PyLong_FromUnsignedLong(id);
    int failed = !number || PySet_Add(set, number);
    Py_XDECREF(number);
    return failed;
}

static PyObject *link_egress(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LinkObject *self = (LinkObject *) obj;
    PyObject *set = PySet_New(NULL);
    mg_err err = set && self->stream ? mg_router_snapshot(self->router, MG_EGRESS, self->stream, add_id, set) : MG_OK;
    if (err != MG_OK)
        mg_raise(self->st, err);
    if (PyErr_Occurred())
        Py_CLEAR(set);
    return set;
}

static PyObject *link_stats(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_stream *s = ((LinkObject *) obj)->stream;
    if (!s)
        return PyDict_New();
    mg_stream_stats stats;
    mg_stream_get_stats(s, &stats);
    PyObject *last_in = mg_age(stats.last_in), *last_out = mg_age(stats.last_out);
    if (!last_in || !last_out) {
        Py_XDECREF(last_in);
        Py_XDECREF(last_out);
        return NULL;
    }
    const mg_counts *carried = &stats.carried;
    return Py_BuildValue("{sKsKsKsKsKsnsIsNsN}", "frames_in", (unsigned long long) carried->frames_in, "bytes_in",
                         (unsigned long long) carried->bytes_in, "frames_out", (unsigned long long) carried->frames_out,
                         "bytes_out", (unsigned long long) carried->bytes_out, "frames_forwarded",
                         (unsigned long long) carried->frames_forwarded, "pending", (Py_ssize_t) stats.pending,
                         "blocked", (unsigned int) stats.blocked, "last_in", last_in, "last_out", last_out);
}

/* --- attributes --- */

static PyObject *get_remote_id(PyObject *obj, void *closure)
{
    (void) closure;
    uint32_t id;
    Py_BEGIN_CRITICAL_SECTION(obj);
    id = ((LinkObject *) obj)->remote_id;
    Py_END_CRITICAL_SECTION();
    return PyLong_FromUnsignedLong(id);
}

static int set_remote_id(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    uint32_t id = 0;
    if (value && mg_parse_id(value, "remote_id", &id))
        return -1;
    Py_BEGIN_CRITICAL_SECTION(obj);
    ((LinkObject *) obj)->remote_id = id;
    apply((LinkObject *) obj);
    Py_END_CRITICAL_SECTION();
    return 0;
}

static PyObject *get_auth_id(PyObject *obj, void *closure)
{
    (void) closure;
    int64_t stamp;
    Py_BEGIN_CRITICAL_SECTION(obj);
    stamp = ((LinkObject *) obj)->auth_stamp;
    Py_END_CRITICAL_SECTION();
    if (stamp < 0)
        Py_RETURN_NONE;
    return PyLong_FromLongLong(stamp);
}

static int set_auth_id(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    int64_t stamp = -1;
    if (value && value != Py_None) {
        uint32_t id;
        if (mg_parse_id(value, "auth_id", &id))
            return -1;
        stamp = (int64_t) id;
    }
    Py_BEGIN_CRITICAL_SECTION(obj);
    ((LinkObject *) obj)->auth_stamp = stamp;
    apply((LinkObject *) obj);
    Py_END_CRITICAL_SECTION();
    return 0;
}

static PyObject *get_flag(PyObject *obj, void *closure)
{
    LinkObject *self = (LinkObject *) obj;
    int on;
    Py_BEGIN_CRITICAL_SECTION(obj);
    on = closure ? self->hooked : self->privileged;
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(on);
}

static int set_flag(PyObject *obj, PyObject *value, void *closure)
{
    LinkObject *self = (LinkObject *) obj;
    int on = value ? PyObject_IsTrue(value) : 0;
    if (on < 0)
        return -1;
    Py_BEGIN_CRITICAL_SECTION(obj);
    *(closure ? &self->hooked : &self->privileged) = on;
    apply(self);
    Py_END_CRITICAL_SECTION();
    return 0;
}

static PyMethodDef link_methods[] = {
    {"open", link_open, METH_VARARGS, "open(rfd, wfd): the descriptors, non-blocking. From now on it can send."},
    {"start", link_start, METH_NOARGS, "Begin to read. OSError of a number that is no descriptor."},
    {"stop", link_stop, METH_NOARGS, "End reading, for now."},
    {"close", link_close, METH_NOARGS, "End for good; afterwards the descriptors may be closed. Idempotent."},
    {"end_with", link_end_with, METH_O,
     "end_with(grace) -> whether that is possible: end this process when the other side is gone and the broker's "
     "thread\n"
     "has not run for so many seconds."},
    {"feed", link_feed, METH_O, "feed(bytes): treat bytes as if they had been read."},
    {"send", link_send, METH_O, "send(message): write or queue it, whatever its dst_id."},
    {"ingress", link_ingress, METH_O, "ingress(message): treat a message as if it had been read."},
    {"after_hook", link_after_hook, METH_O,
     "after_hook(message) -> whether a handler releases: go on routing what on_message has seen."},
    {"release", link_release, METH_NOARGS, "The frame that held the stream is done with."},
    {"pending", link_pending, METH_NOARGS, "Bytes that wait to be written."},
    {"egress", link_egress, METH_NOARGS, "The set of dst_ids that came in."},
    {"stats", link_stats, METH_NOARGS, "Counters, a dict."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef link_getset[] = {
    MG_FIELD(LinkObject, protocol, "The MitogenProtocol."),
    {"remote_id", get_remote_id, set_remote_id, "The neighbour's context id.", NULL},
    {"auth_id", get_auth_id, set_auth_id, "None, or what all that comes in is stamped with.", NULL},
    {"privileged", get_flag, set_flag, "Exempt from unidirectional mode.", NULL},
    {"hooked", get_flag, set_flag, "Each frame is shown to on_message first.", "h"},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMemberDef link_members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(LinkObject, weakrefs), READONLY, NULL},
                                     {NULL, 0, 0, 0, NULL}};

static PyType_Slot link_slots[] = {{Py_tp_new, link_new},
                                   {Py_tp_dealloc, link_dealloc},
                                   {Py_tp_traverse, link_traverse},
                                   {Py_tp_clear, link_clear},
                                   {Py_tp_methods, link_methods},
                                   {Py_tp_getset, link_getset},
                                   {Py_tp_members, link_members},
                                   {Py_tp_doc, "A stream of frames to a neighbouring context."},
                                   {0, NULL}};
PyType_Spec mg_link_spec = {"_mitogen_core.Link", sizeof(LinkObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                            link_slots};
