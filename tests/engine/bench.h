/* One engine over the model made of arithmetic, and requests to give it: what the engine's tests have in common. */
#ifndef CRIA_TESTS_ENGINE_BENCH_H
#define CRIA_TESTS_ENGINE_BENCH_H

#include "tests/engine/arithmetic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct {
    cria_engine_config config;
    model m;
    cria_engine *engine;
} bench;

static inline cria_engine_config plain_config(void) {
    return (cria_engine_config){.max_model_len = 64,
                                .block_tokens = 4,
                                .blocks = 64,
                                .vocab = VOCAB,
                                .prefix_cache = true,
                                .max_waiting = 100,
                                .max_waiting_prompt_tokens = 10000,
                                .limits = {.tokens = 16,
                                           .sequences = 8,
                                           .rows = 16,
                                           .blocks_per_sequence = 16,
                                           .history = 500,
                                           .biases = 500,
                                           .allowed = 100,
                                           .top_logprobs = MOST_TOP}};
}

/* `depth`: how many steps may be under way. */
static inline void bench_open_deep(bench *b, cria_engine_config config, int depth) {
    b->config = config;
    model_init(&b->m, &config);
    cria_error err;
    cria_runner runner = model_runner(&b->m, depth);
    assert_int_equal(cria_engine_create(&config, runner, hear, NULL, NULL, &b->engine, &err), CRIA_OK);
}

static inline void bench_open(bench *b, cria_engine_config config) {
    bench_open_deep(b, config, 1);
}

static inline void bench_close(bench *b) {
    b->m.hold = 0;
    cria_engine_destroy(b->engine);
    assert_int_equal(b->m.count, 0); /* no step is left under way */
    assert_int_equal(b->m.faults, 0);
    free(b->m.cells);
}

/* Greedy; the prompt's tokens follow from `family` and their place. */
static inline cria_request *plain_request(uint64_t family, size_t prompt, int32_t max_tokens) {
    cria_request *r = cria_request_create();
    r->prompt_count = prompt;
    r->prompt = malloc(prompt * sizeof *r->prompt);
    for (size_t i = 0; i < prompt; i++) r->prompt[i] = (int32_t)(mix(family, i) % VOCAB);
    r->sampling.temperature = 0.0f;
    r->sampling.max_tokens = max_tokens;
    return r;
}

static inline uint64_t send(bench *b, cria_request *r, answer *got) {
    uint64_t id = 0;
    cria_error err = {0};
    memset(got, 0, sizeof *got);
    r->user = got;
    assert_int_equal(cria_engine_submit(b->engine, r, &id, &err), CRIA_OK);
    assert_true(id != 0);
    return id;
}

/* Sends and puts what must come into *want. */
static inline uint64_t send_known(bench *b, cria_request *r, answer *got, answer *want) {
    memset(want, 0, sizeof *want);
    alone(&b->config, r, b->config.max_model_len, want);
    return send(b, r, got);
}

static inline void wait_finished(const answer *got) {
    for (int ms = 0; !got->finished; ms++) {
        assert_true(ms < 20000);
        usleep(1000);
    }
    assert_int_equal(got->faults, 0);
}

static inline void assert_same(const answer *got, const answer *want) {
    wait_finished(got);
    assert_int_equal(got->count, want->count);
    assert_memory_equal(got->tokens, want->tokens, (size_t)got->count * sizeof *got->tokens);
    assert_int_equal(got->finish, want->finish);
    assert_int_equal(got->finish_token, want->finish_token);
    assert_int_equal(got->prompt_told, want->prompt_told);
    assert_memory_equal(got->prompt_logprobs, want->prompt_logprobs, sizeof got->prompt_logprobs);
    assert_memory_equal(got->logprobs, want->logprobs, sizeof got->logprobs);
    assert_true(got->tops == want->tops && got->prompt_tops == want->prompt_tops);
}

static inline cria_engine_stats stats_of(bench *b) {
    cria_engine_stats stats;
    cria_engine_stats_get(b->engine, &stats);
    return stats;
}

/* Waits until the engine is inside a step that m.hold keeps from ending. */
static inline void wait_running(bench *b, int64_t running) {
    for (int ms = 0; stats_of(b).running != running; ms++) {
        assert_true(ms < 20000);
        usleep(1000);
    }
}

#endif
