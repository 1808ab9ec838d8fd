#include "base/idmap.h"

#include <string.h>

#include "base/alloc.h"
#include "test/test.h"

#define IDS 512

static int cell[IDS]; /* values to point to */

static void an_empty_map_answers_and_has_no_table(void)
{
    mg_idmap m;
    mg_idmap_iter it;

    mg_idmap_init(&m);
    CHECK(!mg_idmap_get(&m, 0) && !mg_idmap_pop(&m, 5) && mg_idmap_count(&m) == 0 && !m.slots);
    mg_idmap_iter_init(&m, &it);
    CHECK(!mg_idmap_iter_next(&m, &it, NULL, NULL));
    mg_idmap_fini(&m);
}

static void put_replaces_and_hands_back_the_old_value(void)
{
    mg_idmap m;
    void *old = &m;

    mg_idmap_init(&m);
    CHECK(mg_idmap_put(&m, 0, &cell[1], &old) == MG_OK && !old);
    CHECK(mg_idmap_put(&m, UINT32_MAX, &cell[2], NULL) == MG_OK);
    CHECK(mg_idmap_put(&m, 0, &cell[3], &old) == MG_OK && old == &cell[1]);
    CHECK(mg_idmap_get(&m, 0) == &cell[3] && mg_idmap_get(&m, UINT32_MAX) == &cell[2] && mg_idmap_count(&m) == 2);
    CHECK(mg_idmap_pop(&m, 0) == &cell[3] && !mg_idmap_get(&m, 0) && mg_idmap_count(&m) == 1);
    mg_idmap_fini(&m);
}

/* Compares with an array over many steps and several seeds; the ids are few, so that puts and
 * pops of the same ones, and rows of taken slots that reach around the end of the table, are
 * frequent. */
static void any_order_of_puts_and_pops_gives_what_an_array_gives(void)
{
    unsigned state = 3;
    int round, step;

    for (round = 0; round < 20; round++) {
        int *model[IDS] = {0};
        size_t count = 0;
        mg_idmap m;

        mg_idmap_init(&m);
        m.seed = test_random(&state);
        for (step = 0; step < 20000; step++) {
            uint32_t id = test_random(&state) % IDS;
            unsigned what = test_random(&state) % 3;
            void *old;

            if (what == 0) {
                int *value = &cell[test_random(&state) % IDS];

                CHECK(mg_idmap_put(&m, id, value, &old) == MG_OK && old == model[id]);
                count += !model[id];
                model[id] = value;
            } else if (what == 1) {
                CHECK(mg_idmap_pop(&m, id) == model[id]);
                count -= model[id] != NULL;
                model[id] = NULL;
            } else {
                CHECK(mg_idmap_get(&m, id) == model[id]);
            }
            CHECK(mg_idmap_count(&m) == count);
        }
        for (step = 0; step < IDS; step++)
            CHECK(mg_idmap_get(&m, (uint32_t) step) == model[step]);
        mg_idmap_fini(&m);
    }
}

static void ids_that_come_and_go_do_not_make_the_table_grow(void)
{
    mg_idmap m;
    uint32_t id;

    mg_idmap_init(&m);
    for (id = 0; id < 100000; id++) {
        CHECK(mg_idmap_put(&m, id, &cell[0], NULL) == MG_OK);
        if (id >= 8)
            CHECK(mg_idmap_pop(&m, id - 8) == &cell[0]);
    }
    CHECK(mg_idmap_count(&m) == 8 && m.n_slots == 16);
    mg_idmap_fini(&m);
}

static void iteration_visits_each_once_even_when_what_it_visits_is_popped(void)
{
    unsigned state = 9;
    int round, i;

    for (round = 0; round < 200; round++) {
        char seen[IDS] = {0};
        mg_idmap m;
        mg_idmap_iter it;
        uint32_t id;
        void *value;
        int n = 1 + (int) (test_random(&state) % IDS);
        size_t left = 0;

        mg_idmap_init(&m);
        m.seed = test_random(&state);
        for (i = 0; i < n; i++)
            CHECK(mg_idmap_put(&m, (uint32_t) i * 7, &cell[i], NULL) == MG_OK);
        mg_idmap_iter_init(&m, &it);
        while (mg_idmap_iter_next(&m, &it, &id, &value)) {
            i = (int) (id / 7);
            CHECK(!seen[i] && value == &cell[i]);
            seen[i] = 1;
            if (test_random(&state) % 4)
                CHECK(mg_idmap_pop(&m, id) == value);
            else
                left++;
        }
        for (i = 0; i < n; i++)
            CHECK(seen[i]);
        CHECK(mg_idmap_count(&m) == left);
        mg_idmap_fini(&m);
    }
}

static void no_memory_leaves_the_map_as_it_was(void)
{
    mg_idmap m;
    long n;
    uint32_t i;

    for (n = 1;; n++) {
        mg_idmap_init(&m);
        mg_alloc_fail_at(n);
        for (i = 0; i < 100; i++) {
            if (mg_idmap_put(&m, i, &cell[i], NULL) == MG_ENOMEM) {
                CHECK(mg_alloc_failed() && mg_idmap_count(&m) == i && !mg_idmap_get(&m, i));
                CHECK(i == 0 || mg_idmap_put(&m, 0, &cell[0], NULL) == MG_OK); /* replacing needs no memory */
                CHECK(mg_idmap_put(&m, i, &cell[i], NULL) == MG_OK);
            }
        }
        for (i = 0; i < 100; i++)
            CHECK(mg_idmap_get(&m, i) == &cell[i]);
        mg_idmap_fini(&m);
        if (!mg_alloc_failed())
            break;
    }
    mg_alloc_fail_at(0);
    CHECK(n == 6); /* 16, 32, 64, 128 and 256 slots, then a run in which none failed */
}

int main(void)
{
    RUN(an_empty_map_answers_and_has_no_table);
    RUN(put_replaces_and_hands_back_the_old_value);
    RUN(any_order_of_puts_and_pops_gives_what_an_array_gives);
    RUN(ids_that_come_and_go_do_not_make_the_table_grow);
    RUN(iteration_visits_each_once_even_when_what_it_visits_is_popped);
    RUN(no_memory_leaves_the_map_as_it_was);
    return 0;
}
