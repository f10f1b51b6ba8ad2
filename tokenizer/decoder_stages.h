/* The stages of a decoder, shared by decoder.c (which reads and owns them) and decode_stream.c (which runs them). */
#ifndef CRIA_TOKENIZER_DECODER_STAGES_H
#define CRIA_TOKENIZER_DECODER_STAGES_H

#include "tokenizer/decoder.h"
#include "tokenizer/regex.h"

typedef enum {
    CRIA_STAGE_JOIN,          /* no decoder: a space between tokens */
    CRIA_STAGE_BYTE_LEVEL,    /* GPT-2's alphabet back to bytes, all tokens to one */
    CRIA_STAGE_BYTE_FALLBACK, /* runs of "<0xXX>" to characters, or to one U+FFFD for each token of the run */
    CRIA_STAGE_FUSE,          /* all tokens to one */
    CRIA_STAGE_REPLACE,       /* a literal, or a regular expression within one token */
    CRIA_STAGE_STRIP,         /* characters off the ends of each token */
    CRIA_STAGE_METASPACE,     /* a character to spaces, dropped in the first token */
    CRIA_STAGE_SENTENCEPIECE  /* bytes, spaces and the first space as the SentencePiece library has them */
} cria_stage_kind;

typedef struct {
    cria_stage_kind kind;
    char *pattern, *content; /* Replace's two; Strip's and Metaspace's character is `pattern` */
    size_t pattern_length, content_length;
    cria_regex *regex;   /* Replace with a regular expression */
    int64_t start, stop; /* Strip */
    bool drop_first, drop_more;
    bool after_fuse; /* the tokens have become one before this stage */
} cria_stage;

enum { CRIA_MAX_STAGES = 32 };

struct cria_decoder {
    cria_stage stages[CRIA_MAX_STAGES];
    size_t count;
    size_t growth; /* how many times as long Replace stages may make a token, while the stages are read */
};

#define CRIA_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define CRIA_LOWER_BLOCK "\xE2\x96\x81" /* U+2581, SentencePiece's space */

/* Appends text with each match of a Replace stage replaced. */
void cria_stage_replace(const cria_stage *stage, const char *text, size_t length, cria_text *out);

#endif
