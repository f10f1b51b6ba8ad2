/* Normalizer: what is done to a text before it is split, as tokenizer.json lists it. Immutable once made; any thread.
 */
#ifndef CRIA_TOKENIZER_NORMALIZER_H
#define CRIA_TOKENIZER_NORMALIZER_H

#include "base/json.h"
#include "base/text.h"

typedef struct cria_normalizer cria_normalizer;

/* `component` is tokenizer.json's "normalizer"; absent or null makes *out NULL. Known: Sequence, Prepend, Replace,
 * Strip, ByteLevel. */
cria_status cria_normalizer_parse(const cria_json_value *component, cria_normalizer **out, cria_error *err);
void cria_normalizer_destroy(cria_normalizer *normalizer);
/* Appends the normalized form of valid UTF-8 to *out; CRIA_ERR_FORMAT where that is far longer than the text. */
cria_status cria_normalizer_run(const cria_normalizer *normalizer, const char *text, size_t length, cria_text *out,
                                cria_error *err);

#endif
