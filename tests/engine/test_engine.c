/* The engine's promises, one by one: how sequences end, what is refused, cancellation, pauses, failure. */
#include "tests/engine/bench.h"

#include <math.h>

static void a_sequence_ends_at_eos_whose_token_is_told_too(void **state) {
    (void)state;
    bench b;
    answer got, want;
    cria_engine_config config = plain_config();
    cria_request *r = plain_request(1, 5, 30);
    memset(&want, 0, sizeof want);
    alone(&config, r, 64, &want);
    config.eos[0] = want.tokens[3];
    config.eos_count = 1;
    bench_open(&b, config);
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.finish, CRIA_FINISH_STOP);
    assert_int_equal(got.finish_token, config.eos[0]);
    assert_int_equal(got.tokens[got.count - 1], config.eos[0]);
    r = plain_request(1, 5, 30);
    r->sampling.ignore_eos = true;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.finish, CRIA_FINISH_LENGTH);
    assert_int_equal(got.count, 30);
    r = plain_request(1, 5, 30);
    r->sampling.min_tokens = 30;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.count, 30);
    bench_close(&b);
}

static void a_stop_id_ends_the_sequence_even_where_eos_is_ignored(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    cria_request *r = plain_request(2, 5, 30);
    memset(&want, 0, sizeof want);
    alone(&b.config, r, 64, &want);
    r->stop_ids = malloc(2 * sizeof *r->stop_ids);
    r->stop_ids[0] = want.tokens[2];
    r->stop_ids[1] = 1000000; /* never chosen, harmless */
    r->stop_count = 2;
    r->sampling.ignore_eos = true;
    r->sampling.min_tokens = 1;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.finish, CRIA_FINISH_STOP);
    bench_close(&b);
}

static void a_bad_word_of_several_tokens_is_broken_off_before_its_last_one(void **state) {
    (void)state;
    bench b;
    answer got, want, free_reply = {0};
    bench_open(&b, plain_config());
    cria_request *r = plain_request(2, 5, 30);
    alone(&b.config, r, 64, &free_reply);
    int32_t words[] = {free_reply.tokens[1],
                       free_reply.tokens[2],
                       free_reply.tokens[3], /* three tokens */
                       r->prompt[4],
                       free_reply.tokens[0], /* begins in the prompt: does not count */
                       VOCAB - 1};
    r->bad_words = malloc(sizeof words);
    memcpy(r->bad_words, words, sizeof words);
    r->bad_lengths = malloc(3 * sizeof(int32_t));
    r->bad_lengths[0] = 3;
    r->bad_lengths[1] = 2;
    r->bad_lengths[2] = 1;
    r->bad_count = 3;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_memory_equal(got.tokens, free_reply.tokens, 3 * sizeof *got.tokens);
    assert_int_not_equal(got.tokens[3], free_reply.tokens[3]);
    for (int32_t i = 0; i < got.count; i++) assert_int_not_equal(got.tokens[i], VOCAB - 1);
    bench_close(&b);
}

static void no_ngram_is_repeated_where_that_is_asked_for(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    cria_request *r = plain_request(2, 5, 55);
    r->sampling.no_repeat_ngram_size = 1;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    bool seen[VOCAB] = {false};
    for (size_t i = 0; i < 5; i++) seen[mix(2, i) % VOCAB] = true;
    for (int32_t i = 0; i < got.count; i++) {
        assert_false(seen[got.tokens[i]]);
        seen[got.tokens[i]] = true;
    }
    assert_int_equal(got.count, 55);
    bench_close(&b);
}

static void the_models_length_cuts_a_reply(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    send_known(&b, plain_request(3, 63, INT32_MAX), &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.count, 1);
    assert_int_equal(got.finish, CRIA_FINISH_LENGTH);
    send_known(&b, plain_request(3, 20, INT32_MAX), &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.count, 44);
    bench_close(&b);
}

static void a_pool_smaller_than_the_models_length_cuts_a_reply_too(void **state) {
    (void)state;
    bench b;
    answer got;
    cria_engine_config config = plain_config();
    config.blocks = 4;
    bench_open(&b, config);
    send(&b, plain_request(3, 10, 1000), &got);
    wait_finished(&got);
    assert_int_equal(got.count, 6);
    assert_int_equal(got.finish, CRIA_FINISH_LENGTH);
    bench_close(&b);
}

static void prompt_log_probabilities_come_in_order_in_chunks_of_the_row_limit(void **state) {
    (void)state;
    for (int64_t rows = 1; rows <= 16; rows += 3) {
        bench b;
        answer got, want;
        cria_engine_config config = plain_config();
        config.limits.rows = rows;
        bench_open(&b, config);
        for (int repeat = 0; repeat < 2; repeat++) { /* the second must not read the cache that the first filled */
            cria_request *r = plain_request(4, 40, 3);
            r->sampling.prompt_logprobs = 3;
            r->sampling.logprobs = 2;
            send_known(&b, r, &got, &want);
            assert_same(&got, &want);
            assert_int_equal(got.prompt_told, 40);
            assert_int_equal(got.cached, 0);
        }
        bench_close(&b);
    }
}

static void no_token_at_all_may_be_asked_for(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    cria_request *r = plain_request(5, 64, 0); /* a prompt of the full length: nothing is added */
    r->sampling.prompt_logprobs = 0;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(got.count, 0);
    assert_int_equal(got.prompt_told, 64);
    assert_int_equal(got.finish, CRIA_FINISH_LENGTH);
    for (size_t prompt = 1; prompt < 3; prompt++) {
        send_known(&b, plain_request(5, prompt, 0), &got, &want);
        assert_same(&got, &want);
        assert_int_equal(got.finish, CRIA_FINISH_LENGTH);
    }
    r = plain_request(5, 1, 0);
    r->sampling.prompt_logprobs = 0;
    send_known(&b, r, &got, &want);
    assert_same(&got, &want);
    assert_int_equal(stats_of(&b).prompt_tokens, 68);
    bench_close(&b);
}

/* ---- refusals ---- */

static void refuse(bench *b, cria_request *r, cria_status status, const char *word) {
    cria_error err = {0};
    uint64_t id = 77;
    assert_int_equal(cria_engine_submit(b->engine, r, &id, &err), status);
    assert_int_equal(id, 77);
    if (!strstr(err.message, word)) fail_msg("\"%s\" does not name %s", err.message, word);
    cria_request_destroy(r); /* it stayed ours */
}

static void requests_that_can_never_run_are_refused_with_the_limit_and_the_value(void **state) {
    (void)state;
    bench b;
    cria_engine_config config = plain_config();
    config.blocks = 8;
    bench_open(&b, config);
    refuse(&b, plain_request(1, 64, 1), CRIA_ERR_ARGUMENT, "64");
    refuse(&b, plain_request(1, 32, 1), CRIA_ERR_ARGUMENT, "KV cache");
    cria_request *r = plain_request(1, 5, 5);
    r->prompt[4] = VOCAB;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "prompt: token id 61");
    r = plain_request(1, 5, 5);
    r->prompt[0] = -1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "token id -1");
    r = plain_request(1, 5, 5);
    r->prompt_count = 0;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "empty");
    refuse(&b, plain_request(1, 5, -1), CRIA_ERR_ARGUMENT, "max_tokens");
    r = plain_request(1, 5, 5);
    r->sampling.logprobs = MOST_TOP + 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "logprobs is 6, the limit is 5");
    r = plain_request(1, 5, 5);
    r->sampling.prompt_logprobs = MOST_TOP + 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "prompt_logprobs is 6");
    bench_close(&b);
}

static void side_arrays_that_can_never_fit_are_refused(void **state) {
    (void)state;
    bench b;
    cria_engine_config config = plain_config();
    config.limits.history = config.limits.biases = config.limits.allowed = 3;
    bench_open(&b, config);
    cria_request *r = plain_request(1, 5, 5);
    r->sampling.repetition_penalty = 1.1f;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "penalties");
    r = plain_request(1, 5, 5);
    r->sampling.no_repeat_ngram_size = 2;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "no_repeat_ngram_size");
    r = plain_request(1, 5, 5);
    r->allowed = calloc(4, sizeof *r->allowed);
    r->allowed_count = 4;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "allowed_token_ids");
    r = plain_request(1, 5, 5);
    r->allowed = calloc(1, sizeof *r->allowed);
    r->allowed[0] = VOCAB;
    r->allowed_count = 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "allowed_token_ids");
    r = plain_request(1, 5, 5);
    r->biases = malloc(sizeof *r->biases);
    r->biases[0] = (cria_bias){1, NAN};
    r->bias_count = 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "logit_bias");
    r = plain_request(1, 5, 5);
    r->bad_words = calloc(1, sizeof *r->bad_words);
    r->bad_lengths = calloc(1, sizeof *r->bad_lengths);
    r->bad_count = 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "bad_words");
    bench_close(&b);
}

static void a_full_inbox_refuses_until_there_is_room(void **state) {
    (void)state;
    bench b;
    answer got[4];
    cria_engine_config config = plain_config();
    config.limits.sequences = 1;
    config.max_waiting = 2;
    config.max_waiting_prompt_tokens = 20;
    bench_open(&b, config);
    b.m.hold = 1;
    send(&b, plain_request(1, 5, 3), &got[0]);
    wait_running(&b, 1);
    send(&b, plain_request(2, 50, 3), &got[1]); /* alone it may pass the limit of tokens */
    refuse(&b, plain_request(3, 5, 3), CRIA_ERR_FULL, "50 prompt tokens");
    cria_engine_stats stats = stats_of(&b);
    assert_int_equal(stats.waiting, 1);
    assert_int_equal(stats.waiting_prompt_tokens, 50);
    b.m.hold = 0;
    wait_finished(&got[0]);
    wait_finished(&got[1]);
    b.m.hold = 1;
    send(&b, plain_request(1, 5, 3), &got[0]);
    wait_running(&b, 1);
    send(&b, plain_request(2, 5, 3), &got[1]);
    send(&b, plain_request(3, 5, 3), &got[2]);
    refuse(&b, plain_request(4, 5, 3), CRIA_ERR_FULL, "2 requests");
    b.m.hold = 0;
    for (int i = 0; i < 3; i++) wait_finished(&got[i]);
    send(&b, plain_request(4, 5, 3), &got[3]);
    wait_finished(&got[3]);
    bench_close(&b);
}

static void a_draining_engine_ends_what_runs_and_takes_nothing_new(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open(&b, plain_config());
    b.m.hold = 1;
    send_known(&b, plain_request(1, 5, 20), &got, &want);
    cria_engine_drain(b.engine);
    refuse(&b, plain_request(1, 5, 3), CRIA_ERR_CLOSED, "shutting down");
    assert_true(stats_of(&b).draining);
    b.m.hold = 0;
    assert_same(&got, &want);
    bench_close(&b);
}

static void an_id_given_twice_is_refused_while_the_first_is_open(void **state) {
    (void)state;
    bench b;
    answer got;
    bench_open(&b, plain_config());
    b.m.hold = 1;
    cria_request *r = plain_request(1, 5, 5);
    r->id = 1;
    assert_int_equal(send(&b, r, &got), 1);
    r = plain_request(1, 5, 5);
    r->id = 1;
    refuse(&b, r, CRIA_ERR_ARGUMENT, "id 1");
    answer other;
    assert_true(send(&b, plain_request(1, 5, 5), &other) != 1);
    b.m.hold = 0;
    wait_finished(&got);
    wait_finished(&other);
    bench_close(&b);
}

static void configurations_out_of_range_are_refused(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    cria_engine *engine;
    cria_error err;
    model m;
    model_init(&m, &config);
    cria_runner runner = {.self = &m, .step = model_step};
    config.blocks = 0;
    assert_int_equal(cria_engine_create(&config, runner, hear, NULL, NULL, &engine, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "blocks"));
    assert_null(engine);
    config = plain_config();
    config.limits.tokens = 0;
    assert_int_equal(cria_engine_create(&config, runner, hear, NULL, NULL, &engine, &err), CRIA_ERR_ARGUMENT);
    config = plain_config();
    config.eos_count = 9;
    assert_int_equal(cria_engine_create(&config, runner, hear, NULL, NULL, &engine, &err), CRIA_ERR_ARGUMENT);
    config = plain_config();
    config.max_waiting = 0;
    assert_int_equal(cria_engine_create(&config, runner, hear, NULL, NULL, &engine, &err), CRIA_ERR_ARGUMENT);
    cria_engine_destroy(NULL);
    free(m.cells);
}

/* ---- cancel, pause, end ---- */

static void cancelled_sequences_end_whether_they_run_or_wait(void **state) {
    (void)state;
    bench b;
    answer running, waiting, other, want;
    cria_engine_config config = plain_config();
    config.limits.sequences = 1;
    bench_open(&b, config);
    b.m.hold = 1;
    uint64_t first = send(&b, plain_request(1, 5, 50), &running);
    wait_running(&b, 1);
    uint64_t second = send(&b, plain_request(2, 5, 50), &waiting);
    send_known(&b, plain_request(3, 5, 10), &other, &want);
    cria_engine_cancel(b.engine, first);
    cria_engine_cancel(b.engine, second);
    cria_engine_cancel(b.engine, second);
    cria_engine_cancel(b.engine, 123456);
    b.m.hold = 0;
    wait_finished(&running);
    wait_finished(&waiting);
    assert_int_equal(running.finish, CRIA_FINISH_ABORT);
    assert_int_equal(waiting.finish, CRIA_FINISH_ABORT);
    assert_int_equal(waiting.count, 0);
    assert_true(running.count < 50);
    assert_same(&other, &want);
    cria_engine_cancel(b.engine, first); /* long gone */
    assert_int_equal(stats_of(&b).blocks_free, config.blocks);
    assert_int_equal(stats_of(&b).finished[CRIA_FINISH_ABORT], 2);
    bench_close(&b);
}

static void a_request_for_nothing_may_be_cancelled_before_it_is_seen(void **state) {
    (void)state;
    bench b;
    answer running, empty, cancelled;
    bench_open(&b, plain_config());
    b.m.hold = 1;
    send(&b, plain_request(1, 5, 3), &running);
    wait_running(&b, 1);
    uint64_t id = send(&b, plain_request(2, 5, 0), &cancelled);
    send(&b, plain_request(2, 5, 0), &empty);
    cria_engine_cancel(b.engine, id);
    b.m.hold = 0;
    wait_finished(&running);
    wait_finished(&empty);
    wait_finished(&cancelled);
    assert_int_equal(empty.finish, CRIA_FINISH_LENGTH);
    assert_int_equal(cancelled.finish, CRIA_FINISH_ABORT);
    bench_close(&b);
}

static void a_paused_sequence_keeps_nobody_out_and_goes_on_where_it_was(void **state) {
    (void)state;
    bench b;
    answer slow, quick, slow_want, quick_want;
    cria_engine_config config = plain_config();
    config.blocks = 16; /* one full-length sequence */
    config.limits.sequences = 1;
    bench_open(&b, config);
    b.m.hold = 1;
    uint64_t id = send_known(&b, plain_request(1, 30, 30), &slow, &slow_want);
    wait_running(&b, 1);
    cria_engine_pause(b.engine, id, true);
    b.m.hold = 0;
    send_known(&b, plain_request(2, 30, 34), &quick, &quick_want);
    assert_same(&quick, &quick_want);
    assert_int_equal(slow.finished, 0);
    assert_true(slow.count <= 1);
    assert_true(stats_of(&b).seconds_since_step == 0.0); /* nothing that could be done */
    assert_true(stats_of(&b).preemptions > 0);
    cria_engine_pause(b.engine, id, false);
    assert_same(&slow, &slow_want);
    bench_close(&b);
}

static void destroying_an_engine_ends_everything_that_is_open(void **state) {
    (void)state;
    enum { COUNT = 20 };
    bench b;
    answer got[COUNT];
    cria_engine_config config = plain_config();
    config.limits.sequences = 2;
    bench_open(&b, config);
    b.m.hold = 1;
    for (int i = 0; i < COUNT; i++) {
        uint64_t id = send(&b, plain_request((uint64_t)i, 20, 30), &got[i]);
        if (i % 3 == 0) cria_engine_pause(b.engine, id, true);
        if (i == 7) cria_engine_cancel(b.engine, id);
    }
    bench_close(&b);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(got[i].finished, 1);
        assert_int_equal(got[i].faults, 0);
    }
    assert_int_equal(got[COUNT - 1].finish, CRIA_FINISH_ABORT);
}

static void a_failing_step_ends_every_request_with_its_error(void **state) {
    (void)state;
    enum { COUNT = 10 };
    for (int wrong = 0; wrong < 2; wrong++) {
        bench b;
        answer got[COUNT];
        cria_engine_config config = plain_config();
        config.limits.sequences = 3;
        bench_open(&b, config);
        b.m.hold = 1;
        for (int i = 0; i < COUNT; i++) send(&b, plain_request((uint64_t)i, 20, 30), &got[i]);
        *(wrong ? &b.m.wrong_in : &b.m.fail_in) = wrong ? 0 : 5;
        b.m.hold = 0;
        for (int i = 0; i < COUNT; i++) {
            wait_finished(&got[i]);
            assert_int_equal(got[i].finish, CRIA_FINISH_ERROR);
            assert_non_null(strstr(got[i].error, wrong ? "token 61" : "the device is gone"));
        }
        refuse(&b, plain_request(1, 5, 3), CRIA_ERR_CLOSED, wrong ? "token 61" : "the device is gone");
        cria_engine_stats stats = stats_of(&b);
        assert_true(stats.failed);
        assert_int_equal(stats.finished[CRIA_FINISH_ERROR], COUNT);
        assert_int_equal(stats.blocks_free, stats.blocks_total);
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_ends_at_eos_whose_token_is_told_too),
        cmocka_unit_test(a_stop_id_ends_the_sequence_even_where_eos_is_ignored),
        cmocka_unit_test(a_bad_word_of_several_tokens_is_broken_off_before_its_last_one),
        cmocka_unit_test(no_ngram_is_repeated_where_that_is_asked_for),
        cmocka_unit_test(the_models_length_cuts_a_reply),
        cmocka_unit_test(a_pool_smaller_than_the_models_length_cuts_a_reply_too),
        cmocka_unit_test(prompt_log_probabilities_come_in_order_in_chunks_of_the_row_limit),
        cmocka_unit_test(no_token_at_all_may_be_asked_for),
        cmocka_unit_test(requests_that_can_never_run_are_refused_with_the_limit_and_the_value),
        cmocka_unit_test(side_arrays_that_can_never_fit_are_refused),
        cmocka_unit_test(a_full_inbox_refuses_until_there_is_room),
        cmocka_unit_test(a_draining_engine_ends_what_runs_and_takes_nothing_new),
        cmocka_unit_test(an_id_given_twice_is_refused_while_the_first_is_open),
        cmocka_unit_test(configurations_out_of_range_are_refused),
        cmocka_unit_test(cancelled_sequences_end_whether_they_run_or_wait),
        cmocka_unit_test(a_request_for_nothing_may_be_cancelled_before_it_is_seen),
        cmocka_unit_test(a_paused_sequence_keeps_nobody_out_and_goes_on_where_it_was),
        cmocka_unit_test(destroying_an_engine_ends_everything_that_is_open),
        cmocka_unit_test(a_failing_step_ends_every_request_with_its_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
