/* Answers: errors, whole bodies, streams. */
#include "server/http/exchange.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cria_reply_error(cria_exchange *exchange, const cria_api_error *error) {
    cria_text_clear(&exchange->out);
    exchange->out_position = 0;
    cria_api_error_write(error, &exchange->out);
    exchange->retry_after = error->retry_after;
    cria_reply_ready(exchange, error->status, "application/json");
}

void cria_reply_fail(cria_exchange *exchange, int status, const char *format, ...) {
    cria_api_error error = {0};
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    cria_api_fail_status(&error, status, NULL, "%s", message);
    if (status == 503) error.retry_after = 5;
    cria_reply_error(exchange, &error);
}

void cria_reply_ready(cria_exchange *exchange, int status, const char *content_type) {
    if (exchange->out.failed) {
        cria_text_deinit(&exchange->out);
        cria_text_init(&exchange->out);
        cria_text_puts(&exchange->out, "{\"error\":{\"message\":\"out of memory\",\"type\":\"InternalServerError\","
                                       "\"param\":null,\"code\":500}}");
        status = 500;
        content_type = "application/json";
    }
    exchange->status = status;
    exchange->content_type = content_type;
    exchange->state = CRIA_READY;
    exchange->ended = true;
}

static void add_headers(cria_exchange *exchange, struct MHD_Response *response) {
    if (exchange->content_type) MHD_add_response_header(response, "Content-Type", exchange->content_type);
    MHD_add_response_header(response, "X-Request-Id", exchange->request_id);
    if (exchange->retry_after) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", exchange->retry_after);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    cria_cors_headers(exchange, response);
    if (exchange->misframed) MHD_add_response_header(response, "Connection", "close");
    if (exchange->allow) MHD_add_response_header(response, "Allow", exchange->allow);
    if (exchange->challenge) {
        /* A browser asks its user for the key; programs read "Bearer". */
        bool page = strcmp(exchange->url, "/") == 0;
        MHD_add_response_header(response, "WWW-Authenticate", page ? "Basic realm=\"cria\"" : "Bearer");
    }
}

/* The length of the event that `out` goes on with: up to and with the empty line after it. */
static size_t event_length(const cria_exchange *exchange) {
    const char *begin = exchange->out.data + exchange->out_position;
    size_t left = exchange->out.length - exchange->out_position;
    const char *end = memmem(begin, left, "\n\n", 2);
    return end ? (size_t)(end + 2 - begin) : left;
}

enum { KEPT_BYTES = 4096 };

/* All of `out` is sent. What a burst has made large is given back: streams are many, and each keeps its buffer. */
static void forget_sent(cria_exchange *exchange) {
    if (exchange->out.capacity > KEPT_BYTES) {
        cria_text_deinit(&exchange->out);
    } else {
        cria_text_clear(&exchange->out);
    }
    exchange->out_position = 0;
}

/* MHD asks for bytes when the socket takes some: one event at a time, so that each is a write of its own. */
static ssize_t read_stream(void *context, uint64_t position, char *buffer, size_t size) {
    (void)position;
    cria_exchange *exchange = context;
    if (exchange->socket && exchange->socket->hung_up) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (exchange->out.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (exchange->out_position == exchange->out.length) {
        if (exchange->ended) return MHD_CONTENT_READER_END_OF_STREAM;
        if (exchange->server->closing) return MHD_CONTENT_READER_END_WITH_ERROR;
        exchange->suspended = true;
        MHD_suspend_connection(exchange->socket->connection);
        return 0;
    }
    size_t length = event_length(exchange);
    if (length > size) length = size;
    memcpy(buffer, exchange->out.data + exchange->out_position, length);
    exchange->out_position += length;
    if (exchange->out_position == exchange->out.length) {
        forget_sent(exchange);
    }
    cria_generate_balance(exchange);
    return (ssize_t)length;
}

/* Used for HTTP/1.0 alone: chunks are written straight into the connection's own memory. */
enum { STREAM_BLOCK = 4 * 1024 };

static struct MHD_Response *make_stream(cria_exchange *exchange) {
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, exchange, NULL);
    if (!response) return NULL;
    MHD_add_response_header(response, "Cache-Control", "no-cache");
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    unsigned timeout = (unsigned)(exchange->server->config.write_seconds + 0.999);
    MHD_set_connection_option(exchange->socket->connection, MHD_CONNECTION_OPTION_TIMEOUT, timeout);
    return response;
}

static struct MHD_Response *make_whole(cria_exchange *exchange) {
    char *data = exchange->out.data;
    size_t length = exchange->out.length;
    cria_text_init(&exchange->out);
    if (!data) return MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    return MHD_create_response_from_buffer(length, data, MHD_RESPMEM_MUST_FREE);
}

enum MHD_Result cria_reply_queue(cria_exchange *exchange) {
    bool stream = exchange->state == CRIA_STREAM;
    struct MHD_Response *response = stream ? make_stream(exchange) : make_whole(exchange);
    if (!response) return MHD_NO;
    add_headers(exchange, response);
    unsigned status = stream ? 200 : (unsigned)exchange->status;
    enum MHD_Result result = MHD_queue_response(exchange->socket->connection, status, response);
    MHD_destroy_response(response);
    exchange->status = (int)status;
    exchange->state = stream ? CRIA_STREAM : CRIA_SENT;
    return result;
}
