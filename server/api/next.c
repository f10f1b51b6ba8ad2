/* Alpa's /logprobs. Its key-value cache by id becomes a prefix cache by salt: a follow-up that names the cache_id finds
 * the blocks of its own earlier request, and nobody who does not know the id can tell that they are there. */
#include "server/api/next.h"

#include "base/random.h"
#include "server/api/field.h"
#include "server/api/logprob.h"
#include "server/api/respond.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_TOP_K = 50 };

static uint64_t salt_of(const char *id, size_t length) {
    uint64_t hash = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < length; ++i) hash = (hash ^ (uint8_t)id[i]) * 1099511628211u;
    return hash ? hash : 1;
}

cria_status cria_next_read(cria_generation *generation, const cria_json_value *body, cria_api_error *err) {
    cria_params *p = &generation->params;
    const cria_api *api = generation->api;
    int64_t most = api->config->max_next_logprobs, top = most < DEFAULT_TOP_K ? most : DEFAULT_TOP_K;
    CRIA_TRY(cria_field_int(body, "top_k", &top, NULL, err));
    if (top < 1 || top > most) {
        return cria_api_fail(err, "top_k", "top_k must be in [1, %lld], got %lld.", (long long)most, (long long)top);
    }
    if (top > api->vocab) top = api->vocab;
    const char *id = NULL;
    size_t length = 0;
    CRIA_TRY(cria_field_text(body, "cache_id", &id, &length, err));
    if (id && (!length || length >= sizeof generation->cache_id || strlen(id) != length)) {
        return cria_api_fail(err, "cache_id", "cache_id must be one that an earlier answer gave");
    }
    if (id) {
        memcpy(generation->cache_id, id, length + 1);
    } else {
        length = (size_t)snprintf(generation->cache_id, sizeof generation->cache_id, "%016llx%016llx",
                                  (unsigned long long)cria_random_seed(), (unsigned long long)cria_random_seed());
    }
    p->cache_salt = salt_of(generation->cache_id, length);
    p->has_max_tokens = p->skip_special = p->add_special = true;
    p->max_tokens = p->n = p->best_of = 1;
    p->truncate = -1;
    p->sampling = (cria_sampling){
        .top_p = 1, .repetition_penalty = 1, .ignore_eos = true, .logprobs = (int32_t)top, .prompt_logprobs = -1};
    return cria_prompts_read(api, body, p, &generation->prompts, err);
}

/* Uses the choice's lists for plain numbers: `values` and `tokens`. */
void cria_next_take(cria_choice *choice, const cria_event *event) {
    if (choice->generated || !event->has_logprobs || !event->logprobs) return;
    int32_t count = event->logprobs[0].top_count;
    for (int32_t i = 0; i < count && i < event->top_stride; ++i) {
        cria_text_puts(&choice->prompt_logprobs, i ? "," : "");
        cria_text_json_number(&choice->prompt_logprobs, cria_logprob_finite(event->top_logprobs[i]));
        cria_text_printf(&choice->ids, i ? ",%d" : "%d", event->top_ids[i]);
    }
}

void cria_respond_next(cria_generation *generation, cria_text *out) {
    cria_text_printf(out, "{\"cache_id\":");
    cria_text_json_string(out, generation->cache_id, strlen(generation->cache_id));
    for (int list = 0; list < 2; ++list) {
        cria_text_puts(out, list ? "],\"indices\":[" : ",\"logprobs\":[");
        for (size_t i = 0; i < generation->choice_count; ++i) {
            const cria_choice *choice = &generation->choices[i];
            const cria_text *items = list ? &choice->ids : &choice->prompt_logprobs;
            cria_text_puts(out, i ? ",[" : "[");
            if (items->length) cria_text_append(out, items->data, items->length);
            cria_text_puts(out, "]");
            if (items->failed) out->failed = true;
        }
    }
    cria_text_puts(out, "]}");
}
