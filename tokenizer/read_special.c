/* Special tokens from the files beside a vocabulary, with the precedence that transformers gives them:
 * tokenizer_config.json's added_tokens_decoder, else special_tokens_map.json and added_tokens.json; then the named
 * ones. */
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

static const char *const named[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};

/* Text and object of a token that is given as a string or as an AddedToken object; NULL if it is neither. */
static const char *token_text(const cria_json_value *token, size_t *length) {
    if (cria_json_type_of(token) == CRIA_JSON_STRING) return cria_json_text(token, length);
    const cria_json_value *content = cria_json_get(token, "content");
    return cria_json_type_of(content) == CRIA_JSON_STRING ? cria_json_text(content, length) : NULL;
}

static cria_status add_special(cria_tokenizer *tokenizer, const cria_json_value *token, cria_error *err) {
    size_t length = 0;
    const char *text = token_text(token, &length);
    if (!text) return CRIA_OK;
    cria_added_flags flags = {.special = true};
    int32_t known = cria_vocabulary_find(cria_added_vocabulary(tokenizer->added), text, length);
    if (known >= 0) {
        /* The flags that a token got from a list of added tokens stay. */
        cria_added_find(tokenizer->added, known, &flags);
    } else if (cria_json_type_of(token) == CRIA_JSON_OBJECT) {
        CRIA_TRY(cria_tokenizer_token_flags(token, false, &flags, err));
    }
    flags.special = true;
    return cria_added_add(tokenizer->added, tokenizer->vocabulary, text, length, flags, -1, err);
}

typedef struct {
    int64_t id;
    const cria_json_value *token;
} numbered;

static int by_id(const void *a, const void *b) {
    int64_t x = ((const numbered *)a)->id, y = ((const numbered *)b)->id;
    return (x > y) - (x < y);
}

/* "added_tokens_decoder": {"0": {"content": "<unk>", ...}} */
static cria_status add_numbered(cria_tokenizer *tokenizer, const cria_json_value *decoder, cria_error *err) {
    size_t count = cria_json_size(decoder), i = 0;
    cria_status status = CRIA_OK;
    numbered *tokens = calloc(count ? count : 1, sizeof *tokens);
    if (!tokens) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %zu added tokens", count);
    for (const cria_json_value *t = cria_json_first(decoder); t && i < count; t = cria_json_next(t)) {
        char *end = NULL;
        const char *key = cria_json_key(t);
        tokens[i].id = strtoll(key, &end, 10);
        tokens[i++].token = t;
        if (end == key || *end || tokens[i - 1].id < 0 || tokens[i - 1].id > CRIA_MAX_TOKEN_ID) {
            status =
                cria_fail(err, CRIA_ERR_FORMAT, "tokenizer_config.json: added_tokens_decoder: \"%.40s\" is no id", key);
            break;
        }
    }
    if (status == CRIA_OK) qsort(tokens, count, sizeof *tokens, by_id);
    for (size_t k = 0; k < i && status == CRIA_OK; k++) {
        cria_added_flags flags = {0};
        size_t length = 0;
        const char *text = token_text(tokens[k].token, &length);
        if (!text) continue;
        status = cria_tokenizer_token_flags(tokens[k].token, false, &flags, err);
        if (status != CRIA_OK) break;
        status =
            cria_added_add(tokenizer->added, tokenizer->vocabulary, text, length, flags, (int32_t)tokens[k].id, err);
    }
    free(tokens);
    return status;
}

/* Whether one of the named or listed tokens has this text. */
static bool is_named(const cria_json_value *holder, const char *text) {
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        size_t length = 0;
        const char *name = token_text(cria_json_get(holder, named[i]), &length);
        if (name && strcmp(name, text) == 0) return true;
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const cria_json_value *list = cria_json_get(holder, lists[i]);
        for (const cria_json_value *t = cria_json_first(list); t; t = cria_json_next(t)) {
            size_t length = 0;
            const char *name = token_text(t, &length);
            if (name && strcmp(name, text) == 0) return true;
        }
    }
    return false;
}

/* added_tokens.json: {"<token>": id} */
static cria_status add_legacy(cria_tokenizer *tokenizer, const cria_tokenizer_files *files, cria_error *err) {
    for (const cria_json_value *t = cria_json_first(files->added_tokens); t; t = cria_json_next(t)) {
        const char *text = cria_json_key(t);
        int64_t id = 0;
        if (!cria_json_int(t, &id) || id < 0 || id > CRIA_MAX_TOKEN_ID) {
            return cria_fail(err, CRIA_ERR_FORMAT, "added_tokens.json: the id of \"%.80s\" is not an id", text);
        }
        if (cria_vocabulary_find(cria_added_vocabulary(tokenizer->added), text, strlen(text)) >= 0) continue;
        bool special = is_named(files->config, text) || is_named(files->special_map, text);
        cria_added_flags flags = {.special = special, .normalized = !special};
        CRIA_TRY(cria_added_add(tokenizer->added, tokenizer->vocabulary, text, strlen(text), flags, (int32_t)id, err));
    }
    return CRIA_OK;
}

/* A named token: tokenizer_config.json says, special_tokens_map.json overrides where it counts. */
static const cria_json_value *named_token(const cria_tokenizer_files *files, const char *name) {
    bool map_counts = !cria_json_get(files->config, "added_tokens_decoder");
    const cria_json_value *token = map_counts ? cria_json_get(files->special_map, name) : NULL;
    return token ? token : cria_json_get(files->config, name);
}

static int32_t named_id(const cria_tokenizer *tokenizer, const cria_tokenizer_files *files, const char *name,
                        const char *config_key) {
    size_t length = 0;
    const char *text = token_text(named_token(files, name), &length);
    if (text) return cria_tokenizer_find(tokenizer, text, length);
    const cria_json_value *id = cria_json_get(files->model_config, config_key);
    if (cria_json_type_of(id) == CRIA_JSON_ARRAY) id = cria_json_first(id);
    int64_t value = -1;
    if (!cria_json_int(id, &value) || value < 0 || (size_t)value >= cria_tokenizer_size(tokenizer)) return -1;
    return (int32_t)value;
}

/* A folder with no word on special tokens, of a model that has well-known ones: OPT's. */
static cria_status add_defaults(cria_tokenizer *tokenizer, const cria_tokenizer_files *files, cria_error *err) {
    static const char *const opt[] = {"</s>", "<pad>"};
    const char *type = NULL;
    CRIA_TRY(cria_json_get_string(files->model_config, "model_type", "", &type, err));
    if (strcmp(type, "opt") != 0) return CRIA_OK;
    for (size_t i = 0; i < sizeof opt / sizeof *opt; i++) {
        size_t length = strlen(opt[i]);
        if (cria_tokenizer_find(tokenizer, opt[i], length) < 0) continue;
        cria_added_flags flags = {.special = true, .normalized = true};
        CRIA_TRY(cria_added_add(tokenizer->added, tokenizer->vocabulary, opt[i], length, flags, -1, err));
    }
    tokenizer->bos = tokenizer->eos = cria_tokenizer_find(tokenizer, opt[0], strlen(opt[0]));
    return cria_tokenizer_set_template(tokenizer, true, false, err);
}

/* tokenizer.json gives the post-processor's ids as numbers: they may be anything. */
static cria_status check_template(const cria_tokenizer *tokenizer, cria_error *err) {
    const cria_ids *const lists_of_ids[] = {&tokenizer->post.prefix, &tokenizer->post.suffix};
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < lists_of_ids[l]->count; i++) {
            int32_t id = lists_of_ids[l]->ids[i];
            if ((size_t)id < cria_tokenizer_size(tokenizer)) continue;
            return cria_fail(err, CRIA_ERR_FORMAT,
                             "tokenizer.json: the post_processor's id %d is outside the vocabulary of %zu tokens", id,
                             cria_tokenizer_size(tokenizer));
        }
    }
    return CRIA_OK;
}

cria_status cria_tokenizer_read_special(cria_tokenizer *tokenizer, const cria_tokenizer_files *files, cria_error *err) {
    const cria_json_value *decoder = cria_json_get(files->config, "added_tokens_decoder");
    CRIA_TRY(decoder ? add_numbered(tokenizer, decoder, err) : add_legacy(tokenizer, files, err));
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        CRIA_TRY(add_special(tokenizer, named_token(files, named[i]), err));
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const cria_json_value *list = named_token(files, lists[i]);
        for (const cria_json_value *t = cria_json_first(list); t; t = cria_json_next(t)) {
            CRIA_TRY(add_special(tokenizer, t, err));
        }
    }
    int32_t bos = named_id(tokenizer, files, "bos_token", "bos_token_id");
    int32_t eos = named_id(tokenizer, files, "eos_token", "eos_token_id");
    if (bos >= 0) tokenizer->bos = bos;
    if (eos >= 0) tokenizer->eos = eos;
    if (!files->config && !files->special_map && tokenizer->post.prefix.count == 0) {
        CRIA_TRY(add_defaults(tokenizer, files, err));
    }
    if (!cria_json_get(files->config, "add_bos_token") && !cria_json_get(files->config, "add_eos_token")) {
        return check_template(tokenizer, err); /* the post-processor stays as it is */
    }
    bool add_bos = false, add_eos = false;
    CRIA_TRY(cria_json_get_bool(files->config, "add_bos_token", tokenizer->sentencepiece != NULL, &add_bos, err));
    CRIA_TRY(cria_json_get_bool(files->config, "add_eos_token", false, &add_eos, err));
    return cria_tokenizer_set_template(tokenizer, add_bos, add_eos, err);
}
