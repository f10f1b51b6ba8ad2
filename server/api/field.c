/* Reading typed members of a request body. */
#include "server/api/field.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cria_field_float(double value, char out[32]) {
    if (isnan(value) || isinf(value)) {
        snprintf(out, 32, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    for (int digits = 1; digits <= 17; ++digits) {
        snprintf(out, 32, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    if (!strpbrk(out, ".e")) strncat(out, ".0", 31 - strlen(out));
}

void cria_field_describe(const cria_json_value *value, char *out, size_t size) {
    int64_t integer;
    size_t length;
    switch (cria_json_type_of(value)) {
    case CRIA_JSON_NULL:
        snprintf(out, size, "None");
        break;
    case CRIA_JSON_BOOL:
        snprintf(out, size, "%s", cria_json_bool(value) ? "True" : "False");
        break;
    case CRIA_JSON_NUMBER:
        if (cria_json_int(value, &integer)) {
            snprintf(out, size, "%lld", (long long)integer);
        } else if (fabs(cria_json_number(value)) < 1e30 && cria_json_number(value) == floor(cria_json_number(value))) {
            snprintf(out, size, "%.0f", cria_json_number(value));
        } else {
            char text[32];
            cria_field_float(cria_json_number(value), text);
            snprintf(out, size, "%s", text);
        }
        break;
    case CRIA_JSON_STRING:
        snprintf(out, size, "%.*s", 64, cria_json_text(value, &length));
        break;
    case CRIA_JSON_ARRAY:
        snprintf(out, size, "<list of %zu items>", cria_json_size(value));
        break;
    case CRIA_JSON_OBJECT:
        snprintf(out, size, "<dict of %zu items>", cria_json_size(value));
        break;
    }
}

static cria_status wrong_type(const cria_json_value *value, const char *location, const char *kind, const char *message,
                              cria_api_error *err) {
    char input[80];
    cria_field_describe(value, input, sizeof input);
    return cria_api_fail_type(err, location, kind, message, input);
}

/* `value` is there. */
static cria_status read_int(const cria_json_value *value, const char *location, int64_t *out, cria_api_error *err) {
    cria_json_type type = cria_json_type_of(value);
    if (type == CRIA_JSON_STRING) {
        return wrong_type(value, location, "int_parsing",
                          "Input should be a valid integer, unable to parse string as an integer", err);
    }
    if (type != CRIA_JSON_NUMBER)
        return wrong_type(value, location, "int_type", "Input should be a valid integer", err);
    if (cria_json_int(value, out)) return CRIA_OK;
    double number = cria_json_number(value);
    if (number >= 9223372036854775807.0) {
        return wrong_type(value, location, "less_than_equal",
                          "Input should be less than or equal to 9223372036854775807", err);
    }
    if (number <= -9223372036854775808.0) {
        return wrong_type(value, location, "greater_than_equal",
                          "Input should be greater than or equal to -9223372036854775808", err);
    }
    if (!isfinite(number)) {
        return wrong_type(value, location, "finite_number", "Input should be a finite number", err);
    }
    return wrong_type(value, location, "int_from_float",
                      "Input should be a valid integer, got a number with a fractional part", err);
}

cria_status cria_field_int(const cria_json_value *object, const char *key, int64_t *out, bool *present,
                           cria_api_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    if (present) *present = value != NULL;
    if (!value) return CRIA_OK;
    char location[64];
    snprintf(location, sizeof location, "body.%s", key);
    return read_int(value, location, out, err);
}

cria_status cria_field_double(const cria_json_value *object, const char *key, double *out, bool *present,
                              cria_api_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    if (present) *present = value != NULL;
    if (!value) return CRIA_OK;
    char location[64];
    snprintf(location, sizeof location, "body.%s", key);
    cria_json_type type = cria_json_type_of(value);
    if (type == CRIA_JSON_STRING) {
        return wrong_type(value, location, "float_parsing",
                          "Input should be a valid number, unable to parse string as a number", err);
    }
    if (type != CRIA_JSON_NUMBER)
        return wrong_type(value, location, "float_type", "Input should be a valid number", err);
    double number = cria_json_number(value);
    if (!isfinite(number)) {
        char text[32];
        cria_field_float(number, text);
        return cria_api_fail(err, key, "%s must be a finite number, got %s. (parameter=%s, value=%s)", key, text, key,
                             text);
    }
    *out = number;
    return CRIA_OK;
}

cria_status cria_field_bool(const cria_json_value *object, const char *key, bool *out, bool *present,
                            cria_api_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    if (present) *present = value != NULL;
    if (!value) return CRIA_OK;
    int64_t number;
    /* 0 and 1 count, as they do for pydantic. */
    if (cria_json_type_of(value) == CRIA_JSON_NUMBER && cria_json_int(value, &number) && (number | 1) == 1) {
        *out = number == 1;
        return CRIA_OK;
    }
    if (cria_json_type_of(value) != CRIA_JSON_BOOL) {
        char location[64];
        snprintf(location, sizeof location, "body.%s", key);
        return wrong_type(value, location, "bool_type", "Input should be a valid boolean", err);
    }
    *out = cria_json_bool(value);
    return CRIA_OK;
}

cria_status cria_field_text(const cria_json_value *object, const char *key, const char **out, size_t *length,
                            cria_api_error *err) {
    const cria_json_value *value = cria_json_get(object, key);
    if (!value) return CRIA_OK;
    if (cria_json_type_of(value) != CRIA_JSON_STRING) {
        char location[64];
        snprintf(location, sizeof location, "body.%s", key);
        return wrong_type(value, location, "string_type", "Input should be a valid string", err);
    }
    *out = cria_json_text(value, length);
    return CRIA_OK;
}

cria_status cria_field_ids(const cria_json_value *object, const char *key, int64_t limit, size_t max, int32_t **out,
                           size_t *count, cria_api_error *err) {
    *out = NULL;
    *count = 0;
    const cria_json_value *value = cria_json_get(object, key);
    if (!value) return CRIA_OK;
    char location[80];
    snprintf(location, sizeof location, "body.%.40s", key);
    if (cria_json_type_of(value) != CRIA_JSON_ARRAY) {
        return wrong_type(value, location, "list_type", "Input should be a valid list", err);
    }
    size_t size = cria_json_size(value);
    if (size > max) {
        return cria_api_fail(err, key, "%s has %zu entries, which is more than the %zu allowed", key, size, max);
    }
    if (!size) return CRIA_OK;
    int32_t *ids = calloc(size, sizeof *ids);
    if (!ids) return cria_api_fail_status(err, 500, NULL, "out of memory");
    size_t n = 0;
    for (const cria_json_value *item = cria_json_first(value); item; item = cria_json_next(item), ++n) {
        int64_t id;
        snprintf(location, sizeof location, "body.%.40s.%zu", key, n);
        cria_status status = read_int(item, location, &id, err);
        if (status == CRIA_OK && (id < 0 || id >= limit)) {
            status = cria_api_fail(err, key,
                                   "token_id(s) [%lld] in %s contain out-of-vocab token ids. Vocabulary size: %lld",
                                   (long long)id, key, (long long)limit);
        }
        if (status != CRIA_OK) {
            free(ids);
            return status;
        }
        ids[n] = (int32_t)id;
    }
    *out = ids;
    *count = n;
    return CRIA_OK;
}
