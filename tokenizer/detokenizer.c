/* Decoding: all ids at once, or one by one as they are generated. */
#include "tokenizer/internal.h"

#include <stdlib.h>

struct cria_detokenizer {
    const cria_tokenizer *tokenizer;
    cria_decode_stream *stream;
    bool skip_special;
};

/* An id that no entry belongs to adds nothing: a model's embedding may have more rows than the vocabulary has entries.
 */
static void push(const cria_tokenizer *tokenizer, cria_decode_stream *stream, bool skip_special, int32_t id,
                 cria_text *out) {
    size_t length = 0;
    const char *entry = cria_added_text(tokenizer->added, id, &length);
    if (!entry) entry = cria_vocabulary_entry(tokenizer->vocabulary, id, &length);
    if (!entry || (skip_special && cria_tokenizer_is_special(tokenizer, id))) return;
    cria_decode_stream_push(stream, entry, length, out);
}

cria_status cria_tokenizer_decode(const cria_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                  cria_text *out, cria_error *err) {
    size_t size = cria_tokenizer_size(tokenizer);
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= size) {
            return cria_fail(err, CRIA_ERR_ARGUMENT, "token id %d at position %zu is outside 0..%zu", ids[i], i,
                             size ? size - 1 : 0);
        }
    }
    cria_decode_stream *stream = cria_decode_stream_create(tokenizer->decoder);
    if (!stream) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to decode %zu ids", count);
    for (size_t i = 0; i < count; i++) push(tokenizer, stream, skip_special, ids[i], out);
    cria_decode_stream_finish(stream, out);
    cria_decode_stream_destroy(stream);
    return out->failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the text of %zu ids", count) : CRIA_OK;
}

cria_detokenizer *cria_detokenizer_create(const cria_tokenizer *tokenizer, bool skip_special,
                                          const int32_t *context_ids, size_t context_count) {
    cria_detokenizer *detokenizer = calloc(1, sizeof *detokenizer);
    if (!detokenizer) return NULL;
    detokenizer->tokenizer = tokenizer;
    detokenizer->skip_special = skip_special;
    detokenizer->stream = cria_decode_stream_create(tokenizer->decoder);
    cria_text past = {0};
    for (size_t i = 0; detokenizer->stream && i < context_count; i++) {
        push(tokenizer, detokenizer->stream, skip_special, context_ids[i], &past);
    }
    if (detokenizer->stream) cria_decode_stream_forget(detokenizer->stream);
    bool failed = !detokenizer->stream || past.failed;
    cria_text_deinit(&past);
    if (failed) {
        cria_detokenizer_destroy(detokenizer);
        return NULL;
    }
    return detokenizer;
}

void cria_detokenizer_destroy(cria_detokenizer *detokenizer) {
    if (!detokenizer) return;
    cria_decode_stream_destroy(detokenizer->stream);
    free(detokenizer);
}

cria_status cria_detokenizer_push(cria_detokenizer *detokenizer, int32_t id, cria_text *out, cria_error *err) {
    push(detokenizer->tokenizer, detokenizer->stream, detokenizer->skip_special, id, out);
    return out->failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the text of token %d", id) : CRIA_OK;
}

void cria_detokenizer_finish(cria_detokenizer *detokenizer, cria_text *out) {
    cria_decode_stream_finish(detokenizer->stream, out);
}
