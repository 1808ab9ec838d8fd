#include "wire/landing.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "test/test.h"

static void a_place_is_taken_once_and_by_its_length_only(void)
{
    mg_landing l = {0};
    mg_buf *buf = mg_buf_new(MG_LANDING_MIN);

    CHECK(!mg_landing_has(&l) && !mg_landing_take(&l, MG_LANDING_MIN));
    CHECK(!mg_landing_take(&l, 0));
    mg_landing_offer(&l, buf);
    CHECK(mg_landing_has(&l));
    CHECK(!mg_landing_take(&l, MG_LANDING_MIN + 1));
    CHECK(mg_landing_take(&l, MG_LANDING_MIN) == buf);
    CHECK(!mg_landing_has(&l) && !mg_landing_take(&l, MG_LANDING_MIN));
    mg_buf_unref(buf);
}

static void a_place_is_wanted_when_the_same_length_comes_again(void)
{
    mg_landing l = {0};

    for (int i = 0; i < 3; i++) {
        CHECK(!mg_landing_came(&l, MG_LANDING_MIN - 1) && !mg_landing_came(&l, MG_LANDING_MAX + 1));
        CHECK(!mg_landing_to_look_after(&l));
        CHECK(!mg_landing_came(&l, MG_LANDING_MIN) && !mg_landing_came(&l, MG_LANDING_MAX));
        CHECK(mg_landing_to_look_after(&l));
        CHECK(mg_landing_came(&l, MG_LANDING_MAX));
        mg_landing_offer(&l, mg_buf_new(MG_LANDING_MAX));
        CHECK(!mg_landing_came(&l, MG_LANDING_MAX)); /* it is there */
        CHECK(!mg_landing_came(&l, MG_LANDING_MIN) && !mg_landing_came(&l, MG_LANDING_MIN));
        mg_landing_offer(&l, mg_buf_new(MG_LANDING_MIN)); /* instead */
        CHECK(!mg_landing_take(&l, MG_LANDING_MAX));
        mg_buf_unref(mg_landing_take(&l, MG_LANDING_MIN));
        mg_landing_offer(&l, mg_buf_new(MG_LANDING_MIN));
        mg_landing_drop(&l);
        CHECK(!mg_landing_has(&l) && !mg_landing_to_look_after(&l));
    }
}

static void a_place_that_is_dropped_gives_its_pages_back(void)
{
    mg_landing l = {0};
    size_t size = MG_LANDING_MIN * 4;
    uint8_t *memory = mg_malloc(size);
    size_t empty = 0;

    CHECK(memory);
    memset(memory, 'x', size);
    mg_landing_offer(&l, mg_buf_wrap(memory + 1, size - 2, NULL, NULL));
    mg_landing_drop(&l);
    CHECK(memory[0] == 'x' && memory[size - 1] == 'x'); /* the pages at its ends are others', too */
#if defined(__linux__)
    for (size_t i = 0; i < size; i++)
        empty += !memory[i]; /* a page that has been given back reads as zeros */
    CHECK(empty > size / 2);
#endif
    (void) empty;
    memset(memory, 'y', size);
    mg_free(memory);
}

/* --- threads --- */

enum { TIMES = 20000 };

static mg_landing shared;
static uint8_t places[MG_LANDING_MIN + 1];
static _Atomic int gone;

static void count_gone(void *arg)
{
    (void) arg;
    atomic_fetch_add(&gone, 1);
}

static void *offer_and_take(void *arg)
{
    size_t mine = MG_LANDING_MIN + (size_t) arg % 2, other = MG_LANDING_MIN + !((size_t) arg % 2);
    for (int i = 0; i < TIMES; i++) {
        mg_landing_offer(&shared, mg_buf_wrap(places, mine, count_gone, NULL));
        mg_buf *buf = mg_landing_take(&shared, i % 2 ? mine : other);
        CHECK(!buf || mg_buf_len(buf) == (i % 2 ? mine : other));
        mg_buf_unref(buf);
    }
    return NULL;
}

static void threads_that_offer_and_take_lose_no_reference(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&threads[i], NULL, offer_and_take, (void *) i));
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    mg_landing_drop(&shared);
    CHECK(atomic_load(&gone) == THREADS * TIMES);
}

int main(void)
{
    RUN(a_place_is_taken_once_and_by_its_length_only);
    RUN(a_place_is_wanted_when_the_same_length_comes_again);
    RUN(a_place_that_is_dropped_gives_its_pages_back);
    RUN(threads_that_offer_and_take_lose_no_reference);
    return 0;
}
