/* Writing API errors. */
#include "server/api/error.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *type_of(int status) {
    switch (status) {
    case 400:
        return "BadRequestError";
    case 401:
        return "AuthenticationError";
    case 404:
        return "NotFoundError";
    case 405:
        return "MethodNotAllowedError";
    case 408:
        return "RequestTimeoutError";
    case 413:
        return "PayloadTooLargeError";
    case 415:
        return "UnsupportedMediaTypeError";
    case 429:
        return "RateLimitError";
    case 501:
        return "NotImplementedError";
    case 503:
        return "ServiceUnavailableError";
    default:
        return "InternalServerError";
    }
}

static void set(cria_api_error *err, int status, const char *param, const char *format, va_list args) {
    char text[sizeof err->message], valid[3 * sizeof err->message];
    if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = 0;
    size_t length = cria_utf8_replace(text, cria_utf8_complete_prefix(text, strlen(text)), valid);
    if (length > sizeof err->message - 1) length = cria_utf8_complete_prefix(valid, sizeof err->message - 1);
    memcpy(err->message, valid, length);
    err->message[length] = 0;
    err->status = status;
    err->type = type_of(status);
    err->retry_after = 0;
    snprintf(err->param, sizeof err->param, "%s", param ? param : "");
}

cria_status cria_api_fail(cria_api_error *err, const char *param, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set(err, 400, param, format, args);
    va_end(args);
    return CRIA_ERR_ARGUMENT;
}

cria_status cria_api_fail_status(cria_api_error *err, int status, const char *param, const char *format, ...) {
    va_list args;
    va_start(args, format);
    set(err, status, param, format, args);
    va_end(args);
    return CRIA_ERR_ARGUMENT;
}

cria_status cria_api_fail_type(cria_api_error *err, const char *location, const char *kind, const char *message,
                               const char *input) {
    cria_api_fail(err, location, "1 validation error:\n  {'type': '%s', 'loc': '%s', 'msg': '%s', 'input': '%s'}", kind,
                  location, message, input);
    err->type = "Bad Request";
    return CRIA_ERR_ARGUMENT;
}

cria_status cria_api_fail_from(cria_api_error *err, const cria_error *cause) {
    switch (cause->status) {
    case CRIA_ERR_ARGUMENT:
    case CRIA_ERR_FORMAT:
    case CRIA_ERR_UNSUPPORTED:
        return cria_api_fail(err, NULL, "%s", cause->message);
    case CRIA_ERR_FULL:
        cria_api_fail_status(err, 429, NULL, "%s", cause->message);
        err->retry_after = 1;
        return CRIA_ERR_FULL;
    case CRIA_ERR_CLOSED:
        cria_api_fail_status(err, 503, NULL, "%s", cause->message);
        err->retry_after = 5;
        return CRIA_ERR_CLOSED;
    default:
        cria_api_fail_status(err, 500, NULL, "%s", cause->message);
        return cause->status;
    }
}

void cria_api_error_write(const cria_api_error *err, cria_text *out) {
    cria_text_puts(out, "{\"error\":{\"message\":");
    cria_text_json_string(out, err->message, strlen(err->message));
    cria_text_printf(out, ",\"type\":\"%s\",\"param\":", err->type ? err->type : type_of(err->status));
    if (err->param[0]) {
        cria_text_json_string(out, err->param, strlen(err->param));
    } else {
        cria_text_puts(out, "null");
    }
    cria_text_printf(out, ",\"code\":%d}}", err->status);
}
