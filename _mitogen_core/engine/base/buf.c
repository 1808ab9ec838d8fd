#include "base/buf.h"

#include <stdatomic.h>

#include "base/alloc.h"

struct mg_buf {
    _Atomic uint32_t refs;
    uint8_t *ptr; /* storage, or foreign memory */
    size_t len;
    void (*drop)(void *arg);
    void *arg;
    _Alignas(8) uint8_t storage[];
};

mg_buf *mg_buf_new(size_t len)
{
    mg_buf *buf;

    if (len > SIZE_MAX - sizeof *buf)
        return NULL;
    buf = mg_malloc(sizeof *buf + len);
    if (!buf)
        return NULL;
    atomic_init(&buf->refs, 1);
    buf->ptr = buf->storage;
    buf->len = len;
    buf->drop = NULL;
    buf->arg = NULL;
    return buf;
}

mg_buf *mg_buf_wrap(const void *ptr, size_t len, void (*drop)(void *arg), void *arg)
{
    mg_buf *buf = mg_buf_new(0);

    if (!buf)
        return NULL;
    buf->ptr = (uint8_t *) ptr; /* the contract of mg_buf_ptr() gives the const back */
    buf->len = len;
    buf->drop = drop;
    buf->arg = arg;
    return buf;
}

mg_buf *mg_buf_ref(mg_buf *buf)
{
    /* Relaxed: the caller has a reference already, so nothing has to be seen through this one. */
    atomic_fetch_add_explicit(&buf->refs, 1, memory_order_relaxed);
    return buf;
}

void mg_buf_unref(mg_buf *buf)
{
    /* Release: this holder's uses of the bytes come before their end. Acquire: the last holder
     * sees all of them. */
    if (!buf || atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (buf->drop)
        buf->drop(buf->arg);
    mg_free(buf);
}

uint8_t *mg_buf_ptr(const mg_buf *buf)
{
    return buf->ptr;
}

size_t mg_buf_len(const mg_buf *buf)
{
    return buf->len;
}

void *mg_buf_arg(const mg_buf *buf)
{
    return buf->arg;
}
