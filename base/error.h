/* Errors as values: a status code and one message that names the thing, the limit and the value.
 *
 * Every function that can fail returns cria_status (CRIA_OK is 0) and takes a cria_error * as its last argument; the
 * message is only written on failure. `err` may be NULL where a caller needs no message. Any thread. */
#ifndef CRIA_BASE_ERROR_H
#define CRIA_BASE_ERROR_H

#include <stdarg.h>

typedef enum {
    CRIA_OK = 0,
    CRIA_ERR_ARGUMENT,    /* the caller (a user, a client) gave something out of range: HTTP 400, exit 2 */
    CRIA_ERR_FORMAT,      /* outside bytes do not follow their format (weights, JSON, tokenizer, plan) */
    CRIA_ERR_UNSUPPORTED, /* well-formed, but Cria cannot honour it; the message names the key */
    CRIA_ERR_NOT_FOUND,   /* a file, model, tensor or name that does not exist */
    CRIA_ERR_IO,          /* the operating system refused a read, write or map */
    CRIA_ERR_MEMORY,      /* an allocation failed or would pass a stated limit */
    CRIA_ERR_FULL,        /* a bounded queue or pool has no room now; trying later may work: HTTP 429 */
    CRIA_ERR_CLOSED,      /* the object is shutting down or was cancelled: HTTP 503 */
    CRIA_ERR_INFEASIBLE,  /* well-formed, but nothing satisfies what was asked; the message says what cannot be met */
    CRIA_ERR_INTERNAL     /* a broken invariant that was noticed in time */
} cria_status;

typedef struct {
    cria_status status;
    char message[256]; /* NUL-terminated, valid UTF-8 (cut on a code point where it was too long) */
} cria_error;

/* Writes the message into *err (if not NULL) and returns `status`, so that failing is one line:
 *     return cria_fail(err, CRIA_ERR_FORMAT, "%s: header needs %zu bytes", path, n);
 * Bytes from outside may be put in with %s: invalid UTF-8 in them is replaced. */
cria_status cria_fail(cria_error *err, cria_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));
cria_status cria_fail_va(cria_error *err, cria_status status, const char *format, va_list args) __attribute__((cold));

/* Puts "prefix: " before the message already in *err (the file or object that a lower layer did not know of); returns
 * err->status. */
cria_status cria_fail_within(cria_error *err, const char *prefix) __attribute__((cold));

/* A short constant name: "argument", "format", ... */
const char *cria_status_name(cria_status status);

/* Returns early with the status of a call that failed. */
#define CRIA_TRY(call)                                                                                                 \
    do {                                                                                                               \
        cria_status cria_try_status_ = (call);                                                                         \
        if (cria_try_status_ != CRIA_OK) return cria_try_status_;                                                      \
    } while (0)

#endif
