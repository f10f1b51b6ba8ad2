/* The parts of a tokenizer, for the files that make one and the files that run it. */
#ifndef CRIA_TOKENIZER_INTERNAL_H
#define CRIA_TOKENIZER_INTERNAL_H

#include "base/json.h"
#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/sentencepiece_shim.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

struct cria_tokenizer {
    cria_vocabulary *vocabulary; /* the model's own entries */
    cria_added *added;
    cria_normalizer *normalizer;     /* NULL: none */
    cria_pretokenizer *pretokenizer; /* NULL: none */
    cria_bpe *bpe;                   /* one of bpe and sentencepiece */
    cria_sentencepiece *sentencepiece;
    bool prefix_every_piece; /* SentencePiece: a space is put before text after an added token too */
    cria_template post;
    cria_decoder *decoder;
    int32_t bos, eos; /* -1: none */
    char *chat_template, *config_json;
};

/* An empty tokenizer with a vocabulary and no added tokens; NULL if memory is out. */
cria_tokenizer *cria_tokenizer_create(void);

/* Parses a component given as JSON text, for the tokenizers whose components are fixed. */
cria_status cria_tokenizer_set_pretokenizer(cria_tokenizer *tokenizer, const char *json, cria_error *err);
cria_status cria_tokenizer_set_normalizer(cria_tokenizer *tokenizer, const char *json, cria_error *err);
cria_status cria_tokenizer_set_decoder(cria_tokenizer *tokenizer, const char *json, cria_error *err);

/* Puts BOS before and EOS after a text, instead of what was there. */
cria_status cria_tokenizer_set_template(cria_tokenizer *tokenizer, bool add_bos, bool add_eos, cria_error *err);

/* tokenizer.json's root object: everything but what the files beside it say. */
cria_status cria_tokenizer_read_json(cria_tokenizer *tokenizer, const cria_json_value *root, cria_error *err);
/* The bytes of vocab.json's root object and of merges.txt, as GPT-2 has them. */
cria_status cria_tokenizer_read_bpe(cria_tokenizer *tokenizer, const cria_json_value *vocabulary, const char *merges,
                                    size_t merges_length, cria_error *err);
/* The bytes of a SentencePiece model. */
cria_status cria_tokenizer_read_sentencepiece(cria_tokenizer *tokenizer, const void *model, size_t size,
                                              cria_error *err);

/* The flags of an AddedToken object; `special` where it does not say. */
cria_status cria_tokenizer_token_flags(const cria_json_value *token, bool special, cria_added_flags *flags,
                                       cria_error *err);

/* The files beside the vocabulary, parsed; NULL for one that is not there. */
typedef struct {
    const cria_json_value *config;       /* tokenizer_config.json */
    const cria_json_value *special_map;  /* special_tokens_map.json */
    const cria_json_value *added_tokens; /* added_tokens.json */
    const cria_json_value *model_config; /* config.json */
} cria_tokenizer_files;
/* Adds the special and added tokens that those files name and finds BOS, EOS and what is put around a text. Afterwards
 * cria_added_finish is due. */
cria_status cria_tokenizer_read_special(cria_tokenizer *tokenizer, const cria_tokenizer_files *files, cria_error *err);

#endif
