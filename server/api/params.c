/* Reading and checking sampling parameters. Ranges and messages are vLLM's. */
#include "server/api/params.h"

#include "base/random.h"
#include "server/api/field.h"
#include "server/api/words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ID_LIST = 4096 };

/* Keys that vLLM or OpenAI know and Cria cannot honour. `harmless` is the one text value that asks for nothing. */
static const struct {
    const char *key, *harmless;
} unsupported[] = {
    {"use_beam_search", NULL},
    {"structured_outputs", NULL},
    {"guided_json", NULL},
    {"guided_regex", NULL},
    {"guided_choice", NULL},
    {"guided_grammar", NULL},
    {"prompt_embeds", NULL},
    {"logits_processors", NULL},
    {"functions", NULL},
    {"function_call", "none"},
    {"audio", NULL},
    {"prediction", NULL},
    {"documents", NULL},
    {"chat_template", NULL},
    {"kv_transfer_params", NULL},
};

/* false, 0, "", [] and {} ask for nothing. */
static bool asks_for_something(const cria_json_value *value, const char *harmless) {
    size_t length;
    switch (cria_json_type_of(value)) {
    case CRIA_JSON_NULL:
        return false;
    case CRIA_JSON_BOOL:
        return cria_json_bool(value);
    case CRIA_JSON_NUMBER:
        return cria_json_number(value) != 0;
    case CRIA_JSON_STRING: {
        const char *text = cria_json_text(value, &length);
        return length > 0 && !(harmless && strcmp(text, harmless) == 0);
    }
    default:
        return cria_json_size(value) > 0;
    }
}

static cria_status check_response_format(const cria_json_value *body, cria_api_error *err) {
    const cria_json_value *format = cria_json_get(body, "response_format");
    if (!format) return CRIA_OK;
    if (cria_json_type_of(format) != CRIA_JSON_OBJECT) {
        char input[80];
        cria_field_describe(format, input, sizeof input);
        return cria_api_fail_type(err, "body.response_format", "dict_type", "Input should be a valid dictionary",
                                  input);
    }
    size_t length;
    const cria_json_value *type = cria_json_get(format, "type");
    const char *name = cria_json_type_of(type) == CRIA_JSON_STRING ? cria_json_text(type, &length) : "";
    if (strcmp(name, "text") == 0) return CRIA_OK;
    return cria_api_fail(err, "response_format", "response_format of type '%.40s' is not supported yet", name);
}

static cria_status check_tools(const cria_json_value *body, cria_api_error *err) {
    size_t length;
    const cria_json_value *tools = cria_json_get(body, "tools"), *choice = cria_json_get(body, "tool_choice");
    bool none = cria_json_type_of(choice) == CRIA_JSON_STRING && strcmp(cria_json_text(choice, &length), "none") == 0;
    if (asks_for_something(tools, NULL) && !none) {
        return cria_api_fail(err, NULL, "tools are not supported yet (tool_choice \"none\" ignores them)");
    }
    return CRIA_OK;
}

static cria_status check_unsupported(const cria_json_value *body, cria_api_error *err) {
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; ++i) {
        const char *key = unsupported[i].key;
        if (asks_for_something(cria_json_get(body, key), unsupported[i].harmless)) {
            return cria_api_fail(err, key, "%s is not supported yet", key);
        }
    }
    CRIA_TRY(check_response_format(body, err));
    return check_tools(body, err);
}

cria_status cria_params_check_model(const cria_api *api, const cria_json_value *body, cria_api_error *err) {
    const char *name = NULL;
    size_t length = 0;
    CRIA_TRY(cria_field_text(body, "model", &name, &length, err));
    if (!name || !length) return CRIA_OK;
    char aliases[512] = "";
    for (size_t i = 0; i < api->config->model_name_count; ++i) {
        const char *known = api->config->model_names[i];
        if (strlen(known) == length && memcmp(known, name, length) == 0) return CRIA_OK;
        size_t used = strlen(aliases);
        snprintf(aliases + used, sizeof aliases - used, "%s%s", i ? ", " : "", known);
    }
    return cria_api_fail_status(err, 404, "model", "The model `%.200s` does not exist. Valid aliases: %s.", name,
                                aliases);
}

/* One number with a range; a NaN bound is no bound. Reads into a float. */
static cria_status read_float(const cria_json_value *body, const char *key, float fallback, bool (*ok)(double),
                              const char *rule, bool name_param, float *out, cria_api_error *err) {
    double value = (double)fallback;
    CRIA_TRY(cria_field_double(body, key, &value, NULL, err));
    *out = (float)value;
    if (ok(value) && isfinite(*out)) return CRIA_OK;
    char text[32];
    cria_field_float(value, text);
    if (!name_param) return cria_api_fail(err, NULL, "%s must be %s, got %s.", key, rule, text);
    return cria_api_fail(err, key, "%s must be %s, got %s. (parameter=%s, value=%s)", key, rule, text, key, text);
}

static bool within_2(double v) {
    return v >= -2 && v <= 2;
}
static bool positive(double v) {
    return v > 0;
}
static bool non_negative(double v) {
    return v >= 0;
}
static bool half_open_unit(double v) {
    return v > 0 && v <= 1;
}
static bool unit(double v) {
    return v >= 0 && v <= 1;
}

static cria_status read_floats(const cria_api *api, const cria_json_value *body, cria_sampling *s,
                               cria_api_error *err) {
    const cria_sampling_defaults *d = api->model->defaults;
    float repetition = d && d->repetition_penalty > 0 ? (float)d->repetition_penalty : 1;
    float temperature = d && d->temperature >= 0 ? (float)d->temperature : 1;
    float top_p = d && d->top_p > 0 ? (float)d->top_p : 1, min_p = d && d->min_p > 0 ? (float)d->min_p : 0;
    CRIA_TRY(read_float(body, "presence_penalty", 0, within_2, "in [-2, 2]", false, &s->presence_penalty, err));
    CRIA_TRY(read_float(body, "frequency_penalty", 0, within_2, "in [-2, 2]", false, &s->frequency_penalty, err));
    CRIA_TRY(read_float(body, "repetition_penalty", repetition, positive, "greater than zero", false,
                        &s->repetition_penalty, err));
    CRIA_TRY(read_float(body, "temperature", temperature, non_negative, "non-negative", true, &s->temperature, err));
    CRIA_TRY(read_float(body, "top_p", top_p, half_open_unit, "in (0, 1]", true, &s->top_p, err));
    return read_float(body, "min_p", min_p, unit, "in [0, 1]", false, &s->min_p, err);
}

static cria_status check_int32(const char *key, int64_t value, cria_api_error *err) {
    if (value >= INT32_MIN && value <= INT32_MAX) return CRIA_OK;
    return cria_api_fail(err, key, "%s is out of range, got %lld. (parameter=%s, value=%lld)", key, (long long)value,
                         key, (long long)value);
}

static cria_status read_counts(const cria_api *api, const cria_json_value *body, cria_params *p, cria_api_error *err) {
    p->n = 1;
    CRIA_TRY(cria_field_int(body, "n", &p->n, NULL, err));
    if (p->n < 1) return cria_api_fail(err, NULL, "n must be at least 1, got %lld.", (long long)p->n);
    if (p->n > api->config->max_n) {
        return cria_api_fail(err, NULL, "n must be at most %lld, got %lld.", (long long)api->config->max_n,
                             (long long)p->n);
    }
    bool has_best = false;
    p->best_of = p->n;
    CRIA_TRY(cria_field_int(body, "best_of", &p->best_of, &has_best, err));
    if (p->best_of > api->config->max_n) {
        return cria_api_fail(err, "best_of", "best_of must be at most %lld, got %lld.", (long long)api->config->max_n,
                             (long long)p->best_of);
    }
    if (p->sampling.temperature < 1e-5f && (p->n > 1 || p->best_of > 1)) {
        return cria_api_fail(err, NULL, "n must be 1 when using greedy sampling, got %lld.",
                             (long long)(p->n > 1 ? p->n : p->best_of));
    }
    if (p->best_of < p->n) {
        return cria_api_fail(err, "best_of", "best_of must be at least n=%lld, got %lld.", (long long)p->n,
                             (long long)p->best_of);
    }
    const cria_sampling_defaults *d = api->model->defaults;
    int64_t value = d && d->top_k > 0 ? d->top_k : 0;
    CRIA_TRY(cria_field_int(body, "top_k", &value, NULL, err));
    if (value < -1) {
        return cria_api_fail(err, NULL, "top_k must be 0 (disable), or at least 1, got %lld.", (long long)value);
    }
    p->sampling.top_k = value > INT32_MAX ? 0 : (int32_t)value;
    value = 0;
    CRIA_TRY(cria_field_int(body, "no_repeat_ngram_size", &value, NULL, err));
    if (value < 0) {
        return cria_api_fail(err, "no_repeat_ngram_size", "no_repeat_ngram_size must be non-negative, got %lld.",
                             (long long)value);
    }
    p->sampling.no_repeat_ngram_size = value > api->model->max_model_len ? 0 : (int32_t)value;
    value = 0;
    CRIA_TRY(cria_field_int(body, "priority", &value, NULL, err));
    CRIA_TRY(check_int32("priority", value, err));
    p->priority = (int32_t)value;
    value = 0;
    CRIA_TRY(cria_field_int(body, "seed", &value, &p->has_seed, err));
    p->sampling.seed = p->has_seed ? (uint64_t)value : cria_random_seed();
    return CRIA_OK;
}

static cria_status read_lengths(const cria_api *api, const cria_json_value *body, bool chat, cria_params *p,
                                cria_api_error *err) {
    p->max_tokens = 16;
    p->has_max_tokens = !chat; /* completions end after 16 tokens unless told otherwise; chat goes on */
    bool present = false;
    CRIA_TRY(cria_field_int(body, "max_tokens", &p->max_tokens, &present, err));
    p->has_max_tokens = p->has_max_tokens || present;
    if (chat) {
        CRIA_TRY(cria_field_int(body, "max_completion_tokens", &p->max_tokens, &present, err));
        p->has_max_tokens = p->has_max_tokens || present;
    }
    if (p->has_max_tokens && (p->max_tokens < 0 || (p->max_tokens == 0 && (chat || !p->echo)))) {
        return cria_api_fail(err, "max_tokens",
                             "max_tokens must be at least 1, got %lld. (parameter=max_tokens, value=%lld)",
                             (long long)p->max_tokens, (long long)p->max_tokens);
    }
    if (p->has_max_tokens && p->max_tokens > api->model->max_model_len) {
        return cria_api_fail(err, "max_tokens",
                             "max_tokens=%lld cannot be greater than max_model_len=%lld. Please request fewer output "
                             "tokens. (parameter=max_tokens, value=%lld)",
                             (long long)p->max_tokens, (long long)api->model->max_model_len, (long long)p->max_tokens);
    }
    int64_t least = 0;
    CRIA_TRY(cria_field_int(body, "min_tokens", &least, NULL, err));
    if (least < 0) {
        return cria_api_fail(err, NULL, "min_tokens must be greater than or equal to 0, got %lld.", (long long)least);
    }
    int64_t most = p->has_max_tokens ? p->max_tokens : api->model->max_model_len;
    if (least > most) {
        return cria_api_fail(err, NULL, "min_tokens must be less than or equal to max_tokens=%lld, got %lld.",
                             (long long)most, (long long)least);
    }
    p->sampling.min_tokens = (int32_t)least;
    p->truncate = -1;
    CRIA_TRY(cria_field_int(body, "truncate_prompt_tokens", &p->truncate, &present, err));
    if (present && p->truncate < -1) {
        return cria_api_fail(err, "truncate_prompt_tokens", "truncate_prompt_tokens must be -1 or more, got %lld.",
                             (long long)p->truncate);
    }
    if (present && p->truncate > api->model->max_model_len) {
        return cria_api_fail(err, "truncate_prompt_tokens",
                             "truncate_prompt_tokens value (%lld) is greater than max_model_len (%lld). Please request "
                             "a smaller truncation size.",
                             (long long)p->truncate, (long long)api->model->max_model_len);
    }
    if (present && p->truncate == -1) p->truncate = api->model->max_model_len - 1;
    return CRIA_OK;
}

/* One of the log-probability counts; the whole vocabulary (-1) counts as a number too large unless all are allowed. */
static cria_status check_logprobs(const cria_api *api, const char *what, const char *key, int64_t value, int32_t *out,
                                  cria_api_error *err) {
    if (value < -1) {
        return cria_api_fail(err, key, "%s must be non-negative or -1, got %lld. (parameter=%s, value=%lld)", key,
                             (long long)value, key, (long long)value);
    }
    int64_t count = value == -1 ? api->vocab : value;
    int64_t most = api->config->max_logprobs < 0 ? api->vocab : api->config->max_logprobs;
    if (count > most) {
        if (value == -1) {
            return cria_api_fail(err, key,
                                 "%s of -1 asks for the whole vocabulary, which is more than the %lld allowed "
                                 "(parameter=%s, value=-1)",
                                 key, (long long)most, key);
        }
        return cria_api_fail(err, key,
                             "Requested %s logprobs of %lld, which is greater than max allowed: %lld (parameter=%s, "
                             "value=%lld)",
                             what, (long long)count, (long long)most, key, (long long)count);
    }
    *out = (int32_t)count;
    return CRIA_OK;
}

static cria_status read_logprobs(const cria_api *api, const cria_json_value *body, bool chat, cria_params *p,
                                 cria_api_error *err) {
    p->sampling.logprobs = p->sampling.prompt_logprobs = -1;
    bool present = false;
    int64_t value = 0;
    if (chat) {
        bool wanted = false;
        CRIA_TRY(cria_field_bool(body, "logprobs", &wanted, NULL, err));
        CRIA_TRY(cria_field_int(body, "top_logprobs", &value, &present, err));
        if (present && value != 0 && !wanted) {
            return cria_api_fail(err, "top_logprobs",
                                 "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)");
        }
        present = wanted;
    } else {
        CRIA_TRY(cria_field_int(body, "logprobs", &value, &present, err));
    }
    if (present) CRIA_TRY(check_logprobs(api, "sample", "logprobs", value, &p->sampling.logprobs, err));
    value = 0;
    CRIA_TRY(cria_field_int(body, "prompt_logprobs", &value, &present, err));
    if (present) {
        if (p->stream) {
            return cria_api_fail(err, "prompt_logprobs",
                                 "`prompt_logprobs` are not available when `stream=True`. "
                                 "(parameter=prompt_logprobs)");
        }
        CRIA_TRY(check_logprobs(api, "prompt", "prompt_logprobs", value, &p->sampling.prompt_logprobs, err));
    } else if (chat && p->echo && !p->stream) {
        p->sampling.prompt_logprobs = p->sampling.logprobs > 0 ? p->sampling.logprobs : 0; /* as vLLM does */
    } else if (!chat && p->echo) {
        p->sampling.prompt_logprobs = p->sampling.logprobs;
    }
    return CRIA_OK;
}

static cria_status read_flags(const cria_json_value *body, bool chat, cria_params *p, cria_api_error *err) {
    p->skip_special = true;
    p->add_special = !chat; /* a chat template writes its own BOS */
    CRIA_TRY(cria_field_bool(body, "stream", &p->stream, NULL, err));
    CRIA_TRY(cria_field_bool(body, "echo", &p->echo, NULL, err));
    CRIA_TRY(cria_field_bool(body, "ignore_eos", &p->sampling.ignore_eos, NULL, err));
    CRIA_TRY(cria_field_bool(body, "include_stop_str_in_output", &p->include_stop, NULL, err));
    CRIA_TRY(cria_field_bool(body, "skip_special_tokens", &p->skip_special, NULL, err));
    CRIA_TRY(cria_field_bool(body, "add_special_tokens", &p->add_special, NULL, err));
    /* Without effect: a tokenizer of bytes or pieces puts nothing between tokens, and beams there are none yet. */
    bool ignored;
    double penalty;
    CRIA_TRY(cria_field_bool(body, "spaces_between_special_tokens", &ignored, NULL, err));
    CRIA_TRY(cria_field_bool(body, "early_stopping", &ignored, NULL, err));
    CRIA_TRY(cria_field_double(body, "length_penalty", &penalty, NULL, err));
    CRIA_TRY(cria_field_bool(body, "return_tokens_as_token_ids", &p->token_ids_as_text, NULL, err));
    CRIA_TRY(cria_field_bool(body, "return_token_ids", &p->return_ids, NULL, err));
    const cria_json_value *options = cria_json_get(body, "stream_options");
    if (options && !p->stream) {
        return cria_api_fail(err, "stream_options",
                             "Stream options can only be defined when `stream=True`. (parameter=stream_options)");
    }
    if (options && cria_json_type_of(options) != CRIA_JSON_OBJECT) {
        char input[80];
        cria_field_describe(options, input, sizeof input);
        return cria_api_fail_type(err, "body.stream_options", "dict_type", "Input should be a valid dictionary", input);
    }
    CRIA_TRY(cria_field_bool(options, "include_usage", &p->include_usage, NULL, err));
    CRIA_TRY(cria_field_bool(options, "continuous_usage_stats", &p->continuous_usage, NULL, err));
    p->continuous_usage = p->continuous_usage && p->include_usage;
    return CRIA_OK;
}

/* FNV-1a. A tenant who could find an equal hash would need to know the other's salt, which is the secret itself. */
static uint64_t hash_bytes(const char *bytes, size_t length) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; ++i) hash = (hash ^ (uint8_t)bytes[i]) * 1099511628211u;
    return hash ? hash : 1;
}

static cria_status read_labels(const cria_json_value *body, cria_params *p, cria_api_error *err) {
    const char *text = NULL;
    size_t length = 0;
    CRIA_TRY(cria_field_text(body, "cache_salt", &text, &length, err));
    if (text && !length) {
        return cria_api_fail(err, "cache_salt", "Parameter 'cache_salt' must be a non-empty string if provided.");
    }
    if (text) p->cache_salt = hash_bytes(text, length);
    CRIA_TRY(cria_field_text(body, "request_id", &p->label, &length, err));
    CRIA_TRY(cria_field_text(body, "user", &text, &length, err));
    text = NULL;
    CRIA_TRY(cria_field_text(body, "suffix", &text, &length, err));
    if (text && length) {
        return cria_api_fail(err, "suffix", "suffix is only supported for models with FIM completion rendering");
    }
    return CRIA_OK;
}

static cria_status read_all(const cria_api *api, const cria_json_value *body, bool chat, cria_params *p,
                            cria_api_error *err) {
    CRIA_TRY(check_unsupported(body, err));
    CRIA_TRY(read_flags(body, chat, p, err));
    CRIA_TRY(read_labels(body, p, err));
    CRIA_TRY(read_floats(api, body, &p->sampling, err));
    CRIA_TRY(read_counts(api, body, p, err));
    CRIA_TRY(read_lengths(api, body, chat, p, err));
    CRIA_TRY(read_logprobs(api, body, chat, p, err));
    p->show_logprobs = p->sampling.logprobs >= 0;
    if (p->best_of > p->n) {
        if (p->stream) return cria_api_fail(err, "best_of", "best_of cannot be larger than n when streaming");
        if (p->sampling.logprobs < 0) p->sampling.logprobs = 0; /* candidates are ranked by them */
    }
    CRIA_TRY(cria_words_read_stops(api, body, p, err));
    CRIA_TRY(cria_words_read_biases(api, body, p, err));
    CRIA_TRY(cria_words_read_bad(api, body, p, err));
    CRIA_TRY(cria_field_ids(body, "stop_token_ids", api->vocab, MAX_ID_LIST, &p->stop_ids, &p->stop_id_count, err));
    CRIA_TRY(
        cria_field_ids(body, "allowed_token_ids", api->vocab, (size_t)api->vocab, &p->allowed, &p->allowed_count, err));
    if (cria_json_get(body, "allowed_token_ids") && !p->allowed_count) {
        return cria_api_fail(err, "allowed_token_ids", "allowed_token_ids is not None and empty!");
    }
    return CRIA_OK;
}

cria_status cria_params_read(const cria_api *api, const cria_json_value *body, bool chat, cria_params *out,
                             cria_api_error *err) {
    *out = (cria_params){0};
    cria_status status = read_all(api, body, chat, out, err);
    if (status != CRIA_OK) cria_params_deinit(out);
    return status;
}

void cria_params_deinit(cria_params *params) {
    free(params->stop_ids);
    free(params->allowed);
    free(params->biases);
    free(params->bad_words);
    free(params->bad_lengths);
    cria_stops_destroy(params->stops);
    *params = (cria_params){0};
}

cria_status cria_params_fit(const cria_api *api, const cria_params *params, size_t prompt_count, int32_t *max_tokens,
                            cria_api_error *err) {
    int64_t most = api->model->max_model_len, count = (int64_t)prompt_count;
    if (count >= most + (params->has_max_tokens && params->max_tokens == 0)) {
        return cria_api_fail(err, "input_tokens",
                             "This model's maximum context length is %lld tokens. However, your prompt contains %lld "
                             "input tokens, which exceeds this limit even without any output tokens. Please reduce the "
                             "length of the input prompt. (parameter=input_tokens, value=%lld)",
                             (long long)most, (long long)count, (long long)count);
    }
    if (params->has_max_tokens && count + params->max_tokens > most) {
        return cria_api_fail(err, "input_tokens",
                             "This model's maximum context length is %lld tokens. However, you requested %lld output "
                             "tokens and your prompt contains %lld input tokens, for a total of %lld tokens. Please "
                             "reduce the length of the input prompt or the number of requested output tokens. "
                             "(parameter=input_tokens, value=%lld)",
                             (long long)most, (long long)params->max_tokens, (long long)count,
                             (long long)(count + params->max_tokens), (long long)count);
    }
    int64_t tokens = params->has_max_tokens ? params->max_tokens : most - count;
    /* As in vLLM a limit, not only a default. */
    const cria_sampling_defaults *defaults = api->model->defaults;
    if (defaults && defaults->max_new_tokens > 0 && tokens > defaults->max_new_tokens) {
        tokens = defaults->max_new_tokens;
    }
    *max_tokens = (int32_t)(tokens > 0 ? tokens : 1);
    return CRIA_OK;
}
