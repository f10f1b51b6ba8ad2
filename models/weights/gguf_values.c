/* Typed access to GGUF metadata and the tensor directory. */
#include "models/weights/gguf_internal.h"

#include <inttypes.h>
#include <string.h>

static const cria_gguf_entry *find(const cria_gguf *gguf, const char *key) {
    uint32_t index;
    return cria_names_find(&gguf->entry_names, key, strlen(key), &index) ? &gguf->entries[index] : NULL;
}

size_t cria_gguf_count(const cria_gguf *gguf) {
    return gguf->entry_count;
}

const char *cria_gguf_key(const cria_gguf *gguf, size_t index) {
    return gguf->entries[index].key;
}

cria_gguf_type cria_gguf_type_of(const cria_gguf *gguf, const char *key) {
    const cria_gguf_entry *entry = find(gguf, key);
    return entry ? entry->type : CRIA_GGUF_ABSENT;
}

const char *cria_gguf_type_name(cria_gguf_type type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return type >= CRIA_GGUF_U8 && type <= CRIA_GGUF_F64 ? names[type] : "absent";
}

static cria_status wrong_type(const cria_gguf *gguf, const cria_gguf_entry *entry, const char *wanted,
                              cria_error *err) {
    return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: is of type %s, not %s", gguf->name, entry->key,
                     cria_gguf_type_name(entry->type), wanted);
}

/* An integer of any width; one over INT64_MAX is given as INT64_MAX, which no range here admits. */
static bool integer_of(const cria_gguf_entry *entry, int64_t *out) {
    uint64_t bits = entry->bits;
    switch (entry->type) {
    case CRIA_GGUF_I8:
        *out = (int8_t)bits;
        return true;
    case CRIA_GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case CRIA_GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case CRIA_GGUF_I64:
        *out = (int64_t)bits;
        return true;
    case CRIA_GGUF_U8:
    case CRIA_GGUF_U16:
    case CRIA_GGUF_U32:
    case CRIA_GGUF_U64:
        *out = bits > INT64_MAX ? INT64_MAX : (int64_t)bits;
        return true;
    default:
        return false;
    }
}

cria_status cria_gguf_get_int(const cria_gguf *gguf, const char *key, int64_t fallback, int64_t min, int64_t max,
                              int64_t *out, cria_error *err) {
    const cria_gguf_entry *entry = find(gguf, key);
    *out = fallback;
    if (!entry) return CRIA_OK;
    int64_t value;
    if (!integer_of(entry, &value)) return wrong_type(gguf, entry, "an integer", err);
    if (value < min || value > max) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: is %" PRId64 ", outside %" PRId64 " to %" PRId64,
                         gguf->name, key, value, min, max);
    }
    *out = value;
    return CRIA_OK;
}

cria_status cria_gguf_get_double(const cria_gguf *gguf, const char *key, double fallback, double min, double max,
                                 double *out, cria_error *err) {
    const cria_gguf_entry *entry = find(gguf, key);
    *out = fallback;
    if (!entry) return CRIA_OK;
    double value;
    int64_t integer;
    if (entry->type == CRIA_GGUF_F32) {
        uint32_t bits = (uint32_t)entry->bits;
        float single;
        memcpy(&single, &bits, sizeof single);
        value = (double)single;
    } else if (entry->type == CRIA_GGUF_F64) {
        memcpy(&value, &entry->bits, sizeof value);
    } else if (integer_of(entry, &integer)) {
        value = (double)integer;
    } else {
        return wrong_type(gguf, entry, "a number", err);
    }
    if (!(value >= min && value <= max)) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: is %g, outside %g to %g", gguf->name, key, value, min, max);
    }
    *out = value;
    return CRIA_OK;
}

cria_status cria_gguf_get_bool(const cria_gguf *gguf, const char *key, bool fallback, bool *out, cria_error *err) {
    const cria_gguf_entry *entry = find(gguf, key);
    *out = fallback;
    if (!entry) return CRIA_OK;
    if (entry->type != CRIA_GGUF_BOOL) return wrong_type(gguf, entry, "bool", err);
    if (entry->bits > 1) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: is neither true nor false", gguf->name, key);
    }
    *out = entry->bits == 1;
    return CRIA_OK;
}

cria_status cria_gguf_get_string(const cria_gguf *gguf, const char *key, const char *fallback, const char **out,
                                 cria_error *err) {
    const cria_gguf_entry *entry = find(gguf, key);
    *out = fallback;
    if (!entry) return CRIA_OK;
    if (entry->type != CRIA_GGUF_STRING) return wrong_type(gguf, entry, "string", err);
    if (strlen(entry->text) != entry->count) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: its string holds NUL", gguf->name, key);
    }
    *out = entry->text;
    return CRIA_OK;
}

/* The entry if it is an array of one of two element types; *entry is NULL where the key is absent. */
static cria_status find_array(const cria_gguf *gguf, const char *key, cria_gguf_type element, cria_gguf_type other,
                              const cria_gguf_entry **entry, cria_error *err) {
    *entry = find(gguf, key);
    if (!*entry) return CRIA_OK;
    if ((*entry)->type != CRIA_GGUF_ARRAY) return wrong_type(gguf, *entry, "array", err);
    if ((*entry)->element == element || (*entry)->element == other) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: is an array of %s, not of %s", gguf->name, key,
                     cria_gguf_type_name((*entry)->element), cria_gguf_type_name(element));
}

cria_status cria_gguf_get_strings(const cria_gguf *gguf, const char *key, const char *const **strings,
                                  const size_t **lengths, size_t *count, cria_error *err) {
    const cria_gguf_entry *entry;
    *strings = NULL;
    *lengths = NULL;
    *count = 0;
    CRIA_TRY(find_array(gguf, key, CRIA_GGUF_STRING, CRIA_GGUF_STRING, &entry, err));
    if (!entry) return CRIA_OK;
    *strings = entry->strings;
    *lengths = entry->lengths;
    *count = entry->count;
    return CRIA_OK;
}

cria_status cria_gguf_get_ints(const cria_gguf *gguf, const char *key, const int32_t **values, size_t *count,
                               cria_error *err) {
    const cria_gguf_entry *entry;
    *values = NULL;
    *count = 0;
    CRIA_TRY(find_array(gguf, key, CRIA_GGUF_I32, CRIA_GGUF_U32, &entry, err));
    if (!entry) return CRIA_OK;
    const int32_t *ints = entry->values;
    for (size_t i = 0; entry->element == CRIA_GGUF_U32 && i < entry->count; i++) {
        if (ints[i] >= 0) continue;
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: key %s: element %zu is over 2147483647", gguf->name, key, i);
    }
    *values = ints;
    *count = entry->count;
    return CRIA_OK;
}

cria_status cria_gguf_get_floats(const cria_gguf *gguf, const char *key, const float **values, size_t *count,
                                 cria_error *err) {
    const cria_gguf_entry *entry;
    *values = NULL;
    *count = 0;
    CRIA_TRY(find_array(gguf, key, CRIA_GGUF_F32, CRIA_GGUF_F32, &entry, err));
    if (!entry) return CRIA_OK;
    *values = entry->values;
    *count = entry->count;
    return CRIA_OK;
}

size_t cria_gguf_array_count(const cria_gguf *gguf, const char *key) {
    const cria_gguf_entry *entry = find(gguf, key);
    return entry && entry->type == CRIA_GGUF_ARRAY ? entry->count : 0;
}

size_t cria_gguf_tensor_count(const cria_gguf *gguf) {
    return gguf->tensor_count;
}

const cria_gguf_tensor *cria_gguf_tensor_at(const cria_gguf *gguf, size_t index) {
    return &gguf->tensors[index];
}

const cria_gguf_tensor *cria_gguf_tensor_find(const cria_gguf *gguf, const char *name) {
    uint32_t index;
    return cria_names_find(&gguf->tensor_names, name, strlen(name), &index) ? &gguf->tensors[index] : NULL;
}
