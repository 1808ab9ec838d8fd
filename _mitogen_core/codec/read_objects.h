/* Reads globals, and makes objects of them. Each carries out one opcode: 0, or -1 with an
 * exception.
 *
 * The only callables ever called are those of mg_codec, on arguments that were checked. */
#ifndef MG_CODEC_READ_OBJECTS_H
#define MG_CODEC_READ_OBJECTS_H

#include "codec/unpickler.h"

int mg_read_global(mg_unpickler *up);
int mg_read_stack_global(mg_unpickler *up);
int mg_read_reduce(mg_unpickler *up);
int mg_read_newobj(mg_unpickler *up);
int mg_read_inst(mg_unpickler *up);
int mg_read_obj(mg_unpickler *up);
int mg_read_build(mg_unpickler *up);

/* An opcode that stands for a type of its own, which is not permitted. */
int mg_refuse_type(mg_unpickler *up, const char *name);

#endif
