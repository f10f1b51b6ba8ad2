/* Sampling parameters of a request: what holds where it does not say. */
#include "server/api/params.h"
#include "tests/http/toy_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char *const names[] = {"toy"};
static const cria_server_config config = {.model_names = names,
                                          .model_name_count = 1,
                                          .max_logprobs = 20,
                                          .max_n = 16,
                                          .max_stop_strings = 16,
                                          .max_stop_bytes = 256};

/* Reads a completion's body, and what a prompt of ten ids may generate. */
static cria_params read(const cria_sampling_defaults *defaults, const char *body, bool chat, int32_t *max_tokens) {
    cria_server_model model = {.max_model_len = 100, .vocab = TOY_VOCAB, .defaults = defaults};
    cria_api api = {.config = &config, .model = &model, .vocab = TOY_VOCAB};
    cria_json *json;
    cria_params params;
    cria_api_error err = {0};
    assert_int_equal(cria_json_parse(body, strlen(body), &json, NULL), CRIA_OK);
    assert_int_equal(cria_params_read(&api, cria_json_root(json), chat, &params, &err), CRIA_OK);
    assert_int_equal(cria_params_fit(&api, &params, 10, max_tokens, &err), CRIA_OK);
    cria_json_destroy(json);
    return params;
}

static void check(const cria_params *p, float temperature, float top_p, int32_t top_k, float min_p, float repetition) {
    assert_true(p->sampling.temperature == temperature && p->sampling.top_p == top_p);
    assert_true(p->sampling.top_k == top_k && p->sampling.min_p == min_p);
    assert_true(p->sampling.repetition_penalty == repetition);
}

static void a_request_that_says_nothing_is_sampled_as_openai_has_it(void **state) {
    (void)state;
    int32_t max_tokens;
    cria_params p = read(NULL, "{\"prompt\":\"a\",\"temperature\":null}", false, &max_tokens);
    check(&p, 1, 1, 0, 0, 1);
    assert_int_equal(max_tokens, 16);
    cria_params_deinit(&p);
    p = read(NULL, "{}", true, &max_tokens);
    assert_int_equal(max_tokens, 90);
    cria_params_deinit(&p);
}

static void the_checkpoints_wishes_hold_unless_the_request_says_otherwise(void **state) {
    (void)state;
    const cria_sampling_defaults wishes = {
        .temperature = 0, .top_p = 0.5, .min_p = 0.25, .repetition_penalty = 1.5, .top_k = 40, .max_new_tokens = 12};
    int32_t max_tokens;
    cria_params p = read(&wishes, "{\"prompt\":\"a\"}", false, &max_tokens);
    check(&p, 0, 0.5f, 40, 0.25f, 1.5f);
    assert_int_equal(max_tokens, 12);
    cria_params_deinit(&p);
    p = read(&wishes,
             "{\"temperature\":0.75,\"top_p\":1,\"top_k\":-1,\"min_p\":0,\"repetition_penalty\":1,\"max_tokens\":5}",
             true, &max_tokens);
    check(&p, 0.75f, 1, -1, 0, 1);
    assert_int_equal(max_tokens, 5);
    cria_params_deinit(&p);
    p = read(&wishes, "{\"max_tokens\":50}", true, &max_tokens);
    assert_int_equal(max_tokens, 12); /* a limit, as in vLLM */
    cria_params_deinit(&p);
}

static void a_checkpoint_without_wishes_changes_nothing(void **state) {
    (void)state;
    const cria_sampling_defaults none = {-1, -1, -1, -1, -1, -1};
    int32_t max_tokens;
    cria_params p = read(&none, "{\"prompt\":\"a\"}", true, &max_tokens);
    check(&p, 1, 1, 0, 0, 1);
    assert_int_equal(max_tokens, 90);
    cria_params_deinit(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_says_nothing_is_sampled_as_openai_has_it),
        cmocka_unit_test(the_checkpoints_wishes_hold_unless_the_request_says_otherwise),
        cmocka_unit_test(a_checkpoint_without_wishes_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
