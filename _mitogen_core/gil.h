/* Releasing the GIL for calls that may block. */
#ifndef MG_GIL_H
#define MG_GIL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loop/loop.h"

/* Carries out one statement without the GIL. No jump may leave it. */
#define MG_WITHOUT_GIL(statement)                                                                                      \
    do {                                                                                                               \
        PyThreadState *mg_saved = PyEval_SaveThread();                                                                 \
        statement;                                                                                                     \
        PyEval_RestoreThread(mg_saved);                                                                                \
    } while (0)

/* Calls fn while no other thread runs the loop: at once if none does, else without the GIL, so
 * that no thread ever holds a loop while it wants the GIL. So fn touches no Python object. */
void mg_with_loop(mg_loop *loop, void (*fn)(void *arg), void *arg);

#endif
