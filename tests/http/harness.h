/* A server with a toy model behind it, and a client of bare sockets. For the tests of server/http. */
#ifndef CRIA_TESTS_HTTP_HARNESS_H
#define CRIA_TESTS_HTTP_HARNESS_H

#include "server/http/server.h"
#include "tests/http/toy_model.h"
#include "tests/http/toy_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char *const toy_names[] = {"toy", "also-toy"};
#define TOY_CHATML "{% ... %}<|im_start|>system\\nBe a toy<|im_end|>\\n{% ... %}<|im_start|>{{ role }}"

/* ---- the server ---- */

typedef struct {
    cria_server_config config;
    cria_engine_config engine_config;
    cria_tokenizer tokenizer;
    toy_model model;
    bool loading; /* the model is not set by start */
    cria_server_model server_model;
    cria_engine *engine;
    cria_server *server;
    pthread_t thread;
    cria_status result;
    cria_error error;
} toy_server;

static void toy_defaults(toy_server *t) {
    memset(t, 0, sizeof *t);
    t->config.model_names = toy_names;
    t->config.model_name_count = 2;
    t->config.version = "1.2.3";
    t->tokenizer.chat_template = TOY_CHATML;
    t->model.eos = TOY_EOS;
    t->model.vocab = TOY_VOCAB;
    t->engine_config = (cria_engine_config){
        .max_model_len = 256,
        .block_tokens = 16,
        .blocks = 512,
        .vocab = TOY_VOCAB,
        .eos = {TOY_EOS},
        .eos_count = 1,
        .prefix_cache = true,
        .max_waiting = 64,
        .max_waiting_prompt_tokens = 65536,
        .limits = {.tokens = 256,
                   .sequences = 32,
                   .rows = 256,
                   .blocks_per_sequence = 16,
                   .history = 8192,
                   .biases = 8192,
                   .allowed = 8192,
                   .top_logprobs = 100},
    };
}

static void *toy_run(void *argument) {
    toy_server *t = argument;
    t->result = cria_server_run(t->server, -1, &t->error);
    return NULL;
}

static void toy_set_model(toy_server *t) {
    t->server_model = (cria_server_model){.engine = t->engine,
                                          .tokenizer = &t->tokenizer,
                                          .max_model_len = t->engine_config.max_model_len,
                                          .vocab = TOY_VOCAB,
                                          .eos = {TOY_EOS},
                                          .eos_count = 1};
    assert_int_equal(cria_server_set_model(t->server, &t->server_model, &t->error), CRIA_OK);
}

static void toy_start(toy_server *t) {
    assert_int_equal(cria_server_create(&t->config, NULL, &t->server, &t->error), CRIA_OK);
    cria_runner runner = {.self = &t->model, .step = toy_step};
    assert_int_equal(
        cria_engine_create(&t->engine_config, runner, cria_server_deliver, t->server, NULL, &t->engine, &t->error),
        CRIA_OK);
    if (!t->loading) toy_set_model(t);
    assert_int_equal(pthread_create(&t->thread, NULL, toy_run, t), 0);
}

static void toy_stop(toy_server *t) {
    atomic_store(&t->model.hold, false);
    cria_server_stop(t->server);
    cria_server_stop(t->server);
    pthread_join(t->thread, NULL);
    assert_int_equal(t->result, CRIA_OK);
    cria_engine_destroy(t->engine);
    cria_server_destroy(t->server);
}

/* Waits until the engine is idle with all its blocks free; fails after 5 s. */
static inline void toy_wait_idle(toy_server *t) {
    cria_engine_stats stats;
    for (int i = 0; i < 5000; ++i) {
        cria_engine_stats_get(t->engine, &stats);
        if (stats.running == 0 && stats.waiting == 0 && stats.blocks_free == stats.blocks_total) return;
        usleep(1000);
    }
    fail_msg("running %ld waiting %ld free %ld of %ld", (long)stats.running, (long)stats.waiting,
             (long)stats.blocks_free, (long)stats.blocks_total);
}

/* ---- the client ---- */

typedef struct {
    int fd;
    char *data;
    size_t length, capacity, consumed;
} toy_client;

static void client_connect(toy_client *c, const toy_server *t) {
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)cria_server_port(t->server))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&address, sizeof address), 0);
}

static void client_close(toy_client *c) {
    if (c->fd >= 0) close(c->fd);
    free(c->data);
    c->fd = -1;
    c->data = NULL;
}

static void client_send_bytes(toy_client *c, const char *bytes, size_t length) {
    while (length) {
        ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0) return; /* the server may have said enough already */
        bytes += n;
        length -= (size_t)n;
    }
}

/* `headers`: more lines, each with its CRLF. */
static void client_send(toy_client *c, const char *method, const char *path, const char *headers, const char *body) {
    char head[2048];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\n%s", method, path, headers);
    if (body) {
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      strlen(body));
    }
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    client_send_bytes(c, head, (size_t)n);
    if (body) client_send_bytes(c, body, strlen(body));
}

/* Reads more; false at the end of the connection or after `timeout_ms`. */
static bool client_more(toy_client *c, int timeout_ms) {
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms) <= 0) return false;
    if (c->capacity - c->length < 65536) {
        c->capacity = c->capacity ? 2 * c->capacity : 131072;
        c->data = realloc(c->data, c->capacity);
    }
    ssize_t n = recv(c->fd, c->data + c->length, c->capacity - c->length - 1, 0);
    if (n <= 0) return false;
    c->length += (size_t)n;
    c->data[c->length] = 0;
    return true;
}

typedef struct {
    int status;
    char *headers, *body; /* NUL-terminated copies */
    size_t length;
} toy_answer;

static void answer_free(toy_answer *a) {
    free(a->headers);
    free(a->body);
    memset(a, 0, sizeof *a);
}

/* The value of a header in the answer, cut at the line's end, or NULL. */
static inline const char *answer_header(const toy_answer *a, const char *name, char out[256]) {
    char line[128];
    snprintf(line, sizeof line, "\r\n%s: ", name);
    const char *p = strcasestr(a->headers, line);
    if (!p) return NULL;
    p += strlen(line);
    size_t n = strcspn(p, "\r");
    memcpy(out, p, n < 255 ? n : 255);
    out[n < 255 ? n : 255] = 0;
    return out;
}

/* Takes one chunk of a chunked body off `p`; NULL if it is not all there. *size 0 is the last. */
static const char *parse_chunk(const char *p, const char *end, const char **data, size_t *size) {
    const char *line = memmem(p, (size_t)(end - p), "\r\n", 2);
    if (!line) return NULL;
    *size = strtoul(p, NULL, 16);
    *data = line + 2;
    if ((size_t)(end - *data) < *size + 2) return NULL;
    return *data + *size + 2;
}

/* Reads one whole answer, chunked or with a length. Status 0: the connection ended before. */
static toy_answer client_read(toy_client *c) {
    toy_answer a = {0};
    const char *split;
    while (!c->data || !(split = memmem(c->data + c->consumed, c->length - c->consumed, "\r\n\r\n", 4))) {
        if (!client_more(c, 10000)) return a;
    }
    size_t head = (size_t)(split + 4 - c->data) - c->consumed;
    a.headers = strndup(c->data + c->consumed, head);
    a.status = atoi(a.headers + 9);
    size_t at = c->consumed + head;
    const char *length = strcasestr(a.headers, "\r\nContent-Length: ");
    if (length) {
        a.length = strtoul(length + 18, NULL, 10);
        while (c->length < at + a.length) {
            if (!client_more(c, 10000)) break;
        }
        if (a.length > c->length - at) a.length = c->length - at;
        a.body = strndup(c->data + at, a.length);
        c->consumed = at + a.length;
        return a;
    }
    cria_text body = {0};
    for (;;) {
        const char *data, *next;
        size_t size;
        while (!(next = parse_chunk(c->data + at, c->data + c->length, &data, &size))) {
            if (!client_more(c, 10000)) goto out;
        }
        at = (size_t)(next - c->data);
        if (!size) break;
        cria_text_append(&body, data, size);
    }
out:
    c->consumed = at;
    a.length = body.length;
    a.body = body.data ? body.data : strdup("");
    return a;
}

/* One request on a connection of its own. */
static toy_answer ask(const toy_server *t, const char *method, const char *path, const char *body) {
    toy_client c;
    client_connect(&c, t);
    client_send(&c, method, path, "", body);
    toy_answer a = client_read(&c);
    client_close(&c);
    return a;
}

/* The answer to a POST holds the text (or not) and has the status. */
static inline void expect(const toy_server *t, const char *path, const char *body, int status, const char *part) {
    toy_answer a = ask(t, "POST", path, body);
    if (a.status != status || (part && !strstr(a.body, part))) {
        fail_msg("POST %s %.300s\n gave %d %s\n not %d ...%s...", path, body, a.status, a.body, status,
                 part ? part : "");
    }
    answer_free(&a);
}

#endif
