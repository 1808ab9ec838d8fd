#include "callee.h"

#include "compat.h"
#include "fields.h"

/* New reference, or NULL, with an exception or without. */
static PyObject *item(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    return PyDict_GetItemRef(dict, key, &value) > 0 ? value : NULL;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/* Whether a module has this value under this name: 1, 0, or -1 with an exception. */
static int module_has(PyObject *module_name, PyObject *name, PyObject *value)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *module = PyDict_CheckExact(modules) ? item(modules, module_name) : NULL;
    PyObject *found = module && PyModule_CheckExact(module) ? item(PyModule_GetDict(module), name) : NULL;
    int is = found == value;
    Py_XDECREF(found);
    Py_XDECREF(module);
    return is ? 1 : PyErr_Occurred() ? -1 : 0;
}

/* The main program may have no source that a child can be sent. */
static int is_named(PyObject *module, PyObject *name)
{
    return module && PyUnicode_CheckExact(module) && PyUnicode_CheckExact(name) &&
           PyUnicode_CompareWithASCIIString(module, "__main__") && PyUnicode_CompareWithASCIIString(name, "<lambda>");
}

PyObject *mg_callee_names(PyObject *unused, PyObject *function)
{
    (void) unused;
    if (!PyFunction_Check(function))
        Py_RETURN_NONE;
    PyFunctionObject *f = (PyFunctionObject *) function;
    PyObject *module = mg_field(function, &f->func_module), *name = mg_field(function, &f->func_name);
    int is_plain = !f->func_closure && !f->func_dict && is_named(module, name);
    int has = is_plain ? module_has(module, name, function) : 0;
    PyObject *names = has > 0 ? PyTuple_Pack(3, module, Py_None, name) : has == 0 ? Py_NewRef(Py_None) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(name);
    return names;
}
