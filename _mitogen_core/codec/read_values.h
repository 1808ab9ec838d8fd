/* Reads values that contain no others. Each carries out one opcode: 0, or -1 with an exception. */
#ifndef MG_CODEC_READ_VALUES_H
#define MG_CODEC_READ_VALUES_H

#include "codec/unpickler.h"

/* INT also wrote the two truth values. */
int mg_read_int(mg_unpickler *up);
int mg_read_long(mg_unpickler *up);

/* A number of n bytes without a sign. */
int mg_read_binint(mg_unpickler *up, size_t n);
int mg_read_binint_signed(mg_unpickler *up);

/* p[0..n) as a number with a sign. p is NULL if mg_up_take_counted() has failed, and so does this
 * function then. */
int mg_read_long_counted(mg_unpickler *up, const uint8_t *p, size_t n);

int mg_read_float(mg_unpickler *up);
int mg_read_binfloat(mg_unpickler *up);

/* UTF-8 after a length of so many bytes. */
int mg_read_text(mg_unpickler *up, size_t length_size);
int mg_read_raw_text(mg_unpickler *up);

/* The literal that Python 2's repr() writes. */
int mg_read_string(mg_unpickler *up);

/* p[0..n) as bytes, or as a Blob if the next opcodes make one of them; p as above. */
int mg_read_bytes(mg_unpickler *up, const uint8_t *p, size_t n);

#endif
