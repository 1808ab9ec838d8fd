/* Message bytes to values of the closed set: pickles of any protocol.
 *
 * Runs with an attached thread state (the GIL held, where there is one). No object is shared
 * between threads except mg_codec, which is only read once it is configured. */
#ifndef MG_CODEC_READ_H
#define MG_CODEC_READ_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/config.h"
#include "codec/unpickler.h"

/* data[0..len) must stay as it is until mg_unpickler_fini(); the caller also keeps codec and
 * origin alive. origin is what unpickle_context and unpickle_sender are given; NULL for a
 * message that came from nowhere. With deny set, each global raises UnpicklingError. Never
 * fails, allocates nothing. */
void mg_unpickler_init(mg_unpickler *up, mg_codec *codec, const uint8_t *data, size_t len, PyObject *origin, int deny);
void mg_unpickler_fini(mg_unpickler *up);

/* data lacks the bytes of `hole` after its first `at` bytes; they are the content of a byte
 * string, which mg_peek_bytes() found there and which is longer than data is. So `hole` itself
 * becomes the value. Before the first object is read; the caller keeps it alive. */
void mg_unpickler_set_hole(mg_unpickler *up, PyObject *hole, size_t at);

/* The next object, a new reference; NULL without an exception at the end of the data, NULL with
 * one on failure, after which only mg_unpickler_fini() makes sense (a further call returns
 * UnpicklingError).
 *
 * StreamError: a global that is not permitted ("cannot unpickle 'module'/'name'"), or data of
 * which no value can be made ("invalid message: ..."). UnpicklingError: bytes that are no
 * pickle, or cut short, or made to take long. MemoryError. Others come from the unpickle_*
 * callables. May run Python code: those callables, and the __hash__ and __eq__ of a Context. */
PyObject *mg_unpickle_next(mg_unpickler *up);

#endif
