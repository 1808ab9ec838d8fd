/* Tables of a router as dictionaries. */
#ifndef MG_ROUTER_TABLES_H
#define MG_ROUTER_TABLES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include "net/router.h"

/* The dictionary of all entries of a table of a Router of ours; add puts one in, or returns 1
 * with an exception. New reference, or NULL with an exception. */
PyObject *mg_table_dict(PyObject *router, mg_table what, mg_visit *add);

/* Sets dict[id] = value, whose reference is taken over. Returns 0, or 1 with an exception. */
int mg_set_entry(PyObject *dict, uint32_t id, PyObject *value);

#endif
