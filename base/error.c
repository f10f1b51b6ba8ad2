/* Writing error messages: formatted, made valid UTF-8, cut on a code point. */
#include "base/error.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = sizeof((cria_error *)0)->message };

/* Formatted messages longer than this are cut before their UTF-8 is looked at; the room for the message is far less. */
enum { FORMAT_BYTES = 1024 };

/* Puts `text` into err->message as valid UTF-8, as much as fits. */
static void store(cria_error *err, cria_status status, const char *text) {
    char valid[3 * FORMAT_BYTES];
    size_t length = strnlen(text, FORMAT_BYTES);
    length = cria_utf8_replace(text, cria_utf8_complete_prefix(text, length), valid);
    if (length > MESSAGE_BYTES - 1) length = cria_utf8_complete_prefix(valid, MESSAGE_BYTES - 1);
    memcpy(err->message, valid, length);
    err->message[length] = 0;
    err->status = status;
}

cria_status cria_fail_va(cria_error *err, cria_status status, const char *format, va_list args) {
    if (err) {
        /* Not into err->message at once: it may be among the arguments. */
        char text[FORMAT_BYTES];
        if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
        store(err, status, text);
    }
    return status;
}

cria_status cria_fail(cria_error *err, cria_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    cria_fail_va(err, status, format, args);
    va_end(args);
    return status;
}

cria_status cria_fail_within(cria_error *err, const char *prefix) {
    if (!err) return CRIA_ERR_INTERNAL;
    return cria_fail(err, err->status, "%s: %s", prefix, err->message);
}

const char *cria_status_name(cria_status status) {
    switch (status) {
    case CRIA_OK:
        return "ok";
    case CRIA_ERR_ARGUMENT:
        return "argument";
    case CRIA_ERR_FORMAT:
        return "format";
    case CRIA_ERR_UNSUPPORTED:
        return "unsupported";
    case CRIA_ERR_NOT_FOUND:
        return "not found";
    case CRIA_ERR_IO:
        return "io";
    case CRIA_ERR_MEMORY:
        return "memory";
    case CRIA_ERR_FULL:
        return "full";
    case CRIA_ERR_CLOSED:
        return "closed";
    case CRIA_ERR_INFEASIBLE:
        return "infeasible";
    case CRIA_ERR_INTERNAL:
        return "internal";
    }
    return "unknown";
}
