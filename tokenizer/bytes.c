/* Byte-level alphabet of GPT-2 and the byte-fallback tokens of SentencePiece. */
#include "tokenizer/bytes.h"

#include "base/utf8.h"

/* Bytes that stand for themselves: '!'..'~', 0xA1..0xAC and 0xAE..0xFF. The other 68 are numbered from 0x100 on. */
static bool is_printable(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

uint32_t cria_byte_to_code_point(uint8_t byte) {
    if (is_printable(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte <= 0xA0) return 0x121u + (byte - 0x7Fu);
    return 0x143; /* 0xAD */
}

int cria_byte_of_code_point(uint32_t code_point) {
    if (code_point < 0x100) return is_printable(code_point) ? (int)code_point : -1;
    if (code_point <= 0x120) return (int)(code_point - 0x100);
    if (code_point <= 0x142) return (int)(code_point - 0x121 + 0x7F);
    return code_point == 0x143 ? 0xAD : -1;
}

void cria_bytes_map(const char *text, size_t length, cria_text *out) {
    char buffer[512];
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (used + 2 > sizeof buffer) {
            cria_text_append(out, buffer, used);
            used = 0;
        }
        uint32_t cp = cria_byte_to_code_point((uint8_t)text[i]);
        if (cp < 0x80) {
            buffer[used++] = (char)cp;
        } else {
            buffer[used++] = (char)(0xC0 | (cp >> 6));
            buffer[used++] = (char)(0x80 | (cp & 0x3F));
        }
    }
    cria_text_append(out, buffer, used);
}

void cria_bytes_unmap(const char *token, size_t length, cria_text *out) {
    size_t start = out->length;
    for (size_t i = 0; i < length;) {
        uint32_t cp = 0;
        int n = cria_utf8_decode(token + i, length - i, &cp);
        int byte = n > 0 ? cria_byte_of_code_point(cp) : -1;
        if (byte < 0) {
            out->length = start;
            cria_text_append(out, token, length);
            return;
        }
        char c = (char)byte;
        cria_text_append(out, &c, 1);
        i += (size_t)n;
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

int cria_byte_fallback_value(const char *token, size_t length) {
    if (length != 6 || token[0] != '<' || token[1] != '0' || token[2] != 'x' || token[5] != '>') return -1;
    int high = hex_digit(token[3]), low = hex_digit(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}
