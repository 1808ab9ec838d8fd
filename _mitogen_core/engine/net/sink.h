/* The destination of a stream's frames, and the limits it keeps, as they are given to the stream
 * at its birth.
 *
 * One sink serves many streams. A stream holds a reference to it, takes no lock of the sink's,
 * and calls its functions as the leader of the loop unless said otherwise. The functions may
 * call the stream again. */
#ifndef MG_NET_SINK_H
#define MG_NET_SINK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ilist.h"
#include "wire/frame.h"

struct mg_stream;
typedef struct mg_sink mg_sink;

/* The most bytes that wait on a stream, unless the sink says otherwise. */
#define MG_HIGH_WATER (8 * 1024 * 1024)

typedef struct {
    void (*ref)(mg_sink *sink);   /* any thread, as the next one; with no lock held */
    void (*unref)(mg_sink *sink);

    /* A frame has come in by s; takes over the reference. When it has to enter Python,
     * mg_stream_set_in_python(s, 1) keeps what follows in the stream. Must not block. */
    void (*frame)(mg_sink *sink, struct mg_stream *s, mg_frame *f);

    /* The connection is of no use any more; called once at most, and `ended` was called before.
     * MG_EIO: it is gone, sys_errno says how, or is 0 for the end of the input. Else why its
     * input cannot be read: MG_ECORRUPT, MG_ETOOBIG (pending is a copy of that input, with a
     * reference, or NULL), MG_ENOMEM. The stream has reserved one event of the loop: to be
     * posted with mg_loop_push_reserved. */
    void (*broken)(mg_sink *sink, struct mg_stream *s, mg_err err, int sys_errno, mg_buf *pending);

    /* s carries nothing any more: it broke, or was closed. Perhaps called again. */
    void (*ended)(mg_sink *sink, struct mg_stream *s);
} mg_sink_ops;

struct mg_sink {
    const mg_sink_ops *ops;
    _Atomic uint64_t max_size; /* the largest payload; any thread, as the next two */
    _Atomic size_t high_water; /* the most bytes that should wait on a stream */
    _Atomic uint32_t own_id; /* the context that large payloads may land in: this one */
    mg_ilist unflushed; /* leader only: streams to write at the end of the turn, with a reference */
};

static inline void mg_sink_init(mg_sink *sink, const mg_sink_ops *ops)
{
    sink->ops = ops;
    atomic_init(&sink->max_size, UINT64_C(128) << 20);
    atomic_init(&sink->high_water, MG_HIGH_WATER);
    atomic_init(&sink->own_id, 0);
    mg_ilist_init(&sink->unflushed);
}

static inline uint64_t mg_sink_max_size(const mg_sink *sink)
{
    return atomic_load_explicit(&sink->max_size, memory_order_relaxed);
}

static inline size_t mg_sink_high_water(const mg_sink *sink)
{
    return atomic_load_explicit(&sink->high_water, memory_order_relaxed);
}

static inline uint32_t mg_sink_own_id(const mg_sink *sink)
{
    return atomic_load_explicit(&sink->own_id, memory_order_relaxed);
}

#endif
