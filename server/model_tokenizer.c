/* Hands a checkpoint's vocabulary to the tokenizer, which knows nothing of GGUF files. */
#include "server/model_tokenizer.h"

#include "base/file.h"

/* Copies what the tokenizer wants to know out of GGUF metadata. */
cria_status cria_model_tokenizer_from_gguf(const cria_gguf *gguf, cria_tokenizer **out, cria_error *err) {
    cria_gguf_vocabulary v = {.add_bos = -1, .add_eos = -1};
    size_t count;
    int64_t id;
    bool flag;
    CRIA_TRY(cria_gguf_get_string(gguf, "tokenizer.ggml.model", "", &v.model, err));
    CRIA_TRY(cria_gguf_get_string(gguf, "tokenizer.ggml.pre", NULL, &v.pre, err));
    CRIA_TRY(cria_gguf_get_strings(gguf, "tokenizer.ggml.tokens", &v.tokens, &v.token_lengths, &v.token_count, err));
    CRIA_TRY(cria_gguf_get_ints(gguf, "tokenizer.ggml.token_type", &v.token_types, &count, err));
    if (v.token_types && count != v.token_count)
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.token_type has %zu entries, tokens %zu", count,
                         v.token_count);
    CRIA_TRY(cria_gguf_get_floats(gguf, "tokenizer.ggml.scores", &v.scores, &count, err));
    if (v.scores && count != v.token_count)
        return cria_fail(err, CRIA_ERR_FORMAT, "tokenizer.ggml.scores has %zu entries, tokens %zu", count,
                         v.token_count);
    CRIA_TRY(cria_gguf_get_strings(gguf, "tokenizer.ggml.merges", &v.merges, &v.merge_lengths, &v.merge_count, err));
    const struct {
        const char *key;
        int32_t *to;
    } ids[] = {{"tokenizer.ggml.bos_token_id", &v.bos},
               {"tokenizer.ggml.eos_token_id", &v.eos},
               {"tokenizer.ggml.unknown_token_id", &v.unknown},
               {"tokenizer.ggml.padding_token_id", &v.padding}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        CRIA_TRY(cria_gguf_get_int(gguf, ids[i].key, -1, -1, INT32_MAX, &id, err));
        *ids[i].to = (int32_t)id;
    }
    if (cria_gguf_type_of(gguf, "tokenizer.ggml.add_bos_token") != CRIA_GGUF_ABSENT) {
        CRIA_TRY(cria_gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", false, &flag, err));
        v.add_bos = flag;
    }
    if (cria_gguf_type_of(gguf, "tokenizer.ggml.add_eos_token") != CRIA_GGUF_ABSENT) {
        CRIA_TRY(cria_gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", false, &flag, err));
        v.add_eos = flag;
    }
    CRIA_TRY(cria_gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", true, &flag, err));
    v.no_space_prefix = !flag;
    return cria_tokenizer_from_gguf(&v, out, err);
}

cria_status cria_model_tokenizer_open(const char *path, cria_tokenizer **out, cria_error *err) {
    if (!cria_path_is_file(path)) return cria_tokenizer_open(path, out, err);
    cria_mapping mapping;
    CRIA_TRY(cria_mapping_open(path, &mapping, err));
    cria_gguf *gguf;
    cria_status status = cria_gguf_parse(path, mapping.data, mapping.size, &gguf, err);
    if (status == CRIA_OK) {
        status = cria_model_tokenizer_from_gguf(gguf, out, err);
        cria_gguf_destroy(gguf);
    }
    cria_mapping_close(&mapping);
    return status;
}
