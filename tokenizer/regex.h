/* Regular expressions of pre-tokenizers: PCRE2 (with JIT where there is one) made to agree with Oniguruma, which
 * Hugging Face `tokenizers` uses. The only module that includes PCRE2.
 *
 * A compiled expression is immutable, any thread; a scan belongs to one thread. */
#ifndef CRIA_TOKENIZER_REGEX_H
#define CRIA_TOKENIZER_REGEX_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cria_regex cria_regex;

/* `pattern` is valid UTF-8 in Oniguruma's (Ruby) syntax. What PCRE2 cannot be made to read the same way is
 * CRIA_ERR_UNSUPPORTED, a broken pattern CRIA_ERR_FORMAT; both name the pattern. */
cria_status cria_regex_compile(const char *pattern, size_t length, cria_regex **out, cria_error *err);
/* An expression for exactly this string. */
cria_status cria_regex_compile_literal(const char *string, size_t length, cria_regex **out, cria_error *err);
void cria_regex_destroy(cria_regex *regex);

/* Matching state: one per thread and expression. */
typedef struct cria_regex_scan cria_regex_scan;
cria_regex_scan *cria_regex_scan_create(const cria_regex *regex); /* NULL if memory is out */
void cria_regex_scan_destroy(cria_regex_scan *scan);

/* Starts over on text[0..length), which is valid UTF-8 and stays borrowed. */
void cria_regex_scan_start(cria_regex_scan *scan, const char *text, size_t length);
/* The next match that does not overlap the one before it; *found false at the end. Matching that takes more steps than
 * the limit allows is CRIA_ERR_ARGUMENT. */
cria_status cria_regex_scan_next(cria_regex_scan *scan, bool *found, size_t *start, size_t *end, cria_error *err);

#endif
