/* Cross-origin requests: what lets pages of other origins use the server from a browser (the Fetch standard). */
#include "server/http/exchange.h"

#include <string.h>
#include <strings.h>

static const char *header(const cria_exchange *exchange, const char *name) {
    return MHD_lookup_connection_value(exchange->socket->connection, MHD_HEADER_KIND, name);
}

/* What the answer names as allowed: "*", or the request's own origin where the list has it; else NULL. */
static const char *allowed_origin(const cria_exchange *exchange) {
    const char *list = exchange->server->config.allowed_origins, *origin = header(exchange, "Origin");
    if (!list || !origin || !*origin) return NULL;
    if (strcmp(list, "*") == 0) return "*";
    size_t length = strlen(origin);
    for (const char *item = list; *item; item += strcspn(item, ",")) {
        item += strspn(item, ", ");
        if (strcspn(item, ", ") == length && strncasecmp(item, origin, length) == 0) return origin;
    }
    return NULL;
}

bool cria_cors_preflight(cria_exchange *exchange) {
    if (strcmp(exchange->method, "OPTIONS") != 0 || !header(exchange, "Access-Control-Request-Method")) return false;
    if (!allowed_origin(exchange)) return false;
    cria_reply_ready(exchange, 200, NULL);
    exchange->preflight = true;
    return true;
}

void cria_cors_headers(const cria_exchange *exchange, struct MHD_Response *response) {
    const char *origin = allowed_origin(exchange);
    if (!origin) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    if (strcmp(origin, "*") != 0) MHD_add_response_header(response, "Vary", "Origin");
    if (!exchange->preflight) {
        MHD_add_response_header(response, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        return;
    }
    const char *wanted = header(exchange, "Access-Control-Request-Headers");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, HEAD, OPTIONS, POST");
    if (wanted && *wanted) MHD_add_response_header(response, "Access-Control-Allow-Headers", wanted);
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
}
