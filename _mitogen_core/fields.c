#include "fields.h"

#include <stdint.h>

static PyObject **field_at(PyObject *obj, void *offset)
{
    return (PyObject **) ((char *) obj + (uintptr_t) offset);
}

PyObject *mg_get_field(PyObject *obj, void *offset)
{
    PyObject *value = mg_field(obj, field_at(obj, offset));
    return value ? value : Py_NewRef(Py_None);
}

int mg_set_field(PyObject *obj, PyObject *value, void *offset)
{
    mg_put_field(obj, field_at(obj, offset), Py_XNewRef(value));
    return 0;
}
