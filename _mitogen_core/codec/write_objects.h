/* Writes instances of the classes that mg_codec names. Each as told in writer.h; shared as in
 * write_containers.h. */
#ifndef MG_CODEC_WRITE_OBJECTS_H
#define MG_CODEC_WRITE_OBJECTS_H

#include "codec/writer.h"

typedef int mg_write_fn(mg_writer *w, PyObject *obj, int shared);

/* The function that writes an instance of one of those classes. NULL for any other object; an
 * exception may be set. *levels becomes the depth that the object adds: one, and one more for
 * the dict inside a Kwargs. */
mg_write_fn *mg_find_object_writer(mg_codec *codec, PyObject *obj, int *levels);

#endif
