/* API errors: what a client is told, in OpenAI's nested shape with an integer code. Any thread. */
#ifndef CRIA_SERVER_API_ERROR_H
#define CRIA_SERVER_API_ERROR_H

#include "base/error.h"
#include "base/text.h"

typedef struct {
    int status;         /* HTTP status, also the `code` */
    const char *type;   /* static: "BadRequestError", ... */
    char param[96];     /* "" stands for null */
    char message[1024]; /* valid UTF-8 */
    int retry_after;    /* seconds; 0: no such header */
} cria_api_error;

/* 400 "BadRequestError"; `param` may be NULL. Bytes from outside may be put in with %s: invalid UTF-8 is replaced.
 * Returns CRIA_ERR_ARGUMENT. */
cria_status cria_api_fail(cria_api_error *err, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));
/* The same with any HTTP status; the type follows from it. */
cria_status cria_api_fail_status(cria_api_error *err, int status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5), cold));
/* 400 "Bad Request": a value of the wrong type at `location` ("body.max_tokens"), worded as pydantic words it, since
 * clients of vLLM match on that. `input` is the value's own description, `kind` pydantic's name of the error. */
cria_status cria_api_fail_type(cria_api_error *err, const char *location, const char *kind, const char *message,
                               const char *input) __attribute__((cold));
/* What a lower layer said, with the HTTP status that its own stands for. */
cria_status cria_api_fail_from(cria_api_error *err, const cria_error *cause) __attribute__((cold));

/* {"error":{"message":...,"type":...,"param":...,"code":...}} */
void cria_api_error_write(const cria_api_error *err, cria_text *out);

#endif
