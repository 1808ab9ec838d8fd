/* The one intrusive list: doubly linked, and the memory is that of its members.
 *
 * Something that is to stand in a list embeds an mg_node, and MG_CONTAINER finds the way back
 * from it. A node of all zero bytes is in no list; a node is in one list at a time. A list has
 * to be initialised, and must stay where it is while it has members. A list owns nothing:
 * references are the business of the code that adds and removes. No lock inside, nothing blocks,
 * nothing allocates. */
#ifndef MG_ILIST_H
#define MG_ILIST_H

#include <assert.h>
#include <stddef.h>

typedef struct mg_node {
    struct mg_node *prev, *next; /* NULL: in no list */
} mg_node;

/* A ring through `ends`, which is no member. */
typedef struct {
    mg_node ends;
} mg_ilist;

/* The structure that the node is the given member of. */
#define MG_CONTAINER(node, type, member) ((type *) (void *) ((char *) (node) - offsetof(type, member)))

static inline void mg_ilist_init(mg_ilist *list)
{
    list->ends.prev = list->ends.next = &list->ends;
}

static inline int mg_ilist_empty(const mg_ilist *list)
{
    return list->ends.next == &list->ends;
}

/* Whether the node is in a list, whichever that is. */
static inline int mg_node_listed(const mg_node *node)
{
    return node->next != NULL;
}

/* Between two neighbours; for the two below. */
static inline void mg_node_insert(mg_node *node, mg_node *prev, mg_node *next)
{
    assert(!mg_node_listed(node));
    node->prev = prev;
    node->next = next;
    prev->next = node;
    next->prev = node;
}

/* Adds a node that is in no list, as the last or as the first member. */
static inline void mg_ilist_append(mg_ilist *list, mg_node *node)
{
    mg_node_insert(node, list->ends.prev, &list->ends);
}

static inline void mg_ilist_prepend(mg_ilist *list, mg_node *node)
{
    mg_node_insert(node, &list->ends, list->ends.next);
}

/* Takes the node out of its list. Where it is in none, nothing happens. */
static inline void mg_node_remove(mg_node *node)
{
    if (!mg_node_listed(node))
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

/* The first, the last, and the one after a given member; NULL when there is none. To visit all:
 *     for (mg_node *node = mg_ilist_first(list); node; node = mg_ilist_next(list, node)) ...
 * A visit that removes its member asks for the next one before. */
static inline mg_node *mg_ilist_first(const mg_ilist *list)
{
    return mg_ilist_empty(list) ? NULL : list->ends.next;
}

static inline mg_node *mg_ilist_last(const mg_ilist *list)
{
    return mg_ilist_empty(list) ? NULL : list->ends.prev;
}

static inline mg_node *mg_ilist_next(const mg_ilist *list, const mg_node *node)
{
    return node->next == &list->ends ? NULL : node->next;
}

/* Removes the first member and returns it; NULL when there is none. */
static inline mg_node *mg_ilist_pop(mg_ilist *list)
{
    mg_node *node = mg_ilist_first(list);
    if (node)
        mg_node_remove(node);
    return node;
}

/* Moves all members of `from`, in order, to the end of `to`, in a few instructions however many
 * they are. */
static inline void mg_ilist_move(mg_ilist *to, mg_ilist *from)
{
    if (mg_ilist_empty(from))
        return;
    from->ends.next->prev = to->ends.prev;
    to->ends.prev->next = from->ends.next;
    from->ends.prev->next = &to->ends;
    to->ends.prev = from->ends.prev;
    mg_ilist_init(from);
}

#endif
