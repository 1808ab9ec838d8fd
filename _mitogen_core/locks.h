/* Locks that there are only without a GIL: with it, no two threads are in our code at once.
 *
 * A thread that waits for one lets others stop it, as at the GIL. So they may be held where
 * objects of Python are used, but not where code of a program may run. */
#ifndef MG_LOCKS_H
#define MG_LOCKS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
typedef PyMutex mg_lock; /* zero: free */
#define MG_LOCK(lock)   PyMutex_Lock(lock)
#define MG_UNLOCK(lock) PyMutex_Unlock(lock)
#else
typedef struct {
    char unused;
} mg_lock;
#define MG_LOCK(lock)   ((void) (lock))
#define MG_UNLOCK(lock) ((void) (lock))
#endif

#endif
