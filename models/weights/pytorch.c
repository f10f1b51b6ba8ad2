/* PyTorch's .bin: a zip archive of one pickle that describes tensors and one stored entry per storage (torch >= 1.6).
 */
#include "models/weights/pickle.h"
#include "models/weights/reader.h"
#include "models/weights/zip.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PICKLE_LIMIT = 256 << 20, /* a pickle holds names and shapes only; those of the largest models take 1 MB */
    ENTRY_NAME_BYTES = 512,
    SHOWN = 120 /* bytes of a tensor's name in a message */
};
#define PICKLE_ARENA_LIMIT ((size_t)2 << 30)

typedef struct {
    cria_weights *weights;
    uint32_t file;
    const char *name; /* of the file */
    const cria_zip *zip;
    const char *root; /* the folder inside the archive */
    size_t root_length;
} pytorch_reader;

/* The entry root/rest. NULL if there is none. */
static const cria_zip_entry *find_entry(const pytorch_reader *r, const char *rest, size_t rest_length) {
    char name[ENTRY_NAME_BYTES];
    if (r->root_length + rest_length > sizeof name) return NULL;
    memcpy(name, r->root, r->root_length);
    memcpy(name + r->root_length, rest, rest_length);
    return cria_zip_find(r->zip, name, r->root_length + rest_length);
}

static const cria_zip_entry *find_storage(const pytorch_reader *r, cria_pickle_text key) {
    char rest[ENTRY_NAME_BYTES];
    if (key.length > sizeof rest - 5) return NULL;
    memcpy(rest, "data/", 5);
    memcpy(rest + 5, key.bytes, key.length);
    return find_entry(r, rest, key.length + 5);
}

/* Row-major without gaps; the stride of a dim of one element means nothing. */
static bool is_dense(const cria_pickle_tensor *t, size_t elements) {
    int64_t expected = 1;
    for (int d = t->dims; elements && d-- > 0;) {
        if (t->shape[d] != 1 && t->strides[d] != expected) return false;
        expected *= t->shape[d];
    }
    return true;
}

static cria_status add_tensor(const pytorch_reader *r, cria_pickle_text name, const cria_pickle_tensor *t,
                              cria_error *err) {
    const cria_pickle_storage *storage = t->storage;
    int shown = name.length < SHOWN ? (int)name.length : SHOWN;
    if (t->dims > CRIA_WEIGHT_MAX_DIMS) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: tensor %.*s: has %d dims, more than %d", r->name, shown,
                         name.bytes, t->dims, CRIA_WEIGHT_MAX_DIMS);
    }
    size_t elements = 1, size = cria_type_bytes(storage->type, 1);
    bool fits = true;
    for (int d = 0; d < t->dims; d++) fits = fits && cria_mul_size(elements, (size_t)t->shape[d], &elements);
    fits = fits && cria_range_inside((uint64_t)t->offset, elements, (uint64_t)storage->elements);
    if (!fits) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %.*s: reaches beyond its storage of %" PRId64 " elements",
                         r->name, shown, name.bytes, storage->elements);
    }
    if (!is_dense(t, elements)) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED,
                         "%s: tensor %.*s: is not contiguous, which is not supported (save tensor.contiguous())",
                         r->name, shown, name.bytes);
    }
    const cria_zip_entry *entry = find_storage(r, storage->key);
    if (!entry) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %.*s: its storage %.*s is not in the archive", r->name,
                         shown, name.bytes, storage->key.length < SHOWN ? (int)storage->key.length : SHOWN,
                         storage->key.bytes);
    }
    size_t bytes;
    if (!cria_mul_size((size_t)storage->elements, size, &bytes) || bytes != entry->size) {
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "%s: tensor %.*s: its storage has %zu bytes, not %" PRId64 " elements of %s", r->name, shown,
                         name.bytes, entry->size, storage->elements, cria_type_name(storage->type));
    }
    cria_weight_view view = {.type = storage->type,
                             .dims = t->dims,
                             .data = entry->data + (size_t)t->offset * size,
                             .bytes = elements * size,
                             .file = r->file};
    memcpy(view.shape, t->shape, sizeof view.shape);
    return cria_weights_add(r->weights, name.bytes, name.length, &view, err);
}

static cria_status read_state_dict(const pytorch_reader *r, const cria_zip_entry *pickle, cria_arena *arena,
                                   cria_error *err) {
    const cria_pickle_value *dict;
    CRIA_TRY(cria_pickle_load(r->name, pickle->data, pickle->size, arena, &dict, err));
    if (dict->kind != CRIA_PICKLE_DICT) return cria_fail(err, CRIA_ERR_FORMAT, "%s: holds no state dict", r->name);
    const cria_pickle_items *items = &dict->as.items;
    for (size_t i = 0; i + 1 < items->count; i += 2) {
        const cria_pickle_value *key = items->items[i], *value = items->items[i + 1];
        if (key->kind == CRIA_PICKLE_TEXT && value->kind == CRIA_PICKLE_TENSOR) {
            CRIA_TRY(add_tensor(r, key->as.text, value->as.tensor, err));
            continue;
        }
        bool named = key->kind == CRIA_PICKLE_TEXT;
        int shown = !named ? 0 : key->as.text.length < SHOWN ? (int)key->as.text.length : SHOWN;
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: its state dict has \"%.*s\", which is no tensor", r->name,
                         shown, named ? key->as.text.bytes : "");
    }
    return CRIA_OK;
}

/* The archive has one folder, whose name torch takes from the file's; data.pkl tells it. */
static const cria_zip_entry *find_root(pytorch_reader *r) {
    static const char tail[] = "data.pkl";
    const size_t n = sizeof tail - 1;
    for (size_t i = 0; i < r->zip->count; i++) {
        const cria_zip_entry *entry = &r->zip->entries[i];
        if (entry->name_length < n || memcmp(entry->name + entry->name_length - n, tail, n) != 0) continue;
        if (entry->name_length > n && entry->name[entry->name_length - n - 1] != '/') continue;
        r->root = entry->name;
        r->root_length = entry->name_length - n;
        return entry;
    }
    return NULL;
}

static cria_status read_archive(pytorch_reader *r, cria_error *err) {
    const cria_zip_entry *pickle = find_root(r);
    if (!pickle) return cria_fail(err, CRIA_ERR_FORMAT, "%s: has no data.pkl", r->name);
    const cria_zip_entry *order = find_entry(r, "byteorder", 9);
    if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0)) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: its byteorder is not little", r->name);
    }
    if (pickle->size > PICKLE_LIMIT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: its data.pkl has %zu bytes, over the limit of %d", r->name,
                         pickle->size, PICKLE_LIMIT);
    }
    cria_arena *arena = cria_arena_create(64 << 10, PICKLE_ARENA_LIMIT);
    if (!arena) return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory", r->name);
    cria_status status = read_state_dict(r, pickle, arena, err);
    cria_arena_destroy(arena);
    return status;
}

cria_status cria_pytorch_read(cria_weights *weights, uint32_t file, cria_error *err) {
    const cria_weight_file *source = &weights->files[file];
    const cria_mapping *mapping = &source->mapping;
    if (mapping->size >= 2 && mapping->data[0] == 0x80) {
        return cria_fail(
            err, CRIA_ERR_UNSUPPORTED,
            "%s: is of the format of torch before 1.6, which is not supported; load and save it with a newer one",
            source->name);
    }
    cria_zip zip;
    CRIA_TRY(cria_zip_open(source->name, mapping->data, mapping->size, &zip, err));
    pytorch_reader reader = {.weights = weights, .file = file, .name = source->name, .zip = &zip};
    cria_status status = read_archive(&reader, err);
    cria_zip_deinit(&zip);
    return status;
}
