#include "handlers.h"

#include <string.h>

#include "arguments.h"
#include "base/alloc.h"
#include "counterpart.h"
#include "errors.h"
#include "later.h"
#include "loop/loop.h"
#include "net/router.h"

/* The queue that `fn` fills, when it is that of a receiver of ours and does nothing else with messages; borrowed. */
static mg_latch *latch_filled_by(mg_state *st, PyObject *fn)
{
    if (!PyCFunction_Check(fn))
        return NULL;
    PyObject *self = PyCFunction_GET_SELF(fn);
    if (!self || !PyObject_TypeCheck(self, st->Receiver) ||
        strcmp(((PyCFunctionObject *) fn)->m_ml->ml_name, "_on_receive") != 0)
        return NULL;
    return ((LatchedObject *) self)->latch;
}

static int is_neighbour_policy(mg_state *st, PyObject *policy)
{
    for (Py_ssize_t i = 0; st->neighbour_policies && i < PyTuple_GET_SIZE(st->neighbour_policies); i++)
        if (PyTuple_GET_ITEM(st->neighbour_policies, i) == policy)
            return 1;
    return 0;
}

/* Has Python listen for the loss of a respondent, the first time it is one. */
static int watch_respondent(PyObject *router, mg_state *st, PyObject *respondent)
{
    PyObject *known = PyObject_GetAttr(respondent, st->str_respondent_of);
    if (!known)
        PyErr_Clear();
    Py_XDECREF(known);
    if (known == router)
        return 0;
    PyObject *r = PyObject_CallMethodObjArgs(router, st->str_watch_respondent, respondent, NULL);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

PyObject *mg_add_handler(PyObject *router, PyObject *fn, PyObject *handle, int persist, PyObject *policy,
                         PyObject *respondent, int overwrite)
{
    mg_state *st = ((RoutedObject *) router)->st;
    mg_router *r = mg_need_router(router);
    uint32_t number = 0;
    int given = r ? PyObject_IsTrue(handle) : -1;
    if (given < 0 || (given && mg_parse_id(handle, "handle", &number)))
        return NULL;
    mg_handler *h = mg_handler_new();
    if (!h)
        return PyErr_NoMemory();
    h->persist = persist;
    h->policy = policy == Py_None                    ? MG_POLICY_NONE
                : policy == st->has_parent_authority ? MG_POLICY_PARENT
                : is_neighbour_policy(st, policy)    ? MG_POLICY_NEIGHBOUR
                                                     : MG_POLICY_ASK;
    if (respondent != Py_None) {
        PyObject *id = PyObject_GetAttrString(respondent, "context_id");
        uint32_t value;
        if (!id || mg_parse_id(id, "context_id", &value)) {
            Py_XDECREF(id);
            goto error;
        }
        Py_DECREF(id);
        h->respondent = (int64_t) value;
        if (watch_respondent(router, st, respondent))
            goto error;
    }
    mg_latch *filled = latch_filled_by(st, fn);
    if (filled)
        h->latch = mg_latch_ref(filled);
    PyObject *entry = PyTuple_Pack(5, router, fn, policy, persist ? Py_True : Py_False, respondent);
    h->owner = entry ? mg_later_new(entry) : NULL;
    h->drop_owner = h->owner ? mg_later_decref : NULL;
    Py_XDECREF(entry);
    if (!h->owner)
        goto error;
    mg_err err = mg_router_add_handler(r, h, number, overwrite);
    if (err != MG_OK) {
        mg_raise(st, err);
        goto error;
    }
    PyObject *result = PyLong_FromUnsignedLong(h->handle);
    if (!result)
        mg_router_del_handler(r, h->handle);
    mg_handler_unref(h);
    if (result && mg_loop_closed(r->loop)) {
        /* nothing will come any more: whoever waits there has to be told */
        PyObject *told = PyObject_CallMethod(router, "_on_late_handler", NULL);
        if (!told)
            Py_CLEAR(result);
        Py_XDECREF(told);
    }
    return result;
error:
    mg_handler_unref(h);
    mg_run_later();
    return NULL;
}

PyObject *mg_handlers_add(PyObject *obj, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", "handle", "persist", "policy", "respondent", "overwrite", NULL};
    PyObject *fn, *handle = Py_None, *policy = Py_None, *respondent = Py_None;
    int persist = 1, overwrite = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OpOOp:add_handler", names, &fn, &handle, &persist, &policy,
                                     &respondent, &overwrite))
        return NULL;
    return mg_add_handler(obj, fn, handle, persist, policy, respondent, overwrite);
}

int mg_is_add_handler(PyObject *fn, PyObject *router)
{
    return PyCFunction_Check(fn) && PyCFunction_GET_SELF(fn) == router &&
           PyCFunction_GET_FUNCTION(fn) == (PyCFunction) (void (*)(void)) mg_handlers_add;
}

static PyObject *del_handler(PyObject *obj, PyObject *arg)
{
    mg_router *r = mg_need_router(obj);
    uint32_t number;
    if (!r)
        return NULL;
    if (!PyLong_Check(arg)) {
        PyErr_SetObject(PyExc_KeyError, arg);
        return NULL;
    }
    if (mg_parse_id(arg, "handle", &number)) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return NULL;
        PyErr_Clear();
        number = 0; /* never one of ours, as that is not */
    }
    if (mg_router_del_handler(r, number) != MG_OK) {
        PyErr_SetObject(PyExc_KeyError, arg);
        return NULL;
    }
    mg_run_later();
    Py_RETURN_NONE;
}

PyObject *mg_handlers_del(PyObject *obj, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *arg = mg_one_arg("del_handler", "handle", args, n, names);
    return arg ? del_handler(obj, arg) : NULL;
}

static PyObject *pair_of(mg_handler *h)
{
    return Py_BuildValue("(IO)", h->handle, h->owner ? mg_later_obj(h->owner) : Py_None);
}

PyObject *mg_handlers_take(PyObject *obj, PyObject *arg)
{
    mg_router *r = mg_need_router(obj);
    uint32_t id = 0;
    size_t n;
    if (!r || (arg != Py_None && mg_parse_id(arg, "respondent_id", &id)))
        return NULL;
    mg_handler **list = mg_router_take_handlers(r, arg == Py_None ? -1 : (int64_t) id, &n);
    if (!list)
        return PyErr_NoMemory();
    PyObject *result = PyList_New(0);
    for (size_t i = 0; result && i < n; i++) {
        PyObject *pair = pair_of(list[i]);
        if (!pair || PyList_Append(result, pair))
            Py_CLEAR(result);
        Py_XDECREF(pair);
    }
    for (size_t i = 0; i < n; i++) {
        if (!result)
            mg_router_add_handler(r, list[i], list[i]->handle, 0); /* to the place it had just now */
        mg_handler_unref(list[i]);
    }
    mg_free(list);
    mg_run_later();
    return result;
}

PyObject *mg_handlers_map(PyObject *obj, void *closure)
{
    (void) closure;
    mg_router *r = mg_need_router(obj);
    PyObject *dict = r ? PyDict_New() : NULL;
    if (!dict)
        return NULL;
    pthread_mutex_lock(&r->mu);
    size_t n = 0, count = mg_idmap_count(&r->handlers);
    mg_handler **list = PyMem_RawMalloc((count + 1) * sizeof *list);
    mg_idmap_iter it;
    void *value;
    mg_idmap_iter_init(&r->handlers, &it);
    while (list && n < count && mg_idmap_iter_next(&r->handlers, &it, NULL, &value))
        list[n++] = mg_handler_ref(value);
    pthread_mutex_unlock(&r->mu);
    if (!list) {
        Py_DECREF(dict);
        return PyErr_NoMemory();
    }
    for (size_t i = 0; i < n; i++) {
        PyObject *pair = dict ? pair_of(list[i]) : NULL;
        if (dict && (!pair || PyDict_SetItem(dict, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1))))
            Py_CLEAR(dict);
        Py_XDECREF(pair);
        mg_handler_unref(list[i]);
    }
    PyMem_RawFree(list);
    return dict;
}
