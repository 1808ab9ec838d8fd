/* Writes tuples, lists and dicts. Each as told in writer.h; shared: there may be other
 * references, so it gets a memo index. */
#ifndef MG_CODEC_WRITE_CONTAINERS_H
#define MG_CODEC_WRITE_CONTAINERS_H

#include "codec/writer.h"

int mg_write_tuple(mg_writer *w, PyObject *obj, int shared);
int mg_write_list(mg_writer *w, PyObject *obj, int shared);
int mg_write_dict(mg_writer *w, PyObject *obj, int shared);

/* An empty dict was written: adds the items of a dict or of an instance of a subclass. */
int mg_write_dict_items(mg_writer *w, PyObject *dict);

#endif
