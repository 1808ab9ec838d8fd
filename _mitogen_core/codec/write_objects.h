/* Writes instances of the classes that mg_codec names. Each as told in writer.h; shared as in write_containers.h. */
#ifndef MG_CODEC_WRITE_OBJECTS_H
#define MG_CODEC_WRITE_OBJECTS_H

#include "codec/writer.h"

typedef int mg_write_fn(mg_writer *w, PyObject *obj, int shared);

/* The function for an instance of one of those classes; NULL when it is of none, with an exception or without. levels
 * is what it adds to the depth: one for itself, and one for the dict inside a Kwargs. */
mg_write_fn *mg_find_object_writer(mg_codec *codec, PyObject *obj, int *levels);

#endif
