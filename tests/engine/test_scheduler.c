/* What is computed when: chunks, order, preemption, prefixes computed once, figures. */
#include "tests/engine/bench.h"

static void an_equal_prompt_is_computed_once_but_for_its_last_block(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    for (int repeat = 0; repeat < 3; repeat++) {
        send_known(&b, plain_request(1, 30, 5), &got, &want);
        assert_same(&got, &want);
        assert_int_equal(got.cached, repeat ? 28 : 0);
    }
    send_known(&b, plain_request(1, 28, 5), &got, &want); /* at least one token is computed */
    assert_same(&got, &want);
    assert_int_equal(got.cached, 24);
    cria_request *r = plain_request(1, 30, 5);
    r->cache_salt = 9;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.cached, 0);
    cria_engine_stats stats = stats_of(&b);
    assert_int_equal(stats.prefix_hits, 28 * 2 + 24);
    assert_int_equal(stats.prefix_queries, 30 * 4 + 28);
    bench_close(&b);
}

static void a_reply_is_found_again_as_part_of_the_next_prompt(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    send_known(&b, plain_request(1, 10, 20), &got, &want);
    assert_same(&got, &want);
    cria_request *r = plain_request(1, 40, 5);
    memcpy(r->prompt + 10, got.tokens, 20 * sizeof *r->prompt);
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.cached, 28); /* the reply's last token was never computed */
    bench_close(&b);
}

static void without_prefix_cache_everything_is_computed(void **state) {
    (void)state;
    bench b;
    answer got, want;
    cria_engine_config config = plain_config();
    config.prefix_cache = false;
    bench_open(&b, config);
    for (int repeat = 0; repeat < 2; repeat++) {
        send_known(&b, plain_request(1, 30, 1), &got, &want);
        assert_same(&got, &want);
        assert_int_equal(got.cached, 0);
    }
    assert_int_equal(b.m.computed, 60);
    bench_close(&b);
}

static void siblings_that_come_together_compute_their_prompt_once(void **state) {
    (void)state;
    enum { COUNT = 6 };
    bench b;
    answer got[COUNT], want[COUNT];
    bench_open(&b, plain_config());
    b.m.hold = 1;
    for (int i = 0; i < COUNT; i++) {
        cria_request *r = plain_request(1, 42, 5);
        r->sampling.temperature = 1.0f;
        r->sampling.seed = (uint64_t)i;
        send_known(&b, r, &got[i], &want[i]);
    }
    b.m.hold = 0;
    for (int i = 0; i < COUNT; i++) assert_same(&got[i], &want[i]);
    assert_int_equal(b.m.computed, 42 + (COUNT - 1) * 2 + COUNT * 4);
    bench_close(&b);
}

static void a_long_prompt_does_not_stop_those_who_decode(void **state) {
    (void)state;
    bench b;
    answer decoding, prompt, want, prompt_want;
    cria_engine_config config = plain_config();
    config.limits.tokens = 4;
    bench_open(&b, config);
    b.m.hold = 1;
    send_known(&b, plain_request(1, 2, 30), &decoding, &want);
    send_known(&b, plain_request(2, 60, 1), &prompt, &prompt_want);
    b.m.hold = 0;
    assert_same(&decoding, &want);
    assert_same(&prompt, &prompt_want);
    /* 30 tokens and at least 60 more beside them, 4 to a step, and no step without the decoding one until its end. */
    assert_int_equal(stats_of(&b).steps, 30);
    assert_true(b.m.most_tokens <= 4);
    bench_close(&b);
}

static atomic_int order;

/* Notes in which order requests finished. */
static void hear_order(void *context, cria_event *event) {
    if (event->kind == CRIA_EVENT_FINISH) ((int *)event->user)[0] = ++order;
    (void)context;
    cria_event_destroy(event);
}

static void priority_comes_before_arrival(void **state) {
    (void)state;
    enum { COUNT = 5 };
    static const int32_t priorities[COUNT] = {0, 1, 0, -1, 1};
    static const int expected[COUNT] = {1, 4, 3, 2, 5}; /* the first runs already */
    int finished[COUNT] = {0};
    model m;
    cria_engine_config config = plain_config();
    config.limits.sequences = 1;
    model_init(&m, &config);
    m.hold = 1;
    order = 0;
    cria_engine *engine;
    cria_runner runner = {.self = &m, .step = model_step};
    assert_int_equal(cria_engine_create(&config, runner, hear_order, NULL, NULL, &engine, NULL), CRIA_OK);
    for (int i = 0; i < COUNT; i++) {
        cria_request *r = plain_request((uint64_t)i, 5, 3);
        r->priority = priorities[i];
        r->user = &finished[i];
        assert_int_equal(cria_engine_submit(engine, r, NULL, NULL), CRIA_OK);
        cria_engine_stats stats;
        do cria_engine_stats_get(engine, &stats);
        while (!stats.running);
    }
    m.hold = 0;
    while (order < COUNT) usleep(1000);
    cria_engine_destroy(engine);
    assert_memory_equal(finished, expected, sizeof expected);
    free(m.cells);
}

static void when_blocks_run_out_the_newest_gives_way_and_its_answer_stays_the_same(void **state) {
    (void)state;
    enum { COUNT = 6 };
    for (int cache = 0; cache < 2; cache++) {
        bench b;
        answer got[COUNT], want[COUNT];
        cria_engine_config config = plain_config();
        config.blocks = 24;
        config.prefix_cache = cache;
        bench_open(&b, config);
        b.m.hold = 1;
        for (int i = 0; i < COUNT; i++) {
            cria_request *r = plain_request((uint64_t)i, 6, 40);
            r->sampling.temperature = 1.0f;
            r->sampling.frequency_penalty = 0.5f;
            r->sampling.logprobs = 1;
            if (i == 3) r->sampling.prompt_logprobs = 1;
            send_known(&b, r, &got[i], &want[i]);
        }
        b.m.hold = 0;
        for (int i = 0; i < COUNT; i++) assert_same(&got[i], &want[i]);
        cria_engine_stats stats = stats_of(&b);
        assert_true(stats.preemptions > 0);
        assert_int_equal(stats.blocks_free, 24);
        assert_int_equal(stats.finished[CRIA_FINISH_LENGTH], COUNT);
        bench_close(&b);
    }
}

static void side_arrays_limit_how_many_run_together(void **state) {
    (void)state;
    enum { COUNT = 6 };
    bench b;
    answer got[COUNT], want[COUNT];
    cria_engine_config config = plain_config();
    config.limits.history = 80; /* of 20 at most for each */
    bench_open(&b, config);
    b.m.hold = 1;
    for (int i = 0; i < COUNT; i++) {
        cria_request *r = plain_request((uint64_t)i, 6, 14);
        r->sampling.presence_penalty = 0.5f;
        send_known(&b, r, &got[i], &want[i]);
    }
    b.m.hold = 0;
    for (int i = 0; i < COUNT; i++) assert_same(&got[i], &want[i]);
    assert_int_equal(b.m.most_sequences, 4);
    bench_close(&b);
}

static void two_engines_live_side_by_side(void **state) {
    (void)state;
    enum { COUNT = 8 };
    bench b[2];
    answer got[2][COUNT], want[2][COUNT];
    cria_engine_config config = plain_config();
    bench_open(&b[0], config);
    config.block_tokens = 8;
    config.limits.tokens = 5;
    bench_open(&b[1], config);
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 2; k++) {
            send_known(&b[k], plain_request((uint64_t)i, 10 + (size_t)k, 30), &got[k][i], &want[k][i]);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 2; k++) assert_same(&got[k][i], &want[k][i]);
    }
    bench_close(&b[0]);
    send_known(&b[1], plain_request(1, 10, 30), &got[1][0], &want[1][0]);
    assert_same(&got[1][0], &want[1][0]);
    bench_close(&b[1]);
}

static void figures_tell_what_was_done_and_whether_it_goes_on(void **state) {
    (void)state;
    bench b;
    answer got;
    bench_open(&b, plain_config());
    assert_true(stats_of(&b).seconds_since_step == 0.0);
    b.m.hold = 1;
    send(&b, plain_request(1, 20, 5), &got);
    wait_running(&b, 1);
    usleep(20000);
    cria_engine_stats stats = stats_of(&b);
    assert_true(stats.seconds_since_step >= 0.02); /* a step that hangs can be seen */
    assert_int_equal(stats.blocks_free, 64 - 5);
    b.m.hold = 0;
    wait_finished(&got);
    bench_close(&b);
    bench_open(&b, plain_config());
    send(&b, plain_request(1, 20, 5), &got);
    wait_finished(&got);
    for (int ms = 0; (stats = stats_of(&b)).seconds_since_step != 0.0; ms++) {
        assert_true(ms < 1000);
        usleep(1000);
    }
    assert_int_equal(stats.prompt_tokens, 20);
    assert_int_equal(stats.generation_tokens, 5);
    assert_int_equal(stats.steps, 6); /* 16, 4, and 4 single ones */
    assert_int_equal(stats.step_tokens_histogram[4], 1);
    assert_int_equal(stats.step_tokens_histogram[2], 1);
    assert_int_equal(stats.step_tokens_histogram[0], 4);
    assert_int_equal(stats.step_tokens_sum, 24);
    assert_int_equal(stats.running + stats.waiting, 0);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_equal_prompt_is_computed_once_but_for_its_last_block),
        cmocka_unit_test(a_reply_is_found_again_as_part_of_the_next_prompt),
        cmocka_unit_test(without_prefix_cache_everything_is_computed),
        cmocka_unit_test(siblings_that_come_together_compute_their_prompt_once),
        cmocka_unit_test(a_long_prompt_does_not_stop_those_who_decode),
        cmocka_unit_test(priority_comes_before_arrival),
        cmocka_unit_test(when_blocks_run_out_the_newest_gives_way_and_its_answer_stays_the_same),
        cmocka_unit_test(side_arrays_limit_how_many_run_together),
        cmocka_unit_test(two_engines_live_side_by_side),
        cmocka_unit_test(figures_tell_what_was_done_and_whether_it_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
