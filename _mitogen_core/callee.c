#include "callee.h"

#include "compat.h"

/* Whether a module has this value under this name: 1, 0, or -1 with an exception. */
static int module_has(PyObject *module_name, PyObject *name, PyObject *value)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed, and so is what is found in it */
    PyObject *module = PyDict_CheckExact(modules) ? PyDict_GetItemWithError(modules, module_name) : NULL;
    PyObject *dict = module && PyModule_CheckExact(module) ? PyModule_GetDict(module) : NULL;
    PyObject *found = dict ? PyDict_GetItemWithError(dict, name) : NULL;
    return found ? found == value : PyErr_Occurred() ? -1 : 0;
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
    if (f->func_closure || f->func_dict || !is_named(f->func_module, f->func_name))
        Py_RETURN_NONE;
    PyObject *module = Py_NewRef(f->func_module), *name = Py_NewRef(f->func_name);
    int has = module_has(module, name, function);
    PyObject *names = has > 0 ? PyTuple_Pack(3, module, Py_None, name) : has == 0 ? Py_NewRef(Py_None) : NULL;
    Py_DECREF(module);
    Py_DECREF(name);
    return names;
}
