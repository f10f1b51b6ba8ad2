/* Byte-level BPE from vocab.json and merges.txt, and the BPE model inside tokenizer.json. */
#include "tokenizer/read_bpe.h"

#include <string.h>

static const char byte_level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";

cria_status cria_tokenizer_read_vocabulary(cria_tokenizer *tokenizer, const cria_json_value *vocabulary,
                                           cria_error *err) {
    if (cria_json_type_of(vocabulary) != CRIA_JSON_OBJECT) {
        return cria_fail(err, CRIA_ERR_FORMAT, "the vocabulary is not an object from token to id");
    }
    for (const cria_json_value *v = cria_json_first(vocabulary); v; v = cria_json_next(v)) {
        const char *text = cria_json_key(v);
        int64_t id = 0;
        if (!cria_json_int(v, &id) || id < 0 || id > CRIA_MAX_TOKEN_ID) {
            return cria_fail(err, CRIA_ERR_FORMAT, "the id of the token \"%.80s\" is not in 0..%d", text,
                             CRIA_MAX_TOKEN_ID);
        }
        CRIA_TRY(cria_vocabulary_add(tokenizer->vocabulary, (int32_t)id, text, strlen(text), err));
    }
    return CRIA_OK;
}

cria_status cria_tokenizer_add_merge_line(cria_tokenizer *tokenizer, const char *line, size_t length, cria_error *err) {
    const char *space = memchr(line, ' ', length);
    size_t left = space ? (size_t)(space - line) : length;
    if (!space || memchr(space + 1, ' ', length - left - 1)) {
        int shown = length > 80 ? 80 : (int)length;
        return cria_fail(err, CRIA_ERR_FORMAT, "the merge \"%.*s\" is not two tokens with a space between", shown,
                         line);
    }
    return cria_bpe_add_merge(tokenizer->bpe, line, left, space + 1, length - left - 1, err);
}

cria_status cria_tokenizer_read_bpe(cria_tokenizer *tokenizer, const cria_json_value *vocabulary, const char *merges,
                                    size_t merges_length, cria_error *err) {
    CRIA_TRY(cria_tokenizer_read_vocabulary(tokenizer, vocabulary, err));
    tokenizer->bpe = cria_bpe_create(tokenizer->vocabulary, (cria_bpe_options){.unknown = -1});
    if (!tokenizer->bpe) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the merges");
    for (size_t at = 0; at < merges_length;) {
        const char *line = merges + at;
        const char *newline = memchr(line, '\n', merges_length - at);
        size_t length = newline ? (size_t)(newline - line) : merges_length - at;
        at += length + 1;
        if (length && line[length - 1] == '\r') length--;
        bool comment = length >= 8 && memcmp(line, "#version", 8) == 0;
        if (length == 0 || comment) continue;
        CRIA_TRY(cria_tokenizer_add_merge_line(tokenizer, line, length, err));
    }
    CRIA_TRY(cria_tokenizer_set_pretokenizer(tokenizer, byte_level, err));
    return cria_tokenizer_set_decoder(tokenizer, byte_level, err);
}
