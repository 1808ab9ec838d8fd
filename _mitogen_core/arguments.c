#include "arguments.h"

#include "base/clock.h"

int mg_find_id(PyObject *arg, uint32_t *id)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(arg, &overflow);
    if (value == -1 && PyErr_Occurred())
        return -1;
    *id = (uint32_t) value;
    return !overflow && value >= 0 && value <= UINT32_MAX;
}

int mg_parse_id(PyObject *arg, const char *name, uint32_t *id)
{
    int found = mg_find_id(arg, id);
    if (!found)
        PyErr_Format(PyExc_OverflowError, "%s must be a number from 0 to %lu, not %R", name, (unsigned long) UINT32_MAX,
                     arg);
    return found > 0 ? 0 : -1;
}

int mg_id_converter(PyObject *arg, void *id_arg)
{
    mg_id_arg *id = id_arg;
    return !mg_parse_id(arg, id->name, &id->value);
}

int mg_parse_timeout(PyObject *timeout, int64_t *deadline)
{
    *deadline = MG_NEVER;
    if (!timeout || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (seconds != seconds) {
        PyErr_SetString(PyExc_ValueError, "a timeout must be a number of seconds, not NaN");
        return -1;
    }
    *deadline = mg_deadline(seconds);
    return 0;
}

PyObject *mg_age(int64_t mark)
{
    if (!mark)
        Py_RETURN_NONE;
    int64_t age = mg_now() - mark;
    return PyFloat_FromDouble(age > 0 ? (double) age / 1e9 : 0.);
}
