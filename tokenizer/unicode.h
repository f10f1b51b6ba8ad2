/* Unicode tables that the tokenizer needs beyond PCRE2's own. Pure functions, any thread. */
#ifndef CRIA_TOKENIZER_UNICODE_H
#define CRIA_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Ranges, as items of a PCRE2 set, that Unicode added to a property between version 14 (Debian 12's PCRE2) and 16
 * (Oniguruma in Hugging Face `tokenizers`); naming them again does no harm with a newer PCRE2. `name` is a property's
 * short name; "" for one without additions, NULL for one that is not listed here. */
const char *cria_unicode_additions(const char *name, size_t length);

/* White_Space as items of a set, and everything else as items of a set. */
extern const char *const cria_unicode_space;
extern const char *const cria_unicode_not_space;

bool cria_unicode_is_space(uint32_t code_point);

#endif
