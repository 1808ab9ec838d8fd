/* Letting go of the GIL for what may block. */
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

/* mg_loop_acquire for a thread with the GIL, which is dropped if there is anything to wait for: the leader may be a
 * thread that holds the loop from Python and needs the GIL to give it back. Ended by mg_loop_release. */
void mg_acquire_loop(mg_loop *loop);

#endif
