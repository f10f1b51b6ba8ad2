/* Building GGUF files, for the tests of their reader and of the configuration in them. */
#ifndef CRIA_TESTS_MODELS_GGUF_FILE_H
#define CRIA_TESTS_MODELS_GGUF_FILE_H

#include "models/gguf.h"
#include "tests/models/files.h"

static inline void put_string(cria_text *out, const char *text) {
    put(out, strlen(text), 8);
    cria_text_puts(out, text);
}

static inline void put_key(cria_text *out, const char *key, cria_gguf_type type) {
    put_string(out, key);
    put(out, (uint64_t)type, 4);
}

static inline void put_header(cria_text *out, uint32_t version, uint64_t tensors, uint64_t keys) {
    cria_text_init(out);
    cria_text_puts(out, "GGUF");
    put(out, version, 4);
    put(out, tensors, 8);
    put(out, keys, 8);
}

/* `shape` in the file's order: fastest first. */
static inline void put_tensor(cria_text *out, const char *name, int dims, const uint64_t *shape, uint32_t type,
                              uint64_t offset) {
    put_string(out, name);
    put(out, (uint64_t)dims, 4);
    for (int d = 0; d < dims; d++) put(out, shape[d], 8);
    put(out, type, 4);
    put(out, offset, 8);
}

static inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint64_t bits_of_double(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#endif
