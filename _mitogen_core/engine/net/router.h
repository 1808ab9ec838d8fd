/* Which way a frame goes: routes, handles, and the rules of trust.
 *
 * One mutex, mu, guards the tables. It is held for look-ups only: never while a frame is
 * written, a latch is pushed or an event is posted. A frame that must enter Python is posted as
 * an event (event_kinds.h), and its stream waits meanwhile.
 *
 * Files: router.c (identity, routes, the way of a frame), handler.c (which handler takes a
 * message), refusals.c (what is said of one that is not delivered), snapshot.c (the entries of
 * its tables at one moment), statistics.c. All functions are for any thread, with no lock held,
 * unless it says otherwise. */
#ifndef MG_ROUTER_H
#define MG_ROUTER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "loop/loop.h"
#include "net/event_kinds.h"
#include "net/handler.h"
#include "net/reason.h"
#include "net/refusals.h"
#include "net/snapshot.h"
#include "net/statistics.h"
#include "net/stream.h"
#include "wire/frame.h"

typedef struct mg_router mg_router;

/* One reference, and takes one to the loop; NULL: no memory. The last unref frees it, with the
 * routes and handlers it still has. A stream holds a reference to the router, so a router with
 * routes lives until they are deleted. */
mg_router *mg_router_new(mg_loop *loop);
mg_router *mg_router_ref(mg_router *r);
void mg_router_unref(mg_router *r);

/* Borrowed: valid as long as the router. */
mg_loop *mg_router_loop(mg_router *r);

/* The largest payload that is read or sent, and how many bytes may wait on a stream. They count
 * from now on. */
void mg_router_set_limits(mg_router *r, uint64_t max_size, size_t high_water);
uint64_t mg_router_max_size(mg_router *r);

/* Which context we are, which one our parent is (-1: none), and which ones have authority over
 * us; copied. MG_ENOMEM: as before. */
mg_err mg_router_set_identity(mg_router *r, uint32_t own_id, int64_t parent_id, const uint32_t *parent_ids, size_t n);
uint32_t mg_router_own_id(mg_router *r);
void mg_router_set_unidirectional(mg_router *r, int on);

/* As mg_stream_new, with the router as the sink. It has no route yet. */
mg_stream *mg_router_new_stream(mg_router *r, uint32_t remote_id, int rfd, int wfd);

/* Routes. put replaces; MG_ENOMEM. del: whether there was one. get returns a new reference or
 * NULL; with_parent: the parent's stream where there is no entry. */
mg_err mg_router_put_route(mg_router *r, uint32_t id, mg_stream *s);
int mg_router_del_route(mg_router *r, uint32_t id);
mg_stream *mg_router_get_route(mg_router *r, uint32_t id, int with_parent);
/* The parent's stream: a new reference, or NULL. */
mg_stream *mg_router_get_parent(mg_router *r);

/* A frame that came in by stream s, on the leader; takes over the reference. Nothing is lost in
 * silence: a stream whose frame can be neither delivered nor answered, since memory is out, is
 * broken (MG_EV_BAD with MG_ENOMEM), and so those who wait behind it are told. */
void mg_router_ingress(mg_router *r, mg_frame *f, mg_stream *s);

/* Like mg_router_ingress, for a frame that was not read but made here; frames that it causes are
 * written at once. With the loop acquired. */
void mg_router_feed(mg_router *r, mg_frame *f, mg_stream *s);

/* Goes on after MG_EV_HOOK, with the loop acquired. Takes over the reference. Returns whether
 * the frame is in Python again, for a handler there; else mg_stream_go_on(s) is due. */
int mg_router_after_hook(mg_router *r, mg_frame *f, mg_stream *s);

/* Sends or delivers a frame made here; takes over the reference. *out (may be NULL) is the
 * stream it went to, with a reference, or NULL. Blocks as mg_stream_send does. MG_ENOMEM: it was
 * neither sent nor delivered, and there is no answer that says so. */
mg_err mg_router_route(mg_router *r, mg_frame *f, mg_stream **out);

#endif
