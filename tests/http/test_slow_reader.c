/* A client that stops reading: only its own sequence stops, and it loses nothing. The model has a pace, so that the
 * engine cannot be through before the socket is full. */
#include "tests/http/harness.h"

enum { TOKENS = 3900, PACE_US = 300 };

static void start(toy_server *t) {
    toy_defaults(t);
    t->config.stream_buffer_bytes = 4096;
    t->engine_config.max_model_len = 4096;
    t->engine_config.limits.blocks_per_sequence = 256;
    atomic_store(&t->model.delay_us, PACE_US);
    toy_start(t);
}

/* Events of some 2 kB: the kernel's own buffers fill up after a few hundred. */
static void ask_for_much(toy_client *slow, const toy_server *t) {
    client_connect(slow, t);
    int small = 4096;
    setsockopt(slow->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    char body[200];
    snprintf(body, sizeof body,
             "{\"prompt\":\"a\",\"max_tokens\":%d,\"temperature\":0,\"stream\":true,\"logprobs\":20,"
             "\"return_token_ids\":true}",
             TOKENS);
    client_send(slow, "POST", "/v1/completions", "", body);
    assert_true(client_more(slow, 5000));
}

/* Waits until no step is made for as long as 100 of them take. */
static void wait_until_nothing_moves(toy_server *t) {
    for (int i = 0; i < 200; ++i) {
        int before = atomic_load(&t->model.steps);
        usleep(100 * PACE_US);
        if (before == atomic_load(&t->model.steps)) return;
    }
    fail_msg("the engine still works after %d steps", atomic_load(&t->model.steps));
}

static void expect_whole(toy_client *slow) {
    toy_answer a = client_read(slow);
    assert_int_equal(a.status, 200);
    int events = 0;
    const char *p = a.body;
    for (; (p = strstr(p, "data: {")) != NULL; ++p, ++events) {
        const char *text = strstr(p, "\"text\":\"");
        assert_non_null(text);
        if (text[8] != 'a' + (events + 1) % 26) fail_msg("event %d says %.20s", events, text);
    }
    assert_int_equal(events, TOKENS);
    assert_non_null(strstr(a.body, "\"finish_reason\":\"length\""));
    assert_string_equal(a.body + a.length - 14, "data: [DONE]\n\n");
    answer_free(&a);
}

static void a_slow_reader_pauses_its_own_sequence_and_loses_nothing(void **state) {
    (void)state;
    toy_server t;
    start(&t);
    toy_client slow;
    ask_for_much(&slow, &t);
    wait_until_nothing_moves(&t);
    assert_in_range(atomic_load(&t.model.steps), 10, TOKENS - 500);
    cria_engine_stats stats;
    cria_engine_stats_get(t.engine, &stats);
    assert_int_equal(stats.running + stats.waiting, 1);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":3,\"temperature\":0}", 200, "\"text\":\"bcd\"");
    expect_whole(&slow);
    client_close(&slow);
    toy_wait_idle(&t);
    toy_stop(&t);
}

static void a_slow_reader_that_leaves_frees_its_blocks(void **state) {
    (void)state;
    toy_server t;
    start(&t);
    toy_client slow;
    ask_for_much(&slow, &t);
    wait_until_nothing_moves(&t);
    client_close(&slow);
    toy_wait_idle(&t);
    toy_stop(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_reader_pauses_its_own_sequence_and_loses_nothing),
        cmocka_unit_test(a_slow_reader_that_leaves_frees_its_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
