#include "sync/spin.h"

#include "base/clock.h"
#include "test/test.h"

static void learn(mg_spin *h, int times)
{
    for (int i = 0; i < times; i++)
        mg_spin_learn(h, 0);
}

static int spins(mg_spin *h)
{
    return mg_spin_room(h, 1000) == MG_ROOM_TO_SPIN;
}

static mg_polled see_nothing(mg_poll *p, unsigned round)
{
    (void) p, (void) round;
    return MG_POLL_ON;
}

static mg_polled see_it(mg_poll *p, unsigned round)
{
    (void) p;
    return round == 20 || !round ? MG_POLL_WON : MG_POLL_ON;
}

static mg_polled see_a_part(mg_poll *p, unsigned round)
{
    (void) p;
    return round == 1 ? MG_POLL_PART : MG_POLL_ON;
}

static mg_polled have_other_things_to_do(mg_poll *p, unsigned round)
{
    (void) p, (void) round;
    return MG_POLL_STOP;
}

/* Polls as a thread that has room, and may spin for so long. */
static mg_spun run(mg_spin *h, mg_poll *p, int64_t nanoseconds)
{
    mg_spin_set(nanoseconds);
    return mg_spin_run(h, p, mg_now());
}

static void lose(mg_spin *h)
{
    mg_poll p = {.fn = see_nothing};
    CHECK(run(h, &p, 1000) == MG_SPUN_LOST);
}

static void it_takes_some_short_waits_and_a_long_one_ends_it(void)
{
    mg_spin h = {0};

    CHECK(!spins(&h));
    learn(&h, 2);
    CHECK(!spins(&h));
    learn(&h, 20);
    CHECK(spins(&h));
    mg_spin_learn(&h, MG_SECOND);
    CHECK(!spins(&h));
}

static void spinning_in_vain_fades_out_and_comes_back(void)
{
    mg_spin h = {0};
    int needed[3];

    for (int i = 0; i < 3; i++) {
        for (needed[i] = 0; !spins(&h); needed[i]++)
            learn(&h, 1);
        lose(&h);
    }
    CHECK(needed[0] < needed[1] && 3 * needed[1] < needed[2]);
    for (int i = 0; i < 5; i++) {
        learn(&h, 1 << 20); /* there is an end to it */
        CHECK(spins(&h));
        lose(&h);
    }
    learn(&h, 1 << 20);
    mg_poll p = {.fn = see_it};
    for (int i = 0; i < 100; i++)
        CHECK(run(&h, &p, MG_SECOND) == MG_SPUN_WON);
    lose(&h);
    int n = 0;
    for (; !spins(&h); n++)
        learn(&h, 1);
    CHECK(n == needed[1]);
}

static void a_spin_that_is_broken_off_is_neither_won_nor_lost(void)
{
    mg_spin h = {.losses = 4};
    mg_poll p = {.fn = have_other_things_to_do};

    learn(&h, 1 << 10);
    CHECK(run(&h, &p, MG_SECOND) == MG_SPUN_STOP && h.losses == 4 && spins(&h));
}

static void a_part_of_what_is_waited_for_is_worth_a_spin_and_ends_the_yielding(void)
{
    mg_spin h = {0};
    mg_poll p = {.fn = see_a_part, .yield_every = 8};

    learn(&h, 10);
    CHECK(run(&h, &p, 1000) == MG_SPUN_LOST && p.has_part && !p.yields && !h.losses && spins(&h));
}

static void a_spin_lets_others_on_its_core_run(void)
{
    mg_spin h = {.losses = 2};
    mg_poll p = {.fn = see_it, .yield_every = 8};

    learn(&h, 1 << 10);
    if (run(&h, &p, 60 * MG_SECOND) == MG_SPUN_WON)
        CHECK(p.yields == 2 && h.losses == 1);
    else /* a yield took long: the machine is busy */
        CHECK(p.yields >= 1 && h.losses == 4);
}

static void on_one_core_a_thread_yields_once_if_that_may_help(void)
{
    mg_spin h = {.losses = 1};
    mg_poll p = {.fn = see_it}, once = {.fn = see_it, .yields_once = 1};

    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    learn(&h, 1 << 10);
    CHECK(run(&h, &p, MG_SECOND) == MG_SPUN_NOT);
    CHECK(run(&h, &once, MG_SECOND) == MG_SPUN_WON && once.yields == 1);
    once.fn = see_nothing;
    h.losses = 0;
    learn(&h, 1 << 10);
    CHECK(run(&h, &once, MG_SECOND) == MG_SPUN_LOST && h.losses == 2 && mg_spin_room(&h, 1000) == MG_ROOM_NONE);
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
}

static void the_switch_and_a_lack_of_cores_turn_it_off(void)
{
    mg_spin h = {0};

    learn(&h, 10);
    mg_spin_set(1000);
    mg_spin_assume_room(MG_ROOM_NONE);
    CHECK(mg_spin_room(&h, 1000) == MG_ROOM_NONE);
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    CHECK(mg_spin_room(&h, 1000) == MG_ROOM_TO_SPIN);
    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    CHECK(mg_spin_room(&h, 1000) == MG_ROOM_TO_YIELD);
    mg_spin_set(0);
    CHECK(mg_spin_room(&h, 1000) == MG_ROOM_NONE);
    mg_spin_set(1000);
    mg_spin_assume_room(-1);
    CHECK(mg_spin_room(&h, mg_now()) != (mg_spin_one_core(mg_now()) ? MG_ROOM_TO_SPIN : MG_ROOM_TO_YIELD));
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
}

static void whether_there_is_one_core_only_is_what_the_machine_says(void)
{
    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    CHECK(mg_spin_one_core(mg_now()));
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    CHECK(!mg_spin_one_core(mg_now()));
}

int main(void)
{
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    RUN(it_takes_some_short_waits_and_a_long_one_ends_it);
    RUN(spinning_in_vain_fades_out_and_comes_back);
    RUN(a_spin_that_is_broken_off_is_neither_won_nor_lost);
    RUN(a_part_of_what_is_waited_for_is_worth_a_spin_and_ends_the_yielding);
    RUN(a_spin_lets_others_on_its_core_run);
    RUN(on_one_core_a_thread_yields_once_if_that_may_help);
    RUN(the_switch_and_a_lack_of_cores_turn_it_off);
    RUN(whether_there_is_one_core_only_is_what_the_machine_says);
    return 0;
}
