#include "net/router.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/well_known.h"
#include "net/router_body.h"

/* Destinations remembered for one stream. A peer that names more is lying, and may miss some
 * notices of lost routes. */
#define EGRESS_MAX 65536

static const mg_sink_ops sink_ops;

/* --- life --- */

mg_router *mg_router_new(mg_loop *loop)
{
    mg_router *r = mg_calloc(1, sizeof *r);
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    r->loop = mg_loop_ref(loop);
    mg_sink_init(&r->sink, &sink_ops);
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

static void drop_tables(mg_router *r)
{
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
}

void mg_router_unref(mg_router *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    drop_tables(r);
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

mg_stream *mg_router_new_stream(mg_router *r, uint32_t remote_id, int rfd, int wfd)
{
    return mg_stream_new(r->loop, &r->sink, remote_id, rfd, wfd);
}

void mg_router_set_limits(mg_router *r, uint64_t max_size, size_t high_water)
{
    atomic_store(&r->sink.max_size, max_size);
    atomic_store(&r->sink.high_water, high_water);
}

uint64_t mg_router_max_size(mg_router *r)
{
    return mg_sink_max_size(&r->sink);
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
    assert(parent_id >= -1 && parent_id <= UINT32_MAX);
    uint32_t *copy = mg_malloc(n * sizeof *copy);
    if (!copy)
        return MG_ENOMEM;
    if (n)
        memcpy(copy, parent_ids, n * sizeof *copy);
    pthread_mutex_lock(&r->mu);
    uint32_t *old = r->parent_ids;
    r->own_id = own_id;
    atomic_store(&r->sink.own_id, own_id);
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

mg_stream *mg_router_way_locked(mg_router *r, uint32_t id)
{
    mg_stream *s = mg_idmap_get(&r->routes, id);
    return s ? s : parent_locked(r);
}

mg_stream *mg_router_get_route(mg_router *r, uint32_t id, int with_parent)
{
    pthread_mutex_lock(&r->mu);
    mg_stream *s = with_parent ? mg_router_way_locked(r, id) : mg_idmap_get(&r->routes, id);
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

int mg_router_is_authority_locked(const mg_router *r, uint32_t id)
{
    if (id == r->own_id)
        return 1;
    for (size_t i = 0; i < r->n_parents; i++)
        if (r->parent_ids[i] == id)
            return 1;
    return 0;
}

/* --- delivery; s: the stream that the frame came by, read by this thread, or NULL for a frame
 * made here --- */

/* Posts an event for Python. Later frames of the stream wait until Python is done with the event.
 * Takes over the references that the event has. */
static mg_err post_to_python(mg_router *r, int kind, mg_handler *h, mg_frame *f, mg_stream *s)
{
    mg_event ev = {.kind = kind, .a = h, .b = f, .c = s ? mg_stream_ref(s) : NULL};
    if (s) {
        mg_stream_set_in_python(s, 1);
        mg_loop_note_foreign(r->loop);
    }
    if (mg_loop_push_event(r->loop, &ev) == MG_OK)
        return MG_OK;
    if (s)
        mg_stream_set_in_python(s, 0);
    mg_handler_unref(h);
    mg_frame_unref(f);
    mg_router_lost(s);
    mg_stream_unref(ev.c);
    return MG_ENOMEM;
}

/* Takes over the frame, which the latch has not taken. */
static mg_err refused_by_latch(mg_router *r, mg_latch *l, mg_err err, mg_frame *f, mg_stream *s)
{
    mg_hdr hdr = *mg_frame_hdr(f);
    mg_frame_unref(f);
    if (err == MG_ECLOSED)
        return mg_router_dead(r, &hdr, MG_REASON_INVALID_HANDLE, 1, s, 0, 0, 0);
    return err == MG_EFULL ? mg_router_overflow(r, l, &hdr, s) : mg_router_lost(s);
}

/* Takes over the frame. */
static mg_err push_to_latch(mg_router *r, mg_latch *l, mg_frame *f, mg_stream *s)
{
    mg_item item = {f, MG_ITEM_FRAME, mg_frame_counts(mg_frame_hdr(f))};
    mg_woken woken;
    if (s)
        mg_stream_set_hot(s);
    mg_err err = mg_latch_push(l, item, &woken);
    if (err != MG_OK)
        return refused_by_latch(r, l, err, f, s);
    if (s)
        mg_loop_note_woken(r->loop, &woken);
    return MG_OK;
}

/* Gives a claimed frame to its handler; takes over both references. */
static mg_err deliver(mg_router *r, mg_handler *h, mg_frame *f, mg_stream *s)
{
    mg_latch *l = mg_handler_latch(h, mg_frame_len(f));
    if (!l)
        return post_to_python(r, MG_EV_FRAME, h, f, s);
    mg_err err = push_to_latch(r, l, f, s);
    mg_handler_unref(h);
    return err;
}

/* --- forwarding --- */

/* Why a frame goes nowhere, and the numbers for the text of that. */
typedef struct {
    mg_reason reason;
    uint64_t a, b, c;
} obstacle;

/* REQUIRES(r->mu). Remembers that s has sent to that context. Without memory for it a later
 * DEL_ROUTE is not passed on, which costs the peer a notice only. */
static void note_egress_locked(mg_stream *s, uint32_t dst_id)
{
    mg_peer *peer = mg_stream_peer(s);
    if (peer->any_egress && peer->last_egress == dst_id)
        return;
    if (mg_idmap_count(&peer->egress) >= EGRESS_MAX) {
        mg_idmap_fini(&peer->egress);
        mg_idmap_init(&peer->egress);
    }
    if (mg_idmap_get(&peer->egress, dst_id) || mg_idmap_put(&peer->egress, dst_id, s, NULL) == MG_OK) {
        peer->last_egress = dst_id;
        peer->any_egress = 1;
    }
}

/* REQUIRES(r->mu). Whether unidirectional mode forbids a frame that came by s to leave by `out`. */
static int is_one_way_locked(const mg_router *r, mg_stream *s, mg_stream *out)
{
    return s && r->unidirectional && !mg_peer_privileged(mg_stream_peer(s)) && !mg_peer_privileged(mg_stream_peer(out));
}

/* REQUIRES(r->mu). The stream that leads to hdr->dst_id; NULL, and why there is none. Borrowed.
 * A frame that came from the parent does not go back there if there is no route. */
static mg_stream *way_out_locked(mg_router *r, const mg_hdr *hdr, mg_stream *s, obstacle *why)
{
    mg_stream *parent = parent_locked(r);
    mg_stream *out = mg_idmap_get(&r->routes, hdr->dst_id);
    if (!out && !(s && parent && mg_router_way_locked(r, hdr->src_id) == parent))
        out = parent;
    if (!out)
        *why = (obstacle) {MG_REASON_NO_ROUTE, hdr->dst_id, r->own_id, 0};
    else if (is_one_way_locked(r, s, out)) {
        uint32_t from = mg_peer_remote_id(mg_stream_peer(s)), to = mg_peer_remote_id(mg_stream_peer(out));
        *why = (obstacle) {MG_REASON_UNIDIRECTIONAL, from, to, r->own_id};
        out = NULL;
    }
    return out;
}

/* Sends the frame by `out`. Takes over the frame, and the reference to out, which is put into
 * *out_stream unless out_stream is NULL. */
static mg_err pass_on(mg_router *r, mg_frame *f, mg_stream *s, mg_stream *out, mg_stream **out_stream)
{
    if (s) {
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

/* Takes over the frame. */
static mg_err refuse(mg_router *r, mg_frame *f, mg_stream *s, const obstacle *why)
{
    mg_err err = mg_router_dead(r, mg_frame_hdr(f), why->reason, 1, s, why->a, why->b, why->c);
    mg_frame_unref(f);
    return err;
}

/* Where a frame goes, as docs/protocol.rst says under "Routing", once it is trusted; takes
 * over f. */
static mg_err decide(mg_router *r, mg_frame *f, mg_stream *s, mg_stream **out_stream)
{
    const mg_hdr *hdr = mg_frame_hdr(f);
    mg_handler *h = NULL;
    mg_stream *out = NULL;
    obstacle why = {.reason = MG_REASON_NO_ROUTE};

    pthread_mutex_lock(&r->mu);
    if (s)
        note_egress_locked(s, hdr->dst_id);
    if (hdr->dst_id == r->own_id)
        mg_router_claim_locked(r, hdr, s, &h, &why.reason);
    else if ((out = way_out_locked(r, hdr, s, &why)))
        mg_stream_ref(out);
    pthread_mutex_unlock(&r->mu);

    if (h)
        return deliver(r, h, f, s);
    return out ? pass_on(r, f, s, out, out_stream) : refuse(r, f, s, &why);
}

/* --- frames that come in --- */

/* REQUIRES(r->mu). Whether messages of that context have to come by s. If not, *expected is the
 * stream that they have to come by, or NULL. */
static int comes_by_locked(mg_router *r, uint32_t id, mg_stream *s, mg_stream **expected)
{
    *expected = mg_router_way_locked(r, id);
    return *expected == s;
}

/* REQUIRES(r->mu). Whether the message carries another authority than its sender's, and may: either
 * none at all, or any, if it comes from our parent, which has checked the messages that it passes
 * down. */
static int is_lowered_locked(mg_router *r, const mg_hdr *hdr, mg_stream *s)
{
    return hdr->auth_id != hdr->src_id && (hdr->auth_id == MG_NOBODY || s == parent_locked(r));
}

/* REQUIRES(r->mu). Whether the sender could speak with our authority, which its stream is
 * stamped with, and says that it speaks with the one of a context below us, which is less. */
static int is_humble_locked(mg_router *r, const mg_hdr *hdr, mg_stream *s)
{
    if (mg_peer_auth_stamp(mg_stream_peer(s)) != (int64_t) r->own_id || hdr->auth_id == hdr->src_id)
        return 0;
    mg_stream *way = mg_router_way_locked(r, hdr->auth_id);
    return way && way != s && way != parent_locked(r);
}

/* Whether the stream may carry messages of both contexts that the header names. If not, the
 * reason; *expected has a reference, or is NULL. *humble: see is_humble_locked(). */
static int is_trusted(mg_router *r, const mg_hdr *hdr, mg_stream *s, mg_reason *why, mg_stream **expected, int *humble)
{
    pthread_mutex_lock(&r->mu);
    *why = MG_REASON_BAD_AUTH;
    *humble = is_humble_locked(r, hdr, s);
    int trusted = comes_by_locked(r, hdr->auth_id, s, expected) || is_lowered_locked(r, hdr, s) || *humble;
    if (trusted && hdr->src_id != hdr->auth_id) {
        *why = MG_REASON_BAD_SRC;
        trusted = comes_by_locked(r, hdr->src_id, s, expected);
    }
    if (*expected && !trusted)
        mg_stream_ref(*expected);
    pthread_mutex_unlock(&r->mu);
    return trusted;
}

static void stamp(mg_frame *f, const mg_peer *peer)
{
    int64_t auth_id = mg_peer_auth_stamp(peer);
    uint32_t has = mg_frame_hdr(f)->auth_id;
    if (auth_id >= 0 && (uint32_t) auth_id != has && has != MG_NOBODY)
        mg_frame_set_auth(f, (uint32_t) auth_id);
}

void mg_router_ingress(mg_router *r, mg_frame *f, mg_stream *s)
{
    mg_reason why;
    mg_stream *expected;
    int humble;
    if (!is_trusted(r, mg_frame_hdr(f), s, &why, &expected, &humble)) {
        mg_router_report(r, mg_frame_hdr(f), why, s, expected, NULL);
        mg_stream_unref(expected);
        mg_frame_unref(f);
        return;
    }
    if (!humble)
        stamp(f, mg_stream_peer(s));
    if (mg_peer_hooked(mg_stream_peer(s)))
        post_to_python(r, MG_EV_HOOK, NULL, f, s);
    else
        decide(r, f, s, NULL);
}

void mg_router_feed(mg_router *r, mg_frame *f, mg_stream *s)
{
    mg_router_ingress(r, f, s);
    mg_stream_flush(&r->sink);
}

int mg_router_after_hook(mg_router *r, mg_frame *f, mg_stream *s)
{
    mg_stream_set_in_python(s, 0);
    decide(r, f, s, NULL);
    int again = mg_stream_in_python(s);
    mg_stream_set_in_python(s, 1);
    mg_stream_flush(&r->sink);
    return again;
}

/* --- frames made here --- */

mg_err mg_router_send_own(mg_router *r, mg_frame *f)
{
    return decide(r, f, NULL, NULL);
}

mg_err mg_router_route(mg_router *r, mg_frame *f, mg_stream **out)
{
    uint64_t max_size = mg_sink_max_size(&r->sink);
    if (out)
        *out = NULL;
    if (mg_frame_len(f) <= max_size)
        return decide(r, f, NULL, out);
    mg_err err = mg_router_dead(r, mg_frame_hdr(f), MG_REASON_TOO_LARGE, 0, NULL, max_size, 0, 0);
    mg_frame_unref(f);
    return err;
}

/* --- the sink of its streams --- */

static mg_router *router_of(mg_sink *sink)
{
    return MG_CONTAINER(sink, mg_router, sink);
}

static void sink_ref(mg_sink *sink)
{
    mg_router_ref(router_of(sink));
}

static void sink_unref(mg_sink *sink)
{
    mg_router_unref(router_of(sink));
}

static void sink_frame(mg_sink *sink, mg_stream *s, mg_frame *f)
{
    mg_router_ingress(router_of(sink), f, s);
}

static void sink_broken(mg_sink *sink, mg_stream *s, mg_err err, int sys_errno, mg_buf *pending)
{
    mg_event ev = {.kind = MG_EV_BAD, .a = mg_stream_ref(s), .b = pending, .n = (uint64_t) err};
    if (err == MG_EIO) {
        ev.kind = MG_EV_GONE;
        ev.n = (uint64_t) sys_errno;
    }
    mg_loop_push_reserved(router_of(sink)->loop, &ev);
}

static void sink_ended(mg_sink *sink, mg_stream *s)
{
    mg_router_count_closed(router_of(sink), s);
}

static const mg_sink_ops sink_ops = {
    .ref = sink_ref,
    .unref = sink_unref,
    .frame = sink_frame,
    .broken = sink_broken,
    .ended = sink_ended,
};
