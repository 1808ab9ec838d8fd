/* The handlers of a Router: functions, and queues of receivers, by handle. */
#ifndef MG_ROUTER_HANDLERS_H
#define MG_ROUTER_HANDLERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Registers a function, or the queue of the receiver whose method that is. router: a Router of
 * ours. asks: a message to the respondent follows, so an answer or a dead message comes even if
 * the respondent is lost already. The handle as an int, or NULL with an exception. */
PyObject *mg_add_handler(PyObject *router, PyObject *fn, PyObject *handle, int persist, PyObject *policy,
                         PyObject *respondent, int overwrite, int asks);

/* Whether a function is the add_handler of that Router of ours, which nobody has replaced. */
int mg_is_add_handler(PyObject *fn, PyObject *router);

/* Methods and attributes of the type Router. */
PyObject *mg_handlers_add(PyObject *router, PyObject *args, PyObject *kwargs);
PyObject *mg_handlers_del(PyObject *router, PyObject *const *args, Py_ssize_t n, PyObject *names);
/* (respondent_id or None) -> [(handle, entry)]: removes the handlers. If memory is out, it
 * removes none. */
PyObject *mg_handlers_take(PyObject *router, PyObject *respondent_id);
/* {handle: entry} */
PyObject *mg_handlers_map(PyObject *router, void *closure);

#endif
