/* _mitogen_core: the module, its state, and what the Python layer tells it once. */
#include "binding.h"

#ifndef MITOGEN_VERSION
#define MITOGEN_VERSION "unknown"
#endif

static mg_state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

mg_state *mg_state_of_type(PyTypeObject *type)
{
#if PY_VERSION_HEX >= 0x030B0000
    PyObject *module = PyType_GetModuleByDef(type, &mg_module_def);
    return module ? state_of(module) : NULL;
#else
    PyObject *mro = type->tp_mro;
    for (Py_ssize_t i = 0; mro && i < PyTuple_GET_SIZE(mro); i++) {
        PyTypeObject *base = (PyTypeObject *) PyTuple_GET_ITEM(mro, i);
        if (!(base->tp_flags & Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = ((PyHeapTypeObject *) base)->ht_module;
        if (module && PyModule_GetDef(module) == &mg_module_def)
            return state_of(module);
    }
    PyErr_Format(PyExc_TypeError, "%.100s is not a type of _mitogen_core", type->tp_name);
    return NULL;
#endif
}

int mg_need_configured(mg_state *st)
{
    if (st->configured)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "_mitogen_core is used through mitogen.core: import that first");
    return -1;
}

/* clang-format off */

/* What configure() takes, besides what the codec takes. */
#define CONFIGURED(X) \
    X(message_type) X(receiver_type) \
    X(TimeoutError) X(LatchError) X(ChannelError) X(Error) X(StreamError) X(CallError) \
    X(has_parent_authority) X(slow_unpickle) X(dead_text) \
    X(broker_shutdown_msg) X(latch_closed_msg) X(duplicate_handle_msg)

/* The rest of the objects in the state. */
#define INTERNAL(X) \
    X(own_id) X(empty_bytes) X(enc_mgc) X(enc_pkl) X(zero) \
    X(str_on_receive) X(str_deliver) X(str_respondent_of) X(str_watch_respondent) X(str_route) X(str_send) \
    X(str_add_handler) \
    X(neighbour_policies)

/* clang-format on */

#define TYPES(X) X(Message) X(Latch) X(Receiver) X(Sender) X(Context) X(Router) X(Link) X(Loop) X(Watch)

static PyObject *configure(PyObject *module, PyObject *dict)
{
    mg_state *st = state_of(module);
    if (!PyDict_Check(dict))
        return PyErr_Format(PyExc_TypeError, "a dict is needed");
#define TAKE(name)                                                                                                     \
    do {                                                                                                               \
        PyObject *value = PyDict_GetItemString(dict, #name);                                                           \
        if (!value)                                                                                                    \
            return PyErr_Format(PyExc_KeyError, "configure() needs %s", #name);                                        \
        Py_XSETREF(st->name, Py_NewRef(value));                                                                        \
    } while (0);
    CONFIGURED(TAKE)
#undef TAKE
    if (!PyType_Check(st->message_type) || !PyType_IsSubtype((PyTypeObject *) st->message_type, st->Message))
        return PyErr_Format(PyExc_TypeError, "message_type must be a subclass of _mitogen_core.Message");
    if (!PyType_Check(st->receiver_type) || !PyType_IsSubtype((PyTypeObject *) st->receiver_type, st->Receiver))
        return PyErr_Format(PyExc_TypeError, "receiver_type must be a subclass of _mitogen_core.Receiver");
    if (mg_codec_configure(&st->codec, dict))
        return NULL;
    st->configured = 1;
    Py_RETURN_NONE;
}

static PyObject *set_neighbour_policies(PyObject *module, PyObject *policies)
{
    mg_state *st = state_of(module);
    if (!PyTuple_Check(policies))
        return PyErr_Format(PyExc_TypeError, "a tuple of functions is needed");
    Py_XSETREF(st->neighbour_policies, Py_NewRef(policies));
    Py_RETURN_NONE;
}

static PyObject *set_own_id(PyObject *module, PyObject *id)
{
    mg_state *st = state_of(module);
    Py_XSETREF(st->own_id, Py_NewRef(id));
    Py_RETURN_NONE;
}

static PyObject *set_spin(PyObject *module, PyObject *arg)
{
    (void) module;
    double seconds = PyFloat_AsDouble(arg);
    if (seconds == -1.0 && PyErr_Occurred())
        return NULL;
    mg_spin_set((int64_t) (seconds * 1e9));
    Py_RETURN_NONE;
}

static PyObject *run_later(PyObject *module, PyObject *unused)
{
    (void) module, (void) unused;
    mg_run_later();
    Py_RETURN_NONE;
}

/* In C, as a whole: a signal handler of Python's, or the garbage collector, must not come between. */
static PyObject *before_fork(PyObject *module, PyObject *unused)
{
    (void) module, (void) unused;
    int first;
    Py_BEGIN_ALLOW_THREADS first = mg_fork_begin();
    Py_END_ALLOW_THREADS if (!first) Py_RETURN_NONE;
    do {
        Py_BEGIN_ALLOW_THREADS while (mg_loops_acquire());
        Py_END_ALLOW_THREADS
    } while (!mg_loops_are_acquired()); /* others may have made one meanwhile */
    mg_fork_shut();
    Py_RETURN_NONE;
}

static PyObject *after_fork(PyObject *module, PyObject *unused)
{
    (void) module, (void) unused;
    mg_fork_parent();
    Py_RETURN_NONE;
}

static PyObject *after_fork_child(PyObject *module, PyObject *unused)
{
    (void) module, (void) unused;
    mg_fork_child();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"configure", configure, METH_O,
     "configure(dict): the classes and functions of mitogen.core that the native code uses."},
    {"set_neighbour_policies", set_neighbour_policies, METH_O,
     "The policy functions that mean: src_id is the stream's neighbour."},
    {"set_own_id", set_own_id, METH_O, "mitogen.context_id, for new messages."},
    {"set_spin", set_spin, METH_O, "How long a thread polls before it sleeps, in seconds; 0 switches that off."},
    {"before_fork", before_fork, METH_NOARGS, "For os.register_at_fork: no thread is inside the engine from now on."},
    {"after_fork", after_fork, METH_NOARGS, "The same, in the parent."},
    {"after_fork_child", after_fork_child, METH_NOARGS, "The same, in the child, which gives all loops up."},
    {"_run_later", run_later, METH_NOARGS, "Drop references that ended without the GIL."},
    {NULL, NULL, 0, NULL}};

static int module_exec(PyObject *module)
{
    mg_state *st = state_of(module);
#define MAKE(name, spec)                                                                                               \
    if (!(st->name = (PyTypeObject *) PyType_FromModuleAndSpec(module, &(spec), NULL)) ||                              \
        PyModule_AddObjectRef(module, #name, (PyObject *) st->name))                                                   \
        return -1;
    MAKE(Message, mg_message_spec)
    MAKE(Latch, mg_latch_spec)
    MAKE(Receiver, mg_receiver_spec)
    MAKE(Sender, mg_sender_spec)
    MAKE(Context, mg_context_spec)
    MAKE(Router, mg_router_spec)
    MAKE(Link, mg_link_spec)
    MAKE(Loop, mg_loop_spec)
    MAKE(Watch, mg_watch_spec)
#undef MAKE
    st->own_id = PyLong_FromLong(0);
    st->zero = PyLong_FromLong(0);
    st->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    st->enc_mgc = PyLong_FromLong(MG_ENC_MGC);
    st->enc_pkl = PyLong_FromLong(MG_ENC_PKL);
    st->str_on_receive = PyUnicode_InternFromString("_on_receive");
    st->str_deliver = PyUnicode_InternFromString("_deliver");
    st->str_route = PyUnicode_InternFromString("route");
    st->str_send = PyUnicode_InternFromString("send");
    st->str_add_handler = PyUnicode_InternFromString("add_handler");
    st->str_respondent_of = PyUnicode_InternFromString("_respondent_of");
    st->str_watch_respondent = PyUnicode_InternFromString("_watch_respondent");
    if (!st->own_id || !st->zero || !st->empty_bytes || !st->enc_mgc || !st->enc_pkl || !st->str_on_receive ||
        !st->str_deliver || !st->str_respondent_of || !st->str_watch_respondent || !st->str_route || !st->str_send ||
        !st->str_add_handler)
        return -1;
#define CONSTANT(name, value)                                                                                          \
    if (PyModule_AddIntConstant(module, name, value))                                                                  \
        return -1;
    CONSTANT("EV_FRAME", MG_EV_FRAME)
    CONSTANT("EV_HOOK", MG_EV_HOOK)
    CONSTANT("EV_GONE", MG_EV_GONE)
    CONSTANT("EV_BAD", MG_EV_BAD)
    CONSTANT("EV_REFUSED", MG_EV_REFUSED)
    CONSTANT("EV_IO", MG_EV_IO)
    CONSTANT("EV_NOTIFY", MG_EV_NOTIFY)
    CONSTANT("EV_CALL", MG_EV_CALL)
    CONSTANT("HIGH_WATER", MG_HIGH_WATER)
#undef CONSTANT
    return PyModule_AddStringConstant(module, "__version__", MITOGEN_VERSION);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    mg_state *st = state_of(module);
    if (!st)
        return 0;
#define VISIT(name) Py_VISIT(st->name);
    TYPES(VISIT)
    CONFIGURED(VISIT)
    INTERNAL(VISIT)
#undef VISIT
    return mg_codec_traverse(&st->codec, visit, arg);
}

static int module_clear(PyObject *module)
{
    mg_state *st = state_of(module);
    if (!st)
        return 0;
#define CLEAR(name) Py_CLEAR(st->name);
    TYPES(CLEAR)
    CONFIGURED(CLEAR)
    INTERNAL(CLEAR)
#undef CLEAR
    mg_codec_clear(&st->codec);
    st->configured = 0;
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
                                   {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
                                   {0, NULL}};

struct PyModuleDef mg_module_def = {PyModuleDef_HEAD_INIT, "_mitogen_core", "The message path of Mitogen, in C.",
                                    sizeof(mg_state),      functions,       slots,
                                    module_traverse,       module_clear,    module_free};

PyMODINIT_FUNC PyInit__mitogen_core(void)
{
    return PyModuleDef_Init(&mg_module_def);
}
