/* The life of connections and exchanges, as MHD reports it. */
#include "server/http/exchange.h"

#include "base/clock.h"
#include "base/random.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { LAST_BYTES_NS = 1000000000, HALF_CLOSE_NS = 1000000 };

/* ---- connections ---- */

static void open_socket(cria_server *server, struct MHD_Connection *connection, void **socket_context) {
    cria_socket *socket = calloc(1, sizeof *socket);
    *socket_context = socket;
    if (!socket) return; /* the handler refuses what comes on it */
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    socket->server = server;
    socket->connection = connection;
    socket->fd = info ? info->connect_fd : -1;
    socket->quiet_ns = cria_clock_ns();
    ++server->socket_count;
    socket->next = server->sockets;
    if (socket->next) socket->next->previous = socket;
    server->sockets = socket;
    int one = 1;
    setsockopt(socket->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* The kernel would take megabytes off our hands for a client that does not read, and nobody would notice for long.
     */
    int unsent = (int)server->config.stream_buffer_bytes;
    setsockopt(socket->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    /* MHD looks away from suspended connections: a client that leaves is noticed here. */
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = socket};
    epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, socket->fd, &event);
}

static void close_socket(cria_server *server, void **socket_context) {
    cria_socket *socket = *socket_context;
    if (!socket) return;
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, socket->fd, NULL);
    --server->socket_count;
    if (socket->next) socket->next->previous = socket->previous;
    if (socket->previous) {
        socket->previous->next = socket->next;
    } else {
        server->sockets = socket->next;
    }
    free(socket);
    *socket_context = NULL;
}

void cria_socket_notify(void *server, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        open_socket(server, connection, socket_context);
    } else {
        close_socket(server, socket_context);
    }
}

/* MHD has sent nothing for this request yet and cannot answer in the middle of one. */
void cria_socket_give_up(const cria_socket *socket, bool cut_off) {
    cria_api_error error = {0};
    if (cut_off) {
        cria_api_fail(&error, NULL, "The connection ended before the request's body did");
    } else {
        cria_api_fail_status(&error, 408, NULL, "The request did not arrive in time");
    }
    cria_text body = {0};
    cria_api_error_write(&error, &body);
    char text[512];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\n"
                          "Content-Length: %zu\r\n\r\n%s",
                          cut_off ? "400 Bad Request" : "408 Request Timeout", body.length, body.data ? body.data : "");
    cria_text_deinit(&body);
    if (send(socket->fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return; /* gone: nobody to tell */
}

static cria_socket *socket_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* ---- exchanges ---- */

/* A client's own id is shown back where it is harmless to show. */
static void name_exchange(cria_exchange *exchange, const char *given) {
    size_t length = given ? strlen(given) : 0;
    bool usable = length > 0 && length < sizeof exchange->request_id;
    for (size_t i = 0; usable && i < length; ++i) usable = given[i] > 32 && given[i] < 127;
    exchange->named = usable;
    if (usable) {
        memcpy(exchange->request_id, given, length + 1);
    } else {
        snprintf(exchange->request_id, sizeof exchange->request_id, "%016llx", (unsigned long long)cria_random_seed());
    }
}

/* The client has closed its side: what has arrived may not all be read yet, but more does not come. */
static void expect_no_more(cria_exchange *exchange) {
    uint64_t deadline_ns = cria_clock_ns() + LAST_BYTES_NS;
    if (exchange->body_deadline_ns > deadline_ns) exchange->body_deadline_ns = deadline_ns;
}

static cria_exchange *create_exchange(cria_socket *socket, const char *method, const char *url) {
    cria_exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange) return NULL;
    cria_server *server = socket->server;
    exchange->server = server;
    exchange->socket = socket;
    exchange->method = method;
    exchange->url = url;
    exchange->start_ns = cria_clock_ns();
    exchange->body_deadline_ns = exchange->start_ns + (uint64_t)(server->config.request_seconds * 1e9);
    if (socket->half_closed) expect_no_more(exchange);
    name_exchange(exchange, MHD_lookup_connection_value(socket->connection, MHD_HEADER_KIND, "X-Request-Id"));
    exchange->next = server->exchanges;
    if (exchange->next) exchange->next->previous = exchange;
    server->exchanges = exchange;
    socket->exchange = exchange;
    ++server->busy_count;
    return exchange;
}

void cria_exchange_release(cria_exchange *exchange) {
    if (exchange->socket || exchange->open) return;
    if (exchange->next) exchange->next->previous = exchange->previous;
    if (exchange->previous) {
        exchange->previous->next = exchange->next;
    } else {
        exchange->server->exchanges = exchange->next;
    }
    cria_generation_destroy(exchange->generation);
    cria_text_deinit(&exchange->body);
    cria_text_deinit(&exchange->out);
    free(exchange);
}

void cria_exchange_resume(cria_exchange *exchange) {
    if (!exchange->suspended) return;
    exchange->suspended = false;
    MHD_resume_connection(exchange->socket->connection);
}

/* A client that closes only its sending side still reads, and one that closes the socket does not: until something is
 * sent to it, both look the same from here. Who means the first does it right behind the request. */
static bool waits_half_closed(const cria_exchange *exchange) {
    return exchange->receiving || cria_clock_ns() - exchange->complete_ns < HALF_CLOSE_NS;
}

void cria_socket_ends(cria_socket *socket, uint32_t events) {
    cria_exchange *exchange = socket->exchange;
    socket->half_closed = true;
    if (exchange && exchange->receiving) expect_no_more(exchange);
    if (!(events & (EPOLLHUP | EPOLLERR)) && (!exchange || waits_half_closed(exchange))) return;
    socket->hung_up = true;
    if (!exchange || (exchange->state != CRIA_WAITING && exchange->state != CRIA_STREAM)) return;
    cria_generate_cancel(exchange);
    cria_exchange_resume(exchange);
}

static void log_exchange(const cria_exchange *exchange, enum MHD_RequestTerminationCode code) {
    double seconds = cria_seconds_between(exchange->start_ns, cria_clock_ns());
    bool probe = exchange->route && exchange->route->open;
    cria_log_write(exchange->server->log, probe ? CRIA_LOG_DEBUG : CRIA_LOG_INFO, "%s %s %d %.3f s%s", exchange->method,
                   exchange->url, exchange->status, seconds,
                   code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : " (cut off)");
}

void cria_exchange_completed(void *context, struct MHD_Connection *connection, void **exchange_context,
                             enum MHD_RequestTerminationCode code) {
    (void)connection;
    cria_server *server = context;
    cria_exchange *exchange = *exchange_context;
    *exchange_context = NULL;
    if (!exchange) return;
    log_exchange(exchange, code);
    bool cut_off = code == MHD_REQUEST_TERMINATED_CLIENT_ABORT || code == MHD_REQUEST_TERMINATED_READ_ERROR;
    if (exchange->receiving && cut_off) cria_socket_give_up(exchange->socket, true);
    cria_generate_cancel(exchange);
    if (exchange->counted) --server->generations;
    exchange->counted = false;
    exchange->socket->exchange = NULL;
    --server->busy_count;
    exchange->socket->quiet_ns = cria_clock_ns();
    exchange->socket = NULL;
    cria_exchange_release(exchange);
}

/* ---- a request comes in ---- */

static const char *header(const cria_exchange *exchange, const char *name) {
    return MHD_lookup_connection_value(exchange->socket->connection, MHD_HEADER_KIND, name);
}

/* Absent, application/json or anything +json. */
static bool is_json(const char *type) {
    if (!type || !*type) return true;
    size_t length = strcspn(type, "; \t");
    if (length == 16 && strncasecmp(type, "application/json", 16) == 0) return true;
    return length > 5 && strncasecmp(type + length - 5, "+json", 5) == 0;
}

/* How a request's end is told. */
typedef struct {
    const char *length, *encoding; /* Content-Length, Transfer-Encoding */
    bool conflict;                 /* two lengths that differ, or both headers */
} framing;

static enum MHD_Result read_framing(void *context, enum MHD_ValueKind kind, const char *key, const char *value) {
    (void)kind;
    framing *f = context;
    if (!value) value = "";
    if (strcasecmp(key, "Content-Length") == 0) {
        f->conflict = f->conflict || f->encoding || (f->length && strcmp(f->length, value) != 0);
        f->length = value;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        f->conflict = f->conflict || f->length || f->encoding;
        f->encoding = value;
    }
    return MHD_YES;
}

/* A request that a proxy before this server may have seen end elsewhere would let its sender speak for the proxy's next
 * client (request smuggling; RFC 9112, section 6.3): such a connection is closed. True: refused. */
static bool refuse_framing(cria_exchange *exchange) {
    framing f = {0};
    MHD_get_connection_values(exchange->socket->connection, MHD_HEADER_KIND, read_framing, &f);
    exchange->misframed = true;
    if (f.conflict) {
        cria_reply_fail(exchange, 400, "The request has conflicting Content-Length or Transfer-Encoding headers");
    } else if (f.encoding && strcasecmp(f.encoding, "chunked") != 0) {
        cria_reply_fail(exchange, 501, "Transfer-Encoding '%.40s' is not supported: chunked is", f.encoding);
    } else {
        exchange->misframed = false;
    }
    return exchange->misframed;
}

static bool is_plain(const char *encoding) {
    return !encoding || !*encoding || strcasecmp(encoding, "identity") == 0;
}

/* What can be said before the body is there. Sets the answer where there is something to refuse. */
static void check_head(cria_exchange *exchange) {
    cria_server *server = exchange->server;
    const char *allow;
    if (refuse_framing(exchange)) return;
    if (cria_cors_preflight(exchange)) return;
    exchange->route = cria_route_find(exchange->method, exchange->url, &allow);
    if (!(exchange->route && exchange->route->open) &&
        !cria_authorized(server->config.api_key, header(exchange, "Authorization"))) {
        exchange->challenge = true;
        cria_reply_fail(exchange, 401, "Unauthorized: this server needs its API key as a bearer token");
        return;
    }
    if (!exchange->route) {
        exchange->allow = allow;
        cria_text_clear(&exchange->out);
        if (allow) {
            cria_reply_fail(exchange, 405, "Method Not Allowed");
        } else {
            cria_reply_fail(exchange, 404, "Not Found");
        }
        return;
    }
    bool post = strcmp(exchange->route->method, "POST") == 0;
    if (post && !exchange->route->open && server->busy_count > server->most_busy) {
        cria_reply_fail(exchange, 503, "%zu connections have open requests, which is the limit", server->most_busy);
    } else if (post && !is_json(header(exchange, "Content-Type"))) {
        cria_reply_fail(exchange, 415, "Unsupported Media Type: Only 'application/json' is allowed");
    } else if (post && !is_plain(header(exchange, "Content-Encoding"))) {
        cria_reply_fail(exchange, 415, "Content-Encoding '%.40s' is not supported: send the body as it is",
                        header(exchange, "Content-Encoding"));
    } else if (server->draining) {
        if (!exchange->route->open) cria_reply_fail(exchange, 503, "the server is shutting down");
    } else if (exchange->route->needs_model && !server->api.model) {
        cria_reply_fail(exchange, 503, "the model is still loading");
    } else if (exchange->route->queues) {
        cria_generate_has_room(exchange);
    }
}

/* True where the body need not be waited for: none comes, or the client asked before sending it. */
static bool body_is_avoidable(const cria_exchange *exchange) {
    if (exchange->misframed) return true;
    const char *expect = header(exchange, "Expect"), *length = header(exchange, "Content-Length");
    if (expect && strcasecmp(expect, "100-continue") == 0) return true;
    /* So much is not read to be polite. */
    return length && strtoll(length, NULL, 10) > 4 * exchange->server->config.max_body_bytes + (1 << 20);
}

static enum MHD_Result refuse_large(cria_exchange *exchange) {
    cria_text_deinit(&exchange->body);
    cria_text_init(&exchange->body);
    cria_reply_fail(exchange, 413, "The request body is larger than the %lld bytes allowed",
                    (long long)exchange->server->config.max_body_bytes);
    return MHD_YES;
}

static enum MHD_Result begin(cria_exchange *exchange) {
    check_head(exchange);
    const char *length = header(exchange, "Content-Length");
    if (exchange->state != CRIA_READY && length &&
        strtoll(length, NULL, 10) > exchange->server->config.max_body_bytes) {
        refuse_large(exchange);
    }
    if (exchange->state == CRIA_READY && body_is_avoidable(exchange)) return cria_reply_queue(exchange);
    return MHD_YES;
}

/* The body's next bytes. Once the answer stands they are read and dropped, so that the client gets to read it. */
static void take_body(cria_exchange *exchange, const char *data, size_t size) {
    if (exchange->state == CRIA_READY) return;
    cria_text_append(&exchange->body, data, size);
    if (exchange->body.failed) {
        cria_reply_fail(exchange, 503, "out of memory for the request body");
    } else if (exchange->body.length > (size_t)exchange->server->config.max_body_bytes) {
        refuse_large(exchange);
    }
}

enum MHD_Result cria_exchange_handle(void *server, struct MHD_Connection *connection, const char *url,
                                     const char *method, const char *version, const char *upload_data,
                                     size_t *upload_data_size, void **context) {
    (void)version;
    cria_exchange *exchange = *context;
    if (!exchange) {
        cria_socket *socket = socket_of(connection);
        exchange = socket ? create_exchange(socket, method, url) : NULL;
        if (!exchange) return MHD_NO;
        *context = exchange;
        exchange->receiving = true;
        return begin(exchange);
    }
    if (*upload_data_size) {
        take_body(exchange, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return MHD_YES;
    }
    exchange->receiving = false;
    exchange->complete_ns = cria_clock_ns();
    if (exchange->state == CRIA_BODY) exchange->route->handle(exchange);
    if (exchange->state == CRIA_READY) return cria_reply_queue(exchange);
    if (exchange->socket->hung_up || ((cria_server *)server)->closing) return MHD_NO;
    if (exchange->state == CRIA_STREAM) return cria_reply_queue(exchange);
    if (!exchange->suspended) {
        exchange->suspended = true;
        MHD_suspend_connection(connection);
    }
    return MHD_YES;
}
