/* A look into the payload of a message before all of it is there: where its first long byte
 * string is going to stand.
 *
 * The bytes are not trusted and are read by the leader of the loop, with no lock and no state.
 * So nothing is believed: the answer is only where a reader of the whole message would come to,
 * if nothing before it is wrong, and how many bytes are announced there. The caller has to
 * compare both with what there is. */
#ifndef MG_PEEK_H
#define MG_PEEK_H

#include <stddef.h>
#include <stdint.h>

/* Looks at first[0..n), the start of a row of pickles, and at MG_PEEK_WITHIN bytes of it at
 * most. Returns the announced length of the first byte string of `least` bytes (1 or more) or
 * more, and in *at where its content begins, which is n at most; 0, with *at unchanged, when
 * none is found. More input changes no answer but 0. Any thread; allocates nothing, does not
 * block. */
size_t mg_peek_bytes(const uint8_t *first, size_t n, size_t least, size_t *at);

/* A message has only names and short values before its first long byte string, so this much is
 * enough. */
#define MG_PEEK_WITHIN ((size_t) 4096)

#endif
