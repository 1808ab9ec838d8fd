/* Releases events of the engine's kinds (event_kinds.h). */
#ifndef MG_NET_EVENT_DROP_H
#define MG_NET_EVENT_DROP_H

#include "loop/event_ring.h"

/* Drops the references of an event that was popped, when its taker is done with it. Events of
 * the layer's own kinds are left alone. Any thread. */
void mg_net_event_drop(const mg_event *ev);

#endif
