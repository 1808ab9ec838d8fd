#include "base/block.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

/* Alignment that lets the kernel use huge pages on the common platforms. */
#define HUGE_PAGE ((size_t) 2 << 20)

/* Room for what surrounds a payload, such as a header: it must not double a block whose payload
 * is a power of two. */
#define SLACK ((size_t) 64 << 10)

/* A sanitizer has to see when each block ends; a block kept as a spare would hide it. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEP 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEP 0
#endif
#endif
#ifndef KEEP
#define KEEP 1
#endif

/* A spare block tells its size itself. */
typedef struct {
    size_t mapped;
} spare;

static _Atomic(spare *) spares[MG_BLOCK_SPARES];
static _Atomic(spare *) large; /* the one of more than MG_BLOCK_KEPT */
static _Atomic size_t large_mapped; /* its size, or that of one before it: a hint */
static _Atomic int n_used; /* blocks in use that may become a spare one */
static _Atomic int keepers;
static _Atomic int n_spares; /* of the slots that are filled; may lag behind for a moment */

/* Bytes to map for a block: size classes, so that a spare block fits the next message of about
 * the same length. */
static size_t mapping(size_t size)
{
    if (size > SIZE_MAX - 2 * HUGE_PAGE)
        return 0;
    for (size_t class = MG_BLOCK_MIN; class <= MG_BLOCK_KEPT; class *= 2)
        if (size <= class + SLACK)
            return class + SLACK;
    size_t step = HUGE_PAGE;
    while (size / 16 > step)
        step *= 2;
    return (size + step - 1) & ~(step - 1);
}

static void *map(size_t size)
{
    /* cppcheck-suppress invalidFunctionArg ; -1 means no file */
    void *ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ptr == MAP_FAILED)
        return NULL;
    return ptr;
}

static void advise(void *ptr, size_t size)
{
#ifdef MADV_HUGEPAGE
    (void) madvise(ptr, size, MADV_HUGEPAGE); /* a hint: a kernel without huge pages refuses it */
#else
    (void) ptr, (void) size;
#endif
}

/* size is a multiple of HUGE_PAGE. */
static void *map_huge(size_t size)
{
    uint8_t *ptr = map(size + HUGE_PAGE);
    if (!ptr)
        return map(size);
    size_t before = (HUGE_PAGE - ((uintptr_t) ptr & (HUGE_PAGE - 1))) & (HUGE_PAGE - 1);
    if (before)
        munmap(ptr, before);
    munmap(ptr + before + size, HUGE_PAGE - before);
    advise(ptr + before, size);
    /* cppcheck-suppress deallocret ; the pages given back lie before and behind */
    return ptr + before;
}

static void drop(spare *s)
{
    if (!s)
        return;
    atomic_fetch_sub(&n_spares, 1);
    munmap(s, s->mapped);
}

/* The block in a slot, if it has that size. */
static spare *take_from(_Atomic(spare *) *slot, size_t mapped)
{
    spare *s = atomic_exchange(slot, NULL);
    if (!s)
        return NULL;
    if (s->mapped == mapped) {
        atomic_fetch_sub(&n_spares, 1);
        return s;
    }
    /* another size: put it back, or free it if another thread has filled the slot. Either may
     * fit the next message. */
    spare *none = NULL;
    if (!atomic_compare_exchange_strong(slot, &none, s))
        drop(s);
    return NULL;
}

static spare *take_spare(size_t mapped)
{
    for (int i = 0; i < MG_BLOCK_SPARES; i++)
        if (atomic_load_explicit(&spares[i], memory_order_relaxed)) {
            spare *s = take_from(&spares[i], mapped);
            if (s)
                return s;
        }
    return NULL;
}

static int keep_spare(void *ptr, size_t mapped)
{
    spare *s = ptr;
    s->mapped = mapped;
    for (int i = 0; i < MG_BLOCK_SPARES; i++) {
        spare *none = NULL;
        if (!atomic_load_explicit(&spares[i], memory_order_relaxed) &&
            atomic_compare_exchange_strong(&spares[i], &none, s)) {
            atomic_fetch_add(&n_spares, 1);
            if (atomic_load(&keepers) <= 0)
                mg_block_drop_spares(); /* the last keeper has just left, and may not have seen it */
            return 1;
        }
    }
    return 0;
}

static void keep_large(void *ptr, size_t mapped)
{
    spare *s = ptr;
    s->mapped = mapped;
    atomic_store(&large_mapped, mapped);
    atomic_fetch_add(&n_spares, 1);
    drop(atomic_exchange(&large, s)); /* the younger one is kept */
    if (atomic_load(&keepers) <= 0)
        drop(atomic_exchange(&large, NULL)); /* as above */
}

int mg_block_has_spare(size_t size)
{
    return KEEP && size > MG_BLOCK_KEPT + SLACK && atomic_load(&large) && atomic_load(&large_mapped) == mapping(size);
}

static int is_large(size_t mapped)
{
    return mapped > MG_BLOCK_KEPT + SLACK;
}

/* Whether a block of that mapping may be kept when it is given back. */
static int may_be_kept(size_t mapped)
{
    return KEEP && mapped <= MG_BLOCK_LARGE;
}

void *mg_block_new(size_t size)
{
    size_t mapped = mapping(size);
    if (!mapped || mg_alloc_fails())
        return NULL;
    void *ptr = !is_large(mapped) ? take_spare(mapped) : atomic_load(&large) ? take_from(&large, mapped) : NULL;
    if (!ptr)
        ptr = is_large(mapped) ? map_huge(mapped) : map(mapped);
    if (ptr)
        atomic_fetch_add(&n_used, may_be_kept(mapped));
    return ptr;
}

void mg_block_free(void *ptr, size_t size)
{
    size_t mapped = mapping(size);
    if (!ptr)
        return;
    if (!may_be_kept(mapped) || atomic_load(&keepers) <= 0)
        munmap(ptr, mapped);
    else if (is_large(mapped))
        keep_large(ptr, mapped);
    else if (!keep_spare(ptr, mapped))
        munmap(ptr, mapped);
    atomic_fetch_sub(&n_used, may_be_kept(mapped)); /* last: until then n_used tells of a block to look after */
}

void *mg_block_resize(void *ptr, size_t size, size_t new_size)
{
    if (mapping(new_size) == mapping(size))
        return ptr;
#ifdef MREMAP_MAYMOVE
    /* Moves the pages, not the bytes. The system chooses the new place. A move to an address of
     * ours could fail half-way, after that address was given up. */
    if (size > MG_BLOCK_KEPT + SLACK && new_size > size && mapping(new_size)) {
        if (mg_alloc_fails())
            return NULL;
        void *moved = mremap(ptr, mapping(size), mapping(new_size), MREMAP_MAYMOVE);
        if (moved == MAP_FAILED)
            return NULL;
        atomic_fetch_add(&n_used, may_be_kept(mapping(new_size)) - may_be_kept(mapping(size)));
        return moved;
    }
#endif
    void *other = mg_block_new(new_size);
    if (other) {
        memcpy(other, ptr, size < new_size ? size : new_size);
        mg_block_free(ptr, size);
    }
    return other;
}

int mg_block_spares(void)
{
    return atomic_load_explicit(&n_spares, memory_order_relaxed);
}

int mg_block_to_look_after(void)
{
    return mg_block_spares() > 0 || atomic_load(&n_used) > 0;
}

void mg_block_keeper(int change)
{
    if (atomic_fetch_add(&keepers, change) + change == 0 && atomic_load(&n_spares) > 0)
        mg_block_drop_spares();
}

void mg_block_drop_spares(void)
{
    for (int i = 0; i < MG_BLOCK_SPARES; i++)
        drop(atomic_exchange(&spares[i], NULL));
    drop(atomic_exchange(&large, NULL));
}

/* Calls fn for the pages that lie wholly in ptr[0..size); the size of a page is a power of two. */
static void whole_pages(void *ptr, size_t size, size_t page, void (*fn)(void *ptr, size_t size))
{
    uintptr_t from = ((uintptr_t) ptr + page - 1) & ~(uintptr_t) (page - 1);
    uintptr_t to = ((uintptr_t) ptr + size) & ~(uintptr_t) (page - 1);
    if (to > from)
        fn((void *) from, to - from);
}

void mg_block_advise(void *ptr, size_t size)
{
    if (size >= MG_BLOCK_HUGE)
        whole_pages(ptr, size, HUGE_PAGE, advise);
}

static void discard(void *ptr, size_t size)
{
#if defined(__linux__) && defined(MADV_DONTNEED)
    (void) madvise(ptr, size, MADV_DONTNEED); /* on other systems this is no more than a hint */
#else
    (void) ptr, (void) size;
#endif
}

void mg_block_discard(void *ptr, size_t size)
{
    long page = sysconf(_SC_PAGESIZE);
    if (page > 0)
        whole_pages(ptr, size, (size_t) page, discard);
}
