#include "test/broker.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/clock.h"

struct mg_broker {
    mg_loop *loop; /* with a reference */
    void (*fn)(void *arg, mg_event *ev);
    void *arg;
    pthread_t thread;
    _Atomic int64_t deadline; /* of the grace period; MG_NEVER before shutdown. Changes once */
    mg_err result;            /* written by the thread, read after it was joined */
};

static void handle_events(mg_broker *b)
{
    mg_event ev;
    while (mg_loop_pop_event(b->loop, &ev))
        b->fn(b->arg, &ev);
}

static void *broker_main(void *arg)
{
    mg_broker *b = arg;
    mg_err err = MG_OK;
    while (err != MG_ECLOSED) {
        err = mg_loop_attend(b->loop, atomic_load(&b->deadline));
        handle_events(b);
        int64_t deadline = atomic_load(&b->deadline);
        if (deadline == MG_NEVER)
            continue;
        if (!mg_loop_unsent(b->loop))
            break;
        if (mg_now() >= deadline) {
            b->result = MG_ETIMEDOUT;
            break;
        }
    }
    mg_loop_close(b->loop);
    handle_events(b);
    return NULL;
}

mg_broker *mg_broker_start(mg_loop *loop, void (*fn)(void *arg, mg_event *ev), void *arg)
{
    mg_broker *b = mg_calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->loop = mg_loop_ref(loop);
    b->fn = fn;
    b->arg = arg;
    atomic_init(&b->deadline, MG_NEVER);
    if (pthread_create(&b->thread, NULL, broker_main, b)) {
        mg_loop_unref(loop);
        mg_free(b);
        return NULL;
    }
    return b;
}

void mg_broker_shutdown(mg_broker *b, int64_t grace)
{
    int64_t never = MG_NEVER, now = mg_now();
    atomic_compare_exchange_strong(&b->deadline, &never, grace < MG_NEVER - now ? now + grace : MG_NEVER - 1);
    mg_loop_interrupt(b->loop);
}

mg_err mg_broker_join(mg_broker *b)
{
    pthread_join(b->thread, NULL);
    mg_err result = b->result;
    mg_loop_unref(b->loop);
    mg_free(b);
    return result;
}

void mg_broker_forked(mg_broker *b)
{
    mg_loop_unref(b->loop);
    mg_free(b);
}
