/* Memory for the engine: the C library's allocator, with one switch for tests. */
#ifndef MG_ALLOC_H
#define MG_ALLOC_H

#include <stddef.h>

/* As malloc, calloc, realloc and free, from any thread. A size of 0 still gives a block of its
 * own, so NULL always means that memory ran out. mg_calloc checks the product for overflow. When
 * mg_realloc fails, the old block stays. */
void *mg_malloc(size_t size);
void *mg_calloc(size_t count, size_t size);
void *mg_realloc(void *ptr, size_t size);
void mg_free(void *ptr);

/* From now on the heap keeps some MiB. Otherwise it gives them back to the system each time that
 * the last of a few large messages is freed, and fetches them again page by page for the next
 * one. Only where the C library is known to do that, and only once; thresholds that the
 * environment sets stay. Any thread. */
void mg_alloc_keep_heap(void);

/* For other allocators of the engine: 1 when this allocation is the one that a test wants to
 * fail. */
int mg_alloc_fails(void);

/* Tests only: let the n-th allocation from now on (1 is the next one, of all threads together)
 * fail, once; 0 switches it off. While it is off the price of an allocation is one relaxed load
 * of a word that nobody writes. */
void mg_alloc_fail_at(long n);

/* Tests only: 1 when the failure asked for has happened, or none was asked for. A test loops
 * over n until this is 0 after a run: then the code under test makes fewer than n allocations. */
int mg_alloc_failed(void);

#endif
