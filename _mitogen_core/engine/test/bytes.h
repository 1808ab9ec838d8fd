/* Bytes derived from a number, for payloads: a comparison shows bytes that are missing, doubled,
 * misplaced or of another number. A sanitizer looks at each access, so they are copied and
 * compared by rows and not one by one. */
#ifndef MG_TEST_BYTES_H
#define MG_TEST_BYTES_H

#include <stdint.h>
#include <string.h>

#include "test/test.h"

#define TEST_ROW 65536

static uint8_t test_rows[2 * TEST_ROW];

__attribute__((constructor)) static void test_make_rows(void)
{
    unsigned state = 1;

    for (int i = 0; i < 2 * TEST_ROW; i++)
        test_rows[i] = (uint8_t) test_random(&state);
}

/* The row that comes at an offset into the bytes of a number. */
static inline const uint8_t *test_row(unsigned number, size_t at)
{
    return test_rows + (number * 40503u + (unsigned) (at / TEST_ROW) * 30011u) % TEST_ROW;
}

static inline size_t test_row_len(size_t left)
{
    return left < TEST_ROW ? left : TEST_ROW;
}

static inline void test_fill(uint8_t *p, size_t len, unsigned number)
{
    for (size_t at = 0; at < len; at += TEST_ROW)
        memcpy(p + at, test_row(number, at), test_row_len(len - at));
}

static inline int test_filled(const uint8_t *p, size_t len, unsigned number)
{
    for (size_t at = 0; at < len; at += TEST_ROW)
        if (memcmp(p + at, test_row(number, at), test_row_len(len - at)))
            return 0;
    return 1;
}

#endif
