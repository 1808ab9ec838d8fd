/* The globals that a message may name: classes and functions by module and name. */
#ifndef MG_CODEC_GLOBALS_H
#define MG_CODEC_GLOBALS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/config.h"

/* The globals that may be read. The first GLOBAL_WRITTEN ones are also written. */
enum {
    GLOBAL_NONE, /* a value, not a global */
    GLOBAL_BLOB,
    GLOBAL_SECRET,
    GLOBAL_KWARGS,
    GLOBAL_CALL_ERROR,
    GLOBAL_CONTEXT,
    GLOBAL_SENDER,
    GLOBAL_BUFFER,
    GLOBAL_WRITTEN, /* not a global: one more than the last that is written */
    GLOBAL_ENCODE = GLOBAL_WRITTEN,
    GLOBAL_BYTES,
    GLOBAL_VALUE /* a class of the standard library; Python knows which */
};

/* The permitted global of this name, or GLOBAL_NONE. */
int mg_find_global(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len);

/* The object that the name stands for; borrowed. */
PyObject *mg_global_value(mg_codec *codec, int global);

/* The opcode and argument that name a global, for those below GLOBAL_WRITTEN. */
const char *mg_global_text(int global, size_t *len);

#endif
