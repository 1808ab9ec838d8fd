#include "loop/leader_work.h"

#include "base/clock.h"
#include "loop/loop_body.h"

/* How often a leader looks at what is corked. A thread that sends without a pause makes some
 * hundreds of frames in that time. */
#define UNCORK_EVERY (MG_SECOND / 1000)

/* How often slow polls run. */
#define SLOW_EVERY (MG_SECOND / 4)

static void run_slow(mg_loop *loop, int64_t now)
{
    loop->slow_at = now + SLOW_EVERY;
    for (mg_node *node = mg_ilist_first(&loop->slow.list), *next; node; node = next) {
        mg_task *task = MG_CONTAINER(node, mg_task, node);
        next = mg_ilist_next(&loop->slow.list, node);
        task->run(task);
    }
}

void mg_work_run(mg_loop *loop, int64_t now)
{
    if (mg_tasks_any(&loop->posted))
        mg_tasks_run(&loop->posted, &loop->mu);
    if (mg_tasks_any(&loop->slow) && now >= loop->slow_at)
        run_slow(loop, now);
    /* a thread that has sent many frames will most often send more */
    if (loop->uncork_at && now >= loop->uncork_at)
        loop->uncork_at = mg_work_uncork(loop) ? now + UNCORK_EVERY : 0;
}

/* Either this sees what is corked, or mg_loop_cork sees that the leader does not look. */
static int64_t next_uncork(mg_loop *loop, int64_t now)
{
    if (!loop->uncork_at) {
        atomic_store(&loop->uncorks, 0);
        if (!mg_tasks_any(&loop->corked))
            return MG_NEVER;
        loop->uncork_at = now + UNCORK_EVERY;
    }
    atomic_store(&loop->uncorks, 1);
    return loop->uncork_at;
}

int64_t mg_work_sleep_until(mg_loop *loop, int64_t now, int64_t until)
{
    int64_t uncork = next_uncork(loop, now), slow = mg_tasks_any(&loop->slow) ? loop->slow_at : MG_NEVER;
    if (uncork < until)
        until = uncork;
    return slow < until ? slow : until;
}

int mg_work_uncork(mg_loop *loop)
{
    return mg_tasks_any(&loop->corked) && mg_tasks_run(&loop->corked, &loop->mu);
}

void mg_work_forked(mg_loop *loop)
{
    mg_tasks_init(&loop->posted);
    mg_tasks_init(&loop->corked);
    mg_tasks_init(&loop->slow);
}
