#include "codec/globals.h"

#include <string.h>

static int is_text(const uint8_t *p, size_t n, const char *text)
{
    return n == strlen(text) && memcmp(p, text, n) == 0;
}

int mg_find_global(const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len)
{
    static const struct {
        const char *module, *name;
        int global;
    } permitted[] = {
        {"mitogen.core", "Kwargs", GLOBAL_KWARGS},
        {"mitogen.core", "_unpickle_call_error", GLOBAL_CALL_ERROR},
        {"mitogen.core", "CallError", GLOBAL_CALL_ERROR},
        {"mitogen.core", "_unpickle_context", GLOBAL_CONTEXT},
        {"mitogen.core", "_unpickle_sender", GLOBAL_SENDER},
        {"mitogen.core", "_unpickle_buffer", GLOBAL_BUFFER},
        {"mitogen.core", "Blob", GLOBAL_BLOB},
        {"mitogen.core", "Secret", GLOBAL_SECRET},
        {"_codecs", "encode", GLOBAL_ENCODE},
        {"__builtin__", "bytes", GLOBAL_BYTES},
    };
    for (size_t i = 0; i < sizeof permitted / sizeof permitted[0]; i++) {
        if (is_text(name, name_len, permitted[i].name) && is_text(module, module_len, permitted[i].module))
            return permitted[i].global;
    }
    return GLOBAL_NONE;
}

PyObject *mg_global_value(mg_codec *codec, int global)
{
    switch (global) {
    case GLOBAL_BLOB: return codec->Blob;
    case GLOBAL_SECRET: return codec->Secret;
    case GLOBAL_KWARGS: return codec->Kwargs;
    case GLOBAL_CALL_ERROR: return codec->unpickle_call_error;
    case GLOBAL_CONTEXT: return codec->unpickle_context;
    case GLOBAL_SENDER: return codec->unpickle_sender;
    case GLOBAL_BUFFER: return codec->unpickle_buffer;
    case GLOBAL_ENCODE: return codec->codecs_encode;
    default: return (PyObject *) &PyBytes_Type;
    }
}

const char *mg_global_text(int global, size_t *len)
{
#define TEXT(name) {"cmitogen.core\n" name "\n", sizeof("cmitogen.core\n" name "\n") - 1}
    static const struct {
        const char *text;
        size_t len;
    } texts[GLOBAL_WRITTEN] = {
        [GLOBAL_BLOB] = TEXT("Blob"),
        [GLOBAL_SECRET] = TEXT("Secret"),
        [GLOBAL_KWARGS] = TEXT("Kwargs"),
        [GLOBAL_CALL_ERROR] = TEXT("_unpickle_call_error"),
        [GLOBAL_CONTEXT] = TEXT("_unpickle_context"),
        [GLOBAL_SENDER] = TEXT("_unpickle_sender"),
        [GLOBAL_BUFFER] = TEXT("_unpickle_buffer"),
    };
#undef TEXT
    *len = texts[global].len;
    return texts[global].text;
}
