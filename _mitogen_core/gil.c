#include "gil.h"

static void call_and_release(mg_loop *loop, void (*fn)(void *arg), void *arg)
{
    fn(arg);
    mg_loop_release(loop);
}

static void acquire_and_call(mg_loop *loop, void (*fn)(void *arg), void *arg)
{
    mg_loop_acquire(loop);
    call_and_release(loop, fn, arg);
}

void mg_with_loop(mg_loop *loop, void (*fn)(void *arg), void *arg)
{
    if (mg_loop_try_acquire(loop))
        call_and_release(loop, fn, arg);
    else
        MG_WITHOUT_GIL(acquire_and_call(loop, fn, arg));
}
