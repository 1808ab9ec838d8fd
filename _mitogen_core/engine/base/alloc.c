#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

/* glibc maps a block of this size by itself. When it is freed, glibc raises its threshold: from
 * then on blocks up to this size come from the heap, and the heap keeps twice as much at its
 * end. The block itself is never touched. */
#define LESSON ((size_t) 4 << 20)

/* Allocations until the one that fails; 0 or less: none fails. Relaxed throughout: it orders
 * nothing. */
static _Atomic long fail_in;
static _Atomic int fail_wanted;

int mg_alloc_fails(void)
{
    if (atomic_load_explicit(&fail_in, memory_order_relaxed) <= 0)
        return 0;
    return atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) == 1;
}

void *mg_malloc(size_t size)
{
    return mg_alloc_fails() ? NULL : malloc(size ? size : 1);
}

void *mg_calloc(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL; /* calloc() checks this too, but under a sanitizer it ends the process */
    return mg_alloc_fails() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *mg_realloc(void *ptr, size_t size)
{
    return mg_alloc_fails() ? NULL : realloc(ptr, size ? size : 1);
}

void mg_free(void *ptr)
{
    free(ptr);
}

void mg_alloc_keep_heap(void)
{
#if defined(__GLIBC__)
    static _Atomic int done;
    if (atomic_load_explicit(&done, memory_order_relaxed) || atomic_exchange(&done, 1))
        return;
    void *volatile lesson = malloc(LESSON); /* volatile: or a compiler leaves out what seems to do nothing */
    free(lesson);
#endif
}

void mg_alloc_fail_at(long n)
{
    atomic_store_explicit(&fail_wanted, n > 0, memory_order_relaxed);
    atomic_store_explicit(&fail_in, n, memory_order_relaxed);
}

int mg_alloc_failed(void)
{
    return !atomic_load_explicit(&fail_wanted, memory_order_relaxed) ||
           atomic_load_explicit(&fail_in, memory_order_relaxed) <= 0;
}
