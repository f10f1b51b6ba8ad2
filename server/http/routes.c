/* The table of routes, and those that need no engine. */
#include "server/http/exchange.h"

#include "server/api/info.h"
#include "server/api/tokenize.h"
#include "server/page/page.h"

#include <string.h>

static void handle_health(cria_exchange *exchange) {
    cria_server *server = exchange->server;
    cria_engine_stats stats = {0};
    if (server->api.model) cria_engine_stats_get(server->api.model->engine, &stats);
    if (server->draining && !stats.failed) {
        cria_reply_fail(exchange, 503, "the server is shutting down");
        return;
    }
    if (!server->api.model) {
        char progress[sizeof server->progress];
        pthread_mutex_lock(&server->lock);
        memcpy(progress, server->progress, sizeof progress);
        pthread_mutex_unlock(&server->lock);
        cria_reply_fail(exchange, 503, "the model is still loading%s%s", progress[0] ? ": " : "", progress);
        return;
    }
    if (stats.failed) {
        cria_reply_fail(exchange, 503, "the engine has failed: %s", stats.why);
    } else if (stats.seconds_since_step > server->config.stall_seconds) {
        cria_reply_fail(exchange, 503, "work is pending, but no step has ended for %.0f s", stats.seconds_since_step);
    } else {
        cria_reply_ready(exchange, 200, NULL);
    }
}

/* Alive, whatever the model does. */
static void handle_ping(cria_exchange *exchange) {
    cria_reply_ready(exchange, 200, NULL);
}

static void handle_version(cria_exchange *exchange) {
    cria_info_version(&exchange->server->api, &exchange->out);
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_models(cria_exchange *exchange) {
    cria_info_models(&exchange->server->api, &exchange->out);
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_load(cria_exchange *exchange) {
    cria_text_printf(&exchange->out, "{\"server_load\":%zu}", exchange->server->generations);
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_plan(cria_exchange *exchange) {
    const char *plan = exchange->server->api.model->plan_json;
    if (!plan) {
        cria_reply_fail(exchange, 404, "this server runs without a plan file");
        return;
    }
    cria_text_puts(&exchange->out, plan);
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_metrics(cria_exchange *exchange) {
    cria_server *server = exchange->server;
    cria_engine_stats stats = {0};
    if (server->api.model) cria_engine_stats_get(server->api.model->engine, &stats);
    stats.waiting += server->api.model ? (int64_t)server->backlog : 0;
    cria_metrics_write(server->metrics, server->api.model ? &stats : NULL, server->config.model_names[0],
                       &exchange->out);
    const cria_server_model *model = server->api.model ? &server->model : NULL;
    if (model)
        cria_metrics_write_stages(model->engine, model->plan_notes, model->stage_bytes, server->config.model_names[0],
                                  &exchange->out);
    cria_reply_ready(exchange, 200, "text/plain; version=1.0.0; charset=utf-8");
}

/* The routes that turn one JSON object into another. */
static void handle_json(cria_exchange *exchange,
                        cria_status (*answer)(const cria_api *, const char *, size_t, cria_text *, cria_api_error *)) {
    cria_api_error error = {0};
    const char *body = exchange->body.data ? exchange->body.data : "";
    if (answer(&exchange->server->api, body, exchange->body.length, &exchange->out, &error) != CRIA_OK) {
        cria_reply_error(exchange, &error);
        return;
    }
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_tokenize(cria_exchange *exchange) {
    handle_json(exchange, cria_tokenize);
}

static void handle_detokenize(cria_exchange *exchange) {
    handle_json(exchange, cria_detokenize);
}

static void handle_tokenizer_info(cria_exchange *exchange) {
    cria_info_tokenizer(&exchange->server->api, &exchange->out);
    cria_reply_ready(exchange, 200, "application/json");
}

static void handle_page(cria_exchange *exchange) {
    size_t length;
    const char *page = cria_page_html(&length);
    cria_text_append(&exchange->out, page, length);
    cria_reply_ready(exchange, 200, "text/html; charset=utf-8");
}

static const cria_route routes[] = {
    {"POST", "/v1/completions", cria_generate_completion, .needs_model = true, .queues = true},
    {"POST", "/completions", cria_generate_completion, .needs_model = true, .queues = true},
    {"POST", "/v1/chat/completions", cria_generate_chat, .needs_model = true, .queues = true},
    {"POST", "/logprobs", cria_generate_next, .needs_model = true, .queues = true},
    {"POST", "/tokenize", handle_tokenize, .needs_model = true},
    {"POST", "/detokenize", handle_detokenize, .needs_model = true},
    {"GET", "/tokenizer_info", handle_tokenizer_info, .needs_model = true},
    {"GET", "/v1/models", handle_models, .needs_model = true},
    {"GET", "/health", handle_health, .open = true},
    {"GET", "/ping", handle_ping, .open = true},
    {"POST", "/ping", handle_ping, .open = true},
    {"GET", "/version", handle_version, .open = false},
    {"GET", "/load", handle_load, .open = false},
    {"GET", "/plan", handle_plan, .needs_model = true},
    {"GET", "/metrics", handle_metrics, .open = false},
    {"GET", "/", handle_page, .open = false},
};

const cria_route *cria_route_find(const char *method, const char *url, const char **allow) {
    *allow = NULL;
    if (strcmp(method, "HEAD") == 0) method = "GET"; /* MHD leaves the body out */
    for (size_t i = 0; i < sizeof routes / sizeof *routes; ++i) {
        if (strcmp(routes[i].path, url) != 0) continue;
        if (strcmp(routes[i].method, method) == 0) return &routes[i];
        *allow = *allow ? "GET, POST" : routes[i].method;
    }
    return NULL;
}
