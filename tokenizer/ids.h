/* Growing arrays of ids, for the tokenizer's own files. One thread at a time. */
#ifndef CRIA_TOKENIZER_IDS_H
#define CRIA_TOKENIZER_IDS_H

#include "tokenizer/tokenizer.h"

/* Appends one id; false if memory is out. */
bool cria_ids_push(cria_ids *ids, int32_t id);
bool cria_ids_append(cria_ids *ids, const int32_t *more, size_t count);

#endif
