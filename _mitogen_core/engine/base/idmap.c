/* Open addressing with linear probing. Removing closes the gap at once (entries behind it move
 * up), so there are no tombstones and a table that sees many ids come and go stays as fast as a
 * new one. At least a quarter of the slots is free. */
#include "base/idmap.h"

#include <assert.h>
#include <time.h>

#include "base/alloc.h"

enum { FIRST_SLOTS = 16 };

/* The slot where the search for id starts. A mixing function of the usual shift-and-multiply
 * kind. */
static size_t home_of(const mg_idmap *m, uint32_t id)
{
    uint32_t h = id ^ m->seed;

    h ^= h >> 16;
    h *= 0x7feb352dU;
    h ^= h >> 15;
    h *= 0x846ca68bU;
    h ^= h >> 16;
    return h & (m->n_slots - 1);
}

/* The slot that has id, or the free one where it would go. The table has slots. */
static mg_idmap_slot *find(const mg_idmap *m, uint32_t id)
{
    size_t i = home_of(m, id);

    while (m->slots[i].value && m->slots[i].id != id)
        i = (i + 1) & (m->n_slots - 1);
    return &m->slots[i];
}

void mg_idmap_init(mg_idmap *m)
{
    struct timespec now = {0, 0};
    uint64_t mix;

    clock_gettime(CLOCK_MONOTONIC, &now);
    mix = ((uint64_t) (uintptr_t) m ^ (uint64_t) now.tv_nsec << 20 ^ (uint64_t) now.tv_sec) * 0x9e3779b97f4a7c15U;
    m->slots = NULL;
    m->n_slots = 0;
    m->count = 0;
    m->seed = (uint32_t) (mix >> 32);
}

void mg_idmap_fini(mg_idmap *m)
{
    mg_free(m->slots);
    m->slots = NULL;
    m->n_slots = 0;
    m->count = 0;
}

static mg_err grow(mg_idmap *m)
{
    mg_idmap old = *m;
    mg_idmap_slot *slots;
    size_t n = old.n_slots ? old.n_slots * 2 : FIRST_SLOTS;
    size_t i;

    if (n < old.n_slots)
        return MG_ENOMEM;
    slots = mg_calloc(n, sizeof *slots);
    if (!slots)
        return MG_ENOMEM;
    m->slots = slots;
    m->n_slots = n;
    for (i = 0; i < old.n_slots; i++)
        if (old.slots[i].value)
            *find(m, old.slots[i].id) = old.slots[i];
    mg_free(old.slots);
    return MG_OK;
}

mg_err mg_idmap_put(mg_idmap *m, uint32_t id, void *value, void **old)
{
    mg_idmap_slot *slot = m->n_slots ? find(m, id) : NULL;

    assert(value);
    if (old)
        *old = slot ? slot->value : NULL;
    if (!slot || !slot->value) {
        if (!slot || m->count >= m->n_slots / 4 * 3) {
            if (grow(m))
                return MG_ENOMEM;
            slot = find(m, id);
        }
        slot->id = id;
        m->count++;
    }
    slot->value = value;
    return MG_OK;
}

void *mg_idmap_get(const mg_idmap *m, uint32_t id)
{
    return m->n_slots ? find(m, id)->value : NULL;
}

void *mg_idmap_pop(mg_idmap *m, uint32_t id)
{
    size_t mask = m->n_slots - 1;
    mg_idmap_slot *slot;
    void *value;
    size_t gap, i;

    slot = m->n_slots ? find(m, id) : NULL;
    if (!slot || !slot->value)
        return NULL;
    value = slot->value;
    gap = (size_t) (slot - m->slots);
    for (i = (gap + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        /* An entry may move into the gap unless its search starts behind the gap. */
        if (((i - home_of(m, m->slots[i].id)) & mask) >= ((i - gap) & mask)) {
            m->slots[gap] = m->slots[i];
            gap = i;
        }
    }
    m->slots[gap].value = NULL;
    m->count--;
    return value;
}

size_t mg_idmap_count(const mg_idmap *m)
{
    return m->count;
}

/* Visits the slots downwards, beginning at a free one. A removal moves entries only downwards
 * within a row of taken slots, so it moves only entries that were visited. With another
 * beginning, such a row could reach around it. */
void mg_idmap_iter_init(const mg_idmap *m, mg_idmap_iter *it)
{
    it->at = 0;
    it->left = m->n_slots;
    while (it->at < m->n_slots && m->slots[it->at].value)
        it->at++;
}

int mg_idmap_iter_next(const mg_idmap *m, mg_idmap_iter *it, uint32_t *id, void **value)
{
    while (it->left) {
        it->left--;
        it->at = (it->at - 1) & (m->n_slots - 1);
        if (m->slots[it->at].value) {
            if (id)
                *id = m->slots[it->at].id;
            if (value)
                *value = m->slots[it->at].value;
            return 1;
        }
    }
    return 0;
}
