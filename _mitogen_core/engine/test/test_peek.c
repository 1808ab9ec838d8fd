#include "wire/peek.h"

#include <string.h>

#include "test/test.h"
#include "wire/opcode.h"

#define LEAST ((size_t) 100000)

/* A text in C with its length. */
#define TEXT(s) (const uint8_t *) (s), sizeof(s) - 1

/* Bytes that announce a long byte string of 0x30000 bytes, with either opcode. */
#define LONG_BINBYTES  "B\x00\x00\x03\x00"
#define LONG_BINSTRING "T\x00\x00\x03\x00"

static size_t at;

static size_t peek(const uint8_t *first, size_t n)
{
    at = 12345;
    return mg_peek_bytes(first, n, LEAST, &at);
}

static void a_long_byte_string_is_found_where_its_content_begins(void)
{
    CHECK(peek(TEXT("\x80\x02" LONG_BINBYTES)) == 0x30000 && at == 7);
    CHECK(peek(TEXT("\x80\x03" LONG_BINSTRING "the rest")) == 0x30000 && at == 7);
    CHECK(peek(TEXT(LONG_BINBYTES)) == 0x30000 && at == 5);
}

static void short_values_and_names_may_come_before_it(void)
{
    CHECK(peek(TEXT("\x80\x02(K\x01M\x01\x02J\x01\x02\x03\x04" LONG_BINBYTES)) == 0x30000 && at == 18);
    CHECK(peek(TEXT("\x80\x02"
                    "cmitogen.core\nBlob\n" LONG_BINBYTES)) == 0x30000 &&
          at == 26);
    CHECK(peek(TEXT("X\x03\x00\x00\x00"
                    "abcq\x01r\x00\x00\x01\x00h\x01" LONG_BINBYTES)) == 0x30000 &&
          at == 22);
    CHECK(peek(TEXT("C\x02xyU\x01z\x8c\x01w\x8a\x01\x05" LONG_BINBYTES)) == 0x30000 && at == 18);
    CHECK(peek(TEXT("G12345678N\x88\x89)]}t\x85\x86\x87Rsuae" LONG_BINBYTES)) == 0x30000 && at == 29);
    CHECK(peek(TEXT("B\x03\x00\x00\x00"
                    "abcT\x00\x00\x00\x00" LONG_BINBYTES)) == 0x30000 &&
          at == 18);
}

static void the_first_of_several_is_told(void)
{
    CHECK(peek(TEXT(LONG_BINSTRING LONG_BINBYTES)) == 0x30000 && at == 5);
}

static void one_that_is_shorter_than_asked_is_none(void)
{
    static const uint8_t exact[] = {OP_BINBYTES, 0xa0, 0x86, 0x01, 0x00},
                         less[] = {OP_BINBYTES, 0x9f, 0x86, 0x01, 0x00};
    CHECK(peek(exact, sizeof exact) == LEAST && at == 5);
    CHECK(peek(less, sizeof less) == 0 && at == 12345);
}

static void what_it_announces_need_not_be_there_nor_be_true(void)
{
    CHECK(peek(TEXT("B\xff\xff\xff\xff")) == 0xffffffffu && at == 5);
    CHECK(peek(TEXT("T\xff\xff\xff\x7f")) == 0x7fffffff && at == 5);
}

static void it_is_not_found_before_its_length_is_there(void)
{
    static const char text[] = "\x80\x02"
                               "cmitogen.core\nBlob\nq\x01(" LONG_BINBYTES;
    for (size_t n = 0; n < sizeof text - 1; n++)
        CHECK(peek((const uint8_t *) text, n) == 0 && at == 12345);
    CHECK(peek(TEXT(text)) == 0x30000 && at == sizeof text - 1);
}

static void an_argument_that_is_cut_short_ends_the_look(void)
{
    static const char *const cut[] = {"\x80",   "M\x01", "J\x01\x02\x03", "G1234567",    "X\x05",
                                      "U\x02x", "\x8c",  "cname",         "cname\nmore", "c"};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++)
        CHECK(peek((const uint8_t *) cut[i], strlen(cut[i])) == 0 && at == 12345);
    CHECK(peek(TEXT("X\xff\xff\xff\xff" LONG_BINBYTES)) == 0);
    CHECK(peek(TEXT("X\x00\x01")) == 0 && peek(TEXT("X\x05\x00\x00\x00"
                                                    "abcd")) == 0);
}

static void the_end_of_a_pickle_and_opcodes_of_others_end_the_look(void)
{
    static const char others[] = "F.01IlLPQSVbdgopi2";
    for (size_t i = 0; i < sizeof others; i++) { /* the zero at its end, too */
        uint8_t text[] = {(uint8_t) others[i], 0, 0, 0, 0, 0, 0, 0, 0, OP_BINBYTES, 0, 0, 3, 0};
        CHECK(peek(text, sizeof text) == 0 && at == 12345);
    }
    CHECK(peek(TEXT("." LONG_BINBYTES)) == 0);
    CHECK(peek(TEXT("\x95\x00\x00\x00\x00\x00\x00\x00\x00" LONG_BINBYTES)) == 0);
}

static void nothing_is_found_far_from_the_start(void)
{
    static uint8_t text[MG_PEEK_WITHIN + 100];
    memset(text, OP_NONE, sizeof text);
    memcpy(text + MG_PEEK_WITHIN - 5, LONG_BINBYTES, 5);
    CHECK(peek(text, sizeof text) == 0x30000 && at == MG_PEEK_WITHIN);
    text[MG_PEEK_WITHIN - 5] = OP_NONE;
    memcpy(text + MG_PEEK_WITHIN - 4, LONG_BINBYTES, 5);
    CHECK(peek(text, sizeof text) == 0);
}

int main(void)
{
    RUN(a_long_byte_string_is_found_where_its_content_begins);
    RUN(short_values_and_names_may_come_before_it);
    RUN(the_first_of_several_is_told);
    RUN(one_that_is_shorter_than_asked_is_none);
    RUN(what_it_announces_need_not_be_there_nor_be_true);
    RUN(it_is_not_found_before_its_length_is_there);
    RUN(an_argument_that_is_cut_short_ends_the_look);
    RUN(the_end_of_a_pickle_and_opcodes_of_others_end_the_look);
    RUN(nothing_is_found_far_from_the_start);
    return 0;
}
