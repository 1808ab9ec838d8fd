/* The module's state: objects that its types and functions share. */
#ifndef MG_MODULE_STATE_H
#define MG_MODULE_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "codec/config.h"
#include "compat.h"

/* clang-format off */

/* Our types. */
#define MG_STATE_TYPES(X) X(Message) X(Latch) X(Receiver) X(Sender) X(Context) X(Router) X(Link) X(Loop) X(Watch) \
    X(Socket)

/* Given by mitogen.core to configure(); NULL before.
 *   message_type, receiver_type: the classes of received messages, and of the receivers that
 *     send_async makes
 *   has_parent_authority: a policy that the engine knows by itself
 *   slow_unpickle: (message, find_class) -> object, for look-ups of the caller's own
 *   dead_text: (message) -> text of the ChannelError */
#define MG_STATE_CONFIGURED(X) \
    X(message_type) X(receiver_type) \
    X(TimeoutError) X(LatchError) X(ChannelError) X(Error) X(StreamError) X(CallError) \
    X(has_parent_authority) X(slow_unpickle) X(dead_text) \
    X(broker_shutdown_msg) X(latch_closed_msg) X(duplicate_handle_msg)

/* Objects of our own.
 *   own_id: mitogen.context_id, for new messages
 *   neighbour_policies: a tuple of the policies that mean "src_id is the stream's neighbour", or NULL
 *   value_check: (context, value), which raises for a value that must not be sent there; or NULL
 *   replaced: a list of the objects that mg_state_replace() has replaced, or NULL */
#define MG_STATE_INTERNAL(X) \
    X(own_id) X(neighbour_policies) X(value_check) X(empty_bytes) X(enc_mgc) X(enc_pkl) X(zero) \
    X(str_on_receive) X(str_deliver) X(str_respondent_of) X(str_watch_respondent) X(str_route) X(str_send) \
    X(str_add_handler) X(str_unwaiting) X(str_pop) X(str_set_result) X(replaced)

/* clang-format on */

/* All pointers are strong references. */
typedef struct mg_state {
#define MG_TYPE(name)   PyTypeObject *name;
#define MG_OBJECT(name) PyObject *name;
    MG_STATE_TYPES(MG_TYPE)
    MG_STATE_CONFIGURED(MG_OBJECT)
    MG_STATE_INTERNAL(MG_OBJECT)
#undef MG_TYPE
#undef MG_OBJECT
    mg_codec codec;
    int configured;
} mg_state;

/* Makes the objects of our own, the types excepted: 0, or -1 with an exception. For a fresh
 * state, all zero. */
int mg_state_init(mg_state *st);

/* Takes what configure() is given: 0, or -1 with an exception. */
int mg_state_configure(mg_state *st, PyObject *dict);

/* Puts value in place of a member, which other threads may read meanwhile, but must not replace:
 * 0, or -1 with an exception. */
int mg_state_replace(mg_state *st, PyObject **slot, PyObject *value);

/* A member that may be replaced: borrowed, or NULL, for as long as the caller does not let
 * others run, and without a GIL for as long as the module lives. */
static inline PyObject *mg_state_look(PyObject *const *slot)
{
    return __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

/* mg_state_look as a new reference. */
static inline PyObject *mg_state_get(PyObject *const *slot)
{
    return Py_XNewRef(mg_state_look(slot));
}

/* For the module's m_traverse and m_clear. */
int mg_state_traverse(mg_state *st, visitproc visit, void *arg);
void mg_state_clear(mg_state *st);

/* The definition of the module, to which each of our types belongs. */
extern struct PyModuleDef mg_module_def;

/* The state behind a type of ours, subclasses included; NULL with an exception. */
mg_state *mg_state_of_type(PyTypeObject *type);

/* 0, or -1 with RuntimeError until configure() has run. */
int mg_need_configured(mg_state *st);

#endif
