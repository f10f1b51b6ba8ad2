/* tokenizer.json: the BPE model, its components and its added tokens. */
#include "tokenizer/read_bpe.h"

#include <string.h>

static cria_status read_merges(cria_tokenizer *tokenizer, const cria_json_value *merges, cria_error *err) {
    for (const cria_json_value *m = cria_json_first(merges); m; m = cria_json_next(m)) {
        if (cria_json_type_of(m) == CRIA_JSON_STRING) {
            size_t length = 0;
            const char *line = cria_json_text(m, &length);
            CRIA_TRY(cria_tokenizer_add_merge_line(tokenizer, line, length, err));
            continue;
        }
        const cria_json_value *left = cria_json_first(m), *right = left ? cria_json_next(left) : NULL;
        if (cria_json_type_of(left) != CRIA_JSON_STRING || cria_json_type_of(right) != CRIA_JSON_STRING ||
            cria_json_next(right)) {
            return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: a merge is not a pair of strings");
        }
        size_t a = 0, b = 0;
        const char *first = cria_json_text(left, &a), *second = cria_json_text(right, &b);
        CRIA_TRY(cria_bpe_add_merge(tokenizer->bpe, first, a, second, b, err));
    }
    return CRIA_OK;
}

/* Members that would change the ids and that no tokenizer of the supported families has. */
static cria_status check_unsupported(const cria_json_value *model, cria_error *err) {
    static const char *const keys[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout = 0;
    CRIA_TRY(cria_json_get_double(model, "dropout", 0, 0, 1, &dropout, err));
    if (dropout > 0) return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.json: model dropout is not supported");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = NULL;
        CRIA_TRY(cria_json_get_string(model, keys[i], "", &value, err));
        if (*value) return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.json: model %s is not supported", keys[i]);
    }
    return CRIA_OK;
}

static cria_status read_model(cria_tokenizer *tokenizer, const cria_json_value *model, cria_error *err) {
    const char *type = NULL, *unknown = NULL;
    if (cria_json_type_of(model) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: there is no model");
    }
    /* Files from before 2020 name no type; only BPE has merges. */
    CRIA_TRY(cria_json_get_string(model, "type", cria_json_get(model, "merges") ? "BPE" : "(none)", &type, err));
    if (strcmp(type, "BPE") != 0) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.json: model %s is not supported", type);
    }
    CRIA_TRY(check_unsupported(model, err));
    CRIA_TRY(cria_tokenizer_read_vocabulary(tokenizer, cria_json_get(model, "vocab"), err));
    cria_bpe_options options = {.unknown = -1};
    CRIA_TRY(cria_json_get_bool(model, "fuse_unk", false, &options.fuse_unknown, err));
    CRIA_TRY(cria_json_get_bool(model, "byte_fallback", false, &options.byte_fallback, err));
    CRIA_TRY(cria_json_get_bool(model, "ignore_merges", false, &options.ignore_merges, err));
    CRIA_TRY(cria_json_get_string(model, "unk_token", NULL, &unknown, err));
    if (unknown) {
        options.unknown = cria_vocabulary_find(tokenizer->vocabulary, unknown, strlen(unknown));
        if (options.unknown < 0) {
            return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: unk_token \"%s\" is not in the vocabulary",
                             unknown);
        }
    }
    tokenizer->bpe = cria_bpe_create(tokenizer->vocabulary, options);
    if (!tokenizer->bpe) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the merges");
    return read_merges(tokenizer, cria_json_get(model, "merges"), err);
}

static cria_status read_added(cria_tokenizer *tokenizer, const cria_json_value *list, cria_error *err) {
    for (const cria_json_value *token = cria_json_first(list); token; token = cria_json_next(token)) {
        int64_t id = -1;
        cria_added_flags flags = {0};
        size_t length = 0;
        const cria_json_value *content = cria_json_get(token, "content");
        if (cria_json_type_of(content) != CRIA_JSON_STRING) {
            return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json: an added token has no content");
        }
        const char *text = cria_json_text(content, &length);
        CRIA_TRY(cria_json_get_int(token, "id", -1, -1, CRIA_MAX_TOKEN_ID, &id, err));
        CRIA_TRY(cria_tokenizer_token_flags(token, false, &flags, err));
        CRIA_TRY(cria_added_add(tokenizer->added, tokenizer->vocabulary, text, length, flags, (int32_t)id, err));
    }
    return CRIA_OK;
}

cria_status cria_tokenizer_token_flags(const cria_json_value *token, bool special, cria_added_flags *flags,
                                       cria_error *err) {
    CRIA_TRY(cria_json_get_bool(token, "special", special, &flags->special, err));
    CRIA_TRY(cria_json_get_bool(token, "normalized", !flags->special, &flags->normalized, err));
    CRIA_TRY(cria_json_get_bool(token, "lstrip", false, &flags->lstrip, err));
    CRIA_TRY(cria_json_get_bool(token, "rstrip", false, &flags->rstrip, err));
    return cria_json_get_bool(token, "single_word", false, &flags->single_word, err);
}

cria_status cria_tokenizer_read_json(cria_tokenizer *tokenizer, const cria_json_value *root, cria_error *err) {
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.json is not an object");
    }
    CRIA_TRY(read_model(tokenizer, cria_json_get(root, "model"), err));
    CRIA_TRY(cria_normalizer_parse(cria_json_get(root, "normalizer"), &tokenizer->normalizer, err));
    CRIA_TRY(cria_pretokenizer_parse(cria_json_get(root, "pre_tokenizer"), &tokenizer->pretokenizer, err));
    CRIA_TRY(cria_template_parse(cria_json_get(root, "post_processor"), &tokenizer->post, err));
    CRIA_TRY(cria_decoder_parse(cria_json_get(root, "decoder"), &tokenizer->decoder, err));
    return read_added(tokenizer, cria_json_get(root, "added_tokens"), err);
}
