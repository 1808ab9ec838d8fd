/* _mitogen_core: the module, and what the Python layer tells it once. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "answers.h"
#include "binding_event_kinds.h"
#include "callee.h"
#include "context_object.h"
#include "gil.h"
#include "latch_object.h"
#include "later.h"
#include "link_object.h"
#include "loop/loop.h"
#include "loop_object.h"
#include "message_object.h"
#include "module_state.h"
#include "receiver_object.h"
#include "router_object.h"
#include "sender_object.h"
#include "socket_object.h"
#include "sync/spin.h"
#include "watch_object.h"

#ifndef MITOGEN_VERSION
#define MITOGEN_VERSION "unknown"
#endif

static mg_state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static PyObject *replaced(mg_state *st, PyObject **slot, PyObject *value)
{
    if (mg_state_replace(st, slot, value))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *configure(PyObject *module, PyObject *dict)
{
    if (mg_state_configure(state_of(module), dict))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *set_neighbour_policies(PyObject *module, PyObject *policies)
{
    mg_state *st = state_of(module);
    if (!PyTuple_Check(policies))
        return PyErr_Format(PyExc_TypeError, "a tuple of functions is needed");
    return replaced(st, &st->neighbour_policies, policies);
}

static PyObject *set_value_check(PyObject *module, PyObject *function)
{
    mg_state *st = state_of(module);
    return replaced(st, &st->value_check, function);
}

static PyObject *set_own_id(PyObject *module, PyObject *id)
{
    mg_state *st = state_of(module);
    return replaced(st, &st->own_id, id);
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

static PyObject *make_socket_pair(PyObject *module, PyObject *unused)
{
    (void) unused;
    return mg_socket_pair(state_of(module));
}

static PyMethodDef functions[] = {
    {"configure", configure, METH_O,
     "configure(dict): the classes and functions of mitogen.core that the native code uses."},
    {"set_value_check", set_value_check, METH_O,
     "set_value_check(f): f(context, value) is called before a Sender sends."},
    {"set_neighbour_policies", set_neighbour_policies, METH_O,
     "The policy functions that mean: src_id is the stream's neighbour."},
    {"set_own_id", set_own_id, METH_O, "mitogen.context_id, for new messages."},
    {"set_spin", set_spin, METH_O, "How long a thread polls before it sleeps, in seconds; 0 switches that off."},
    {"socketpair", make_socket_pair, METH_NOARGS, "socketpair() -> two connected ends, closed on exec. OSError."},
    {"callee_names", mg_callee_names, METH_O,
     "callee_names(f) -> (module, None, name) of a plain function that its name leads to, else None."},
    {"call_message", (PyCFunction) (void (*)(void)) mg_answers_call, METH_FASTCALL,
     "call_message(f, args, kwargs) -> the Message of a call outside of a chain, for a function that has\n"
     "callee_names, else None."},
    {"bell", mg_answers_bell, METH_O,
     "bell(receiver) -> a descriptor that is readable once a message waits that settle() was not called for."},
    {"ask", (PyCFunction) (void (*)(void)) mg_answers_ask, METH_FASTCALL,
     "ask(receiver, context, msg, pending, future) -> handle. Send a message whose answer is for a future."},
    {"settle", (PyCFunction) (void (*)(void)) mg_answers_settle, METH_FASTCALL,
     "settle(receiver, pending, other, method, limit): take the answers that have come, and call this method of\n"
     "their futures with the value, or other(future, msg) for one that is an error or longer than limit."},
    {"tell_once", mg_answers_tell_once, METH_O,
     "tell_once(receiver): call its `notify` once for all messages that come until settle() takes them."},
    {"glance", (PyCFunction) (void (*)(void)) mg_answers_glance, METH_FASTCALL,
     "glance(receiver, pending, other, polls): before the thread, which is that of the futures, waits for the\n"
     "bell, give it a moment if the only answer under way will come soon and polls is True."},
    {"_run_later", run_later, METH_NOARGS, "Drop references that ended without the GIL."},
    {NULL, NULL, 0, NULL}};

/* The loops, and the references that end without the GIL (later.h), are the process's: another
 * interpreter would be given objects of the first. mitogen.core uses the pure core there. */
static int need_main_interpreter(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError, "_mitogen_core is for the main interpreter only");
    return -1;
}

static int module_exec(PyObject *module)
{
    mg_state *st = state_of(module);
    if (need_main_interpreter())
        return -1;
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
    MAKE(Socket, mg_socket_spec)
#undef MAKE
    if (mg_state_init(st))
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
    return st ? mg_state_traverse(st, visit, arg) : 0;
}

static int module_clear(PyObject *module)
{
    mg_state *st = state_of(module);
    if (st)
        mg_state_clear(st);
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
#if PY_VERSION_HEX >= 0x030D0000
                                   {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                                   {0, NULL}};

struct PyModuleDef mg_module_def = {PyModuleDef_HEAD_INIT, "_mitogen_core", "The message path of Mitogen, in C.",
                                    sizeof(mg_state),      functions,       slots,
                                    module_traverse,       module_clear,    module_free};

PyMODINIT_FUNC PyInit__mitogen_core(void)
{
    return PyModuleDef_Init(&mg_module_def);
}
