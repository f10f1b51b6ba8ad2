/* Post-processors, each reduced to what it puts before and after a single text. */
#include "tokenizer/template.h"

#include "tokenizer/component.h"
#include "tokenizer/vocabulary.h"

#include <string.h>

static const char stage[] = "post_processor";

void cria_template_deinit(cria_template *post) {
    cria_ids_deinit(&post->prefix);
    cria_ids_deinit(&post->suffix);
}

static cria_status push(cria_ids *ids, const cria_json_value *id, cria_error *err) {
    int64_t value = 0;
    if (!cria_json_int(id, &value) || value < 0 || value > CRIA_MAX_TOKEN_ID) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a post_processor's token id is not an id");
    }
    if (cria_ids_push(ids, (int32_t)value)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a post_processor");
}

/* "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}} */
static cria_status push_special(const cria_json_value *component, const cria_json_value *item, cria_ids *ids,
                                cria_error *err) {
    const char *name = NULL;
    CRIA_TRY(cria_json_get_string(item, "id", NULL, &name, err));
    const cria_json_value *tokens = cria_json_get(component, "special_tokens");
    const cria_json_value *list = name && tokens ? cria_json_get(cria_json_get(tokens, name), "ids") : NULL;
    if (cria_json_type_of(list) != CRIA_JSON_ARRAY) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: post_processor: no ids for the special token %s",
                         name ? name : "(unnamed)");
    }
    for (const cria_json_value *id = cria_json_first(list); id; id = cria_json_next(id)) CRIA_TRY(push(ids, id, err));
    return CRIA_OK;
}

static cria_status parse_template(const cria_json_value *component, cria_template *out, cria_error *err) {
    bool seen = false;
    const cria_json_value *single = cria_json_get(component, "single");
    if (cria_json_type_of(single) != CRIA_JSON_ARRAY) return cria_component_unknown(stage, "without a list", err);
    for (const cria_json_value *item = cria_json_first(single); item; item = cria_json_next(item)) {
        const cria_json_value *special = cria_json_get(item, "SpecialToken");
        const char *name = NULL;
        if (special) {
            CRIA_TRY(push_special(component, special, seen ? &out->suffix : &out->prefix, err));
            continue;
        }
        CRIA_TRY(cria_json_get_string(cria_json_get(item, "Sequence"), "id", "", &name, err));
        if (strcmp(name, "A") != 0 || seen) return cria_component_unknown(stage, "with this template", err);
        seen = true;
    }
    return seen ? CRIA_OK : cria_component_unknown(stage, "whose template leaves the text out", err);
}

/* "cls": ["<s>", 0], "sep": ["</s>", 2] */
static cria_status parse_pair(const cria_json_value *component, const char *key, cria_ids *ids, cria_error *err) {
    const cria_json_value *first = cria_json_first(cria_json_get(component, key));
    return push(ids, first ? cria_json_next(first) : NULL, err);
}

static cria_status parse_one(const cria_json_value *component, const char *type, cria_template *out, cria_error *err) {
    if (strcmp(type, "ByteLevel") == 0) return CRIA_OK; /* changes offsets only */
    if (strcmp(type, "TemplateProcessing") == 0) return parse_template(component, out, err);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        CRIA_TRY(parse_pair(component, "cls", &out->prefix, err));
        return parse_pair(component, "sep", &out->suffix, err);
    }
    return cria_component_unknown(stage, type, err);
}

cria_status cria_template_parse(const cria_json_value *component, cria_template *out, cria_error *err) {
    const char *type = NULL;
    if (cria_json_type_of(component) == CRIA_JSON_NULL) return CRIA_OK;
    CRIA_TRY(cria_component_type(component, stage, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const cria_json_value *list = cria_json_get(component, "processors");
        for (const cria_json_value *c = cria_json_first(list); c; c = cria_json_next(c)) {
            CRIA_TRY(cria_template_parse(c, out, err));
        }
        return CRIA_OK;
    }
    /* What Hugging Face does with two of them is of no use to anybody: the second works on every token of the first. */
    bool has_ids = out->prefix.count + out->suffix.count > 0;
    if (has_ids && strcmp(type, "ByteLevel") != 0) {
        return cria_component_unknown(stage, "Sequence of several that add tokens", err);
    }
    return parse_one(component, type, out, err);
}
