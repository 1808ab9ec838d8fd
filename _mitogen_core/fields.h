/* References to objects that a program may replace while another thread reads them. Without a
 * GIL each is read and replaced within a critical section of the object that has it. */
#ifndef MG_FIELDS_H
#define MG_FIELDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>

#include "compat.h"

/* A new reference to the content of a field of obj, or NULL, without an exception, if it is
 * empty. */
static inline PyObject *mg_field(PyObject *obj, PyObject *const *field)
{
    PyObject *value;
    (void) obj;
    Py_BEGIN_CRITICAL_SECTION(obj);
    value = Py_XNewRef(*field);
    Py_END_CRITICAL_SECTION();
    return value;
}

/* Puts a value in a field, and takes over the reference to it; NULL empties the field. */
static inline void mg_put_field(PyObject *obj, PyObject **field, PyObject *value)
{
    PyObject *old;
    (void) obj;
    Py_BEGIN_CRITICAL_SECTION(obj);
    old = *field;
    *field = value;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
}

/* Whether a field holds that object, which need not exist any more. */
static inline int mg_field_is(PyObject *obj, PyObject *const *field, const void *value)
{
    int is;
    (void) obj;
    Py_BEGIN_CRITICAL_SECTION(obj);
    is = *field == value;
    Py_END_CRITICAL_SECTION();
    return is;
}

/* A field as an attribute: None where it holds nothing, and None when it was deleted. An entry
 * of a PyGetSetDef. */
PyObject *mg_get_field(PyObject *obj, void *offset);
int mg_set_field(PyObject *obj, PyObject *value, void *offset);
#define MG_FIELD_AS(name, type, member, doc) {name, mg_get_field, mg_set_field, doc, (void *) offsetof(type, member)}
#define MG_FIELD(type, member, doc)          MG_FIELD_AS(#member, type, member, doc)

#endif
