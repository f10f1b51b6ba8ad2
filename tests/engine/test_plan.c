/* The scheduler by itself, step for step, without a thread or a model. */
#include "server/engine/scheduler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cria_engine_config plain_config(void) {
    return (cria_engine_config){.max_model_len = 64,
                                .block_tokens = 4,
                                .blocks = 16,
                                .vocab = 100,
                                .prefix_cache = true,
                                .max_waiting = 100,
                                .limits = {.tokens = 16, .sequences = 8, .rows = 16, .blocks_per_sequence = 16}};
}

static cria_scheduler *make(const cria_engine_config *config) {
    cria_scheduler *scheduler;
    assert_int_equal(cria_scheduler_create(config, 1, &scheduler, NULL), CRIA_OK);
    return scheduler;
}

/* A waiting sequence; the prompt's ids are first, first + 1, ... */
static cria_sequence *add(cria_scheduler *scheduler, const cria_engine_config *config, int32_t first, size_t prompt,
                          int32_t max_tokens) {
    cria_request *r = cria_request_create();
    r->prompt_count = prompt;
    r->prompt = malloc(prompt * sizeof *r->prompt);
    for (size_t i = 0; i < prompt; i++) r->prompt[i] = (first + (int32_t)i) % (int32_t)config->vocab;
    r->sampling.max_tokens = max_tokens;
    cria_sequence *sequence;
    assert_int_equal(cria_sequence_create(config, r, &sequence, NULL), CRIA_OK);
    cria_scheduler_add(scheduler, sequence);
    return sequence;
}

/* Plans a step and pretends to run it; every chosen token is 99. Gives how many sequences took part. */
static int32_t step(cria_scheduler *scheduler) {
    cria_work *work;
    cria_sequence *broken;
    int32_t count = cria_scheduler_next(scheduler, 1, 0, &work, &broken);
    assert_null(broken);
    for (int32_t i = 0; i < count; i++) {
        assert_true(work[i].count >= 1);
        cria_scheduler_given(scheduler, &work[i]);
        work[i].sequence->under_way--;
        if (work[i].samples) cria_sequence_append(work[i].sequence, 99);
    }
    return count;
}

static void drop(cria_scheduler *scheduler, cria_sequence *sequence) {
    cria_scheduler_remove(scheduler, sequence);
    cria_sequence_destroy(sequence);
}

static void end(cria_scheduler *scheduler) {
    cria_sequence *sequence;
    while ((sequence = cria_scheduler_any(scheduler)) != NULL) drop(scheduler, sequence);
    cria_scheduler_stats stats = {0};
    cria_scheduler_stats_add(scheduler, &stats);
    assert_int_equal(stats.blocks_free, 16);
    assert_int_equal(stats.running + stats.waiting + stats.waiting_prompt_tokens, 0);
    cria_scheduler_destroy(scheduler);
}

static void a_prompt_is_computed_in_chunks_and_then_one_token_at_a_time(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    cria_scheduler *scheduler = make(&config);
    cria_sequence *s = add(scheduler, &config, 0, 40, 10);
    static const int32_t expected[] = {16, 32, 40, 41, 42};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(step(scheduler), 1);
        assert_int_equal(s->computed, expected[i]);
    }
    assert_int_equal(s->count, 43);
    end(scheduler);
}

static void nothing_is_planned_when_nothing_is_there_or_all_is_paused(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    cria_scheduler *scheduler = make(&config);
    assert_int_equal(step(scheduler), 0);
    cria_sequence *s = add(scheduler, &config, 0, 4, 10);
    s->paused = true;
    assert_int_equal(step(scheduler), 0);
    s->paused = false;
    assert_int_equal(step(scheduler), 1);
    s->paused = true;
    assert_int_equal(step(scheduler), 0);
    end(scheduler);
}

static void no_more_run_than_rows_and_tokens_of_a_step_allow(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        cria_engine_config config = plain_config();
        *(which ? &config.limits.rows : &config.limits.tokens) = 2;
        if (!which) config.limits.rows = 2;
        cria_scheduler *scheduler = make(&config);
        cria_sequence *s[5];
        for (int32_t i = 0; i < 5; i++) s[i] = add(scheduler, &config, 10 * i, 3, 10);
        for (int i = 0; i < 6; i++) step(scheduler);
        assert_true(s[0]->running && s[1]->running);
        s[0]->paused = s[1]->paused = true; /* they give their places to the next two */
        for (int i = 0; i < 6; i++) step(scheduler);
        assert_true(s[2]->running && s[3]->running);
        cria_scheduler_stats stats = {0};
        cria_scheduler_stats_add(scheduler, &stats);
        assert_int_equal(stats.running, 2);
        assert_int_equal(stats.waiting, 3);
        end(scheduler);
    }
}

static void a_decode_takes_its_block_from_a_paused_sequence_even_an_older_one(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    config.prefix_cache = false;
    cria_scheduler *scheduler = make(&config);
    cria_sequence *paused = add(scheduler, &config, 0, 27, 30);
    cria_sequence *decoding = add(scheduler, &config, 50, 28, 30);
    while (decoding->count < 36) {
        assert_true(step(scheduler) > 0);
        if (paused->count > 27) paused->paused = true;
    }
    assert_true(paused->running);
    for (int32_t count = 37; count < 41; count++) {
        assert_int_equal(step(scheduler), 1);
        assert_int_equal(decoding->count, count); /* it was not set back itself */
    }
    assert_true(paused->queued && !paused->running && paused->computed == 0);
    end(scheduler);
}

static void a_sequence_computed_again_can_be_found_by_others_again(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    cria_scheduler *scheduler = make(&config);
    cria_sequence *first = add(scheduler, &config, 0, 20, 30);
    cria_sequence *second = add(scheduler, &config, 50, 20, 30);
    while (second->running || !second->blocks) assert_true(step(scheduler) > 0);
    assert_true(first->running); /* the newest gave way */
    while (first->count < 50) assert_true(step(scheduler) > 0);
    drop(scheduler, first);
    cria_sequence *third = add(scheduler, &config, 25, 60, 1); /* takes what the cache still held */
    third->request->priority = -1;
    cria_scheduler_remove(scheduler, third);
    cria_scheduler_add(scheduler, third); /* now before the second */
    while (third->count < 61) assert_true(step(scheduler) > 0);
    drop(scheduler, third);
    while (second->computed < 24) assert_true(step(scheduler) > 0);
    cria_sequence *fourth = add(scheduler, &config, 50, 20, 1);
    assert_int_equal(step(scheduler), 2);
    assert_int_equal(fourth->cached_tokens, 16);
    end(scheduler);
}

static void a_request_waits_for_the_prefix_that_another_is_computing(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    cria_scheduler *scheduler = make(&config);
    cria_sequence *first = add(scheduler, &config, 0, 22, 1);
    cria_sequence *sibling = add(scheduler, &config, 0, 22, 1);
    cria_sequence *other = add(scheduler, &config, 2, 4, 1); /* not held up by those held back */
    assert_int_equal(step(scheduler), 1);
    assert_int_equal(step(scheduler), 2);
    assert_true(other->count == 5 && first->count == 23 && sibling->computed == 0);
    drop(scheduler, first);
    drop(scheduler, other);
    assert_int_equal(step(scheduler), 1);
    assert_int_equal(sibling->cached_tokens, 20);
    assert_int_equal(sibling->count, 23);
    end(scheduler);
}

static void whoever_waits_for_a_prefix_goes_on_alone_when_the_other_ends_or_pauses(void **state) {
    (void)state;
    for (int pauses = 0; pauses < 2; pauses++) {
        cria_engine_config config = plain_config();
        cria_scheduler *scheduler = make(&config);
        cria_sequence *first = add(scheduler, &config, 0, 30, 1);
        cria_sequence *sibling = add(scheduler, &config, 0, 30, 1);
        assert_int_equal(step(scheduler), 1);
        if (pauses)
            first->paused = true;
        else
            drop(scheduler, first);
        assert_int_equal(step(scheduler), 1);
        assert_int_equal(sibling->cached_tokens, 16);
        assert_int_equal(sibling->count, 31);
        end(scheduler);
    }
}

static void a_prompts_rows_stay_within_the_limit_and_follow_each_other(void **state) {
    (void)state;
    cria_engine_config config = plain_config();
    config.limits.rows = 3;
    cria_scheduler *scheduler = make(&config);
    cria_sequence *s = add(scheduler, &config, 0, 10, 1);
    s->request->sampling.prompt_logprobs = 0;
    cria_work *work;
    cria_sequence *broken;
    int32_t next_row = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cria_scheduler_next(scheduler, 1, 0, &work, &broken), 1);
        assert_int_equal(work->prompt_first * (work->prompt_rows > 0), next_row * (work->prompt_rows > 0));
        assert_int_equal(work->prompt_rows + work->samples, i < 3 ? 3 : 1);
        next_row += work->prompt_rows;
        cria_scheduler_given(scheduler, work);
    }
    assert_int_equal(next_row, 9);
    assert_true(work->samples);
    end(scheduler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_computed_in_chunks_and_then_one_token_at_a_time),
        cmocka_unit_test(nothing_is_planned_when_nothing_is_there_or_all_is_paused),
        cmocka_unit_test(no_more_run_than_rows_and_tokens_of_a_step_allow),
        cmocka_unit_test(a_decode_takes_its_block_from_a_paused_sequence_even_an_older_one),
        cmocka_unit_test(a_sequence_computed_again_can_be_found_by_others_again),
        cmocka_unit_test(a_request_waits_for_the_prefix_that_another_is_computing),
        cmocka_unit_test(whoever_waits_for_a_prefix_goes_on_alone_when_the_other_ends_or_pauses),
        cmocka_unit_test(a_prompts_rows_stay_within_the_limit_and_follow_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
