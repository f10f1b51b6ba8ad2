/* What the readers of the weight formats share: the list of views they add to and a cursor over outside bytes.
 * For models/weights/ and its tests only. */
#ifndef CRIA_MODELS_WEIGHTS_READER_H
#define CRIA_MODELS_WEIGHTS_READER_H

#include "base/arena.h"
#include "base/checked.h"
#include "base/file.h"
#include "models/weights/names.h"
#include "models/weights/weights.h"

#include <string.h>

/* Names of more bytes than this are no tensor names. */
enum { CRIA_WEIGHT_NAME_LIMIT = 4096 };

struct cria_gguf;

typedef struct {
    const char *name; /* the last part of the path, for messages */
    cria_mapping mapping;
    bool owned; /* unmapped on close; false for bytes that a test brings */
} cria_weight_file;

struct cria_weights {
    const char *format;
    cria_arena *arena; /* names and file names */
    cria_weight_view *views;
    size_t count, capacity;
    cria_names names;
    cria_weight_file *files;
    size_t file_count, file_capacity;
    struct cria_gguf *gguf;
};

cria_status cria_weights_create(const char *format, cria_weights **out, cria_error *err);
/* Maps the file (or takes `bytes`, not owned, where they are not NULL) and returns its number. */
cria_status cria_weights_map(cria_weights *weights, const char *path, uint32_t *file, cria_error *err);
cria_status cria_weights_lend(cria_weights *weights, const char *name, const void *bytes, size_t size, uint32_t *file,
                              cria_error *err);
/* Adds a view of file view->file; its name is copied. Checks what holds in every format: a name that is not empty, no
 * NUL in it, at most four dims, none negative, bytes equal to what type and shape need, data inside the file, no second
 * tensor of that name. */
cria_status cria_weights_add(cria_weights *weights, const char *name, size_t name_length, const cria_weight_view *view,
                             cria_error *err);

/* The readers of one file that is already mapped as number `file`. */
cria_status cria_safetensors_read(cria_weights *weights, uint32_t file, cria_error *err);
cria_status cria_pytorch_read(cria_weights *weights, uint32_t file, cria_error *err);
/* One NPY file is one tensor, called `name`. */
cria_status cria_npy_read(cria_weights *weights, uint32_t file, const char *name, cria_error *err);
cria_status cria_gguf_read(cria_weights *weights, uint32_t file, cria_error *err);

/* "name" of a path without its folders. */
const char *cria_path_tail(const char *path);

/* A tensor's place in its file. */
typedef struct {
    uint64_t begin, end;
    const char *name;
} cria_extent;

/* Sorts by place; two that share a byte are CRIA_ERR_FORMAT that names both. Empty extents overlap nothing. */
cria_status cria_extents_check(const char *file, cria_extent *extents, size_t count, cria_error *err);

/* A cursor over bytes from outside. A read past the end gives zeros and sets `bad`, which is checked where it matters;
 * from then on every read fails, the empty one too, so that a loop over a count from outside ends. */
typedef struct {
    const uint8_t *data;
    size_t size, at;
    bool bad;
} cria_cursor;

static inline const uint8_t *cria_cursor_take(cria_cursor *cursor, uint64_t length) {
    if (cursor->bad || !cria_range_inside(cursor->at, length, cursor->size)) {
        cursor->bad = true;
        return NULL;
    }
    const uint8_t *p = cursor->data + cursor->at;
    cursor->at += (size_t)length;
    return p;
}

/* Little-endian unsigned integer of 1 to 8 bytes; also right on a big-endian machine. */
static inline uint64_t cria_cursor_uint(cria_cursor *cursor, int bytes) {
    const uint8_t *p = cria_cursor_take(cursor, (uint64_t)bytes);
    uint64_t value = 0;
    for (int i = 0; p && i < bytes; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

#endif
