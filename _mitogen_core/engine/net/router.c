#include "net/router.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

/* Refusals that may wait to be logged; a flood of them costs no memory. */
#define REFUSALS_MAX 256

/* Destinations remembered for one stream. A peer that names more is made up of lies; it then misses some notices of lost routes. */
#define EGRESS_MAX 65536

/* --- handlers --- */

mg_handler *mg_handler_new(void)
{
    mg_handler *h = mg_calloc(1, sizeof *h);
    if (h) {
        atomic_init(&h->refs, 1);
        h->persist = 1;
        h->respondent = -1;
    }
    return h;
}

mg_handler *mg_handler_make(const mg_handler_spec *spec)
{
    mg_handler *h = mg_handler_new();
    if (!h)
        return NULL;
    h->persist = spec->persist;
    h->policy = spec->policy;
    h->respondent = spec->respondent;
    h->latch = spec->latch ? mg_latch_ref(spec->latch) : NULL;
    h->owner = spec->owner;
    h->drop_owner = spec->drop_owner;
    return h;
}

uint32_t mg_handler_handle(const mg_handler *h)
{
    return h->handle;
}

void *mg_handler_owner(const mg_handler *h)
{
    return h->owner;
}

int mg_handler_removed(const mg_handler *h)
{
    return atomic_load(&h->removed);
}

mg_latch *mg_handler_latch(const mg_handler *h)
{
    return h->policy != MG_POLICY_ASK ? h->latch : NULL;
}

mg_handler *mg_handler_ref(mg_handler *h)
{
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
    return h;
}

void mg_handler_unref(mg_handler *h)
{
    if (!h || atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
        return;
    mg_latch_unref(h->latch); /* first: the owner's end may ask who else has that latch */
    if (h->drop_owner)
        h->drop_owner(h->owner);
    mg_free(h);
}

/* --- life --- */

mg_router *mg_router_new(mg_loop *loop)
{
    mg_router *r = mg_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    r->loop = mg_loop_ref(loop);
    atomic_init(&r->max_size, UINT64_C(128) << 20);
    atomic_init(&r->high_water, MG_HIGH_WATER);
    pthread_mutex_init(&r->mu, NULL);
    mg_idmap_init(&r->routes);
    mg_idmap_init(&r->handlers);
    r->next_handle = MG_FIRST_HANDLE;
    r->parent_id = -1;
    return r;
}

mg_router *mg_router_ref(mg_router *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void mg_router_unref(mg_router *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    mg_idmap_iter it;
    void *value;
    mg_idmap_iter_init(&r->routes, &it);
    while (mg_idmap_iter_next(&r->routes, &it, NULL, &value))
        mg_stream_unref(value);
    mg_idmap_iter_init(&r->handlers, &it);
    while (mg_idmap_iter_next(&r->handlers, &it, NULL, &value))
        mg_handler_unref(value);
    mg_idmap_fini(&r->routes);
    mg_idmap_fini(&r->handlers);
    for (int i = 0; i < MG_N_REASONS; i++)
        mg_free(r->texts[i]);
    mg_free(r->parent_ids);
    pthread_mutex_destroy(&r->mu);
    mg_loop_unref(r->loop);
    mg_free(r);
}

mg_loop *mg_router_loop(mg_router *r)
{
    return r->loop;
}

uint64_t mg_router_max_size(mg_router *r)
{
    return atomic_load_explicit(&r->max_size, memory_order_relaxed);
}

void mg_router_set_limits(mg_router *r, uint64_t max_size, size_t high_water)
{
    atomic_store(&r->max_size, max_size);
    atomic_store(&r->high_water, high_water);
}

size_t mg_router_high_water(mg_router *r)
{
    return atomic_load_explicit(&r->high_water, memory_order_relaxed);
}

uint32_t mg_router_own_id(mg_router *r)
{
    pthread_mutex_lock(&r->mu);
    uint32_t id = r->own_id;
    pthread_mutex_unlock(&r->mu);
    return id;
}

mg_err mg_router_set_identity(mg_router *r, uint32_t own_id, int64_t parent_id, const uint32_t *parent_ids, size_t n)
{
    uint32_t *copy = mg_malloc(n * sizeof *copy);
    if (!copy)
        return MG_ENOMEM;
    if (n)
        memcpy(copy, parent_ids, n * sizeof *copy);
    pthread_mutex_lock(&r->mu);
    uint32_t *old = r->parent_ids;
    r->own_id = own_id;
    r->parent_id = parent_id;
    r->parent_ids = copy;
    r->n_parents = n;
    pthread_mutex_unlock(&r->mu);
    mg_free(old);
    return MG_OK;
}

void mg_router_set_unidirectional(mg_router *r, int on)
{
    pthread_mutex_lock(&r->mu);
    r->unidirectional = on;
    pthread_mutex_unlock(&r->mu);
}

mg_err mg_router_set_text(mg_router *r, mg_reason reason, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mg_malloc(size);
    if (!copy)
        return MG_ENOMEM;
    memcpy(copy, text, size);
    pthread_mutex_lock(&r->mu);
    char *old = r->texts[reason];
    r->texts[reason] = copy;
    pthread_mutex_unlock(&r->mu);
    mg_free(old);
    return MG_OK;
}

/* --- routes --- */

mg_err mg_router_put_route(mg_router *r, uint32_t id, mg_stream *s)
{
    void *old = NULL;
    pthread_mutex_lock(&r->mu);
    mg_err err = mg_idmap_put(&r->routes, id, s, &old);
    if (err == MG_OK)
        mg_stream_ref(s);
    pthread_mutex_unlock(&r->mu);
    mg_stream_unref(old);
    return err;
}

int mg_router_del_route(mg_router *r, uint32_t id)
{
    pthread_mutex_lock(&r->mu);
    mg_stream *s = mg_idmap_pop(&r->routes, id);
    pthread_mutex_unlock(&r->mu);
    mg_stream_unref(s);
    return s != NULL;
}

/* REQUIRES(r->mu). Borrowed. */
static mg_stream *parent_locked(mg_router *r)
{
    return r->parent_id < 0 ? NULL : mg_idmap_get(&r->routes, (uint32_t) r->parent_id);
}

/* REQUIRES(r->mu). Where messages of that context have to come from. Borrowed. */
static mg_stream *expected_locked(mg_router *r, uint32_t id)
{
    mg_stream *s = mg_idmap_get(&r->routes, id);
    return s ? s : parent_locked(r);
}

mg_stream *mg_router_get_route(mg_router *r, uint32_t id, int with_parent)
{
    pthread_mutex_lock(&r->mu);
    mg_stream *s = with_parent ? expected_locked(r, id) : mg_idmap_get(&r->routes, id);
    if (s)
        mg_stream_ref(s);
    pthread_mutex_unlock(&r->mu);
    return s;
}

mg_stream *mg_router_get_parent(mg_router *r)
{
    pthread_mutex_lock(&r->mu);
    mg_stream *s = parent_locked(r);
    if (s)
        mg_stream_ref(s);
    pthread_mutex_unlock(&r->mu);
    return s;
}

/* --- what the tables have at one moment --- */

static void *ref_value(mg_table what, void *value)
{
    return what == MG_HANDLERS ? (void *) mg_handler_ref(value) : (void *) mg_stream_ref(value);
}

static void unref_value(mg_table what, void *value)
{
    if (what == MG_HANDLERS)
        mg_handler_unref(value);
    else
        mg_stream_unref(value);
}

/* REQUIRES(r->mu). The entries, each with a reference; NULL when memory is out. */
static mg_entry *copy_locked(const mg_idmap *map, mg_table what, size_t *n)
{
    mg_idmap_iter it;
    mg_entry *entries = mg_malloc((mg_idmap_count(map) + 1) * sizeof *entries);
    *n = 0;
    if (!entries)
        return NULL;
    mg_idmap_iter_init(map, &it);
    for (mg_entry *e = entries; mg_idmap_iter_next(map, &it, &e->id, &e->value); e++, ++*n)
        ref_value(what, e->value);
    return entries;
}

static void free_entries(mg_entry *entries, mg_table what, size_t n)
{
    for (size_t i = 0; i < n; i++)
        unref_value(what, entries[i].value);
    mg_free(entries);
}

mg_err mg_router_snapshot(mg_router *r, mg_table what, mg_stream *of, mg_visit *fn, void *arg)
{
    size_t n;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = copy_locked(what == MG_ROUTES     ? &r->routes
                                    : what == MG_HANDLERS ? &r->handlers
                                                          : &of->egress,
                                    what, &n);
    pthread_mutex_unlock(&r->mu);
    if (!entries)
        return MG_ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (fn(entries[i].id, entries[i].value, arg))
            break;
    free_entries(entries, what, n);
    return MG_OK;
}

/* --- statistics --- */

void mg_router_count_closed(mg_router *r, mg_stream *s)
{
    pthread_mutex_lock(&r->mu);
    if (!s->counted)
        mg_stream_add_counts(s, &r->closed);
    s->counted = 1;
    pthread_mutex_unlock(&r->mu);
}

/* REQUIRES(r->mu). A stream has a route for each context behind it: puts one entry of each to the front, adds what it has carried, and
 * returns how many there are. */
static size_t count_streams_locked(mg_router *r, mg_entry *routes, size_t n, mg_counts *sum)
{
    size_t streams = 0;
    r->counts_taken++;
    for (size_t i = 0; i < n; i++) {
        mg_entry entry = routes[i];
        mg_stream *s = entry.value;
        if (s->counted || s->seen_at == r->counts_taken)
            continue;
        s->seen_at = r->counts_taken;
        mg_stream_add_counts(s, sum);
        routes[i] = routes[streams];
        routes[streams++] = entry;
    }
    return streams;
}

mg_err mg_router_get_stats(mg_router *r, mg_router_stats *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < MG_N_REASONS; i++)
        out->refused[i] = atomic_load_explicit(&r->refused[i], memory_order_relaxed);

    pthread_mutex_lock(&r->mu);
    mg_entry *routes = copy_locked(&r->routes, MG_ROUTES, &out->routes);
    out->carried = r->closed;
    out->handlers = mg_idmap_count(&r->handlers);
    out->streams = routes ? count_streams_locked(r, routes, out->routes, &out->carried) : 0;
    pthread_mutex_unlock(&r->mu);
    if (!routes)
        return MG_ENOMEM;

    for (size_t i = 0; i < out->streams; i++) {
        mg_stream_stats stats;
        mg_stream_get_stats(routes[i].value, &stats);
        out->queued += stats.pending;
        out->blocked += stats.blocked;
    }
    free_entries(routes, MG_ROUTES, out->routes);
    return MG_OK;
}

/* --- the handle table --- */

mg_err mg_router_add_handler(mg_router *r, mg_handler *h, uint32_t handle, int overwrite)
{
    void *old = NULL;
    mg_err err = MG_OK;
    pthread_mutex_lock(&r->mu);
    if (!handle) {
        do
            handle = r->next_handle++;
        while (handle < MG_FIRST_HANDLE || mg_idmap_get(&r->handlers, handle));
    } else if (!overwrite && mg_idmap_get(&r->handlers, handle))
        err = MG_EEXIST;
    if (err == MG_OK)
        err = mg_idmap_put(&r->handlers, handle, h, &old);
    if (err == MG_OK) {
        mg_handler_ref(h);
        h->handle = handle;
        atomic_store(&h->removed, 0); /* it may have been taken out, and be put back */
    }
    if (old)
        atomic_store(&((mg_handler *) old)->removed, 1);
    pthread_mutex_unlock(&r->mu);
    mg_handler_unref(old);
    return err;
}

mg_err mg_router_del_handler(mg_router *r, uint32_t handle)
{
    pthread_mutex_lock(&r->mu);
    mg_handler *h = mg_idmap_pop(&r->handlers, handle);
    if (h)
        atomic_store(&h->removed, 1);
    pthread_mutex_unlock(&r->mu);
    mg_handler_unref(h);
    return h ? MG_OK : MG_ENOENT;
}

mg_handler *mg_router_get_handler(mg_router *r, uint32_t handle)
{
    pthread_mutex_lock(&r->mu);
    mg_handler *h = mg_idmap_get(&r->handlers, handle);
    if (h)
        mg_handler_ref(h);
    pthread_mutex_unlock(&r->mu);
    return h;
}

/* REQUIRES(r->mu). */
static void forget_locked(mg_router *r, mg_handler *h)
{
    mg_idmap_pop(&r->handlers, h->handle);
    atomic_store(&h->removed, 1);
    mg_handler_unref(h); /* the table's; the caller has another one */
}

mg_entry *mg_router_take_handlers(mg_router *r, int64_t respondent, size_t *n)
{
    size_t all, taken = 0;
    pthread_mutex_lock(&r->mu);
    mg_entry *entries = copy_locked(&r->handlers, MG_HANDLERS, &all);
    for (size_t i = 0; entries && i < all; i++) {
        mg_entry entry = entries[i];
        mg_handler *h = entry.value;
        if (respondent >= 0 && h->respondent != respondent)
            continue;
        forget_locked(r, h);
        entries[i] = entries[taken];
        entries[taken++] = entry;
    }
    pthread_mutex_unlock(&r->mu);
    for (size_t i = taken; entries && i < all; i++)
        mg_handler_unref(entries[i].value);
    *n = taken;
    return entries;
}

/* --- refusals --- */

void mg_router_refusal_seen(mg_router *r)
{
    atomic_fetch_sub(&r->refusals_waiting, 1);
}

void mg_refusal_free(mg_refusal *refusal)
{
    if (!refusal)
        return;
    mg_stream_unref(refusal->stream);
    mg_stream_unref(refusal->expected);
    mg_free(refusal);
}

static void report(mg_router *r, const mg_hdr *hdr, mg_reason reason, mg_stream *stream, mg_stream *expected)
{
    mg_refusal *refusal = NULL;
    atomic_fetch_add_explicit(&r->refused[reason], 1, memory_order_relaxed);
    if (atomic_fetch_add(&r->refusals_waiting, 1) < REFUSALS_MAX && (refusal = mg_calloc(1, sizeof *refusal))) {
        refusal->reason = reason;
        refusal->hdr = *hdr;
        refusal->stream = stream ? mg_stream_ref(stream) : NULL;
        refusal->expected = expected ? mg_stream_ref(expected) : NULL;
        refusal->lost = atomic_exchange(&r->refusals_lost, 0);
        mg_event ev = {.kind = MG_EV_REFUSED, .a = refusal, .b = mg_router_ref(r)};
        if (mg_loop_push_event(r->loop, &ev) == MG_OK)
            return;
        mg_router_unref(r);
        mg_refusal_free(refusal);
    }
    atomic_fetch_sub(&r->refusals_waiting, 1);
    atomic_fetch_add(&r->refusals_lost, 1);
}

/* Fills the conversions of a message text with numbers, whatever their letter: the texts are Python's and say %r. */
static size_t fill_text(char *out, size_t cap, const char *text, const uint64_t *numbers)
{
    size_t n = 0;
    int next = 0;
    for (; *text && n + 24 < cap; text++) {
        if (*text != '%')
            out[n++] = *text;
        else if (text[1] == '%') {
            out[n++] = '%';
            text++;
        } else if (text[1]) {
            n += (size_t) snprintf(out + n, cap - n, "%" PRIu64, next < 3 ? numbers[next] : 0);
            next++;
            text++;
        }
    }
    return n;
}

/* of: in whose name; NULL: ours. */
static mg_frame *dead_frame(mg_router *r, const mg_hdr *of, uint32_t dst_id, uint32_t handle, mg_reason reason,
                            uint64_t a, uint64_t b, uint64_t c)
{
    char text[512];
    uint64_t numbers[] = {a, b, c};
    pthread_mutex_lock(&r->mu);
    size_t n = r->texts[reason] ? fill_text(text, sizeof text, r->texts[reason], numbers) : 0;
    uint32_t own_id = r->own_id;
    pthread_mutex_unlock(&r->mu);
    if (n > mg_router_max_size(r))
        n = (size_t) mg_router_max_size(r); /* else it would be refused itself, and so on */
    mg_hdr hdr = {.enc = MG_ENC_MGC,
                  .dst_id = dst_id,
                  .src_id = of ? of->src_id : own_id,
                  .auth_id = of ? of->auth_id : own_id,
                  .handle = handle,
                  .reply_to = MG_IS_DEAD};
    mg_frame *f = mg_frame_new(&hdr, n);
    if (f && n)
        memcpy(mg_frame_payload(f), text, n);
    return f;
}

mg_frame *mg_router_dead_frame(mg_router *r, uint32_t dst_id, uint32_t handle, mg_reason reason, uint64_t a, uint64_t b,
                               uint64_t c)
{
    return dead_frame(r, NULL, dst_id, handle, reason, a, b, c);
}

/* Without memory a message, or what should be said of it, is lost: then its stream is, too. */
static mg_err lost(mg_stream *s)
{
    if (s)
        mg_stream_fail(s);
    return MG_ENOMEM;
}

mg_err mg_router_dead(mg_router *r, const mg_hdr *hdr, mg_reason reason, int unreachable, mg_stream *stream, uint64_t a,
                      uint64_t b, uint64_t c)
{
    report(r, hdr, reason, stream, NULL);
    mg_frame *f;
    if (hdr->reply_to && hdr->reply_to != MG_IS_DEAD)
        f = mg_router_dead_frame(r, hdr->src_id, hdr->reply_to, reason, a, b, c);
    else if (!unreachable) /* in its sender's name, who may not have been allowed this either */
        f = dead_frame(r, hdr, hdr->dst_id, hdr->handle, reason, a, b, c);
    else
        return MG_OK;
    if (f && stream && mg_stream_pending_dead(stream) > mg_router_high_water(r)) {
        /* the peer asks and does not read the answers; nobody honest lets so many lie */
        mg_frame_unref(f);
        atomic_fetch_add(&r->refusals_lost, 1);
        return MG_OK;
    }
    return f && mg_router_route(r, f, NULL) == MG_OK ? MG_OK : lost(stream);
}

/* --- delivery --- */

/* REQUIRES(r->mu). */
static int is_authority_locked(const mg_router *r, uint32_t id)
{
    if (id == r->own_id)
        return 1;
    for (size_t i = 0; i < r->n_parents; i++)
        if (r->parent_ids[i] == id)
            return 1;
    return 0;
}

/* REQUIRES(r->mu). Whether a message says that h's respondent will not answer, and comes from somebody who can know: us, or whoever
 * is on the way there. When there is no way any more, anybody may. */
static int may_report_locked(mg_router *r, const mg_hdr *hdr, mg_handler *h, mg_stream *s)
{
    if (hdr->reply_to != MG_IS_DEAD)
        return 0;
    mg_stream *way = expected_locked(r, (uint32_t) h->respondent);
    return !s || !way || way == s;
}

/* REQUIRES(r->mu). s: the stream it came by, or NULL. */
static mg_err claim_locked(mg_router *r, const mg_hdr *hdr, mg_stream *s, mg_handler **out, mg_reason *why)
{
    mg_handler *h = mg_idmap_get(&r->handlers, hdr->handle);
    if (!h) {
        *why = MG_REASON_INVALID_HANDLE;
        return MG_ENOENT;
    }
    if (h->respondent >= 0 && h->respondent != (int64_t) hdr->src_id && !may_report_locked(r, hdr, h, s)) {
        *why = MG_REASON_MISMATCH;
        return MG_ENOENT;
    }
    int64_t remote_id = s ? (int64_t) atomic_load_explicit(&s->remote_id, memory_order_relaxed) : -1;
    if ((h->policy == MG_POLICY_PARENT && !is_authority_locked(r, hdr->auth_id)) ||
        (h->policy == MG_POLICY_NEIGHBOUR && remote_id != (int64_t) hdr->src_id)) {
        *why = MG_REASON_REFUSED;
        return MG_ENOENT;
    }
    if (!h->persist && h->policy != MG_POLICY_ASK) {
        mg_idmap_pop(&r->handlers, hdr->handle);
        *out = h;
    } else
        *out = mg_handler_ref(h);
    return MG_OK;
}

mg_err mg_router_claim(mg_router *r, const mg_hdr *hdr, mg_handler **out, mg_reason *why)
{
    pthread_mutex_lock(&r->mu);
    mg_err err = claim_locked(r, hdr, NULL, out, why);
    pthread_mutex_unlock(&r->mu);
    return err;
}

mg_err mg_router_overflow(mg_router *r, mg_latch *l, const mg_hdr *hdr, mg_stream *stream)
{
    size_t limit = mg_latch_limit(l);
    mg_err err = mg_router_dead(r, hdr, MG_REASON_FULL, 1, stream, limit, 0, 0);
    if (!mg_latch_overflow(l))
        return err;
    mg_frame *f = mg_router_dead_frame(r, hdr->dst_id, hdr->handle, MG_REASON_FULL, limit, 0, 0);
    mg_item mark = {f, MG_ITEM_FRAME, 0};
    mg_err pushed = f ? mg_latch_push(l, mark, NULL) : MG_ENOMEM;
    if (f && pushed != MG_OK)
        mg_frame_unref(f);
    return pushed == MG_ENOMEM ? lost(stream) : err;
}

/* Gives a claimed frame to its handler. on_leader: s is the stream being read by this thread. Takes over both references. */
static mg_err deliver(mg_router *r, mg_handler *h, mg_frame *f, mg_stream *s, int on_leader)
{
    if (h->latch && h->policy != MG_POLICY_ASK) {
        mg_item item = {f, MG_ITEM_FRAME, mg_frame_counts(&f->hdr)};
        mg_woken woken;
        mg_err err = mg_latch_push(h->latch, item, &woken);
        if (err == MG_OK) {
            if (on_leader)
                mg_loop_note_woken(r->loop, &woken);
        } else {
            mg_hdr hdr = f->hdr;
            mg_frame_unref(f);
            err = err == MG_ECLOSED ? mg_router_dead(r, &hdr, MG_REASON_INVALID_HANDLE, 1, s, 0, 0, 0)
                  : err == MG_EFULL ? mg_router_overflow(r, h->latch, &hdr, s)
                                    : lost(s);
        }
        mg_handler_unref(h);
        return err;
    }
    mg_event ev = {.kind = MG_EV_FRAME, .a = h, .b = f, .c = s ? mg_stream_ref(s) : NULL};
    if (on_leader) {
        s->held = 1;
        mg_loop_note_foreign(r->loop);
    }
    if (mg_loop_push_event(r->loop, &ev) != MG_OK) {
        if (on_leader)
            s->held = 0;
        mg_handler_unref(h);
        mg_frame_unref(f);
        lost(s);
        mg_stream_unref(ev.c);
        return MG_ENOMEM;
    }
    return MG_OK;
}

/* Steps 4 to 8 of the routing algorithm (wire.md, section 4.2); takes over f. s: the stream it came by, or NULL. leader: this thread leads. */
static mg_err decide(mg_router *r, mg_frame *f, mg_stream *s, int leader, mg_stream **out_stream)
{
    const mg_hdr *hdr = &f->hdr;
    mg_handler *h = NULL;
    mg_reason why = MG_REASON_NO_ROUTE;
    uint64_t a = 0, b = 0, c = 0;

    pthread_mutex_lock(&r->mu);
    if (s && !(s->any_egress && s->last_egress == hdr->dst_id)) {
        /* without memory for it a later DEL_ROUTE is not passed on, which costs the peer a notice only */
        if (mg_idmap_count(&s->egress) >= EGRESS_MAX) {
            mg_idmap_fini(&s->egress);
            mg_idmap_init(&s->egress);
        }
        if (mg_idmap_get(&s->egress, hdr->dst_id) || mg_idmap_put(&s->egress, hdr->dst_id, s, NULL) == MG_OK) {
            s->last_egress = hdr->dst_id;
            s->any_egress = 1;
        }
    }
    if (hdr->dst_id == r->own_id) {
        mg_err err = claim_locked(r, hdr, s, &h, &why);
        pthread_mutex_unlock(&r->mu);
        if (err == MG_OK) {
            if (leader && s && h->latch)
                mg_stream_set_hot(s);
            err = deliver(r, h, f, s, leader && s);
        } else {
            err = mg_router_dead(r, hdr, why, 1, s, 0, 0, 0);
            mg_frame_unref(f);
        }
        return err;
    }

    mg_stream *parent = parent_locked(r);
    mg_stream *out = mg_idmap_get(&r->routes, hdr->dst_id);
    if (!out && !(s && parent && expected_locked(r, hdr->src_id) == parent))
        out = parent;
    if (!out) {
        a = hdr->dst_id;
        b = r->own_id;
    } else if (s && r->unidirectional && !atomic_load_explicit(&s->privileged, memory_order_relaxed) &&
               !atomic_load_explicit(&out->privileged, memory_order_relaxed)) {
        why = MG_REASON_UNIDIRECTIONAL;
        a = atomic_load(&s->remote_id);
        b = atomic_load(&out->remote_id);
        c = r->own_id;
        out = NULL;
    }
    if (out)
        mg_stream_ref(out);
    pthread_mutex_unlock(&r->mu);

    if (!out) {
        mg_err err = mg_router_dead(r, hdr, why, 1, s, a, b, c);
        mg_frame_unref(f);
        return err;
    }
    if (leader && s) {
        atomic_fetch_add_explicit(&s->frames_forwarded, 1, memory_order_relaxed);
        mg_loop_note_foreign(r->loop);
        mg_stream_forward(out, f, s);
    } else
        mg_stream_send(out, f);
    if (out_stream)
        *out_stream = out;
    else
        mg_stream_unref(out);
    return MG_OK;
}

void mg_router_ingress(mg_router *r, mg_frame *f, mg_stream *s)
{
    const mg_hdr *hdr = &f->hdr;
    assert(s);
    pthread_mutex_lock(&r->mu);
    mg_stream *expected = expected_locked(r, hdr->auth_id);
    mg_reason why = MG_REASON_BAD_AUTH;
    int trusted = expected == s;
    if (trusted && hdr->src_id != hdr->auth_id) {
        why = MG_REASON_BAD_SRC;
        expected = expected_locked(r, hdr->src_id);
        trusted = expected == s;
    }
    if (expected && !trusted)
        mg_stream_ref(expected);
    pthread_mutex_unlock(&r->mu);
    if (!trusted) {
        report(r, hdr, why, s, expected);
        mg_stream_unref(expected);
        mg_frame_unref(f);
        return;
    }
    int64_t stamp = atomic_load_explicit(&s->auth_stamp, memory_order_relaxed);
    if (stamp >= 0 && (uint32_t) stamp != hdr->auth_id)
        mg_frame_set_auth(f, (uint32_t) stamp);
    if (atomic_load_explicit(&s->hooked, memory_order_relaxed)) {
        mg_event ev = {.kind = MG_EV_HOOK, .b = f, .c = mg_stream_ref(s)};
        s->held = 1;
        mg_loop_note_foreign(r->loop);
        if (mg_loop_push_event(r->loop, &ev) != MG_OK) {
            s->held = 0;
            mg_frame_unref(f);
            lost(s);
            mg_stream_unref(s);
        }
        return;
    }
    decide(r, f, s, 1, NULL);
}

int mg_router_after_hook(mg_router *r, mg_frame *f, mg_stream *s)
{
    s->held = 0;
    decide(r, f, s, 1, NULL);
    int holds = s->held;
    s->held = 1;
    mg_stream_flush(r);
    return holds;
}

mg_err mg_router_route(mg_router *r, mg_frame *f, mg_stream **out)
{
    if (out)
        *out = NULL;
    if (f->hdr.len > mg_router_max_size(r)) {
        mg_err err = mg_router_dead(r, &f->hdr, MG_REASON_TOO_LARGE, 0, NULL, mg_router_max_size(r), 0, 0);
        mg_frame_unref(f);
        return err;
    }
    return decide(r, f, NULL, 0, out);
}
