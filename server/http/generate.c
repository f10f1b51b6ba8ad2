/* Generating routes: between the API's generation, the engine and the connection. */
#include "server/http/exchange.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One request may have so many sequences in the engine at a time; the others wait here, so that a long list of prompts
 * neither fills the engine's queue for everybody nor is refused because the queue is shorter than the list. */
enum { MOST_IN_ENGINE = 256 };

static int64_t prompt_tokens(const cria_generation *generation, size_t choice) {
    return (int64_t)generation->prompts.items[generation->choices[choice].prompt].count;
}

static void leave_backlog(cria_exchange *exchange, size_t choice) {
    --exchange->server->backlog;
    exchange->server->backlog_tokens -= prompt_tokens(exchange->generation, choice);
}

static void enter_backlog(cria_exchange *exchange) {
    const cria_generation *generation = exchange->generation;
    exchange->server->backlog += generation->choice_count;
    for (size_t i = 0; i < generation->choice_count; ++i) {
        exchange->server->backlog_tokens += prompt_tokens(generation, i);
    }
}

cria_status cria_generate_admit(void *context, int64_t prompt_tokens, cria_error *err) {
    cria_server *server = context;
    return cria_engine_has_room(server->api.model->engine, (int64_t)server->backlog, server->backlog_tokens,
                                prompt_tokens, err);
}

bool cria_generate_has_room(cria_exchange *exchange) {
    cria_error cause;
    cria_status status = cria_generate_admit(exchange->server, 1, &cause);
    if (status == CRIA_OK) return true;
    cria_api_error error = {0};
    cria_api_fail_from(&error, &cause);
    if (status == CRIA_ERR_FULL) cria_metrics_refuse(exchange->server->metrics);
    cria_reply_error(exchange, &error);
    return false;
}

void cria_generate_cancel(cria_exchange *exchange) {
    cria_generation *generation = exchange->generation;
    if (!generation) return;
    for (size_t i = exchange->submitted; i < generation->choice_count; ++i) leave_backlog(exchange, i);
    for (size_t i = 0; i < exchange->submitted; ++i) {
        cria_choice *choice = &generation->choices[i];
        if (choice->submitted && !choice->released)
            cria_engine_cancel(exchange->server->api.model->engine, choice->engine_id);
    }
    exchange->submitted = generation->choice_count; /* nothing more is to be submitted */
}

/* The next sequence goes to the engine. */
static cria_status submit_next(cria_exchange *exchange, cria_api_error *error) {
    cria_generation *generation = exchange->generation;
    cria_choice *choice = &generation->choices[exchange->submitted];
    cria_request *request = cria_generation_request(generation, exchange->submitted);
    if (!request) return cria_api_fail_status(error, 503, NULL, "out of memory"), CRIA_ERR_MEMORY;
    cria_error cause;
    choice->owner = exchange;
    cria_status status = cria_engine_submit(exchange->server->api.model->engine, request, &choice->engine_id, &cause);
    if (status != CRIA_OK) {
        cria_request_destroy(request);
        cria_api_fail_from(error, &cause);
        return status;
    }
    choice->submitted = true;
    if (exchange->paused) cria_engine_pause(exchange->server->api.model->engine, choice->engine_id, true);
    leave_backlog(exchange, exchange->submitted);
    ++exchange->submitted;
    ++exchange->open;
    return CRIA_OK;
}

/* The generation is over: the answer stands, or the stream has its last events. */
static void end_exchange(cria_exchange *exchange) {
    if (exchange->ended) return;
    cria_generation *generation = exchange->generation;
    cria_generate_cancel(exchange); /* what runs on behind a stop string or a failure */
    if (generation->failed && exchange->state == CRIA_WAITING) {
        cria_reply_error(exchange, &generation->error); /* nothing went out yet: the status can tell */
    } else {
        cria_generation_end(generation, &exchange->out);
        exchange->ended = true;
        if (generation->params.stream) {
            exchange->state = CRIA_STREAM;
            exchange->content_type = "text/event-stream; charset=utf-8";
        } else {
            cria_reply_ready(exchange, 200, "application/json");
        }
    }
    cria_exchange_resume(exchange);
}

static void fail_exchange(cria_exchange *exchange, const cria_api_error *error) {
    cria_generation_fail(exchange->generation, error);
    end_exchange(exchange);
}

/* As many as fit. CRIA_ERR_FULL: the engine has no room. */
static cria_status submit_some(cria_exchange *exchange, cria_api_error *error) {
    while (exchange->submitted < exchange->generation->choice_count && exchange->open < MOST_IN_ENGINE) {
        CRIA_TRY(submit_next(exchange, error));
    }
    return CRIA_OK;
}

void cria_generate_pump(cria_server *server) {
    if (!server->backlog) return;
    cria_exchange *next;
    for (cria_exchange *exchange = server->exchanges; exchange; exchange = next) {
        next = exchange->next;
        if (!exchange->generation || exchange->submitted == exchange->generation->choice_count) continue;
        cria_api_error error = {0};
        cria_status status = submit_some(exchange, &error);
        if (status == CRIA_ERR_FULL) continue;
        if (status != CRIA_OK) fail_exchange(exchange, &error);
    }
}

static void generate(cria_exchange *exchange, cria_api_kind kind) {
    cria_server *server = exchange->server;
    cria_api_error error = {0};
    if (!cria_generate_has_room(exchange)) return; /* it has filled up while the body came */
    const char *body = exchange->body.data ? exchange->body.data : "";
    const char *label = exchange->named ? exchange->request_id : NULL;
    cria_status status =
        cria_generation_create(&server->api, kind, body, exchange->body.length, label, &exchange->generation, &error);
    if (status == CRIA_OK && !label) /* the header and the body name the request alike */
        snprintf(exchange->request_id, sizeof exchange->request_id, "%s", strchr(exchange->generation->id, '-') + 1);
    cria_text_deinit(&exchange->body);
    cria_text_init(&exchange->body);
    if (status != CRIA_OK) {
        if (status == CRIA_ERR_FULL) cria_metrics_refuse(server->metrics);
        cria_reply_error(exchange, &error);
        return;
    }
    exchange->state = CRIA_WAITING;
    exchange->counted = true;
    ++server->generations;
    enter_backlog(exchange);
    status = submit_some(exchange, &error);
    bool none = exchange->submitted == 0;
    if (status == CRIA_ERR_FULL && none) cria_metrics_refuse(server->metrics);
    if (status != CRIA_OK && (none || status != CRIA_ERR_FULL)) fail_exchange(exchange, &error);
    cria_metrics_request(server->metrics, exchange->generation);
}

void cria_generate_completion(cria_exchange *exchange) {
    generate(exchange, CRIA_API_COMPLETION);
}

void cria_generate_chat(cria_exchange *exchange) {
    generate(exchange, CRIA_API_CHAT);
}

void cria_generate_next(cria_exchange *exchange) {
    generate(exchange, CRIA_API_NEXT);
}

/* A reader that is slow holds up nobody but itself: its sequences stop until it has read. */
void cria_generate_balance(cria_exchange *exchange) {
    if (!exchange->generation || exchange->ended) return;
    size_t unread = exchange->out.length - exchange->out_position;
    size_t most = (size_t)exchange->server->config.stream_buffer_bytes;
    bool pause = exchange->paused ? unread > most / 2 : unread > most;
    if (pause == exchange->paused) return;
    exchange->paused = pause;
    for (size_t i = 0; i < exchange->generation->choice_count; ++i) {
        cria_choice *choice = &exchange->generation->choices[i];
        if (choice->submitted && !choice->released) {
            cria_engine_pause(exchange->server->api.model->engine, choice->engine_id, pause);
        }
    }
}

/* Moves what is still unread to the front once it is the smaller part. */
static void compact(cria_exchange *exchange) {
    size_t done = exchange->out_position, left = exchange->out.length - done;
    if (done < 4096 || done < left) return;
    memmove(exchange->out.data, exchange->out.data + done, left);
    exchange->out.length = left;
    exchange->out_position = 0;
}

static void take_event(cria_server *server, cria_event *event) {
    cria_choice *choice = event->user;
    cria_exchange *exchange = choice->owner;
    cria_generation *generation = exchange->generation;
    if (exchange->socket && !exchange->ended) {
        bool before = choice->done;
        if (event->kind == CRIA_EVENT_TOKEN && !before) cria_metrics_token(server->metrics, choice, exchange->start_ns);
        size_t i = (size_t)(choice - generation->choices);
        if (cria_generation_event(generation, i, event, &exchange->out)) {
            cria_engine_cancel(server->api.model->engine, choice->engine_id);
        }
        if (choice->done && !before) cria_metrics_finish(server->metrics, choice->finish_reason);
        if (generation->params.stream && exchange->out.length > exchange->out_position &&
            exchange->state == CRIA_WAITING) {
            exchange->state = CRIA_STREAM;
            exchange->content_type = "text/event-stream; charset=utf-8";
        }
        if (cria_generation_done(generation)) end_exchange(exchange);
        if (exchange->state == CRIA_STREAM) {
            compact(exchange);
            cria_generate_balance(exchange);
            if (exchange->out.length > exchange->out_position) cria_exchange_resume(exchange);
        }
    }
    if (event->kind == CRIA_EVENT_FINISH) {
        if (choice->done) { /* of one that left, some choices may have been told that they are aborted */
            bool aborted = strcmp(choice->finish_reason, "abort") == 0;
            if (!aborted) cria_metrics_end(server->metrics, choice, event, exchange->start_ns);
        } else { /* nobody has seen it end */
            cria_metrics_finish(server->metrics, event->finish == CRIA_FINISH_ERROR ? "error" : "abort");
        }
        choice->released = true;
        --exchange->open;
        cria_exchange_release(exchange);
    }
}

void cria_generate_deliver(cria_server *server) {
    size_t count;
    bool lost;
    cria_event **events = cria_mailbox_take(server->mailbox, &count, &lost);
    for (size_t i = 0; i < count; ++i) {
        take_event(server, events[i]);
        cria_event_destroy(events[i]);
    }
    if (lost) {
        cria_log_write(server->log, CRIA_LOG_ERROR, "http: out of memory, engine events were lost; open requests fail");
        cria_generate_close_all(server);
    }
}

void cria_generate_close_all(cria_server *server) {
    cria_exchange *next;
    for (cria_exchange *exchange = server->exchanges; exchange; exchange = next) {
        next = exchange->next;
        if (!exchange->generation || exchange->ended || !exchange->socket) continue;
        cria_api_error error = {0};
        cria_api_fail_status(&error, 503, NULL, "the server is shutting down");
        error.retry_after = 5;
        fail_exchange(exchange, &error);
    }
}
