/* The router's notes on the context at the other end of a stream, and on the frames that came
 * from there.
 *
 * It lies in the stream, at its very beginning, so that the router has it at once for each
 * frame; the stream itself only makes and ends it. No lock inside: the atomic members are for
 * any thread, the rest says what guards it. Nothing blocks. */
#ifndef MG_NET_PEER_H
#define MG_NET_PEER_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/idmap.h"

typedef struct mg_peer {
    _Atomic uint32_t remote_id;
    _Atomic int64_t auth_stamp; /* -1, or the auth_id that all incoming frames get */
    _Atomic int privileged;     /* exempt from unidirectional mode */
    _Atomic int hooked;         /* each frame that comes in is shown to Python first */

    mg_idmap egress;      /* guarded by the router's mu, as all below: the dst_ids that came in here */
    uint32_t last_egress; /* the last one put there */
    int any_egress;
    int counted;       /* the totals have what the stream carried */
    uint64_t seen_at;  /* the number of the last count that has seen this stream */
} mg_peer;

static inline void mg_peer_init(mg_peer *peer, uint32_t remote_id)
{
    atomic_init(&peer->remote_id, remote_id);
    atomic_init(&peer->auth_stamp, -1);
    atomic_init(&peer->privileged, 0);
    atomic_init(&peer->hooked, 0);
    mg_idmap_init(&peer->egress);
    peer->last_egress = 0;
    peer->any_egress = peer->counted = 0;
    peer->seen_at = 0;
}

static inline void mg_peer_fini(mg_peer *peer)
{
    mg_idmap_fini(&peer->egress);
}

/* The loads are relaxed: the settings do not depend on each other, and a change may take effect
 * at any later frame. */
static inline uint32_t mg_peer_remote_id(const mg_peer *peer)
{
    return atomic_load_explicit(&peer->remote_id, memory_order_relaxed);
}

static inline int64_t mg_peer_auth_stamp(const mg_peer *peer)
{
    return atomic_load_explicit(&peer->auth_stamp, memory_order_relaxed);
}

static inline int mg_peer_privileged(const mg_peer *peer)
{
    return atomic_load_explicit(&peer->privileged, memory_order_relaxed);
}

static inline int mg_peer_hooked(const mg_peer *peer)
{
    return atomic_load_explicit(&peer->hooked, memory_order_relaxed);
}

#endif
