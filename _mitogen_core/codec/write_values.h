/* Writes values that contain no others. Each as told in writer.h. */
#ifndef MG_CODEC_WRITE_VALUES_H
#define MG_CODEC_WRITE_VALUES_H

#include "codec/writer.h"

int mg_write_int(mg_writer *w, PyObject *obj);
int mg_write_float(mg_writer *w, PyObject *obj);

/* The content of a bytes object or of an instance of a subclass. top: it is all there is, so its
 * length takes 4 bytes. */
int mg_write_bytes(mg_writer *w, PyObject *obj, int top);

/* The content of a str object or of an instance of a subclass. */
int mg_write_text(mg_writer *w, PyObject *obj);

#endif
