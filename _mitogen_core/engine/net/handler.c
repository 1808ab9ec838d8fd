#include "net/handler.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "net/router_body.h"

struct mg_handler {
    _Atomic uint32_t refs;
    uint32_t handle;     /* set when it is added; written under the router's mu */
    _Atomic int removed; /* likewise */
    mg_handler_spec is;  /* its latch with a reference */
    mg_handler *trusted; /* of MG_POLICY_GUEST: stands in for it where a message has a parent's authority; else NULL */
};

/* Python is not asked about a guest's message while fewer than so many wait in the latch: to ask
 * takes longer than most messages wait. */
#define UNASKED 32

/* But Python is asked about each guest's message that is longer than this: 32 of those would
 * take much memory. */
#define UNASKED_BYTES 65536

/* --- life --- */

/* A new handler as the spec says, but without its drop function: the owner stays the caller's. */
static mg_handler *new_unowned(const mg_handler_spec *spec)
{
    mg_handler *h = mg_calloc(1, sizeof *h);
    if (!h)
        return NULL;
    atomic_init(&h->refs, 1);
    h->is = *spec;
    h->is.drop_owner = NULL;
    if (spec->latch)
        mg_latch_ref(spec->latch);
    return h;
}

/* The handler that stands in for one of MG_POLICY_GUEST where Python need not be asked. */
static mg_handler *new_trusted(const mg_handler_spec *spec)
{
    mg_handler_spec open = *spec;
    open.policy = MG_POLICY_NONE;
    return new_unowned(&open);
}

mg_handler *mg_handler_new(const mg_handler_spec *spec)
{
    assert(spec->respondent >= -1 && spec->respondent <= UINT32_MAX);
    assert(spec->policy != MG_POLICY_GUEST || (spec->latch && spec->persist));
    mg_handler *h = new_unowned(spec);
    if (h && spec->policy == MG_POLICY_GUEST && !(h->trusted = new_trusted(spec))) {
        mg_handler_unref(h);
        return NULL;
    }
    if (h)
        h->is.drop_owner = spec->drop_owner;
    return h;
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
    mg_handler_unref(h->trusted);
    mg_latch_unref(h->is.latch); /* first: the owner's end may ask who else has that latch */
    if (h->is.drop_owner)
        h->is.drop_owner(h->is.owner);
    mg_free(h);
}

uint32_t mg_handler_handle(const mg_handler *h)
{
    return h->handle;
}

void *mg_handler_owner(const mg_handler *h)
{
    return h->is.owner;
}

int mg_handler_removed(const mg_handler *h)
{
    return atomic_load(&h->removed);
}

int64_t mg_handler_respondent(const mg_handler *h)
{
    return h->is.respondent;
}

mg_latch *mg_handler_latch(const mg_handler *h, size_t len)
{
    if (h->is.policy == MG_POLICY_GUEST && (len > UNASKED_BYTES || mg_latch_size(h->is.latch) >= UNASKED))
        return NULL;
    return h->is.policy != MG_POLICY_ASK ? h->is.latch : NULL;
}

/* --- the table --- */

/* REQUIRES(r->mu). */
static uint32_t free_handle_locked(mg_router *r)
{
    uint32_t handle;
    do
        handle = r->next_handle++;
    while (handle < MG_FIRST_HANDLE || mg_idmap_get(&r->handlers, handle));
    return handle;
}

/* REQUIRES(r->mu). *old: the handler that this replaces, with the table's reference, or NULL. */
static mg_err put_locked(mg_router *r, mg_handler *h, uint32_t handle, mg_handler **old)
{
    void *replaced = NULL;
    mg_err err = mg_idmap_put(&r->handlers, handle, h, &replaced);
    if (err != MG_OK)
        return err;
    mg_handler_ref(h);
    h->handle = handle;
    atomic_store(&h->removed, 0); /* it may have been taken out, and be put back */
    *old = replaced;
    if (*old)
        atomic_store(&(*old)->removed, 1);
    return MG_OK;
}

mg_err mg_router_add_handler(mg_router *r, mg_handler *h, uint32_t handle, int overwrite)
{
    mg_handler *old = NULL;
    mg_err err = MG_EEXIST;
    pthread_mutex_lock(&r->mu);
    if (!handle)
        handle = free_handle_locked(r);
    if (overwrite || !mg_idmap_get(&r->handlers, handle))
        err = put_locked(r, h, handle, &old);
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

void mg_router_forget_locked(mg_router *r, mg_handler *h)
{
    mg_idmap_pop(&r->handlers, h->handle);
    atomic_store(&h->removed, 1);
    mg_handler_unref(h); /* the table's; the caller has another one */
}

/* --- which messages a handler takes --- */

/* REQUIRES(r->mu). Whether a context decides which contexts we can reach, which is so if it is
 * above us. A client of a UNIX socket knows no more than its neighbour, and that 0 is the
 * master. */
static int is_above_locked(mg_router *r, uint32_t id)
{
    return id == 0 || mg_router_is_authority_locked(r, id);
}

/* REQUIRES(r->mu). Whether a message says that h's respondent will not answer, and comes from
 * somebody who can know: us, the neighbour on the way there, or a context above us. Other
 * contexts behind the same neighbour cannot know. A context further on the way that lost the
 * respondent sends DEL_ROUTE, which tells as much. */
static int may_report_locked(mg_router *r, const mg_hdr *hdr, const mg_handler *h, mg_stream *s)
{
    if (hdr->reply_to != MG_IS_DEAD)
        return 0;
    if (!s)
        return 1;
    return s == mg_router_way_locked(r, (uint32_t) h->is.respondent) &&
           (hdr->src_id == mg_peer_remote_id(mg_stream_peer(s)) || is_above_locked(r, hdr->src_id));
}

/* REQUIRES(r->mu). */
static int is_from_respondent_locked(mg_router *r, const mg_hdr *hdr, const mg_handler *h, mg_stream *s)
{
    return h->is.respondent < 0 || h->is.respondent == (int64_t) hdr->src_id || may_report_locked(r, hdr, h, s);
}

/* Whether the neighbour itself is the author: with its own authority, or the one that its stream
 * is stamped with. */
static int is_from_neighbour(const mg_hdr *hdr, const mg_peer *peer)
{
    return hdr->src_id == mg_peer_remote_id(peer) &&
           (hdr->auth_id == hdr->src_id || (int64_t) hdr->auth_id == mg_peer_auth_stamp(peer));
}

/* REQUIRES(r->mu). Lets a message pass that Python will decide about. */
static int is_allowed_locked(mg_router *r, const mg_hdr *hdr, const mg_handler *h, mg_stream *s)
{
    if (h->is.policy == MG_POLICY_PARENT)
        return mg_router_is_authority_locked(r, hdr->auth_id);
    return h->is.policy != MG_POLICY_NEIGHBOUR || (s && is_from_neighbour(hdr, mg_stream_peer(s)));
}

mg_err mg_router_claim_locked(mg_router *r, const mg_hdr *hdr, mg_stream *s, mg_handler **out, mg_reason *why)
{
    mg_handler *h = mg_idmap_get(&r->handlers, hdr->handle);
    if (!h)
        *why = MG_REASON_INVALID_HANDLE;
    else if (!is_from_respondent_locked(r, hdr, h, s))
        *why = MG_REASON_MISMATCH;
    else if (!is_allowed_locked(r, hdr, h, s))
        *why = MG_REASON_REFUSED;
    else {
        int once = !h->is.persist && h->is.policy != MG_POLICY_ASK;
        if (h->is.policy == MG_POLICY_GUEST && mg_router_is_authority_locked(r, hdr->auth_id))
            h = h->trusted;
        *out = once ? mg_idmap_pop(&r->handlers, hdr->handle) : mg_handler_ref(h);
        return MG_OK;
    }
    return MG_ENOENT;
}

mg_err mg_router_claim(mg_router *r, const mg_hdr *hdr, mg_handler **out, mg_reason *why)
{
    pthread_mutex_lock(&r->mu);
    mg_err err = mg_router_claim_locked(r, hdr, NULL, out, why);
    pthread_mutex_unlock(&r->mu);
    return err;
}
