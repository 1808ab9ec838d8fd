/* A closable FIFO queue that threads sleep on, in order.
 *
 * DESIGN. An item that is pushed while somebody sleeps is handed to the sleeper that has waited
 * longest, under the lock, before that thread runs: so the k-th sleeper gets the k-th item, and
 * a thread that comes by and does not need to sleep can never take an item that is promised.
 * Items that nobody waits for are kept in a ring. An item on its way to a sleeper still counts
 * in mg_latch_size().
 *
 * A latch may have another latch to notify, its watcher: a push then also pushes a token (a
 * reference to this latch) there. That is how a Select waits for many receivers without
 * anybody's code being run.
 *
 * A latch may have a bell: a descriptor that becomes readable when an item is kept for which nobody
 * sleeps here. A thread that waits for descriptors, such as the loop of a program, learns of items
 * by it. It rings once, until it is hushed.
 *
 * Pushing an item hands it over to the latch, taking it hands it back. Items that are left when
 * the latch ends go to the drop function given at its birth. A latch may have a limit: an item
 * that would exceed it is refused, unless the latch is empty. The engine never looks at what an
 * item points to. */
#ifndef MG_LATCH_H
#define MG_LATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ilist.h"
#include "sync/waiter.h"

typedef enum {
    MG_ITEM_NONE = 0,
    MG_ITEM_OBJECT, /* something of the layer above */
    MG_ITEM_FRAME,  /* an mg_frame, with a reference */
    MG_ITEM_TOKEN   /* an mg_latch that may have an item: to be ended with mg_token_end */
} mg_item_kind;

typedef struct {
    void *ptr;
    mg_item_kind kind;
    uint32_t size; /* bytes that it counts for the limit of a latch; 0: none, so it is never refused */
} mg_item;

enum { MG_SLEEPER_WAITING = 0, MG_SLEEPER_SERVED, MG_SLEEPER_CLOSED };

/* One thread's wait; its owner keeps it where it is between mg_latch_join and mg_latch_leave. */
typedef struct mg_sleeper {
    mg_node node;                   /* in the latch's `sleepers`; guarded by its mu */
    mg_waiter *waiter;              /* set once, by mg_latch_join */
    int64_t since;                  /* likewise: when the wait began */
    mg_item item;                   /* guarded by the latch's mu */
    _Atomic int state;              /* MG_SLEEPER_; changes once, under mu */
    const mg_waiter *served_by;     /* set before state: the waiter that served it, NULL if unknown, */
    uint32_t served_at;             /* and how many waits that thread had begun then */
    int64_t arriving_at;            /* when parts of a large frame began to arrive, or 0; its own thread's */
    int spun;                       /* this wait has been spinning; likewise */
    int followed;                   /* it has slept while another thread led the loop; likewise */
} mg_sleeper;

/* A latch has room for this many items from its birth, so the answer to a call is delivered even
 * if memory is out by then. */
#define MG_LATCH_FEW 2

/* The thread that a push has woken. */
typedef struct {
    mg_waiter *waiter; /* NULL: nobody slept */
    int64_t since;     /* when that thread began to wait */
} mg_woken;

typedef struct mg_latch {
    _Atomic uint32_t refs;
    void (*drop)(mg_item);    /* set once */
    _Atomic(void *) owner;    /* for the layer above; it alone reads and writes this */
    pthread_mutex_t mu;
    mg_item few[MG_LATCH_FEW]; /* guarded by mu, as all below: the ring, until more wait */
    mg_item *ring;
    size_t cap, head, count;
    size_t limit, bytes;      /* limit on the items in the ring together, or 0; their sum */
    int overflowed;           /* an item was refused since one was taken */
    size_t on_the_way;        /* items handed to sleepers that have not left yet */
    mg_ilist sleepers;        /* mg_sleeper: those without an item, in order of arrival */
    _Atomic(struct mg_latch *) watcher; /* with a reference, or NULL. Written under mu. */
    int watch_always;         /* notify the watcher also when a sleeper took the item */
    void (*tell)(struct mg_latch *, void *arg); /* called after each push, or NULL */
    void *tell_arg;
    int bell[2];              /* what is read and what is written to, the latch's own, or -1. Set once, under mu. */
    _Atomic int rung;         /* the bell was rung since it was hushed */
    int closed;
    _Atomic uint32_t tokens;  /* tokens of this latch, in any watcher */
    _Atomic int newest_first; /* the youngest sleeper is served, not the oldest: for threads that are all alike */
} mg_latch;

/* A reference, or NULL when memory is out. drop may be called on any thread, under no lock of
 * the engine. */
mg_latch *mg_latch_new(void (*drop)(mg_item));
mg_latch *mg_latch_ref(mg_latch *l);
void mg_latch_unref(mg_latch *l);

/* Adds an item, which is the latch's when this returns MG_OK and the caller's otherwise.
 * MG_ECLOSED, MG_ENOMEM, MG_EFULL. *woken (may be NULL) tells who was woken, be it here or at
 * the watcher. Any thread; does not block. */
mg_err mg_latch_push(mg_latch *l, mg_item item, mg_woken *woken);

/* mg_latch_push without the function of mg_latch_tell: for a caller that tells by itself. */
mg_err mg_latch_push_untold(mg_latch *l, mg_item item, mg_woken *woken);

/* Like mg_latch_push, but a parked thread stays parked: when *owed is not NULL,
 * mg_waiter_unpark(*owed) is owed, best after a lock is dropped which that thread will want (the
 * GIL). */
mg_err mg_latch_push_owing(mg_latch *l, mg_item item, mg_woken *woken, mg_waiter **owed);

/* Puts an item back at the front, for a wait that was given up after it had been served. */
void mg_latch_unget(mg_latch *l, mg_item item);

/* Takes the first item that is promised to no sleeper: MG_OK, MG_EAGAIN when there is none,
 * MG_ECLOSED. */
mg_err mg_latch_try(mg_latch *l, mg_item *item);

/* Like mg_latch_try, but where there is no item the caller becomes the last sleeper (MG_EAGAIN)
 * and has to call mg_latch_leave. MG_ENOMEM. */
mg_err mg_latch_join(mg_latch *l, mg_sleeper *s, mg_item *item);

/* Sleeps until s is served or closed (MG_OK), the deadline (MG_ETIMEDOUT), or a signal may have
 * arrived (MG_EINTR: look, then call again). Between mg_latch_join and mg_latch_leave. A thread
 * that may lead a loop meanwhile calls mg_loop_wait instead. */
mg_err mg_latch_sleep(mg_sleeper *s, int64_t deadline);

/* mg_latch_sleep and mg_loop_wait begin with this. */
void mg_latch_count_wait(const mg_sleeper *s);

/* Ends a sleep, whatever its state: MG_OK with the item, MG_ECLOSED, or MG_EAGAIN when none has
 * come. */
mg_err mg_latch_leave(mg_latch *l, mg_sleeper *s, mg_item *item);

/* Closes for good and wakes every sleeper. Items left become unreachable and are dropped.
 * Repeatable. */
void mg_latch_close(mg_latch *l);
int mg_latch_closed(mg_latch *l);

/* In a child made by fork: the threads that slept here are in the other process. */
void mg_latch_forked(mg_latch *l);

/* Sets or clears (0) the limit for what is pushed from now on. */
void mg_latch_set_limit(mg_latch *l, size_t limit);
size_t mg_latch_limit(mg_latch *l);
/* An item was refused: whether it is the first since one was taken. */
int mg_latch_overflow(mg_latch *l);

/* Calls fn for each item that is promised to no sleeper, under the lock, until one call returns
 * something else than 0; returns that. */
int mg_latch_visit(mg_latch *l, int (*fn)(mg_item, void *arg), void *arg);

/* Items not consumed yet. */
size_t mg_latch_size(mg_latch *l);

/* The threads that sleep, the longest first: fills at most cap entries and returns how many
 * sleepers there are. */
typedef struct {
    uintptr_t thread; /* pthread_self() of it, as a number */
    int64_t since;
} mg_asleep;
size_t mg_latch_sleepers(mg_latch *l, mg_asleep *out, size_t cap);

/* Sets or clears (NULL) the watcher. Tokens already pushed stay where they are. */
void mg_latch_watch(mg_latch *l, mg_latch *watcher, int always);

/* Ends a token of l, which was taken. Any thread. */
void mg_token_end(mg_latch *l);

/* Sets or clears a function that each push calls afterwards, on its own thread and under no
 * lock. */
void mg_latch_tell(mg_latch *l, void (*fn)(mg_latch *, void *arg), void *arg);

/* The bell's descriptor, which is made by the first call: readable once it was rung. It is the
 * latch's, and is open for as long as there is a reference to the latch. -1 and errno. Any
 * thread. */
int mg_latch_bell(mg_latch *l);

/* Makes the bell silent. To be called before the items are looked at: one that comes from then on
 * rings again. */
void mg_latch_hush(mg_latch *l);

/* For a caller of mg_latch_tell, whose function is to act once for all items until the latch is
 * hushed: whether it has acted. From now on it has. */
int mg_latch_has_rung(mg_latch *l);

/* Polls until s is served or closed, if polling pays at present. Between mg_latch_join and
 * mg_latch_leave. */
void mg_latch_poll(mg_sleeper *s, int64_t now);

/* The calling thread notes that something has come which it did not sleep for here, so many
 * nanoseconds after it was asked for. */
void mg_latch_learn(int64_t took);

/* The thread of a sleeper notes how long its wait has taken, unless the wait was given up. Own
 * thread only, before mg_latch_leave. */
void mg_sleeper_learn(const mg_sleeper *s);

/* --- what the layer above sets and asks; any thread, nothing blocks --- */

/* A pointer of the layer above, NULL at first. It alone says what it points to, and when. */
static inline void mg_latch_set_owner(mg_latch *l, void *owner)
{
    atomic_store(&l->owner, owner);
}

static inline void *mg_latch_owner(mg_latch *l)
{
    return atomic_load(&l->owner);
}

/* Whether the youngest sleeper is served, not the oldest: for threads that are all alike. */
static inline void mg_latch_set_newest_first(mg_latch *l, int yes)
{
    atomic_store(&l->newest_first, yes);
}

static inline int mg_latch_newest_first(mg_latch *l)
{
    return atomic_load(&l->newest_first);
}

/* How many references there are. Other threads may change that, except for those that the caller
 * knows of. */
static inline uint32_t mg_latch_refs(const mg_latch *l)
{
    return atomic_load(&l->refs);
}

/* The number of its tokens, including those about to be pushed. After mg_latch_watch has
 * replaced a watcher, the old one can still get this many, and no more. */
static inline uint32_t mg_latch_tokens(const mg_latch *l)
{
    return atomic_load(&l->tokens);
}

/* The watcher, or NULL: borrowed, for as long as nobody calls mg_latch_watch. */
static inline mg_latch *mg_latch_watcher(const mg_latch *l)
{
    return atomic_load(&l->watcher);
}

#endif
