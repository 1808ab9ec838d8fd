#include "loop/spares.h"

#include "base/block.h"
#include "base/clock.h"

/* A loop that was idle for so long drops them. */
#define FRESH MG_SECOND

int64_t mg_spares_sleep_until(mg_loop *loop, int64_t now, int64_t until)
{
    int64_t drop_at = loop->traffic_at + FRESH;
    if (!mg_block_to_look_after() && !mg_landing_to_look_after(&loop->landing))
        return until;
    if (now < drop_at)
        return drop_at < until ? drop_at : until;
    mg_block_drop_spares();
    mg_landing_drop(&loop->landing);
    return until;
}

int mg_spares_leave(mg_loop *loop, int64_t now, int64_t until)
{
    if (until <= now + FRESH)
        return 1;
    atomic_store(&loop->unwatched, 1);
    mg_block_keeper(-1); /* blocks that are freed from now on are not kept */
    /* either this sees a place that is offered, or mg_loop_offer_landing sees `unwatched` */
    if (!mg_landing_has(&loop->landing))
        return 1;
    mg_spares_watch(loop);
    return 0;
}

void mg_spares_watch(mg_loop *loop)
{
    if (!atomic_load_explicit(&loop->unwatched, memory_order_relaxed))
        return;
    atomic_store(&loop->unwatched, 0);
    mg_block_keeper(1);
}
