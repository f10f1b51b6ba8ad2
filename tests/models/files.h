/* Building small files byte by byte, for the tests of the weight readers. */
#ifndef CRIA_TESTS_MODELS_FILES_H
#define CRIA_TESTS_MODELS_FILES_H

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Appends the low `bytes` bytes of `value`, little-endian. */
static inline void put(cria_text *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        char byte = (char)(value >> (8 * i));
        cria_text_append(out, &byte, 1);
    }
}

static inline void put_floats(cria_text *out, const float *values, size_t count) {
    cria_text_append(out, (const char *)values, count * sizeof *values);
}

/* Zero bytes up to a multiple. */
static inline void pad(cria_text *out, size_t multiple) {
    while (out->length % multiple) put(out, 0, 1);
}

/* A folder of its own for a test, and files in it. */
static inline void make_folder(char folder[64]) {
    snprintf(folder, 64, "/tmp/cria-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static inline void write_bytes(const char *folder, const char *name, const void *bytes, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void remove_file(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

/* Removes the files named and then the folder, which must be empty by then. */
static inline void remove_folder(const char *folder, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) remove_file(folder, names[i]);
    assert_int_equal(rmdir(folder), 0);
}

#endif
