/* Streams: the order and shape of events, one event per write, slow readers, the end. */
#include "tests/http/harness.h"

static toy_server server;

static int setup(void **state) {
    (void)state;
    toy_defaults(&server);
    server.config.stream_buffer_bytes = 4096;
    server.engine_config.max_model_len = 4096;
    server.engine_config.limits.blocks_per_sequence = 256;
    toy_start(&server);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    toy_wait_idle(&server);
    toy_stop(&server);
    return 0;
}

/* The events of a stream, the id and time of each taken out, one per line. */
static char *events_of(const char *path, const char *body) {
    toy_answer a = ask(&server, "POST", path, body);
    assert_int_equal(a.status, 200);
    char type[256];
    assert_string_equal(answer_header(&a, "Content-Type", type), "text/event-stream; charset=utf-8");
    assert_null(strchr(a.body, '\r'));
    cria_text out = {0};
    for (char *p = a.body; *p;) {
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        *end = 0;
        assert_memory_equal(p, "data: ", 6);
        char *choices = strstr(p, "\"choices\":");
        cria_text_puts(&out, choices ? choices : p + 6);
        cria_text_puts(&out, "\n");
        p = end + 2;
    }
    answer_free(&a);
    return out.data;
}

static void expect_events(const char *path, const char *body, const char *expected) {
    char *events = events_of(path, body);
    assert_string_equal(events, expected);
    free(events);
}

static void streams_a_completion_token_by_token(void **state) {
    (void)state;
    expect_events(
        "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2,\"temperature\":0,\"stream\":true}",
        "\"choices\":[{\"index\":0,\"text\":\"b\",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"c\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":"
        "null,\"prompt_token_ids\":null,\"token_ids\":null}],\"system_fingerprint\":\"cria-1.2.3\"}\n[DONE]\n");
}

static void streams_a_chat_with_the_role_first(void **state) {
    (void)state;
    expect_events(
        "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1,\"temperature\":0,\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"logprobs\":true,\"top_logprobs\":1}",
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
        "\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null}\n"
        "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\u000b\"},\"logprobs\":{\"content\":[{\"token\":"
        "\"\\u000b\",\"logprob\":-0.25,\"bytes\":[11],\"top_logprobs\":[{\"token\":\"\\u000b\",\"logprob\":-0.25,"
        "\"bytes\":[11]}]}]},\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null}]}\n"
        "\"choices\":[],\"usage\":{\"prompt_tokens\":38,\"total_tokens\":39,\"completion_tokens\":1},"
        "\"system_fingerprint\":\"cria-1.2.3\"}\n[DONE]\n");
}

static void usage_is_sent_only_when_asked_for_and_sums_all_choices(void **state) {
    (void)state;
    char *events =
        events_of("/v1/completions", "{\"prompt\":[\"a\",\"b\"],\"n\":2,\"seed\":0,\"max_tokens\":1,\"stream\":"
                                     "true,\"stream_options\":{\"include_usage\":true,"
                                     "\"continuous_usage_stats\":true}}");
    assert_non_null(strstr(events, "}],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":3,\"completion_tokens\":1}}"));
    assert_non_null(strstr(events, "\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":8,"
                                   "\"completion_tokens\":4},"));
    for (int i = 0; i < 4; ++i) {
        char part[32];
        snprintf(part, sizeof part, "[{\"index\":%d,", i);
        assert_non_null(strstr(events, part));
    }
    free(events);
    events = events_of("/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":3,\"stream\":true}");
    assert_null(strstr(events, "usage"));
    free(events);
}

static void no_half_code_point_and_no_stop_prefix_is_ever_sent(void **state) {
    (void)state;
    expect_events(
        "/v1/completions",
        "{\"prompt\":\"D\",\"max_tokens\":9,\"temperature\":0,\"stream\":true,\"stop\":\"GHI\",\"logprobs\":0}",
        "\"choices\":[{\"index\":0,\"text\":\"E\",\"logprobs\":{\"text_offset\":[0],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"E\"],\"top_logprobs\":[{\"E\":-0.25}]},\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[1],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"\"],\"top_logprobs\":[{\"\":-0.25}]},\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"\xC3\xA9\",\"logprobs\":{\"text_offset\":[1],\"token_logprobs\":"
        "[-0.25],\"tokens\":[\"\xC3\xA9\"],\"top_logprobs\":[{\"\xC3\xA9\":-0.25}]},\"finish_reason\":null,"
        "\"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"F\",\"logprobs\":{\"text_offset\":[2],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"F\"],\"top_logprobs\":[{\"F\":-0.25}]},\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[3],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"G\"],\"top_logprobs\":[{\"G\":-0.25}]},\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[4],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"H\"],\"top_logprobs\":[{\"H\":-0.25}]},\"finish_reason\":null,\"stop_reason\":null,"
        "\"prompt_token_ids\":null,\"token_ids\":null}]}\n"
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":{\"text_offset\":[5],\"token_logprobs\":[-0.25],"
        "\"tokens\":[\"I\"],\"top_logprobs\":[{\"I\":-0.25}]},\"finish_reason\":\"stop\",\"stop_reason\":\"GHI\","
        "\"prompt_token_ids\":null,\"token_ids\":null}],\"system_fingerprint\":\"cria-1.2.3\"}\n[DONE]\n");
}

static void echo_comes_with_the_first_token_and_offsets_go_on_from_it(void **state) {
    (void)state;
    expect_events(
        "/v1/completions",
        "{\"prompt\":\"ab\",\"max_tokens\":1,\"temperature\":0,\"stream\":true,\"logprobs\":0,\"echo\":true}",
        "\"choices\":[{\"index\":0,\"text\":\"abc\",\"logprobs\":{\"text_offset\":[0,0,1,2],\"token_logprobs\":"
        "[null,-0.25,-0.25,-0.25],\"tokens\":[\"<s>\",\"a\",\"b\",\"c\"],\"top_logprobs\":[null,{\"a\":-0.25},"
        "{\"b\":-0.25},{\"c\":-0.25}]},\"finish_reason\":\"length\",\"stop_reason\":null,\"prompt_token_ids\":"
        "[256,97,98],\"token_ids\":null}],\"system_fingerprint\":\"cria-1.2.3\"}\n[DONE]\n");
    expect_events(
        "/v1/completions", "{\"prompt\":\"ab\",\"max_tokens\":0,\"temperature\":0,\"stream\":true,\"echo\":true}",
        "\"choices\":[{\"index\":0,\"text\":\"ab\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":"
        "null,\"prompt_token_ids\":[256,97,98],\"token_ids\":null}],\"system_fingerprint\":\"cria-1.2.3\"}\n"
        "[DONE]\n");
}

/* Chunks of the transfer coding are MHD's writes: each must be one event, [DONE] alone in its own. */
static void every_event_is_one_write(void **state) {
    (void)state;
    toy_client c;
    client_connect(&c, &server);
    client_send(&c, "POST", "/v1/completions", "",
                "{\"prompt\":\"a\",\"max_tokens\":20,\"temperature\":0,\"stream\":true}");
    const char *split = NULL;
    while (!split && client_more(&c, 5000)) split = strstr(c.data, "\r\n\r\n");
    assert_non_null(split);
    size_t at = (size_t)(split + 4 - c.data), chunks = 0;
    for (;;) {
        const char *data, *next;
        size_t size;
        while (!(next = parse_chunk(c.data + at, c.data + c.length, &data, &size))) assert_true(client_more(&c, 5000));
        if (!size) break;
        assert_memory_equal(data, "data: ", 6);
        assert_memory_equal(data + size - 2, "\n\n", 2);
        assert_ptr_equal(memmem(data, size, "\n\n", 2), data + size - 2);
        at = (size_t)(next - c.data);
        ++chunks;
    }
    assert_int_equal(chunks, 21);
    client_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_a_completion_token_by_token),
        cmocka_unit_test(streams_a_chat_with_the_role_first),
        cmocka_unit_test(usage_is_sent_only_when_asked_for_and_sums_all_choices),
        cmocka_unit_test(no_half_code_point_and_no_stop_prefix_is_ever_sent),
        cmocka_unit_test(echo_comes_with_the_first_token_and_offsets_go_on_from_it),
        cmocka_unit_test(every_event_is_one_write),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
