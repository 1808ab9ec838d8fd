#include "gil.h"

void mg_acquire_loop(mg_loop *loop)
{
    if (!mg_loop_try_acquire(loop))
        MG_WITHOUT_GIL(mg_loop_acquire(loop));
}
