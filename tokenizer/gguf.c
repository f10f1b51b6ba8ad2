/* Tokenizers from GGUF metadata: byte-level BPE ("gpt2") and SentencePiece's BPE by scores ("llama"), as llama.cpp
 * names them. */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

#define BYTE_LEVEL(use_regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":" use_regex "}"
#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\"}"
#define SEQUENCE(...) "{\"type\":\"Sequence\",\"pretokenizers\":[" __VA_ARGS__ "]}"

static const char gpt2[] = BYTE_LEVEL("true");
static const char smollm[] = SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}," BYTE_LEVEL("true"));
static const char llama3[] = SEQUENCE(SPLIT(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") "," BYTE_LEVEL("false"));
/* What llama.cpp does with vocabularies that name no pre-tokenizer. */
static const char unnamed[] = SEQUENCE(SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+") "," SPLIT(
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| "
    "?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)") "," SPLIT("\\\\p{N}+") "," SPLIT("[0-9][0-9][0-9]") "," BYTE_LEVEL("f"
                                                                                                                     "a"
                                                                                                                     "l"
                                                                                                                     "s"
                                                                                                                     "e"));

static const struct {
    const char *name, *json;
    bool ignore_merges, add_bos;
} pretokenizers[] = {
    {"gpt-2", gpt2, false, false},  {"smollm", smollm, false, false}, {"llama-bpe", llama3, true, true},
    {"llama3", llama3, true, true}, {"llama-v3", llama3, true, true}, {"default", unnamed, false, false},
};

static const char byte_level_decoder[] = "{\"type\":\"ByteLevel\"}";
static const char llama_decoder[] =
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"},"
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}";
static const char llama_strip[] = ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}";
/* The space that SentencePiece puts first, here before text after an added token too, as llama.cpp does. */
static const char llama_normalizer[] =
    "{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
    "\"content\":\"\u2581\"}]}";
static const char llama_prepend[] = "{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},";

static int32_t type_of(const cria_gguf_vocabulary *v, size_t id) {
    return v->token_types ? v->token_types[id] : TYPE_NORMAL;
}

static cria_status add_tokens(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    if (v->token_count == 0 || v->token_count > CRIA_MAX_TOKEN_ID) {
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.tokens: %zu tokens", v->token_count);
    }
    for (size_t id = 0; id < v->token_count; id++) {
        CRIA_TRY(cria_vocabulary_add(tokenizer->vocabulary, (int32_t)id, v->tokens[id], v->token_lengths[id], err));
    }
    for (size_t id = 0; id < v->token_count; id++) {
        int32_t type = type_of(v, id);
        if (type != TYPE_CONTROL && type != TYPE_USER_DEFINED && type != TYPE_UNKNOWN) continue;
        cria_added_flags flags = {.special = type != TYPE_USER_DEFINED};
        CRIA_TRY(cria_added_add(tokenizer->added, tokenizer->vocabulary, v->tokens[id], v->token_lengths[id], flags,
                                (int32_t)id, err));
    }
    return CRIA_OK;
}

static cria_status check_id(const cria_gguf_vocabulary *v, const char *name, int32_t id, cria_error *err) {
    if (id >= -1 && (id < 0 || (size_t)id < v->token_count)) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.%s is %d, but there are %zu tokens", name, id,
                     v->token_count);
}

static cria_status check_ids(const cria_gguf_vocabulary *v, cria_error *err) {
    CRIA_TRY(check_id(v, "bos_token_id", v->bos, err));
    CRIA_TRY(check_id(v, "eos_token_id", v->eos, err));
    CRIA_TRY(check_id(v, "unknown_token_id", v->unknown, err));
    return check_id(v, "padding_token_id", v->padding, err);
}

static cria_status add_merges(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    for (size_t i = 0; i < v->merge_count; i++) {
        const char *merge = v->merges[i];
        size_t length = v->merge_lengths[i];
        const char *space = length ? memchr(merge + 1, ' ', length - 1) : NULL;
        if (!space) return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.merges: merge %zu has no space", i);
        size_t left = (size_t)(space - merge);
        CRIA_TRY(cria_bpe_add_merge(tokenizer->bpe, merge, left, space + 1, length - left - 1, err));
    }
    return CRIA_OK;
}

static cria_status read_byte_level(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    const char *name = v->pre ? v->pre : "default";
    for (size_t i = 0; i < sizeof pretokenizers / sizeof *pretokenizers; i++) {
        if (strcmp(name, pretokenizers[i].name) != 0) continue;
        cria_bpe_options options = {.unknown = -1, .ignore_merges = pretokenizers[i].ignore_merges};
        tokenizer->bpe = cria_bpe_create(tokenizer->vocabulary, options);
        if (!tokenizer->bpe) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the merges");
        CRIA_TRY(add_merges(tokenizer, v, err));
        CRIA_TRY(cria_tokenizer_set_pretokenizer(tokenizer, pretokenizers[i].json, err));
        CRIA_TRY(cria_tokenizer_set_decoder(tokenizer, byte_level_decoder, err));
        bool add_bos = v->add_bos < 0 ? pretokenizers[i].add_bos : v->add_bos != 0;
        return cria_tokenizer_set_template(tokenizer, add_bos, v->add_eos > 0, err);
    }
    return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.ggml.pre \"%s\" is not supported", name);
}

static cria_status use_scores(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    if (!v->scores) return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.scores is missing");
    bool *mergeable = malloc(v->token_count * sizeof *mergeable);
    if (!mergeable) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the scores");
    for (size_t id = 0; id < v->token_count; id++) {
        int32_t type = type_of(v, id);
        mergeable[id] = type == TYPE_NORMAL || type == TYPE_USER_DEFINED || type == TYPE_UNUSED;
    }
    cria_status status = cria_bpe_use_scores(tokenizer->bpe, v->scores, mergeable, err);
    free(mergeable);
    return status;
}

static cria_status read_scored(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    char json[256];
    cria_bpe_options options = {.unknown = v->unknown, .byte_fallback = true};
    tokenizer->bpe = cria_bpe_create(tokenizer->vocabulary, options);
    if (!tokenizer->bpe) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the scores");
    CRIA_TRY(use_scores(tokenizer, v, err));
    snprintf(json, sizeof json, llama_normalizer, v->no_space_prefix ? "" : llama_prepend);
    CRIA_TRY(cria_tokenizer_set_normalizer(tokenizer, json, err));
    snprintf(json, sizeof json, "%s%s", llama_decoder, v->no_space_prefix ? "]}" : llama_strip);
    CRIA_TRY(cria_tokenizer_set_decoder(tokenizer, json, err));
    return cria_tokenizer_set_template(tokenizer, v->add_bos != 0, v->add_eos > 0, err);
}

static cria_status read_all(cria_tokenizer *tokenizer, const cria_gguf_vocabulary *v, cria_error *err) {
    CRIA_TRY(check_ids(v, err));
    CRIA_TRY(add_tokens(tokenizer, v, err));
    tokenizer->bos = v->bos;
    tokenizer->eos = v->eos;
    const char *model = v->model ? v->model : "(none)";
    if (strcmp(model, "gpt2") == 0) {
        CRIA_TRY(read_byte_level(tokenizer, v, err));
    } else if (strcmp(model, "llama") == 0) {
        CRIA_TRY(read_scored(tokenizer, v, err));
    } else {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "tokenizer.ggml.model \"%s\" is not supported", model);
    }
    return cria_added_finish(tokenizer->added, tokenizer->normalizer, err);
}

cria_status cria_tokenizer_from_gguf(const cria_gguf_vocabulary *vocabulary, cria_tokenizer **out, cria_error *err) {
    *out = NULL;
    cria_tokenizer *tokenizer = cria_tokenizer_create();
    if (!tokenizer) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a tokenizer");
    cria_status status = read_all(tokenizer, vocabulary, err);
    if (status != CRIA_OK) {
        cria_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return CRIA_OK;
}
