/* References to Python objects that end where no GIL is held: they are dropped the next time
 * that a thread has it.
 *
 * The engine keeps some Python objects alive: an item in a latch, the owner of a handler, the
 * memory of a large argument. The last reference to these may go on any thread. There is one
 * list of them, as there is one interpreter that has the module. */
#ifndef MG_LATER_H
#define MG_LATER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* A reference, and the place to remember it in when it ends, so that its end cannot fail. */
typedef struct mg_later mg_later;

/* Takes a reference of its own; NULL with MemoryError. */
mg_later *mg_later_new(PyObject *obj);

/* The object, borrowed. */
PyObject *mg_later_obj(mg_later *later);

/* Drops the reference of an mg_later, which is void here to fit the engine's release functions.
 * Any thread, with the GIL or without. */
void mg_later_decref(void *later);

/* Drops a plain reference, which has no place of its own to wait in: without memory it is
 * leaked. */
void mg_decref_anywhere(PyObject *obj);

/* Drops the references that wait. With the GIL; may run any Python code. */
void mg_run_later(void);

#endif
