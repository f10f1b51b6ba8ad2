/* The API key. */
#include "server/http/exchange.h"

#include <string.h>
#include <strings.h>

/* Looks at every byte of what was given, whatever it finds. */
static bool equal(const char *key, const char *given, size_t length) {
    size_t key_length = strlen(key);
    volatile unsigned char difference = key_length != length;
    for (size_t i = 0; i < length; ++i) {
        difference = (unsigned char)(difference | (key[key_length ? i % key_length : 0] ^ given[i]));
    }
    return difference == 0;
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static size_t base64_decode(const char *text, char *out, size_t size) {
    unsigned bits = 0;
    int count = 0;
    size_t length = 0;
    for (; *text && *text != '=' && length < size; ++text) {
        int value = base64_value(*text);
        if (value < 0) return 0;
        bits = (bits << 6 | (unsigned)value) & 0xffffff;
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[length++] = (char)(bits >> count);
        }
    }
    return length;
}

bool cria_authorized(const char *api_key, const char *header) {
    if (!api_key) return true;
    if (!header) return false;
    if (strncasecmp(header, "Bearer ", 7) == 0) {
        const char *given = header + 7;
        while (*given == ' ') ++given;
        size_t length = strlen(given);
        while (length && given[length - 1] == ' ') --length;
        return equal(api_key, given, length);
    }
    /* What a browser sends after it asked its user: how the page is used on a server with a key. */
    if (strncasecmp(header, "Basic ", 6) == 0) {
        char plain[1024];
        size_t length = base64_decode(header + 6, plain, sizeof plain);
        const char *colon = length ? memchr(plain, ':', length) : NULL;
        if (!colon) return false;
        size_t before = (size_t)(colon + 1 - plain);
        return equal(api_key, colon + 1, length - before);
    }
    return false;
}
