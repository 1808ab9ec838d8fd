#include "loop/lead.h"

#include <stddef.h>

#include "base/clock.h"
#include "loop/leader.h"
#include "loop/leader_spin.h"
#include "loop/leader_work.h"
#include "loop/loop_body.h"
#include "loop/spares.h"
#include "sync/spin.h"

/* How often a caretaker looks: seldom enough to cost nothing beside a thread that makes a
 * hundred thousand calls a second, often enough that nobody notices a loop that was left alone. */
#define LOOK (MG_SECOND / 500)

static _Atomic int64_t look_every = LOOK;

/* If threads have begun or ended to lead no more often than this between two looks, waking the
 * caretaker each time costs less than its looks. */
#define FEW_CHANGES 2

/* A waiter leads for no longer than this while it serves others and not itself. */
#define SERVED_LONG (MG_SECOND / 1000)

/* A caretaker that has served the same thread so often in a row leaves the loop to it. */
#define SERVED_ROW 2

/* A leader treats traffic of others that is older than this as over. */
#define FOREIGN_FRESH (MG_SECOND / 200)

/* A signal that comes while a leader is not asleep does not end its next sleep. So a leader that
 * was awake for others sleeps for no longer than this at first, and then lets the layer above
 * check for signals. */
#define SIGNALS_SEEN (MG_SECOND / 50)

/* Stands for a leader whose own waiter could not be had. */
static mg_waiter nobody;

/* Why a leader has stopped. */
typedef enum { GOES_ON, IS_DONE, IS_LATE, HAS_SIGNAL, IS_ASKED, HAS_SERVED } stop;

void mg_lead_set_look(int64_t nanoseconds)
{
    atomic_store(&look_every, nanoseconds);
}

/* --- waking --- */

void mg_lead_wake(mg_loop *loop, mg_waiter *w)
{
    if (!w)
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    mg_waiter_wake_here(w, &loop->kick);
}

void mg_loop_interrupt(mg_loop *loop)
{
    atomic_store(&loop->interrupted, 1);
    mg_lead_wake(loop, atomic_load(&loop->attendant));
}

/* --- rule 1: a thread that waits leads if nobody does --- */

/* REQUIRES(loop->mu), as everything below that is called so. */
static int may_lead_locked(const mg_loop *loop)
{
    return !loop->leader && !atomic_load(&loop->wanted) && !atomic_load(&loop->closed);
}

static void begin_locked(mg_loop *loop, mg_waiter *w)
{
    loop->leader = w;
    loop->changes++;
    loop->is_due = 0;
}

/* --- rules 2 and 6: when a leader stops --- */

static int has_foreign_traffic(const mg_loop *loop, int64_t now)
{
    return loop->foreign_at && now - loop->foreign_at < FOREIGN_FRESH;
}

/* Whether a thread other than `but` has begun to follow a moment ago: it makes calls, and its
 * answer will come soon. */
static int has_busy_follower_locked(const mg_loop *loop, const mg_waiter *but, int64_t now)
{
    for (mg_node *node = mg_ilist_first(&loop->followers); node; node = mg_ilist_next(&loop->followers, node)) {
        const mg_follower *f = MG_CONTAINER(node, mg_follower, node);
        if (now - f->since >= LOOK)
            return 0; /* the next ones in the list have followed for longer still */
        if (f->waiter != but)
            return 1;
    }
    return 0;
}

/* Rule 6. A caretaker that has is to step down, if no other thread makes calls: the next wait of
 * that thread leads. */
static int has_served_in_a_row(mg_loop *loop, int64_t now)
{
    if (loop->served_row < SERVED_ROW)
        return 0;
    pthread_mutex_lock(&loop->mu);
    int is_alone = !has_busy_follower_locked(loop, loop->served, now);
    pthread_mutex_unlock(&loop->mu);
    return is_alone;
}

void mg_loop_note_woken(mg_loop *loop, const mg_woken *woken)
{
    if (!woken->waiter)
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    if (woken->waiter == loop->leader)
        return;
    int64_t now = mg_now();
    int is_same = woken->waiter == loop->served && now - loop->served_at < LOOK;
    loop->served_row = is_same ? loop->served_row + 1 : 1;
    loop->served = woken->waiter;
    loop->served_at = now;
}

static int has_served_others(const mg_leading *l, int64_t now)
{
    if (!l->loop->served_row || has_foreign_traffic(l->loop, now))
        return 0;
    return l->s ? now - l->began > SERVED_LONG : has_served_in_a_row(l->loop, now);
}

static stop must_stop(const mg_leading *l, int64_t now)
{
    if (mg_leading_is_done(l))
        return IS_DONE;
    if (mg_leader_is_asked(l->loop))
        return IS_ASKED;
    if (has_served_others(l, now))
        return HAS_SERVED;
    if (now >= l->deadline)
        return IS_LATE;
    return now >= l->look_at ? HAS_SIGNAL : GOES_ON;
}

/* --- rule 3: the loop is left alone --- */

static mg_follower *caretaker_locked(const mg_loop *loop)
{
    if (loop->attending)
        return loop->attending;
    mg_node *youngest = mg_ilist_first(&loop->followers);
    return youngest ? MG_CONTAINER(youngest, mg_follower, node) : NULL;
}

/* Nobody leads. Returns the thread to wake, once mu is dropped, or NULL. work: it must not wait
 * for a look. That thread leads then, even if another one has become the caretaker before it
 * wakes. */
static mg_waiter *leave_locked(mg_loop *loop, int work)
{
    mg_follower *f = caretaker_locked(loop);
    if (atomic_load(&loop->wanted)) {
        pthread_cond_signal(&loop->left); /* and the thread that acquires it leaves it with work */
        return NULL;
    }
    loop->is_due |= work;
    loop->called = f ? f->waiter : NULL;
    if (!f || (f->looks && !loop->is_due))
        return NULL;
    f->looks = 1;
    return f->waiter;
}

mg_waiter *mg_lead_call_locked(mg_loop *loop)
{
    return loop->leader ? loop->leader : leave_locked(loop, 1);
}

/* Whether there is work that must not wait for the next look. Traffic of others can wait for an
 * attendant, which stops for work in Python and comes back soon. */
static int has_work_locked(const mg_leading *l, int64_t now)
{
    return mg_tasks_any(&l->loop->posted) ||
           (l->s && (has_foreign_traffic(l->loop, now) || has_busy_follower_locked(l->loop, NULL, now)));
}

static void stop_leading(const mg_leading *l)
{
    mg_loop *loop = l->loop;
    int64_t now = mg_now();
    pthread_mutex_lock(&loop->mu);
    loop->leader = NULL;
    loop->changes++;
    mg_count(l->s ? &loop->leads : &loop->attends);
    mg_waiter *whom = leave_locked(loop, has_work_locked(l, now));
    pthread_mutex_unlock(&loop->mu);
    if (whom != l->w)
        mg_lead_wake(loop, whom);
}

/* --- rule 4: the caretaker looks --- */

/* Called before f->waiter parks: returns the time of its next look. passed: its last sleep ended
 * with a look. */
static int64_t look_locked(mg_loop *loop, mg_follower *f, int passed, int64_t now)
{
    int is_youngest = mg_ilist_first(&loop->followers) == &f->node;
    if (f == caretaker_locked(loop))
        f->looks = 1;
    else if (!is_youngest)
        f->looks = 0;
    if (loop->leader && passed && loop->changes - f->seen <= FEW_CHANGES)
        f->looks = 0; /* the leader stays, and will wake us when it stops */
    f->seen = loop->changes;
    mg_count(&loop->looks);
    return f->looks && !atomic_load(&loop->closed) ? now + atomic_load(&look_every) : MG_NEVER;
}

/* Whether the loop has been alone since the last look of its caretaker, which f is; or it is to
 * be led at once, by the thread that was called, or by any where there was none to call. */
static int may_take_over_locked(const mg_loop *loop, const mg_follower *f, int passed)
{
    int is_alone = passed && f->seen == loop->changes && f == caretaker_locked(loop);
    int is_called = loop->is_due && (!loop->called || loop->called == f->waiter);
    return may_lead_locked(loop) && (is_alone || is_called);
}

/* When to check for signals: soon, once this wait has served others. */
static int64_t look_soon(const mg_sleeper *s, int64_t look_at, int64_t now)
{
    return s && look_at == MG_NEVER ? now + SIGNALS_SEEN : look_at;
}

/* --- leading --- */

int mg_lead_may_sleep(void *arg)
{
    const mg_loop *loop = arg;
    return mg_leader_may_sleep(loop, loop->leader);
}

void mg_lead_woken(void *arg)
{
    mg_loop *loop = arg;
    /* Either this sees `frozen`, or the thread that forks sees that we are awake. In the latter
     * case it waits until we stop leading, so from here on the child has no copy of something
     * half done. */
    if (atomic_load(&loop->frozen)) {
        pthread_mutex_lock(&loop->freeze_mu);
        pthread_mutex_unlock(&loop->freeze_mu);
    }
    mg_spares_watch(loop);
}

/* One turn of the poller, asleep if there is nothing to do. Whether it slept and nothing was
 * called: a signal, perhaps. */
static int take_turn(const mg_leading *l, int64_t now, int64_t until)
{
    mg_loop *loop = l->loop;
    uint64_t parts = atomic_load_explicit(&loop->arriving, memory_order_relaxed);
    int sleeps = mg_leader_may_sleep(loop, l->w);
    int what = mg_poller_turn(loop->poller, sleeps, now, until);
    mg_count(&loop->turns);
    mg_leader_has_new_part(l, &parts);
    mg_spares_watch(loop);
    if (what & MG_TURN_CALLED)
        loop->traffic_at = mg_now_coarse();
    return sleeps && !what;
}

/* The leader's work. */
static stop lead(mg_leading *l)
{
    mg_loop *loop = l->loop;
    int64_t now = l->began = mg_now();
    l->passed = loop->foreign_at;
    loop->served_row = 0;
    for (;; now = mg_now(), l->look_at = look_soon(l->s, l->look_at, now)) {
        mg_waiter_take_token(l->w);
        mg_work_run(loop, now);
        stop why = must_stop(l, now);
        if (why != GOES_ON)
            return why;
        mg_spun spun = mg_leader_spin(l, now);
        if (spun == MG_SPUN_WON || spun == MG_SPUN_STOP)
            continue;
        if (spun == MG_SPUN_LOST)
            l->look_at = look_soon(l->s, l->look_at, now);
        int64_t until = l->deadline < l->look_at ? l->deadline : l->look_at;
        until = mg_work_sleep_until(loop, now, until);
        until = mg_spares_sleep_until(loop, now, until);
        if (mg_spares_leave(loop, now, until) && take_turn(l, now, until) && l->s)
            return HAS_SIGNAL;
    }
}

static stop lead_as(mg_leading *l)
{
    atomic_store(&l->w->elsewhere, &l->loop->kick);
    stop why = lead(l);
    atomic_store(&l->w->elsewhere, NULL);
    stop_leading(l);
    return why;
}

/* --- waiting --- */

static void unlist_locked(mg_loop *loop, mg_follower *f)
{
    if (!f->is_listed)
        return;
    f->is_listed = 0;
    mg_node_remove(&f->node);
    loop->n_followers--;
}

/* Ends the wait of a follower, which may have been the caretaker. */
static void unfollow(mg_loop *loop, mg_follower *f)
{
    mg_waiter *whom = NULL;
    if (!f->is_listed)
        return;
    pthread_mutex_lock(&loop->mu);
    unlist_locked(loop, f);
    if (!loop->leader)
        whom = leave_locked(loop, 0);
    pthread_mutex_unlock(&loop->mu);
    mg_lead_wake(loop, whom);
}

static void follow_locked(mg_loop *loop, mg_follower *f, int64_t now)
{
    if (f->is_listed)
        return;
    f->is_listed = 1;
    f->since = now;
    mg_ilist_prepend(&loop->followers, &f->node);
    loop->n_followers++;
}

/* Leads (1) or becomes a follower, which sleeps until *look. */
static int lead_or_follow(mg_loop *loop, mg_follower *f, int may_lead, int passed, int64_t now, int64_t *look)
{
    pthread_mutex_lock(&loop->mu);
    int leads = may_lead ? may_lead_locked(loop) : may_take_over_locked(loop, f, passed);
    if (leads) {
        begin_locked(loop, f->waiter);
        unlist_locked(loop, f);
    } else {
        follow_locked(loop, f, now);
        *look = look_locked(loop, f, passed, now);
    }
    pthread_mutex_unlock(&loop->mu);
    return leads;
}

static mg_err wait_for(mg_loop *loop, mg_sleeper *s, int64_t deadline, mg_follower *f)
{
    mg_leading l = {.loop = loop, .w = s->waiter, .s = s, .deadline = deadline, .look_at = MG_NEVER};
    int passed = 0; /* the last sleep has lasted until the look of a caretaker */
    for (;;) {
        int64_t look = MG_NEVER, now = mg_now();
        mg_waiter_take_token(s->waiter);
        if (atomic_load(&s->state) != MG_SLEEPER_WAITING)
            return MG_OK;
        if (now >= deadline)
            return MG_ETIMEDOUT;
        if (lead_or_follow(loop, f, !s->followed, passed, now, &look)) {
            stop why = lead_as(&l);
            if (why == IS_DONE || why == IS_LATE)
                return why == IS_DONE ? MG_OK : MG_ETIMEDOUT;
            if (why == HAS_SIGNAL)
                return MG_EINTR;
            s->followed = 1;
            passed = 0;
            continue;
        }
        s->followed = 1;
        int64_t until = l.look_at < look ? l.look_at : look;
        mg_err err = mg_waiter_park(s->waiter, deadline < until ? deadline : until);
        now = mg_now();
        if (err == MG_EINTR || (now >= l.look_at && now < deadline))
            return MG_EINTR;
        passed = err == MG_ETIMEDOUT && now >= look;
        l.look_at = look_soon(s, l.look_at, now);
    }
}

mg_err mg_loop_wait(mg_loop *loop, mg_sleeper *s, int64_t deadline)
{
    mg_follower f = {.waiter = s->waiter};
    mg_latch_count_wait(s);
    mg_work_uncork(loop); /* what we wait for may be the answer to it */
    mg_err err = wait_for(loop, s, deadline, &f);
    unfollow(loop, &f);
    return err;
}

static void glance(mg_loop *loop, mg_sleeper *s, int64_t now)
{
    mg_leading l = {.loop = loop, .w = s->waiter, .s = s, .deadline = now, .look_at = MG_NEVER};
    pthread_mutex_lock(&loop->mu);
    int leads = may_lead_locked(loop);
    if (leads)
        begin_locked(loop, s->waiter);
    pthread_mutex_unlock(&loop->mu);
    if (!leads) {
        mg_latch_poll(s, now);
        return;
    }
    atomic_store(&l.w->elsewhere, &loop->kick);
    l.began = now;
    l.passed = loop->foreign_at;
    loop->served_row = 0;
    mg_work_run(loop, now);
    mg_leader_spin(&l, now);
    atomic_store(&l.w->elsewhere, NULL);
    stop_leading(&l);
}

void mg_loop_glance(mg_loop *loop, mg_sleeper *s)
{
    int64_t now = mg_now();
    mg_work_uncork(loop); /* what we look for may be the answer to it */
    mg_latch_count_wait(s);
    mg_waiter_take_token(s->waiter);
    if (atomic_load(&s->state) == MG_SLEEPER_WAITING && mg_spin_room(&s->waiter->spin, now) == MG_ROOM_TO_SPIN)
        glance(loop, s, now);
}

void mg_loop_keep_led(mg_loop *loop)
{
    mg_waiter *whom = NULL;
    mg_work_uncork(loop); /* an answer may be to what is corked */
    pthread_mutex_lock(&loop->mu);
    if (!loop->leader)
        whom = leave_locked(loop, 1);
    pthread_mutex_unlock(&loop->mu);
    mg_lead_wake(loop, whom);
}

/* --- attending --- */

static void set_attending(mg_loop *loop, mg_follower *f)
{
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    loop->attending = f;
    loop->changes++;
    if (f)
        f->seen = loop->changes;
    else
        loop->attended++;
    if (!f && !loop->leader)
        whom = leave_locked(loop, mg_tasks_any(&loop->posted));
    pthread_mutex_unlock(&loop->mu);
    mg_lead_wake(loop, whom);
}

int mg_loop_attended(mg_loop *loop, uint64_t *count)
{
    pthread_mutex_lock(&loop->mu);
    int is_attending = loop->attending != NULL;
    *count = loop->attended;
    pthread_mutex_unlock(&loop->mu);
    return is_attending;
}

/* Leads (1), or is to sleep until *look. */
static int lead_or_look(mg_loop *loop, mg_follower *f, int passed, int64_t now, int64_t *look)
{
    pthread_mutex_lock(&loop->mu);
    int leads = may_take_over_locked(loop, f, passed);
    if (leads)
        begin_locked(loop, f->waiter);
    else
        *look = look_locked(loop, f, passed, now);
    pthread_mutex_unlock(&loop->mu);
    return leads;
}

static mg_err attend(mg_loop *loop, mg_follower *f, int64_t deadline)
{
    mg_leading l = {.loop = loop, .w = f->waiter, .deadline = deadline, .look_at = MG_NEVER};
    int passed = 1; /* as if it had looked: an attendant that comes back to a loop without a leader leads at once */
    for (;;) {
        int64_t look = MG_NEVER, now = mg_now();
        mg_waiter_take_token(f->waiter);
        if (mg_events_count(&loop->events) || atomic_exchange(&loop->interrupted, 0))
            return MG_OK;
        if (atomic_load(&loop->closed))
            return MG_ECLOSED;
        if (now >= deadline)
            return MG_ETIMEDOUT;
        mg_work_uncork(loop);
        if (lead_or_look(loop, f, passed, now, &look)) {
            lead_as(&l);
            passed = 0;
            continue;
        }
        mg_err err = mg_waiter_park(f->waiter, deadline < look ? deadline : look);
        passed = err == MG_ETIMEDOUT && look <= deadline;
    }
}

mg_err mg_loop_attend(mg_loop *loop, int64_t deadline)
{
    mg_follower f = {.waiter = mg_waiter_self()};
    if (!f.waiter)
        return MG_ENOMEM;
    atomic_store(&loop->attendant, f.waiter);
    set_attending(loop, &f);
    mg_err err = attend(loop, &f, deadline);
    set_attending(loop, NULL);
    mg_work_uncork(loop); /* while it is away nobody else might */
    return err;
}

/* --- rule 5: having the loop for oneself --- */

static uintptr_t this_thread(void)
{
    return (uintptr_t) pthread_self();
}

static int has_acquired_locked(const mg_loop *loop)
{
    return loop->acquired && loop->acquired_by == this_thread();
}

/* Whether the calling thread has acquired the loop already. If so, counts one more. */
static int acquire_again_locked(mg_loop *loop)
{
    if (!has_acquired_locked(loop))
        return 0;
    loop->acquired++;
    return 1;
}

static void acquire_locked(mg_loop *loop, mg_waiter *w)
{
    begin_locked(loop, w ? w : &nobody);
    loop->acquired = 1;
    loop->acquired_by = this_thread();
}

void mg_loop_acquire(mg_loop *loop)
{
    mg_waiter *w = mg_waiter_self();
    pthread_mutex_lock(&loop->mu);
    if (!acquire_again_locked(loop)) {
        atomic_fetch_add(&loop->wanted, 1);
        if (loop->leader)
            mg_waiter_wake(loop->leader);
        while (loop->leader)
            pthread_cond_wait(&loop->left, &loop->mu);
        atomic_fetch_sub(&loop->wanted, 1);
        acquire_locked(loop, w);
    }
    pthread_mutex_unlock(&loop->mu);
}

int mg_loop_try_acquire(mg_loop *loop)
{
    mg_waiter *w = mg_waiter_self();
    pthread_mutex_lock(&loop->mu);
    int ok = acquire_again_locked(loop);
    if (!ok && !loop->leader && !atomic_load(&loop->wanted)) {
        acquire_locked(loop, w);
        ok = 1;
    }
    pthread_mutex_unlock(&loop->mu);
    return ok;
}

void mg_loop_release(mg_loop *loop)
{
    mg_waiter *whom = NULL;
    pthread_mutex_lock(&loop->mu);
    if (!--loop->acquired) {
        loop->leader = NULL;
        loop->changes++;
        whom = leave_locked(loop, 1);
    }
    pthread_mutex_unlock(&loop->mu);
    if (whom != mg_waiter_self())
        mg_lead_wake(loop, whom);
}

int mg_loop_leads(mg_loop *loop)
{
    const mg_waiter *w = mg_waiter_self();
    pthread_mutex_lock(&loop->mu);
    int leads = (w && loop->leader == w) || has_acquired_locked(loop);
    pthread_mutex_unlock(&loop->mu);
    return leads;
}

int mg_loop_serves(mg_loop *loop)
{
    return mg_loop_leads(loop) || atomic_load(&loop->attendant) == mg_waiter_self();
}

void mg_lead_forked(mg_loop *loop)
{
    pthread_mutex_init(&loop->mu, NULL);
    loop->left = (pthread_cond_t) PTHREAD_COND_INITIALIZER;
    loop->leader = NULL;
    loop->acquired = 0;
    atomic_store(&loop->wanted, 0);
    loop->attending = NULL;
    atomic_store(&loop->attendant, NULL);
    mg_ilist_init(&loop->followers);
    loop->n_followers = 0;
}
