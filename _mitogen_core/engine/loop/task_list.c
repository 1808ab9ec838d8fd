#include "loop/task_list.h"

void mg_tasks_init(mg_tasks *tasks)
{
    mg_ilist_init(&tasks->list);
    atomic_init(&tasks->any, 0);
}

int mg_tasks_add(mg_tasks *tasks, mg_task *task)
{
    if (mg_node_listed(&task->node))
        return 0;
    mg_ilist_append(&tasks->list, &task->node);
    atomic_store(&tasks->any, 1);
    return 1;
}

int mg_tasks_remove(mg_tasks *tasks, mg_task *task)
{
    if (!mg_node_listed(&task->node))
        return 0;
    mg_node_remove(&task->node);
    atomic_store(&tasks->any, !mg_ilist_empty(&tasks->list));
    return 1;
}

int mg_tasks_run(mg_tasks *tasks, pthread_mutex_t *mu)
{
    mg_ilist now; /* not an array: a task of it may be taken out while another one runs */
    mg_node *node;
    int ran = 0;
    mg_ilist_init(&now);
    pthread_mutex_lock(mu);
    mg_ilist_move(&now, &tasks->list);
    atomic_store(&tasks->any, 0);
    while ((node = mg_ilist_pop(&now))) {
        mg_task *task = MG_CONTAINER(node, mg_task, node);
        pthread_mutex_unlock(mu);
        task->run(task);
        ran = 1;
        pthread_mutex_lock(mu);
    }
    pthread_mutex_unlock(mu);
    return ran;
}
