#include "watch_object.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "binding_event_kinds.h"
#include "counterpart.h"
#include "errors.h"
#include "fields.h"
#include "gil.h"

/* Engine side of a Watch. The loop's leader may be any thread, so it only posts an event and
 * disarms itself; the broker's thread runs the callback and arms it again. */
struct mg_io {
    _Atomic uint32_t refs;
    mg_loop *loop;
    mg_watch *watch;
    mg_task end; /* with a reference while it is queued */
    _Atomic(void *) owner; /* WatchObject, borrowed; with the GIL */
};

void mg_io_unref(mg_io *io)
{
    if (atomic_fetch_sub(&io->refs, 1) != 1)
        return;
    mg_watch_free(io->watch);
    mg_loop_unref(io->loop);
    free(io);
}

static void on_ready(void *arg, int events)
{
    mg_io *io = arg;
    mg_watch_stop(io->watch);
    mg_loop_note_foreign(io->loop);
    atomic_fetch_add(&io->refs, 1);
    mg_event ev = {.kind = MG_EV_IO, .a = io, .n = (uint64_t) events};
    if (mg_loop_push_event(io->loop, &ev) != MG_OK) {
        mg_watch_start(io->watch); /* the watch fires again, until there is memory for the event */
        mg_io_unref(io);
    }
}

PyObject *mg_io_owner(mg_io *io)
{
    mg_lock *lock = mg_owner_lock(io);
    MG_LOCK(lock);
    PyObject *watch = mg_owner(atomic_load(&io->owner));
    MG_UNLOCK(lock);
    return watch;
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

/* --- what the leader calls, or mg_with_loop --- */

typedef struct {
    mg_io *io;
    int error; /* errno, or 0 */
} starting;

static void start_watch(void *arg)
{
    starting *s = arg;
    s->error = mg_watch_start(s->io->watch) == MG_OK ? 0 : errno;
    mg_loop_settle(s->io->loop);
}

static void stop_watch(void *arg)
{
    mg_watch_stop(((mg_io *) arg)->watch);
}

static void end_watch(mg_task *task)
{
    mg_io *io = MG_CONTAINER(task, mg_io, end);
    mg_watch_stop(io->watch);
    mg_io_unref(io);
}

/* --- the type --- */

static void disown(mg_io *io)
{
    mg_lock *lock = mg_owner_lock(io);
    MG_LOCK(lock);
    atomic_store(&io->owner, NULL);
    MG_UNLOCK(lock);
}

static void watch_dealloc(PyObject *obj)
{
    WatchObject *self = (WatchObject *) obj;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->io) {
        disown(self->io);
        /* Posted, as a dealloc may run anywhere, with any lock held, and must not wait. In a
         * closed loop there is nothing to stop. */
        if (!mg_loop_post(self->io->loop, &self->io->end))
            mg_io_unref(self->io);
    }
    watch_clear(obj);
    type->tp_free(obj);
    Py_DECREF(type);
}

static PyObject *watch_start(PyObject *obj, PyObject *unused)
{
    (void) unused;
    starting s = {.io = ((WatchObject *) obj)->io};
    mg_with_loop(s.io->loop, start_watch, &s);
    if (!s.error)
        Py_RETURN_NONE;
    errno = s.error;
    return mg_raise(((WatchObject *) obj)->st, MG_EIO);
}

static PyObject *watch_stop(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_io *io = ((WatchObject *) obj)->io;
    mg_with_loop(io->loop, stop_watch, io);
    Py_RETURN_NONE;
}

PyObject *mg_watch_object_new(mg_state *st, mg_loop *loop, int fd, int writing, PyObject *data)
{
    WatchObject *w = (WatchObject *) st->Watch->tp_alloc(st->Watch, 0);
    if (!w)
        return NULL;
    w->st = st;
    w->data = Py_NewRef(data);
    mg_io *io = calloc(1, sizeof *io);
    if (io) {
        atomic_init(&io->refs, 1);
        io->loop = mg_loop_ref(loop);
        io->end.run = end_watch;
        io->watch = mg_watch_new(loop, fd, writing ? MG_WRITE : MG_READ, on_ready, io);
        mg_owner_begin((PyObject *) w);
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

static PyObject *watch_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) type, (void) args, (void) kwargs;
    PyErr_SetString(PyExc_TypeError, "a Watch is made by Loop.watch()");
    return NULL;
}

static PyMethodDef watch_methods[] = {
    {"start", watch_start, METH_NOARGS, "Arm: one event follows when the descriptor is ready. OSError: it is none."},
    {"stop", watch_stop, METH_NOARGS, "Disarm; on return the loop does not know the descriptor any more."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef watch_getset[] = {MG_FIELD(WatchObject, data, "Any object that the caller keeps here."),
                                     {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot watch_slots[] = {{Py_tp_new, watch_new},
                                    {Py_tp_dealloc, watch_dealloc},
                                    {Py_tp_traverse, watch_traverse},
                                    {Py_tp_clear, watch_clear},
                                    {Py_tp_methods, watch_methods},
                                    {Py_tp_getset, watch_getset},
                                    {0, NULL}};
PyType_Spec mg_watch_spec = {"_mitogen_core.Watch", sizeof(WatchObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                             watch_slots};
