/* Parsing GGUF versions 2 and 3: header, metadata, tensor directory (ggml's docs/gguf.md). */
#include "models/gguf.h"

#include "models/weights/gguf_internal.h"
#include "models/weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    ARENA_BLOCK = 64 << 10,
    KEY_LIMIT = 65535,
    DEFAULT_ALIGNMENT = 32,
    NESTING_LIMIT = 4,
    ENTRY_LEAST = 8 + 4 + 1,     /* bytes of the smallest metadata entry: key length, type, one byte */
    TENSOR_LEAST = 8 + 4 + 4 + 8 /* and of a tensor entry: name length, dims, type, offset */
};

typedef struct {
    cria_gguf *gguf;
    cria_cursor cursor;
    cria_error *err;
} gguf_parser;

static cria_status truncated(gguf_parser *p, const char *what) {
    return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: ends inside %s (truncated?)", p->gguf->name, what);
}

static cria_status no_memory(gguf_parser *p) {
    return cria_fail(p->err, CRIA_ERR_MEMORY, "%s: out of memory for its directory", p->gguf->name);
}

/* A string's bytes in the file; false (cursor.bad) where it passes the end. */
static bool take_string(cria_cursor *cursor, const char **out, size_t *length) {
    uint64_t n = cria_cursor_uint(cursor, 8);
    const uint8_t *bytes = cria_cursor_take(cursor, n);
    *out = (const char *)bytes;
    *length = bytes ? (size_t)n : 0;
    return bytes != NULL;
}

/* A key or a tensor's name, copied; what must not be empty nor hold NUL. */
static cria_status take_name(gguf_parser *p, const char *what, const char **out) {
    const char *bytes;
    size_t length;
    if (!take_string(&p->cursor, &bytes, &length)) return truncated(p, what);
    if (length == 0 || length > KEY_LIMIT || memchr(bytes, 0, length)) {
        return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: %s is empty, too long or holds NUL", p->gguf->name, what);
    }
    *out = cria_arena_copy(p->gguf->arena, bytes, length);
    return *out ? CRIA_OK : no_memory(p);
}

static int scalar_bytes(uint32_t type) {
    static const int8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static cria_status bad_type(gguf_parser *p, const char *key, uint32_t type) {
    return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: key %s: has the unknown value type %" PRIu32, p->gguf->name, key,
                     type);
}

static cria_status parse_strings(gguf_parser *p, cria_gguf_entry *entry, uint64_t count) {
    const char **strings = cria_arena_alloc_array(p->gguf->arena, (size_t)count + 1, sizeof *strings);
    size_t *lengths = cria_arena_alloc_array(p->gguf->arena, (size_t)count + 1, sizeof *lengths);
    if (!strings || !lengths) return no_memory(p);
    for (uint64_t i = 0; i < count; i++) {
        if (!take_string(&p->cursor, &strings[i], &lengths[i])) return truncated(p, entry->key);
    }
    entry->strings = strings;
    entry->lengths = lengths;
    return CRIA_OK;
}

/* An array of arrays is well-formed but has no reader: it is only stepped over. */
static cria_status skip_array(gguf_parser *p, const char *key, int depth) {
    uint32_t element = (uint32_t)cria_cursor_uint(&p->cursor, 4);
    uint64_t count = cria_cursor_uint(&p->cursor, 8);
    if (p->cursor.bad) return truncated(p, key);
    size_t left = p->cursor.size - p->cursor.at, width = (size_t)scalar_bytes(element);
    if (depth > NESTING_LIMIT) {
        return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: key %s: arrays nest too deep", p->gguf->name, key);
    }
    if (width) {
        if (count > left / width) return truncated(p, key);
        cria_cursor_take(&p->cursor, count * width);
        return CRIA_OK;
    }
    if (element != CRIA_GGUF_STRING && element != CRIA_GGUF_ARRAY) return bad_type(p, key, element);
    for (uint64_t i = 0; i < count; i++) {
        const char *bytes;
        size_t length;
        if (element == CRIA_GGUF_ARRAY)
            CRIA_TRY(skip_array(p, key, depth + 1));
        else if (!take_string(&p->cursor, &bytes, &length))
            return truncated(p, key);
    }
    return CRIA_OK;
}

static cria_status parse_array(gguf_parser *p, cria_gguf_entry *entry) {
    cria_cursor start = p->cursor;
    uint32_t element = (uint32_t)cria_cursor_uint(&p->cursor, 4);
    uint64_t count = cria_cursor_uint(&p->cursor, 8);
    if (p->cursor.bad) return truncated(p, entry->key);
    /* Each element takes at least this many bytes, which bounds what is allocated for a count from outside. */
    size_t least = element == CRIA_GGUF_STRING ? 8 : element == CRIA_GGUF_ARRAY ? 12 : (size_t)scalar_bytes(element);
    if (!least) return bad_type(p, entry->key, element);
    if (count > (p->cursor.size - p->cursor.at) / least) return truncated(p, entry->key);
    entry->element = (cria_gguf_type)element;
    entry->count = (size_t)count;
    if (element == CRIA_GGUF_STRING) return parse_strings(p, entry, count);
    if (element == CRIA_GGUF_ARRAY) {
        p->cursor = start;
        return skip_array(p, entry->key, 0);
    }
    const uint8_t *bytes = cria_cursor_take(&p->cursor, count * least);
    if (least != 4) return CRIA_OK; /* only i32, u32 and f32 have a reader */
    uint8_t *values = cria_arena_alloc(p->gguf->arena, (size_t)count * least + 1);
    if (!values) return no_memory(p);
    if (count) memcpy(values, bytes, (size_t)count * least);
    entry->values = values;
    return CRIA_OK;
}

static cria_status parse_value(gguf_parser *p, cria_gguf_entry *entry) {
    int width = scalar_bytes((uint32_t)entry->type);
    if (width) {
        entry->bits = cria_cursor_uint(&p->cursor, width);
        return p->cursor.bad ? truncated(p, entry->key) : CRIA_OK;
    }
    if (entry->type == CRIA_GGUF_ARRAY) return parse_array(p, entry);
    if (entry->type != CRIA_GGUF_STRING) return bad_type(p, entry->key, (uint32_t)entry->type);
    const char *bytes;
    if (!take_string(&p->cursor, &bytes, &entry->count)) return truncated(p, entry->key);
    entry->text = cria_arena_copy(p->gguf->arena, bytes, entry->count);
    return entry->text ? CRIA_OK : no_memory(p);
}

static cria_status parse_metadata(gguf_parser *p) {
    cria_gguf *gguf = p->gguf;
    for (size_t i = 0; i < gguf->entry_count; i++) {
        cria_gguf_entry *entry = &gguf->entries[i];
        CRIA_TRY(take_name(p, "a metadata key", &entry->key));
        entry->type = (cria_gguf_type)cria_cursor_uint(&p->cursor, 4);
        if (p->cursor.bad) return truncated(p, entry->key);
        CRIA_TRY(parse_value(p, entry));
        switch (cria_names_add(&gguf->entry_names, entry->key, strlen(entry->key), (uint32_t)i)) {
        case CRIA_NAMES_ADDED:
            break;
        case CRIA_NAMES_TWICE:
            return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: key %s: stands twice", gguf->name, entry->key);
        case CRIA_NAMES_NO_MEMORY:
            return no_memory(p);
        }
    }
    return CRIA_OK;
}

/* ggml's tensor types; -1 in `type` for those that are named but not read. */
static cria_status tensor_type(gguf_parser *p, const char *tensor, uint32_t number, cria_type *out) {
    static const struct {
        const char *name;
        int type;
    } types[] = {
        [0] = {"F32", CRIA_F32},    [1] = {"F16", CRIA_F16},  [2] = {"Q4_0", CRIA_Q4_0}, [3] = {"Q4_1", CRIA_Q4_1},
        [6] = {"Q5_0", -1},         [7] = {"Q5_1", -1},       [8] = {"Q8_0", CRIA_Q8_0}, [9] = {"Q8_1", -1},
        [10] = {"Q2_K", -1},        [11] = {"Q3_K", -1},      [12] = {"Q4_K", -1},       [13] = {"Q5_K", -1},
        [14] = {"Q6_K", -1},        [15] = {"Q8_K", -1},      [16] = {"IQ2_XXS", -1},    [17] = {"IQ2_XS", -1},
        [18] = {"IQ3_XXS", -1},     [19] = {"IQ1_S", -1},     [20] = {"IQ4_NL", -1},     [21] = {"IQ3_S", -1},
        [22] = {"IQ2_S", -1},       [23] = {"IQ4_XS", -1},    [24] = {"I8", CRIA_I8},    [25] = {"I16", CRIA_I16},
        [26] = {"I32", CRIA_I32},   [27] = {"I64", CRIA_I64}, [28] = {"F64", CRIA_F64},  [29] = {"IQ1_M", -1},
        [30] = {"BF16", CRIA_BF16}, [34] = {"TQ1_0", -1},     [35] = {"TQ2_0", -1},      [39] = {"MXFP4", -1},
    };
    const char *name = number < sizeof types / sizeof *types ? types[number].name : NULL;
    if (name && types[number].type >= 0) {
        *out = (cria_type)types[number].type;
        return CRIA_OK;
    }
    if (name) {
        return cria_fail(p->err, CRIA_ERR_UNSUPPORTED, "%s: tensor %s: type %s is not supported", p->gguf->name, tensor,
                         name);
    }
    return cria_fail(p->err, CRIA_ERR_UNSUPPORTED, "%s: tensor %s: type number %" PRIu32 " is not known", p->gguf->name,
                     tensor, number);
}

/* Reads one directory entry; `data` stays empty and `offset` counts from the start of the data, which is not known yet.
 */
static cria_status parse_tensor(gguf_parser *p, cria_gguf_tensor *tensor, uint64_t *offset) {
    CRIA_TRY(take_name(p, "a tensor's name", &tensor->name));
    uint64_t dims = cria_cursor_uint(&p->cursor, 4);
    if (p->cursor.bad) return truncated(p, tensor->name);
    if (dims > CRIA_WEIGHT_MAX_DIMS) {
        return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: has %" PRIu64 " dims, more than %d", p->gguf->name,
                         tensor->name, dims, CRIA_WEIGHT_MAX_DIMS);
    }
    tensor->dims = (int)dims;
    size_t elements = 1;
    for (int d = 0; d < tensor->dims; d++) {
        uint64_t extent = cria_cursor_uint(&p->cursor, 8);
        tensor->shape[tensor->dims - 1 - d] = (int64_t)extent; /* the file names the fastest dim first */
        if (extent > INT64_MAX || !cria_mul_size(elements, extent, &elements)) {
            return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: its shape overflows", p->gguf->name,
                             tensor->name);
        }
    }
    uint32_t type = (uint32_t)cria_cursor_uint(&p->cursor, 4);
    *offset = cria_cursor_uint(&p->cursor, 8);
    if (p->cursor.bad) return truncated(p, tensor->name);
    CRIA_TRY(tensor_type(p, tensor->name, type, &tensor->type));
    tensor->bytes = cria_type_bytes(tensor->type, elements);
    bool ragged =
        cria_type_is_block(tensor->type) && (tensor->dims == 0 || tensor->shape[tensor->dims - 1] % CRIA_GROUP != 0);
    if (ragged || (tensor->bytes == 0 && elements > 0)) {
        return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: its shape does not fit type %s", p->gguf->name,
                         tensor->name, cria_type_name(tensor->type));
    }
    return CRIA_OK;
}

/* Checks and resolves the offsets once the directory has ended and the data is known to start at `begin`. */
static cria_status place_tensors(gguf_parser *p, const uint64_t *offsets, cria_extent *extents, size_t begin,
                                 uint64_t alignment) {
    cria_gguf *gguf = p->gguf;
    for (size_t i = 0; i < gguf->tensor_count; i++) {
        cria_gguf_tensor *tensor = &gguf->tensors[i];
        if (offsets[i] % alignment != 0) {
            return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: offset %" PRIu64 " is not aligned to %" PRIu64,
                             gguf->name, tensor->name, offsets[i], alignment);
        }
        if (begin > p->cursor.size || !cria_range_inside(offsets[i], tensor->bytes, p->cursor.size - begin)) {
            return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: lies outside the file (truncated?)", gguf->name,
                             tensor->name);
        }
        tensor->data = p->cursor.data + begin + offsets[i];
        extents[i] = (cria_extent){offsets[i], offsets[i] + tensor->bytes, tensor->name};
    }
    return cria_extents_check(gguf->name, extents, gguf->tensor_count, p->err);
}

static cria_status parse_tensors(gguf_parser *p) {
    cria_gguf *gguf = p->gguf;
    uint64_t *offsets = calloc(gguf->tensor_count + 1, sizeof *offsets);
    cria_extent *extents = calloc(gguf->tensor_count + 1, sizeof *extents);
    cria_status status = offsets && extents ? CRIA_OK : no_memory(p);
    for (size_t i = 0; status == CRIA_OK && i < gguf->tensor_count; i++) {
        cria_gguf_tensor *tensor = &gguf->tensors[i];
        status = parse_tensor(p, tensor, &offsets[i]);
        if (status != CRIA_OK) break;
        cria_names_result added = cria_names_add(&gguf->tensor_names, tensor->name, strlen(tensor->name), (uint32_t)i);
        if (added == CRIA_NAMES_NO_MEMORY) status = no_memory(p);
        if (added == CRIA_NAMES_TWICE) {
            status = cria_fail(p->err, CRIA_ERR_FORMAT, "%s: tensor %s: stands twice", gguf->name, tensor->name);
        }
    }
    int64_t alignment = DEFAULT_ALIGNMENT, splits = 1;
    if (status == CRIA_OK) {
        status = cria_gguf_get_int(gguf, "general.alignment", DEFAULT_ALIGNMENT, 1, 1 << 20, &alignment, p->err);
    }
    if (status == CRIA_OK && (alignment & (alignment - 1)) != 0) {
        status = cria_fail(p->err, CRIA_ERR_FORMAT, "%s: general.alignment is %" PRId64 ", not a power of two",
                           gguf->name, alignment);
    }
    if (status == CRIA_OK) status = cria_gguf_get_int(gguf, "split.count", 1, 0, 65535, &splits, p->err);
    if (status == CRIA_OK && splits > 1) {
        status = cria_fail(p->err, CRIA_ERR_UNSUPPORTED,
                           "%s: split.count is %" PRId64 ": split files are not supported", gguf->name, splits);
    }
    if (status == CRIA_OK) {
        size_t begin = cria_round_up(p->cursor.at, (size_t)alignment);
        status = place_tensors(p, offsets, extents, begin, (uint64_t)alignment);
    }
    free(offsets);
    free(extents);
    return status;
}

static cria_status parse_header(gguf_parser *p) {
    cria_gguf *gguf = p->gguf;
    const uint8_t *magic = cria_cursor_take(&p->cursor, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        return cria_fail(p->err, CRIA_ERR_FORMAT, "%s: does not begin with GGUF", gguf->name);
    }
    uint32_t version = (uint32_t)cria_cursor_uint(&p->cursor, 4);
    if (version != 2 && version != 3) {
        bool swapped = version == 2u << 24 || version == 3u << 24;
        return cria_fail(p->err, CRIA_ERR_UNSUPPORTED, "%s: GGUF version %" PRIu32 "%s is not supported (2 and 3 are)",
                         gguf->name, swapped ? version >> 24 : version, swapped ? " in big-endian order" : "");
    }
    uint64_t tensors = cria_cursor_uint(&p->cursor, 8), entries = cria_cursor_uint(&p->cursor, 8);
    size_t left = p->cursor.size - p->cursor.at;
    if (p->cursor.bad || tensors > left / TENSOR_LEAST || entries > left / ENTRY_LEAST || tensors > UINT32_MAX ||
        entries > UINT32_MAX) {
        return cria_fail(p->err, CRIA_ERR_FORMAT,
                         "%s: %" PRIu64 " tensors and %" PRIu64 " keys do not fit the file (truncated?)", gguf->name,
                         tensors, entries);
    }
    gguf->tensors = cria_arena_alloc_array(gguf->arena, (size_t)tensors + 1, sizeof *gguf->tensors);
    gguf->entries = cria_arena_alloc_array(gguf->arena, (size_t)entries + 1, sizeof *gguf->entries);
    if (!gguf->tensors || !gguf->entries) return no_memory(p);
    gguf->tensor_count = (size_t)tensors;
    gguf->entry_count = (size_t)entries;
    CRIA_TRY(parse_metadata(p));
    return parse_tensors(p);
}

cria_status cria_gguf_parse(const char *name, const void *bytes, size_t size, cria_gguf **out, cria_error *err) {
    *out = NULL;
    cria_gguf *gguf = calloc(1, sizeof *gguf);
    cria_arena *arena = cria_arena_create(ARENA_BLOCK, 0);
    const char *tail = cria_path_tail(name);
    const char *copy = arena ? cria_arena_copy(arena, tail, strlen(tail)) : NULL;
    if (!gguf || !copy) {
        free(gguf);
        cria_arena_destroy(arena);
        return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory", tail);
    }
    gguf->arena = arena;
    gguf->name = copy;
    gguf_parser parser = {gguf, {bytes, size, 0, false}, err};
    cria_status status = parse_header(&parser);
    if (status == CRIA_OK)
        *out = gguf;
    else
        cria_gguf_destroy(gguf);
    return status;
}

void cria_gguf_destroy(cria_gguf *gguf) {
    if (!gguf) return;
    cria_names_deinit(&gguf->entry_names);
    cria_names_deinit(&gguf->tensor_names);
    cria_arena_destroy(gguf->arena);
    free(gguf);
}

cria_status cria_gguf_read(cria_weights *weights, uint32_t file, cria_error *err) {
    const cria_weight_file *source = &weights->files[file];
    CRIA_TRY(cria_gguf_parse(source->name, source->mapping.data, source->mapping.size, &weights->gguf, err));
    for (size_t i = 0; i < weights->gguf->tensor_count; i++) {
        const cria_gguf_tensor *tensor = &weights->gguf->tensors[i];
        cria_weight_view view = {
            .type = tensor->type, .dims = tensor->dims, .data = tensor->data, .bytes = tensor->bytes, .file = file};
        memcpy(view.shape, tensor->shape, sizeof view.shape);
        CRIA_TRY(cria_weights_add(weights, tensor->name, strlen(tensor->name), &view, err));
    }
    return CRIA_OK;
}
