#include "sync/latch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#include "base/alloc.h"
#include "base/clock.h"

/* The thread that has served another one holds the GIL, which the woken thread needs next, until
 * it waits itself. Most threads do so after some statements of Python. A sleep until then would
 * cost the wake that the spin has just saved. */
#define LET_GO (MG_SECOND / 200000)

mg_latch *mg_latch_new(void (*drop)(mg_item))
{
    mg_latch *l = mg_calloc(1, sizeof *l);
    if (!l)
        return NULL;
    atomic_init(&l->refs, 1);
    l->drop = drop;
    l->ring = l->few;
    l->cap = MG_LATCH_FEW;
    l->bell[0] = l->bell[1] = -1;
    mg_ilist_init(&l->sleepers);
    pthread_mutex_init(&l->mu, NULL);
    return l;
}

mg_latch *mg_latch_ref(mg_latch *l)
{
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

static void drop_ring(mg_latch *l, mg_item *ring, size_t cap, size_t head, size_t count)
{
    for (size_t i = 0; i < count; i++)
        l->drop(ring[(head + i) % cap]);
    if (ring != l->few)
        mg_free(ring);
}

void mg_latch_unref(mg_latch *l)
{
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    drop_ring(l, l->ring, l->cap, l->head, l->count);
    mg_latch_unref(l->watcher);
    if (l->bell[1] >= 0 && l->bell[1] != l->bell[0])
        close(l->bell[1]);
    if (l->bell[0] >= 0)
        close(l->bell[0]);
    pthread_mutex_destroy(&l->mu);
    mg_free(l);
}

/* REQUIRES(l->mu). Makes room for one more item. */
static mg_err reserve_locked(mg_latch *l)
{
    if (l->count < l->cap)
        return MG_OK;
    size_t cap = l->cap * 2;
    mg_item *ring = mg_malloc(cap * sizeof *ring);
    if (!ring)
        return MG_ENOMEM;
    assert(l->count <= l->cap);
    for (size_t i = 0; i < l->count; i++)
        ring[i] = l->ring[(l->head + i) % l->cap];
    if (l->ring != l->few)
        mg_free(l->ring);
    l->ring = ring;
    l->cap = cap;
    l->head = 0;
    return MG_OK;
}

static mg_sleeper *sleeper_of(mg_node *node)
{
    return node ? MG_CONTAINER(node, mg_sleeper, node) : NULL;
}

/* REQUIRES(l->mu). The sleeper cannot leave while mu is held, so it exists, and so does the
 * object that it sleeps in. Returns whether the caller owes mg_waiter_unpark(woken->waiter). */
static int serve_locked(mg_latch *l, mg_sleeper *s, mg_item item, mg_woken *woken)
{
    mg_node_remove(&s->node);
    s->item = item;
    s->served_by = mg_waiter_self();
    if (s->served_by)
        s->served_at = atomic_load(&s->served_by->waits);
    l->on_the_way++;
    woken->waiter = s->waiter;
    woken->since = s->since;
    atomic_store(&s->state, MG_SLEEPER_SERVED);
    return mg_waiter_wake_later(s->waiter);
}

/* REQUIRES(l->mu). The sleeper that the next item is for, or NULL. */
static mg_sleeper *next_locked(const mg_latch *l)
{
    int newest_first = atomic_load_explicit(&l->newest_first, memory_order_relaxed);
    return sleeper_of(newest_first ? mg_ilist_last(&l->sleepers) : mg_ilist_first(&l->sleepers));
}

void mg_token_end(mg_latch *l)
{
    atomic_fetch_sub(&l->tokens, 1);
    mg_latch_unref(l);
}

/* REQUIRES(l->mu), and that nobody sleeps. */
static mg_err keep_locked(mg_latch *l, mg_item item)
{
    if (l->limit && item.size && l->bytes && l->bytes + item.size > l->limit)
        return MG_EFULL;
    if (reserve_locked(l) != MG_OK)
        return MG_ENOMEM;
    l->ring[(l->head + l->count++) % l->cap] = item;
    l->bytes += item.size;
    return MG_OK;
}

/* REQUIRES(l->mu). Gives the item to a sleeper, or keeps it. *parked: that thread is owed
 * mg_waiter_unpark. */
static mg_err add_locked(mg_latch *l, mg_item item, mg_woken *woken, int *parked)
{
    mg_sleeper *s = next_locked(l);
    if (l->closed)
        return MG_ECLOSED;
    if (!s)
        return keep_locked(l, item);
    *parked = serve_locked(l, s, item, woken);
    return MG_OK;
}

/* REQUIRES(l->mu). The latch that is to get a token, with a reference and the token counted, or
 * NULL. */
static mg_latch *watcher_to_notify_locked(mg_latch *l, const mg_woken *woken)
{
    mg_latch *watcher = atomic_load(&l->watcher);
    if (!watcher || (woken->waiter && !l->watch_always))
        return NULL;
    atomic_fetch_add(&l->tokens, 1);
    return mg_latch_ref(watcher);
}

/* --- the bell --- */

static int make_bell(int bell[2])
{
#if defined(__linux__)
    bell[0] = bell[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bell[0] < 0 ? -1 : 0;
#else
    if (pipe(bell))
        return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(bell[i], F_SETFD, FD_CLOEXEC);
        fcntl(bell[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
#endif
}

int mg_latch_bell(mg_latch *l)
{
    int made[2] = {-1, -1};
    pthread_mutex_lock(&l->mu);
    if (l->bell[0] < 0 && !make_bell(made))
        memcpy(l->bell, made, sizeof made);
    int fd = l->bell[0];
    pthread_mutex_unlock(&l->mu);
    return fd;
}

/* The latch has both ends, so nobody can have closed the one that is read. */
static void ring(mg_latch *l, int fd)
{
    static const uint64_t one = 1;
    if (fd < 0 || atomic_exchange(&l->rung, 1))
        return;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

int mg_latch_has_rung(mg_latch *l)
{
    return atomic_exchange(&l->rung, 1);
}

void mg_latch_hush(mg_latch *l)
{
    uint64_t count[8];
    pthread_mutex_lock(&l->mu);
    int fd = l->bell[0];
    pthread_mutex_unlock(&l->mu);
    while (fd >= 0 && read(fd, count, sizeof count) < 0 && errno == EINTR)
        ;
    atomic_store(&l->rung, 0);
}

static mg_err push(mg_latch *l, mg_item item, mg_woken *woken, int may_tell, mg_waiter **owed);

/* Takes over the reference to the watcher, and the token. If the push itself has woken no
 * thread, *woken is the one that was woken at the watcher. */
static void notify(mg_latch *l, mg_latch *watcher, mg_woken *woken, mg_waiter **owed)
{
    mg_woken there;
    mg_item token = {mg_latch_ref(l), MG_ITEM_TOKEN, 0};
    /* one thread can be left to the caller; a second one is woken here */
    if (push(watcher, token, &there, 1, owed && !*owed ? owed : NULL) != MG_OK)
        mg_token_end(l);
    else if (!woken->waiter)
        *woken = there;
    mg_latch_unref(watcher);
}

/* owed: where to leave a thread that mg_waiter_unpark is owed to, or NULL to do it here. */
static mg_err push(mg_latch *l, mg_item item, mg_woken *woken, int may_tell, mg_waiter **owed)
{
    mg_woken ignored;
    int parked = 0;
    if (!woken)
        woken = &ignored;
    *woken = (mg_woken) {NULL, 0};

    pthread_mutex_lock(&l->mu);
    mg_err err = add_locked(l, item, woken, &parked);
    mg_latch *watcher = err == MG_OK ? watcher_to_notify_locked(l, woken) : NULL;
    void (*tell)(mg_latch *, void *) = err == MG_OK && may_tell ? l->tell : NULL;
    void *tell_arg = l->tell_arg;
    int bell = err == MG_OK && !woken->waiter ? l->bell[1] : -1;
    pthread_mutex_unlock(&l->mu);

    ring(l, bell);
    if (parked && owed)
        *owed = woken->waiter;
    else if (parked)
        mg_waiter_unpark(woken->waiter);
    if (tell)
        tell(l, tell_arg);
    if (watcher)
        notify(l, watcher, woken, owed);
    return err;
}

mg_err mg_latch_push(mg_latch *l, mg_item item, mg_woken *woken)
{
    return push(l, item, woken, 1, NULL);
}

mg_err mg_latch_push_untold(mg_latch *l, mg_item item, mg_woken *woken)
{
    return push(l, item, woken, 0, NULL);
}

mg_err mg_latch_push_owing(mg_latch *l, mg_item item, mg_woken *woken, mg_waiter **owed)
{
    *owed = NULL;
    return push(l, item, woken, 1, owed);
}

void mg_latch_unget(mg_latch *l, mg_item item)
{
    mg_woken woken;
    int lost = 0, parked = 0;
    pthread_mutex_lock(&l->mu);
    mg_sleeper *s = next_locked(l);
    if (l->closed)
        lost = 1;
    else if (s)
        parked = serve_locked(l, s, item, &woken);
    else if (reserve_locked(l) == MG_OK) {
        l->head = (l->head ? l->head : l->cap) - 1;
        l->ring[l->head] = item;
        l->count++;
        l->bytes += item.size;
    } else
        lost = 1;
    pthread_mutex_unlock(&l->mu);
    if (parked)
        mg_waiter_unpark(woken.waiter);
    if (lost)
        l->drop(item);
}

/* REQUIRES(l->mu). */
static mg_err take_locked(mg_latch *l, mg_item *item)
{
    if (l->closed)
        return MG_ECLOSED;
    if (!l->count)
        return MG_EAGAIN;
    *item = l->ring[l->head];
    l->head = (l->head + 1) % l->cap;
    l->count--;
    l->bytes -= item->size;
    l->overflowed = 0;
    return MG_OK;
}

mg_err mg_latch_try(mg_latch *l, mg_item *item)
{
    pthread_mutex_lock(&l->mu);
    mg_err err = take_locked(l, item);
    pthread_mutex_unlock(&l->mu);
    return err;
}

mg_err mg_latch_join(mg_latch *l, mg_sleeper *s, mg_item *item)
{
    memset(s, 0, sizeof *s);
    s->waiter = mg_waiter_self();
    if (!s->waiter)
        return MG_ENOMEM;
    pthread_mutex_lock(&l->mu);
    mg_err err = take_locked(l, item);
    if (err == MG_EAGAIN) {
        s->since = mg_now();
        mg_ilist_append(&l->sleepers, &s->node);
    }
    pthread_mutex_unlock(&l->mu);
    return err;
}

/* --- sleeping --- */

void mg_latch_count_wait(const mg_sleeper *s)
{
    mg_waiter *w = s->waiter;
    atomic_store_explicit(&w->waits, atomic_load_explicit(&w->waits, memory_order_relaxed) + 1, memory_order_release);
}

/* The poll of a thread that waits for another thread of the process. */
typedef struct {
    mg_poll poll; /* first: fn gets its address */
    mg_sleeper *s;
} parked_poll;

static mg_polled poll_parked(mg_poll *p, unsigned round)
{
    mg_sleeper *s = ((parked_poll *) p)->s;
    for (int i = 0; round && i < 16; i++) /* not after the one yield: the item is there by then, or is not */
        mg_spin_relax();
    int is_awaited = atomic_load(&s->waiter->word) == MG_WAITER_AWAKE; /* the word changes last */
    if (atomic_load(&s->state) != MG_SLEEPER_WAITING)
        return MG_POLL_WON;
    return is_awaited ? MG_POLL_ON : MG_POLL_STOP;
}

void mg_latch_poll(mg_sleeper *s, int64_t now)
{
    parked_poll p = {.poll = {.fn = poll_parked}, .s = s};
    mg_spin_run(&s->waiter->spin, &p.poll, now);
}

static void wait_for_its_gil(const mg_sleeper *s)
{
    const mg_waiter *by = s->served_by;
    int64_t end = mg_now() + LET_GO;
    while (by && by != s->waiter && atomic_load(&by->waits) == s->served_at && mg_now() < end)
        mg_spin_relax();
}

mg_err mg_latch_sleep(mg_sleeper *s, int64_t deadline)
{
    mg_waiter *w = s->waiter;
    mg_latch_count_wait(s);
    for (;;) {
        mg_waiter_take_token(w);
        if (atomic_load(&s->state) != MG_SLEEPER_WAITING)
            return MG_OK;
        int64_t now = mg_now();
        if (now >= deadline)
            return MG_ETIMEDOUT;
        parked_poll p = {.poll = {.fn = poll_parked, .yields_once = 1}, .s = s};
        mg_spun spun = s->spun ? MG_SPUN_NOT : mg_spin_run(&w->spin, &p.poll, now);
        if (spun == MG_SPUN_WON) {
            if (!p.poll.yields)
                wait_for_its_gil(s);
            return MG_OK;
        }
        if (spun != MG_SPUN_NOT) {
            s->spun = 1;
            return MG_EINTR; /* a signal may have arrived meanwhile */
        }
        if (mg_waiter_park(w, deadline) == MG_EINTR)
            return MG_EINTR;
    }
}

mg_err mg_latch_leave(mg_latch *l, mg_sleeper *s, mg_item *item)
{
    mg_err err = MG_EAGAIN;
    pthread_mutex_lock(&l->mu);
    switch (atomic_load(&s->state)) {
    case MG_SLEEPER_WAITING: mg_node_remove(&s->node); break;
    case MG_SLEEPER_SERVED:
        l->on_the_way--;
        *item = s->item;
        err = MG_OK;
        break;
    default: err = MG_ECLOSED;
    }
    pthread_mutex_unlock(&l->mu);
    return err;
}

void mg_latch_close(mg_latch *l)
{
    pthread_mutex_lock(&l->mu);
    mg_item *ring = l->ring;
    size_t cap = l->cap, head = l->head, count = l->count;
    l->closed = 1; /* no thread touches the ring any more */
    l->ring = l->few;
    l->cap = l->head = l->count = l->bytes = 0;
    for (mg_sleeper *s; (s = sleeper_of(mg_ilist_pop(&l->sleepers)));) {
        atomic_store(&s->state, MG_SLEEPER_CLOSED);
        mg_waiter_wake(s->waiter);
    }
    pthread_mutex_unlock(&l->mu);
    drop_ring(l, ring, cap, head, count);
}

void mg_latch_forked(mg_latch *l)
{
    pthread_mutex_init(&l->mu, NULL);
    mg_ilist_init(&l->sleepers);
    l->on_the_way = 0;
}

int mg_latch_closed(mg_latch *l)
{
    pthread_mutex_lock(&l->mu);
    int closed = l->closed;
    pthread_mutex_unlock(&l->mu);
    return closed;
}

void mg_latch_set_limit(mg_latch *l, size_t limit)
{
    pthread_mutex_lock(&l->mu);
    l->limit = limit;
    pthread_mutex_unlock(&l->mu);
}

size_t mg_latch_limit(mg_latch *l)
{
    pthread_mutex_lock(&l->mu);
    size_t limit = l->limit;
    pthread_mutex_unlock(&l->mu);
    return limit;
}

int mg_latch_overflow(mg_latch *l)
{
    pthread_mutex_lock(&l->mu);
    int first = !l->overflowed;
    l->overflowed = 1;
    pthread_mutex_unlock(&l->mu);
    return first;
}

int mg_latch_visit(mg_latch *l, int (*fn)(mg_item, void *arg), void *arg)
{
    int r = 0;
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; !r && i < l->count; i++)
        r = fn(l->ring[(l->head + i) % l->cap], arg);
    pthread_mutex_unlock(&l->mu);
    return r;
}

size_t mg_latch_size(mg_latch *l)
{
    pthread_mutex_lock(&l->mu);
    size_t size = l->count + l->on_the_way;
    pthread_mutex_unlock(&l->mu);
    return size;
}

size_t mg_latch_sleepers(mg_latch *l, mg_asleep *out, size_t cap)
{
    size_t n = 0;
    pthread_mutex_lock(&l->mu);
    for (mg_node *node = mg_ilist_first(&l->sleepers); node; node = mg_ilist_next(&l->sleepers, node), n++)
        if (n < cap) {
            const mg_sleeper *s = sleeper_of(node);
            out[n].thread = atomic_load_explicit(&s->waiter->thread, memory_order_relaxed);
            out[n].since = s->since;
        }
    pthread_mutex_unlock(&l->mu);
    return n;
}

void mg_latch_watch(mg_latch *l, mg_latch *watcher, int always)
{
    if (watcher)
        mg_latch_ref(watcher);
    pthread_mutex_lock(&l->mu);
    mg_latch *old = l->watcher;
    l->watcher = watcher;
    l->watch_always = always;
    pthread_mutex_unlock(&l->mu);
    mg_latch_unref(old);
}

void mg_latch_tell(mg_latch *l, void (*fn)(mg_latch *, void *arg), void *arg)
{
    pthread_mutex_lock(&l->mu);
    l->tell = fn;
    l->tell_arg = arg;
    pthread_mutex_unlock(&l->mu);
}

void mg_sleeper_learn(const mg_sleeper *s)
{
    mg_spin_learn(&s->waiter->spin, (s->arriving_at ? s->arriving_at : mg_now()) - s->since);
}

void mg_latch_learn(int64_t took)
{
    mg_waiter *w = mg_waiter_self();
    if (w)
        mg_spin_learn(&w->spin, took);
}
