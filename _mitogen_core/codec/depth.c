/* Nearly everything that is done with a value recurses into it, and takes C stack for each
 * level: writing it, hashing it, comparing it, showing it. The interpreter's own limit counts
 * levels and knows nothing of the stack (before 3.14), and threads may have little: 128 KiB is
 * usual with musl. */
#include "codec/depth.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__FreeBSD__) || defined(__DragonFly__)
#include <pthread_np.h>
#endif

/* Stack that one level of a value may use, and stack that stays free for a program that walks
 * the value afterwards. The standard library's pickle writer needs the most for a level. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LEVEL_BYTES = 4096, RESERVE_BYTES = 65536 };
#else
enum { LEVEL_BYTES = 1024, RESERVE_BYTES = 32768 };
#endif

typedef struct {
    uintptr_t low, high; /* both 0 if the system does not tell them */
    int looked;
} stack_bounds;

static _Thread_local stack_bounds bounds;

static void look(stack_bounds *found)
{
    found->looked = 1;
#if defined(__APPLE__)
    found->high = (uintptr_t) pthread_get_stackaddr_np(pthread_self());
    found->low = found->high - pthread_get_stacksize_np(pthread_self());
#elif defined(__linux__) || defined(__FreeBSD__) || defined(__DragonFly__) || defined(__NetBSD__)
    pthread_attr_t attr;
    void *low;
    size_t size;
#if defined(__FreeBSD__) || defined(__DragonFly__)
    if (pthread_attr_init(&attr) != 0)
        return;
    int rc = pthread_attr_get_np(pthread_self(), &attr);
#else
    int rc = pthread_getattr_np(pthread_self(), &attr);
    if (rc != 0)
        return;
#endif
    if (rc == 0 && pthread_attr_getstack(&attr, &low, &size) == 0) {
        found->low = (uintptr_t) low;
        found->high = found->low + size;
    }
    pthread_attr_destroy(&attr);
#endif
}

static uintptr_t stack_pointer(void)
{
#if defined(__GNUC__)
    return (uintptr_t) __builtin_frame_address(0);
#else
    volatile char here = 0;
    return (uintptr_t) &here;
#endif
}

int mg_depth_fits_stack(unsigned depth)
{
    if (!bounds.looked)
        look(&bounds);
    uintptr_t here = stack_pointer();
    if (here <= bounds.low || here > bounds.high)
        return 1; /* not known, or a coroutine runs on another stack */
    return (uintptr_t) depth * LEVEL_BYTES + RESERVE_BYTES <= here - bounds.low;
}
