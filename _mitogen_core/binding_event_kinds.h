/* The kinds of events that the binding adds to those of the engine (net/router.h). */
#ifndef MG_BINDING_EVENT_KINDS_H
#define MG_BINDING_EVENT_KINDS_H

#include "net/router.h"

enum {
    MG_EV_IO = MG_EV_USER, /* a: mg_io with a reference; n: MG_READ or MG_WRITE */
    MG_EV_NOTIFY, /* a: mg_latch with a reference */
    MG_EV_OBJECT, /* a: mg_handler with a reference, b: PyObject with a reference */
    MG_EV_KEEP, /* b: PyObject with a reference, which ends with this event. It is shown to nobody */
    MG_EV_CALL /* a function was deferred */
};

#endif
