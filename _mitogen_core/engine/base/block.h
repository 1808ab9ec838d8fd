/* Memory for large payloads.
 *
 * A block of a megabyte that the C library takes from the system and gives back again costs a
 * page fault for every 4 KiB of every message, which is more time than the message itself takes.
 * So blocks of up to MG_BLOCK_KEPT bytes are kept for the next message, MG_BLOCK_SPARES of them
 * at most in the process, until the loop has been idle for a second; and one larger one, up to
 * MG_BLOCK_LARGE. Those are mapped in huge pages where the system has them.
 *
 * No lock: a spare block is in a slot that is taken and filled by an atomic exchange, so a fork
 * at any moment loses one block at most. */
#ifndef MG_BLOCK_H
#define MG_BLOCK_H

#include <stddef.h>

#define MG_BLOCK_MIN    ((size_t) 512 << 10) /* smaller pieces of memory are better had from mg_malloc() */
#define MG_BLOCK_KEPT   ((size_t) 4 << 20)
#define MG_BLOCK_SPARES 4
#define MG_BLOCK_LARGE  ((size_t) 160 << 20) /* a payload of 128 MiB, the usual limit, with its surroundings */

/* A block of at least `size` (MG_BLOCK_MIN or more) uninitialised bytes. Untouched pages cost
 * address space only. NULL when memory is out. Any thread. */
void *mg_block_new(size_t size);

/* Gives it back; size is what was asked for. Any thread. */
void mg_block_free(void *ptr, size_t size);

/* Moves the bytes to a block of another size, perhaps elsewhere; NULL when memory is out, and
 * the old block stays. Large blocks that grow keep their pages. */
void *mg_block_resize(void *ptr, size_t size, size_t new_size);

/* Whether a large block of so many bytes is likely to be there already, with its pages. Any
 * thread. */
int mg_block_has_spare(size_t size);

/* The number of spare blocks; and frees all of them. Any thread. */
int mg_block_spares(void);
void mg_block_drop_spares(void);

/* Whether there are spare blocks, or one in use that may become one when it is given back. Any
 * thread. */
int mg_block_to_look_after(void);

/* +1: from now on the caller, a loop, drops spare blocks after some idle time; -1: it no longer
 * does. Blocks are kept only while there is such a loop, and the last one that leaves drops them
 * all. Any thread. */
void mg_block_keeper(int change);

/* Asks for huge pages inside ptr[0..size), which is about to be written and came from another
 * allocator. Does nothing to less than MG_BLOCK_HUGE bytes: such memory is the allocator's own
 * mapping, not a part of its heap. */
#define MG_BLOCK_HUGE ((size_t) 33 << 20)
void mg_block_advise(void *ptr, size_t size);

/* Gives the pages inside ptr[0..size) back to the system, where it can be told so. The bytes are
 * lost; the memory stays allocated, and may be written again. */
void mg_block_discard(void *ptr, size_t size);

#endif
