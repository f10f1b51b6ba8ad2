/* `cria bench`: prefill and decode speed of the executor itself, batch by batch, thread count by thread count. */
#include "server/commands/bench.h"

#include "base/clock.h"
#include "base/file.h"
#include "server/commands/devices.h"
#include "server/commands/planned.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One run's state: every sequence has the same length and its own blocks. */
typedef struct {
    cria_executor *executor;
    cria_runner runner;
    cria_batch *batch;
    cria_batch_result *result;
    int64_t sequences, block_tokens, vocab, budget;
} bench;

static void add_tokens(bench *b, int64_t sequence, int64_t first, int64_t count, int64_t blocks_each, bool last_row) {
    cria_batch *batch = b->batch;
    for (int64_t i = 0; i < count; i++) {
        int64_t position = first + i, block = sequence * blocks_each + position / b->block_tokens;
        int32_t t = batch->tokens++;
        batch->token_ids[t] = (int32_t)((position * 7919 + sequence * 104729 + 13) % b->vocab);
        batch->positions[t] = (int32_t)position;
        batch->slots[t] = (int32_t)(block * b->block_tokens + position % b->block_tokens);
    }
    int32_t s = batch->sequences++;
    batch->query_begin[s + 1] = batch->tokens;
    batch->context[s] = (int32_t)(first + count);
    for (int64_t i = 0; i * b->block_tokens < first + count; i++)
        batch->block_table[s * batch->limits.blocks_per_sequence + i] = (int32_t)(sequence * blocks_each + i);
    if (!last_row) return;
    int32_t r = batch->rows++;
    batch->row_token[r] = batch->tokens - 1;
    batch->row[r] = (cria_row){.sample = 1, .target = -1, .top_p = 1, .repetition_penalty = 1};
}

static cria_status prefill(bench *b, int64_t prompt, int64_t blocks_each, cria_error *err) {
    for (int64_t s = 0; s < b->sequences; s++)
        for (int64_t at = 0; at < prompt;) {
            int64_t count = prompt - at < b->budget ? prompt - at : b->budget;
            cria_batch_clear(b->batch);
            add_tokens(b, s, at, count, blocks_each, at + count == prompt);
            CRIA_TRY(b->runner.step(b->runner.self, b->batch, b->result, err));
            at += count;
        }
    return CRIA_OK;
}

static cria_status decode(bench *b, int64_t prompt, int64_t steps, int64_t blocks_each, cria_error *err) {
    for (int64_t i = 0; i < steps; i++) {
        cria_batch_clear(b->batch);
        for (int64_t s = 0; s < b->sequences; s++) add_tokens(b, s, prompt + i, 1, blocks_each, true);
        CRIA_TRY(b->runner.step(b->runner.self, b->batch, b->result, err));
    }
    return CRIA_OK;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int64_t count) {
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

/* A phase: program runs, tokens and logits rows in all, (query, key) pairs, and keys read from memory (once for all
 * queries of a step). */
typedef struct {
    double steps, tokens, rows, pairs, keys;
} work;

/* Bytes and operations of one phase by operator. */
static void count_work(const cria_runtime *runtime, const work *done, cria_bench_phase *out) {
    const cria_program *p = cria_runtime_program(runtime);
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    double kv_token = (double)summary.kv_bytes / (double)(summary.kv_blocks * summary.block_tokens);
    out->tokens = done->tokens;
    for (int i = 0; i < p->instruction_count; i++) {
        const cria_instruction *ins = &p->instructions[i];
        if (ins->what != CRIA_DO_KERNEL) continue;
        cria_bench_operator *o = &out->operators[ins->kernel];
        if (ins->kernel == CRIA_KERNEL_linear) {
            const cria_weight_spec *w = &p->weights[ins->operand[1].index];
            o->bytes += done->steps * (double)w->bytes;
            double count = ins->phase == CRIA_PHASE_HEAD ? done->rows : done->tokens;
            o->operations += 2 * count * (double)w->rows * (double)w->cols;
        } else if (ins->kernel == CRIA_KERNEL_attention) {
            const cria_kv_spec *kv = &p->kv[ins->operand[0].index];
            o->operations += 4 * done->pairs * (double)(ins->heads * kv->head_dim);
        }
    }
    out->operators[CRIA_KERNEL_attention].bytes = done->keys * kv_token;
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++) {
        out->bytes += out->operators[k].bytes;
        out->operations += out->operators[k].operations;
    }
}

static void read_profile(const cria_runtime *runtime, cria_bench_phase *out) {
    const cria_program *p = cria_runtime_program(runtime);
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++) out->operators[k].seconds = 0;
    for (int i = 0; i < p->instruction_count; i++)
        if (p->instructions[i].what == CRIA_DO_KERNEL)
            out->operators[p->instructions[i].kernel].seconds +=
                cria_executor_seconds(cria_runtime_executor(runtime), i);
}

static void keep_best(cria_rates *best, const cria_rates *now) {
    best->read_gbps = fmax(best->read_gbps, now->read_gbps);
    best->f32_gflops = fmax(best->f32_gflops, now->f32_gflops);
    best->bf16_gflops = fmax(best->bf16_gflops, now->bf16_gflops);
    best->i8_gops = fmax(best->i8_gops, now->i8_gops);
}

/* The instruction that the model's largest weights are multiplied with; bf16 without its own is converted to f32. */
static double peak_of(const cria_rates *rates, const char *weight_type) {
    if (strcmp(weight_type, "f32") == 0) return rates->f32_gflops;
    if (strcmp(weight_type, "bf16") == 0) return rates->bf16_gflops > 0 ? rates->bf16_gflops : rates->f32_gflops;
    return rates->i8_gops;
}

static cria_status check_fits(const cria_bench_case *c, const cria_engine_config *config, int64_t blocks,
                              cria_error *err) {
    if (c->prompt + c->generated > config->max_model_len)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "prompt-tokens + new-tokens: %lld is over the model's length %lld",
                         (long long)(c->prompt + c->generated), (long long)config->max_model_len);
    if (blocks > config->blocks)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch %lld needs %lld KV blocks, there are %lld", (long long)c->batch,
                         (long long)blocks, (long long)config->blocks);
    return CRIA_OK;
}

/* Reads as many bytes as a decoding step of the case does. */
static void calibrate_case(cria_calibration *calibration, cria_bench_case *c) {
    cria_rates rates;
    cria_calibration_measure(calibration, c->decode.bytes / (double)c->generated, &rates);
    keep_best(&c->rates, &rates);
}

static cria_status run_repeats(bench *b, const cria_runtime *runtime, const cria_main_options *o,
                               cria_calibration *calibration, int64_t blocks_each, cria_bench_case *c,
                               cria_error *err) {
    double prefills[CRIA_BENCH_MAX_REPEAT], decodes[CRIA_BENCH_MAX_REPEAT];
    CRIA_TRY(decode(b, 0, 2, blocks_each, err)); /* warm-up */
    for (int64_t i = 0; i < o->repeat; i++) {
        calibrate_case(calibration, c);
        cria_executor_profile(b->executor, o->profile);
        uint64_t start = cria_clock_ns();
        CRIA_TRY(prefill(b, c->prompt, blocks_each, err));
        prefills[i] = cria_seconds_between(start, cria_clock_ns());
        read_profile(runtime, &c->prefill);
        cria_executor_profile(b->executor, o->profile);
        start = cria_clock_ns();
        CRIA_TRY(decode(b, c->prompt, c->generated, blocks_each, err));
        decodes[i] = cria_seconds_between(start, cria_clock_ns());
        read_profile(runtime, &c->decode);
    }
    calibrate_case(calibration, c);
    c->prefill.seconds = median(prefills, o->repeat);
    c->decode.seconds = median(decodes, o->repeat);
    return CRIA_OK;
}

static void count_case(const cria_runtime *runtime, int64_t budget, cria_bench_case *c) {
    double batch = (double)c->batch, prompt = (double)c->prompt, generated = (double)c->generated;
    work prefilled = {.steps = 0, .tokens = batch * prompt, .rows = batch, .pairs = batch * prompt * (prompt + 1) / 2};
    for (int64_t at = 0; at < c->prompt; at += budget) {
        prefilled.steps += batch;
        prefilled.keys += batch * fmin(prompt, (double)(at + budget));
    }
    double seen = batch * generated * (prompt + (generated + 1) / 2);
    work decoded = {generated, batch * generated, batch * generated, seen, seen};
    count_work(runtime, &prefilled, &c->prefill);
    count_work(runtime, &decoded, &c->decode);
    c->prefill.steps = (double)((c->prompt + budget - 1) / budget) * batch;
    c->decode.steps = generated;
}

/* What the model of costs says of the same steps. */
static cria_status predict(const cria_predicted_plan *plan, const cria_runtime *runtime, int64_t budget,
                           cria_bench_case *c, cria_error *err) {
    cria_runtime_summary s;
    cria_runtime_summarise(runtime, &s);
    cria_prediction step;
    c->prefill.predicted = 0;
    for (int64_t at = 0; at < c->prompt; at += budget) {
        int64_t count = c->prompt - at < budget ? c->prompt - at : budget;
        cria_step_shape shape = {count, at + count == c->prompt, 1, (double)at + (double)count / 2};
        CRIA_TRY(cria_predict_step(plan, &shape, &step, err));
        c->prefill.predicted += step.seconds * (double)c->batch;
        c->predicted.workspace = fmax(c->predicted.workspace, step.activations);
        cria_prediction_deinit(&step);
    }
    /* A step's time is a straight line over the context. */
    cria_step_shape shape = {c->batch, c->batch, c->batch, (double)c->prompt + (double)(c->generated + 1) / 2};
    CRIA_TRY(cria_predict_step(plan, &shape, &step, err));
    c->decode.predicted = step.seconds * (double)c->generated;
    c->predicted.weights = step.weights;
    c->predicted.kv = step.kv_token * (double)(s.kv_blocks * s.block_tokens);
    cria_prediction_deinit(&step);
    return CRIA_OK;
}

static cria_status run_case(const cria_runtime *runtime, const cria_main_options *o, cria_calibration *calibration,
                            cria_bench_case *c, cria_error *err) {
    cria_engine_config config;
    cria_runtime_engine_config(runtime, &config);
    bench b = {.executor = cria_runtime_executor(runtime),
               .runner = cria_runtime_runner(runtime, 0),
               .sequences = c->batch,
               .block_tokens = config.block_tokens,
               .vocab = config.vocab,
               .budget = config.limits.tokens};
    int64_t blocks_each = (c->prompt + c->generated + b.block_tokens - 1) / b.block_tokens;
    CRIA_TRY(check_fits(c, &config, blocks_each * b.sequences, err));
    count_case(runtime, b.budget, c);
    cria_status status = cria_batch_create(&config.limits, &b.batch, err);
    if (status == CRIA_OK) status = cria_batch_result_create(&config.limits, &b.result, err);
    if (status == CRIA_OK) status = run_repeats(&b, runtime, o, calibration, blocks_each, c, err);
    cria_batch_destroy(b.batch);
    cria_batch_result_destroy(b.result);
    CRIA_TRY(status);
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    c->held.weights = (double)summary.weight_bytes;
    c->held.kv = (double)summary.kv_bytes;
    c->held.workspace = (double)summary.workspace_bytes;
    c->peak_gflops = peak_of(&c->rates, summary.weight_type);
    return CRIA_OK;
}

static cria_status run_cases(const cria_runtime *runtime, const cria_main_options *o, const cria_ranks_joined *ranks,
                             const int64_t *batches, size_t batch_count, cria_bench_case *cases, size_t *count,
                             cria_error *err) {
    cria_pool *pool = NULL;
    cria_calibration *calibration = NULL;
    cria_runtime_summary summary;
    cria_isa isa;
    cria_predicted_plan plan;
    cria_runtime_summarise(runtime, &summary);
    CRIA_TRY(cria_isa_from_name(o->isa, &isa, err));
    bool known = cria_ranks_predicted(ranks, runtime, &plan);
    cria_status status = cria_pool_create(summary.threads, &pool, err);
    if (status == CRIA_OK) status = cria_calibration_create(pool, isa, &calibration, err);
    for (size_t i = 0; i < batch_count && status == CRIA_OK; i++) {
        cria_bench_case *c = &cases[*count];
        *c = (cria_bench_case){.threads = summary.threads,
                               .batch = batches[i],
                               .prompt = o->prompt_tokens,
                               .generated = o->new_tokens,
                               .ranks = ranks->size,
                               .stages = cria_plan_stages(cria_runtime_plan(runtime))};
        status = run_case(runtime, o, calibration, c, err);
        if (status == CRIA_OK && known) {
            cria_engine_config config;
            cria_runtime_engine_config(runtime, &config);
            status = predict(&plan, runtime, config.limits.tokens, c, err);
        }
        (*count)++;
    }
    cria_calibration_destroy(calibration);
    cria_pool_destroy(pool);
    return status;
}

/* All batches at one thread count: the model is loaded once for it. The first rank gives out steps, the others follow.
 */
static cria_status run_threads(const cria_command *command, cria_ranks_joined *ranks, int64_t threads,
                               const int64_t *batches, size_t batch_count, cria_bench_case *cases, size_t *count,
                               cria_error *err) {
    cria_main_options options = *command->options;
    int64_t largest = 1;
    for (size_t i = 0; i < batch_count; i++)
        if (batches[i] > largest) largest = batches[i];
    options.max_num_seqs = largest;
    if (options.max_model_len == 0) options.max_model_len = options.prompt_tokens + options.new_tokens;
    if (options.kv_cache_memory == 0) options.kv_cache_memory = INT64_MAX / 2; /* as much as max_num_seqs need */
    cria_runtime_request request = {.threads = (int)threads, .progress = stderr};
    cria_ranks_request(ranks, &request);
    cria_runtime *runtime;
    CRIA_TRY(cria_runtime_open(command->path, &options, &request, command->log, &runtime, err));
    cria_group_runner *group = cria_runtime_group(runtime);
    cria_status status = ranks->comm ? cria_ranks_print(ranks, runtime, err) : CRIA_OK;
    if (status == CRIA_OK && ranks->rank > 0) {
        status = cria_group_follow(group, err);
    } else if (status == CRIA_OK) {
        status = run_cases(runtime, &options, ranks, batches, batch_count, cases, count, err);
        if (status == CRIA_OK && group) status = cria_group_stop(group, err);
    }
    cria_runtime_close(runtime);
    return status;
}

static void print(cria_text *out) {
    if (!out->failed) fwrite(out->data, 1, out->length, stdout);
    cria_text_deinit(out);
}

/* --calibrate: the machine's limits alone. */
static cria_status calibrate(const cria_command *command, int64_t *threads, size_t count, cria_error *err) {
    cria_rates rates[CRIA_BENCH_MAX_CASES];
    cria_isa isa;
    CRIA_TRY(cria_isa_from_name(command->options->isa, &isa, err));
    for (size_t i = 0; i < count; i++) {
        cpu_set_t set;
        if (threads[i] == 0) threads[i] = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
        cria_pool *pool;
        cria_calibration *calibration;
        CRIA_TRY(cria_pool_create((int)threads[i], &pool, err));
        cria_status status = cria_calibration_create(pool, isa, &calibration, err);
        if (status == CRIA_OK) {
            cria_calibration_measure(calibration, CRIA_CALIBRATION_BYTES, &rates[i]);
            cria_calibration_destroy(calibration);
        }
        cria_pool_destroy(pool);
        CRIA_TRY(status);
    }
    cria_text out;
    cria_text_init(&out);
    cria_bench_print_rates(command->options->json, threads, rates, count, &out);
    print(&out);
    return CRIA_OK;
}

/* One rank without --plan auto is predicted where its profile is at hand: to make one takes a while. */
static void find_cached(const cria_command *command, int64_t threads, cria_ranks_joined *ranks) {
    cria_machine machine;
    cria_error ignored = {0};
    char path[4096];
    if (ranks->size > 1 || ranks->plan_json || cria_machine_find(command->options, &machine, &ignored) != CRIA_OK)
        return;
    cria_cluster_destroy(ranks->cluster);
    ranks->cluster = NULL;
    if (cria_profile_path(command, &machine, 1, threads ? (int)threads : machine.cpus, path, sizeof path) &&
        cria_path_is_file(path) && cria_cluster_read(path, &ranks->cluster, &ignored) != CRIA_OK)
        ranks->cluster = NULL;
}

static cria_status bench_ranks(const cria_command *command, cria_ranks_joined *ranks, const int64_t *batches,
                               size_t batch_count, const int64_t *threads, size_t thread_count, cria_error *err) {
    cria_bench_case cases[CRIA_BENCH_MAX_CASES];
    size_t count = 0;
    for (size_t i = 0; i < thread_count; i++) {
        find_cached(command, threads[i], ranks);
        CRIA_TRY(run_threads(command, ranks, threads[i], batches, batch_count, cases, &count, err));
    }
    if (ranks->rank > 0) return CRIA_OK;
    cria_text out;
    cria_text_init(&out);
    cria_bench_print(command, cases, count, &out);
    print(&out);
    return CRIA_OK;
}

cria_status cria_command_bench(const cria_command *command, cria_error *err) {
    int64_t batches[CRIA_BENCH_MAX_CASES], threads[CRIA_BENCH_MAX_CASES] = {0};
    size_t batch_count, thread_count = 1;
    CRIA_TRY(cria_parse_list("batch", command->options->batch, batches, CRIA_BENCH_MAX_CASES, &batch_count, err));
    if (command->options->thread_list)
        CRIA_TRY(cria_parse_list("threads", command->options->thread_list, threads, CRIA_BENCH_MAX_CASES, &thread_count,
                                 err));
    if (command->options->calibrate) return calibrate(command, threads, thread_count, err);
    if (batch_count * thread_count > CRIA_BENCH_MAX_CASES)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch and threads: %zu cases, at most %d", batch_count * thread_count,
                         CRIA_BENCH_MAX_CASES);
    cria_ranks_joined ranks;
    CRIA_TRY(cria_ranks_launch(command, err));
    cria_status status = cria_ranks_join(command, &ranks, err);
    if (status == CRIA_OK) status = cria_ranks_plan(command, &ranks, err);
    if (status == CRIA_OK && cria_ranks_is_idle(&ranks))
        status = cria_ranks_idle(&ranks, err);
    else if (status == CRIA_OK)
        status = bench_ranks(command, &ranks, batches, batch_count, threads, thread_count, err);
    return cria_ranks_leave(&ranks, command, status, err);
}
