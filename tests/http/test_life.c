/* The life of requests: disconnects, full queues, failures, loading, draining, timeouts, keys. */
#include "tests/http/harness.h"

static void wait_for(const toy_server *t, int64_t running_and_waiting) {
    cria_engine_stats stats;
    for (int i = 0; i < 3000; ++i) {
        cria_engine_stats_get(t->engine, &stats);
        if (stats.running + stats.waiting == running_and_waiting) return;
        usleep(1000);
    }
    fail_msg("running %ld waiting %ld", (long)stats.running, (long)stats.waiting);
}

/* Until so many run: what has only just arrived counts as waiting. */
static void wait_for_running(const toy_server *t, int64_t running) {
    cria_engine_stats stats;
    for (int i = 0; i < 3000; ++i) {
        cria_engine_stats_get(t->engine, &stats);
        if (stats.running == running) return;
        usleep(1000);
    }
    fail_msg("running %ld waiting %ld", (long)stats.running, (long)stats.waiting);
}

static void a_client_that_leaves_frees_its_sequences(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    atomic_store(&t.model.delay_us, 5000);
    toy_start(&t);
    static const char *const bodies[] = {
        "{\"prompt\":\"a\",\"max_tokens\":200,\"temperature\":0}",                 /* not streaming */
        "{\"prompt\":\"a\",\"max_tokens\":200,\"temperature\":0,\"stream\":true}", /* streaming */
        "{\"prompt\":\"a\",\"max_tokens\":200,\"n\":40}",                          /* some of it queued */
    };
    for (int i = 0; i < 3; ++i) {
        toy_client c;
        client_connect(&c, &t);
        client_send(&c, "POST", "/v1/completions", "", bodies[i]);
        wait_for(&t, i == 2 ? 40 : 1);
        if (i == 1) assert_true(client_more(&c, 5000));
        usleep(20000); /* who closes right behind the request may still read */
        client_close(&c);
        toy_wait_idle(&t);
    }
    cria_engine_stats stats;
    cria_engine_stats_get(t.engine, &stats);
    assert_int_equal(stats.finished[CRIA_FINISH_ABORT], 42);
    /* One that is gone before its request is read. */
    toy_client c;
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "", bodies[0]);
    client_close(&c);
    usleep(50000);
    toy_wait_idle(&t);
    toy_stop(&t);
}

static void a_full_queue_is_429_with_retry_after(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.engine_config.limits.sequences = 1;
    t.engine_config.max_waiting = 2;
    atomic_store(&t.model.hold, true);
    toy_start(&t);
    toy_client c[3];
    for (int i = 0; i < 3; ++i) {
        client_connect(&c[i], &t);
        client_send(&c[i], "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":2,\"temperature\":0}");
        wait_for_running(&t, 1);
        wait_for(&t, i + 1);
    }
    toy_answer a = ask(&t, "POST", "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2,\"stream\":true}");
    char seconds[256];
    assert_int_equal(a.status, 429);
    assert_string_equal(answer_header(&a, "Retry-After", seconds), "1");
    assert_non_null(strstr(a.body, "\"type\":\"RateLimitError\",\"param\":null,\"code\":429"));
    answer_free(&a);
    atomic_store(&t.model.hold, false);
    for (int i = 0; i < 3; ++i) {
        a = client_read(&c[i]);
        assert_int_equal(a.status, 200);
        assert_non_null(strstr(a.body, "\"text\":\"bc\""));
        answer_free(&a);
        client_close(&c[i]);
    }
    toy_wait_idle(&t);
    toy_stop(&t);
}

static void a_flood_is_refused_before_anything_is_tokenized(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    atomic_int encoded = 0;
    t.tokenizer.encoded = &encoded;
    t.engine_config.limits.sequences = 1;
    t.engine_config.max_waiting = 2;
    t.engine_config.max_waiting_prompt_tokens = 20;
    atomic_store(&t.model.hold, true);
    toy_start(&t);
    toy_client c[3];
    static const char *const small = "{\"prompt\":\"a\",\"max_tokens\":2,\"temperature\":0}";
    for (int i = 0; i < 2; ++i) {
        client_connect(&c[i], &t);
        client_send(&c[i], "POST", "/v1/completions", "", small);
        wait_for_running(&t, 1);
        wait_for(&t, i + 1);
    }
    assert_int_equal(atomic_load(&encoded), 2);
    /* One waits with 2 tokens, and 240 bytes are at least 20: more than may wait. 19 bytes may be 2, and are not. */
    char body[400], long_prompt[241];
    memset(long_prompt, 'x', 240);
    long_prompt[240] = 0;
    snprintf(body, sizeof body, "{\"prompt\":\"%s\"}", long_prompt);
    expect(&t, "/v1/completions", body, 429, "prompt tokens are waiting");
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", long_prompt);
    expect(&t, "/v1/chat/completions", body, 429, "prompt tokens are waiting");
    assert_int_equal(atomic_load(&encoded), 2);
    expect(&t, "/v1/completions", "{\"prompt\":\"abcdefghijklmnopqrs\"}", 429, "prompt tokens are waiting");
    assert_int_equal(atomic_load(&encoded), 3);
    client_connect(&c[2], &t);
    client_send(&c[2], "POST", "/v1/completions", "", small);
    wait_for(&t, 3);
    /* Now two wait: nobody else gets in, whatever it asks, and is told before its body is read. */
    expect(&t, "/v1/completions", "no JSON", 429, "2 requests are waiting, the limit is 2");
    expect(&t, "/logprobs", small, 429, "2 requests are waiting");
    toy_client early;
    client_connect(&early, &t);
    client_send(&early, "POST", "/v1/completions", "Expect: 100-continue\r\nContent-Length: 1000000\r\n", NULL);
    toy_answer a = client_read(&early);
    assert_int_equal(a.status, 429);
    answer_free(&a);
    client_close(&early);
    assert_int_equal(atomic_load(&encoded), 4);
    atomic_store(&t.model.hold, false);
    for (int i = 0; i < 3; ++i) {
        a = client_read(&c[i]);
        assert_int_equal(a.status, 200);
        answer_free(&a);
        client_close(&c[i]);
    }
    toy_wait_idle(&t);
    expect(&t, "/v1/completions", small, 200, "bc");
    toy_stop(&t);
}

/* What waits outside the engine, because one request may not fill its queue alone, waits all the same. */
static void sequences_that_wait_outside_the_engine_count(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.engine_config.limits.sequences = 1;
    t.engine_config.max_waiting = 300;
    atomic_store(&t.model.hold, true);
    toy_start(&t);
    toy_client c;
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"n\":302,\"max_tokens\":1,\"seed\":1}");
    wait_for_running(&t, 1);
    wait_for(&t, 256);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\"}", 429, "301 requests are waiting, the limit is 300");
    atomic_store(&t.model.hold, false);
    toy_answer a = client_read(&c);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    client_close(&c);
    toy_wait_idle(&t);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1,\"temperature\":0}", 200, "\"b\"");
    toy_stop(&t);
}

static void a_list_longer_than_the_queue_is_served_bit_by_bit(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.engine_config.limits.sequences = 2;
    t.engine_config.max_waiting = 3;
    toy_start(&t);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\",\"n\":100,\"seed\":0,\"max_tokens\":1}", 200, "{\"index\":99,");
    toy_wait_idle(&t);
    toy_stop(&t);
}

static void a_failing_engine_answers_500_and_health_tells(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    atomic_store(&t.model.delay_us, 2000);
    toy_start(&t);
    toy_client c;
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":200,\"stream\":true}");
    assert_true(client_more(&c, 5000));
    atomic_store(&t.model.fail, true);
    toy_answer a = client_read(&c);
    const char *error = strstr(a.body, "data: {\"error\":{\"message\":\"");
    assert_non_null(error);
    assert_non_null(strstr(error, "\"code\":500}}\n\ndata: [DONE]\n\n"));
    answer_free(&a);
    client_close(&c);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\"}", 503, "the engine has failed");
    a = ask(&t, "GET", "/health", NULL);
    assert_int_equal(a.status, 503);
    answer_free(&a);
    toy_stop(&t);
}

static void health_means_progress(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.config.stall_seconds = 0.05;
    atomic_store(&t.model.hold, true);
    toy_start(&t);
    toy_answer a = ask(&t, "GET", "/health", NULL);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.length, 0);
    answer_free(&a);
    toy_client c;
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":1}");
    usleep(200000);
    a = ask(&t, "GET", "/health", NULL);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "no step has ended for"));
    answer_free(&a);
    a = ask(&t, "GET", "/ping", NULL);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    atomic_store(&t.model.hold, false);
    a = client_read(&c);
    answer_free(&a);
    client_close(&c);
    toy_stop(&t);
}

static void loading_is_503_until_the_model_is_set(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.loading = true;
    toy_start(&t);
    cria_server_set_progress(t.server, "packing weights 40%");
    toy_answer a = ask(&t, "GET", "/health", NULL);
    assert_int_equal(a.status, 503);
    assert_non_null(strstr(a.body, "the model is still loading: packing weights 40%"));
    answer_free(&a);
    expect(&t, "/v1/completions", "{\"prompt\":\"a\"}", 503, "still loading");
    a = ask(&t, "GET", "/metrics", NULL);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    toy_set_model(&t);
    for (int i = 0; i < 100; ++i) {
        a = ask(&t, "GET", "/health", NULL);
        int status = a.status;
        answer_free(&a);
        if (status == 200) break;
        usleep(10000);
    }
    expect(&t, "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1,\"temperature\":0}", 200, "\"text\":\"b\"");
    toy_stop(&t);
}

static void a_stop_lets_open_requests_finish_and_refuses_new_ones(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    atomic_store(&t.model.delay_us, 5000);
    toy_start(&t);
    toy_client c, other;
    client_connect(&c, &t);
    client_connect(&other, &t);
    client_send(&c, "POST", "/v1/completions", "",
                "{\"prompt\":\"a\",\"max_tokens\":60,\"temperature\":0,\"stream\":true}");
    assert_true(client_more(&c, 5000));
    cria_server_stop(t.server);
    usleep(100000);
    client_send(&other, "POST", "/v1/completions", "", "{\"prompt\":\"a\"}");
    toy_answer a = client_read(&other);
    assert_int_equal(a.status, 503);
    char seconds[256];
    assert_non_null(answer_header(&a, "Retry-After", seconds));
    answer_free(&a);
    a = client_read(&c);
    assert_non_null(strstr(a.body, "\"finish_reason\":\"length\""));
    assert_string_equal(a.body + a.length - 14, "data: [DONE]\n\n");
    answer_free(&a);
    client_close(&c);
    client_close(&other);
    pthread_join(t.thread, NULL);
    cria_engine_destroy(t.engine);
    cria_server_destroy(t.server);
}

static void the_drain_has_a_deadline(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.config.drain_seconds = 0.1;
    atomic_store(&t.model.delay_us, 20000);
    toy_start(&t);
    toy_client stream, whole;
    client_connect(&stream, &t);
    client_connect(&whole, &t);
    client_send(&whole, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":200}");
    client_send(&stream, "POST", "/v1/completions", "", "{\"prompt\":\"a\",\"max_tokens\":200,\"stream\":true}");
    assert_true(client_more(&stream, 5000));
    cria_server_stop(t.server);
    toy_answer a = client_read(&stream);
    assert_non_null(strstr(a.body, "data: {\"error\":{\"message\":\"the server is shutting down\""));
    assert_string_equal(a.body + a.length - 14, "data: [DONE]\n\n");
    answer_free(&a);
    a = client_read(&whole);
    assert_int_equal(a.status, 503);
    answer_free(&a);
    client_close(&stream);
    client_close(&whole);
    pthread_join(t.thread, NULL);
    cria_engine_destroy(t.engine);
    cria_server_destroy(t.server);
}

static void slow_senders_are_cut_off(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.config.request_seconds = 0.2;
    t.config.idle_seconds = 0.3;
    toy_start(&t);
    toy_client body, head;
    client_connect(&body, &t);
    client_connect(&head, &t);
    const char *begin = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    client_send_bytes(&body, begin, strlen(begin));
    client_send_bytes(&head, "GET /hea", 8);
    bool head_open = true;
    for (int i = 0; i < 30; ++i) { /* a byte every 50 ms keeps MHD's own time-out away */
        client_send_bytes(&body, "{", 1);
        if (send(head.fd, "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) head_open = false;
        usleep(50000);
    }
    assert_true(client_more(&body, 1000));
    assert_memory_equal(body.data, "HTTP/1.1 408 ", 13);
    assert_false(head_open);
    client_close(&body);
    client_close(&head);
    toy_stop(&t);
}

static void a_key_is_asked_for_on_every_route_but_the_probes(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.config.api_key = "secret-key";
    toy_start(&t);
    static const char *const paths[] = {"/",        "/v1/models", "/version", "/metrics", "/tokenizer_info",
                                        "/nothing", "/load",      "/plan",    "/health/", "/v1/completions"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; ++i) {
        toy_answer a = ask(&t, "GET", paths[i], NULL);
        char challenge[256];
        assert_int_equal(a.status, 401);
        assert_non_null(answer_header(&a, "WWW-Authenticate", challenge));
        assert_non_null(strstr(a.body, "\"code\":401"));
        answer_free(&a);
    }
    expect(&t, "/v1/completions", "{\"prompt\":\"a\"}", 401, NULL);
    static const struct {
        const char *header;
        int status;
    } cases[] = {
        {"Authorization: Bearer secret-key\r\n", 200},
        {"Authorization: bearer   secret-key \r\n", 200},
        {"Authorization: Basic dXNlcjpzZWNyZXQta2V5\r\n", 200}, /* user:secret-key */
        {"Authorization: Bearer secret-ke\r\n", 401},
        {"Authorization: Bearer secret-key2\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: secret-key\r\n", 401},
        {"Authorization: Basic dXNlcjpzZWNyZXQta2V\r\n", 401},
        {"Authorization: Basic ::::\r\n", 401},
        {"X-Api-Key: secret-key\r\n", 401},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        toy_client c;
        client_connect(&c, &t);
        client_send(&c, "GET", "/v1/models", cases[i].header, NULL);
        toy_answer a = client_read(&c);
        if (a.status != cases[i].status) fail_msg("%s gave %d", cases[i].header, a.status);
        answer_free(&a);
        client_close(&c);
    }
    toy_answer a = ask(&t, "GET", "/health", NULL);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    a = ask(&t, "GET", "/ping", NULL);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    toy_stop(&t);
}

static void large_bodies_are_refused_and_read_to_the_end(void **state) {
    (void)state;
    toy_server t;
    toy_defaults(&t);
    t.config.max_body_bytes = 1000;
    toy_start(&t);
    char *body = malloc(300001);
    memset(body, ' ', 300000);
    body[300000] = 0;
    expect(&t, "/v1/completions", body, 413, "\"type\":\"PayloadTooLargeError\",\"param\":null,\"code\":413");
    /* Without a length: in chunks. */
    toy_client c;
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "Transfer-Encoding: chunked\r\n", NULL);
    for (int i = 0; i < 20; ++i) {
        client_send_bytes(&c, "100\r\n", 5);
        client_send_bytes(&c, body, 256);
        client_send_bytes(&c, "\r\n", 2);
    }
    client_send_bytes(&c, "0\r\n\r\n", 5);
    toy_answer a = client_read(&c);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    /* The connection still works. */
    client_send(&c, "GET", "/health", "", NULL);
    a = client_read(&c);
    assert_int_equal(a.status, 200);
    answer_free(&a);
    client_close(&c);
    client_connect(&c, &t);
    client_send(&c, "POST", "/v1/completions", "Expect: 100-continue\r\nContent-Length: 5000\r\n", NULL);
    a = client_read(&c);
    assert_int_equal(a.status, 413);
    answer_free(&a);
    client_close(&c);
    free(body);
    toy_stop(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_leaves_frees_its_sequences),
        cmocka_unit_test(a_full_queue_is_429_with_retry_after),
        cmocka_unit_test(a_flood_is_refused_before_anything_is_tokenized),
        cmocka_unit_test(sequences_that_wait_outside_the_engine_count),
        cmocka_unit_test(a_list_longer_than_the_queue_is_served_bit_by_bit),
        cmocka_unit_test(a_failing_engine_answers_500_and_health_tells),
        cmocka_unit_test(health_means_progress),
        cmocka_unit_test(loading_is_503_until_the_model_is_set),
        cmocka_unit_test(a_stop_lets_open_requests_finish_and_refuses_new_ones),
        cmocka_unit_test(the_drain_has_a_deadline),
        cmocka_unit_test(slow_senders_are_cut_off),
        cmocka_unit_test(a_key_is_asked_for_on_every_route_but_the_probes),
        cmocka_unit_test(large_bodies_are_refused_and_read_to_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
