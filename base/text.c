/* The growable byte buffer and its JSON scalars. */
#include "base/text.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cria_text_init(cria_text *text) {
    *text = (cria_text){0};
}

void cria_text_deinit(cria_text *text) {
    free(text->data);
    *text = (cria_text){0};
}

void cria_text_clear(cria_text *text) {
    text->length = 0;
    text->failed = false;
    if (text->data) text->data[0] = 0;
}

/* Room for `more` bytes and a NUL after the present ones. */
static bool reserve(cria_text *text, size_t more) {
    size_t needed;
    if (text->failed) return false;
    if (!cria_add_size(text->length, more, &needed) || !cria_add_size(needed, 1, &needed)) {
        text->failed = true;
        return false;
    }
    if (needed <= text->capacity) return true;
    size_t capacity = text->capacity > SIZE_MAX / 2 ? SIZE_MAX : text->capacity * 2;
    if (capacity < 64) capacity = 64;
    if (capacity < needed) capacity = needed;
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void cria_text_append(cria_text *text, const char *bytes, size_t length) {
    if (!reserve(text, length)) return;
    if (length) memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = 0;
}

void cria_text_puts(cria_text *text, const char *string) {
    cria_text_append(text, string, strlen(string));
}

void cria_text_printf(cria_text *text, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = text->capacity - text->length;
    int length = vsnprintf(room ? text->data + text->length : NULL, room, format, args);
    if (length < 0) {
        text->failed = true;
    } else if ((size_t)length < room && !text->failed) {
        text->length += (size_t)length;
    } else if (reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    } else if (text->data) {
        text->data[text->length] = 0; /* the first attempt wrote behind the end */
    }
    va_end(again);
    va_end(args);
}

/* The escape for an ASCII byte that may not stand in a JSON string as it is; NULL if it may. */
static const char *escape_of(unsigned char byte, char buffer[7]) {
    switch (byte) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    default:
        break;
    }
    if (byte >= 0x20 && byte != 0x7F) return NULL;
    snprintf(buffer, 7, "\\u%04x", (unsigned)byte);
    return buffer;
}

void cria_text_json_string(cria_text *text, const char *bytes, size_t length) {
    cria_text_append(text, "\"", 1);
    size_t copied = 0; /* bytes before this index are written; those up to i can be copied as they are */
    for (size_t i = 0; i < length;) {
        char buffer[7];
        const char *replacement;
        size_t step = 1;
        if ((unsigned char)bytes[i] < 0x80) {
            replacement = escape_of((unsigned char)bytes[i], buffer);
        } else {
            uint32_t cp;
            int decoded = cria_utf8_decode(bytes + i, length - i, &cp);
            if (decoded > 0) {
                i += (size_t)decoded;
                continue;
            }
            step = cria_utf8_invalid_length(bytes + i, length - i);
            replacement = "\xEF\xBF\xBD";
        }
        if (replacement) {
            cria_text_append(text, bytes + copied, i - copied);
            cria_text_puts(text, replacement);
            copied = i + step;
        }
        i += step;
    }
    cria_text_append(text, bytes + copied, length - copied);
    cria_text_append(text, "\"", 1);
}

void cria_text_json_number(cria_text *text, double value) {
    if (!isfinite(value)) {
        cria_text_puts(text, "null");
        return;
    }
    /* Among normal doubles the shortest form of up to 15 digits is what %.15g prints (it drops trailing zeros); only
     * subnormals, which hold fewer digits, must be tried from 1. */
    char buffer[40];
    int digits = value != 0 && fabs(value) < DBL_MIN ? 1 : 15;
    for (; digits <= 17; digits++) {
        snprintf(buffer, sizeof buffer, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) break;
    }
    cria_text_puts(text, buffer);
}
