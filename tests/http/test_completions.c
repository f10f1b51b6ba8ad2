/* Completions over HTTP: shapes, text, log-probabilities, stop strings, errors. */
#include "tests/http/harness.h"

static toy_server server;

static int setup(void **state) {
    (void)state;
    toy_defaults(&server);
    toy_start(&server);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    toy_wait_idle(&server);
    toy_stop(&server);
    return 0;
}

static void completes_a_prompt_with_every_field_in_vllms_order(void **state) {
    (void)state;
    toy_answer a = ask(&server, "POST", "/v1/completions",
                       "{\"model\":\"toy\",\"prompt\":\"a\",\"max_tokens\":3,\"temperature\":0}");
    assert_int_equal(a.status, 200);
    char type[256];
    assert_string_equal(answer_header(&a, "Content-Type", type), "application/json");
    const char *rest = strstr(a.body, ",\"model\":");
    assert_memory_equal(a.body, "{\"id\":\"cmpl-", 12);
    assert_string_equal(rest,
                        ",\"model\":\"toy\",\"choices\":[{\"index\":0,\"text\":\"bcd\",\"logprobs\":null,"
                        "\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,\"prompt_logprobs\":null,"
                        "\"prompt_token_ids\":null,\"routed_experts\":null}],\"service_tier\":null,"
                        "\"system_fingerprint\":\"cria-1.2.3\",\"usage\":{\"prompt_tokens\":2,\"total_tokens\":5,"
                        "\"completion_tokens\":3,\"prompt_tokens_details\":null,\"completion_tokens_details\":null},"
                        "\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
    answer_free(&a);
}

static void takes_prompts_in_all_four_forms(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":[\"a\",\"f\"],\"max_tokens\":2,\"temperature\":0}", 200,
           "\"text\":\"bc\"");
    expect(&server, "/v1/completions", "{\"prompt\":[\"a\",\"f\"],\"max_tokens\":2,\"temperature\":0}", 200,
           "{\"index\":1,\"text\":\"gh\"");
    expect(&server, "/completions", "{\"prompt\":[97,98],\"max_tokens\":2,\"temperature\":0}", 200, "\"text\":\"cd\"");
    expect(&server, "/v1/completions", "{\"prompt\":[[97],[104]],\"max_tokens\":2,\"temperature\":0}", 200,
           "{\"index\":1,\"text\":\"ij\"");
}

static void ends_at_the_end_of_the_text_and_counts_its_token(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":\"7\",\"temperature\":0}", 200,
           "\"text\":\"89!\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null");
    expect(&server, "/v1/completions", "{\"prompt\":\"7\",\"temperature\":0}", 200, "\"completion_tokens\":4");
    expect(&server, "/v1/completions", "{\"prompt\":\"8\",\"temperature\":0,\"skip_special_tokens\":false}", 200,
           "\"text\":\"9!\"");
    expect(&server, "/v1/completions", "{\"prompt\":\"8\",\"temperature\":0,\"ignore_eos\":true,\"max_tokens\":5}", 200,
           "\"text\":\"9!ab\",\"logprobs\":null,\"finish_reason\":\"length\"");
}

static void log_probabilities_end_with_the_end_token_and_count_code_points(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":\"9\",\"temperature\":0,\"logprobs\":0}", 200,
           "\"logprobs\":{\"text_offset\":[0,1],\"token_logprobs\":[-0.25,-0.25],\"tokens\":[\"!\",\"</s>\"],"
           "\"top_logprobs\":[{\"!\":-0.25},{\"</s>\":-0.25}]}");
    /* The two bytes of é: the first token shows nothing, the second the whole letter. */
    expect(&server, "/v1/completions", "{\"prompt\":\"D\",\"temperature\":0,\"logprobs\":0,\"max_tokens\":4}", 200,
           "\"text\":\"E\xC3\xA9"
           "F\",\"logprobs\":{\"text_offset\":[0,1,1,2],\"token_logprobs\":[-0.25,-0.25,-0.25,-0.25],"
           "\"tokens\":[\"E\",\"\",\"\xC3\xA9\",\"F\"]");
}

static void what_is_impossible_has_a_finite_log_probability(void **state) {
    (void)state;
    expect(&server, "/v1/completions",
           "{\"prompt\":\"az\",\"temperature\":0,\"logprobs\":6,\"max_tokens\":0,\"echo\":true}", 200,
           "\"token_logprobs\":[null,-0.25,-9999]");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"temperature\":0,\"logprobs\":6,\"max_tokens\":1}", 200,
           "\"top_logprobs\":[{\"b\":-0.25,\"c\":-1,\"d\":-2,\"e\":-3,\"f\":-4,\"g\":-9999}]");
    expect(
        &server, "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":0,\"logprobs\":true,\"top_logprobs\":6,"
        "\"max_tokens\":1}",
        200, "\"logprob\":-9999");
    expect(&server, "/v1/completions", "{\"prompt\":\"az\",\"temperature\":0,\"prompt_logprobs\":0,\"max_tokens\":1}",
           200, "{\"logprob\":-9999");
    expect(&server, "/logprobs", "{\"prompt\":\"a\",\"top_k\":6}", 200, "[-0.25,-1,-2,-3,-4,-9999]");
}

static void echo_prepends_the_prompt_and_its_log_probabilities(void **state) {
    (void)state;
    expect(&server, "/v1/completions",
           "{\"prompt\":\"\xC3\xA9"
           "a\",\"temperature\":0,\"logprobs\":1,\"max_tokens\":1,\"echo\":true}",
           200,
           "\"text\":\"\xC3\xA9"
           "ab\",\"logprobs\":{\"text_offset\":[0,0,0,1,2],"
           "\"token_logprobs\":[null,-2.5,-0.25,-2.5,-0.25],\"tokens\":[\"<s>\",\"\",\"\xC3\xA9\",\"a\",\"b\"],"
           "\"top_logprobs\":[null,");
    expect(&server, "/v1/completions",
           "{\"prompt\":\"ab\",\"temperature\":0,\"logprobs\":1,\"max_tokens\":0,\"echo\":true}", 200,
           "\"text\":\"ab\",\"logprobs\":{\"text_offset\":[0,0,1],\"token_logprobs\":[null,-0.25,-0.25]");
    expect(&server, "/v1/completions", "{\"prompt\":[97,98],\"temperature\":0,\"max_tokens\":1,\"echo\":true}", 200,
           "\"text\":\"abc\"");
    expect(&server, "/v1/completions",
           "{\"prompt\":[97,120,121],\"truncate_prompt_tokens\":2,\"temperature\":0,\"max_tokens\":1,\"echo\":true}",
           200, "\"text\":\"xyz\"");
}

static void stop_strings_never_leak_and_are_named(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"temperature\":0,\"stop\":[\"fgx\",\"ghi\"]}", 200,
           "\"text\":\"bcdef\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"ghi\"");
    expect(&server, "/v1/completions",
           "{\"prompt\":\"a\",\"temperature\":0,\"stop\":\"d\",\"include_stop_str_in_output\":true}", 200,
           "\"text\":\"bcd\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"temperature\":0,\"stop\":\"d\"}", 200,
           "\"completion_tokens\":3");
    /* Held back as a possible beginning, let out at the end. */
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"temperature\":0,\"stop\":\"efgh\",\"max_tokens\":5}", 200,
           "\"text\":\"bcdef\",\"logprobs\":null,\"finish_reason\":\"length\"");
    expect(&server, "/v1/completions",
           "{\"prompt\":\"a\",\"temperature\":0,\"stop\":\"c\",\"min_tokens\":4,\"max_tokens\":6}", 200,
           "\"text\":\"bcdefg\"");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"temperature\":0,\"stop_token_ids\":[101]}", 200,
           "\"text\":\"bcd\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":101");
}

static void two_tokens_that_look_alike_keep_the_larger_value(void **state) {
    (void)state;
    /* After 259 comes 'a' by rule, so ask with a prompt whose top list runs over 260 and 261. */
    expect(&server, "/v1/completions",
           "{\"prompt\":[33],\"temperature\":0,\"ignore_eos\":true,\"max_tokens\":1,\"logprobs\":5}", 200,
           "{\"</s>\":-0.25,\"<|im_start|>\":-1,\"<|im_end|>\":-2,\"zz\":-3}");
    expect(&server, "/v1/completions",
           "{\"prompt\":[33],\"temperature\":0,\"ignore_eos\":true,\"max_tokens\":1,\"logprobs\":5,"
           "\"return_tokens_as_token_ids\":true}",
           200, "\"token_id:260\":-3,\"token_id:261\":-4}");
}

static void makes_n_choices_and_the_best_of_more(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"n\":2,\"seed\":0,\"max_tokens\":2}", 200,
           "{\"index\":0,\"text\":\"bc\"");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"n\":2,\"seed\":0,\"max_tokens\":2}", 200,
           "{\"index\":1,\"text\":\"ce\"");
    /* Seeds 3, 4 and 5 have log-probabilities -1, -0.25 and -0.5: the last two are kept, best first. */
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"seed\":3,\"max_tokens\":1}", 200,
           "\"choices\":[{\"index\":0,\"text\":\"f\",\"logprobs\":null");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"seed\":3,\"max_tokens\":1}", 200,
           "{\"index\":1,\"text\":\"g\"");
    expect(&server, "/v1/completions", "{\"prompt\":\"a\",\"n\":2,\"best_of\":3,\"seed\":3,\"max_tokens\":1}", 200,
           "\"usage\":{\"prompt_tokens\":2,\"total_tokens\":5,\"completion_tokens\":3");
}

static void returns_ids_when_asked(void **state) {
    (void)state;
    expect(&server, "/v1/completions",
           "{\"prompt\":\"a\",\"temperature\":0,\"max_tokens\":2,\"return_token_ids\":true}", 200,
           "\"token_ids\":[98,99],\"prompt_logprobs\":null,\"prompt_token_ids\":[256,97]");
    expect(
        &server, "/v1/completions", "{\"prompt\":\"b\",\"temperature\":0,\"max_tokens\":1,\"prompt_logprobs\":1}", 200,
        "\"prompt_logprobs\":[null,{\"98\":{\"logprob\":-2.5,\"rank\":3,\"decoded_token\":\"b\"},\"97\":{\"logprob\":"
        "-0.25,\"rank\":1,\"decoded_token\":\"a\"}}]");
}

static void refuses_what_is_wrong_and_names_it(void **state) {
    (void)state;
    static const struct {
        const char *body;
        int status;
        const char *part;
    } cases[] = {
        {"{\"prompt\":\"a\",\"max_tokens\":-1}", 400,
         "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)"},
        {"{\"prompt\":\"a\",\"max_tokens\":100000}", 400,
         "max_tokens=100000 cannot be greater than max_model_len=256."},
        {"{\"prompt\":\"a\",\"max_tokens\":1.5}", 400, "'type': 'int_from_float', 'loc': 'body.max_tokens'"},
        {"{\"prompt\":\"a\",\"max_tokens\":\"a\"}", 400, "\"type\":\"Bad Request\",\"param\":\"body.max_tokens\""},
        {"{\"prompt\":\"a\",\"temperature\":-1}", 400,
         "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"},
        {"{\"prompt\":\"a\",\"temperature\":NaN}", 400, "temperature must be a finite number, got nan."},
        {"{\"prompt\":\"a\",\"temperature\":1e999}", 400, "temperature must be a finite number, got inf."},
        {"{\"prompt\":\"a\",\"top_p\":0}", 400, "top_p must be in (0, 1], got 0.0."},
        {"{\"prompt\":\"a\",\"top_k\":-2}", 400, "top_k must be 0 (disable), or at least 1, got -2."},
        {"{\"prompt\":\"a\",\"min_p\":1.5}", 400, "min_p must be in [0, 1], got 1.5."},
        {"{\"prompt\":\"a\",\"n\":0}", 400, "n must be at least 1, got 0."},
        {"{\"prompt\":\"a\",\"n\":1000000000000}", 400, "n must be at most 1024"},
        {"{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":1000}", 400, "3 prompts times 1000 choices"},
        {"{\"prompt\":\"a\",\"n\":2,\"temperature\":0}", 400, "n must be 1 when using greedy sampling, got 2."},
        {"{\"prompt\":\"a\",\"logprobs\":100}", 400, "Requested sample logprobs of 100, which is greater than max"},
        {"{\"prompt\":\"a\",\"logprobs\":-1}", 400, "asks for the whole vocabulary"},
        {"{\"prompt\":\"a\",\"stop\":[\"\"]}", 400, "stop cannot contain an empty string."},
        {"{\"prompt\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"0\",\"1\",\"2\",\"3\","
         "\"4\",\"5\",\"6\",\"7\"]}",
         400, "List should have at most 16 items after validation, not 17"},
        {"{\"prompt\":[999999]}", 400, "Token id 999999 is out of vocabulary"},
        {"{\"prompt\":[-5]}", 400, "Input should be greater than or equal to 0"},
        {"{\"prompt\":[1e300]}", 400, "Input should be a valid integer"},
        {"{\"prompt\":5}", 400, "\"param\":\"body.prompt\""},
        {"{\"prompt\":[\"a\",3]}", 400, "\"param\":\"body.prompt.1\""},
        {"{\"prompt\":\"\"}", 400, "Either prompt or prompt_embeds must be provided and non-empty."},
        {"{\"prompt\":[]}", 400, "You must pass at least one prompt"},
        {"{\"prompt\":null}", 400, "Either prompt or prompt_embeds must be provided"},
        {"{\"model\":\"nope\",\"prompt\":\"a\"}", 404,
         "The model `nope` does not exist. Valid aliases: toy, also-toy."},
        {"{\"prompt\":\"a\",\"suffix\":\"x\"}", 400, "\"param\":\"suffix\",\"code\":400"},
        {"{\"prompt\":\"a\",\"use_beam_search\":true}", 400, "use_beam_search is not supported yet"},
        {"{\"prompt\":\"a\",\"response_format\":{\"type\":\"json_object\"}}", 400,
         "response_format of type 'json_object' is not supported yet"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"abc\":1}}", 400, "cannot be converted to integer token IDs: ['abc']"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"999999\":1}}", 400,
         "token_id(s) [999999] in logit_bias contain out-of-vocab"},
        {"{\"prompt\":\"a\",\"stream_options\":{}}", 400, "Stream options can only be defined when `stream=True`."},
        {"{\"prompt\":\"a\",\"presence_penalty\":5}", 400, "presence_penalty must be in [-2, 2], got 5.0."},
        {"{\"prompt\":\"a\",\"repetition_penalty\":0}", 400, "repetition_penalty must be greater than zero, got 0.0."},
        {"{\"prompt\":\"a\",\"seed\":9223372036854775808}", 400,
         "Input should be less than or equal to 9223372036854775807"},
        {"{\"prompt\":\"a\",\"best_of\":1,\"n\":2}", 400, "best_of must be at least n=2, got 1."},
        {"{\"prompt\":\"a\",\"stop_token_ids\":[400000]}", 400, "out-of-vocab"},
        {"{\"prompt\":\"a\",\"allowed_token_ids\":[]}", 400, "allowed_token_ids"},
        {"{\"model\": \"toy\", \"prompt\": ", 400, "JSON decode error"},
        {"[1,2]", 400, "<list of 2 items>"},
        {"", 400, "Field required"},
        {"{\"prompt\":\"\xFF\"}", 400, "\"code\":400"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        expect(&server, "/v1/completions", cases[i].body, cases[i].status, cases[i].part);
    }
}

static void null_means_absent_and_unknown_keys_are_ignored(void **state) {
    (void)state;
    expect(&server, "/v1/completions",
           "{\"prompt\":\"a\",\"max_tokens\":1,\"temperature\":0,\"stop\":null,\"logprobs\":null,\"seed\":null,"
           "\"logit_bias\":null,\"user\":null,\"n\":null,\"foo\":{\"bar\":[1,2]},\"stream_options\":null,\"tools\":[],"
           "\"logit_bias\":{},\"use_beam_search\":false,\"response_format\":{\"type\":\"text\"}}",
           200, "\"text\":\"b\"");
}

static void a_prompt_too_long_is_refused_before_it_is_tokenized(void **state) {
    (void)state;
    char *body = malloc(300000);
    size_t n = (size_t)sprintf(body, "{\"prompt\":\"");
    memset(body + n, 'a', 200000);
    sprintf(body + n + 200000, "\"}");
    expect(&server, "/v1/completions", body, 400, "has 200000 bytes, which are at least");
    sprintf(body + n + 300, "\"}");
    expect(&server, "/v1/completions", body, 400,
           "This model's maximum context length is 256 tokens. However, your prompt contains 301 input tokens");
    sprintf(body + n + 250, "\"}");
    expect(&server, "/v1/completions", body, 400, "for a total of 267 tokens");
    free(body);
}

static void a_nul_is_a_character_like_any_other(void **state) {
    (void)state;
    expect(&server, "/v1/completions", "{\"prompt\":\"a\\u0000b\",\"max_tokens\":1,\"temperature\":0,\"echo\":true}",
           200, "\"text\":\"a\\u0000bc\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completes_a_prompt_with_every_field_in_vllms_order),
        cmocka_unit_test(takes_prompts_in_all_four_forms),
        cmocka_unit_test(ends_at_the_end_of_the_text_and_counts_its_token),
        cmocka_unit_test(log_probabilities_end_with_the_end_token_and_count_code_points),
        cmocka_unit_test(what_is_impossible_has_a_finite_log_probability),
        cmocka_unit_test(echo_prepends_the_prompt_and_its_log_probabilities),
        cmocka_unit_test(stop_strings_never_leak_and_are_named),
        cmocka_unit_test(two_tokens_that_look_alike_keep_the_larger_value),
        cmocka_unit_test(makes_n_choices_and_the_best_of_more),
        cmocka_unit_test(returns_ids_when_asked),
        cmocka_unit_test(refuses_what_is_wrong_and_names_it),
        cmocka_unit_test(null_means_absent_and_unknown_keys_are_ignored),
        cmocka_unit_test(a_prompt_too_long_is_refused_before_it_is_tokenized),
        cmocka_unit_test(a_nul_is_a_character_like_any_other),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
