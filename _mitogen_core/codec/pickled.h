/* A written message payload: pieces of memory, some of them inside Python objects. */
#ifndef MG_CODEC_PICKLED_H
#define MG_CODEC_PICKLED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A run of output bytes. owner is a strong reference to the object that ptr points into, or NULL
 * when the bytes are in memory of the mg_pickled. A reference may be taken over by setting owner
 * to NULL before mg_pickled_fini(). */
typedef struct {
    const uint8_t *ptr;
    size_t len;
    PyObject *owner;
} mg_piece;

/* A written message payload. The body is visible so that it can live on a stack. It points into
 * itself: it must not be moved or copied. */
typedef struct {
    mg_piece *segs; /* in order; none is empty */
    size_t nsegs;
    size_t total; /* bytes in all segs */
    int is_special; /* a Sender is in it, or the fallback wrote it */
    /* private */
    uint8_t *head;
    size_t head_len, head_cap, run_start, segs_cap;
    mg_piece segs_inline[4];
    uint8_t head_inline[512];
} mg_pickled;

/* Never fails, allocates nothing. Every init needs one fini, whether mg_pickle() was called or
 * failed. */
void mg_pickled_init(mg_pickled *out);
void mg_pickled_fini(mg_pickled *out);

/* For the collector: the objects that the segs point into. */
int mg_pickled_traverse(const mg_pickled *out, visitproc visit, void *arg);

/* A joined copy as a new bytes object, or NULL with MemoryError. */
PyObject *mg_pickled_bytes(const mg_pickled *out);

/* ---- for the writer ---- */

/* Forgets what was written; memory is kept. */
void mg_out_reset(mg_pickled *out);

/* Makes the head larger by n bytes at least. */
int mg_out_grow(mg_pickled *out, size_t n);

/* Adds a seg; steals owner, also on failure. */
int mg_out_add_seg(mg_pickled *out, const uint8_t *ptr, size_t len, PyObject *owner);

/* Refers to bytes inside owner. */
int mg_out_refer(mg_pickled *out, const void *ptr, size_t len, PyObject *owner);

/* Ends the output: from now on the segs can be read. */
int mg_out_finish(mg_pickled *out);

/* Space for n more bytes of the head, or NULL with an exception. The caller adds to head_len
 * what it uses. */
static inline uint8_t *mg_out_reserve(mg_pickled *out, size_t n)
{
    if (out->head_cap - out->head_len < n && mg_out_grow(out, n) < 0)
        return NULL;
    return out->head + out->head_len;
}

static inline int mg_put_byte(mg_pickled *out, uint8_t byte)
{
    uint8_t *p = mg_out_reserve(out, 1);
    if (p == NULL)
        return -1;
    p[0] = byte;
    out->head_len += 1;
    return 0;
}

static inline int mg_put_bytes(mg_pickled *out, const void *src, size_t n)
{
    uint8_t *p = mg_out_reserve(out, n);
    if (p == NULL)
        return -1;
    memcpy(p, src, n);
    out->head_len += n;
    return 0;
}

static inline void mg_pack_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t) v;
    p[1] = (uint8_t) (v >> 8);
    p[2] = (uint8_t) (v >> 16);
    p[3] = (uint8_t) (v >> 24);
}

/* An opcode with a four byte argument. */
static inline int mg_put_op_u32(mg_pickled *out, uint8_t op, uint32_t v)
{
    uint8_t *p = mg_out_reserve(out, 5);
    if (p == NULL)
        return -1;
    p[0] = op;
    mg_pack_u32(p + 1, v);
    out->head_len += 5;
    return 0;
}

#endif
