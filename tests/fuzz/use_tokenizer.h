/* What the fuzz targets of the tokenizer readers share: whatever a file made of it, a tokenizer encodes and decodes. */
#ifndef CRIA_TESTS_FUZZ_USE_TOKENIZER_H
#define CRIA_TESTS_FUZZ_USE_TOKENIZER_H

#include "base/utf8.h"
#include "tests/fuzz/require.h"
#include "tokenizer/internal.h"

#include <stdlib.h>
#include <string.h>

/* The streamed pieces are the whole text. */
static inline void decode_both_ways(const cria_tokenizer *tokenizer, const cria_ids *ids, bool skip_special) {
    cria_text whole = {0}, pieces = {0};
    cria_error err = {0};
    cria_status status = cria_tokenizer_decode(tokenizer, ids->ids, ids->count, skip_special, &whole, &err);
    require(status == CRIA_OK || err.message[0]);
    cria_detokenizer *stream = cria_detokenizer_create(tokenizer, skip_special, NULL, 0);
    require(stream);
    for (size_t i = 0; i < ids->count; i++) {
        size_t before = pieces.length;
        if (cria_detokenizer_push(stream, ids->ids[i], &pieces, &err) != CRIA_OK) break;
        require(cria_utf8_valid(pieces.data ? pieces.data + before : "", pieces.length - before));
    }
    cria_detokenizer_finish(stream, &pieces);
    cria_detokenizer_destroy(stream);
    if (status == CRIA_OK) {
        require(whole.length == pieces.length);
        require(!whole.length || memcmp(whole.data, pieces.data, whole.length) == 0);
    }
    cria_text_deinit(&whole);
    cria_text_deinit(&pieces);
}

static inline void use_tokenizer(const cria_tokenizer *tokenizer) {
    static const char *const texts[] = {"",
                                        "a",
                                        " Hello world  ab ab",
                                        "</s><s>x<unk>",
                                        "1234 \xC3\xA9\xF0\x9F\x98\x80\n\n",
                                        "don't  \t\xE2\x96\x81 x"};
    for (size_t i = 0; i < 2 * sizeof texts / sizeof *texts; i++) {
        cria_ids ids = {0};
        cria_error err = {0};
        cria_encode_options options = {.add_special = i % 2 == 0, .parse_special = i % 2 == 0};
        const char *text = texts[i / 2];
        cria_status status = cria_tokenizer_encode(tokenizer, text, strlen(text), options, 4096, &ids, &err);
        require(status == CRIA_OK || err.message[0]);
        size_t size = cria_tokenizer_size(tokenizer);
        for (size_t k = 0; status == CRIA_OK && k < ids.count; k++)
            require(ids.ids[k] >= 0 && (size_t)ids.ids[k] < size);
        if (status == CRIA_OK) decode_both_ways(tokenizer, &ids, i % 2 == 1);
        cria_ids_deinit(&ids);
    }
    /* Every entry can be looked at, and is found again under its name. */
    for (size_t id = 0; id < cria_tokenizer_size(tokenizer) && id < 300; id++) {
        size_t length = 0;
        const char *entry = cria_tokenizer_entry(tokenizer, (int32_t)id, &length);
        cria_text bytes = {0};
        cria_tokenizer_token_bytes(tokenizer, (int32_t)id, &bytes);
        cria_text_deinit(&bytes);
        if (entry) require(cria_tokenizer_find(tokenizer, entry, length) >= 0);
    }
}

#endif
