/* Answers to many calls, which arrive at one receiver and are given to futures, all at once. For a
 * thread that waits in a loop of its own, such as that of asyncio. */
#ifndef MG_ANSWERS_H
#define MG_ANSWERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Functions of the module; their docstrings are in module.c. `pending` is a dictionary, handle ->
 * future, that only the thread of the loop uses. */
PyObject *mg_answers_bell(PyObject *module, PyObject *receiver);
PyObject *mg_answers_tell_once(PyObject *module, PyObject *receiver);
PyObject *mg_answers_ask(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *mg_answers_settle(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *mg_answers_glance(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *mg_answers_call(PyObject *module, PyObject *const *args, Py_ssize_t n);

#endif
