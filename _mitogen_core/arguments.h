/* Arguments of methods: ids and times. Each function returns 0, or -1 with an exception, unless
 * it says otherwise. */
#ifndef MG_ARGUMENTS_H
#define MG_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

/* The argument of a method that takes exactly one, by place or by name (METH_FASTCALL |
 * METH_KEYWORDS). Borrowed; NULL with TypeError when it was called otherwise. */
static inline PyObject *mg_one_arg(const char *method, const char *name, PyObject *const *args, Py_ssize_t n,
                                   PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (n + named == 1 && (n == 1 || !PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), name)))
        return args[0];
    return PyErr_Format(PyExc_TypeError, "%s() takes one argument, %s", method, name);
}

/* The number of a context or of a handle: an int of 32 bits, else OverflowError or TypeError
 * with its name. */
int mg_parse_id(PyObject *arg, const char *name, uint32_t *id);

/* The number to look for: 1; 0 when it is out of that range, so that nothing has it; -1 with
 * TypeError when it is none. */
int mg_find_id(PyObject *arg, uint32_t *id);

/* mg_parse_id as a converter for "O&" of PyArg_ParseTuple. */
typedef struct {
    const char *name; /* in: of the argument */
    uint32_t value;   /* out */
} mg_id_arg;
int mg_id_converter(PyObject *arg, void *id_arg);

/* When a timeout in seconds ends; None never does. */
int mg_parse_timeout(PyObject *timeout, int64_t *deadline);

/* Seconds since a mark of mg_now(), or None where that is 0. New reference, or NULL with an
 * exception. */
PyObject *mg_age(int64_t mark);

#endif
