/* Byte-level alphabet: GPT-2's bijection between the 256 bytes and printable code points. Pure functions, any thread.
 */
#ifndef CRIA_TOKENIZER_BYTES_H
#define CRIA_TOKENIZER_BYTES_H

#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The code points lie below this. */
#define CRIA_BYTE_LEVEL_END 0x144

/* The code point that stands for a byte: the byte itself where Latin-1 prints it, else 0x100 and following. */
uint32_t cria_byte_to_code_point(uint8_t byte);
/* The byte that a code point stands for, -1 if none. */
int cria_byte_of_code_point(uint32_t code_point);

/* Appends the byte-level form of text[0..length). */
void cria_bytes_map(const char *text, size_t length, cria_text *out);
/* Appends the bytes that a token in byte-level form stands for; a token with any other code point stands for itself. */
void cria_bytes_unmap(const char *token, size_t length, cria_text *out);

/* The value of a byte-fallback token such as "<0x0A>", -1 for any other token. */
int cria_byte_fallback_value(const char *token, size_t length);

#endif
