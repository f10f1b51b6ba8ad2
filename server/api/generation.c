/* The life of a generation, apart from sockets. */
#include "server/api/generation.h"

#include "base/random.h"
#include "server/api/body.h"
#include "server/api/chat.h"
#include "server/api/next.h"
#include "server/api/respond.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool label_is_usable(const char *label) {
    if (!label || !label[0] || strlen(label) > 64) return false;
    for (const char *p = label; *p; ++p) {
        bool plain = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '-' ||
                     *p == '_' || *p == '.';
        if (!plain) return false;
    }
    return true;
}

static void name(cria_generation *g, const char *label) {
    const char *prefix = g->kind == CRIA_API_CHAT ? "chatcmpl" : "cmpl";
    if (!label_is_usable(label)) label = g->params.label;
    if (label_is_usable(label)) {
        snprintf(g->id, sizeof g->id, "%s-%s", prefix, label);
    } else {
        snprintf(g->id, sizeof g->id, "%s-%016llx", prefix, (unsigned long long)cria_random_seed());
    }
    g->params.label = NULL; /* it lives in the body, which goes now */
    g->created = (int64_t)time(NULL);
}

static cria_status make_choices(cria_generation *g, cria_api_error *err) {
    size_t each = (size_t)g->params.best_of, total = g->prompts.count * each;
    if (total > (size_t)g->api->config->max_sequences) {
        return cria_api_fail(err, "n", "%zu prompts times %zu choices are more than the %lld sequences allowed",
                             g->prompts.count, each, (long long)g->api->config->max_sequences);
    }
    g->choices = calloc(total, sizeof *g->choices);
    if (!g->choices) return cria_api_fail_status(err, 500, NULL, "out of memory");
    g->choice_count = total;
    for (size_t i = 0; i < total; ++i) {
        cria_choice *choice = &g->choices[i];
        choice->prompt = i / each;
        choice->index = i;
        choice->owner = g;
        CRIA_TRY(cria_choice_init(choice, g->api, &g->params, &g->prompts.items[choice->prompt],
                                  g->kind == CRIA_API_CHAT, err));
    }
    return CRIA_OK;
}

static cria_status read_body(cria_generation *g, const cria_json_value *body, cria_api_error *err) {
    CRIA_TRY(cria_params_check_model(g->api, body, err));
    if (g->kind == CRIA_API_NEXT) return cria_next_read(g, body, err);
    CRIA_TRY(cria_params_read(g->api, body, g->kind == CRIA_API_CHAT, &g->params, err));
    if (g->kind == CRIA_API_CHAT) return cria_chat_read(g, body, err);
    return cria_prompts_read(g->api, body, &g->params, &g->prompts, err);
}

cria_status cria_generation_create(const cria_api *api, cria_api_kind kind, const char *body, size_t length,
                                   const char *label, cria_generation **out, cria_api_error *err) {
    cria_json *json = NULL;
    CRIA_TRY(cria_body_parse(body, length, &json, err));
    cria_generation *g = calloc(1, sizeof *g);
    if (!g) {
        cria_json_destroy(json);
        return cria_api_fail_status(err, 500, NULL, "out of memory");
    }
    g->api = api;
    g->kind = kind;
    cria_status status = read_body(g, cria_json_root(json), err);
    if (status == CRIA_OK) name(g, label);
    cria_json_destroy(json);
    if (status == CRIA_OK) status = make_choices(g, err);
    if (status != CRIA_OK) {
        cria_generation_destroy(g);
        return status;
    }
    *out = g;
    return CRIA_OK;
}

void cria_generation_destroy(cria_generation *generation) {
    if (!generation) return;
    for (size_t i = 0; i < generation->choice_count; ++i) cria_choice_deinit(&generation->choices[i]);
    free(generation->choices);
    cria_prompts_deinit(&generation->prompts);
    cria_params_deinit(&generation->params);
    cria_text_deinit(&generation->prefix);
    free(generation);
}

/* A malloc'ed copy; count 0 gives NULL. False if memory is out. */
static bool copy_array(const void *from, size_t count, size_t size, void *to) {
    void *copy = NULL;
    if (count) {
        copy = malloc(count * size);
        if (!copy) return false;
        memcpy(copy, from, count * size);
    }
    memcpy(to, &copy, sizeof copy);
    return true;
}

cria_request *cria_generation_request(cria_generation *generation, size_t i) {
    const cria_params *p = &generation->params;
    cria_choice *choice = &generation->choices[i];
    const cria_prompt *prompt = &generation->prompts.items[choice->prompt];
    cria_request *r = cria_request_create();
    if (!r) return NULL;
    r->user = choice;
    r->sampling = p->sampling;
    r->sampling.max_tokens = prompt->max_tokens;
    r->sampling.seed = p->sampling.seed + i % (size_t)p->best_of;
    r->priority = p->priority;
    r->cache_salt = p->cache_salt;
    size_t bad_ids = 0;
    for (size_t b = 0; b < p->bad_count; ++b) bad_ids += (size_t)p->bad_lengths[b];
    bool ok = copy_array(prompt->ids, prompt->count, sizeof *r->prompt, &r->prompt) &&
              copy_array(p->stop_ids, p->stop_id_count, sizeof *r->stop_ids, &r->stop_ids) &&
              copy_array(p->biases, p->bias_count, sizeof *r->biases, &r->biases) &&
              copy_array(p->allowed, p->allowed_count, sizeof *r->allowed, &r->allowed) &&
              copy_array(p->bad_words, bad_ids, sizeof *r->bad_words, &r->bad_words) &&
              copy_array(p->bad_lengths, p->bad_count, sizeof *r->bad_lengths, &r->bad_lengths);
    if (!ok) {
        cria_request_destroy(r);
        return NULL;
    }
    r->prompt_count = prompt->count;
    r->stop_count = p->stop_id_count;
    r->bias_count = p->bias_count;
    r->allowed_count = p->allowed_count;
    r->bad_count = p->bad_count;
    return r;
}

static void write_chunk(cria_generation *g, cria_choice *choice, cria_text *out) {
    if (g->kind == CRIA_API_CHAT) {
        if (!g->begun) cria_respond_chat_begin(g, out);
        cria_respond_chat_chunk(g, choice, out);
    } else {
        cria_respond_completion_chunk(g, choice, out);
    }
    g->begun = true;
    choice->begun = true;
    choice->pending = false;
}

static void engine_failed(cria_generation *g, const cria_event *event) {
    cria_api_error error = {0};
    cria_api_fail_status(&error, 500, NULL, "%s", event->error[0] ? event->error : "the engine failed");
    cria_generation_fail(g, &error);
}

bool cria_generation_event(cria_generation *generation, size_t i, const cria_event *event, cria_text *out) {
    cria_generation *g = generation;
    cria_choice *choice = &g->choices[i];
    const cria_prompt *prompt = &g->prompts.items[choice->prompt];
    if (choice->done || g->failed) return false;
    bool chat = g->kind == CRIA_API_CHAT, stream = g->params.stream;
    switch (event->kind) {
    case CRIA_EVENT_PROMPT:
        cria_choice_prompt_event(choice, g->api, &g->params, prompt, event, chat);
        return false;
    case CRIA_EVENT_TOKEN:
        if (g->kind == CRIA_API_NEXT) {
            cria_next_take(choice, event);
            return false;
        }
        /* A chunk that waited for a FINISH that did not come. */
        if (stream && choice->pending) write_chunk(g, choice, out);
        cria_choice_token(choice, g->api, &g->params, prompt, event, chat);
        if (stream && choice->pending && (choice->done || !choice->last_token)) write_chunk(g, choice, out);
        if (choice->done) ++g->done_count;
        return choice->done;
    case CRIA_EVENT_FINISH:
        if (event->finish == CRIA_FINISH_ERROR) {
            engine_failed(g, event);
            return false;
        }
        cria_choice_finish(choice, g->api, &g->params, event);
        ++g->done_count;
        if (stream) write_chunk(g, choice, out);
        return false;
    }
    return false;
}

bool cria_generation_done(const cria_generation *generation) {
    return generation->failed || generation->done_count == generation->choice_count;
}

void cria_generation_fail(cria_generation *generation, const cria_api_error *error) {
    if (generation->failed) return;
    generation->failed = true;
    generation->error = *error;
}

/* Keeps the n likeliest of each prompt's best_of choices, by mean log-probability, in that order. */
static void keep_best(cria_generation *g) {
    size_t each = (size_t)g->params.best_of, keep = (size_t)g->params.n, kept = 0;
    if (keep == each) return;
    for (size_t p = 0; p < g->prompts.count; ++p) {
        cria_choice *group = g->choices + p * each;
        for (size_t k = 0; k < each; ++k) { /* selection sort: best_of is small */
            size_t best = k;
            for (size_t j = k + 1; j < each; ++j) {
                double a = group[j].logprob_sum / (group[j].generated ? group[j].generated : 1);
                double b = group[best].logprob_sum / (group[best].generated ? group[best].generated : 1);
                if (a > b) best = j;
            }
            cria_choice swap = group[k];
            group[k] = group[best];
            group[best] = swap;
            group[k].index = k < keep ? kept++ : SIZE_MAX;
        }
    }
}

void cria_generation_end(cria_generation *generation, cria_text *out) {
    cria_generation *g = generation;
    if (g->failed) {
        if (g->params.stream) cria_text_puts(out, "data: ");
        cria_api_error_write(&g->error, out);
        if (g->params.stream) cria_text_puts(out, "\n\ndata: [DONE]\n\n");
        return;
    }
    if (g->params.stream) {
        if (g->params.include_usage) cria_respond_usage_chunk(g, out);
        cria_text_puts(out, "data: [DONE]\n\n");
        return;
    }
    if (g->kind == CRIA_API_NEXT) {
        cria_respond_next(g, out);
        return;
    }
    keep_best(g);
    if (g->kind == CRIA_API_CHAT) {
        cria_respond_chat(g, out);
    } else {
        cria_respond_completion(g, out);
    }
}
