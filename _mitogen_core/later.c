/* The references wait in a lock-free stack. */
#include "later.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "compat.h"

struct mg_later {
    mg_later *next;
    PyObject *obj;
};

/* Allocated by the C library's malloc: under tracemalloc even PyMem_RawMalloc needs the GIL. */
static _Atomic(mg_later *) waiting;

static void push(mg_later *later)
{
    later->next = atomic_load_explicit(&waiting, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&waiting, &later->next, later, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

mg_later *mg_later_new(PyObject *obj)
{
    mg_later *later = malloc(sizeof *later);
    if (!later)
        return (mg_later *) PyErr_NoMemory();
    later->obj = Py_NewRef(obj);
    return later;
}

PyObject *mg_later_obj(mg_later *later)
{
    return later->obj;
}

void mg_later_decref(void *later)
{
    push(later);
}

void mg_decref_anywhere(PyObject *obj)
{
    mg_later *later = malloc(sizeof *later);
    if (!later)
        return; /* without memory and without the GIL, the reference can only be leaked */
    later->obj = obj;
    push(later);
}

void mg_run_later(void)
{
    if (!atomic_load_explicit(&waiting, memory_order_relaxed))
        return;
    mg_later *later = atomic_exchange_explicit(&waiting, NULL, memory_order_acquire);
    while (later) {
        mg_later *next = later->next;
        Py_DECREF(later->obj);
        free(later);
        later = next;
    }
}
