/* SentencePiece models: their pieces as a vocabulary, their control pieces as special tokens, their way with spaces. */
#include "tokenizer/internal.h"

#include <string.h>

/* Finds out from the library itself whether decoding takes off a first space, and all that follow it. */
static void probe_spaces(const cria_sentencepiece *sentencepiece, bool *first, bool *more) {
    char text[256];
    int32_t bare = -1, word = -1;
    for (int32_t id = 0; id < cria_sentencepiece_size(sentencepiece) && (bare < 0 || word < 0); id++) {
        size_t length = 0;
        cria_piece_type type;
        const char *piece = cria_sentencepiece_piece(sentencepiece, id, &length, &type);
        if (type != CRIA_PIECE_NORMAL || length < 3 || memcmp(piece, "\xE2\x96\x81", 3) != 0) continue;
        if (length == 3) {
            bare = id;
        } else {
            word = id;
        }
    }
    int32_t two[2] = {bare, word >= 0 ? word : bare};
    *first =
        cria_sentencepiece_decode(sentencepiece, &two[1], two[1] >= 0, text, sizeof text) > 0 ? text[0] != ' ' : true;
    *more = bare >= 0 && cria_sentencepiece_decode(sentencepiece, two, 2, text, sizeof text) > 0 && text[0] != ' ';
}

cria_status cria_tokenizer_read_sentencepiece(cria_tokenizer *tokenizer, const void *model, size_t size,
                                              cria_error *err) {
    char message[160] = "";
    cria_sentencepiece *sentencepiece = cria_sentencepiece_open(model, size, message, sizeof message);
    if (!sentencepiece) return cria_fail(err, CRIA_ERR_FORMAT, "not a SentencePiece model: %s", message);
    tokenizer->sentencepiece = sentencepiece;
    for (int32_t id = 0; id < cria_sentencepiece_size(sentencepiece); id++) {
        size_t length = 0;
        cria_piece_type type;
        const char *piece = cria_sentencepiece_piece(sentencepiece, id, &length, &type);
        CRIA_TRY(cria_vocabulary_add(tokenizer->vocabulary, id, piece, length, err));
        if (type != CRIA_PIECE_CONTROL && type != CRIA_PIECE_UNKNOWN) continue;
        cria_added_flags flags = {.special = true};
        CRIA_TRY(cria_added_add(tokenizer->added, tokenizer->vocabulary, piece, length, flags, id, err));
    }
    bool first = true, more = false;
    probe_spaces(sentencepiece, &first, &more);
    tokenizer->decoder = cria_decoder_sentencepiece(first, more);
    if (!tokenizer->decoder) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a decoder");
    tokenizer->bos = cria_sentencepiece_bos(sentencepiece);
    tokenizer->eos = cria_sentencepiece_eos(sentencepiece);
    return cria_tokenizer_set_template(tokenizer, true, false, err);
}
