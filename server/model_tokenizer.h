/* The tokenizer of a checkpoint: from its folder, or from a GGUF file's metadata. Start-up thread. */
#ifndef CRIA_SERVER_MODEL_TOKENIZER_H
#define CRIA_SERVER_MODEL_TOKENIZER_H

#include "base/error.h"
#include "models/gguf.h"
#include "tokenizer/tokenizer.h"

/* Opens only what the tokenizer needs. */
cria_status cria_model_tokenizer_open(const char *path, cria_tokenizer **out, cria_error *err);
cria_status cria_model_tokenizer_from_gguf(const cria_gguf *gguf, cria_tokenizer **out, cria_error *err);

#endif
