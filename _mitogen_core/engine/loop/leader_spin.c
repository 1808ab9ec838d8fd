#include "loop/leader_spin.h"

#include "base/clock.h"

typedef struct {
    mg_poll poll; /* first, so the functions can cast its address to that of the whole */
    const mg_leading *l;
    uint64_t parts; /* of large frames, as of the last look */
} leader_poll;

int mg_leader_has_new_part(const mg_leading *l, uint64_t *parts)
{
    uint64_t before = *parts;
    *parts = atomic_load_explicit(&l->loop->arriving, memory_order_relaxed);
    if (*parts == before)
        return 0;
    if (l->s && !l->s->arriving_at)
        l->s->arriving_at = mg_now();
    return 1;
}

/* The answer of a waiter most likely comes by the stream that the last answer came by. */
static mg_polled poll_for_answer(mg_poll *p, unsigned round)
{
    leader_poll *x = (leader_poll *) p;
    mg_loop *loop = x->l->loop;
    if (loop->hot_fn)
        loop->hot_fn(loop->hot_arg);
    if (round % 8 == 0 || !loop->hot_fn)
        mg_poller_turn(loop->poller, 0, 0, 0);
    if (mg_leading_is_done(x->l))
        return MG_POLL_WON;
    if (!mg_leader_may_sleep(loop, x->l->w))
        return MG_POLL_STOP;
    return mg_leader_has_new_part(x->l, &x->parts) ? MG_POLL_PART : MG_POLL_ON;
}

/* The next frame to forward comes after the process that got the last one has run, perhaps on
 * this core. So each round yields. */
static mg_polled poll_for_traffic(mg_poll *p, unsigned round)
{
    const mg_leading *l = ((leader_poll *) p)->l;
    (void) round;
    mg_poller_turn(l->loop->poller, 0, 0, 0);
    if (l->loop->foreign_at != l->passed)
        return MG_POLL_WON;
    return (l->s && mg_leading_is_done(l)) || !mg_leader_may_sleep(l->loop, l->w) ? MG_POLL_STOP : MG_POLL_ON;
}

static mg_spun spin(const mg_leading *l, mg_spin *h, mg_poll poll, int64_t now)
{
    leader_poll p = {.poll = poll, .l = l};
    p.parts = atomic_load_explicit(&l->loop->arriving, memory_order_relaxed);
    mg_spun spun = mg_spin_run(h, &p.poll, now);
    if (spun == MG_SPUN_WON)
        mg_count(&l->loop->spins_won);
    else if (spun == MG_SPUN_LOST && !p.poll.has_part)
        mg_count(&l->loop->spins_lost);
    atomic_fetch_add_explicit(&l->loop->yields, p.poll.yields, memory_order_relaxed);
    return spun;
}

/* Spins if frames were forwarded, and each was soon followed by another one. */
static mg_spun spin_for_traffic(mg_leading *l, int64_t now)
{
    mg_loop *loop = l->loop;
    if (loop->foreign_at == l->passed)
        return MG_SPUN_NOT;
    mg_spin_learn(&loop->passing, now - l->passed);
    l->passed = loop->foreign_at;
    return spin(l, &loop->passing, (mg_poll) {.fn = poll_for_traffic, .yield_every = 1}, now);
}

static mg_spun spin_for_answer(const mg_leading *l, int64_t now)
{
    if (!l->s || l->s->spun)
        return MG_SPUN_NOT;
    mg_poll poll = {.fn = poll_for_answer, .yield_every = 8, .has_part = l->s->arriving_at != 0};
    mg_spun spun = spin(l, &l->w->spin, poll, now);
    if (spun == MG_SPUN_LOST)
        l->s->spun = 1;
    return spun;
}

mg_spun mg_leader_spin(mg_leading *l, int64_t now)
{
    mg_spun spun = spin_for_traffic(l, now);
    return spun == MG_SPUN_WON || spun == MG_SPUN_STOP ? spun : spin_for_answer(l, now);
}
