/* Fuzzing request bodies: through every route's own reading, the engine's admission, the model's answer and what is
 * written of it. The first byte chooses the route, the rest is the body. */
#include "base/json.h"
#include "base/utf8.h"
#include "server/api/generation.h"
#include "server/api/tokenize.h"
#include "server/engine/sequence.h"
#include "tests/fuzz/require.h"
#include "tests/http/toy_tokenizer.h"

enum { MAX_MODEL_LEN = 128, MOST_CHOICES = 8, MOST_TOKENS = 12, MAX_LOGPROBS = 20 };

#define CHATML "{% ... %}<|im_start|>system\\nBe a toy<|im_end|>\\n{% ... %}<|im_start|>{{ role }}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_json(const char *text, size_t length) {
    cria_json *json = NULL;
    cria_error err;
    require(cria_json_parse(text, length, &json, &err) == CRIA_OK);
    cria_json_destroy(json);
}

static void require_error(cria_status status, const cria_api_error *error) {
    require(status != CRIA_OK && error->status >= 400 && error->status <= 599 && error->message[0]);
    cria_text out = {0};
    cria_api_error_write(error, &out);
    require_json(out.data, out.length);
    cria_text_deinit(&out);
}

/* The events of a stream: each a line of JSON or the last word, each followed by an empty line. */
static void require_events(const char *text, size_t length) {
    const char *end = text + length;
    bool last = false;
    while (text < end) {
        const char *stop = memmem(text, (size_t)(end - text), "\n\n", 2);
        require(!last && stop && stop - text > 6 && memcmp(text, "data: ", 6) == 0);
        last = strncmp(text, "data: [DONE]\n\n", 14) == 0;
        if (!last) require_json(text + 6, (size_t)(stop - text - 6));
        text = stop + 2;
    }
    require(last);
}

/* ---- a model's answer ---- */

typedef struct {
    cria_event event;
    cria_token_logprob logprobs[MAX_MODEL_LEN];
    int32_t top_ids[MAX_MODEL_LEN * MAX_LOGPROBS];
    float top_logprobs[MAX_MODEL_LEN * MAX_LOGPROBS];
} answer;

static void set_logprobs(answer *a, int32_t count, int32_t top, int32_t first_token) {
    a->event.has_logprobs = count > 0;
    a->event.count = count;
    a->event.logprobs = a->logprobs;
    a->event.top_stride = top;
    a->event.top_ids = a->top_ids;
    a->event.top_logprobs = a->top_logprobs;
    for (int32_t i = 0; i < count; i++) {
        a->logprobs[i] = (cria_token_logprob){(first_token + i) % TOY_VOCAB, 1, i % 3 ? -0.5f : -1e30f, top};
        for (int32_t k = 0; k < top; k++) {
            a->top_ids[i * top + k] = (first_token + i + k * 7) % TOY_VOCAB;
            a->top_logprobs[i * top + k] = -0.5f * (float)(k + 1);
        }
    }
}

static void tell_prompt(cria_generation *g, size_t i, const cria_request *request, answer *a, cria_text *out) {
    if (request->sampling.prompt_logprobs < 0 || request->prompt_count < 2) return;
    a->event = (cria_event){.kind = CRIA_EVENT_PROMPT, .user = request->user, .first = 1};
    int32_t count = (int32_t)request->prompt_count - 1;
    set_logprobs(a, count, request->sampling.prompt_logprobs, 0);
    for (int32_t p = 0; p < count; p++) a->logprobs[p].token = request->prompt[p + 1];
    require(!cria_generation_event(g, i, &a->event, out));
}

/* What the model says to everybody: half a character, a stop string's letters, a special token. */
static int32_t token_at(size_t choice, int32_t n) {
    static const int32_t tokens[] = {'a', 0xC3, 0xA9, 'b', 0xF0, TOY_ZZ, TOY_START, 0xFF, 'c', TOY_ZZ_TOO};
    return tokens[(choice + (size_t)n) % (sizeof tokens / sizeof *tokens)];
}

static void answer_choice(cria_generation *g, size_t i, const cria_request *request, answer *a, cria_text *out) {
    tell_prompt(g, i, request, a, out);
    bool cancelled = false;
    int32_t most = request->sampling.max_tokens, n = 0;
    for (; n < most && n < MOST_TOKENS && !cancelled; n++) {
        a->event = (cria_event){.kind = CRIA_EVENT_TOKEN, .user = request->user, .token = token_at(i, n), .count = 1};
        if (request->sampling.logprobs >= 0) set_logprobs(a, 1, request->sampling.logprobs, a->event.token);
        a->event.count = 1;
        cancelled = cria_generation_event(g, i, &a->event, out);
    }
    a->event = (cria_event){.kind = CRIA_EVENT_FINISH, .user = request->user, .generated_tokens = n};
    a->event.finish = cancelled ? CRIA_FINISH_ABORT : n == most ? CRIA_FINISH_LENGTH : CRIA_FINISH_STOP;
    a->event.token = TOY_EOS;
    cria_generation_event(g, i, &a->event, out);
}

static const cria_engine_config engine = {.max_model_len = MAX_MODEL_LEN,
                                          .block_tokens = 16,
                                          .blocks = 64,
                                          .vocab = TOY_VOCAB,
                                          .eos = {TOY_EOS},
                                          .eos_count = 1,
                                          .max_waiting = 64,
                                          .limits = {.tokens = 64,
                                                     .sequences = 8,
                                                     .rows = 64,
                                                     .blocks_per_sequence = 8,
                                                     .history = 4096,
                                                     .biases = 4096,
                                                     .allowed = 4096,
                                                     .top_logprobs = MAX_LOGPROBS}};

/* Hands every choice to the engine's admission and answers it; false if one was refused. */
static bool answer_all(cria_generation *g, cria_text *out) {
    static answer a;
    for (size_t i = 0; i < g->choice_count; i++) {
        cria_request *request = cria_generation_request(g, i);
        require(request && request->prompt_count > 0 && request->prompt_count <= MAX_MODEL_LEN);
        require(request->sampling.logprobs <= MAX_LOGPROBS && request->sampling.prompt_logprobs <= MAX_LOGPROBS);
        cria_sequence *sequence;
        cria_error err = {0};
        if (cria_sequence_create(&engine, request, &sequence, &err) != CRIA_OK) {
            require(err.message[0]);
            cria_request_destroy(request);
            return false;
        }
        answer_choice(g, i, request, &a, out);
        cria_sequence_destroy(sequence);
    }
    return true;
}

static void generate(const cria_api *api, cria_api_kind kind, const char *body, size_t length) {
    cria_generation *g = NULL;
    cria_api_error error = {0};
    cria_status status = cria_generation_create(api, kind, body, length, "fuzz", &g, &error);
    if (status != CRIA_OK) {
        require_error(status, &error);
        return;
    }
    require(g->choice_count > 0);
    cria_text out = {0};
    if (g->choice_count <= MOST_CHOICES && answer_all(g, &out)) {
        require(cria_generation_done(g));
        cria_generation_end(g, &out);
        require(!out.failed && cria_utf8_valid(out.data, out.length));
        if (g->params.stream) {
            require_events(out.data, out.length);
        } else {
            require_json(out.data, out.length);
        }
    }
    cria_text_deinit(&out);
    cria_generation_destroy(g);
}

static void convert(cria_status (*answer)(const cria_api *, const char *, size_t, cria_text *, cria_api_error *),
                    const cria_api *api, const char *body, size_t length) {
    cria_text out = {0};
    cria_api_error error = {0};
    cria_status status = answer(api, body, length, &out, &error);
    if (status == CRIA_OK) {
        require_json(out.data, out.length);
    } else {
        require_error(status, &error);
    }
    cria_text_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"toy"};
    cria_server_config config = {.model_names = names,
                                 .model_name_count = 1,
                                 .max_logprobs = MAX_LOGPROBS,
                                 .max_n = 16,
                                 .max_prompts = 16,
                                 .max_sequences = 64,
                                 .max_stop_strings = 16,
                                 .max_stop_bytes = 256,
                                 .max_next_logprobs = MAX_LOGPROBS};
    cria_tokenizer tokenizer = {.chat_template = CHATML};
    cria_server_model model = {
        .tokenizer = &tokenizer, .max_model_len = MAX_MODEL_LEN, .vocab = TOY_VOCAB, .eos = {TOY_EOS}, .eos_count = 1};
    cria_api api = {.config = &config};
    cria_error err = {0};
    if (!size) return 0;
    require(cria_api_set_model(&api, &model, &err) == CRIA_OK);
    const char *body = (const char *)data + 1;
    switch (data[0]) {
    case 'c':
        generate(&api, CRIA_API_COMPLETION, body, size - 1);
        break;
    case 'm':
        generate(&api, CRIA_API_CHAT, body, size - 1);
        break;
    case 'l':
        generate(&api, CRIA_API_NEXT, body, size - 1);
        break;
    case 't':
        convert(cria_tokenize, &api, body, size - 1);
        break;
    case 'd':
        convert(cria_detokenize, &api, body, size - 1);
        break;
    default:
        break;
    }
    cria_api_deinit(&api);
    return 0;
}
