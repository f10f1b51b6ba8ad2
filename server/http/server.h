/* HTTP server: the OpenAI-shaped front of one engine, on one event loop.
 *
 * The way of use: create (listens at once; /health answers 503 "loading"), load the model, cria_engine_create with
 * cria_server_deliver and the server as its context, cria_server_set_model, cria_server_run until told to stop, then
 * cria_engine_destroy, then cria_server_destroy. The thread in cria_server_run owns sockets, detokenizers and JSON. */
#ifndef CRIA_SERVER_HTTP_SERVER_H
#define CRIA_SERVER_HTTP_SERVER_H

#include "base/error.h"
#include "base/log.h"
#include "models/config.h"
#include "parallel/plan/plan_file.h"
#include "server/engine/engine.h"
#include "tokenizer/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is known before the model is. Strings are borrowed until destroy. */
typedef struct {
    const char *host;               /* NULL: "127.0.0.1"; a numeric address or a name; "::" listens on both families */
    int port;                       /* 0: the system chooses, cria_server_port tells */
    const char *const *model_names; /* >= 1: the names clients may use; the first one is reported */
    size_t model_name_count;
    const char *model_root;      /* where the model came from, for /v1/models; NULL: the first name */
    const char *api_key;         /* NULL: no key is asked for; else every route but /health and /ping needs it */
    const char *allowed_origins; /* whose pages may use this server from a browser: "*", or origins separated by commas;
                                  * NULL: none */
    const char *version;         /* of the program, for /version; NULL: "0" */

    /* Limits; 0 takes the default given here. What passes one is an error that names it. */
    int64_t max_connections;   /* 4096 with open requests; fewer where the process may not open so many files */
    int64_t max_body_bytes;    /* 16 MiB */
    int64_t max_logprobs;      /* 20 per token; a negative number: the whole vocabulary may be asked for */
    int64_t max_n;             /* 1024 choices per prompt (`n`, `best_of`) */
    int64_t max_prompts;       /* 1024 prompts in one request */
    int64_t max_sequences;     /* 1024 sequences (prompts times n) in one request */
    int64_t max_stop_strings;  /* 16 in one request, max_stop_bytes together */
    int64_t max_stop_bytes;    /* 4096 */
    int64_t max_next_logprobs; /* 100: `top_k` of Alpa's /logprobs; the engine's limits.top_logprobs must allow both */
    double idle_seconds;       /* 75: a kept-alive connection without a request */
    double request_seconds;    /* 30: from a request's first byte to its last (slow loris) */
    double write_seconds;      /* 120: a client that reads nothing of a stream for so long is cut off */
    double drain_seconds;      /* 30: after a stop, for open requests to finish */
    double stall_seconds;      /* 60: /health is 503 when work is pending and no step ended for so long */
    int64_t stream_buffer_bytes; /* 64 KiB unread by a slow client pause its sequence (cria_engine_pause) */
} cria_server_config;

/* What is known once the model is loaded. Borrowed until destroy. */
typedef struct {
    cria_engine *engine;
    const cria_tokenizer *tokenizer;
    int64_t max_model_len;
    int64_t vocab;  /* of the model; 0: the tokenizer's size */
    int32_t eos[8]; /* as in cria_engine_config; none: the tokenizer's */
    int eos_count;
    const char *chat_template_name;    /* --chat-template; NULL: recognise chat_template_text. An unknown name fails. */
    const char *chat_template_text;    /* NULL: the tokenizer's own (cria_tokenizer_chat_template) */
    const char *plan_json;             /* answered by GET /plan; NULL: 404 */
    const cria_plan_notes *plan_notes; /* what was predicted of it, for /metrics; NULL: nothing */
    const int64_t *stage_bytes;        /* [stages] memory of the fullest rank of each; NULL: not known */
    const cria_sampling_defaults *defaults; /* where a request does not say; NULL: neutral values */
} cria_server_model;

typedef struct cria_server cria_server;

/* How many files the process has to be allowed to open (RLIMIT_NOFILE) for so many connections. */
size_t cria_server_files(int64_t connections);

/* Opens the listening socket. A host or port that cannot be had is CRIA_ERR_IO with both named. `log` may be NULL. */
cria_status cria_server_create(const cria_server_config *config, cria_log *log, cria_server **out, cria_error *err);
/* Call after cria_server_run returned and after the engine was destroyed. Closes what is still open. */
void cria_server_destroy(cria_server *server);
/* The port that is listened on. Any thread. */
int cria_server_port(const cria_server *server);

/* From now on requests are taken. Once, from any thread. */
cria_status cria_server_set_model(cria_server *server, const cria_server_model *model, cria_error *err);
/* While loading: what /health says beside 503, "packing weights 40%"; copied, cut at 127 bytes. Any thread. */
void cria_server_set_progress(cria_server *server, const char *text);

/* The engine's `deliver`, with the cria_server as its context. Any thread but the one in cria_server_run; waits while
 * that one is far behind; valid until destroy. */
void cria_server_deliver(void *server, cria_event *event);

/* Serves on the calling thread. Returns after cria_server_stop, or when `stop_fd` (signalfd, eventfd, pipe; -1: none)
 * becomes readable: new requests get 503, open ones go on for at most drain_seconds, what is left is cancelled.
 * Something more to read from stop_fd, or a second cria_server_stop, ends the drain at once. */
cria_status cria_server_run(cria_server *server, int stop_fd, cria_error *err);
/* Any thread, and signal handlers. */
void cria_server_stop(cria_server *server);

#endif
