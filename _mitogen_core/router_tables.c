#include "router_tables.h"

#include "counterpart.h"
#include "errors.h"

PyObject *mg_table_dict(PyObject *router, mg_table what, mg_visit *add)
{
    mg_router *r = mg_need_router(router);
    PyObject *dict = r ? PyDict_New() : NULL;
    mg_err err = dict ? mg_router_snapshot(r, what, NULL, add, dict) : MG_OK;
    if (err != MG_OK)
        mg_raise(((RoutedObject *) router)->st, err);
    if (PyErr_Occurred())
        Py_CLEAR(dict);
    return dict;
}

int mg_set_entry(PyObject *dict, uint32_t id, PyObject *value)
{
    PyObject *key = PyLong_FromUnsignedLong(id);
    int failed = !key || PyDict_SetItem(dict, key, value);
    Py_XDECREF(key);
    Py_DECREF(value);
    return failed;
}
