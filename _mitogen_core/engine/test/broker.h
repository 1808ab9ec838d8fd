/* The life of a loop in a program without Python: a thread that attends to it, an end that gives
 * what was sent its time, and what a fork leaves. The binding's broker thread is a Python
 * thread, because callbacks run on it; it takes the same steps with the same calls:
 * mg_loop_attend, mg_loop_unsent, mg_loop_close. */
#ifndef MG_BROKER_H
#define MG_BROKER_H

#include <stdint.h>

#include "base/err.h"
#include "loop/loop.h"

typedef struct mg_broker mg_broker;

/* Starts the thread. fn(arg, ev) is called on it for each event, and takes over what the event
 * holds; it must not block. Takes a reference to the loop. NULL: out of memory or threads. */
mg_broker *mg_broker_start(mg_loop *loop, void (*fn)(void *arg, mg_event *ev), void *arg);

/* Asks for the end and returns at once: the thread goes on attending until nothing is unsent,
 * but at most grace nanoseconds, then closes the loop and ends. Any thread but the broker's
 * callbacks may follow up with join. Repeatable; the first grace counts. */
void mg_broker_shutdown(mg_broker *b, int64_t grace);

/* Waits for the thread and frees b. MG_OK: all was sent; MG_ETIMEDOUT: the grace period was over
 * first. Another thread. */
mg_err mg_broker_join(mg_broker *b);

/* In a child made by fork, instead of the two above: the thread is in the other process. Gives
 * up the loop and frees b. */
void mg_broker_forked(mg_broker *b);

#endif
