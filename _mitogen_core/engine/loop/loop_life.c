#include "loop/loop_life.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/block.h"
#include "base/clock.h"
#include "loop/all_loops.h"
#include "loop/loop_body.h"

/* Frees everything but the descriptors. */
static void init(mg_loop *loop)
{
    atomic_init(&loop->refs, 1);
    pthread_mutex_init(&loop->mu, NULL);
    loop->left = (pthread_cond_t) PTHREAD_COND_INITIALIZER;
    pthread_mutex_init(&loop->freeze_mu, NULL);
    mg_events_init(&loop->events);
    mg_tasks_init(&loop->posted);
    mg_tasks_init(&loop->corked);
    mg_tasks_init(&loop->slow);
    mg_ilist_init(&loop->followers);
    loop->traffic_at = mg_now();
}

mg_loop *mg_loop_make(const mg_poller_owner *owner)
{
    mg_loop *loop = mg_calloc(1, sizeof *loop);
    mg_poller_owner told = *owner;
    if (!loop) {
        errno = ENOMEM;
        return NULL;
    }
    init(loop);
    told.arg = loop;
    /* A fork must not come in between: it would copy descriptors that no thread closes, or count
     * us wrong. */
    mg_loops_lock();
    loop->poller = mg_poller_new(&told);
    int err = errno;
    if (loop->poller) {
        mg_loops_add(loop);
        mg_block_keeper(1);
    }
    mg_loops_unlock();
    if (loop->poller)
        return loop;
    mg_loop_unref(loop);
    errno = err;
    return NULL;
}

mg_loop *mg_loop_ref(mg_loop *loop)
{
    atomic_fetch_add_explicit(&loop->refs, 1, memory_order_relaxed);
    return loop;
}

int mg_loop_closed(const mg_loop *loop)
{
    return atomic_load(&loop->closed);
}

int mg_loop_was_forked(const mg_loop *loop)
{
    return atomic_load(&loop->forked);
}

void mg_loop_close_poller(mg_loop *loop)
{
    if (loop->poller && mg_poller_close(loop->poller))
        mg_block_keeper(-1);
}

void mg_loop_unref(mg_loop *loop)
{
    if (!loop || atomic_fetch_sub_explicit(&loop->refs, 1, memory_order_acq_rel) != 1)
        return;
    mg_loops_lock();
    mg_node_remove(&loop->node);
    mg_loop_close_poller(loop); /* with the lock, as above */
    mg_loops_unlock();
    mg_poller_unref(loop->poller);
    mg_landing_drop(&loop->landing);
    mg_events_fini(&loop->events);
    mg_free(loop->scratch);
    pthread_mutex_destroy(&loop->freeze_mu);
    pthread_cond_destroy(&loop->left);
    pthread_mutex_destroy(&loop->mu);
    mg_free(loop);
}
