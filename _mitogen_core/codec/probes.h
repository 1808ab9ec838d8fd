/* Checks keys of dictionaries, which an untrusted sender chooses: a dictionary has to find each
 * in a few places of its table, and hashing must take no longer than reading. */
#ifndef MG_CODEC_PROBES_H
#define MG_CODEC_PROBES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "codec/limits.h"
#include "codec/unpickler.h"

/* Before key is put into dict. Returns -1 with UnpicklingError if it must not be, or with
 * another exception. */
int mg_probes_check(mg_unpickler *up, PyObject *dict, PyObject *key);

/* Like mg_probes_check, but returns at once where no attack is possible: a sender cannot foresee
 * the hashes of text and bytes, and a small dictionary has few places. */
static inline int mg_probes_allow(mg_unpickler *up, PyObject *dict, PyObject *key)
{
    if ((PyUnicode_Check(key) || PyBytes_Check(key)) && up->codec->text_hash_is_secret)
        return 0;
    if (PyDict_GET_SIZE(dict) < MG_CODEC_FREE_KEYS && !PyTuple_Check(key))
        return 0;
    return mg_probes_check(up, dict, key);
}

/* Frees the map. */
void mg_probes_clear(mg_probes *probes);

#endif
