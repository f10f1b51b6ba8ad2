/* Batches out, results back. */
#include "parallel/execute/group.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_UNDER_WAY = 16,
    /* Results that a rank may send before rank 0 takes them: a message so short never waits for its receiver, whatever
     * carries it. Steps with longer results are not overlapped. */
    MOST_PENDING_BYTES = 3000
};

typedef enum { KIND_STEP = 0x43520001, KIND_STOP } kind;

/* What precedes a batch. */
typedef struct {
    int32_t kind, tokens, sequences, rows, history, biases, allowed, unused;
    int64_t bytes; /* of the arrays that follow */
} header;

struct cria_group_runner {
    cria_executor *executor;
    const cria_ranks *ranks;
    cria_batch_limits limits;
    int64_t block_tokens;
    int rank, size, stages, leader; /* leader: the first rank of the last stage */
    cria_batch *batch;
    cria_batch_result *result;
    uint8_t *packed;
    size_t capacity;
    const cria_batch *under_way[MOST_UNDER_WAY];
    int first, count;
};

/* ---- packing ---- */

/* Copies an array to or from the packed form. */
typedef struct {
    uint8_t *at, *end;
    bool out, failed;
} packer;

static void pack(packer *p, void *array, int64_t count, size_t size) {
    size_t bytes = (size_t)count * size;
    if (p->failed || (size_t)(p->end - p->at) < bytes) {
        p->failed = true;
        return;
    }
    if (p->out)
        memcpy(p->at, array, bytes);
    else
        memcpy(array, p->at, bytes);
    p->at += bytes;
}

static bool pack_batch(cria_batch *b, int64_t block_tokens, packer *p) {
    pack(p, b->token_ids, b->tokens, sizeof *b->token_ids);
    pack(p, b->positions, b->tokens, sizeof *b->positions);
    pack(p, b->slots, b->tokens, sizeof *b->slots);
    pack(p, b->query_begin, b->sequences + 1, sizeof *b->query_begin);
    pack(p, b->context, b->sequences, sizeof *b->context);
    for (int32_t i = 0; i < b->sequences && !p->failed; i++) {
        int64_t used = (b->context[i] + block_tokens - 1) / block_tokens;
        if (used < 0 || used > b->limits.blocks_per_sequence) return false;
        pack(p, b->block_table + i * b->limits.blocks_per_sequence, used, sizeof *b->block_table);
    }
    pack(p, b->row_token, b->rows, sizeof *b->row_token);
    pack(p, b->row, b->rows, sizeof *b->row);
    pack(p, b->history, b->history_count, sizeof *b->history);
    pack(p, b->biases, b->bias_count, sizeof *b->biases);
    pack(p, b->allowed, b->allowed_count, sizeof *b->allowed);
    return !p->failed;
}

static size_t most_bytes(const cria_batch_limits *l) {
    return (size_t)l->tokens * 12 + (size_t)(l->sequences + 1) * 8 +
           (size_t)l->sequences * (size_t)l->blocks_per_sequence * 4 + (size_t)l->rows * (4 + sizeof(cria_row)) +
           (size_t)l->history * sizeof(cria_history) + (size_t)l->biases * sizeof(cria_bias) + (size_t)l->allowed * 4;
}

static int64_t top_room(const cria_group_runner *g, const cria_row *row) {
    int64_t room = row->top_logprobs < g->limits.top_logprobs ? row->top_logprobs : g->limits.top_logprobs;
    return room > 0 ? room : 0;
}

static int64_t result_bytes(const cria_group_runner *g, const cria_batch *batch) {
    int64_t bytes = batch->rows * (int64_t)sizeof(cria_row_result);
    for (int32_t i = 0; i < batch->rows; i++) bytes += top_room(g, &batch->row[i]) * 8;
    return bytes;
}

static void pack_result(const cria_group_runner *g, const cria_batch *batch, cria_batch_result *result, packer *p) {
    pack(p, result->result, batch->rows, sizeof *result->result);
    for (int32_t i = 0; i < batch->rows; i++) {
        int64_t room = top_room(g, &batch->row[i]), at = i * g->limits.top_logprobs;
        pack(p, result->top_ids + at, room, sizeof *result->top_ids);
        pack(p, result->top_logprobs + at, room, sizeof *result->top_logprobs);
    }
}

/* ---- creation ---- */

static cria_status create(cria_group_runner *g, cria_error *err) {
    CRIA_TRY(cria_batch_create(&g->limits, &g->batch, err));
    CRIA_TRY(cria_batch_result_create(&g->limits, &g->result, err));
    size_t results = (size_t)g->limits.rows * (sizeof(cria_row_result) + 8 * (size_t)g->limits.top_logprobs);
    g->capacity = most_bytes(&g->limits);
    if (results > g->capacity) g->capacity = results;
    g->packed = malloc(g->capacity);
    return g->packed ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for batches of %zu bytes", g->capacity);
}

cria_status cria_group_create(cria_executor *executor, const cria_ranks *ranks, const cria_plan *plan,
                              const cria_batch_limits *limits, int64_t block_tokens, cria_group_runner **out,
                              cria_error *err) {
    *out = NULL;
    cria_group_runner *g = calloc(1, sizeof *g);
    if (!g) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the group of ranks");
    *g = (cria_group_runner){.executor = executor,
                             .ranks = ranks,
                             .limits = *limits,
                             .block_tokens = block_tokens,
                             .rank = cria_comm_rank(ranks->world),
                             .size = cria_comm_size(ranks->world),
                             .stages = cria_plan_stages(plan)};
    g->leader = cria_plan_stage(plan, g->stages - 1)->first_rank;
    cria_status status = create(g, err);
    if (status != CRIA_OK) {
        cria_group_destroy(g);
        return status;
    }
    *out = g;
    return CRIA_OK;
}

void cria_group_destroy(cria_group_runner *g) {
    if (!g) return;
    cria_batch_destroy(g->batch);
    cria_batch_result_destroy(g->result);
    free(g->packed);
    free(g);
}

/* ---- rank 0 ---- */

/* The first failure is everybody's: whoever waits for this rank is told why it will not come. */
static cria_status give_up(const cria_group_runner *g, cria_status status, const cria_error *err) {
    if (status != CRIA_OK && status != CRIA_ERR_CLOSED) cria_comm_abort(g->ranks->world, err->message);
    return status;
}

static cria_status hand_out(cria_group_runner *g, const cria_batch *batch, cria_error *err) {
    packer p = {.at = g->packed, .end = g->packed + g->capacity, .out = true};
    if (!pack_batch((cria_batch *)(uintptr_t)batch, g->block_tokens, &p))
        return cria_fail(err, CRIA_ERR_INTERNAL, "a batch is over its limits");
    header h = {KIND_STEP,
                batch->tokens,
                batch->sequences,
                batch->rows,
                batch->history_count,
                batch->bias_count,
                batch->allowed_count,
                0,
                p.at - g->packed};
    for (int r = 1; r < g->size; r++) {
        CRIA_TRY(cria_comm_send(g->ranks->world, r, &h, sizeof h, err));
        CRIA_TRY(cria_comm_send(g->ranks->world, r, g->packed, h.bytes, err));
    }
    return CRIA_OK;
}

static cria_status take_results(cria_group_runner *g, const cria_batch *batch, cria_batch_result *result,
                                cria_error *err) {
    int64_t bytes = result_bytes(g, batch);
    CRIA_TRY(cria_comm_recv(g->ranks->world, g->leader, g->packed, bytes, err));
    packer p = {.at = g->packed, .end = g->packed + bytes};
    pack_result(g, batch, result, &p);
    return CRIA_OK;
}

static cria_status run_here(cria_group_runner *g, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    CRIA_TRY(hand_out(g, batch, err));
    CRIA_TRY(cria_executor_step(g->executor, batch, result, err));
    return g->leader == 0 ? CRIA_OK : take_results(g, batch, result, err);
}

static cria_status runner_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    return give_up(self, run_here(self, batch, result, err), err);
}

static int64_t pending_bytes(const cria_group_runner *g) {
    int64_t bytes = 0;
    for (int i = 0; i < g->count; i++) bytes += result_bytes(g, g->under_way[(g->first + i) % MOST_UNDER_WAY]);
    return bytes;
}

static cria_status start(cria_group_runner *g, const cria_batch *batch, cria_error *err) {
    if (g->count == MOST_UNDER_WAY) return cria_fail(err, CRIA_ERR_INTERNAL, "too many steps under way");
    CRIA_TRY(hand_out(g, batch, err));
    CRIA_TRY(cria_executor_step(g->executor, batch, g->result, err));
    g->under_way[(g->first + g->count++) % MOST_UNDER_WAY] = batch;
    return CRIA_OK;
}

static cria_status runner_start(void *self, const cria_batch *batch, cria_error *err) {
    return give_up(self, start(self, batch, err), err);
}

static bool runner_may_start(void *self, const cria_batch *batch) {
    const cria_group_runner *g = self;
    return g->count == 0 || pending_bytes(g) + result_bytes(g, batch) <= MOST_PENDING_BYTES;
}

static cria_status runner_finish(void *self, cria_batch_result *result, cria_error *err) {
    cria_group_runner *g = self;
    if (g->count == 0) return cria_fail(err, CRIA_ERR_INTERNAL, "no step is under way");
    const cria_batch *batch = g->under_way[g->first];
    g->first = (g->first + 1) % MOST_UNDER_WAY;
    g->count--;
    return give_up(g, take_results(g, batch, result, err), err);
}

static bool runner_ready(void *self) {
    const cria_group_runner *g = self;
    bool there = true;
    cria_error ignored = {0};
    return cria_comm_arrived(g->ranks->world, g->leader, &there, &ignored) != CRIA_OK || there;
}

cria_runner cria_group_as_runner(cria_group_runner *g) {
    int depth = g->stages < MOST_UNDER_WAY ? g->stages : MOST_UNDER_WAY;
    if (depth == 1) return (cria_runner){.self = g, .step = runner_step};
    return (cria_runner){.self = g,
                         .step = runner_step,
                         .depth = depth,
                         .may_start = runner_may_start,
                         .start = runner_start,
                         .ready = runner_ready,
                         .finish = runner_finish};
}

cria_status cria_group_stop(cria_group_runner *g, cria_error *err) {
    header h = {.kind = KIND_STOP};
    for (int r = 1; r < g->size; r++) CRIA_TRY(cria_comm_send(g->ranks->world, r, &h, sizeof h, err));
    return CRIA_OK;
}

/* ---- the others ---- */

static bool fits(const header *h, const cria_batch_limits *l) {
    return h->tokens >= 0 && h->tokens <= l->tokens && h->sequences >= 0 && h->sequences <= l->sequences &&
           h->rows >= 0 && h->rows <= l->rows && h->history >= 0 && h->history <= l->history && h->biases >= 0 &&
           h->biases <= l->biases && h->allowed >= 0 && h->allowed <= l->allowed;
}

static cria_status take_batch(cria_group_runner *g, const header *h, cria_error *err) {
    if (h->kind != KIND_STEP || !fits(h, &g->limits) || h->bytes < 0 || (size_t)h->bytes > g->capacity)
        return cria_fail(err, CRIA_ERR_FORMAT, "rank 0 sent a batch that rank %d has no room for", g->rank);
    CRIA_TRY(cria_comm_recv(g->ranks->world, 0, g->packed, h->bytes, err));
    cria_batch *b = g->batch;
    b->tokens = h->tokens;
    b->sequences = h->sequences;
    b->rows = h->rows;
    b->history_count = h->history;
    b->bias_count = h->biases;
    b->allowed_count = h->allowed;
    packer p = {.at = g->packed, .end = g->packed + h->bytes};
    if (!pack_batch(b, g->block_tokens, &p))
        return cria_fail(err, CRIA_ERR_FORMAT, "rank 0 sent a batch that contradicts itself");
    return CRIA_OK;
}

static cria_status send_results(cria_group_runner *g, cria_error *err) {
    packer p = {.at = g->packed, .end = g->packed + g->capacity, .out = true};
    pack_result(g, g->batch, g->result, &p);
    return cria_comm_send(g->ranks->world, 0, g->packed, p.at - g->packed, err);
}

static cria_status follow(cria_group_runner *g, cria_error *err) {
    for (;;) {
        header h;
        CRIA_TRY(cria_comm_await(g->ranks->world, 0, &h, sizeof h, err));
        if (h.kind == KIND_STOP) return CRIA_OK;
        CRIA_TRY(take_batch(g, &h, err));
        CRIA_TRY(cria_executor_step(g->executor, g->batch, g->result, err));
        if (g->rank == g->leader) CRIA_TRY(send_results(g, err));
    }
}

cria_status cria_group_follow(cria_group_runner *g, cria_error *err) {
    return give_up(g, follow(g, err), err);
}
