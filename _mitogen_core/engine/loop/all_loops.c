#include "loop/all_loops.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "loop/loop_body.h"

static pthread_mutex_t all_mu = PTHREAD_MUTEX_INITIALIZER;
static mg_ilist all_loops = {{&all_loops.ends, &all_loops.ends}}; /* guarded by all_mu */

void mg_loops_lock(void)
{
    pthread_mutex_lock(&all_mu);
}

void mg_loops_unlock(void)
{
    pthread_mutex_unlock(&all_mu);
}

void mg_loops_init_lock(void)
{
    pthread_mutex_init(&all_mu, NULL);
}

void mg_loops_add(mg_loop *loop)
{
    mg_ilist_append(&all_loops, &loop->node);
}

/* Takes a reference to a loop in the list. Returns 0 if its last reference has gone already: then
 * the loop is about to leave the list. REQUIRES(all_mu). */
static int try_ref(mg_loop *loop)
{
    uint32_t refs = atomic_load(&loop->refs);
    while (refs && !atomic_compare_exchange_weak(&loop->refs, &refs, refs + 1))
        continue;
    return refs != 0;
}

static mg_loop *loop_of(const mg_node *node)
{
    return MG_CONTAINER(node, mg_loop, node);
}

mg_loop *mg_loops_first_free(void)
{
    for (mg_node *node = mg_ilist_first(&all_loops); node; node = mg_ilist_next(&all_loops, node))
        if (!loop_of(node)->is_held && try_ref(loop_of(node)))
            return loop_of(node);
    return NULL;
}

mg_loop *mg_loops_first_held(void)
{
    for (mg_node *node = mg_ilist_first(&all_loops); node; node = mg_ilist_next(&all_loops, node))
        if (loop_of(node)->is_held)
            return loop_of(node);
    return NULL;
}

void mg_loops_visit(void (*fn)(mg_loop *loop))
{
    for (mg_node *node = mg_ilist_first(&all_loops); node; node = mg_ilist_next(&all_loops, node))
        fn(loop_of(node));
}
