/* Parsing request bodies. */
#include "server/api/body.h"

#include "server/api/field.h"

#include <stdio.h>
#include <string.h>

/* A parsed value takes about 64 bytes for as little as two of text: a body is counted before it is parsed. */
enum { MAX_VALUES = 2000000, MAX_KEYS = 1024 };

static bool too_many_values(const char *body, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) count += body[i] == ',';
    return count > MAX_VALUES;
}

static cria_status parse_body(const char *body, size_t length, cria_json **out, cria_api_error *err) {
    if (length >= 3 && memcmp(body, "\xEF\xBB\xBF", 3) == 0) body += 3, length -= 3; /* a byte order mark */
    if (!length) return cria_api_fail_type(err, "body", "missing", "Field required", "None");
    if (too_many_values(body, length)) {
        return cria_api_fail_status(err, 413, NULL, "The request body holds more than %d values", MAX_VALUES);
    }
    cria_error cause;
    if (cria_json_parse(body, length, out, &cause) != CRIA_OK) {
        if (cause.status != CRIA_ERR_FORMAT) return cria_api_fail_from(err, &cause);
        char where[32] = "body";
        size_t offset;
        const char *at = strstr(cause.message, "at byte ");
        if (at && sscanf(at + 8, "%zu", &offset) == 1) snprintf(where, sizeof where, "body.%zu", offset);
        return cria_api_fail_type(err, where, "json_invalid", "JSON decode error", cause.message);
    }
    const cria_json_value *root = cria_json_root(*out);
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT) {
        char input[80];
        cria_field_describe(root, input, sizeof input);
        return cria_api_fail_type(err, "body", "model_attributes_type",
                                  "Input should be a valid dictionary or object to extract fields from", input);
    }
    if (cria_json_size(root) > MAX_KEYS) {
        return cria_api_fail(err, NULL, "The request has %zu keys, which is more than the %d allowed",
                             cria_json_size(root), MAX_KEYS);
    }
    return CRIA_OK;
}

cria_status cria_body_parse(const char *body, size_t length, cria_json **out, cria_api_error *err) {
    *out = NULL;
    cria_status status = parse_body(body, length, out, err);
    if (status != CRIA_OK) {
        cria_json_destroy(*out);
        *out = NULL;
    }
    return status;
}
