/* A choice takes in the events of its sequence. */
#include "server/api/choice.h"

#include "base/utf8.h"
#include "server/api/logprob.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT_IDS = 16 };

cria_status cria_choice_init(cria_choice *choice, const cria_api *api, const cria_params *params,
                             const cria_prompt *prompt, bool chat, cria_api_error *err) {
    choice->stop_string = -1;
    choice->stop_id = -1;
    size_t context = prompt->count < CONTEXT_IDS ? prompt->count : CONTEXT_IDS;
    choice->detokenizer = cria_detokenizer_create(api->model->tokenizer, params->skip_special,
                                                  prompt->ids + prompt->count - context, context);
    if (!choice->detokenizer) return cria_api_fail_status(err, 500, NULL, "out of memory");
    if (prompt->text) choice->code_points = cria_utf8_count(prompt->text, prompt->text_length);
    if (params->sampling.prompt_logprobs < 0) return CRIA_OK;
    cria_text_puts(&choice->prompt_logprobs, "null");
    choice->prompt_detokenizer = cria_detokenizer_create(api->model->tokenizer, params->skip_special, NULL, 0);
    if (!choice->prompt_detokenizer) return cria_api_fail_status(err, 500, NULL, "out of memory");
    cria_text delta = {0};
    if (cria_detokenizer_push(choice->prompt_detokenizer, prompt->ids[0], &delta, NULL) == CRIA_OK && delta.length) {
        choice->prompt_code_points = cria_utf8_count(delta.data, delta.length);
    }
    cria_text_deinit(&delta);
    if (params->echo && !chat && params->sampling.logprobs >= 0) {
        cria_logprob_add_null(api, params, prompt->ids[0], &choice->logprobs);
    }
    cria_token_advance(api, prompt->ids[0], &choice->incomplete);
    return CRIA_OK;
}

void cria_choice_deinit(cria_choice *choice) {
    cria_detokenizer_destroy(choice->detokenizer);
    cria_detokenizer_destroy(choice->prompt_detokenizer);
    cria_text_deinit(&choice->held);
    cria_text_deinit(&choice->text);
    cria_text_deinit(&choice->ids);
    cria_text_deinit(&choice->incomplete);
    cria_text_deinit(&choice->logprobs.tokens);
    cria_text_deinit(&choice->logprobs.offsets);
    cria_text_deinit(&choice->logprobs.values);
    cria_text_deinit(&choice->logprobs.tops);
    cria_text_deinit(&choice->prompt_logprobs);
}

void cria_choice_prompt_event(cria_choice *choice, const cria_api *api, const cria_params *params,
                              const cria_prompt *prompt, const cria_event *event, bool chat) {
    bool echo = params->echo && !chat && params->sampling.logprobs >= 0;
    cria_text delta = {0};
    for (int i = 0; i < event->count; ++i) {
        int64_t position = (int64_t)event->first + i;
        if (position < 1 || position >= (int64_t)prompt->count || !event->logprobs) continue;
        int32_t id = prompt->ids[position];
        cria_logprob_at at = {event, i, id, params->sampling.prompt_logprobs};
        cria_logprob_prompt_entry(api, &choice->incomplete, at, &choice->prompt_logprobs);
        if (echo) {
            at.top = params->sampling.logprobs;
            cria_logprob_add(api, params, &choice->incomplete, at, choice->prompt_code_points, false,
                             &choice->logprobs);
        }
        cria_token_advance(api, id, &choice->incomplete);
        cria_text_clear(&delta);
        if (cria_detokenizer_push(choice->prompt_detokenizer, id, &delta, NULL) == CRIA_OK && delta.length) {
            choice->prompt_code_points += cria_utf8_count(delta.data, delta.length);
        }
    }
    cria_text_deinit(&delta);
}

/* Lets text out behind the stop strings. True if one was found: the text then ends before it (or with it). */
static bool pass_stops(cria_choice *choice, const cria_params *params, const char *bytes, size_t length) {
    if (!length) return false;
    if (!params->stops) {
        cria_text_append(&choice->text, bytes, length);
        return false;
    }
    int which;
    size_t used = cria_stops_feed(params->stops, &choice->stop_state, bytes, length, &which);
    cria_text_append(&choice->held, bytes, used);
    size_t keep = cria_stops_held(params->stops, choice->stop_state);
    if (which >= 0) {
        choice->stop_string = which;
        cria_stops_string(params->stops, which, &keep);
        if (params->include_stop) keep = 0;
    }
    if (choice->held.failed || keep > choice->held.length) return which >= 0;
    size_t free_bytes = choice->held.length - keep;
    cria_text_append(&choice->text, choice->held.data, free_bytes);
    memmove(choice->held.data, choice->held.data + free_bytes, keep);
    choice->held.length = keep;
    return which >= 0;
}

static bool is_stop_id(const cria_params *params, int32_t id) {
    for (size_t i = 0; i < params->stop_id_count; ++i) {
        if (params->stop_ids[i] == id) return true;
    }
    return false;
}

static bool is_eos(const cria_api *api, int32_t id) {
    for (int i = 0; i < api->model->eos_count; ++i) {
        if (api->model->eos[i] == id) return true;
    }
    return api->model->eos_count == 0 && id == cria_tokenizer_eos(api->model->tokenizer);
}

static void add_logprobs(cria_choice *choice, const cria_api *api, const cria_params *params, const cria_event *event,
                         bool chat) {
    if (params->sampling.logprobs < 0 || !event->has_logprobs || !event->logprobs) return;
    choice->logprob_sum += event->logprobs[0].logprob;
    cria_logprob_at at = {event, 0, event->token, params->sampling.logprobs};
    cria_logprob_add(api, params, &choice->incomplete, at, choice->code_points, chat, &choice->logprobs);
    cria_token_advance(api, event->token, &choice->incomplete);
}

void cria_choice_token(cria_choice *choice, const cria_api *api, const cria_params *params, const cria_prompt *prompt,
                       const cria_event *event, bool chat) {
    if (choice->done || (params->has_max_tokens && params->max_tokens == 0)) return;
    if (choice->generated == 0) cria_text_clear(&choice->incomplete); /* the prompt's end is not part of the text */
    ++choice->generated;
    choice->pending = true;
    add_logprobs(choice, api, params, event, chat);
    if (params->return_ids) cria_text_printf(&choice->ids, choice->ids.length ? ",%d" : "%d", event->token);
    bool ends = is_stop_id(params, event->token) || (!params->sampling.ignore_eos && is_eos(api, event->token));
    ends = ends && choice->generated > params->sampling.min_tokens;
    choice->last_token = ends || choice->generated >= prompt->max_tokens;
    if (ends && !params->include_stop) return; /* what ends the text is not part of it */
    cria_text delta = {0};
    if (cria_detokenizer_push(choice->detokenizer, event->token, &delta, NULL) == CRIA_OK && delta.length) {
        choice->code_points += cria_utf8_count(delta.data, delta.length);
        if (choice->generated <= params->sampling.min_tokens) {
            cria_text_append(&choice->text, delta.data, delta.length); /* no stop string counts before min_tokens */
        } else if (pass_stops(choice, params, delta.data, delta.length)) {
            choice->done = true;
            choice->finish_reason = "stop";
        }
    }
    cria_text_deinit(&delta);
}

void cria_choice_finish(cria_choice *choice, const cria_api *api, const cria_params *params, const cria_event *event) {
    if (choice->done) return;
    choice->done = true;
    cria_text rest = {0};
    cria_detokenizer_finish(choice->detokenizer, &rest);
    if (rest.length && pass_stops(choice, params, rest.data, rest.length)) {
        choice->finish_reason = "stop";
    } else {
        if (choice->held.length) cria_text_append(&choice->text, choice->held.data, choice->held.length);
        choice->finish_reason = event->finish == CRIA_FINISH_STOP     ? "stop"
                                : event->finish == CRIA_FINISH_LENGTH ? "length"
                                : event->finish == CRIA_FINISH_ABORT  ? "abort"
                                                                      : "error";
        /* As vLLM has it: the id that ended the text is told unless it is the tokenizer's end of sequence; the others
         * that generation_config.json lists count as stop ids there. */
        if (event->finish == CRIA_FINISH_STOP &&
            (params->sampling.ignore_eos || event->token != cria_tokenizer_eos(api->model->tokenizer))) {
            choice->stop_id = event->token;
        }
    }
    cria_text_clear(&choice->held);
    cria_text_deinit(&rest);
}
