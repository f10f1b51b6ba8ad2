/* `cria generate`: one prompt through the real engine, streamed to the terminal or as one JSON object. */
#include "server/commands/commands.h"

#include "base/clock.h"
#include "base/queue.h"
#include "base/text.h"
#include "server/commands/planned.h"
#include "server/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const cria_command *command;
    const cria_main_options *options;
    cria_runtime *runtime;
    cria_queue *events;
    cria_ids prompt;
    cria_text text, tokens, logprobs, prompt_logprobs;
    uint64_t start, first_token;
    const char *finish;
    int generated;
} generation;

static void deliver(void *context, cria_event *event) {
    /* The queue holds more than a request can produce; a push can only fail when the reader has gone. */
    if (!cria_queue_try_push(context, &event)) cria_event_destroy(event);
}

static cria_status make_prompt(generation *g, cria_error *err) {
    const cria_tokenizer *tokenizer = cria_runtime_tokenizer(g->runtime);
    if (g->options->prompt_ids) {
        size_t max = strlen(g->options->prompt_ids) / 2 + 1, count;
        int64_t *values = malloc(max * sizeof *values);
        g->prompt.ids = malloc(max * sizeof *g->prompt.ids);
        if (!values || !g->prompt.ids) {
            free(values);
            return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the prompt");
        }
        cria_status status = cria_parse_list("prompt-ids", g->options->prompt_ids, values, max, &count, err);
        for (size_t i = 0; status == CRIA_OK && i < count; i++) g->prompt.ids[g->prompt.count++] = (int32_t)values[i];
        free(values);
        return status;
    }
    if (!g->options->prompt) return cria_fail(err, CRIA_ERR_ARGUMENT, "give a prompt with --prompt or --prompt-ids");
    if (!tokenizer) return cria_fail(err, CRIA_ERR_ARGUMENT, "the model has no tokenizer: use --prompt-ids");
    cria_encode_options encode = {.add_special = true, .parse_special = true};
    CRIA_TRY(
        cria_tokenizer_encode(tokenizer, g->options->prompt, strlen(g->options->prompt), encode, 0, &g->prompt, err));
    if (g->prompt.count == 0) return cria_fail(err, CRIA_ERR_ARGUMENT, "prompt: it is empty");
    return CRIA_OK;
}

static cria_request *make_request(const generation *g) {
    cria_request *request = cria_request_create();
    if (!request) return NULL;
    request->prompt = malloc(g->prompt.count * sizeof *request->prompt);
    if (!request->prompt) {
        cria_request_destroy(request);
        return NULL;
    }
    memcpy(request->prompt, g->prompt.ids, g->prompt.count * sizeof *request->prompt);
    request->prompt_count = g->prompt.count;
    cria_sampling *s = &request->sampling;
    s->temperature = (float)g->options->temperature;
    s->top_p = (float)g->options->top_p;
    s->top_k = (int32_t)g->options->top_k;
    s->min_p = (float)g->options->min_p;
    s->repetition_penalty = (float)g->options->repetition_penalty;
    s->seed = (uint64_t)g->options->seed;
    s->max_tokens = (int32_t)g->options->max_tokens;
    s->ignore_eos = g->options->ignore_eos;
    s->logprobs = (int32_t)g->options->logprobs;
    s->prompt_logprobs = g->options->echo ? (g->options->logprobs > 0 ? (int32_t)g->options->logprobs : 0) : -1;
    return request;
}

/* {"token":5,"logprob":-1.2,"rank":1,"top":[[5,-1.2],...]} */
static void append_logprob(cria_text *out, const cria_event *event, int i) {
    const cria_token_logprob *l = &event->logprobs[i];
    cria_text_printf(out, "%s{\"token\":%d,\"logprob\":", out->length ? "," : "", l->token);
    cria_text_json_number(out, (double)l->logprob);
    cria_text_printf(out, ",\"rank\":%d,\"top\":[", l->rank);
    for (int k = 0; k < l->top_count; k++) {
        cria_text_printf(out, "%s[%d,", k ? "," : "", event->top_ids[i * event->top_stride + k]);
        cria_text_json_number(out, (double)event->top_logprobs[i * event->top_stride + k]);
        cria_text_puts(out, "]");
    }
    cria_text_puts(out, "]}");
}

/* Prints what of the text is certain to stand before any stop string; true when a stop string was found. */
static bool show(generation *g, size_t *shown, bool last) {
    const char *stop = g->options->stop;
    size_t stop_length = stop ? strlen(stop) : 0, end = g->text.length;
    bool found = false;
    if (stop_length && g->text.length) {
        char *at = memmem(g->text.data, g->text.length, stop, stop_length);
        if (at) {
            end = (size_t)(at - g->text.data);
            g->text.length = end;
            g->text.data[end] = '\0';
            found = true;
        } else if (!last) {
            size_t hold = stop_length - 1 < end ? stop_length - 1 : end;
            while (hold > 0 && memcmp(g->text.data + end - hold, stop, hold) != 0) hold--;
            end -= hold;
        }
    }
    if (!g->options->json && end > *shown) {
        fwrite(g->text.data + *shown, 1, end - *shown, stdout);
        fflush(stdout);
    }
    if (end > *shown) *shown = end;
    return found;
}

static cria_status take_events(generation *g, cria_engine *engine, uint64_t id, cria_detokenizer *detokenizer,
                               cria_event *last, cria_error *err) {
    size_t shown = 0;
    bool stopped = false;
    for (;;) {
        cria_event *event;
        if (!cria_queue_pop(g->events, &event, -1)) return cria_fail(err, CRIA_ERR_CLOSED, "the engine has stopped");
        cria_event_kind kind = event->kind;
        if (kind == CRIA_EVENT_PROMPT)
            for (int i = 0; i < event->count; i++) append_logprob(&g->prompt_logprobs, event, i);
        if (kind == CRIA_EVENT_TOKEN && !stopped) {
            if (g->generated++ == 0) g->first_token = cria_clock_ns();
            cria_text_printf(&g->tokens, "%s%d", g->tokens.length ? "," : "", event->token);
            if (event->has_logprobs) append_logprob(&g->logprobs, event, 0);
            if (detokenizer) cria_detokenizer_push(detokenizer, event->token, &g->text, NULL);
            stopped = show(g, &shown, false);
            if (stopped) cria_engine_cancel(engine, id);
        }
        if (kind == CRIA_EVENT_FINISH) {
            if (detokenizer && !stopped) cria_detokenizer_finish(detokenizer, &g->text);
            show(g, &shown, true);
            g->finish = stopped || event->finish == CRIA_FINISH_STOP ? "stop" : "length";
            *last = *event;
        }
        cria_status status = CRIA_OK;
        if (kind == CRIA_EVENT_FINISH && event->finish == CRIA_FINISH_ERROR)
            status = cria_fail(err, CRIA_ERR_INTERNAL, "%s", event->error);
        cria_event_destroy(event);
        if (status != CRIA_OK || kind == CRIA_EVENT_FINISH) return status;
    }
}

static void print_json(const generation *g, const cria_event *last) {
    double prefill = g->generated ? cria_seconds_between(g->start, g->first_token) : 0;
    double decode = g->generated ? cria_seconds_between(g->first_token, cria_clock_ns()) : 0;
    cria_text out;
    cria_text_init(&out);
    cria_text_puts(&out, "{\"text\":");
    cria_text_json_string(&out, g->text.data ? g->text.data : "", g->text.length);
    cria_text_printf(&out, ",\"tokens\":[%s],\"logprobs\":", g->tokens.length ? g->tokens.data : "");
    if (g->options->logprobs >= 0)
        cria_text_printf(&out, "[%s]", g->logprobs.length ? g->logprobs.data : "");
    else
        cria_text_puts(&out, "null");
    if (g->options->echo)
        cria_text_printf(&out, ",\"prompt_logprobs\":[%s]", g->prompt_logprobs.length ? g->prompt_logprobs.data : "");
    cria_text_puts(&out, ",\"prompt_tokens\":[");
    for (size_t i = 0; i < g->prompt.count; i++) cria_text_printf(&out, "%s%d", i ? "," : "", g->prompt.ids[i]);
    cria_text_printf(&out,
                     "],\"finish_reason\":\"%s\",\"timings\":{\"prompt_tokens\":%d,\"generated_tokens\":%d,"
                     "\"seconds_to_first_token\":%.6f,\"decode_tokens_per_second\":%.3f}}\n",
                     g->finish, last->prompt_tokens, g->generated, prefill,
                     g->generated > 1 && decode > 0 ? (g->generated - 1) / decode : 0.0);
    if (!out.failed) fwrite(out.data, 1, out.length, stdout);
    cria_text_deinit(&out);
}

static cria_status run(generation *g, cria_error *err) {
    CRIA_TRY(make_prompt(g, err));
    g->events = cria_queue_create(sizeof(cria_event *), g->prompt.count + (size_t)g->options->max_tokens + 16);
    cria_request *request = make_request(g);
    if (!g->events || !request) {
        cria_request_destroy(request);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the request");
    }
    cria_engine *engine;
    cria_status status = cria_runtime_start_engine(g->runtime, deliver, g->events, g->command->log, &engine, err);
    if (status != CRIA_OK) {
        cria_request_destroy(request);
        return status;
    }
    const cria_tokenizer *tokenizer = cria_runtime_tokenizer(g->runtime);
    cria_detokenizer *detokenizer =
        tokenizer ? cria_detokenizer_create(tokenizer, true, g->prompt.ids, g->prompt.count) : NULL;
    uint64_t id = 0;
    cria_event last = {0};
    g->start = cria_clock_ns();
    status = cria_engine_submit(engine, request, &id, err);
    if (status != CRIA_OK)
        cria_request_destroy(request);
    else
        status = take_events(g, engine, id, detokenizer, &last, err);
    if (status == CRIA_OK && g->options->json)
        print_json(g, &last);
    else if (status == CRIA_OK)
        putchar('\n');
    cria_engine_destroy(engine);
    cria_detokenizer_destroy(detokenizer);
    return status;
}

static cria_status generate(const cria_command *command, cria_ranks_joined *ranks, void *context, cria_error *err) {
    (void)context;
    if (ranks->rank > 0) return cria_ranks_follow(command, ranks, err);
    generation g = {.command = command, .options = command->options};
    cria_runtime_request request = {.needs_tokenizer = command->options->prompt != NULL, .progress = stderr};
    cria_ranks_request(ranks, &request);
    CRIA_TRY(cria_runtime_open(command->path, command->options, &request, command->log, &g.runtime, err));
    cria_text *texts[] = {&g.text, &g.tokens, &g.logprobs, &g.prompt_logprobs};
    for (size_t i = 0; i < 4; i++) cria_text_init(texts[i]);
    cria_status status = ranks->comm ? cria_ranks_print(ranks, g.runtime, err) : CRIA_OK;
    if (status == CRIA_OK) status = run(&g, err);
    if (status == CRIA_OK && ranks->comm) status = cria_group_stop(cria_runtime_group(g.runtime), err);
    for (size_t i = 0; i < 4; i++) cria_text_deinit(texts[i]);
    cria_event *event;
    while (g.events && cria_queue_try_pop(g.events, &event)) cria_event_destroy(event);
    cria_queue_destroy(g.events);
    cria_ids_deinit(&g.prompt);
    cria_runtime_close(g.runtime);
    return status;
}

cria_status cria_command_generate(const cria_command *command, cria_error *err) {
    return cria_ranks_run(command, generate, NULL, err);
}
