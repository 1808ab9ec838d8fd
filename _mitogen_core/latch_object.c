#include "latch_object.h"

#include <string.h>
#include <structmember.h>

#include "arguments.h"
#include "errors.h"
#include "fields.h"
#include "items.h"
#include "later.h"
#include "locks.h"
#include "waiting.h"

static mg_lock watchers;

void mg_watchers_lock(void)
{
    MG_LOCK(&watchers);
}

void mg_watchers_unlock(void)
{
    MG_UNLOCK(&watchers);
}

/* The latch that `value` puts into, when it is the bound put method of a Latch of ours;
 * borrowed. */
static LatchObject *latch_of_put(mg_state *st, PyObject *value)
{
    if (!PyCFunction_Check(value))
        return NULL;
    PyObject *self = PyCFunction_GET_SELF(value);
    if (!self || !PyObject_TypeCheck(self, st->Latch) ||
        strcmp(((PyCFunctionObject *) value)->m_ml->ml_name, "put") != 0)
        return NULL;
    return (LatchObject *) self;
}

/* REQUIRES(watchers). Whether `told` already learns of items of l, directly or through other
 * latches. */
static int tells(const mg_latch *l, const mg_latch *told)
{
    while (l && l != told)
        l = mg_latch_watcher(l);
    return l != NULL;
}

/* REQUIRES(watchers). Returns what notify was before. */
static PyObject *start_telling(PyObject *self, PyObject **field, PyObject *value, LatchObject *target, int watch_always)
{
    LatchedObject *obj = (LatchedObject *) self;
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(self);
    old = *field;
    *field = Py_XNewRef(value);
    Py_END_CRITICAL_SECTION();
    mg_latch_watch(obj->latch, target ? target->latch : NULL, watch_always);
    mg_keep_for_tokens(self, old);
    return old;
}

int mg_call_notify(PyObject *notify, PyObject *self)
{
    PyObject *r = PyObject_CallOneArg(notify, self);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

int mg_set_notify(PyObject *self, mg_loop *loop, PyObject **field, PyObject *value, int watch_always)
{
    LatchedObject *obj = (LatchedObject *) self;
    if (value == Py_None)
        value = NULL;
    LatchObject *target = value ? latch_of_put(obj->st, value) : NULL;
    PyObject *old = NULL;
    mg_watchers_lock();
    int circular = target && tells(target->latch, obj->latch);
    if (!circular)
        old = start_telling(self, field, value, target, watch_always);
    if (!circular && target && loop && !atomic_load(&target->loop))
        atomic_store(&target->loop,
                     mg_loop_ref(loop)); /* a thread that waits there may lead the loop that the items come from */
    mg_watchers_unlock();
    Py_XDECREF(old);
    if (circular)
        PyErr_SetString(PyExc_ValueError, "a latch cannot notify itself, not by way of others either");
    return circular ? -1 : 0;
}

void mg_end_watching(mg_latch *l)
{
    mg_watchers_lock();
    mg_latch_watch(l, NULL, 0);
    mg_watchers_unlock();
}

void mg_keep_for_tokens(PyObject *self, PyObject *notify)
{
    LatchedObject *obj = (LatchedObject *) self;
    LatchObject *target = notify ? latch_of_put(obj->st, notify) : NULL;
    if (!target || mg_latch_tokens(obj->latch) <= obj->n_kept)
        return;
    if (!target->kept)
        target->kept = PyList_New(0);
    while (target->kept && mg_latch_tokens(obj->latch) > obj->n_kept && !PyList_Append(target->kept, self))
        obj->n_kept++;
    PyErr_Clear(); /* without memory the token's object may go before the token */
}

/* A token of obj was taken: drops the reference that mg_keep_for_tokens took for it. */
static void end_keeping(LatchObject *self, PyObject *obj)
{
    mg_watchers_lock();
    for (Py_ssize_t i = 0; self->kept && i < PyList_GET_SIZE(self->kept); i++)
        if (PyList_GET_ITEM(self->kept, i) == obj) {
            if (PyList_SetSlice(self->kept, i, i + 1, NULL))
                PyErr_Clear();
            else
                ((LatchedObject *) obj)->n_kept--;
            break;
        }
    mg_watchers_unlock();
}

/* No token will be taken here any more. */
static void end_keeping_all(LatchObject *self)
{
    mg_watchers_lock();
    PyObject *kept = self->kept;
    self->kept = NULL;
    for (Py_ssize_t i = 0; kept && i < PyList_GET_SIZE(kept); i++)
        ((LatchedObject *) PyList_GET_ITEM(kept, i))->n_kept--;
    mg_watchers_unlock();
    Py_XDECREF(kept);
}

/* --- the type --- */

PyObject *mg_latched_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void) args, (void) kwargs;
    mg_state *st = mg_state_of_type(type);
    if (!st || mg_need_configured(st))
        return NULL;
    LatchedObject *self = (LatchedObject *) type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->st = st;
    self->latch = mg_latch_new(mg_drop_item);
    if (!self->latch) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    mg_owner_begin((PyObject *) self);
    mg_latch_set_owner(self->latch, self);
    return (PyObject *) self;
}

PyObject *mg_latch_sharing(mg_state *st, mg_latch *l, mg_loop *loop)
{
    LatchObject *self = (LatchObject *) st->Latch->tp_alloc(st->Latch, 0);
    if (!self)
        return NULL;
    self->st = st;
    self->shared = 1;
    self->latch = mg_latch_ref(l);
    atomic_init(&self->loop, loop ? mg_loop_ref(loop) : NULL);
    return (PyObject *) self;
}

static int latch_traverse(PyObject *obj, visitproc visit, void *arg)
{
    LatchObject *self = (LatchObject *) obj;
    Py_VISIT(Py_TYPE(obj));
    Py_VISIT(self->notify);
    Py_VISIT(self->kept);
    Py_VISIT(self->dict);
    return self->shared ? 0 : mg_visit_items(self->latch, visit, arg);
}

static int clear_fields(LatchObject *self)
{
    Py_CLEAR(self->notify);
    end_keeping_all(self);
    Py_CLEAR(self->dict);
    return 0;
}

static int latch_clear(PyObject *obj)
{
    LatchObject *self = (LatchObject *) obj;
    if (!self->shared)
        mg_clear_items(self->latch);
    return clear_fields(self);
}

static void latch_finalize(PyObject *obj)
{
    LatchObject *self = (LatchObject *) obj;
    if (!self->notify || !self->latch || self->shared)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    mg_watchers_lock();
    mg_keep_for_tokens(obj, self->notify);
    mg_watchers_unlock();
    PyErr_Restore(type, value, traceback);
}

static void latch_dealloc(PyObject *obj)
{
    LatchObject *self = (LatchObject *) obj;
    if (mg_owner_finalize(obj, self->shared ? NULL : self->latch, latch_finalize))
        return;
    PyTypeObject *type = Py_TYPE(obj);
    PyObject_GC_UnTrack(obj);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(obj);
    if (self->latch) {
        if (!self->shared)
            mg_end_watching(self->latch);
        mg_latch_unref(self->latch);
    }
    mg_loop_unref(self->loop);
    clear_fields(self);
    mg_run_later();
    type->tp_free(obj);
    Py_DECREF(type);
}

/* Calls `notify`, if Python has to. */
static PyObject *call_notify(LatchObject *self)
{
    PyObject *notify = mg_field((PyObject *) self, &self->notify); /* the call may replace `notify` itself */
    int failed = notify && !latch_of_put(self->st, notify) && mg_call_notify(notify, (PyObject *) self);
    Py_XDECREF(notify);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *latch_put(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"obj", NULL};
    LatchObject *self = (LatchObject *) obj;
    PyObject *value = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:put", names, &value))
        return NULL;
    mg_item item = {Py_NewRef(value), MG_ITEM_OBJECT, 0};
    mg_woken woken;
    mg_err err = mg_push_item(self->latch, item, &woken);
    if (err != MG_OK) {
        Py_DECREF(value);
        return mg_raise(self->st, err);
    }
    return woken.waiter ? Py_NewRef(Py_None) : call_notify(self);
}

static PyObject *latch_get(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", "block", NULL};
    LatchObject *self = (LatchObject *) obj;
    mg_state *st = self->st;
    PyObject *timeout = Py_None;
    int block = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Op:get", names, &timeout, &block))
        return NULL;
    int64_t deadline;
    if (mg_parse_timeout(timeout, &deadline))
        return NULL;
    for (;;) {
        mg_item item;
        int bad = mg_wait_item(st, self->latch, self->loop, deadline, block, &item);
        if (bad)
            return bad > 0 ? mg_raise(st, MG_ECLOSED) : NULL;
        PyObject *got = mg_item_object(st, item, NULL);
        if (got && item.kind == MG_ITEM_TOKEN)
            end_keeping(self, got);
        if (got || PyErr_Occurred())
            return got;
        /* the token of a receiver that is gone: go on, for what is left of the time */
    }
}

static PyObject *latch_close(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_latch_close(((LatchObject *) obj)->latch);
    mg_run_later();
    Py_RETURN_NONE;
}

static int need_open(LatchObject *self)
{
    if (!mg_latch_closed(self->latch))
        return 0;
    mg_raise(self->st, MG_ECLOSED);
    return -1;
}

static PyObject *latch_size(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LatchObject *self = (LatchObject *) obj;
    return need_open(self) ? NULL : PyLong_FromSize_t(mg_latch_size(self->latch));
}

static PyObject *latch_sleepers(PyObject *obj, PyObject *unused)
{
    (void) unused;
    return mg_sleepers(((LatchObject *) obj)->latch);
}

static PyObject *latch_forked(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_latch_forked(((LatchObject *) obj)->latch);
    Py_RETURN_NONE;
}

static PyObject *latch_empty(PyObject *obj, PyObject *unused)
{
    (void) unused;
    LatchObject *self = (LatchObject *) obj;
    return need_open(self) ? NULL : PyBool_FromLong(mg_latch_size(self->latch) == 0);
}

static PyObject *get_closed(PyObject *obj, void *closure)
{
    (void) closure;
    return PyBool_FromLong(mg_latch_closed(((LatchObject *) obj)->latch));
}

static PyObject *get_notify(PyObject *obj, void *closure)
{
    (void) closure;
    PyObject *notify = mg_field(obj, &((LatchObject *) obj)->notify);
    return notify ? notify : Py_NewRef(Py_None);
}

static int set_notify(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    LatchObject *self = (LatchObject *) obj;
    return mg_set_notify(obj, self->loop, &self->notify, value, 0);
}

static PyMethodDef latch_methods[] = {
    {"put", (PyCFunction) (void (*)(void)) latch_put, METH_VARARGS | METH_KEYWORDS,
     "put($self, /, obj=None)\n--\n\n"
     "Append an object and wake the thread that has waited longest. Any thread. LatchError once closed."},
    {"get", (PyCFunction) (void (*)(void)) latch_get, METH_VARARGS | METH_KEYWORDS,
     "get($self, /, timeout=None, block=True)\n--\n\n"
     "Return the next object. timeout in seconds. TimeoutError, LatchError. Any thread."},
    {"close", latch_close, METH_NOARGS,
     "close($self, /)\n--\n\nClose for good; sleeping threads get LatchError. Any thread, repeatable."},
    {"size", latch_size, METH_NOARGS, "size($self, /)\n--\n\nObjects put and not taken yet. LatchError once closed."},
    {"empty", latch_empty, METH_NOARGS, "empty($self, /)\n--\n\nsize() == 0."},
    {"_sleepers", latch_sleepers, METH_NOARGS, "_sleepers() -> [(thread ident, seconds asleep)], at most 64."},
    {"_forked", latch_forked, METH_NOARGS, "In a fork child: forget the threads that slept here."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef latch_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(LatchObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LatchObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyObject *get_newest_first(PyObject *obj, void *closure)
{
    (void) closure;
    return PyBool_FromLong(mg_latch_newest_first(((LatchObject *) obj)->latch));
}

static int set_newest_first(PyObject *obj, PyObject *value, void *closure)
{
    (void) closure;
    int yes = value ? PyObject_IsTrue(value) : 0;
    if (yes < 0)
        return -1;
    mg_latch_set_newest_first(((LatchObject *) obj)->latch, yes);
    return 0;
}

static PyGetSetDef latch_getset[] = {{"closed", get_closed, NULL, "True once close() was called.", NULL},
                                     {"notify", get_notify, set_notify,
                                      "None, or called with this latch when an object is put that no sleeper takes.",
                                      NULL},
                                     {"_newest_first", get_newest_first, set_newest_first,
                                      "Whether the youngest sleeper is served, not the oldest: for a pool of threads "
                                      "that are all alike, where the one that slept last is the cheapest to wake.",
                                      NULL},
                                     {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
                                     {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot latch_slots[] = {{Py_tp_new, mg_latched_new},
                                    {Py_tp_dealloc, latch_dealloc},
                                    {Py_tp_finalize, latch_finalize},
                                    {Py_tp_traverse, latch_traverse},
                                    {Py_tp_clear, latch_clear},
                                    {Py_tp_methods, latch_methods},
                                    {Py_tp_members, latch_members},
                                    {Py_tp_getset, latch_getset},
                                    {Py_tp_doc, "Latch()\n--\n\nA closable FIFO queue that threads wait on in order."},
                                    {0, NULL}};

PyType_Spec mg_latch_spec = {"_mitogen_core.Latch", sizeof(LatchObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, latch_slots};
