/* Router: the engine's tables, and the way of a message from Python into them. */
#include "binding.h"

#include "base/alloc.h"

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
    Py_VISIT(self->loop_object);
    Py_VISIT(self->dict);
    return 0;
}

static int router_clear(PyObject *obj)
{
    RouterObject *self = (RouterObject *) obj;
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
    if (!PyObject_TypeCheck(loop, self->st->Loop))
        return PyErr_Format(PyExc_TypeError, "a Loop is needed, not %.100s", Py_TYPE(loop)->tp_name);
    if (!self->router) {
        self->router = mg_router_new(((LoopObject *) loop)->loop);
        if (!self->router)
            return PyErr_NoMemory();
        self->loop_object = Py_NewRef(loop);
    }
    Py_RETURN_NONE;
}

static mg_router *need_router(PyObject *obj)
{
    mg_router *r = ((RouterObject *) obj)->router;
    if (!r)
        PyErr_SetString(PyExc_ValueError, "Router.__init__ was not called");
    return r;
}

/* --- settings --- */

static PyObject *router_set_identity(PyObject *obj, PyObject *args)
{
    mg_router *r = need_router(obj);
    unsigned int own_id;
    PyObject *parent_id, *parent_ids;
    if (!r || !PyArg_ParseTuple(args, "IOO:_set_identity", &own_id, &parent_id, &parent_ids))
        return NULL;
    int64_t parent = -1;
    if (parent_id != Py_None) {
        parent = PyLong_AsLongLong(parent_id);
        if (parent == -1 && PyErr_Occurred())
            return NULL;
    }
    PyObject *seq = PySequence_Fast(parent_ids, "parent_ids must be a sequence");
    if (!seq)
        return NULL;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(seq);
    uint32_t *ids = PyMem_Calloc((size_t) n + 1, sizeof *ids);
    for (Py_ssize_t i = 0; ids && i < n; i++) {
        ids[i] = (uint32_t) PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(seq, i));
        if (PyErr_Occurred())
            break;
    }
    Py_DECREF(seq);
    if (!ids || (!PyErr_Occurred() && mg_router_set_identity(r, own_id, parent, ids, (size_t) n) != MG_OK))
        PyErr_NoMemory();
    PyMem_Free(ids);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *router_set_unidirectional(PyObject *obj, PyObject *value)
{
    mg_router *r = need_router(obj);
    int on = PyObject_IsTrue(value);
    if (!r || on < 0)
        return NULL;
    mg_router_set_unidirectional(r, on);
    Py_RETURN_NONE;
}

static PyObject *router_set_text(PyObject *obj, PyObject *args)
{
    mg_router *r = need_router(obj);
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
    mg_router *r = need_router(obj);
    unsigned long long max_size, high_water;
    if (!r || !PyArg_ParseTuple(args, "KK:_set_limits", &max_size, &high_water))
        return NULL;
    atomic_store(&r->max_size, max_size);
    atomic_store(&r->high_water, (size_t) high_water);
    Py_RETURN_NONE;
}

/* --- routes --- */

static PyObject *router_put_route(PyObject *obj, PyObject *args)
{
    mg_router *r = need_router(obj);
    unsigned int id;
    LinkObject *link;
    if (!r || !PyArg_ParseTuple(args, "IO!:_put_route", &id, ((RouterObject *) obj)->st->Link, &link))
        return NULL;
    if (!link->stream) {
        PyErr_SetString(PyExc_ValueError, "the stream has not been given descriptors yet");
        return NULL;
    }
    if (mg_router_put_route(r, id, link->stream) != MG_OK)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static int id_arg(PyObject *arg, uint32_t *id)
{
    unsigned long value = PyLong_AsUnsignedLong(arg);
    if (value == (unsigned long) -1 && PyErr_Occurred())
        return -1;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "an id has 32 bits");
        return -1;
    }
    *id = (uint32_t) value;
    return 0;
}

static PyObject *router_del_route(PyObject *obj, PyObject *arg)
{
    mg_router *r = need_router(obj);
    uint32_t id;
    if (!r || id_arg(arg, &id))
        return NULL;
    return PyBool_FromLong(mg_router_del_route(r, id));
}

static PyObject *router_get_route(PyObject *obj, PyObject *args)
{
    mg_router *r = need_router(obj);
    unsigned int id;
    int with_parent;
    if (!r || !PyArg_ParseTuple(args, "Ip:_get_route", &id, &with_parent))
        return NULL;
    mg_stream *s = mg_router_get_route(r, id, with_parent);
    PyObject *link = s ? mg_link_of(s) : NULL;
    mg_stream_unref(s);
    return link ? link : Py_NewRef(Py_None);
}

/* The dictionary of all entries of a table, new reference; add puts one in, or returns 1 with an exception. */
static PyObject *table_dict(PyObject *obj, mg_table what, mg_visit *add)
{
    mg_router *r = need_router(obj);
    PyObject *dict = r ? PyDict_New() : NULL;
    if (dict && mg_router_snapshot(r, what, NULL, add, dict) != MG_OK)
        PyErr_NoMemory();
    if (PyErr_Occurred())
        Py_CLEAR(dict);
    return dict;
}

/* Sets dict[id] = value, whose reference is taken over. Returns 0, or 1 with an exception. */
static int set_entry(PyObject *dict, uint32_t id, PyObject *value)
{
    PyObject *key = PyLong_FromUnsignedLong(id);
    int failed = !key || PyDict_SetItem(dict, key, value);
    Py_XDECREF(key);
    Py_DECREF(value);
    return failed;
}

static int add_route(uint32_t id, void *stream, void *dict)
{
    PyObject *link = mg_link_of(stream);
    return link ? set_entry(dict, id, link) : 0;
}

/* _routes() -> {context id: Link} */
static PyObject *router_routes(PyObject *obj, PyObject *unused)
{
    (void) unused;
    return table_dict(obj, MG_ROUTES, add_route);
}

/* _stats() -> dict */
static PyObject *router_stats(PyObject *obj, PyObject *unused)
{
    (void) unused;
    mg_router *r = need_router(obj);
    mg_router_stats stats;
    if (!r)
        return NULL;
    if (mg_router_get_stats(r, &stats) != MG_OK)
        return PyErr_NoMemory();
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

/* --- handlers --- */

/* The receiver whose own queue `fn` fills, when it is one of ours and does nothing else with messages; borrowed. */
static ReceiverObject *receiver_of(mg_state *st, PyObject *fn)
{
    if (!PyCFunction_Check(fn))
        return NULL;
    PyObject *self = PyCFunction_GET_SELF(fn);
    if (!self || !PyObject_TypeCheck(self, st->Receiver) ||
        strcmp(((PyCFunctionObject *) fn)->m_ml->ml_name, "_on_receive") != 0)
        return NULL;
    return (ReceiverObject *) self;
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

static PyObject *router_add_handler(PyObject *obj, PyObject *args, PyObject *kwargs)
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
           PyCFunction_GET_FUNCTION(fn) == (PyCFunction) (void (*)(void)) router_add_handler;
}

PyObject *mg_add_handler(PyObject *router, PyObject *fn, PyObject *handle, int persist, PyObject *policy,
                         PyObject *respondent, int overwrite)
{
    mg_state *st = ((RouterObject *) router)->st;
    mg_router *r = need_router(router);
    uint32_t number = 0;
    int given = r ? PyObject_IsTrue(handle) : -1;
    if (given < 0 || (given && id_arg(handle, &number)))
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
        if (!id || id_arg(id, &value)) {
            Py_XDECREF(id);
            goto error;
        }
        Py_DECREF(id);
        h->respondent = (int64_t) value;
        if (watch_respondent(router, st, respondent))
            goto error;
    }
    ReceiverObject *recv = receiver_of(st, fn);
    if (recv)
        h->latch = mg_latch_ref(recv->latch);
    PyObject *entry = PyTuple_Pack(5, router, fn, policy, persist ? Py_True : Py_False, respondent);
    h->owner = entry ? mg_later_new(entry) : NULL;
    h->drop_owner = h->owner ? mg_later_decref : NULL;
    Py_XDECREF(entry);
    if (!h->owner)
        goto error;
    mg_err err = mg_router_add_handler(r, h, number, overwrite);
    if (err != MG_OK) {
        if (err == MG_EEXIST)
            PyErr_SetObject(st->Error, st->duplicate_handle_msg);
        else
            PyErr_NoMemory();
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

static PyObject *router_del_handler(PyObject *obj, PyObject *arg)
{
    mg_router *r = need_router(obj);
    uint32_t number;
    if (!r)
        return NULL;
    if (!PyLong_Check(arg)) {
        PyErr_SetObject(PyExc_KeyError, arg);
        return NULL;
    }
    if (id_arg(arg, &number)) {
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

static PyObject *router_del_handler_named(PyObject *obj, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *arg = mg_one_arg("del_handler", "handle", args, n, names);
    return arg ? router_del_handler(obj, arg) : NULL;
}

/* Borrowed. */
static PyObject *entry_of(const mg_handler *h)
{
    return mg_handler_owner(h) ? mg_later_obj(mg_handler_owner(h)) : Py_None;
}

/* _take_handlers(respondent or None) -> [(handle, entry)]: removes them. Without memory all stay where they are. */
static PyObject *router_take_handlers(PyObject *obj, PyObject *arg)
{
    mg_router *r = need_router(obj);
    uint32_t id = 0;
    size_t n;
    if (!r || (arg != Py_None && id_arg(arg, &id)))
        return NULL;
    mg_entry *list = mg_router_take_handlers(r, arg == Py_None ? -1 : (int64_t) id, &n);
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
            mg_router_add_handler(r, list[i].value, list[i].id, 0); /* to the place it had just now */
        mg_handler_unref(list[i].value);
    }
    mg_free(list);
    mg_run_later();
    return result;
}

static int add_handler_entry(uint32_t handle, void *handler, void *dict)
{
    return set_entry(dict, handle, Py_NewRef(entry_of(handler)));
}

static PyObject *get_handle_map(PyObject *obj, void *closure)
{
    (void) closure;
    return table_dict(obj, MG_HANDLERS, add_handler_entry);
}

/* --- the way of a message --- */

/* A thread that fills a stream faster than it empties waits here, without the GIL. The broker's thread never does. */
static int wait_room(RouterObject *self, mg_stream *out)
{
    if (((LoopObject *) self->loop_object)->attendant == PyThread_get_thread_ident())
        return 0;
    for (;;) {
        mg_err err;
        Py_BEGIN_ALLOW_THREADS err = mg_stream_wait_room(out);
        Py_END_ALLOW_THREADS if (err == MG_OK) return 0;
        if (PyErr_CheckSignals())
            return -1;
    }
}

static PyObject *none_or_no_memory(mg_err err)
{
    if (err == MG_ENOMEM)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* The same object goes to a handler of this process; nothing is serialised. */
static PyObject *route_here(RouterObject *self, MessageObject *m, const mg_hdr *hdr)
{
    mg_router *r = self->router;
    mg_handler *h;
    mg_reason why;
    if (mg_router_claim(r, hdr, &h, &why) != MG_OK)
        return none_or_no_memory(mg_router_dead(r, hdr, why, 1, NULL, 0, 0, 0));
    if (h->latch && h->policy != MG_POLICY_ASK) {
        mg_hdr sized = *hdr;
        sized.len = (uint32_t) mg_message_size(m);
        mg_item item = {Py_NewRef(m), MG_ITEM_OBJECT, mg_frame_counts(&sized)};
        mg_err err = mg_push_item(h->latch, item, NULL);
        int took = err == MG_OK;
        if (err == MG_EFULL)
            err = mg_router_overflow(r, h->latch, hdr, NULL);
        mg_handler_unref(h);
        if (took)
            Py_RETURN_NONE;
        Py_DECREF(m);
        if (err == MG_ECLOSED)
            err = mg_router_dead(r, hdr, MG_REASON_INVALID_HANDLE, 1, NULL, 0, 0, 0);
        return none_or_no_memory(err);
    }
    if (((LoopObject *) self->loop_object)->attendant == PyThread_get_thread_ident()) {
        PyObject *entry = Py_NewRef(mg_later_obj(h->owner));
        mg_handler_unref(h);
        PyObject *result =
            PyObject_CallMethodObjArgs((PyObject *) self, self->st->str_deliver, entry, (PyObject *) m, Py_None, NULL);
        Py_DECREF(entry);
        return result;
    }
    mg_event ev = {.kind = MG_EV_OBJECT, .a = h, .b = Py_NewRef(m)};
    if (mg_loop_push_event(r->loop, &ev) != MG_OK) {
        mg_handler_unref(h);
        Py_DECREF(m);
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *router_route(PyObject *obj, PyObject *arg)
{
    RouterObject *self = (RouterObject *) obj;
    mg_state *st = self->st;
    mg_router *r = need_router(obj);
    mg_hdr hdr;
    if (!r)
        return NULL;
    if (!PyObject_TypeCheck(arg, st->Message))
        return PyErr_Format(PyExc_TypeError, "a Message is needed, not %.100s", Py_TYPE(arg)->tp_name);
    MessageObject *m = (MessageObject *) arg;
    if (mg_loop_closed(r->loop)) {
        PyErr_SetObject(st->Error, st->broker_shutdown_msg);
        return NULL;
    }
    if (mg_message_hdr(m, &hdr))
        return NULL;
    if ((uint64_t) mg_message_size(m) > mg_router_max_size(r))
        return none_or_no_memory(mg_router_dead(r, &hdr, MG_REASON_TOO_LARGE, 0, NULL, mg_router_max_size(r), 0, 0));
    if (!m->dst_id || m->dst_id == Py_None || !m->handle || m->handle == Py_None)
        return none_or_no_memory(mg_router_dead(r, &hdr, MG_REASON_INVALID_HANDLE, 1, NULL, 0, 0, 0));
    if (hdr.dst_id == mg_router_own_id(r))
        return route_here(self, m, &hdr);

    mg_frame *f = mg_message_frame(m);
    mg_stream *out = NULL;
    if (!f)
        return NULL;
    mg_err err;
    if (hdr.len <
        MG_CODEC_BYREF) /* a short write to a descriptor that does not block: cheaper than letting go of the GIL */
        err = mg_router_route(r, f, &out);
    else {
        Py_BEGIN_ALLOW_THREADS mg_fork_enter();
        err = mg_router_route(r, f, &out);
        mg_fork_leave();
        Py_END_ALLOW_THREADS mg_run_later();
    }
    /* not for a log record: who sends one holds a lock of `logging`, which the broker's thread may want */
    int bad = out && hdr.handle != MG_FORWARD_LOG && mg_stream_full(out) && wait_room(self, out);
    mg_stream_unref(out);
    return bad ? NULL : none_or_no_memory(err);
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
    {"add_handler", (PyCFunction) (void (*)(void)) router_add_handler, METH_VARARGS | METH_KEYWORDS,
     "add_handler(fn, handle=None, persist=True, policy=None, respondent=None, overwrite=False) -> handle. fn(message) "
     "is called on the\n"
     "broker's thread. Error when the handle is taken. Any thread."},
    {"del_handler", (PyCFunction) (void (*)(void)) router_del_handler_named, METH_FASTCALL | METH_KEYWORDS,
     "del_handler(handle). KeyError. Any thread."},
    {"_take_handlers", router_take_handlers, METH_O,
     "_take_handlers(respondent_id or None) -> [(handle, entry)], removed"},
    {"route", (PyCFunction) (void (*)(void)) router_route_named, METH_FASTCALL | METH_KEYWORDS,
     "route(msg): send it on its way. Any thread. Error after the broker's end."},
    {NULL, NULL, 0, NULL}};

static PyMemberDef router_members[] = {
    {"_loop", T_OBJECT, offsetof(RouterObject, loop_object), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(RouterObject, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(RouterObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyGetSetDef router_getset[] = {{"_handle_map", get_handle_map, NULL, "A copy: {handle: entry}.", NULL},
                                      {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
                                      {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot router_slots[] = {{Py_tp_new, router_new},
                                     {Py_tp_dealloc, router_dealloc},
                                     {Py_tp_traverse, router_traverse},
                                     {Py_tp_clear, router_clear},
                                     {Py_tp_methods, router_methods},
                                     {Py_tp_members, router_members},
                                     {Py_tp_getset, router_getset},
                                     {Py_tp_doc, "Routes, handles, and who may do what."},
                                     {0, NULL}};
PyType_Spec mg_router_spec = {"_mitogen_core.Router", sizeof(RouterObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, router_slots};
