/* Response objects of the generating routes. Fields and their order are vLLM's. */
#include "server/api/respond.h"

#include "server/api/logprob.h"

#include <string.h>

static void put_json(cria_text *out, const char *bytes, size_t length) {
    cria_text_json_string(out, bytes ? bytes : "", length);
}

static void put_reason(const cria_generation *g, const cria_choice *choice, cria_text *out) {
    if (choice->done) {
        cria_text_printf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":", choice->finish_reason);
    } else {
        cria_text_puts(out, ",\"finish_reason\":null,\"stop_reason\":");
    }
    if (choice->stop_string >= 0) {
        size_t length;
        const char *stop = cria_stops_string(g->params.stops, choice->stop_string, &length);
        put_json(out, stop, length);
    } else if (choice->stop_id >= 0) {
        cria_text_printf(out, "%d", choice->stop_id);
    } else {
        cria_text_puts(out, "null");
    }
}

static void put_ids(cria_choice *choice, bool wanted, cria_text *out) {
    if (!wanted) {
        cria_text_puts(out, ",\"token_ids\":null");
        return;
    }
    cria_text_puts(out, ",\"token_ids\":[");
    if (choice->ids.length) cria_text_append(out, choice->ids.data, choice->ids.length);
    cria_text_append(out, "]", 1);
    cria_text_clear(&choice->ids);
}

static void put_prompt_ids(const cria_prompt *prompt, bool wanted, cria_text *out) {
    if (!wanted) {
        cria_text_puts(out, ",\"prompt_token_ids\":null");
        return;
    }
    cria_text_puts(out, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < prompt->count; ++i) cria_text_printf(out, i ? ",%d" : "%d", prompt->ids[i]);
    cria_text_append(out, "]", 1);
}

/* The text that is ready, with the echoed prompt before it where this is the choice's first. */
static void put_text(const cria_generation *g, cria_choice *choice, cria_text *out) {
    const cria_prompt *prompt = &g->prompts.items[choice->prompt];
    cria_text joined = {0};
    if (!choice->begun && prompt->text) cria_text_append(&joined, prompt->text, prompt->text_length);
    if (choice->text.length) cria_text_append(&joined, choice->text.data, choice->text.length);
    cria_text_puts(out, "\"text\":");
    put_json(out, joined.data, joined.length);
    if (joined.failed || choice->text.failed) out->failed = true;
    cria_text_deinit(&joined);
    cria_text_clear(&choice->text);
}

static void put_usage(const cria_generation *g, bool details, cria_text *out) {
    size_t prompt = 0, generated = 0;
    for (size_t i = 0; i < g->prompts.count; ++i) prompt += g->prompts.items[i].count;
    for (size_t i = 0; i < g->choice_count; ++i) generated += (size_t)g->choices[i].generated;
    cria_text_printf(out, "\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":%zu%s}", prompt,
                     prompt + generated, generated,
                     details ? ",\"prompt_tokens_details\":null,\"completion_tokens_details\":null" : "");
}

static void put_head(const cria_generation *g, const char *object, cria_text *out) {
    cria_text_puts(out, "{\"id\":");
    put_json(out, g->id, strlen(g->id));
    cria_text_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object, (long long)g->created);
    const char *model = g->api->config->model_names[0];
    put_json(out, model, strlen(model));
    cria_text_puts(out, ",\"choices\":[");
}

/* "],"service_tier":null ... "usage":{...}": what follows the choices of a whole answer. */
static void put_tail(const cria_generation *g, cria_text *out) {
    cria_text_printf(out, "],\"service_tier\":null,\"system_fingerprint\":\"%s\",", g->api->fingerprint);
    put_usage(g, true, out);
}

void cria_respond_completion(cria_generation *generation, cria_text *out) {
    cria_generation *g = generation;
    put_head(g, "text_completion", out);
    for (size_t i = 0, n = 0; i < g->choice_count; ++i) {
        cria_choice *choice = &g->choices[i];
        if (choice->index == SIZE_MAX) continue;
        cria_text_printf(out, "%s{\"index\":%zu,", n++ ? "," : "", choice->index);
        put_text(g, choice, out);
        cria_text_append(out, ",", 1);
        cria_logprob_write(&choice->logprobs, g->params.show_logprobs, false, out);
        put_reason(g, choice, out);
        put_ids(choice, g->params.return_ids, out);
        cria_text_puts(out, ",\"prompt_logprobs\":");
        if (g->params.sampling.prompt_logprobs >= 0) {
            cria_text_printf(out, "[%s]", choice->prompt_logprobs.data ? choice->prompt_logprobs.data : "");
        } else {
            cria_text_puts(out, "null");
        }
        put_prompt_ids(&g->prompts.items[choice->prompt], g->params.return_ids, out);
        cria_text_puts(out, ",\"routed_experts\":null}");
        if (choice->prompt_logprobs.failed || choice->ids.failed) out->failed = true;
    }
    put_tail(g, out);
    cria_text_puts(out, ",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
}

/* Usage of one choice so far, or the fingerprint on its last chunk. */
static void end_chunk(const cria_generation *g, const cria_choice *choice, cria_text *out) {
    if (g->params.continuous_usage) {
        size_t prompt = g->prompts.items[choice->prompt].count, generated = (size_t)choice->generated;
        cria_text_printf(out, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":%zu}",
                         prompt, prompt + generated, generated);
    }
    if (choice->done && !g->params.include_usage) {
        cria_text_printf(out, ",\"system_fingerprint\":\"%s\"", g->api->fingerprint);
    }
    cria_text_puts(out, "}\n\n");
}

void cria_respond_completion_chunk(cria_generation *generation, cria_choice *choice, cria_text *out) {
    cria_generation *g = generation;
    cria_text_puts(out, "data: ");
    put_head(g, "text_completion", out);
    cria_text_printf(out, "{\"index\":%zu,", choice->index);
    put_text(g, choice, out);
    cria_text_append(out, ",", 1);
    cria_logprob_write(&choice->logprobs, g->params.show_logprobs, false, out);
    put_reason(g, choice, out);
    bool first = !choice->begun && (g->params.echo || g->params.return_ids);
    put_prompt_ids(&g->prompts.items[choice->prompt], first, out);
    put_ids(choice, g->params.return_ids, out);
    cria_text_puts(out, "}]");
    end_chunk(g, choice, out);
}

void cria_respond_usage_chunk(cria_generation *generation, cria_text *out) {
    cria_text_puts(out, "data: ");
    put_head(generation, generation->kind == CRIA_API_CHAT ? "chat.completion.chunk" : "text_completion", out);
    cria_text_puts(out, "],");
    put_usage(generation, false, out);
    cria_text_printf(out, ",\"system_fingerprint\":\"%s\"}\n\n", generation->api->fingerprint);
}

void cria_respond_chat(cria_generation *generation, cria_text *out) {
    cria_generation *g = generation;
    put_head(g, "chat.completion", out);
    for (size_t i = 0, n = 0; i < g->choice_count; ++i) {
        cria_choice *choice = &g->choices[i];
        if (choice->index == SIZE_MAX) continue;
        cria_text_printf(out, "%s{\"index\":%zu,\"message\":{\"role\":", n++ ? "," : "", choice->index);
        put_json(out, g->role, strlen(g->role));
        cria_text content = {0};
        if (g->prefix.length) cria_text_append(&content, g->prefix.data, g->prefix.length);
        if (choice->text.length) cria_text_append(&content, choice->text.data, choice->text.length);
        cria_text_puts(out, ",\"content\":");
        put_json(out, content.data, content.length);
        if (content.failed || choice->text.failed || choice->ids.failed) out->failed = true;
        cria_text_deinit(&content);
        cria_text_puts(out, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
                            "\"reasoning\":null},");
        cria_logprob_write(&choice->logprobs, g->params.show_logprobs, true, out);
        put_reason(g, choice, out);
        put_ids(choice, g->params.return_ids, out);
        cria_text_puts(out, ",\"routed_experts\":null}");
    }
    put_tail(g, out);
    cria_text_puts(out, ",\"prompt_logprobs\":");
    const cria_text *prompt_logprobs = &g->choices[0].prompt_logprobs;
    if (g->params.sampling.prompt_logprobs >= 0) {
        cria_text_printf(out, "[%s]", prompt_logprobs->data ? prompt_logprobs->data : "");
    } else {
        cria_text_puts(out, "null");
    }
    if (prompt_logprobs->failed) out->failed = true;
    put_prompt_ids(&g->prompts.items[0], g->params.return_ids, out);
    cria_text_puts(out, ",\"prompt_text\":null,\"kv_transfer_params\":null,\"ec_transfer_params\":null,"
                        "\"metrics\":null}");
}

void cria_respond_chat_begin(cria_generation *generation, cria_text *out) {
    cria_generation *g = generation;
    for (size_t i = 0; i < g->choice_count; ++i) {
        cria_text_puts(out, "data: ");
        put_head(g, "chat.completion.chunk", out);
        cria_text_printf(out, "{\"index\":%zu,\"delta\":{\"role\":", i);
        put_json(out, g->role, strlen(g->role));
        cria_text_puts(out, ",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
        put_prompt_ids(&g->prompts.items[0], g->params.return_ids, out);
        cria_text_puts(out, ",\"prompt_text\":null");
        if (g->params.continuous_usage) {
            size_t prompt = g->prompts.items[0].count;
            cria_text_printf(out, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu,\"completion_tokens\":0}",
                             prompt, prompt);
        }
        cria_text_puts(out, "}\n\n");
    }
}

void cria_respond_chat_chunk(cria_generation *generation, cria_choice *choice, cria_text *out) {
    cria_generation *g = generation;
    cria_text_puts(out, "data: ");
    put_head(g, "chat.completion.chunk", out);
    cria_text_printf(out, "{\"index\":%zu,\"delta\":{\"content\":", choice->index);
    cria_text content = {0};
    if (!choice->begun && g->prefix.length) cria_text_append(&content, g->prefix.data, g->prefix.length);
    if (choice->text.length) cria_text_append(&content, choice->text.data, choice->text.length);
    put_json(out, content.data, content.length);
    if (content.failed || choice->text.failed) out->failed = true;
    cria_text_deinit(&content);
    cria_text_clear(&choice->text);
    cria_text_puts(out, "},");
    cria_logprob_write(&choice->logprobs, g->params.show_logprobs, true, out);
    if (choice->done) {
        put_reason(g, choice, out);
    } else {
        cria_text_puts(out, ",\"finish_reason\":null");
    }
    put_ids(choice, g->params.return_ids, out);
    cria_text_puts(out, "}]");
    end_chunk(g, choice, out);
}
