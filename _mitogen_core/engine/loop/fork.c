#include "loop/fork.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "loop/loop.h"

static pthread_mutex_t fork_mu = PTHREAD_MUTEX_INITIALIZER; /* held from begin to the end of a fork */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic uintptr_t forker; /* the thread that holds fork_mu, or 0 */
static int depth, shut; /* guarded by fork_mu */

static int is_forker(void)
{
    return atomic_load(&forker) == (uintptr_t) pthread_self();
}

void mg_fork_enter(void)
{
    if (!is_forker())
        pthread_rwlock_rdlock(&gate);
}

void mg_fork_leave(void)
{
    if (!is_forker())
        pthread_rwlock_unlock(&gate);
}

int mg_fork_wanted(void)
{
    return atomic_load(&forker) != 0;
}

int mg_fork_begin(void)
{
    if (!is_forker()) {
        pthread_mutex_lock(&fork_mu);
        atomic_store(&forker, (uintptr_t) pthread_self());
    }
    return ++depth == 1;
}

void mg_fork_shut(void)
{
    pthread_rwlock_wrlock(&gate);
    shut = 1;
}

void mg_fork_parent(void)
{
    if (!is_forker() || --depth)
        return;
    if (shut)
        pthread_rwlock_unlock(&gate);
    shut = 0;
    mg_loops_release();
    atomic_store(&forker, 0);
    pthread_mutex_unlock(&fork_mu);
}

void mg_fork_child(void)
{
    pthread_mutex_init(&fork_mu, NULL);
    pthread_rwlock_init(&gate, NULL);
    atomic_store(&forker, 0);
    depth = shut = 0;
    mg_loops_forked();
}
