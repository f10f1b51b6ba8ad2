/* Post-processor: the ids put around a text, as tokenizer.json lists them. Immutable once made; any thread. */
#ifndef CRIA_TOKENIZER_TEMPLATE_H
#define CRIA_TOKENIZER_TEMPLATE_H

#include "base/json.h"
#include "tokenizer/ids.h"

/* Start with zeros. */
typedef struct {
    cria_ids prefix, suffix;
} cria_template;

void cria_template_deinit(cria_template *post);
/* `component` is tokenizer.json's "post_processor"; absent or null leaves *out empty. Known: Sequence, ByteLevel,
 * TemplateProcessing, RobertaProcessing, BertProcessing. */
cria_status cria_template_parse(const cria_json_value *component, cria_template *out, cria_error *err);

#endif
