/* UTF-8 decoding by the table of well-formed byte sequences (Unicode 15, table 3-7). */
#include "base/utf8.h"

#include <string.h>

/* Decodes one code point; see the header. The second byte alone carries every restriction beyond "is a continuation":
 * it rules out overlong forms (E0, F0), surrogates (ED) and values over U+10FFFF (F4). */
int cria_utf8_decode(const char *p, size_t n, uint32_t *cp) {
    const unsigned char *b = (const unsigned char *)p;
    unsigned lead = b[0];
    if (lead < 0x80) {
        *cp = lead;
        return 1;
    }
    int length;
    unsigned low = 0x80, high = 0xBF;
    uint32_t value;
    if (lead < 0xC2) return 0;
    if (lead < 0xE0) {
        length = 2;
        value = lead & 0x1Fu;
    } else if (lead < 0xF0) {
        length = 3;
        value = lead & 0x0Fu;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
    } else if (lead < 0xF5) {
        length = 4;
        value = lead & 0x07u;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    } else {
        return 0;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n) return -1;
        if (b[i] < low || b[i] > high) return 0;
        value = value << 6 | (b[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *cp = value;
    return length;
}

int cria_utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* How many bytes at the front are ASCII, eight at a time: most text is, and tokenizer files have megabytes of it. */
static size_t ascii_run(const char *p, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080u) break;
    }
    while (i < n && (unsigned char)p[i] < 0x80) i++;
    return i;
}

bool cria_utf8_valid(const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        i += ascii_run(p + i, n - i);
        if (i == n) break;
        uint32_t cp;
        int length = cria_utf8_decode(p + i, n - i, &cp);
        if (length <= 0) return false;
        i += (size_t)length;
    }
    return true;
}

size_t cria_utf8_count(const char *p, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)p[i] & 0xC0) != 0x80;
    return count;
}

size_t cria_utf8_complete_prefix(const char *p, size_t n) {
    /* Only a lead byte can begin an incomplete code point, and at most three of its bytes can be there. */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint32_t cp;
        if (cria_utf8_decode(p + n - back, back, &cp) == -1) return n - back;
    }
    return n;
}

size_t cria_utf8_invalid_length(const char *p, size_t n) {
    size_t length = 1;
    uint32_t cp;
    while (length < 3 && length < n && cria_utf8_decode(p, length + 1, &cp) == -1) length++;
    return length;
}

size_t cria_utf8_replace(const char *p, size_t n, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int length = cria_utf8_decode(p + i, n - i, &cp);
        if (length > 0) {
            memcpy(out + written, p + i, (size_t)length);
            written += (size_t)length;
            i += (size_t)length;
        } else {
            memcpy(out + written, "\xEF\xBF\xBD", 3);
            written += 3;
            i += cria_utf8_invalid_length(p + i, n - i);
        }
    }
    return written;
}
