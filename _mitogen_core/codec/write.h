/* Values to message bytes: the closed set of types, as a subset of pickle protocol 2.
 *
 * Runs with an attached thread state (the GIL held, where there is one). No object is shared
 * between threads except mg_codec, which is only read once it is configured. */
#ifndef MG_CODEC_WRITE_H
#define MG_CODEC_WRITE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "codec/config.h"
#include "codec/pickled.h"

/* Writes one pickle per object into out, which is fresh from mg_pickled_init(). objs are
 * borrowed. Objects outside the closed set make fallback_pickle write the whole message. May run
 * Python code (attributes of a Context or a Sender, the fallback). Raises RecursionError beyond
 * MG_CODEC_MAX_DEPTH, OverflowError for a byte string of 2 GiB or a text of 4 GiB, MemoryError,
 * and what fallback_pickle raises. */
int mg_pickle(mg_codec *codec, PyObject *const *objs, Py_ssize_t n, mg_pickled *out);

#endif
