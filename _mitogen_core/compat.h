/* Names that older CPythons, from 3.9 on, do not have yet. */
#ifndef MG_COMPAT_H
#define MG_COMPAT_H

#include <Python.h>

#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *mg_new_ref(PyObject *obj)
{
    Py_INCREF(obj);
    return obj;
}
static inline PyObject *mg_xnew_ref(PyObject *obj)
{
    Py_XINCREF(obj);
    return obj;
}
#define Py_NewRef(obj)  mg_new_ref((PyObject *) (obj))
#define Py_XNewRef(obj) mg_xnew_ref((PyObject *) (obj))
static inline int PyModule_AddObjectRef(PyObject *mod, const char *name, PyObject *value)
{
    Py_XINCREF(value);
    int r = PyModule_AddObject(mod, name, value);
    if (r)
        Py_XDECREF(value);
    return r;
}
#endif

/* Before 3.13 there is a GIL always. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(obj) {
#define Py_END_CRITICAL_SECTION()      }
#endif

#endif
