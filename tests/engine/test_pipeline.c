/* Several steps under way, and several replicas: what overlaps, how work is shared out, and that nothing is lost. */
#include "server/engine/scheduler.h"
#include "tests/engine/bench.h"

/* No step ends until so many are under way. */
static void let_go_at(bench *b, int depth) {
    for (int ms = 0; b->m.most_under_way < depth; ms++) {
        assert_true(ms < 20000);
        usleep(1000);
    }
    b->m.never_ready = 0;
}

static void decodes_of_different_sequences_are_under_way_at_once(void **state) {
    (void)state;
    for (int depth = 2; depth <= MOST_DEPTH; depth++) {
        bench b;
        answer got[8], want[8];
        bench_open_deep(&b, plain_config(), depth);
        for (int i = 0; i < 8; i++) send_known(&b, plain_request((uint64_t)i, 5, 40), &got[i], &want[i]);
        for (int i = 0; i < 8; i++) assert_same(&got[i], &want[i]);
        assert_true(b.m.most_under_way > 1 && b.m.most_under_way <= depth);
        bench_close(&b);
    }
}

static void chunks_of_one_prompt_do_not_wait_for_each_other(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open_deep(&b, plain_config(), 3);
    b.m.never_ready = 1;
    send_known(&b, plain_request(1, 60, 2), &got, &want); /* four chunks */
    let_go_at(&b, 3);
    assert_same(&got, &want);
    assert_int_equal(b.m.most_under_way, 3);
    assert_int_equal(b.m.computed, 60 + 1);
    bench_close(&b);
}

static void prompt_log_probabilities_of_chunks_under_way_all_come(void **state) {
    (void)state;
    bench b;
    answer got, want;
    bench_open_deep(&b, plain_config(), 4);
    for (int32_t max_tokens = 0; max_tokens < 3; max_tokens++) {
        cria_request *r = plain_request(4, 60, max_tokens);
        r->sampling.prompt_logprobs = 2;
        send_known(&b, r, &got, &want);
        assert_same(&got, &want);
        assert_int_equal(got.prompt_told, 60);
    }
    bench_close(&b);
}

static void a_sequence_that_ends_under_way_gives_its_blocks_back_and_disturbs_nobody(void **state) {
    (void)state;
    enum { COUNT = 12 };
    for (int round = 0; round < 20; round++) {
        bench b;
        answer got[COUNT], want[COUNT];
        uint64_t ids[COUNT];
        cria_engine_config config = plain_config();
        config.blocks = 24;
        bench_open_deep(&b, config, 2 + round % 3);
        for (int i = 0; i < COUNT; i++)
            ids[i] = send_known(&b, plain_request((uint64_t)(i / 2), 10 + (size_t)(i * 4), 10), &got[i], &want[i]);
        while (got[0].count == 0) usleep(10);
        for (int i = round % 2; i < COUNT; i += 2) cria_engine_cancel(b.engine, ids[i]);
        for (int i = 0; i < COUNT; i++) {
            wait_finished(&got[i]);
            if (got[i].finish != CRIA_FINISH_ABORT) assert_same(&got[i], &want[i]);
            assert_memory_equal(got[i].tokens, want[i].tokens, (size_t)got[i].count * sizeof *got[i].tokens);
        }
        assert_int_equal(stats_of(&b).blocks_free, config.blocks);
        bench_close(&b);
    }
}

static void a_failure_ends_every_request_whose_steps_are_under_way(void **state) {
    (void)state;
    enum { COUNT = 10 };
    bench b;
    answer got[COUNT];
    bench_open_deep(&b, plain_config(), MOST_DEPTH);
    b.m.hold = 1;
    b.m.fail_in = 9;
    for (int i = 0; i < COUNT; i++) send(&b, plain_request((uint64_t)i, 20, 30), &got[i]);
    b.m.hold = 0;
    for (int i = 0; i < COUNT; i++) {
        wait_finished(&got[i]);
        assert_int_equal(got[i].finish, CRIA_FINISH_ERROR);
        assert_non_null(strstr(got[i].error, "the device is gone"));
    }
    assert_int_equal(stats_of(&b).blocks_free, b.config.blocks);
    bench_close(&b);
}

/* A request while the only sequence waits for its token: it is not to wait for that too. */
static void a_newcomer_starts_while_others_are_under_way(void **state) {
    (void)state;
    bench b;
    answer first, second, want[2];
    bench_open_deep(&b, plain_config(), 2);
    b.m.never_ready = 1;
    send_known(&b, plain_request(1, 5, 5), &first, &want[0]);
    wait_running(&b, 1);
    send_known(&b, plain_request(2, 5, 5), &second, &want[1]);
    for (int ms = 0; b.m.most_under_way < 2; ms++) {
        assert_true(ms < 20000);
        usleep(1000);
    }
    assert_int_equal(first.count, 0); /* its step has not ended */
    b.m.never_ready = 0;
    assert_same(&first, &want[0]);
    assert_same(&second, &want[1]);
    bench_close(&b);
}

/* ---- shares ---- */

static cria_sequence *add(cria_scheduler *scheduler, const cria_engine_config *config, size_t prompt) {
    static uint64_t family = 0;
    cria_sequence *sequence;
    assert_int_equal(cria_sequence_create(config, plain_request(family++, prompt, 5), &sequence, NULL), CRIA_OK);
    cria_scheduler_add(scheduler, sequence);
    return sequence;
}

/* Plans a step; gives its sequences and tokens. */
static int32_t plan(cria_scheduler *scheduler, int64_t under_way, int32_t *tokens) {
    cria_work *work;
    cria_sequence *broken;
    int32_t count = cria_scheduler_next(scheduler, 1, under_way, &work, &broken);
    *tokens = 0;
    for (int32_t i = 0; i < count; i++) {
        *tokens += work[i].count;
        cria_scheduler_given(scheduler, &work[i]);
        if (work[i].samples) cria_sequence_append(work[i].sequence, 7); /* what a later step will tell */
    }
    return count;
}

static void every_step_gets_its_share_of_prompts_and_decodes(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    config.limits.tokens = 400;
    config.limits.rows = 16;
    config.max_model_len = 300;
    config.limits.blocks_per_sequence = 75;
    config.blocks = 200;
    cria_scheduler *scheduler;
    cria_sequence *s[6];
    int32_t tokens;
    assert_int_equal(cria_scheduler_create(&config, 2, &scheduler, NULL), CRIA_OK);
    s[0] = add(scheduler, &config, 200);
    assert_int_equal(plan(scheduler, 0, &tokens), 1);
    assert_int_equal(tokens, 100);
    assert_int_equal(plan(scheduler, 100, &tokens), 1);
    assert_int_equal(tokens, 100);
    for (int i = 1; i < 6; i++) s[i] = add(scheduler, &config, 4); /* so few are not cut */
    assert_int_equal(plan(scheduler, 100, &tokens), 6);
    assert_int_equal(tokens, 1 + 5 * 4);
    assert_int_equal(plan(scheduler, 0, &tokens), 3); /* six decode */
    s[0]->paused = s[1]->paused = true;
    assert_int_equal(plan(scheduler, 0, &tokens), 2);
    for (int i = 0; i < 6; i++) {
        cria_scheduler_remove(scheduler, s[i]);
        cria_sequence_destroy(s[i]);
    }
    cria_scheduler_destroy(scheduler);
}

static void requests_go_to_the_replica_that_has_least_to_do(void **state) {
    (void)state;
    enum { COUNT = 8 };
    model m[2];
    answer got[COUNT], want[COUNT];
    cria_engine_config config = plain_config();
    cria_runner runners[2];
    cria_error err;
    bench b = {.config = config};
    for (int i = 0; i < 2; i++) {
        model_init(&m[i], &config);
        runners[i] = model_runner(&m[i], 2);
        m[i].never_ready = 1;
    }
    assert_int_equal(cria_engine_create_replicas(&config, runners, 2, hear, NULL, NULL, &b.engine, &err), CRIA_OK);
    for (int i = 0; i < COUNT; i++) send_known(&b, plain_request((uint64_t)i, 12, 5), &got[i], &want[i]);
    answer last;
    send(&b, plain_request(99, 5, 0), &last); /* ends at once, when all before it have their places */
    wait_finished(&last);
    m[0].never_ready = m[1].never_ready = 0;
    for (int i = 0; i < COUNT; i++) assert_same(&got[i], &want[i]);
    assert_int_equal(m[0].computed, COUNT / 2 * (12 + 4));
    assert_int_equal(m[1].computed, COUNT / 2 * (12 + 4));
    assert_int_equal(stats_of(&b).blocks_free, 2 * config.blocks);
    cria_engine_destroy(b.engine);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(m[i].faults, 0);
        free(m[i].cells);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_of_different_sequences_are_under_way_at_once),
        cmocka_unit_test(chunks_of_one_prompt_do_not_wait_for_each_other),
        cmocka_unit_test(prompt_log_probabilities_of_chunks_under_way_all_come),
        cmocka_unit_test(a_sequence_that_ends_under_way_gives_its_blocks_back_and_disturbs_nobody),
        cmocka_unit_test(a_failure_ends_every_request_whose_steps_are_under_way),
        cmocka_unit_test(a_newcomer_starts_while_others_are_under_way),
        cmocka_unit_test(every_step_gets_its_share_of_prompts_and_decodes),
        cmocka_unit_test(requests_go_to_the_replica_that_has_least_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
