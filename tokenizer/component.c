/* Typed access to the members of tokenizer.json's components. */
#include "tokenizer/component.h"

#include "base/utf8.h"

#include <string.h>

cria_status cria_component_unknown(const char *stage, const char *what, cria_error *err) {
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.json: %s %s is not supported", stage, what);
}

cria_status cria_component_type(const cria_json_value *component, const char *stage, const char **type,
                                cria_error *err) {
    if (cria_json_type_of(component) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a %s is not an object", stage);
    }
    CRIA_TRY(cria_json_get_string(component, "type", NULL, type, err));
    if (!*type) return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a %s has no type", stage);
    return CRIA_OK;
}

cria_status cria_component_text(const cria_json_value *component, const char *stage, const char *key, const char **text,
                                size_t *length, cria_error *err) {
    const cria_json_value *value = cria_json_get(component, key);
    if (cria_json_type_of(value) != CRIA_JSON_STRING) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a %s has no string \"%s\"", stage, key);
    }
    *text = cria_json_text(value, length);
    return CRIA_OK;
}

cria_status cria_component_pattern(const cria_json_value *component, const char *stage, cria_regex **out, bool *literal,
                                   cria_error *err) {
    const cria_json_value *pattern = cria_json_get(component, "pattern");
    const char *text = NULL;
    size_t length = 0;
    if (cria_json_type_of(pattern) == CRIA_JSON_OBJECT) {
        bool is_string = cria_json_get(pattern, "String") != NULL;
        if (literal) *literal = is_string;
        CRIA_TRY(cria_component_text(pattern, stage, is_string ? "String" : "Regex", &text, &length, err));
        if (length == 0) return cria_component_unknown(stage, "with an empty pattern", err);
        if (is_string) return cria_regex_compile_literal(text, length, out, err);
        return cria_regex_compile(text, length, out, err);
    }
    return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a %s has no pattern", stage);
}

cria_status cria_component_behaviour(const cria_json_value *component, const char *stage, cria_split_behaviour *out,
                                     cria_error *err) {
    static const char *const names[] = {
        [CRIA_SPLIT_REMOVED] = "Removed",
        [CRIA_SPLIT_ISOLATED] = "Isolated",
        [CRIA_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [CRIA_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [CRIA_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *name = NULL;
    CRIA_TRY(cria_json_get_string(component, "behavior", "Isolated", &name, err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (cria_split_behaviour)i;
            return CRIA_OK;
        }
    }
    return cria_component_unknown(stage, name, err);
}

cria_status cria_component_metaspace(const cria_json_value *component, const char *stage, const char **replacement,
                                     size_t *length, cria_prepend_scheme *scheme, cria_error *err) {
    const char *name = NULL;
    bool prefix = true;
    CRIA_TRY(cria_component_text(component, stage, "replacement", replacement, length, err));
    if (cria_utf8_count(*replacement, *length) != 1) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a %s's replacement is not one character", stage);
    }
    CRIA_TRY(cria_json_get_bool(component, "add_prefix_space", true, &prefix, err));
    CRIA_TRY(cria_json_get_string(component, "prepend_scheme", prefix ? "always" : "never", &name, err));
    if (strcmp(name, "never") == 0) {
        *scheme = CRIA_PREPEND_NEVER;
    } else if (strcmp(name, "first") == 0) {
        *scheme = CRIA_PREPEND_FIRST;
    } else if (strcmp(name, "always") == 0) {
        *scheme = CRIA_PREPEND_ALWAYS;
    } else {
        return cria_component_unknown(stage, name, err);
    }
    return CRIA_OK;
}
