/* The state of one call of the writer: its output, its memo, and how deep it is.
 *
 * A mg_write_* function returns 0, -1 with an exception, or MG_OUTSIDE on meeting an object
 * outside the closed set, which unwinds everything: the whole message is then the fallback's
 * work. So nothing here needs to undo what it has written. */
#ifndef MG_CODEC_WRITER_H
#define MG_CODEC_WRITER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/config.h"
#include "codec/globals.h"
#include "codec/pickled.h"

enum { MG_OUTSIDE = 1 };

enum { MG_MEMO_INLINE = 32 }; /* a power of 2 */

typedef struct {
    PyObject *obj; /* strong, NULL for a free entry */
    uint32_t index;
} mg_memo_entry;

typedef struct mg_writer {
    mg_codec *codec;
    mg_pickled *out;
    /* Writes any value, and is in write.c: the functions for containers and objects call it for
     * their items. */
    int (*value)(struct mg_writer *w, PyObject *obj, Py_ssize_t known);
    int depth;                       /* containers around the value that is being written */
    int open; /* shared tuples and Kwargs around it, up to the nearest list or dict in the memo */
    uint32_t next_index; /* memo indices given out, to objects and globals */
    uint32_t globals[GLOBAL_WRITTEN]; /* memo index plus 1 of each global written, else 0 */
    mg_memo_entry *memo; /* open addressing by object address, never more than half full */
    size_t memo_mask, memo_used;
    mg_memo_entry memo_inline[MG_MEMO_INLINE];
    uint8_t places[MG_MEMO_INLINE / 2]; /* indices of the entries in use in memo_inline, while that is the memo */
} mg_writer;

/* Every init needs one fini. */
void mg_writer_init(mg_writer *w, mg_codec *codec, mg_pickled *out);
void mg_writer_fini(mg_writer *w);

/* Goes levels deeper. Every success needs one mg_leave(). */
int mg_enter(mg_writer *w, int levels);
void mg_leave(mg_writer *w, int levels);

/* Gives obj, which has just been written, the next memo index. */
int mg_memo_put(mg_writer *w, PyObject *obj);

/* Refers to an object that has a memo index. */
int mg_write_get(mg_writer *w, uint32_t index);

/* Names a global, the second time by its memo index. */
int mg_write_global(mg_writer *w, int global);

static inline size_t memo_start(const PyObject *obj, size_t mask)
{
    /* Objects are 16 byte aligned; multiplying spreads neighbours, of which there are many. */
    return (size_t) ((((uint64_t) (uintptr_t) obj >> 4) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & mask;
}

/* The entry of obj, or the free one where it belongs. */
static inline mg_memo_entry *mg_memo_find(mg_writer *w, const PyObject *obj)
{
    size_t i = memo_start(obj, w->memo_mask);
    while (w->memo[i].obj != NULL && w->memo[i].obj != obj)
        i = (i + 1) & w->memo_mask;
    return &w->memo[i];
}

#endif
