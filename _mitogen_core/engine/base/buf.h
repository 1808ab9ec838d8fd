/* A counted reference to a block of bytes, our own or somebody else's. */
#ifndef MG_BUF_H
#define MG_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct mg_buf mg_buf;

/* A block of len uninitialised bytes, in the same allocation as its counter. Returns a new
 * reference, or NULL when memory is out. The bytes may be written while the caller's is the only
 * reference. */
mg_buf *mg_buf_new(size_t len);

/* Foreign memory: ptr[0..len) must stay as it is until drop(arg) is called, which happens
 * exactly once, when the last reference goes, on whatever thread drops it and under whatever
 * lock that thread holds: drop must not block, take an engine lock or enter Python. drop may be
 * NULL (static memory). Returns a new reference, or NULL when memory is out; drop is not called
 * then. */
mg_buf *mg_buf_wrap(const void *ptr, size_t len, void (*drop)(void *arg), void *arg);

/* Takes one more reference and returns buf. Any thread that has a reference. */
mg_buf *mg_buf_ref(mg_buf *buf);

/* Drops a reference; the last one frees the block. NULL is allowed. Any thread. */
void mg_buf_unref(mg_buf *buf);

/* The bytes, valid as long as the reference. Write only to a block of mg_buf_new that is not
 * shared yet. */
uint8_t *mg_buf_ptr(const mg_buf *buf);
size_t mg_buf_len(const mg_buf *buf);

/* The argument for `drop` that mg_buf_wrap was given; NULL for storage of its own. */
void *mg_buf_arg(const mg_buf *buf);

#endif
