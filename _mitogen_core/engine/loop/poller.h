/* libev, and nothing else: descriptors that are watched, a sleep with a deadline, a kick that
 * ends it.
 *
 * A poller is used by one thread at a time, the one that leads the loop it belongs to;
 * mg_poller_kick is for every thread. It never aborts the process if there is no descriptor
 * left: all it needs is opened at its birth, which then fails. */
#ifndef MG_POLLER_H
#define MG_POLLER_H

#include <stdint.h>

#include "base/err.h"

typedef struct mg_poller mg_poller;

/* The owner's functions, called by the thread that takes a turn. */
typedef struct {
    void *arg;
    int (*may_sleep)(void *arg); /* from here on no kick is lost; returns 0 to end the sleep at once */
    void (*woken)(void *arg);    /* the sleep is over, and no callback has run yet */
} mg_poller_owner;

/* One reference, or NULL with errno: EMFILE, ENFILE, ENOMEM. */
mg_poller *mg_poller_new(const mg_poller_owner *owner);
mg_poller *mg_poller_ref(mg_poller *p);
void mg_poller_unref(mg_poller *p);

/* Gives the descriptors back. From now on a turn does nothing, and neither does a watch.
 * Idempotent. Whether it was open. */
int mg_poller_close(mg_poller *p);

/* In the one thread of a child made by fork, where no thread was inside at that moment but
 * asleep. */
void mg_poller_forked(mg_poller *p);

/* Ends the present sleep; does nothing when there is none. Any thread. Whether it had to. */
int mg_poller_kick(mg_poller *p);

/* Whether a thread sleeps in it, and nothing in it is half changed. Any thread. The answer may
 * be out of date at once, unless the owner's `woken` keeps the sleeper from going on. */
int mg_poller_is_asleep(const mg_poller *p);

/* One turn: calls each watch that is ready. sleep: if none is, the thread sleeps until one is,
 * or the deadline. */
enum { MG_TURN_TIMEOUT = 1, MG_TURN_CALLED = 2 };
int mg_poller_turn(mg_poller *p, int sleep, int64_t now, int64_t deadline);

/* --- watches --- */

typedef struct mg_watch mg_watch;
enum { MG_READ = 1, MG_WRITE = 2 };

/* A watch, stopped; NULL when memory is out. Any thread. */
mg_watch *mg_poller_watch(mg_poller *p, int fd, int events, void (*fn)(void *arg, int events), void *arg);
/* MG_EIO when the number is no descriptor now. It has to stay the same file until the watch is
 * stopped. */
mg_err mg_watch_start(mg_watch *w);
void mg_watch_stop(mg_watch *w);
int mg_watch_active(const mg_watch *w);
/* A stopped one. Any thread. */
void mg_watch_free(mg_watch *w);

/* Ends the file of a descriptor whose watches are stopped; something harmless takes its place
 * until the owner closes the number. The system may still tell of a stopped descriptor, and if
 * that is another file by then, libev begins all over again. */
void mg_poller_retire(mg_poller *p, int fd);

/* Has the system told of watches that were started, at once and not with the next turn: a
 * descriptor that its owner closes meanwhile would then be an error of libev's, which aborts.
 * Not from a callback. */
void mg_poller_settle(mg_poller *p);

#endif
