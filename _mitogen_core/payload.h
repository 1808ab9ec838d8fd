/* The payload of a message. It stays where it is, in the frame that it came with or in the
 * pieces that the codec wrote, until somebody asks for it as a bytes object. */
#ifndef MG_PAYLOAD_H
#define MG_PAYLOAD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/pickled.h"
#include "module_state.h"
#include "wire/frame.h"

/* All NULL: an empty one. The bytes object counts where there is one; else one of the other two
 * has the payload. */
typedef struct {
    PyObject *data; /* strong, or NULL */
    mg_frame *frame; /* with a reference, or NULL */
    mg_pickled *pickled; /* owned, or NULL */
} mg_payload;

/* Empties the payload. Returns whether large memory was freed, whose last reference mg_run_later()
 * drops. */
int mg_payload_clear(mg_payload *p);
int mg_payload_traverse(const mg_payload *p, visitproc visit, void *arg);

/* Whether it may hold a Sender, or a value that Python wrote: true unless our writer alone has made
 * it, and has written no Sender. */
int mg_payload_is_special(const mg_payload *p);

/* In bytes. */
Py_ssize_t mg_payload_size(const mg_payload *p);

/* As a bytes object, which is made the first time. router: of the message, or NULL. New
 * reference, or NULL with an exception. */
PyObject *mg_payload_data(mg_state *st, mg_payload *p, PyObject *router);

/* A frame of it with that header. New reference, or NULL with an exception. Large bytes are
 * referred to, not copied. */
mg_frame *mg_payload_frame(const mg_payload *p, const mg_hdr *hdr);

/* To be called when a message of this router (or NULL) has brought large bytes of that length.
 * It may make a bytes object, which the next bytes of the same length are read into. */
void mg_payload_came(mg_state *st, PyObject *router, size_t len);

/* The bytes of a payload, for a reader: in one piece, or without one byte string that is an
 * object of its own. */
typedef struct {
    const uint8_t *ptr;
    size_t len;
    PyObject *hole; /* borrowed, or NULL: that object */
    size_t hole_at; /* its place in the payload */
    /* private: keep the bytes */
    PyObject *data;
    mg_frame *frame;
} mg_payload_view;

/* Begins a reading, which mg_payload_end_look ends. holes: whether the reader can handle a hole.
 * Returns 0, or -1 with an exception; then there is no reading to end. */
int mg_payload_look(mg_state *st, mg_payload *p, PyObject *router, int holes, mg_payload_view *view);
void mg_payload_end_look(mg_payload_view *view);

#endif
