/* Handlers: the recipient behind each handle of this process, and the messages that it takes.
 *
 * A handler is made once and does not change, but for its number and whether it was removed. The
 * table of a router has a reference to each. All functions are for any thread, and take the
 * router's mutex for a look-up at most. */
#ifndef MG_NET_HANDLER_H
#define MG_NET_HANDLER_H

#include <stdint.h>

#include "base/err.h"
#include "base/well_known.h"
#include "net/reason.h"
#include "net/stream.h"
#include "sync/latch.h"
#include "wire/frame.h"

struct mg_router;

typedef enum {
    MG_POLICY_NONE,
    MG_POLICY_PARENT,    /* auth_id is ours or one of our parents' */
    MG_POLICY_NEIGHBOUR, /* src_id is the stream's remote_id */
    MG_POLICY_GUEST, /* a parent's authority passes; Python decides about others, long ones or once some wait in the latch */
    MG_POLICY_ASK /* only Python knows: the handler gets the frame undecided, and still registered */
} mg_policy;

/* The settings of a handler. */
typedef struct {
    int persist; /* 0: it is removed by the first message that it gets. Not for MG_POLICY_GUEST */
    mg_policy policy;
    int64_t respondent; /* -1, or the only context it may come from; a dead message, also from the way there */
    mg_latch *latch; /* where frames go, borrowed; NULL: they go to Python. MG_POLICY_GUEST needs one */
    void *owner; /* for the layer above */
    void (*drop_owner)(void *owner); /* called at the end, on any thread; may be NULL. It must not block */
} mg_handler_spec;

typedef struct mg_handler mg_handler;

/* Makes a handler as the spec says, with one reference; takes over its owner. NULL: no memory,
 * and drop_owner is not called. */
mg_handler *mg_handler_new(const mg_handler_spec *spec);
mg_handler *mg_handler_ref(mg_handler *h);
void mg_handler_unref(mg_handler *h);

/* Its number, once it was added; its owner; whether messages still on their way to it are
 * unwanted; the only context that may send to it, or -1. */
uint32_t mg_handler_handle(const mg_handler *h);
void *mg_handler_owner(const mg_handler *h);
int mg_handler_removed(const mg_handler *h);
int64_t mg_handler_respondent(const mg_handler *h);

/* The latch that a message of len bytes for it goes to now without Python being asked, borrowed,
 * or NULL. Takes the latch's lock. */
mg_latch *mg_handler_latch(const mg_handler *h, size_t len);

/* add takes a reference of its own; handle 0: the next free one; MG_EEXIST unless overwrite;
 * MG_ENOMEM. del: MG_ENOENT. get: a new reference, or NULL. */
mg_err mg_router_add_handler(struct mg_router *r, mg_handler *h, uint32_t handle, int overwrite);
mg_err mg_router_del_handler(struct mg_router *r, uint32_t handle);
mg_handler *mg_router_get_handler(struct mg_router *r, uint32_t handle);

/* Decides about a message for handle hdr->handle of this process (look-up, respondent, policy),
 * and unregisters a handler that takes one message only. s: the stream it came by, NULL for one
 * made here. MG_OK: *out has a new reference. Else MG_ENOENT and *why. The second one
 * REQUIRES(the router's mu). */
mg_err mg_router_claim(struct mg_router *r, const mg_hdr *hdr, mg_handler **out, mg_reason *why);
mg_err mg_router_claim_locked(struct mg_router *r, const mg_hdr *hdr, mg_stream *s, mg_handler **out, mg_reason *why);

/* REQUIRES(the router's mu). Takes h out of the table; the caller has a reference of its own. */
void mg_router_forget_locked(struct mg_router *r, mg_handler *h);

#endif
