/* The checks before cJSON: strict grammar, UTF-8 and nesting, and a rewrite of what cJSON cannot represent. Only for
 * json.c. Any thread. */
#ifndef CRIA_BASE_JSON_SCAN_H
#define CRIA_BASE_JSON_SCAN_H

#include "base/error.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>

enum { CRIA_JSON_MAX_NESTING = 200 };

/* Two byte pairs that valid UTF-8 never holds, so that no string of the document can be mistaken for them: U+0000
 * inside a string, and the start of a string that stands for a number whose text is kept. */
#define CRIA_JSON_NUL "\xC0\x80"
#define CRIA_JSON_RAW_NUMBER "\xC0\x81"

typedef struct {
    bool rewritten; /* `out` holds the document to parse; otherwise the original bytes do */
    bool has_nul;   /* some string holds CRIA_JSON_NUL */
} cria_json_scan_result;

/* Checks that bytes[0..length) is one JSON text (NaN, Infinity and -Infinity count as numbers). Where cJSON would
 * refuse or lose something, the whole text is copied to `out` with these changes: \u0000 becomes CRIA_JSON_NUL, a lone
 * surrogate escape becomes U+FFFD, and a number that a double may not hold exactly becomes the string
 * CRIA_JSON_RAW_NUMBER + text. CRIA_ERR_FORMAT names the byte offset. */
cria_status cria_json_scan(const char *bytes, size_t length, cria_text *out, cria_json_scan_result *result,
                           cria_error *err);

#endif
