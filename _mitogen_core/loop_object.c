#include "loop_object.h"

#include <structmember.h>

#include "arguments.h"
#include "binding_event_kinds.h"
#include "errors.h"
#include "event_object.h"
#include "gil.h"
#include "later.h"
#include "watch_object.h"

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
        mg_raise(st, MG_EIO);
        Py_DECREF(self);
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
    return mg_watch_object_new(self->st, self->loop, fd, writing, data);
}

static PyObject *loop_wait(PyObject *obj, PyObject *timeout)
{
    LoopObject *self = (LoopObject *) obj;
    int64_t deadline;
    if (mg_parse_timeout(timeout, &deadline))
        return NULL;
    self->attendant = PyThread_get_thread_ident();
    mg_err err;
    MG_WITHOUT_GIL(err = mg_loop_attend(self->loop, deadline));
    mg_run_later();
    return mg_none_or_raise(self->st, err == MG_ENOMEM ? err : MG_OK);
}

/* Takes an event, unless there is none or an exception. *t: its tuple, or NULL for one that says
 * nothing any more. */
static int next_event(LoopObject *self, PyObject **t)
{
    mg_event ev;
    *t = NULL;
    MG_LOCK(&self->reading);
    int found = mg_loop_peek_event(self->loop, &ev);
    if (found)
        *t = mg_event_tuple(self->st, &ev);
    int taken = found && (*t || !PyErr_Occurred()); /* else the same event is the next one again */
    if (taken)
        mg_loop_pop_event(self->loop, &ev);
    MG_UNLOCK(&self->reading);
    if (taken)
        mg_event_drop(&ev);
    return taken;
}

static PyObject *loop_next_event(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LoopObject *self = (LoopObject *) obj;
    PyObject *t;
    while (next_event(self, &t))
        if (t)
            return t;
    if (PyErr_Occurred())
        return NULL;
    /* Drops the objects that the events have released. wait() would be too late: a destructor
     * may schedule a timer, and the caller of wait() has looked at its timers by then. */
    mg_run_later();
    return Py_NewRef(Py_None);
}

/* Posts an event that keeps the place of a deferred function in the order of events. */
static PyObject *loop_call_later(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_event ev = {.kind = MG_EV_CALL};
    LoopObject *self = (LoopObject *) obj;
    return mg_none_or_raise(self->st, mg_loop_push_event(self->loop, &ev));
}

static PyObject *loop_close(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LoopObject *self = (LoopObject *) obj;
    MG_WITHOUT_GIL(mg_loop_close(self->loop));
    Py_RETURN_NONE;
}

typedef struct {
    mg_loop *loop;
    int fd;
} retired;

static void retire(void *arg)
{
    const retired *r = arg;
    mg_loop_retire(r->loop, r->fd);
}

static PyObject *loop_retire(PyObject *obj, PyObject *fd)
{
    retired r = {((LoopObject *) obj)->loop, (int) PyLong_AsLong(fd)};
    if (r.fd == -1 && PyErr_Occurred())
        return NULL;
    mg_with_loop(r.loop, retire, &r);
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
                         "looks", s.looks, "spins_won", s.spins_won, "spins_lost", s.spins_lost, "kicks", s.kicks,
                         "wakes", s.wakes, "corks", s.corks, "landed", s.landed, "events", (Py_ssize_t) s.events,
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
    {"retire", loop_retire, METH_O,
     "retire(fd): end the file of a descriptor whose watches are stopped. The number stays taken until it is closed."},
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
