/* The parts of reading a BPE model that its several sources share. For the tokenizer's own files. */
#ifndef CRIA_TOKENIZER_READ_BPE_H
#define CRIA_TOKENIZER_READ_BPE_H

#include "tokenizer/internal.h"

/* An object from token to id. */
cria_status cria_tokenizer_read_vocabulary(cria_tokenizer *tokenizer, const cria_json_value *vocabulary,
                                           cria_error *err);
/* "left right" */
cria_status cria_tokenizer_add_merge_line(cria_tokenizer *tokenizer, const char *line, size_t length, cria_error *err);

#endif
