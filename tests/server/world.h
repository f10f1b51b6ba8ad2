/* Several ranks in one process: a thread for each, every one with its own runtime, rank 0 driven by the test. */
#ifndef CRIA_TESTS_SERVER_WORLD_H
#define CRIA_TESTS_SERVER_WORLD_H

#include "server/runtime.h"
#include "tests/server/add_tokens.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORLD_MOST = 8, WORLD_PROMPT = 64, WORLD_STEPS = 64 };

typedef struct world world;
typedef struct {
    world *all;
    int rank;
    cria_comm *comm;
    cria_runtime *runtime;
    pthread_t thread;
    cria_status status;
    cria_error err;
    float *logits; /* [WORLD_PROMPT][vocab]: of its columns */
    int64_t vocab_begin, vocab_count;
    int step; /* that it works on, from 1 */
} world_rank;

struct world {
    const char *path, *isa, *dtype, *kv; /* kv NULL: auto */
    int size, replicas;                  /* all ranks; 0 replicas: one */
    const cria_main_options *options;    /* NULL: those of hand-made steps; else an engine runs them: nothing is kept */
    cria_plan_maker *make_plan;
    void *context;
    world_rank rank[WORLD_MOST];
    cria_batch *batch;
    cria_batch_result *result;
    int64_t vocab, block_tokens;
    float *logits; /* of hand-made steps, once closed: [WORLD_PROMPT][vocab], for the caller to free */
    struct {
        int32_t tokens, rows;
        int64_t base; /* position of the first row */
    } steps[WORLD_STEPS];
    int step_count;
};

/* What the rank has sent is, byte for byte, what its program says that it sends in these steps. */
static bool world_sent_right(const world_rank *r, char text[100]) {
    uint64_t expected = 0, sent = cria_executor_sent(cria_runtime_executor(r->runtime));
    for (int i = 0; i < r->all->step_count; i++)
        expected += (uint64_t)cria_program_bytes(cria_runtime_program(r->runtime), r->all->steps[i].tokens,
                                                 r->all->steps[i].rows);
    snprintf(text, 100, "rank %d sent %llu bytes, not %llu", r->rank, (unsigned long long)sent,
             (unsigned long long)expected);
    return sent == expected;
}

/* Into the rank's own memory: ranks that hold the same columns write the same rows, and one that nobody waits for may
 * be a step behind. */
static void world_keep(void *context, int64_t first_row, int64_t rows, int64_t vocab, int64_t stride,
                       const float *logits) {
    world_rank *r = context;
    const cria_program *p = cria_runtime_program(r->runtime);
    if (first_row == 0) r->step++;
    int64_t base = r->all->steps[r->step - 1].base;
    r->vocab_begin = p->vocab_begin;
    r->vocab_count = vocab;
    for (int64_t i = 0; i < rows && base + first_row + i < WORLD_PROMPT; i++)
        memcpy(r->logits + (base + first_row + i) * p->vocab_all + p->vocab_begin, logits + i * stride,
               (size_t)vocab * sizeof *logits);
}

/* Once the ranks have ended: whole rows from everybody's columns, for the caller to free. */
static void world_gather(world *w) {
    w->logits = calloc((size_t)(WORLD_PROMPT * w->vocab), sizeof *w->logits);
    assert_non_null(w->logits);
    for (int r = 0; r < w->size; r++) {
        const world_rank *from = &w->rank[r];
        for (int64_t row = 0; row < WORLD_PROMPT; row++) {
            int64_t first = row * w->vocab + from->vocab_begin;
            memcpy(w->logits + first, from->logits + first, (size_t)from->vocab_count * sizeof *w->logits);
        }
        free(from->logits);
    }
}

static cria_status world_open_rank(world_rank *r) {
    cria_main_options options = {0};
    CRIA_TRY(cria_options_defaults(cria_option_table, cria_option_count, &options, &r->err));
    options.isa = r->all->isa;
    options.dtype = r->all->dtype;
    if (r->all->kv) options.kv_cache_dtype = r->all->kv;
    options.quiet = true;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 128;
    options.block_size = "16";
    if (r->all->options) options = *r->all->options;
    cria_runtime_request request = {.threads = 1 + r->rank % 2,
                                    .comm = r->comm,
                                    .replicas = r->all->replicas,
                                    .make_plan = r->all->make_plan,
                                    .plan_context = r->all->context};
    CRIA_TRY(cria_runtime_open(r->all->path, &options, &request, NULL, &r->runtime, &r->err));
    if (r->all->options) return CRIA_OK;
    r->logits = calloc((size_t)(WORLD_PROMPT * cria_runtime_program(r->runtime)->vocab_all), sizeof *r->logits);
    if (!r->logits) return cria_fail(&r->err, CRIA_ERR_MEMORY, "no memory for logits");
    cria_executor_set_sink(cria_runtime_executor(r->runtime), world_keep, r);
    return CRIA_OK;
}

static void *world_follow(void *argument) {
    world_rank *r = argument;
    r->status = world_open_rank(r);
    if (r->status != CRIA_OK)
        cria_comm_abort(r->comm, r->err.message);
    else
        r->status = cria_group_follow(cria_runtime_group(r->runtime), &r->err);
    char text[100];
    if (r->status == CRIA_OK && !r->all->options && !world_sent_right(r, text))
        r->status = cria_fail(&r->err, CRIA_ERR_INTERNAL, "%s", text);
    cria_runtime_close(r->runtime);
    cria_comm_destroy(r->comm);
    return NULL;
}

/* Fails the test where a rank cannot be opened. */
static void world_open(world *w) {
    cria_comm *comm[WORLD_MOST];
    cria_error err = {0};
    cria_comm_options options = {.deadline_seconds = 10};
    assert_int_equal(cria_comm_create_threads(w->size, &options, comm, &err), CRIA_OK);
    for (int r = 0; r < w->size; r++) w->rank[r] = (world_rank){.all = w, .rank = r, .comm = comm[r]};
    w->logits = NULL;
    w->step_count = 0;
    for (int r = 1; r < w->size; r++)
        assert_int_equal(pthread_create(&w->rank[r].thread, NULL, world_follow, &w->rank[r]), 0);
    if (world_open_rank(&w->rank[0]) != CRIA_OK) fail_msg("%s: %s", w->path, w->rank[0].err.message);
    cria_engine_config config;
    cria_runtime_engine_config(w->rank[0].runtime, &config);
    assert_int_equal(cria_batch_create(&config.limits, &w->batch, &err), CRIA_OK);
    assert_int_equal(cria_batch_result_create(&config.limits, &w->result, &err), CRIA_OK);
    w->vocab = config.vocab;
    w->block_tokens = config.block_tokens;
}

static void world_close(world *w) {
    cria_error err = {0};
    char text[100];
    if (!w->options && !world_sent_right(&w->rank[0], text)) fail_msg("%s: %s", w->path, text);
    assert_int_equal(cria_group_stop(cria_runtime_group(w->rank[0].runtime), &err), CRIA_OK);
    cria_runtime_close(w->rank[0].runtime);
    cria_comm_destroy(w->rank[0].comm);
    for (int r = 1; r < w->size; r++) pthread_join(w->rank[r].thread, NULL);
    for (int r = 1; r < w->size; r++)
        if (w->rank[r].status != CRIA_OK) fail_msg("rank %d: %s", r, w->rank[r].err.message);
    cria_batch_destroy(w->batch);
    cria_batch_result_destroy(w->result);
    if (!w->options) world_gather(w);
}

static inline void world_add(world *w, int sequence, const int32_t *ids, int first, int count) {
    add_tokens(w->batch, w->block_tokens, sequence, ids, first, count);
}

static inline void world_step(world *w, int64_t base) {
    cria_error err = {0};
    cria_runner runner = cria_runtime_runner(w->rank[0].runtime, 0);
    w->steps[w->step_count].base = base;
    w->steps[w->step_count].tokens = w->batch->tokens;
    w->steps[w->step_count++].rows = w->batch->rows;
    if (runner.step(runner.self, w->batch, w->result, &err) != CRIA_OK) fail_msg("%s: %s", w->path, err.message);
}

#endif
