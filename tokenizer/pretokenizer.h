/* Pre-tokenizer: cuts a text into the pieces that the model encodes one by one, as tokenizer.json lists the steps.
 * Immutable once made; any thread may run it with a workspace of its own. */
#ifndef CRIA_TOKENIZER_PRETOKENIZER_H
#define CRIA_TOKENIZER_PRETOKENIZER_H

#include "base/json.h"
#include "base/text.h"
#include "tokenizer/pieces.h"

typedef struct cria_pretokenizer cria_pretokenizer;

/* `component` is tokenizer.json's "pre_tokenizer"; absent or null makes *out NULL. Known: Sequence, ByteLevel, Split,
 * Digits, Metaspace, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit. */
cria_status cria_pretokenizer_parse(const cria_json_value *component, cria_pretokenizer **out, cria_error *err);
void cria_pretokenizer_destroy(cria_pretokenizer *pretokenizer);

/* A text and the pieces of it; steps that rewrite the text do so into the spare pair. Start with zeros. */
typedef struct {
    cria_text text, spare_text;
    cria_pieces pieces, spare_pieces;
    cria_stretches stretches;
} cria_pretokenizer_workspace;
void cria_pretokenizer_workspace_deinit(cria_pretokenizer_workspace *workspace);

/* Splits workspace->text, of which workspace->pieces name the parts to split, in place. */
cria_status cria_pretokenizer_run(const cria_pretokenizer *pretokenizer, cria_pretokenizer_workspace *workspace,
                                  cria_error *err);

#endif
