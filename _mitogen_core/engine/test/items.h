/* Items that are numbers, and checks of the numbers that a latch holds. */
#ifndef MG_TEST_ITEMS_H
#define MG_TEST_ITEMS_H

#include "test/test_net.h"

static _Atomic int dropped;

static inline void count_drop(mg_item item)
{
    atomic_fetch_add(&dropped, 1);
    if (item.kind == MG_ITEM_TOKEN)
        mg_token_end(item.ptr);
}

static inline int is_number(mg_item item, uintptr_t n)
{
    return item.kind == MG_ITEM_OBJECT && item.ptr == (void *) n;
}

static inline int has(mg_latch *l, uintptr_t n)
{
    mg_item item;

    return mg_latch_try(l, &item) == MG_OK && is_number(item, n);
}

static inline int is_empty(mg_latch *l)
{
    mg_item item;

    return mg_latch_try(l, &item) == MG_EAGAIN;
}

#endif
