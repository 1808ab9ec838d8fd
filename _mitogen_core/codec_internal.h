/* What the reader and the writer of the codec share. */
#ifndef MG_CODEC_INTERNAL_H
#define MG_CODEC_INTERNAL_H

#include "codec.h"
#include "wire/opcode.h"

/* The globals that may be read. The first GLOBAL_WRITTEN ones are also written. */
enum {
    GLOBAL_NONE, /* a value, not a global */
    GLOBAL_BLOB,
    GLOBAL_SECRET,
    GLOBAL_KWARGS,
    GLOBAL_CALL_ERROR,
    GLOBAL_CONTEXT,
    GLOBAL_SENDER,
    GLOBAL_WRITTEN, /* not a global: where those end that are written */
    GLOBAL_ENCODE = GLOBAL_WRITTEN,
    GLOBAL_BYTES
};

#endif
