/* SentencePiece: a C interface to the library. The only module that includes its headers. Any thread once opened. */
#ifndef CRIA_TOKENIZER_SENTENCEPIECE_SHIM_H
#define CRIA_TOKENIZER_SENTENCEPIECE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cria_sentencepiece cria_sentencepiece;

/* Opens the bytes of a .model file. NULL with a message in error[size] if the library refuses them. */
cria_sentencepiece *cria_sentencepiece_open(const void *model, size_t size, char *error, size_t error_size);
void cria_sentencepiece_destroy(cria_sentencepiece *sentencepiece);

typedef enum {
    CRIA_PIECE_NORMAL,
    CRIA_PIECE_UNKNOWN,
    CRIA_PIECE_CONTROL,
    CRIA_PIECE_UNUSED,
    CRIA_PIECE_BYTE
} cria_piece_type;

int32_t cria_sentencepiece_size(const cria_sentencepiece *sentencepiece);
/* The piece of an id below the size, borrowed. */
const char *cria_sentencepiece_piece(const cria_sentencepiece *sentencepiece, int32_t id, size_t *length,
                                     cria_piece_type *type);
/* -1 where the model has none. */
int32_t cria_sentencepiece_bos(const cria_sentencepiece *sentencepiece);
int32_t cria_sentencepiece_eos(const cria_sentencepiece *sentencepiece);

typedef bool cria_sentencepiece_sink(void *context, const int32_t *ids, size_t count);
/* Encodes valid UTF-8, with or without the space that the model puts first, and hands the ids to `sink`. False if the
 * library fails, memory is out, or the sink returned false. */
bool cria_sentencepiece_encode(const cria_sentencepiece *sentencepiece, bool prefix, const char *text, size_t length,
                               cria_sentencepiece_sink *sink, void *context);
/* Decodes ids as the library does, for finding out how it treats spaces; the text goes to out[size], cut if longer.
 * Returns its length, -1 if it failed. */
int64_t cria_sentencepiece_decode(const cria_sentencepiece *sentencepiece, const int32_t *ids, size_t count, char *out,
                                  size_t size);

#ifdef __cplusplus
}
#endif

#endif
