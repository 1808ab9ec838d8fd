#include "router_handlers.h"

#include <string.h>

#include "arguments.h"
#include "base/alloc.h"
#include "counterpart.h"
#include "errors.h"
#include "fields.h"
#include "later.h"
#include "loop/loop.h"
#include "net/router.h"
#include "router_tables.h"

/* The queue that `fn` fills, if `fn` is the unmodified method of a receiver of ours; borrowed. */
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
    PyObject *policies = mg_state_look(&st->neighbour_policies);
    for (Py_ssize_t i = 0; policies && i < PyTuple_GET_SIZE(policies); i++)
        if (PyTuple_GET_ITEM(policies, i) == policy)
            return 1;
    return 0;
}

/* Whether Python listens for the loss of a respondent, and no context was lost since it began
 * to. */
static int is_watched(PyObject *router, mg_state *st, PyObject *respondent)
{
    PyObject *mark = PyObject_GetAttr(respondent, st->str_respondent_of);
    if (!mark)
        PyErr_Clear();
    Py_XDECREF(mark);
    return mark && mg_field_is(router, &((RoutedObject *) router)->losses, mark);
}

/* Has Python listen for the loss of a respondent. */
static int watch_respondent(PyObject *router, mg_state *st, PyObject *respondent)
{
    PyObject *r = PyObject_CallMethodObjArgs(router, st->str_watch_respondent, respondent, NULL);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* Whether a policy lets every message with a parent's authority pass. */
static int is_for_guests(PyObject *policy)
{
    PyObject *mark = PyObject_GetAttrString(policy, "for_guests_only");
    int is = mark == Py_True;
    if (!mark)
        PyErr_Clear();
    Py_XDECREF(mark);
    return is;
}

static mg_policy policy_of(mg_state *st, PyObject *policy)
{
    if (policy == Py_None)
        return MG_POLICY_NONE;
    if (policy == st->has_parent_authority)
        return MG_POLICY_PARENT;
    return is_neighbour_policy(st, policy) ? MG_POLICY_NEIGHBOUR : MG_POLICY_ASK;
}

/* The id of a respondent, whose loss Python listens for from now on; -1 for None. *losses: see
 * tell_if_lost(). */
static int parse_respondent(PyObject *router, mg_state *st, PyObject *respondent, int64_t *id, void **losses)
{
    *id = -1;
    if (respondent == Py_None)
        return 0;
    uint32_t number = 0;
    PyObject *context_id = PyObject_GetAttr(respondent, st->codec.str_context_id);
    int bad = !context_id || mg_parse_id(context_id, "context_id", &number);
    Py_XDECREF(context_id);
    *id = (int64_t) number;
    PyObject *now = mg_field(router, &((RoutedObject *) router)->losses);
    *losses = now;
    Py_XDECREF(now);
    if (bad || is_watched(router, st, respondent))
        return bad ? -1 : 0;
    *losses = NULL;
    return watch_respondent(router, st, respondent);
}

/* Makes the handler that a spec describes. It owns entry, the object by which Python knows it. */
static mg_handler *make_handler(mg_handler_spec *spec, PyObject *entry)
{
    mg_later *owner = entry ? mg_later_new(entry) : NULL;
    if (!owner)
        return NULL;
    spec->owner = owner;
    spec->drop_owner = mg_later_decref;
    mg_handler *h = mg_handler_new(spec);
    if (!h) {
        mg_later_decref(owner);
        PyErr_NoMemory();
    }
    return h;
}

/* The loop of a closed broker reads no message any more, so a thread that waits at a new handler
 * has to be told. */
static int tell_if_closed(PyObject *router, mg_router *r)
{
    if (!mg_loop_closed(mg_router_loop(r)))
        return 0;
    PyObject *told = PyObject_CallMethod(router, "_on_late_handler", NULL);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* Has a handler that was just registered told if its respondent is lost. It may have been lost
 * before, or between the look at `losses`, as they were, and the registration. */
static int tell_if_lost(PyObject *router, PyObject *respondent, void *losses)
{
    if (respondent == Py_None || (losses && mg_field_is(router, &((RoutedObject *) router)->losses, losses)))
        return 0;
    PyObject *told = PyObject_CallMethod(router, "_tell_if_lost", "O", respondent);
    Py_XDECREF(told);
    return told ? 0 : -1;
}

/* Registers h, and takes over the reference. */
static PyObject *register_handler(PyObject *router, mg_handler *h, uint32_t number, int overwrite)
{
    mg_router *r = ((RoutedObject *) router)->router;
    mg_err err = mg_router_add_handler(r, h, number, overwrite);
    if (err != MG_OK) {
        mg_handler_unref(h);
        mg_run_later();
        return mg_raise(((RoutedObject *) router)->st, err);
    }
    PyObject *result = PyLong_FromUnsignedLong(mg_handler_handle(h));
    if (!result)
        mg_router_del_handler(r, mg_handler_handle(h));
    mg_handler_unref(h);
    if (result && tell_if_closed(router, r))
        Py_CLEAR(result);
    return result;
}

PyObject *mg_add_handler(PyObject *router, PyObject *fn, PyObject *handle, int persist, PyObject *policy,
                         PyObject *respondent, int overwrite, int asks)
{
    mg_state *st = ((RoutedObject *) router)->st;
    uint32_t number = 0;
    int given = mg_need_router(router) ? PyObject_IsTrue(handle) : -1;
    if (given < 0 || (given && mg_parse_id(handle, "handle", &number)))
        return NULL;
    mg_handler_spec spec = {.persist = persist, .policy = policy_of(st, policy), .latch = latch_filled_by(st, fn)};
    void *losses = NULL;
    if (parse_respondent(router, st, respondent, &spec.respondent, &losses))
        return NULL;
    if (spec.policy == MG_POLICY_ASK && spec.latch && persist && is_for_guests(policy))
        spec.policy = MG_POLICY_GUEST;
    PyObject *entry = PyTuple_Pack(5, router, fn, policy, persist ? Py_True : Py_False, respondent);
    mg_handler *h = make_handler(&spec, entry);
    Py_XDECREF(entry);
    PyObject *result = h ? register_handler(router, h, number, overwrite) : NULL;
    if (result && !asks && tell_if_lost(router, respondent, losses))
        Py_CLEAR(result);
    return result;
}

PyObject *mg_handlers_add(PyObject *router, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", "handle", "persist", "policy", "respondent", "overwrite", NULL};
    PyObject *fn, *handle = Py_None, *policy = Py_None, *respondent = Py_None;
    int persist = 1, overwrite = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OpOOp:add_handler", names, &fn, &handle, &persist, &policy,
                                     &respondent, &overwrite))
        return NULL;
    return mg_add_handler(router, fn, handle, persist, policy, respondent, overwrite, 0);
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
    int found = PyLong_Check(arg) ? mg_find_id(arg, &number) : 0;
    if (found < 0)
        return NULL;
    if (!found || mg_router_del_handler(r, number) != MG_OK) {
        PyErr_SetObject(PyExc_KeyError, arg);
        return NULL;
    }
    mg_run_later();
    Py_RETURN_NONE;
}

PyObject *mg_handlers_del(PyObject *router, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *arg = mg_one_arg("del_handler", "handle", args, n, names);
    return arg ? del_handler(router, arg) : NULL;
}

/* Borrowed. */
static PyObject *entry_of(const mg_handler *h)
{
    return mg_handler_owner(h) ? mg_later_obj(mg_handler_owner(h)) : Py_None;
}

PyObject *mg_handlers_take(PyObject *router, PyObject *respondent_id)
{
    mg_router *r = mg_need_router(router);
    uint32_t id = 0;
    size_t n;
    if (!r || (respondent_id != Py_None && mg_parse_id(respondent_id, "respondent_id", &id)))
        return NULL;
    mg_entry *list = mg_router_take_handlers(r, respondent_id == Py_None ? -1 : (int64_t) id, &n);
    if (!list)
        return PyErr_NoMemory();
    PyObject *result = PyList_New(0);
    for (size_t i = 0; result && i < n; i++) {
        PyObject *pair = Py_BuildValue("(IO)", list[i].id, entry_of(list[i].value));
        if (!pair || PyList_Append(result, pair))
            Py_CLEAR(result);
        Py_XDECREF(pair);
    }
    for (size_t i = 0; i < n; i++) {
        if (!result)
            mg_router_add_handler(r, list[i].value, list[i].id, 0); /* back to the place that it had */
        mg_handler_unref(list[i].value);
    }
    mg_free(list);
    mg_run_later();
    return result;
}

static int add_handler_entry(uint32_t handle, void *handler, void *dict)
{
    return mg_set_entry(dict, handle, Py_NewRef(entry_of(handler)));
}

PyObject *mg_handlers_map(PyObject *router, void *closure)
{
    (void) closure;
    return mg_table_dict(router, MG_HANDLERS, add_handler_entry);
}
