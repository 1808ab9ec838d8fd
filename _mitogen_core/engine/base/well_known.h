/* The well-known handles: the "ports" of a context that have a fixed number, and the id that no
 * context has. */
#ifndef MG_WELL_KNOWN_H
#define MG_WELL_KNOWN_H

#include <stdint.h>

enum {
    MG_GET_MODULE = 100,
    MG_CALL_FUNCTION = 101,
    MG_FORWARD_LOG = 102,
    MG_ADD_ROUTE = 103,
    MG_DEL_ROUTE = 104,
    MG_ALLOCATE_ID = 105,
    MG_SHUTDOWN = 106,
    MG_LOAD_MODULE = 107,
    MG_FORWARD_MODULE = 108,
    MG_DETACHING = 109,
    MG_CALL_SERVICE = 110,
    MG_STUB_CALL_SERVICE = 111,
    MG_GET_RESOURCE = 112,
    MG_LOAD_RESOURCE = 113,
    MG_HAVE_MODULES = 114,
    MG_CALL_AT_ONCE = 130,
    MG_IS_DEAD = 999,     /* not a handle: in reply_to it marks a dead message */
    MG_FIRST_HANDLE = 1000 /* the first one a router gives out */
};

/* A message with this auth_id has no authority over anybody; any context may send it. */
#define MG_NOBODY UINT32_MAX

#endif
