/* A hash map from 32 bit ids (of contexts, of handles) to pointers. No lock inside. */
#ifndef MG_IDMAP_H
#define MG_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct {
    uint32_t id;
    void *value; /* NULL: the slot is free */
} mg_idmap_slot;

/* The body is visible for embedding. */
typedef struct {
    mg_idmap_slot *slots; /* NULL until the first put */
    size_t n_slots;       /* 0 or a power of two */
    size_t count;
    uint32_t seed;        /* random, so that a peer that chooses ids cannot choose their slots */
} mg_idmap;

/* mg_idmap_init allocates nothing. mg_idmap_fini frees the table, not what the values point to. */
void mg_idmap_init(mg_idmap *m);
void mg_idmap_fini(mg_idmap *m);

/* Sets the value of id, which is not NULL. *old becomes the value this replaces, or NULL; old
 * may be NULL. MG_OK or MG_ENOMEM (nothing changed; never when id is in the map already). */
mg_err mg_idmap_put(mg_idmap *m, uint32_t id, void *value, void **old);

/* The value of id, or NULL. mg_idmap_pop also removes it. */
void *mg_idmap_get(const mg_idmap *m, uint32_t id);
void *mg_idmap_pop(mg_idmap *m, uint32_t id);

size_t mg_idmap_count(const mg_idmap *m);

/* Visits each entry once, in no order:
 *     mg_idmap_iter it;
 *     mg_idmap_iter_init(m, &it);
 *     while (mg_idmap_iter_next(m, &it, &id, &value)) ...
 * Meanwhile entries already visited, the present one included, may be popped; nothing else may
 * change. id and value may be NULL. */
typedef struct {
    size_t at;
    size_t left;
} mg_idmap_iter;

void mg_idmap_iter_init(const mg_idmap *m, mg_idmap_iter *it);
int mg_idmap_iter_next(const mg_idmap *m, mg_idmap_iter *it, uint32_t *id, void **value);

#endif
