/* UTF-8: validation, counting, and replacing what is invalid. Pure functions, any thread. */
#ifndef CRIA_BASE_UTF8_H
#define CRIA_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes one code point at p[0..n), n >= 1. Returns its length 1..4 and sets *cp; 0 when the bytes are invalid; -1
 * when they are a valid but incomplete prefix. Overlong forms, surrogates and values over U+10FFFF are invalid. */
int cria_utf8_decode(const char *p, size_t n, uint32_t *cp);
/* Writes a code point (not a surrogate, <= 0x10FFFF) into out[4]; returns the length. */
int cria_utf8_encode(uint32_t cp, char out[4]);
bool cria_utf8_valid(const char *p, size_t n);
/* How many code points a valid string holds. */
size_t cria_utf8_count(const char *p, size_t n);
/* The length of the longest prefix of p[0..n) that does not end inside a code point that more bytes could complete. */
size_t cria_utf8_complete_prefix(const char *p, size_t n);
/* Where decode did not return a length: that of the maximal invalid part at p[0..n), n >= 1 (the longest piece that a
 * valid code point could begin with, at least 1). One U+FFFD stands for it. */
size_t cria_utf8_invalid_length(const char *p, size_t n);
/* Copies p to out, each maximal invalid part as U+FFFD (as Python's errors="replace" does). `out` needs 3 * n bytes.
 * Returns the length written. */
size_t cria_utf8_replace(const char *p, size_t n, char *out);

#endif
