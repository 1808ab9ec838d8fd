#include "base/buf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "test/test.h"

static void count_release(void *arg)
{
    ++*(_Atomic int *) arg;
}

static void a_block_is_writable_and_knows_its_length(void)
{
    mg_buf *buf = mg_buf_new(5);

    CHECK(mg_buf_len(buf) == 5);
    CHECK((uintptr_t) mg_buf_ptr(buf) % 8 == 0);
    memcpy(mg_buf_ptr(buf), "abcde", 5);
    CHECK(mg_buf_ref(buf) == buf);
    mg_buf_unref(buf);
    CHECK(!memcmp(mg_buf_ptr(buf), "abcde", 5));
    mg_buf_unref(buf);
    mg_buf_unref(NULL);
}

static void an_empty_block_is_a_block(void)
{
    mg_buf *buf = mg_buf_new(0);

    CHECK(buf && mg_buf_len(buf) == 0);
    mg_buf_unref(buf);
}

static void foreign_memory_is_released_by_the_last_reference(void)
{
    static const char text[] = "borrowed";
    _Atomic int released = 0;
    mg_buf *buf = mg_buf_wrap(text, 8, count_release, &released);

    CHECK(mg_buf_ptr(buf) == (const uint8_t *) text && mg_buf_len(buf) == 8);
    mg_buf_ref(buf);
    mg_buf_unref(buf);
    CHECK(released == 0);
    mg_buf_unref(buf);
    CHECK(released == 1);
}

static void static_memory_needs_no_release(void)
{
    mg_buf_unref(mg_buf_wrap("text", 4, NULL, NULL));
}

static void no_memory_means_no_block_and_no_release(void)
{
    _Atomic int released = 0;

    mg_alloc_fail_at(1);
    CHECK(!mg_buf_new(10));
    mg_alloc_fail_at(1);
    CHECK(!mg_buf_wrap("", 0, count_release, &released));
    mg_alloc_fail_at(0);
    CHECK(released == 0);
    CHECK(!mg_buf_new(SIZE_MAX));
}

static void *use_and_drop(void *arg)
{
    mg_buf *buf = arg;
    int i;

    for (i = 0; i < 10000; i++) {
        mg_buf_ref(buf);
        CHECK(mg_buf_ptr(buf)[0] == 'x');
        mg_buf_unref(buf);
    }
    mg_buf_unref(buf);
    return NULL;
}

static void free_text(void *arg)
{
    char *text = arg;

    text[0] = 0; /* a thread that still reads would race with this */
    free(text);
}

static void threads_share_a_block_and_one_of_them_releases_it(void)
{
    pthread_t threads[4];
    char *text = malloc(1);
    mg_buf *buf;
    int i;

    text[0] = 'x';
    buf = mg_buf_wrap(text, 1, free_text, text);
    for (i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, use_and_drop, mg_buf_ref(buf));
    mg_buf_unref(buf);
    for (i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    RUN(a_block_is_writable_and_knows_its_length);
    RUN(an_empty_block_is_a_block);
    RUN(foreign_memory_is_released_by_the_last_reference);
    RUN(static_memory_needs_no_release);
    RUN(no_memory_means_no_block_and_no_release);
    RUN(threads_share_a_block_and_one_of_them_releases_it);
    return 0;
}
