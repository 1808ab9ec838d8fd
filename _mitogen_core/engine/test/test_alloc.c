#include "base/alloc.h"

#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "test/test.h"

static void the_chosen_allocation_fails_and_only_that_one(void)
{
    void *a, *b, *c;

    mg_alloc_fail_at(2);
    a = mg_malloc(1);
    CHECK(a && !mg_alloc_failed());
    CHECK(!mg_calloc(1, 1) && mg_alloc_failed());
    b = mg_calloc(3, 5);
    c = mg_realloc(NULL, 7);
    CHECK(b && c);
    mg_alloc_fail_at(0);
    mg_free(a);
    mg_free(b);
    mg_free(c);
}

static void a_failed_realloc_leaves_the_block(void)
{
    char *p = mg_malloc(8);

    memcpy(p, "content", 8);
    mg_alloc_fail_at(1);
    CHECK(!mg_realloc(p, 1 << 20));
    CHECK(!strcmp(p, "content"));
    mg_alloc_fail_at(0);
    mg_free(p);
}

static void nothing_is_a_block_too(void)
{
    void *a = mg_malloc(0);
    void *b = mg_calloc(0, 4);
    void *c = mg_realloc(mg_malloc(4), 0);

    CHECK(a && b && c);
    mg_free(a);
    mg_free(b);
    mg_free(c);
    mg_free(NULL);
}

static void calloc_zeroes_and_refuses_an_overflow(void)
{
    volatile size_t huge = SIZE_MAX; /* volatile: or the compiler sees it and complains */
    char *p = mg_calloc(4, 4);
    int i;

    for (i = 0; i < 16; i++)
        CHECK(!p[i]);
    CHECK(!mg_calloc(huge / 2, 3));
    mg_free(p);
}

/* Sanitizers have an allocator of their own. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define GLIBC_HEAP 1
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef GLIBC_HEAP
#endif
#endif
#endif

#ifdef GLIBC_HEAP
/* As many parts of a file as are on their way at once, and what they become. */
enum { PARTS = 16, PART = 128 * 1024, PAGE = 4096 };

static long faults_of_parts(void)
{
    struct rusage before, after;
    char *parts[PARTS];

    CHECK(!getrusage(RUSAGE_SELF, &before));
    for (int i = 0; i < PARTS; i++) {
        parts[i] = mg_malloc(PART);
        CHECK(parts[i]);
        memset(parts[i], i, PART);
    }
    for (int i = 0; i < PARTS; i++)
        mg_free(parts[i]);
    CHECK(!getrusage(RUSAGE_SELF, &after));
    return after.ru_minflt - before.ru_minflt;
}

static void a_heap_that_is_kept_is_not_fetched_again(void)
{
    mg_alloc_keep_heap();
    faults_of_parts();
    CHECK(faults_of_parts() < PARTS * (PART / PAGE) / 10);
}
#endif

static void each_error_has_a_text_of_its_own(void)
{
    int i, j;

    for (i = MG_OK; i <= MG_EFORKED; i++) {
        CHECK(strcmp(mg_strerror((mg_err) i), mg_strerror((mg_err) 99)));
        for (j = MG_OK; j < i; j++)
            CHECK(strcmp(mg_strerror((mg_err) i), mg_strerror((mg_err) j)));
    }
}

int main(void)
{
    RUN(the_chosen_allocation_fails_and_only_that_one);
    RUN(a_failed_realloc_leaves_the_block);
    RUN(nothing_is_a_block_too);
    RUN(calloc_zeroes_and_refuses_an_overflow);
#ifdef GLIBC_HEAP
    RUN(a_heap_that_is_kept_is_not_fetched_again);
#endif
    RUN(each_error_has_a_text_of_its_own);
    return 0;
}
