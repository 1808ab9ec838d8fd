/* Message: a frame as Python sees it. */
#ifndef MG_MESSAGE_OBJECT_H
#define MG_MESSAGE_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "module_state.h"
#include "payload.h"
#include "wire/frame.h"

typedef struct {
    PyObject_HEAD mg_state *st; /* borrowed: the type keeps the module alive */
    PyObject *dst_id, *src_id, *auth_id, *handle, *reply_to, *enc, *router, *receiver; /* strong, NULL is None */
    mg_payload payload;
} MessageObject;

extern PyType_Spec mg_message_spec;

/* The fields that others set. */
typedef enum { MG_FIELD_DST_ID, MG_FIELD_HANDLE, MG_FIELD_REPLY_TO } mg_message_field;

/* A message that came as a frame. New reference, or NULL with an exception. The reference to the
 * frame is taken over, also on failure. router may be NULL. */
PyObject *mg_message_from_frame(mg_state *st, mg_frame *frame, PyObject *router);

/* A message of class cls whose payload is the objects, one pickle each. New reference, or NULL
 * with an exception. */
PyObject *mg_message_pickled(mg_state *st, PyTypeObject *cls, PyObject *const *objs, Py_ssize_t n);

/* The frame of a message; dst_id and handle must be there. New reference, or NULL with an
 * exception. */
mg_frame *mg_message_frame(MessageObject *m);

/* The header: 0, or -1 with an exception when a field is out of its range. A message that stays
 * in this process may have any enc; one that no frame may have becomes 0. */
int mg_message_hdr(MessageObject *m, mg_hdr *hdr);

int mg_message_is_dead(MessageObject *m);
/* Whether it has a dst_id and a handle; whether a router has brought it. */
int mg_message_is_addressed(MessageObject *m);
int mg_message_has_come(MessageObject *m);
Py_ssize_t mg_message_size(MessageObject *m);

/* Sets a field of a message, also of one of another class (the pure core's, in tests): 0, or -1
 * with an exception. */
int mg_message_set(mg_state *st, PyObject *msg, mg_message_field field, PyObject *value);

/* The value that a message holds: new reference; or NULL without an exception, if it is dead, an
 * error, or cannot be read. `unpickle` tells more of it then. NULL with an exception that is no
 * Exception, such as Ctrl-C, which has come meanwhile. */
PyObject *mg_message_plain_value(MessageObject *m);

/* (dst_id, src_id, auth_id, handle, reply_to, enc). New reference, or NULL with an exception. */
PyObject *mg_hdr_tuple(const mg_hdr *hdr);

#endif
