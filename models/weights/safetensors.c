/* safetensors: a JSON header of names, types, shapes and byte ranges, then the data (huggingface/safetensors). */
#include "base/json.h"
#include "models/weights/reader.h"

#include <stdlib.h>

/* The reference implementation's own limit. */
enum { HEADER_LIMIT = 100 * 1000 * 1000 };

typedef struct {
    cria_weights *weights;
    uint32_t file;
    const char *name; /* of the file */
    const uint8_t *data;
    size_t size; /* of the data */
    cria_extent *extents;
    size_t extent_count;
} safetensors_reader;

static bool type_of(const char *name, cria_type *out) {
    static const struct {
        const char *name;
        cria_type type;
    } types[] = {{"F32", CRIA_F32}, {"F16", CRIA_F16}, {"BF16", CRIA_BF16}, {"F64", CRIA_F64}, {"I8", CRIA_I8},
                 {"U8", CRIA_U8},   {"I16", CRIA_I16}, {"I32", CRIA_I32},   {"I64", CRIA_I64}, {"BOOL", CRIA_BOOL}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *out = types[i].type;
            return true;
        }
    }
    return false;
}

/* An array of at most `limit` integers that are not negative; -1 if it is anything else. */
static int read_sizes(const cria_json_value *array, int64_t *out, int limit) {
    int count = 0;
    if (cria_json_type_of(array) != CRIA_JSON_ARRAY) return -1;
    for (const cria_json_value *v = cria_json_first(array); v; v = cria_json_next(v)) {
        if (count == limit || cria_json_type_of(v) != CRIA_JSON_NUMBER || !cria_json_int(v, &out[count]) ||
            out[count] < 0) {
            return -1;
        }
        count++;
    }
    return count;
}

static cria_status read_tensor(safetensors_reader *reader, const char *name, const cria_json_value *entry,
                               cria_error *err) {
    const char *type_name = NULL;
    int64_t offsets[2];
    cria_weight_view view = {.file = reader->file};
    if (cria_json_type_of(entry) != CRIA_JSON_OBJECT ||
        cria_json_get_string(entry, "dtype", NULL, &type_name, NULL) != CRIA_OK || !type_name) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: has no dtype", reader->name, name);
    }
    if (!type_of(type_name, &view.type)) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: tensor %s: type %s is not supported", reader->name, name,
                         type_name);
    }
    view.dims = read_sizes(cria_json_get(entry, "shape"), view.shape, CRIA_WEIGHT_MAX_DIMS);
    if (view.dims < 0) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: its shape is not a list of at most %d sizes",
                         reader->name, name, CRIA_WEIGHT_MAX_DIMS);
    }
    if (read_sizes(cria_json_get(entry, "data_offsets"), offsets, 2) != 2 || offsets[0] > offsets[1]) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: tensor %s: data_offsets is not [begin, end]", reader->name, name);
    }
    if ((uint64_t)offsets[1] > reader->size) {
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "%s: tensor %s: ends at byte %lld of the data, which has %zu (truncated?)", reader->name, name,
                         (long long)offsets[1], reader->size);
    }
    view.data = reader->data + offsets[0];
    view.bytes = (size_t)(offsets[1] - offsets[0]);
    reader->extents[reader->extent_count++] = (cria_extent){(uint64_t)offsets[0], (uint64_t)offsets[1], name};
    return cria_weights_add(reader->weights, name, strlen(name), &view, err);
}

/* The format leaves no byte of the data without a tensor, so that nothing can hide there. */
static cria_status check_no_gaps(const safetensors_reader *reader, cria_error *err) {
    uint64_t at = 0;
    for (size_t i = 0; i < reader->extent_count; i++) {
        const cria_extent *extent = &reader->extents[i];
        if (extent->begin > at) {
            return cria_fail(err, CRIA_ERR_FORMAT, "%s: %llu bytes before tensor %s belong to none", reader->name,
                             (unsigned long long)(extent->begin - at), extent->name);
        }
        if (extent->end > at) at = extent->end;
    }
    if (at == reader->size) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "%s: the last %llu bytes belong to no tensor", reader->name,
                     (unsigned long long)(reader->size - at));
}

static cria_status read_entries(safetensors_reader *reader, const cria_json_value *root, cria_error *err) {
    for (const cria_json_value *v = cria_json_first(root); v; v = cria_json_next(v)) {
        const char *name = cria_json_key(v);
        if (strcmp(name, "__metadata__") == 0) continue;
        CRIA_TRY(read_tensor(reader, name, v, err));
    }
    CRIA_TRY(cria_extents_check(reader->name, reader->extents, reader->extent_count, err));
    return check_no_gaps(reader, err);
}

cria_status cria_safetensors_read(cria_weights *weights, uint32_t file, cria_error *err) {
    const cria_mapping *mapping = &weights->files[file].mapping;
    const char *name = weights->files[file].name;
    cria_cursor cursor = {mapping->data, mapping->size, 0, false};
    uint64_t header = cria_cursor_uint(&cursor, 8);
    if (cursor.bad || header > HEADER_LIMIT || !cria_range_inside(8, header, mapping->size)) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: a header of %llu bytes does not fit a file of %zu (truncated?)",
                         name, (unsigned long long)header, mapping->size);
    }
    cria_json *json = NULL;
    cria_status status = cria_json_parse((const char *)mapping->data + 8, (size_t)header, &json, err);
    if (status != CRIA_OK) {
        cria_fail_within(err, name);
        return status;
    }
    const cria_json_value *root = cria_json_root(json);
    safetensors_reader reader = {weights, file, name, mapping->data + 8 + header, mapping->size - 8 - (size_t)header,
                                 NULL,    0};
    size_t count = cria_json_size(root);
    reader.extents = calloc(count + 1, sizeof *reader.extents);
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT) {
        status = cria_fail(err, CRIA_ERR_FORMAT, "%s: its header is not a JSON object", name);
    } else if (!reader.extents) {
        status = cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory for %zu tensors", name, count);
    } else {
        status = read_entries(&reader, root, err);
    }
    free(reader.extents);
    cria_json_destroy(json);
    return status;
}
