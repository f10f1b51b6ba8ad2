/* The list of views behind cria_weights: files, names, and the checks that hold in every format. */
#include "models/weights/weights.h"

#include "models/gguf.h"
#include "models/weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>

enum { ARENA_BLOCK = 64 << 10, MAX_FILES = 1 << 20 };

const char *cria_path_tail(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

cria_status cria_weights_create(const char *format, cria_weights **out, cria_error *err) {
    *out = NULL;
    cria_weights *weights = calloc(1, sizeof *weights);
    cria_arena *arena = cria_arena_create(ARENA_BLOCK, 0);
    if (!weights || !arena) {
        free(weights);
        cria_arena_destroy(arena);
        return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for the list of weights");
    }
    weights->format = format;
    weights->arena = arena;
    *out = weights;
    return CRIA_OK;
}

void cria_weights_close(cria_weights *weights) {
    if (!weights) return;
    for (size_t i = 0; i < weights->file_count; i++) {
        if (weights->files[i].owned) cria_mapping_close(&weights->files[i].mapping);
    }
    cria_gguf_destroy(weights->gguf);
    cria_names_deinit(&weights->names);
    cria_arena_destroy(weights->arena);
    free(weights->files);
    free(weights->views);
    free(weights);
}

/* Makes room for one more of `size` bytes in a growing array; false when memory is out. */
static bool reserve(void **items, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return true;
    size_t wanted = *capacity ? *capacity * 2 : 16, bytes;
    if (!cria_mul_size(wanted, size, &bytes)) return false;
    void *moved = realloc(*items, bytes);
    if (!moved) return false;
    *items = moved;
    *capacity = wanted;
    return true;
}

static cria_status add_file(cria_weights *weights, const char *path, cria_mapping mapping, bool owned, uint32_t *file,
                            cria_error *err) {
    const char *tail = cria_path_tail(path);
    const char *name = cria_arena_copy(weights->arena, tail, strlen(tail));
    if (weights->file_count >= MAX_FILES || !name ||
        !reserve((void **)&weights->files, weights->file_count, &weights->file_capacity, sizeof *weights->files)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for the list of weight files");
    }
    *file = (uint32_t)weights->file_count;
    weights->files[weights->file_count++] = (cria_weight_file){name, mapping, owned};
    return CRIA_OK;
}

cria_status cria_weights_map(cria_weights *weights, const char *path, uint32_t *file, cria_error *err) {
    cria_mapping mapping;
    CRIA_TRY(cria_mapping_open(path, &mapping, err));
    cria_status status = add_file(weights, path, mapping, true, file, err);
    if (status != CRIA_OK) cria_mapping_close(&mapping);
    return status;
}

cria_status cria_weights_lend(cria_weights *weights, const char *name, const void *bytes, size_t size, uint32_t *file,
                              cria_error *err) {
    return add_file(weights, name, (cria_mapping){bytes, size}, false, file, err);
}

/* The bytes that type and shape need; false where they overflow or a row of a block type is not whole blocks. */
static bool bytes_of(const cria_weight_view *view, size_t *bytes) {
    size_t elements = 1;
    for (int d = 0; d < view->dims; d++) {
        if (view->shape[d] < 0 || !cria_mul_size(elements, (size_t)view->shape[d], &elements)) return false;
    }
    if (cria_type_is_block(view->type) && (view->dims == 0 || view->shape[view->dims - 1] % CRIA_GROUP != 0)) {
        return false;
    }
    *bytes = cria_type_bytes(view->type, elements);
    return *bytes > 0 || elements == 0;
}

cria_status cria_weights_add(cria_weights *weights, const char *name, size_t name_length, const cria_weight_view *view,
                             cria_error *err) {
    const cria_weight_file *file = &weights->files[view->file];
    if (name_length == 0 || name_length > CRIA_WEIGHT_NAME_LIMIT || memchr(name, 0, name_length)) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: a tensor's name is empty, too long or holds NUL", file->name);
    }
    char *copy = cria_arena_copy(weights->arena, name, name_length);
    if (!copy) return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for the names of the weights");
    size_t needed;
    if (view->dims < 0 || view->dims > CRIA_WEIGHT_MAX_DIMS || !bytes_of(view, &needed) || needed != view->bytes) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: its %zu bytes do not fit its shape and type %s",
                         file->name, copy, view->bytes, cria_type_name(view->type));
    }
    uintptr_t begin = (uintptr_t)file->mapping.data, at = (uintptr_t)view->data;
    if (view->bytes && (at < begin || !cria_range_inside(at - begin, view->bytes, file->mapping.size))) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: lies outside the file", file->name, copy);
    }
    if (weights->count >= UINT32_MAX ||
        !reserve((void **)&weights->views, weights->count, &weights->capacity, sizeof *weights->views)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for the list of weights");
    }
    cria_names_result result = cria_names_add(&weights->names, copy, name_length, (uint32_t)weights->count);
    if (result == CRIA_NAMES_TWICE) {
        const cria_weight_view *first = cria_weights_find(weights, copy);
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: stands already in %s", file->name, copy,
                         weights->files[first->file].name);
    }
    if (result != CRIA_NAMES_ADDED) return cria_fail(err, CRIA_ERR_MEMORY, "out of memory for the list of weights");
    cria_weight_view *added = &weights->views[weights->count++];
    *added = *view;
    added->name = copy;
    return CRIA_OK;
}

size_t cria_weights_count(const cria_weights *weights) {
    return weights->count;
}

const cria_weight_view *cria_weights_at(const cria_weights *weights, size_t index) {
    return &weights->views[index];
}

const cria_weight_view *cria_weights_find(const cria_weights *weights, const char *name) {
    uint32_t index;
    return cria_names_find(&weights->names, name, strlen(name), &index) ? &weights->views[index] : NULL;
}

void cria_weights_drop(const cria_weights *weights, const cria_weight_view *view) {
    const cria_weight_file *file = &weights->files[view->file];
    if (!file->owned || !view->bytes) return;
    cria_mapping_drop(&file->mapping, (size_t)((const uint8_t *)view->data - file->mapping.data), view->bytes);
}

const char *cria_weights_format(const cria_weights *weights) {
    return weights->format;
}

const struct cria_gguf *cria_weights_gguf(const cria_weights *weights) {
    return weights->gguf;
}

static int by_place(const void *a, const void *b) {
    const cria_extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

cria_status cria_extents_check(const char *file, cria_extent *extents, size_t count, cria_error *err) {
    if (count) qsort(extents, count, sizeof *extents, by_place);
    const cria_extent *last = NULL; /* the last one that is not empty; an empty one never hides it */
    for (size_t i = 0; i < count; i++) {
        if (extents[i].begin == extents[i].end) continue;
        if (last && extents[i].begin < last->end) {
            return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: overlaps tensor %s", file, extents[i].name,
                             last->name);
        }
        last = &extents[i];
    }
    return CRIA_OK;
}
