/* Reads tuples, lists and dicts. Each carries out one opcode: 0, or -1 with an exception. */
#ifndef MG_CODEC_READ_CONTAINERS_H
#define MG_CODEC_READ_CONTAINERS_H

#include "codec/unpickler.h"

/* Replaces slots by a tuple of them: those from base on, the n topmost, those above the mark. */
int mg_read_tuple(mg_unpickler *up, size_t base);
int mg_read_small_tuple(mg_unpickler *up, size_t n);
int mg_read_marked_tuple(mg_unpickler *up);

/* LIST and DICT: a container of the items above the mark. */
int mg_read_list(mg_unpickler *up);
int mg_read_dict(mg_unpickler *up);

/* The single forms, and those with a mark. */
int mg_read_append(mg_unpickler *up);
int mg_read_appends(mg_unpickler *up);
int mg_read_setitem(mg_unpickler *up);
int mg_read_setitems(mg_unpickler *up);

#endif
