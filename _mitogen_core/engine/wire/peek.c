#include "wire/peek.h"

#include <string.h>

#include "wire/opcode.h"

/* How the length of an opcode's argument is told. */
typedef enum {
    STOPS = 0, /* the end, or an opcode that hardly ever comes before bytes */
    NO_ARGUMENT,
    ONE_BYTE,
    TWO_BYTES,
    FOUR_BYTES,
    EIGHT_BYTES,
    COUNT_OF_ONE,  /* by its first byte */
    COUNT_OF_FOUR, /* by its first four bytes */
    LONG_BYTES,    /* likewise, and these may be the bytes that are looked for */
    TWO_LINES      /* by newlines */
} argument;

static const uint8_t argument_of[256] = {
    [OP_MARK] = NO_ARGUMENT,
    [OP_NONE] = NO_ARGUMENT,
    [OP_NEWTRUE] = NO_ARGUMENT,
    [OP_NEWFALSE] = NO_ARGUMENT,
    [OP_EMPTY_TUPLE] = NO_ARGUMENT,
    [OP_EMPTY_LIST] = NO_ARGUMENT,
    [OP_EMPTY_DICT] = NO_ARGUMENT,
    [OP_TUPLE] = NO_ARGUMENT,
    [OP_TUPLE1] = NO_ARGUMENT,
    [OP_TUPLE2] = NO_ARGUMENT,
    [OP_TUPLE3] = NO_ARGUMENT,
    [OP_REDUCE] = NO_ARGUMENT,
    [OP_SETITEM] = NO_ARGUMENT,
    [OP_SETITEMS] = NO_ARGUMENT,
    [OP_APPEND] = NO_ARGUMENT,
    [OP_APPENDS] = NO_ARGUMENT,
    [OP_PROTO] = ONE_BYTE,
    [OP_BININT1] = ONE_BYTE,
    [OP_BINPUT] = ONE_BYTE,
    [OP_BINGET] = ONE_BYTE,
    [OP_BININT2] = TWO_BYTES,
    [OP_BININT] = FOUR_BYTES,
    [OP_LONG_BINPUT] = FOUR_BYTES,
    [OP_LONG_BINGET] = FOUR_BYTES,
    [OP_BINFLOAT] = EIGHT_BYTES,
    [OP_LONG1] = COUNT_OF_ONE,
    [OP_SHORT_BINSTRING] = COUNT_OF_ONE,
    [OP_SHORT_BINBYTES] = COUNT_OF_ONE,
    [OP_SHORT_BINUNICODE] = COUNT_OF_ONE,
    [OP_BINUNICODE] = COUNT_OF_FOUR,
    [OP_BINSTRING] = LONG_BYTES,
    [OP_BINBYTES] = LONG_BYTES,
    [OP_GLOBAL] = TWO_LINES,
};

/* An argument whose end is not in sight. */
#define UNKNOWN SIZE_MAX

/* The little-endian number in p[0..size), size at most 4. */
static uint32_t number(const uint8_t *p, size_t size)
{
    uint32_t value = 0;
    while (size-- > 0)
        value = value << 8 | p[size];
    return value;
}

/* The length of an argument that begins with `size` bytes, which are included, and which tell the
 * length of the rest. p[0..n): as much of it as there is. */
static size_t counted(const uint8_t *p, size_t n, size_t size)
{
    if (n < size)
        return UNKNOWN;
    uint32_t count = number(p, size);
    return count > SIZE_MAX - 1 - size ? UNKNOWN : count + size;
}

/* The length of an argument that ends with the second newline. */
static size_t two_lines(const uint8_t *p, size_t n)
{
    const uint8_t *first = n ? memchr(p, '\n', n) : NULL;
    size_t at = first ? (size_t) (first - p) + 1 : n;
    const uint8_t *second = at < n ? memchr(p + at, '\n', n - at) : NULL;
    return second ? (size_t) (second - p) + 1 : UNKNOWN;
}

/* p[0..n) is what follows the opcode. */
static size_t argument_len(uint8_t op, const uint8_t *p, size_t n)
{
    switch ((argument) argument_of[op]) {
    case NO_ARGUMENT: return 0;
    case ONE_BYTE: return 1;
    case TWO_BYTES: return 2;
    case FOUR_BYTES: return 4;
    case EIGHT_BYTES: return 8;
    case COUNT_OF_ONE: return counted(p, n, 1);
    case COUNT_OF_FOUR:
    case LONG_BYTES: return counted(p, n, 4);
    case TWO_LINES: return two_lines(p, n);
    case STOPS: break;
    }
    return UNKNOWN;
}

size_t mg_peek_bytes(const uint8_t *first, size_t n, size_t least, size_t *at)
{
    if (n > MG_PEEK_WITHIN)
        n = MG_PEEK_WITHIN;
    for (size_t pos = 0; pos < n;) {
        uint8_t op = first[pos++];
        size_t len = argument_len(op, first + pos, n - pos);
        if (argument_of[op] == LONG_BYTES && len != UNKNOWN && len - 4 >= least) {
            *at = pos + 4;
            return len - 4;
        }
        if (len > n - pos)
            return 0;
        pos += len;
    }
    return 0;
}
