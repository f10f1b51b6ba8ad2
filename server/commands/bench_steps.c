/* Batches by hand, in a ring for each replica. */
#include "server/commands/bench_steps.h"

#include <stdlib.h>
#include <string.h>

enum { FEWEST_TOKENS = 32 }; /* as the engine's scheduler: so few tokens of a prompt are not cut further */

/* One replica. */
typedef struct {
    cria_runner runner;
    cria_batch **ring; /* [depth + 1] */
    int depth, next, under_way;
} lane;

struct cria_bench_steps {
    cria_engine_config config;
    lane *lanes;
    int lane_count;
    cria_batch_result *result;
    int64_t sequences, prompt, generated, blocks_each, chunk;
};

/* Sequence s is number s / lanes of lane s % lanes. */
static int64_t sequences_of(const cria_bench_steps *b, int lane_index) {
    return (b->sequences - lane_index + b->lane_count - 1) / b->lane_count;
}

static cria_status open_lane(cria_bench_steps *b, lane *l, cria_error *err) {
    l->ring = calloc((size_t)l->depth + 1, sizeof *l->ring);
    if (!l->ring) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d steps", l->depth);
    for (int i = 0; i <= l->depth; i++) CRIA_TRY(cria_batch_create(&b->config.limits, &l->ring[i], err));
    return CRIA_OK;
}

static cria_status check_fits(const cria_bench_steps *b, cria_error *err) {
    int64_t blocks = b->blocks_each * sequences_of(b, 0);
    if (b->prompt + b->generated > b->config.max_model_len)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "prompt-tokens + new-tokens: %lld is over the model's length %lld",
                         (long long)(b->prompt + b->generated), (long long)b->config.max_model_len);
    if (blocks > b->config.blocks)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch %lld needs %lld KV blocks, there are %lld",
                         (long long)b->sequences, (long long)blocks, (long long)b->config.blocks);
    return CRIA_OK;
}

static cria_status create(cria_bench_steps *b, const cria_runtime *runtime, int64_t under_way, cria_error *err) {
    CRIA_TRY(check_fits(b, err));
    CRIA_TRY(cria_batch_result_create(&b->config.limits, &b->result, err));
    b->lanes = calloc((size_t)b->lane_count, sizeof *b->lanes);
    if (!b->lanes) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d replicas", b->lane_count);
    for (int i = 0; i < b->lane_count; i++) {
        lane *l = &b->lanes[i];
        l->runner = cria_runtime_runner(runtime, i);
        l->depth = l->runner.depth > 1 ? l->runner.depth : 1;
        if (under_way > 0 && under_way < l->depth) l->depth = (int)under_way;
        CRIA_TRY(open_lane(b, l, err));
    }
    int64_t depth = b->lanes[0].depth, all = sequences_of(b, 0) * b->prompt, share = (all + depth - 1) / depth;
    if (share < FEWEST_TOKENS) share = FEWEST_TOKENS;
    b->chunk = share < b->config.limits.tokens ? share : b->config.limits.tokens;
    return CRIA_OK;
}

cria_status cria_bench_steps_create(const cria_runtime *runtime, int64_t sequences, int64_t prompt, int64_t generated,
                                    int64_t under_way, cria_bench_steps **out, cria_error *err) {
    *out = NULL;
    cria_bench_steps *b = calloc(1, sizeof *b);
    if (!b) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the steps");
    cria_runtime_engine_config(runtime, &b->config);
    b->lane_count = cria_runtime_replicas(runtime);
    b->sequences = sequences;
    b->prompt = prompt;
    b->generated = generated;
    b->blocks_each = (prompt + generated + b->config.block_tokens - 1) / b->config.block_tokens;
    cria_status status = create(b, runtime, under_way, err);
    if (status != CRIA_OK) {
        cria_bench_steps_destroy(b);
        return status;
    }
    *out = b;
    return CRIA_OK;
}

void cria_bench_steps_destroy(cria_bench_steps *b) {
    if (!b) return;
    for (int i = 0; b->lanes && i < b->lane_count; i++) {
        for (int k = 0; b->lanes[i].ring && k <= b->lanes[i].depth; k++) cria_batch_destroy(b->lanes[i].ring[k]);
        free(b->lanes[i].ring);
    }
    free(b->lanes);
    cria_batch_result_destroy(b->result);
    free(b);
}

/* ---- steps ---- */

static void add_tokens(const cria_bench_steps *b, cria_batch *batch, int64_t sequence, int64_t first, int64_t count,
                       bool last_row) {
    int64_t block_tokens = b->config.block_tokens, base = sequence / b->lane_count * b->blocks_each;
    for (int64_t i = 0; i < count; i++) {
        int64_t position = first + i, block = base + position / block_tokens;
        int32_t t = batch->tokens++;
        batch->token_ids[t] = (int32_t)((position * 7919 + sequence * 104729 + 13) % b->config.vocab);
        batch->positions[t] = (int32_t)position;
        batch->slots[t] = (int32_t)(block * block_tokens + position % block_tokens);
    }
    int32_t s = batch->sequences++;
    batch->query_begin[s + 1] = batch->tokens;
    batch->context[s] = (int32_t)(first + count);
    for (int64_t i = 0; i * block_tokens < first + count; i++)
        batch->block_table[s * batch->limits.blocks_per_sequence + i] = (int32_t)(base + i);
    if (!last_row) return;
    int32_t r = batch->rows++;
    batch->row_token[r] = batch->tokens - 1;
    batch->row[r] = (cria_row){.sample = 1, .target = -1, .top_p = 1, .repetition_penalty = 1};
}

static cria_batch *next_batch(lane *l) {
    cria_batch *batch = l->ring[l->next];
    cria_batch_clear(batch);
    return batch;
}

static cria_status finish_one(cria_bench_steps *b, lane *l, cria_error *err) {
    l->under_way--;
    return l->runner.finish(l->runner.self, b->result, err);
}

/* Runs the next batch, or starts it as soon as there is room. */
static cria_status put(cria_bench_steps *b, lane *l, cria_error *err) {
    const cria_runner *r = &l->runner;
    const cria_batch *batch = l->ring[l->next];
    if (!r->start) return r->step(r->self, batch, b->result, err);
    while (l->under_way == l->depth || (l->under_way > 0 && r->may_start && !r->may_start(r->self, batch)))
        CRIA_TRY(finish_one(b, l, err));
    CRIA_TRY(r->start(r->self, batch, err));
    l->under_way++;
    l->next = (l->next + 1) % (l->depth + 1);
    return CRIA_OK;
}

static cria_status drain(cria_bench_steps *b, cria_error *err) {
    for (int i = 0; i < b->lane_count; i++)
        while (b->lanes[i].under_way > 0) CRIA_TRY(finish_one(b, &b->lanes[i], err));
    return CRIA_OK;
}

cria_status cria_bench_prefill(cria_bench_steps *b, cria_error *err) {
    for (int64_t s = 0; s < b->sequences; s++)
        for (int64_t at = 0; at < b->prompt;) {
            lane *l = &b->lanes[s % b->lane_count];
            int64_t count = b->prompt - at < b->chunk ? b->prompt - at : b->chunk;
            add_tokens(b, next_batch(l), s, at, count, at + count == b->prompt);
            CRIA_TRY(put(b, l, err));
            at += count;
        }
    return drain(b, err);
}

/* How many groups a lane's sequences are cut into, so that every stage has one. */
static int64_t groups_of(const cria_bench_steps *b, int lane_index) {
    int64_t depth = b->lanes[lane_index].depth, sequences = sequences_of(b, lane_index);
    return depth < sequences ? depth : sequences;
}

/* Group `group` of a lane: its sequences of that remainder. With as many groups as steps under way, the step that gave
 * a group its last tokens is the oldest when its next one is to start. */
static cria_status decode_group(cria_bench_steps *b, int lane_index, int64_t group, int64_t position, cria_error *err) {
    lane *l = &b->lanes[lane_index];
    cria_batch *batch = next_batch(l);
    int64_t groups = groups_of(b, lane_index);
    for (int64_t i = group; i < sequences_of(b, lane_index); i += groups)
        add_tokens(b, batch, i * b->lane_count + lane_index, position, 1, true);
    return put(b, l, err);
}

cria_status cria_bench_decode(cria_bench_steps *b, int64_t first, int64_t count, cria_error *err) {
    for (int64_t i = 0; i < count; i++)
        for (int64_t group = 0; group < groups_of(b, 0); group++)
            for (int k = 0; k < b->lane_count; k++) {
                /* Fewer sequences than steps: each is to have its token first. */
                if (group < groups_of(b, k) && b->lanes[k].under_way == groups_of(b, k))
                    CRIA_TRY(finish_one(b, &b->lanes[k], err));
                if (group < groups_of(b, k)) CRIA_TRY(decode_group(b, k, group, first + i, err));
            }
    return drain(b, err);
}

/* ---- figures ---- */

void cria_bench_prefill_counts(const cria_bench_steps *b, double *runs, double *keys) {
    *runs = *keys = 0;
    for (int64_t at = 0; at < b->prompt; at += b->chunk) {
        int64_t end = at + b->chunk < b->prompt ? at + b->chunk : b->prompt;
        *runs += (double)b->sequences;
        *keys += (double)(b->sequences * end);
    }
}

double cria_bench_decode_runs(const cria_bench_steps *b) {
    int64_t runs = 0;
    for (int i = 0; i < b->lane_count; i++) runs += groups_of(b, i);
    return (double)(runs * b->generated);
}

cria_bench_shape cria_bench_shape_of(const cria_bench_steps *b) {
    return (cria_bench_shape){sequences_of(b, 0), b->chunk, groups_of(b, 0), b->lanes[0].depth};
}

int cria_bench_stages(const cria_bench_steps *b, cria_stage_figures *out, int most) {
    int count = 0;
    memset(out, 0, (size_t)most * sizeof *out);
    for (int i = 0; i < b->lane_count; i++) count = b->lanes[i].runner.stages(b->lanes[i].runner.self, out, most);
    return count < most ? count : most;
}
