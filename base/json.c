/* Parsing with cJSON behind the checks of json_scan.c, and typed access. */
#include "base/json.h"

#include "base/file.h"
#include "base/json_scan.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cria_json {
    cJSON *root;
};

/* Turns CRIA_JSON_NUL into NUL in every string value below (in place) and keeps the length in valuedouble, which cJSON
 * leaves at 0 for strings. Keys stay as they are, so that a key with U+0000 is never taken for its first part.
 * Recursion is bounded by the nesting limit. */
static void restore_nuls(cJSON *value) {
    for (; value; value = value->next) {
        restore_nuls(value->child);
        if (!cJSON_IsString(value) || !strstr(value->valuestring, CRIA_JSON_NUL)) continue;
        char *out = value->valuestring;
        for (const char *in = out; *in;) {
            bool nul = in[0] == CRIA_JSON_NUL[0] && in[1] == CRIA_JSON_NUL[1];
            *out++ = nul ? '\0' : *in;
            in += nul ? 2 : 1;
        }
        *out = 0;
        value->valuedouble = (double)(out - value->valuestring);
    }
}

cria_status cria_json_parse(const char *bytes, size_t length, cria_json **out, cria_error *err) {
    *out = NULL;
    cria_text rewritten;
    cria_text_init(&rewritten);
    cria_json_scan_result scan;
    cria_json *json = NULL;
    cria_status status = cria_json_scan(bytes, length, &rewritten, &scan, err);
    if (status == CRIA_OK) {
        json = calloc(1, sizeof *json);
        /* cJSON has nothing left to refuse: what fails now is memory. */
        if (json && scan.rewritten) {
            json->root = cJSON_ParseWithLengthOpts(rewritten.data, rewritten.length, NULL, 0);
        } else if (json) {
            json->root = cJSON_ParseWithLengthOpts(bytes, length, NULL, 0);
        }
        if (!json || !json->root) {
            status = cria_fail(err, CRIA_ERR_MEMORY, "out of memory for JSON of %zu bytes", length);
            free(json);
        } else {
            if (scan.has_nul) restore_nuls(json->root);
            *out = json;
        }
    }
    cria_text_deinit(&rewritten);
    return status;
}

cria_status cria_json_parse_file(const char *path, size_t limit_bytes, cria_json **out, cria_error *err) {
    *out = NULL;
    cria_mapping mapping;
    CRIA_TRY(cria_mapping_open(path, &mapping, err));
    cria_status status;
    if (mapping.size > limit_bytes) {
        status = cria_fail(err, CRIA_ERR_FORMAT, "%s: has %zu bytes, over the limit of %zu", path, mapping.size,
                           limit_bytes);
    } else {
        status = cria_json_parse((const char *)mapping.data, mapping.size, out, err);
        if (status != CRIA_OK) cria_fail_within(err, path);
    }
    cria_mapping_close(&mapping);
    return status;
}

void cria_json_destroy(cria_json *json) {
    if (!json) return;
    cJSON_Delete(json->root);
    free(json);
}

const cria_json_value *cria_json_root(const cria_json *json) {
    return json->root;
}

/* The kept text of a number that a double may not hold exactly; NULL for everything else. */
static const char *raw_number(const cria_json_value *value) {
    size_t mark = sizeof CRIA_JSON_RAW_NUMBER - 1;
    if (!cJSON_IsString(value) || strncmp(value->valuestring, CRIA_JSON_RAW_NUMBER, mark) != 0) return NULL;
    return value->valuestring + mark;
}

cria_json_type cria_json_type_of(const cria_json_value *value) {
    if (!value) return CRIA_JSON_NULL;
    switch (value->type & 0xFF) {
    case cJSON_False:
    case cJSON_True:
        return CRIA_JSON_BOOL;
    case cJSON_Number:
        return CRIA_JSON_NUMBER;
    case cJSON_String:
        return raw_number(value) ? CRIA_JSON_NUMBER : CRIA_JSON_STRING;
    case cJSON_Array:
        return CRIA_JSON_ARRAY;
    case cJSON_Object:
        return CRIA_JSON_OBJECT;
    default:
        return CRIA_JSON_NULL;
    }
}

const char *cria_json_type_name(cria_json_type type) {
    switch (type) {
    case CRIA_JSON_NULL:
        return "null";
    case CRIA_JSON_BOOL:
        return "a boolean";
    case CRIA_JSON_NUMBER:
        return "a number";
    case CRIA_JSON_STRING:
        return "a string";
    case CRIA_JSON_ARRAY:
        return "an array";
    case CRIA_JSON_OBJECT:
        return "an object";
    }
    return "unknown";
}

const cria_json_value *cria_json_get(const cria_json_value *object, const char *key) {
    const cria_json_value *found = NULL;
    if (!cJSON_IsObject(object)) return NULL;
    for (const cJSON *child = object->child; child; child = child->next) {
        if (strcmp(child->string, key) == 0) found = child;
    }
    return cria_json_type_of(found) == CRIA_JSON_NULL ? NULL : found;
}

const cria_json_value *cria_json_first(const cria_json_value *container) {
    return container ? container->child : NULL;
}

const cria_json_value *cria_json_next(const cria_json_value *value) {
    return value->next;
}

const char *cria_json_key(const cria_json_value *value) {
    return value->string ? value->string : "";
}

size_t cria_json_size(const cria_json_value *container) {
    size_t size = 0;
    for (const cJSON *child = cria_json_first(container); child; child = child->next) size++;
    return size;
}

const char *cria_json_text(const cria_json_value *value, size_t *length) {
    if (length) *length = value->valuedouble > 0 ? (size_t)value->valuedouble : strlen(value->valuestring);
    return value->valuestring;
}

double cria_json_number(const cria_json_value *value) {
    const char *raw = raw_number(value);
    return raw ? strtod(raw, NULL) : value->valuedouble;
}

bool cria_json_bool(const cria_json_value *value) {
    return cJSON_IsTrue(value);
}

/* The exponent behind 'e', clamped to what no number of int64 range can need: more zeros than the text has bytes. */
static int64_t read_exponent(const char *p, int64_t clamp) {
    bool negative = *p == '-';
    if (*p == '-' || *p == '+') p++;
    int64_t value = 0;
    for (; *p; p++) value = value < clamp ? value * 10 + (*p - '0') : clamp;
    return negative ? -value : value;
}

/* The exact integer that a JSON number's text denotes; false if it has a fraction or is out of range. The text is a run
 * of digits D and a power of ten: D is cut behind its last digit that is not 0, and the power says what to append. */
static bool parse_exact_integer(const char *text, int64_t *out) {
    bool negative = *text == '-';
    const char *p = text + negative;
    if (*p < '0' || *p > '9') return false; /* NaN, Infinity */
    int64_t power = 0, length = (int64_t)strlen(text), zeros = 0;
    uint64_t magnitude = 0;
    bool point = false, overflow = false;
    for (; *p && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        power -= point;
        zeros++;
        if (*p == '0') continue;
        for (; zeros > 0; zeros--) overflow |= __builtin_mul_overflow(magnitude, 10u, &magnitude);
        overflow |= __builtin_add_overflow(magnitude, (uint64_t)(*p - '0'), &magnitude);
    }
    if (magnitude == 0 && !overflow) {
        *out = 0;
        return true;
    }
    power += zeros;
    if (*p) power += read_exponent(p + 1, length + 20);
    if (power < 0) return false;
    for (; power > 0 && !overflow; power--) overflow = __builtin_mul_overflow(magnitude, 10u, &magnitude);
    if (overflow || magnitude > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

bool cria_json_int(const cria_json_value *value, int64_t *out) {
    if (cria_json_type_of(value) != CRIA_JSON_NUMBER) return false;
    const char *raw = raw_number(value);
    if (raw) return parse_exact_integer(raw, out);
    /* At most 15 digits: far inside int64. */
    if (value->valuedouble != floor(value->valuedouble)) return false;
    *out = (int64_t)value->valuedouble;
    return true;
}

static cria_status fail_type(const char *key, cria_json_type wanted, const cria_json_value *value, cria_error *err) {
    return cria_fail(err, CRIA_ERR_ARGUMENT, "%s must be %s, but is %s", key, cria_json_type_name(wanted),
                     cria_json_type_name(cria_json_type_of(value)));
}

/* "must be an integer between 1 and 8, but is 9" in the shortest form that reads back. */
static cria_status fail_range(const char *key, const char *kind, const char *min, const char *max,
                              const cria_json_value *value, cria_error *err) {
    cria_text number;
    cria_text_init(&number);
    const char *raw = raw_number(value);
    if (raw) {
        cria_text_append(&number, raw, strnlen(raw, 40));
    } else {
        cria_text_json_number(&number, value->valuedouble);
    }
    const char *shown = number.failed ? "out of range" : number.data;
    cria_status status = cria_fail(err, CRIA_ERR_ARGUMENT, "%s must be %s%s%s%s%s, but is %s", key, kind,
                                   *min && *max ? " between "
                                   : *min       ? " of at least "
                                   : *max       ? " of at most "
                                                : "",
                                   min, *min && *max ? " and " : "", max, shown);
    cria_text_deinit(&number);
    return status;
}

cria_status cria_json_get_int(const cria_json_value *object, const char *key, int64_t fallback, int64_t min,
                              int64_t max, int64_t *out, cria_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    *out = fallback;
    if (!value) return CRIA_OK;
    if (cria_json_type_of(value) != CRIA_JSON_NUMBER) return fail_type(key, CRIA_JSON_NUMBER, value, err);
    int64_t number;
    if (!cria_json_int(value, &number) || number < min || number > max) {
        char low[24] = "", high[24] = "";
        if (min != INT64_MIN) snprintf(low, sizeof low, "%" PRId64, min);
        if (max != INT64_MAX) snprintf(high, sizeof high, "%" PRId64, max);
        return fail_range(key, "an integer", low, high, value, err);
    }
    *out = number;
    return CRIA_OK;
}

cria_status cria_json_get_double(const cria_json_value *object, const char *key, double fallback, double min,
                                 double max, double *out, cria_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    *out = fallback;
    if (!value) return CRIA_OK;
    if (cria_json_type_of(value) != CRIA_JSON_NUMBER) return fail_type(key, CRIA_JSON_NUMBER, value, err);
    double number = cria_json_number(value);
    if (!(number >= min && number <= max)) { /* so that NaN is outside, too */
        char low[32] = "", high[32] = "";
        if (isfinite(min)) snprintf(low, sizeof low, "%.15g", min);
        if (isfinite(max)) snprintf(high, sizeof high, "%.15g", max);
        return fail_range(key, "a number", low, high, value, err);
    }
    *out = number;
    return CRIA_OK;
}

cria_status cria_json_get_bool(const cria_json_value *object, const char *key, bool fallback, bool *out,
                               cria_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    *out = fallback;
    if (!value) return CRIA_OK;
    if (cria_json_type_of(value) != CRIA_JSON_BOOL) return fail_type(key, CRIA_JSON_BOOL, value, err);
    *out = cria_json_bool(value);
    return CRIA_OK;
}

cria_status cria_json_get_string(const cria_json_value *object, const char *key, const char *fallback, const char **out,
                                 cria_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    *out = fallback;
    if (!value) return CRIA_OK;
    if (cria_json_type_of(value) != CRIA_JSON_STRING) return fail_type(key, CRIA_JSON_STRING, value, err);
    size_t length;
    const char *text = cria_json_text(value, &length);
    if (strlen(text) != length) return cria_fail(err, CRIA_ERR_ARGUMENT, "%s must not hold U+0000", key);
    *out = text;
    return CRIA_OK;
}

cria_status cria_json_want(const cria_json_value *value, cria_json_type type, const char *key, cria_error *err) {
    if (cria_json_type_of(value) == type) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\" must be %s, but is %s", key, cria_json_type_name(type),
                     value ? cria_json_type_name(cria_json_type_of(value)) : "missing");
}
