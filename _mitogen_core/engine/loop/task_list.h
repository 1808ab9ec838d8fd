/* Tasks: a task is one function call that waits in one list.
 *
 * The memory of a task is its owner's, all zero but for `run` at first; it is in one list at a
 * time, and knows whether it is in one. A list is guarded by a lock of whoever has it, and that
 * lock is not held while a task runs. */
#ifndef MG_TASK_LIST_H
#define MG_TASK_LIST_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/ilist.h"

typedef struct mg_task {
    mg_node node; /* guarded by the lock of its list */
    void (*run)(struct mg_task *task); /* set once */
} mg_task;

typedef struct {
    mg_ilist list; /* guarded by a lock */
    _Atomic int any; /* whether it has members; written under the lock, and a look at it takes none */
} mg_tasks;

void mg_tasks_init(mg_tasks *tasks);

/* Adds a task behind the others: 1, or 0 when it is listed already. REQUIRES(the lock), as the
 * next one. */
int mg_tasks_add(mg_tasks *tasks, mg_task *task);
/* Takes it out: 1, or 0 when it was not listed. */
int mg_tasks_remove(mg_tasks *tasks, mg_task *task);

/* Takes the tasks that are there now out of the list, one by one, and runs each. A task that is
 * added meanwhile stays, so one that adds itself again has its turn after everybody else. Takes
 * the lock. Whether there were any. */
int mg_tasks_run(mg_tasks *tasks, pthread_mutex_t *mu);

static inline int mg_tasks_any(const mg_tasks *tasks)
{
    return atomic_load(&tasks->any);
}

#endif
