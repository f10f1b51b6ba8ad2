/* Building zip archives of stored entries, for the tests of the PyTorch reader. */
#ifndef CRIA_TESTS_MODELS_ZIP_FILE_H
#define CRIA_TESTS_MODELS_ZIP_FILE_H

#include "tests/models/files.h"

typedef struct {
    const char *name;
    const void *data;
    size_t size;
    size_t offset; /* of the local header; filled in */
} zip_item;

typedef struct {
    bool zip64; /* sizes, offsets and counts in their 64-bit places */
    int method; /* of every entry */
    int flags;
    const char *comment;
} zip_options;

static inline void put_zip_entry(cria_text *out, zip_item *item, zip_options options) {
    item->offset = out->length;
    put(out, 0x04034b50, 4), put(out, 45, 2), put(out, options.flags, 2), put(out, options.method, 2), put(out, 0, 8);
    put(out, item->size, 4), put(out, item->size, 4), put(out, strlen(item->name), 2), put(out, 6, 2);
    cria_text_puts(out, item->name);
    put(out, 0x4246, 2), put(out, 2, 2), put(out, 0, 2); /* torch's padding field */
    cria_text_append(out, item->data, item->size);
}

static inline void put_zip_directory_entry(cria_text *out, const zip_item *item, zip_options options) {
    uint64_t hidden = options.zip64 ? 0xffffffff : 0;
    put(out, 0x02014b50, 4), put(out, 45, 2), put(out, 45, 2), put(out, options.flags, 2), put(out, options.method, 2);
    put(out, 0, 8), put(out, hidden | item->size, 4), put(out, hidden | item->size, 4);
    put(out, strlen(item->name), 2), put(out, options.zip64 ? 28 : 0, 2), put(out, 0, 2), put(out, 0, 8);
    put(out, hidden | item->offset, 4);
    cria_text_puts(out, item->name);
    if (!options.zip64) return;
    put(out, 1, 2), put(out, 24, 2), put(out, item->size, 8), put(out, item->size, 8), put(out, item->offset, 8);
}

static inline cria_text zip_of(zip_item *items, size_t count, zip_options options) {
    cria_text out;
    cria_text_init(&out);
    for (size_t i = 0; i < count; i++) put_zip_entry(&out, &items[i], options);
    size_t directory = out.length;
    for (size_t i = 0; i < count; i++) put_zip_directory_entry(&out, &items[i], options);
    size_t size = out.length - directory, end64 = out.length;
    if (options.zip64) {
        put(&out, 0x06064b50, 4), put(&out, 44, 8), put(&out, 45, 2), put(&out, 45, 2), put(&out, 0, 8);
        put(&out, count, 8), put(&out, count, 8), put(&out, size, 8), put(&out, directory, 8);
        put(&out, 0x07064b50, 4), put(&out, 0, 4), put(&out, end64, 8), put(&out, 1, 4);
    }
    const char *comment = options.comment ? options.comment : "";
    put(&out, 0x06054b50, 4), put(&out, 0, 4);
    put(&out, options.zip64 ? 0xffff : count, 2), put(&out, options.zip64 ? 0xffff : count, 2);
    put(&out, options.zip64 ? 0xffffffff : size, 4), put(&out, options.zip64 ? 0xffffffff : directory, 4);
    put(&out, strlen(comment), 2);
    cria_text_puts(&out, comment);
    return out;
}

#endif
