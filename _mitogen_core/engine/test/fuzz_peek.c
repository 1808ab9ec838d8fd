/* Looks into the start of a payload and holds the answer against a plain walk that knows the
 * opcodes by their letters; then against the answers for each shorter start.
 *
 * Input: the least length, as a power of two, then the payload. */
#include "wire/peek.h"

#include <stdlib.h>
#include <string.h>

#include "test/test.h"

struct answer {
    size_t len, at;
};

static size_t little(const uint8_t *p, size_t n)
{
    size_t value = 0;
    for (size_t i = 0; i < n; i++)
        value += (size_t) p[i] << 8 * i;
    return value;
}

/* Where the opcode at `pos` ends, beyond n if that is not here; 0 for one that ends the walk. */
static size_t end_of(const uint8_t *p, size_t n, size_t pos)
{
    uint8_t op = p[pos++];
    size_t left = n - pos, newlines = 0;

    if (op && strchr("(N\x88\x89)]}t\x85\x86\x87Rsuae", op))
        return pos;
    if (op && strchr("\x80Kqh", op))
        return pos + 1;
    if (op == 'M')
        return pos + 2;
    if (op && strchr("Jrj", op))
        return pos + 4;
    if (op == 'G')
        return pos + 8;
    if (op && strchr("\x8aUC\x8c", op))
        return left < 1 ? n + 1 : pos + 1 + p[pos];
    if (op && strchr("XTB", op))
        return left < 4 ? n + 1 : pos + 4 + little(p + pos, 4);
    if (op != 'c')
        return 0;
    while (pos < n && newlines < 2)
        newlines += p[pos++] == '\n';
    return newlines < 2 ? n + 1 : pos;
}

static struct answer walk(const uint8_t *p, size_t n, size_t least)
{
    size_t pos = 0, end;

    if (n > MG_PEEK_WITHIN)
        n = MG_PEEK_WITHIN;
    while (pos < n) {
        if ((p[pos] == 'B' || p[pos] == 'T') && n - pos >= 5 && little(p + pos + 1, 4) >= least)
            return (struct answer) {little(p + pos + 1, 4), pos + 5};
        end = end_of(p, n, pos);
        if (!end || end > n)
            break;
        pos = end;
    }
    return (struct answer) {0, 0};
}

/* Looks at a copy of just n bytes, so that ASan sees a read beyond them. */
static struct answer look(const uint8_t *p, size_t n, size_t least)
{
    struct answer a = {0, 0};
    uint8_t *copy = malloc(n ? n : 1);

    if (n)
        memcpy(copy, p, n);
    a.len = mg_peek_bytes(copy, n, least, &a.at);
    free(copy);
    return a;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
    if (!len)
        return 0;
    size_t least = (size_t) 1 << input[0] % 32, n = len - 1;
    const uint8_t *p = input + 1;
    struct answer want = walk(p, n, least), got = look(p, n, least);

    CHECK(got.len == want.len && got.at == want.at);
    CHECK(!got.len || (got.len >= least && got.at >= 5 && got.at <= n));
    for (size_t m = 0; m < n && m < 300; m++) {
        struct answer part = look(p, m, least);
        CHECK(part.len == (m < want.at ? 0 : want.len) && part.at == (m < want.at ? 0 : want.at));
    }
    return 0;
}
