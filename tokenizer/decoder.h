/* Decoder: a chain of stages that turns token texts into text piece by piece, as tokenizer.json lists them. Decoding
 * all at once is pushing all tokens and finishing, so that streaming cannot differ from it. */
#ifndef CRIA_TOKENIZER_DECODER_H
#define CRIA_TOKENIZER_DECODER_H

#include "base/json.h"
#include "base/text.h"

#include <stdint.h>

typedef struct cria_decoder cria_decoder; /* immutable once made; any thread */

/* `component` is tokenizer.json's "decoder"; absent or null joins tokens with spaces, as Hugging Face does. Known:
 * Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace. */
cria_status cria_decoder_parse(const cria_json_value *component, cria_decoder **out, cria_error *err);
/* Decodes as the SentencePiece library does. `strip_first`: the space that encoding puts first is taken off;
 * `strip_more`: and any that follow it. */
cria_decoder *cria_decoder_sentencepiece(bool strip_first, bool strip_more); /* NULL if memory is out */
void cria_decoder_destroy(cria_decoder *decoder);

/* Appends the bytes that one token stands for by itself. */
void cria_decoder_token_bytes(const cria_decoder *decoder, const char *token, size_t length, cria_text *out);

/* The state of one text being decoded; one thread at a time. */
typedef struct cria_decode_stream cria_decode_stream;
cria_decode_stream *cria_decode_stream_create(const cria_decoder *decoder); /* NULL if memory is out */
void cria_decode_stream_destroy(cria_decode_stream *stream);
/* Takes the next token and appends to *out what is certain; always whole code points. */
void cria_decode_stream_push(cria_decode_stream *stream, const char *token, size_t length, cria_text *out);
/* What still waits belongs to a text that was given out already (a prompt's): only an incomplete code point stays. */
void cria_decode_stream_forget(cria_decode_stream *stream);
/* Appends what is left. The stream takes no more tokens. */
void cria_decode_stream_finish(cria_decode_stream *stream, cria_text *out);

#endif
