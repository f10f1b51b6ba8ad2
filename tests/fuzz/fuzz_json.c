/* Fuzzes the JSON parser: whatever the bytes, every value of an accepted document can be read, and writes back as JSON
 * that is accepted again. */
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tests/fuzz/require.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_number(const cria_json_value *value, cria_text *out) {
    int64_t integer;
    double number = cria_json_number(value);
    /* The double is the nearest to the exact value. */
    if (cria_json_int(value, &integer)) require((double)integer == number);
    cria_text_json_number(out, number);
}

/* Reads `value` in every way and appends it as JSON. */
static void walk(const cria_json_value *value, cria_text *out) {
    cria_json_type type = cria_json_type_of(value);
    bool object = type == CRIA_JSON_OBJECT;
    size_t length, children = 0;
    switch (type) {
    case CRIA_JSON_NULL:
        cria_text_puts(out, "null");
        break;
    case CRIA_JSON_BOOL:
        cria_text_puts(out, cria_json_bool(value) ? "true" : "false");
        break;
    case CRIA_JSON_NUMBER:
        check_number(value, out);
        break;
    case CRIA_JSON_STRING: {
        const char *text = cria_json_text(value, &length);
        require(cria_utf8_valid(text, length) && text[length] == 0);
        cria_text_json_string(out, text, length);
        break;
    }
    case CRIA_JSON_ARRAY:
    case CRIA_JSON_OBJECT:
        cria_text_puts(out, object ? "{" : "[");
        for (const cria_json_value *child = cria_json_first(value); child; child = cria_json_next(child)) {
            if (children++) cria_text_puts(out, ",");
            if (object) {
                const char *key = cria_json_key(child);
                cria_text_json_string(out, key, strlen(key));
                cria_text_puts(out, ":");
                const cria_json_value *found = cria_json_get(value, key);
                require(found || cria_json_type_of(child) == CRIA_JSON_NULL || cria_json_size(value) > 1);
            }
            walk(child, out);
        }
        require(cria_json_size(value) == children);
        cria_text_puts(out, object ? "}" : "]");
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_json *json;
    cria_error err;
    cria_status status = cria_json_parse((const char *)data, size, &json, &err);
    if (status != CRIA_OK) {
        /* Anything but a format error would mean that cJSON refused what the scan let through. */
        require(status == CRIA_ERR_FORMAT && cria_utf8_valid(err.message, strlen(err.message)));
        return 0;
    }
    cria_text first, second;
    cria_text_init(&first);
    cria_text_init(&second);
    walk(cria_json_root(json), &first);
    cria_json_destroy(json);
    require(!first.failed && cria_json_parse(first.data, first.length, &json, &err) == CRIA_OK);
    walk(cria_json_root(json), &second);
    require(first.length == second.length && memcmp(first.data, second.data, first.length) == 0);
    cria_json_destroy(json);
    cria_text_deinit(&first);
    cria_text_deinit(&second);
    return 0;
}
