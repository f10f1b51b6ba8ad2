/* Rewrites a regular expression from Oniguruma's syntax and Unicode version to PCRE2's. Pure functions, any thread. */
#ifndef CRIA_TOKENIZER_REGEX_TRANSLATE_H
#define CRIA_TOKENIZER_REGEX_TRANSLATE_H

#include "base/error.h"
#include "base/text.h"

/* Appends to *out a PCRE2 pattern (UTF, UCP, multi-line) that matches what Oniguruma matches with pattern[0..length):
 * \s, \w and the classes of letters and numbers stand for exactly the code points they stand for there, whatever
 * Unicode version PCRE2 was built with. What has no counterpart is CRIA_ERR_UNSUPPORTED with the construct and its
 * offset. */
cria_status cria_regex_translate(const char *pattern, size_t length, cria_text *out, cria_error *err);

#endif
