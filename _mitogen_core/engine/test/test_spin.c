#include "sync/spin.h"

#include "base/clock.h"
#include "test/test.h"

static void learn(mg_spin *h, int times)
{
    for (int i = 0; i < times; i++)
        mg_spin_learn(h, 0);
}

static void it_takes_some_short_waits_and_a_long_one_ends_it(void)
{
    mg_spin h = {0};

    CHECK(mg_spin_until(&h, 1000) == 0);
    learn(&h, 2);
    CHECK(mg_spin_until(&h, 1000) == 0);
    learn(&h, 20);
    CHECK(mg_spin_until(&h, 1000) > 1000);
    mg_spin_learn(&h, MG_SECOND);
    CHECK(mg_spin_until(&h, 1000) == 0);
}

static void spinning_in_vain_fades_out_and_comes_back(void)
{
    mg_spin h = {0};
    int needed[3];

    for (int i = 0; i < 3; i++) {
        for (needed[i] = 0; !mg_spin_until(&h, 1000); needed[i]++)
            learn(&h, 1);
        mg_spin_lost(&h);
    }
    CHECK(needed[0] < needed[1] && 3 * needed[1] < needed[2]);
    for (int i = 0; i < 100; i++)
        mg_spin_lost(&h); /* there is an end to it */
    learn(&h, 1 << 20);
    CHECK(mg_spin_until(&h, 1000));
    for (int i = 0; i < 100; i++)
        mg_spin_won(&h);
    mg_spin_lost(&h);
    int n = 0;
    for (; !mg_spin_until(&h, 1000); n++)
        learn(&h, 1);
    CHECK(n == needed[1]);
}

static void the_switch_and_a_lack_of_cores_turn_it_off(void)
{
    mg_spin h = {0};

    learn(&h, 10);
    mg_spin_assume_room(0);
    CHECK(mg_spin_until(&h, 1000) == 0);
    mg_spin_assume_room(1);
    CHECK(mg_spin_until(&h, 1000));
    CHECK(!mg_spin_yields(&h, 1000));
    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    CHECK(mg_spin_until(&h, 1000) == 0);
    CHECK(mg_spin_yields(&h, 1000));
    mg_spin_set(0);
    CHECK(!mg_spin_yields(&h, 1000));
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    CHECK(mg_spin_until(&h, 1000) == 0);
    mg_spin_set(77);
    CHECK(mg_spin_until(&h, 1000) == 1077);
    mg_spin_assume_room(-1);
    int64_t now = mg_now(), end = mg_spin_until(&h, now); /* what this machine says */
    CHECK(end == 0 || end == now + 77);
    CHECK(!end || !mg_spin_yields(&h, now));
}

static void whether_there_is_one_core_only_is_what_the_machine_says(void)
{
    mg_spin_assume_room(MG_ROOM_TO_YIELD);
    CHECK(mg_spin_one_core(mg_now()));
    mg_spin_assume_room(MG_ROOM_TO_SPIN);
    CHECK(!mg_spin_one_core(mg_now()));
    mg_spin_assume_room(-1);
    mg_spin h = {.short_waits = 100};
    CHECK(mg_spin_one_core(mg_now()) ? !mg_spin_until(&h, mg_now()) : !mg_spin_yields(&h, mg_now()));
}

int main(void)
{
    mg_spin_assume_room(1);
    RUN(it_takes_some_short_waits_and_a_long_one_ends_it);
    RUN(spinning_in_vain_fades_out_and_comes_back);
    RUN(the_switch_and_a_lack_of_cores_turn_it_off);
    RUN(whether_there_is_one_core_only_is_what_the_machine_says);
    return 0;
}
