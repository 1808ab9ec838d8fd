/* All that the engine's tests need: a check that tells where it failed, and a runner that prints
 * what was proven. */
#ifndef MG_TEST_H
#define MG_TEST_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                                         \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Prints the function's name as a sentence, after it has returned. */
#define RUN(test) (test(), test_say(#test))

static inline void test_say(const char *name)
{
    fputs("ok  ", stdout);
    for (; *name; name++)
        putchar(*name == '_' ? ' ' : *name);
    putchar('\n');
    fflush(stdout);
}

/* Numbers that look random and are the same in each run. */
static inline unsigned test_random(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#endif
