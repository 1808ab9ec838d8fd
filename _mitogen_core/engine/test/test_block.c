#include "base/block.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "test/test.h"

#define MIB ((size_t) 1 << 20)

static void a_block_is_writable_to_its_end(void)
{
    const size_t sizes[] = {MG_BLOCK_MIN, MIB, MIB + 26, MG_BLOCK_KEPT, MG_BLOCK_KEPT + (64 << 10), 5 * MIB, 64 * MIB};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *p = mg_block_new(sizes[i]);
        CHECK(p);
        p[0] = 1;
        p[sizes[i] / 2] = 2;
        p[sizes[i] - 1] = 3;
        CHECK(p[0] == 1 && p[sizes[i] / 2] == 2 && p[sizes[i] - 1] == 3);
        mg_block_free(p, sizes[i]);
    }
    mg_block_drop_spares();
    CHECK(mg_block_spares() == 0);
}

static void no_more_spares_than_promised(void)
{
    void *blocks[MG_BLOCK_SPARES + 3];

    mg_block_free(mg_block_new(MIB), MIB); /* while nobody would drop it later */
    CHECK(mg_block_spares() == 0);
    mg_block_keeper(1);
    for (int i = 0; i < MG_BLOCK_SPARES + 3; i++)
        blocks[i] = mg_block_new(MIB);
    for (int i = 0; i < MG_BLOCK_SPARES + 3; i++)
        mg_block_free(blocks[i], MIB);
    CHECK(mg_block_spares() <= MG_BLOCK_SPARES);
    mg_block_free(mg_block_new(200 * MIB), 200 * MIB);
    CHECK(mg_block_spares() <= MG_BLOCK_SPARES);
    mg_block_keeper(-1); /* the last one drops them */
    CHECK(mg_block_spares() == 0);
}

static void one_large_block_is_kept_for_its_like(void)
{
    uint8_t *p = mg_block_new(64 * MIB + 100);

    p[0] = p[64 * MIB] = 7;
    mg_block_free(p, 64 * MIB + 100); /* while nobody would drop it later */
    CHECK(mg_block_spares() == 0 && !mg_block_to_look_after());
    mg_block_keeper(1);
    p = mg_block_new(64 * MIB + 100);
    p[0] = p[64 * MIB] = 7;
    CHECK(!mg_block_has_spare(64 * MIB + 100));
    int looked_after = mg_block_to_look_after();
    mg_block_free(p, 64 * MIB + 100);
    int kept = mg_block_spares(); /* none under a sanitizer that should see each end */
    CHECK(kept == looked_after && mg_block_to_look_after() == kept);
    CHECK(kept <= 1 && mg_block_has_spare(64 * MIB + 100) == kept);
    CHECK(!mg_block_has_spare(63 * MIB) && !mg_block_has_spare(MIB));

    p = mg_block_new(63 * MIB); /* another class, so the spare one stays */
    CHECK(p && mg_block_spares() == kept);
    mg_block_free(p, 63 * MIB); /* the younger one is kept */
    CHECK(mg_block_spares() == kept && !mg_block_has_spare(64 * MIB + 100) && mg_block_has_spare(63 * MIB) == kept);

    p = mg_block_new(62 * MIB); /* the same class */
    CHECK(p && mg_block_spares() == 0);
    p[62 * MIB - 1] = 1;
    mg_block_free(p, 62 * MIB);

    mg_block_free(mg_block_new(2 * MG_BLOCK_LARGE), 2 * MG_BLOCK_LARGE); /* too large to keep */
    CHECK(mg_block_spares() == kept && !mg_block_has_spare(2 * MG_BLOCK_LARGE));
    mg_block_keeper(-1); /* the last one drops them */
    CHECK(mg_block_spares() == 0 && !mg_block_has_spare(62 * MIB) && !mg_block_to_look_after());
}

static void resizing_keeps_the_bytes(void)
{
    uint8_t *p = mg_block_new(MIB);

    memset(p, 'a', MIB);
    p = mg_block_resize(p, MIB, 20 * MIB);
    CHECK(p && p[0] == 'a' && p[MIB - 1] == 'a');
    p[20 * MIB - 1] = 'z';
    p = mg_block_resize(p, 20 * MIB, 70 * MIB);
    CHECK(p && p[0] == 'a' && p[MIB - 1] == 'a' && p[20 * MIB - 1] == 'z');
    p[70 * MIB - 1] = 'z';
    p = mg_block_resize(p, 70 * MIB, MG_BLOCK_MIN);
    CHECK(p && p[0] == 'a' && p[MG_BLOCK_MIN - 1] == 'a');
    mg_block_free(p, MG_BLOCK_MIN);
    mg_block_free(NULL, 0);
    mg_block_drop_spares();
}

static void no_memory_means_no_block(void)
{
    mg_alloc_fail_at(1);
    CHECK(!mg_block_new(MIB));
    mg_alloc_fail_at(0);
    CHECK(!mg_block_new(SIZE_MAX));
    CHECK(!mg_block_new(SIZE_MAX - MIB));

    char *p = mg_block_new(20 * MIB);
    CHECK(p);
    p[20 * MIB - 1] = 'z';
    mg_alloc_fail_at(1);
    CHECK(!mg_block_resize(p, 20 * MIB, 40 * MIB));
    mg_alloc_fail_at(0);
    CHECK(!mg_block_resize(p, 20 * MIB, SIZE_MAX));
    CHECK(p[20 * MIB - 1] == 'z'); /* the old one stays */
    mg_block_free(p, 20 * MIB);
}

static void advice_leaves_the_bytes_alone(void)
{
    size_t size = MG_BLOCK_HUGE + 12345;
    char *p = mg_malloc(size);

    CHECK(p);
    memset(p, 'x', 100);
    mg_block_advise(p, 100);
    mg_block_advise(p, size);
    p[size - 1] = 'y';
    CHECK(p[0] == 'x' && p[99] == 'x' && p[size - 1] == 'y');
    mg_free(p);
}

static void what_is_discarded_can_be_written_again(void)
{
    size_t size = MG_BLOCK_MIN + 12345;
    char *p = mg_malloc(size);

    CHECK(p);
    memset(p, 'x', size);
    mg_block_discard(p + 1, size - 2);
    mg_block_discard(p, 10);
    CHECK(p[0] == 'x' && p[size - 1] == 'x'); /* what is beside it stays */
    memset(p, 'y', size);
    CHECK(p[1] == 'y' && p[size / 2] == 'y');
    mg_free(p);
}

static void *take_and_give(void *arg)
{
    char mark = *(char *) arg;

    for (int i = 0; i < 2000; i++) {
        size_t size = MG_BLOCK_MIN << (i % 5);
        char *p = mg_block_new(size);
        CHECK(p);
        p[100] = mark;
        p[size - 1] = mark;
        CHECK(p[100] == mark && p[size - 1] == mark); /* no other thread has the same block */
        mg_block_free(p, size);
    }
    return NULL;
}

static void threads_never_share_a_block(void)
{
    pthread_t threads[4];
    char marks[] = "abcd";

    mg_block_keeper(1);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, take_and_give, &marks[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(mg_block_spares() <= MG_BLOCK_SPARES + 1);
    mg_block_keeper(-1);
    CHECK(mg_block_spares() == 0);
}

int main(void)
{
    RUN(a_block_is_writable_to_its_end);
    RUN(no_more_spares_than_promised);
    RUN(one_large_block_is_kept_for_its_like);
    RUN(resizing_keeps_the_bytes);
    RUN(no_memory_means_no_block);
    RUN(advice_leaves_the_bytes_alone);
    RUN(what_is_discarded_can_be_written_again);
    RUN(threads_never_share_a_block);
    return 0;
}
