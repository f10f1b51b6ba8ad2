/* The executor of one rank: all workers walk the program together, a section of the pool for every kernel call. */
#include "parallel/execute/executor.h"

#include "base/clock.h"
#include "parallel/execute/exchange.h"
#include "parallel/execute/load.h"

#include <stdlib.h>
#include <string.h>

int64_t cria_executor_kv_bytes(const cria_program *program, cria_type kv_type, int64_t block_tokens, int64_t blocks) {
    int64_t total = 0;
    for (int i = 0; i < program->kv_count; i++)
        total += (int64_t)cria_kv_block_bytes(kv_type, block_tokens, program->kv[i].kv_heads, program->kv[i].head_dim) *
                 blocks;
    return total;
}

static void bind_kv(cria_executor *e) {
    uint8_t *at = e->kv.data;
    for (int i = 0; i < e->program->kv_count; i++) {
        const cria_kv_spec *spec = &e->program->kv[i];
        int64_t bytes =
            (int64_t)cria_kv_block_bytes(e->options.kv_type, e->options.block_tokens, spec->kv_heads, spec->head_dim);
        e->kv_layers[i] = (cria_kv_layer){.pages = at,
                                          .type = e->options.kv_type,
                                          .block_tokens = e->options.block_tokens,
                                          .kv_heads = spec->kv_heads,
                                          .head_dim = spec->head_dim,
                                          .block_bytes = bytes};
        at += bytes * e->options.blocks;
    }
}

static int64_t scratch_stride(const cria_executor *e) {
    int64_t most = 64;
    for (int i = 0; i < e->program->instruction_count; i++) {
        const cria_instruction *ins = &e->program->instructions[i];
        if (ins->what == CRIA_DO_SAMPLE || (ins->what == CRIA_DO_KERNEL && ins->kernel == CRIA_KERNEL_sample)) {
            int64_t logits = (int64_t)cria_sample_scratch_bytes(e->program->vocab_all);
            if (logits > most) most = logits;
        }
        if (ins->what != CRIA_DO_KERNEL || ins->kernel != CRIA_KERNEL_attention) continue;
        const cria_kv_spec *kv = &e->program->kv[ins->operand[0].index];
        int64_t bytes = (int64_t)cria_attention_scratch_bytes(ins->heads, kv->kv_heads, kv->head_dim);
        if (bytes > most) most = bytes;
    }
    return (most + 63) / 64 * 64;
}

/* First touch of the workspace, on all threads, so that no step pays for page faults. The KV cache is touched as its
 * blocks are first used, a huge page at a time: half a gigabyte of zeros would be most of the start. */
static void touch_job(cria_worker *worker, void *context) {
    const cria_memory *memory = context;
    int64_t begin, end;
    while (cria_worker_take(worker, memory->bytes, 4 << 20, &begin, &end))
        memset((uint8_t *)memory->data + begin, 0, (size_t)(end - begin));
}

static cria_status create(cria_executor *e, const cria_param_source *source, cria_error *err) {
    const cria_program *p = e->program;
    e->panels = calloc((size_t)p->weight_count + 1, sizeof *e->panels);
    e->kv_layers = calloc((size_t)p->kv_count + 1, sizeof *e->kv_layers);
    e->seconds = calloc((size_t)p->instruction_count + 1, sizeof *e->seconds);
    if (!e->panels || !e->kv_layers || !e->seconds)
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the executor");
    int64_t kv_bytes = cria_executor_kv_bytes(p, e->options.kv_type, e->options.block_tokens, e->options.blocks);
    CRIA_TRY(cria_memory_map(&e->weights, p->weight_bytes, "weights", err));
    CRIA_TRY(cria_memory_map(&e->kv, kv_bytes, "KV cache", err));
    CRIA_TRY(cria_memory_map(&e->workspace, p->workspace_bytes, "workspace", err));
    CRIA_TRY(cria_memory_map(&e->scratch, scratch_stride(e) * cria_pool_threads(e->pool), "scratch", err));
    bind_kv(e);
    for (int i = 0; i < p->weight_count; i++) {
        const cria_weight_spec *w = &p->weights[i];
        e->panels[i] = (cria_panels){w->panel, w->rows, w->cols, (uint8_t *)e->weights.data + w->offset};
    }
    CRIA_TRY(cria_exchange_create(e, err));
    CRIA_TRY(cria_load_weights(e->graph, p, e->pool, source, &e->options, e->weights.data, err));
    cria_pool_run(e->pool, touch_job, &e->workspace);
    return CRIA_OK;
}

cria_status cria_executor_create(const cria_graph *graph, const cria_program *program, const cria_kernels *kernels,
                                 cria_pool *pool, const cria_param_source *source, const cria_executor_options *options,
                                 cria_executor **out, cria_error *err) {
    cria_executor *e = calloc(1, sizeof *e);
    if (!e) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the executor");
    e->graph = graph;
    e->program = program;
    e->kernels = kernels;
    e->pool = pool;
    e->options = *options;
    cria_status status = create(e, source, err);
    if (status != CRIA_OK) {
        cria_executor_destroy(e);
        return status;
    }
    *out = e;
    return CRIA_OK;
}

void cria_executor_destroy(cria_executor *e) {
    if (!e) return;
    cria_memory_unmap(&e->weights);
    cria_memory_unmap(&e->kv);
    cria_memory_unmap(&e->workspace);
    cria_memory_unmap(&e->scratch);
    cria_memory_unmap(&e->split);
    free(e->panels);
    free(e->kv_layers);
    free(e->seconds);
    free(e);
}

static void call_embed(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    const cria_operand *o = ins->operand;
    cria_embed_args args = {.table = &s->executor->panels[o[1].index],
                            .ids = o[0].space == CRIA_SPACE_POSITIONS ? s->batch->positions : s->batch->token_ids,
                            .tokens = s->batch->tokens,
                            .id_offset = ins->offset,
                            .accumulate = ins->accumulate,
                            .out = cria_work(s->executor, &o[2]),
                            .out_stride = o[2].stride};
    s->executor->kernels->embed(&args, worker);
}

static void call_linear(const cria_step *s, const cria_instruction *ins, int64_t tokens, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const cria_operand *o = ins->operand;
    cria_linear_args args = {.weight = &e->panels[o[1].index],
                             .in = cria_work(e, &o[0]),
                             .tokens = tokens,
                             .bias = cria_vector(e, &o[2]),
                             .residual = cria_work(e, &o[3]),
                             .residual_stride = o[3].stride,
                             .activation = ins->activation,
                             .out = cria_work(e, &o[4]),
                             .out_stride = o[4].stride};
    e->kernels->linear(&args, worker);
}

static void call_attention(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const cria_operand *o = ins->operand;
    cria_attention_args args = {.layer = &e->kv_layers[o[0].index],
                                .sequences = s->batch->sequences,
                                .query_begin = s->batch->query_begin,
                                .context = s->batch->context,
                                .block_table = s->batch->block_table,
                                .table_stride = s->batch->limits.blocks_per_sequence,
                                .heads = ins->heads,
                                .scale = ins->scale,
                                .q = cria_work(e, &o[1]),
                                .q_stride = o[1].stride,
                                .out = cria_work(e, &o[2]),
                                .out_stride = o[2].stride,
                                .scratch = e->scratch.data};
    e->kernels->attention(&args, worker);
}

static void show_logits(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    const cria_executor *e = s->executor;
    if (worker->index == 0)
        e->sink(e->sink_context, s->first_row, s->rows, ins->width, ins->operand[0].stride,
                cria_work(e, &ins->operand[0]));
    cria_worker_barrier(worker);
}

static void call_sample(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const cria_operand *o = ins->operand;
    int64_t top = s->batch->limits.top_logprobs;
    cria_sample_args args = {.logits = cria_work(e, &o[0]),
                             .rows = s->rows,
                             .vocab = ins->width,
                             .stride = o[0].stride,
                             .row = s->batch->row + s->first_row,
                             .history = s->batch->history,
                             .biases = s->batch->biases,
                             .allowed = s->batch->allowed,
                             .result = s->result->result + s->first_row,
                             .top_ids = s->result->top_ids + s->first_row * top,
                             .top_logprobs = s->result->top_logprobs + s->first_row * top,
                             .top_stride = top,
                             .scratch = e->scratch.data};
    e->kernels->sample(&args, worker);
}

/* Binds an instruction's operands to memory and calls its kernel. */
static void call(const cria_step *s, const cria_instruction *ins, cria_worker *worker) {
    const cria_executor *e = s->executor;
    const cria_operand *o = ins->operand;
    int64_t tokens = ins->phase == CRIA_PHASE_HEAD ? s->rows : s->batch->tokens;
    switch (ins->kernel) {
    case CRIA_KERNEL_embed:
        call_embed(s, ins, worker);
        break;
    case CRIA_KERNEL_norm: {
        cria_norm_args args = {.in = cria_work(e, &o[0]),
                               .in_stride = o[0].stride,
                               .tokens = tokens,
                               .width = ins->width,
                               .weight = cria_vector(e, &o[1]),
                               .bias = cria_vector(e, &o[2]),
                               .eps = ins->eps,
                               .rms = ins->rms,
                               .out = cria_work(e, &o[3]),
                               .out_stride = o[3].stride};
        e->kernels->norm(&args, worker);
        break;
    }
    case CRIA_KERNEL_prepare: {
        cria_prepare_args args = {.type = ins->panel,
                                  .in = cria_work(e, &o[0]),
                                  .in_stride = o[0].stride,
                                  .tokens = tokens,
                                  .cols = ins->width,
                                  .out = cria_work(e, &o[1])};
        e->kernels->prepare(&args, worker);
        break;
    }
    case CRIA_KERNEL_linear:
        call_linear(s, ins, tokens, worker);
        break;
    case CRIA_KERNEL_glu: {
        cria_glu_args args = {.gate = cria_work(e, &o[0]),
                              .up = cria_work(e, &o[1]),
                              .in_stride = o[0].stride,
                              .tokens = tokens,
                              .width = ins->width,
                              .activation = ins->activation,
                              .out = cria_work(e, &o[2]),
                              .out_stride = o[2].stride};
        e->kernels->glu(&args, worker);
        break;
    }
    case CRIA_KERNEL_rope: {
        cria_rope_args args = {.x = cria_work(e, &o[0]),
                               .stride = o[0].stride,
                               .tokens = tokens,
                               .heads = ins->heads,
                               .head_dim = ins->width,
                               .positions = s->batch->positions,
                               .table = cria_vector(e, &o[1])};
        e->kernels->rope(&args, worker);
        break;
    }
    case CRIA_KERNEL_kv_store: {
        cria_kv_store_args args = {.layer = &e->kv_layers[o[0].index],
                                   .k = cria_work(e, &o[1]),
                                   .v = cria_work(e, &o[2]),
                                   .stride = o[1].stride,
                                   .tokens = tokens,
                                   .slots = s->batch->slots};
        e->kernels->kv_store(&args, worker);
        break;
    }
    case CRIA_KERNEL_attention:
        call_attention(s, ins, worker);
        break;
    case CRIA_KERNEL_gather: {
        cria_gather_args args = {.in = cria_work(e, &o[0]),
                                 .in_stride = o[0].stride,
                                 .width = ins->width,
                                 .count = s->rows,
                                 .rows = s->batch->row_token + s->first_row,
                                 .out = cria_work(e, &o[1]),
                                 .out_stride = o[1].stride};
        e->kernels->gather(&args, worker);
        break;
    }
    case CRIA_KERNEL_sample:
        if (e->sink) show_logits(s, ins, worker);
        call_sample(s, ins, worker);
        break;
    case CRIA_KERNEL_COUNT:
        break;
    }
}

/* Of a run of instructions: what it took as a whole, shared as worker 0 spent its own time on them; if it had nothing
 * to do, evenly. */
static void share_seconds(cria_executor *e, int first, int last, const double *spent, double whole) {
    double own = 0;
    for (int i = first; i < last; i++) own += spent[i - first];
    for (int i = first; i < last; i++)
        e->seconds[i] += whole * (own > 0 ? spent[i - first] / own : 1.0 / (last - first));
}

/* A run of instructions that go by row, as one section: each worker does all of them for some rows, which stay in its
 * caches. Returns the first instruction behind the run. */
static int run_rows(const cria_step *s, int first, cria_worker *worker) {
    cria_executor *e = s->executor;
    const cria_instruction *all = e->program->instructions;
    int64_t begin, end, rows = all[first].phase == CRIA_PHASE_HEAD ? s->rows : s->batch->tokens;
    int last = first + 1;
    while (last < e->program->instruction_count && all[last].joins) last++;
    double spent[CRIA_LONGEST_RUN] = {0};
    bool timed = e->profiling && worker->index == 0;
    uint64_t start = timed ? cria_clock_ns() : 0;
    int64_t width = all[first].width * (all[first].kernel == CRIA_KERNEL_rope ? all[first].heads : 1);
    int64_t chunk = cria_worker_chunk(worker, rows, width);
    while (cria_worker_take(worker, rows, chunk, &begin, &end)) {
        cria_worker part = cria_worker_part(worker, begin, end, rows);
        for (int i = first; i < last; i++) {
            uint64_t before = timed ? cria_clock_ns() : 0;
            call(s, &all[i], &part);
            cria_worker_next(&part);
            if (timed) spent[i - first] += cria_seconds_between(before, cria_clock_ns());
        }
    }
    cria_worker_next(worker);
    if (timed) share_seconds(e, first, last, spent, cria_seconds_between(start, cria_clock_ns()));
    return last;
}

/* False once communication has failed: all workers see it after the same barrier. */
static bool run_phase(const cria_step *s, cria_phase phase, cria_worker *worker) {
    cria_executor *e = s->executor;
    for (int i = 0, next; i < e->program->instruction_count; i = next) {
        const cria_instruction *ins = &e->program->instructions[i];
        next = i + 1;
        if (ins->phase != phase) continue;
        if (ins->by_row) {
            next = run_rows(s, i, worker);
            continue;
        }
        bool timed = e->profiling && worker->index == 0;
        uint64_t start = timed ? cria_clock_ns() : 0;
        if (ins->what == CRIA_DO_SAMPLE && e->sink) show_logits(s, ins, worker);
        if (ins->what == CRIA_DO_KERNEL) {
            call(s, ins, worker);
            cria_worker_next(worker);
        } else {
            cria_exchange(s, ins, worker);
            cria_worker_barrier(worker);
        }
        if (timed) e->seconds[i] += cria_seconds_between(start, cria_clock_ns());
        if (ins->what != CRIA_DO_KERNEL && e->error.status != CRIA_OK) return false;
    }
    return true;
}

static void step_job(cria_worker *worker, void *context) {
    cria_step s = *(const cria_step *)context; /* a copy of its own: every worker counts the chunks itself */
    bool well = run_phase(&s, CRIA_PHASE_BODY, worker);
    int64_t chunk = s.executor->program->head_rows;
    for (s.first_row = 0; well && s.first_row < s.batch->rows; s.first_row += chunk) {
        s.rows = s.batch->rows - s.first_row < chunk ? s.batch->rows - s.first_row : chunk;
        well = run_phase(&s, CRIA_PHASE_HEAD, worker);
    }
}

cria_status cria_executor_step(cria_executor *executor, const cria_batch *batch, cria_batch_result *result,
                               cria_error *err) {
    const cria_program *p = executor->program;
    if (batch->tokens > p->max_tokens)
        return cria_fail(err, CRIA_ERR_INTERNAL, "a step of %d tokens, planned for %lld", batch->tokens,
                         (long long)p->max_tokens);
    cria_step s = {.executor = executor, .batch = batch, .result = result};
    executor->error = (cria_error){0};
    executor->transfer_ns = 0;
    const cria_ranks *ranks = executor->options.ranks;
    uint64_t before = ranks ? cria_ranks_sent(ranks) : 0, start = cria_clock_ns();
    if (batch->tokens > 0) cria_pool_run(executor->pool, step_job, &s);
    cria_step_report *report = &executor->report;
    report->transfer_ns = executor->transfer_ns;
    report->busy_ns = cria_clock_ns() - start - report->transfer_ns;
    report->sent = ranks ? cria_ranks_sent(ranks) - before : 0;
    executor->sent += report->sent;
    if (executor->error.status != CRIA_OK) return cria_fail(err, executor->error.status, "%s", executor->error.message);
    return CRIA_OK;
}

uint64_t cria_executor_sent(const cria_executor *executor) {
    return executor->sent;
}

cria_step_report cria_executor_report(const cria_executor *executor) {
    return executor->report;
}

static cria_status runner_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    cria_executor *executor = self;
    CRIA_TRY(cria_executor_step(executor, batch, result, err));
    cria_stage_count(&executor->counters, &executor->report, 0);
    return CRIA_OK;
}

/* One stage, busy whenever a step is under way. */
static int runner_stages(void *self, cria_stage_figures *sums, int most) {
    const cria_executor *executor = self;
    if (most < 1) return 1;
    sums[0].ranks = 1;
    cria_stage_add(&executor->counters, &sums[0]);
    sums[0].active_seconds = sums[0].busy_seconds;
    return 1;
}

cria_runner cria_executor_runner(cria_executor *executor) {
    return (cria_runner){.self = executor, .step = runner_step, .stages = runner_stages};
}

void cria_executor_set_sink(cria_executor *executor, cria_logits_sink *sink, void *context) {
    executor->sink = sink;
    executor->sink_context = context;
}

void cria_executor_profile(cria_executor *executor, bool on) {
    executor->profiling = on;
    memset(executor->seconds, 0, (size_t)executor->program->instruction_count * sizeof *executor->seconds);
}

double cria_executor_seconds(const cria_executor *executor, int instruction) {
    return executor->seconds[instruction];
}
