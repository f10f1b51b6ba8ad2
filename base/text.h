/* Text: a growable byte buffer for building output (JSON, SSE, tables). One thread at a time.
 *
 * An append that runs out of memory sets `failed` and drops the bytes; check it once at the end. */
#ifndef CRIA_BASE_TEXT_H
#define CRIA_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *data; /* NUL-terminated once anything was appended */
    size_t length;
    size_t capacity;
    bool failed;
} cria_text;

void cria_text_init(cria_text *text);
void cria_text_deinit(cria_text *text);
void cria_text_clear(cria_text *text); /* length 0, memory kept */
void cria_text_append(cria_text *text, const char *bytes, size_t length);
void cria_text_puts(cria_text *text, const char *string);
void cria_text_printf(cria_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends `bytes` as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD, NUL becomes \u0000. */
void cria_text_json_string(cria_text *text, const char *bytes, size_t length);
/* Appends the shortest decimal that reads back as the same double; NaN and infinities are written as `null`. */
void cria_text_json_number(cria_text *text, double value);

#endif
