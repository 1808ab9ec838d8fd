#include "counterpart.h"

#include <stdint.h>

/* --- locks --- */

#ifdef Py_GIL_DISABLED
enum { N_LOCKS = 64 }; /* a power of 2 */

/* An owner is read only as long as it takes to count a reference, so the locks are shared by
 * many objects. */
static mg_lock locks[N_LOCKS];

mg_lock *mg_owner_lock(const void *of)
{
    return &locks[((uintptr_t) of >> 6) & (N_LOCKS - 1)];
}
#else
mg_lock *mg_owner_lock(const void *of)
{
    (void) of;
    return NULL;
}
#endif

/* --- a reference to an object that may be about to end --- */

#if PY_VERSION_HEX >= 0x030E0000

void mg_owner_begin(PyObject *obj)
{
    PyUnstable_EnableTryIncRef(obj);
}

static int try_ref(PyObject *obj)
{
    return PyUnstable_TryIncRef(obj);
}

#elif defined(Py_GIL_DISABLED)

/* Marks the object as one with weak references. CPython then gives its last reference up by way of
 * the shared count, and that count tells try_ref() that the object is about to go. */
void mg_owner_begin(PyObject *obj)
{
    Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&obj->ob_ref_shared);
    while (!(shared & _Py_REF_SHARED_FLAG_MASK))
        if (_Py_atomic_compare_exchange_ssize(&obj->ob_ref_shared, &shared, shared | _Py_REF_MAYBE_WEAKREF))
            return;
}

static int try_ref(PyObject *obj)
{
    const Py_ssize_t one = (Py_ssize_t) 1 << _Py_REF_SHARED_SHIFT;
    Py_ssize_t shared = _Py_atomic_load_ssize_relaxed(&obj->ob_ref_shared);
    while (shared != _Py_REF_MERGED)
        if (_Py_atomic_compare_exchange_ssize(&obj->ob_ref_shared, &shared, shared + one))
            return 1;
    return 0;
}

#else

void mg_owner_begin(PyObject *obj)
{
    (void) obj;
}

static int try_ref(PyObject *obj)
{
    if (Py_REFCNT(obj) <= 0)
        return 0;
    Py_INCREF(obj);
    return 1;
}

#endif

PyObject *mg_owner(void *owner)
{
    return owner && try_ref(owner) ? owner : NULL;
}

PyObject *mg_latch_object(mg_latch *l)
{
    mg_lock *lock = mg_owner_lock(l);
    MG_LOCK(lock);
    PyObject *obj = mg_owner(mg_latch_owner(l));
    MG_UNLOCK(lock);
    return obj;
}

PyObject *mg_link_object(mg_stream *s)
{
    mg_lock *lock = mg_owner_lock(s);
    MG_LOCK(lock);
    PyObject *obj = mg_owner(mg_stream_owner(s));
    MG_UNLOCK(lock);
    return obj;
}

/* --- the end of an owner --- */

/* The interpreter holds a reference while the finalizer runs, and only afterwards it is known
 * whether the object stays. The lock makes other threads wait for that: they must not get an
 * object that is then freed, nor be told that there is none if it stays. */
static int finalize_locked(PyObject *obj, mg_latch *l)
{
    mg_lock *lock = mg_owner_lock(l);
    MG_LOCK(lock);
    int stays = PyObject_CallFinalizerFromDealloc(obj);
    if (!stays)
        mg_latch_set_owner(l, NULL);
    MG_UNLOCK(lock);
    return stays;
}

/* Runs a finalizer that may run any code. */
static int finalize_hidden(PyObject *obj, mg_latch *l)
{
    mg_lock *lock = mg_owner_lock(l);
    MG_LOCK(lock);
    mg_latch_set_owner(l, NULL);
    MG_UNLOCK(lock);
    int stays = PyObject_CallFinalizerFromDealloc(obj);
    if (stays)
        mg_latch_set_owner(l, obj);
    return stays;
}

int mg_owner_finalize(PyObject *obj, mg_latch *l, destructor ours)
{
    if (!l)
        return PyObject_CallFinalizerFromDealloc(obj);
    return Py_TYPE(obj)->tp_finalize == ours ? finalize_locked(obj, l) : finalize_hidden(obj, l);
}
