/* Loop: the engine's loop for the broker's thread; Watch: one descriptor that Python code wants to hear of. */
#include "binding.h"

void mg_acquire_loop(mg_loop *loop)
{
    if (mg_loop_try_acquire(loop))
        return;
    Py_BEGIN_ALLOW_THREADS mg_loop_acquire(loop);
    Py_END_ALLOW_THREADS
}

/* --- watched descriptors --- */

/* Engine side of a Watch. The loop's leader may be any thread, so it only posts an event and disarms itself; the broker's thread runs
 * the callback and arms it again. */
struct mg_io {
    _Atomic uint32_t refs;
    mg_loop *loop;
    mg_watch *watch;
    int events;
    _Atomic(void *) owner; /* WatchObject, borrowed; with the GIL */
};

typedef struct {
    PyObject_HEAD mg_state *st;
    mg_io *io;
    PyObject *data; /* strong */
} WatchObject;

void mg_io_unref(mg_io *io)
{
    if (atomic_fetch_sub(&io->refs, 1) != 1)
        return;
    mg_watch_free(io->watch);
    mg_loop_unref(io->loop);
    PyMem_RawFree(io);
}

static void on_ready(void *arg, int events)
{
    mg_io *io = arg;
    mg_watch_stop(io->watch);
    mg_loop_note_foreign(io->loop);
    atomic_fetch_add(&io->refs, 1);
    mg_event ev = {.kind = MG_EV_IO, .a = io, .n = (uint64_t) events};
    if (mg_loop_push_event(io->loop, &ev) != MG_OK) {
        mg_watch_start(io->watch); /* it is tried again, until there is memory for it */
        mg_io_unref(io);
    }
}

PyObject *mg_io_owner(mg_io *io)
{
    return mg_owner(atomic_load(&io->owner));
}

static int watch_traverse(PyObject *obj, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(((WatchObject *) obj)->data);
    return 0;
}

static int watch_clear(PyObject *obj)
{
    Py_CLEAR(((WatchObject *) obj)->data);
    return 0;
}

static void stop_watch(mg_io *io)
{
    mg_acquire_loop(io->loop);
    mg_watch_stop(io->watch);
    mg_loop_release(io->loop);
}

static void watch_dealloc(PyObject *obj)
{
    WatchObject *self = (WatchObject *) obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->io) {
        atomic_store(&self->io->owner, NULL);
        stop_watch(self->io);
        mg_io_unref(self->io);
    }
    watch_clear(obj);
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *watch_start(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_io *io = ((WatchObject *) obj)->io;
    mg_acquire_loop(io->loop);
    mg_watch_start(io->watch);
    mg_loop_release(io->loop);
    Py_RETURN_NONE;
}

static PyObject *watch_stop(PyObject *obj, PyObject *unused)
{
    (void) unused;
    stop_watch(((WatchObject *) obj)->io);
    Py_RETURN_NONE;
}

/* Loop.watch() makes them. */
static PyObject *watch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) type, (void) args, (void) kwargs;
    PyErr_SetString(PyExc_TypeError, "a Watch is made by Loop.watch()");
    return NULL;
}

static PyMethodDef watch_methods[] = {
    {"start", watch_start, METH_NOARGS, "Arm: one event follows when the descriptor is ready."},
    {"stop", watch_stop, METH_NOARGS, "Disarm; on return the loop does not know the descriptor any more."},
    {NULL, NULL, 0, NULL}};
static PyMemberDef watch_members[] = {
    {"data", T_OBJECT, offsetof(WatchObject, data), 0, "Whatever the caller keeps here."}, {NULL, 0, 0, 0, NULL}};
static PyType_Slot watch_slots[] = {{Py_tp_new, watch_new},
                                    {Py_tp_dealloc, watch_dealloc},
                                    {Py_tp_traverse, watch_traverse},
                                    {Py_tp_clear, watch_clear},
                                    {Py_tp_methods, watch_methods},
                                    {Py_tp_members, watch_members},
                                    {0, NULL}};
PyType_Spec mg_watch_spec = {"_mitogen_core.Watch", sizeof(WatchObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                             watch_slots};

/* --- the loop --- */

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) args, (void) kwargs;
    mg_state *st = mg_state_of_type(type);
    if (!st)
        return NULL;
    LoopObject *self = (LoopObject *) type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = st;
    self->loop = mg_loop_new();
    if (!self->loop) {
        Py_DECREF(self);
        PyErr_SetString(PyExc_OSError, "cannot make an event loop: out of descriptors or memory");
        return NULL;
    }
    return (PyObject *) self;
}

static void loop_dealloc(PyObject *obj)
{
    LoopObject *self = (LoopObject *) obj;
    PyTypeObject *type = Py_TYPE(obj);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(obj);
    mg_loop_unref(self->loop);
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *loop_watch(PyObject *obj, PyObject *args)
{
    LoopObject *self = (LoopObject *) obj;
    int fd, writing;
    PyObject *data;
    if (!PyArg_ParseTuple(args, "ipO:watch", &fd, &writing, &data))
        return NULL;
    WatchObject *w = (WatchObject *) self->st->Watch->tp_alloc(self->st->Watch, 0);
    if (!w)
        return NULL;
    w->st = self->st;
    w->data = Py_NewRef(data);
    mg_io *io = PyMem_RawCalloc(1, sizeof *io);
    if (io) {
        atomic_init(&io->refs, 1);
        io->loop = mg_loop_ref(self->loop);
        io->events = writing ? MG_WRITE : MG_READ;
        io->watch = mg_watch_new(self->loop, fd, io->events, on_ready, io);
        atomic_init(&io->owner, w);
        if (io->watch)
            w->io = io;
        else
            mg_io_unref(io);
    }
    if (!w->io) {
        Py_DECREF(w);
        return PyErr_NoMemory();
    }
    return (PyObject *) w;
}

/* The Link a stream event speaks of, None when it is gone or there is none. New reference. */
static PyObject *link_or_none(mg_stream *s)
{
    PyObject *link = s ? mg_link_of(s) : NULL;
    return link ? link : Py_NewRef(Py_None);
}

static PyObject *entry_of(mg_handler *h)
{
    PyObject *entry = h->owner ? mg_later_obj(h->owner) : Py_None;
    Py_INCREF(entry);
    return entry;
}

/* (kind, ...) for one event; NULL without an exception when there is nobody left to tell. What the event holds stays its own, so that an
 * event for which there is no memory is not lost. */
static PyObject *event_tuple(mg_state *st, const mg_event *ev)
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
                             atomic_load(&((mg_handler *) ev->a)->removed) ? Py_True : Py_False);
    }
    case MG_EV_OBJECT:
        return Py_BuildValue("(iNOOO)", MG_EV_FRAME, entry_of(ev->a), (PyObject *) ev->b, Py_None,
                             atomic_load(&((mg_handler *) ev->a)->removed) ? Py_True : Py_False);
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
                             ev->n == MG_ETOOBIG ? s->decoder.bad.len : 0);
    }
    case MG_EV_REFUSED: {
        const mg_refusal *r = ev->a;
        return Py_BuildValue("(iiNNNK)", ev->kind, (int) r->reason, mg_hdr_tuple(&r->hdr), link_or_none(r->stream),
                             link_or_none(r->expected), (unsigned long long) r->lost);
    }
    case MG_EV_NOTIFY: {
        PyObject *owner = mg_owner(atomic_load(&((mg_latch *) ev->a)->owner));
        return owner ? Py_BuildValue("(iN)", ev->kind, owner) : NULL;
    }
    case MG_EV_CALL: return Py_BuildValue("(i)", ev->kind);
    default: return NULL;
    }
}

/* Lets go of what an event holds. */
static void event_drop(const mg_event *ev)
{
    switch (ev->kind) {
    case MG_EV_IO: mg_io_unref(ev->a); break;
    case MG_EV_FRAME:
    case MG_EV_HOOK:
        mg_handler_unref(ev->a);
        mg_frame_unref(ev->b);
        mg_stream_unref(ev->c);
        break;
    case MG_EV_OBJECT:
        mg_handler_unref(ev->a);
        Py_DECREF((PyObject *) ev->b);
        break;
    case MG_EV_GONE:
    case MG_EV_BAD:
        mg_stream_unref(ev->a);
        mg_buf_unref(ev->b);
        break;
    case MG_EV_REFUSED:
        mg_router_refusal_seen(ev->b);
        mg_router_unref(ev->b);
        mg_refusal_free(ev->a);
        break;
    case MG_EV_NOTIFY: mg_latch_unref(ev->a); break;
    default: break;
    }
}

static PyObject *loop_wait(PyObject *obj, PyObject *timeout)
{
    LoopObject *self = (LoopObject *) obj;
    int64_t deadline = MG_NEVER;
    if (timeout != Py_None) {
        double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred())
            return NULL;
        deadline = mg_deadline(seconds);
    }
    self->attendant = PyThread_get_thread_ident();
    mg_err err;
    Py_BEGIN_ALLOW_THREADS err = mg_loop_attend(self->loop, deadline);
    Py_END_ALLOW_THREADS mg_run_later();
    if (err == MG_ENOMEM)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *loop_next_event(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LoopObject *self = (LoopObject *) obj;
    mg_event ev;
    while (mg_loop_peek_event(self->loop, &ev)) {
        PyObject *t = event_tuple(self->st, &ev);
        if (!t && PyErr_Occurred())
            return NULL; /* it is the next one still */
        mg_loop_pop_event(self->loop, &ev);
        event_drop(&ev);
        if (t)
            return t;
    }
    Py_RETURN_NONE;
}

/* An event that holds the place of a function that was deferred, among the others. */
static PyObject *loop_call_later(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_event ev = {.kind = MG_EV_CALL};
    if (mg_loop_push_event(((LoopObject *) obj)->loop, &ev) != MG_OK)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *loop_close(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LoopObject *self = (LoopObject *) obj;
    Py_BEGIN_ALLOW_THREADS mg_loop_close(self->loop);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *loop_acquire(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_acquire_loop(((LoopObject *) obj)->loop);
    Py_RETURN_NONE;
}

static PyObject *loop_release(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_loop_release(((LoopObject *) obj)->loop);
    Py_RETURN_NONE;
}

static PyObject *loop_unsent(PyObject *obj, PyObject *unused)
{
    (void) unused;
    return PyLong_FromLong(mg_loop_unsent(((LoopObject *) obj)->loop));
}

static PyObject *loop_stats(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_loop_stats s;
    mg_loop_get_stats(((LoopObject *) obj)->loop, &s);
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsnsI}", "turns", s.turns, "leads", s.leads, "attends", s.attends,
                         "ticks", s.ticks, "spins_won", s.spins_won, "spins_lost", s.spins_lost, "kicks", s.kicks,
                         "wakes", s.wakes, "holds", s.holds, "landed", s.landed, "events", (Py_ssize_t) s.events,
                         "followers", (unsigned int) s.followers);
}

static PyMethodDef loop_methods[] = {
    {"watch", loop_watch, METH_VARARGS, "watch(fd, writing, data) -> Watch, not armed yet."},
    {"wait", loop_wait, METH_O,
     "wait(timeout): run the loop until there are events or interrupt() is called. The broker's thread only."},
    {"next_event", loop_next_event, METH_NOARGS,
     "The next event, a tuple that starts with its kind, or None. MemoryError: it stays the next one."},
    {"call_later", loop_call_later, METH_NOARGS, "Queue an event EV_CALL behind what there is. Any thread."},
    {"close", loop_close, METH_NOARGS, "No thread runs the loop any more."},
    {"acquire", loop_acquire, METH_NOARGS, "Keep every other thread from running the loop until release()."},
    {"release", loop_release, METH_NOARGS, "End acquire()."},
    {"unsent", loop_unsent, METH_NOARGS, "How many streams have frames that are not written yet."},
    {"stats", loop_stats, METH_NOARGS, "Counters, a dict."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef loop_members[] = {{"__weaklistoffset__", T_PYSSIZET, offsetof(LoopObject, weakrefs), READONLY, NULL},
                                     {NULL, 0, 0, 0, NULL}};

static PyType_Slot loop_slots[] = {{Py_tp_new, loop_new},
                                   {Py_tp_dealloc, loop_dealloc},
                                   {Py_tp_methods, loop_methods},
                                   {Py_tp_members, loop_members},
                                   {Py_tp_doc, "The I/O loop of a broker."},
                                   {0, NULL}};
PyType_Spec mg_loop_spec = {"_mitogen_core.Loop", sizeof(LoopObject), 0, Py_TPFLAGS_DEFAULT, loop_slots};
