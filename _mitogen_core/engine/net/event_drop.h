/* The end of an event of the engine's kinds (event_kinds.h). */
#ifndef MG_NET_EVENT_DROP_H
#define MG_NET_EVENT_DROP_H

#include "loop/event_ring.h"

/* Gives back the references that an event holds which was popped, so that its taker has seen to it. Events
 * of the layer's own kinds are left alone. Any thread. */
void mg_net_event_drop(const mg_event *ev);

#endif
