/* `cria bench`: prefill and decode speed of the executors themselves, batch by batch, thread count by thread count, on
 * one rank or many. */
#include "server/commands/bench.h"

#include "base/clock.h"
#include "base/file.h"
#include "server/commands/bench_steps.h"
#include "server/commands/devices.h"
#include "server/commands/planned.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What one run of a program reads and multiplies; of a whole replica where there are several ranks. */
typedef struct {
    double weight_bytes, body_weights, head_weights; /* elements that each token, each row, is multiplied with */
    double attention_width;                          /* of all heads of all layers */
    double kv_token;                                 /* bytes */
} costs;

static costs costs_here(const cria_runtime *runtime) {
    const cria_program *p = cria_runtime_program(runtime);
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    costs c = {.kv_token = (double)summary.kv_bytes / (double)(summary.kv_blocks * summary.block_tokens)};
    for (int i = 0; i < p->instruction_count; i++) {
        const cria_instruction *ins = &p->instructions[i];
        if (ins->what != CRIA_DO_KERNEL) continue;
        if (ins->kernel == CRIA_KERNEL_linear) {
            const cria_weight_spec *w = &p->weights[ins->operand[1].index];
            c.weight_bytes += (double)w->bytes;
            *(ins->phase == CRIA_PHASE_HEAD ? &c.head_weights : &c.body_weights) += (double)w->rows * (double)w->cols;
        } else if (ins->kernel == CRIA_KERNEL_attention) {
            c.attention_width += (double)(ins->heads * p->kv[ins->operand[0].index].head_dim);
        }
    }
    return c;
}

/* Collective. */
static cria_status costs_of(const cria_runtime *runtime, cria_comm *comm, costs *out, cria_error *err) {
    costs mine = costs_here(runtime), all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    *out = mine;
    if (!comm) return CRIA_OK;
    for (int r = 0; r < cria_comm_size(comm); r++) bytes[r] = sizeof mine;
    CRIA_TRY(cria_comm_all_gather(comm, &mine, all, bytes, err));
    *out = (costs){0};
    for (int r = 0; r < cria_plan_ranks(cria_runtime_plan(runtime)); r++) {
        out->weight_bytes += all[r].weight_bytes;
        out->body_weights += all[r].body_weights;
        out->head_weights += all[r].head_weights;
        out->attention_width += all[r].attention_width;
        out->kv_token += all[r].kv_token;
    }
    return CRIA_OK;
}

/* Bytes and operations of one phase by operator. */
static void count_work(const costs *each, const work *done, cria_bench_phase *out) {
    cria_bench_operator *linear = &out->operators[CRIA_KERNEL_linear];
    cria_bench_operator *attention = &out->operators[CRIA_KERNEL_attention];
    out->tokens = done->tokens;
    linear->bytes = done->steps * each->weight_bytes;
    linear->operations = 2 * (done->tokens * each->body_weights + done->rows * each->head_weights);
    attention->bytes = done->keys * each->kv_token;
    attention->operations = 4 * done->pairs * each->attention_width;
    out->bytes = linear->bytes + attention->bytes;
    out->operations = linear->operations + attention->operations;
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

/* ---- ranks ---- */

/* What all ranks reach together when all of them work, reading what a step reads. Collective. */
static cria_status measure_together(const cria_runtime *runtime, cria_calibration *calibration, cria_comm *comm,
                                    cria_rates *out, cria_error *err) {
    cria_rates mine, all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    for (int r = 0; r < cria_comm_size(comm); r++) bytes[r] = sizeof mine;
    CRIA_TRY(cria_comm_barrier(comm, err));
    cria_calibration_measure(calibration, costs_here(runtime).weight_bytes, &mine);
    CRIA_TRY(cria_comm_all_gather(comm, &mine, all, bytes, err));
    *out = (cria_rates){0};
    for (int r = 0; r < cria_comm_size(comm); r++) {
        out->read_gbps += all[r].read_gbps;
        out->f32_gflops += all[r].f32_gflops;
        out->bf16_gflops += all[r].bf16_gflops;
        out->i8_gops += all[r].i8_gops;
    }
    return CRIA_OK;
}

/* What the stages did between two looks. */
static void keep_stages(const cria_bench_steps *steps, const cria_stage_figures *before, cria_bench_phase *out) {
    out->stages = cria_bench_stages(steps, out->stage, CRIA_BENCH_MAX_STAGES);
    for (int i = 0; i < out->stages; i++) {
        cria_stage_figures *f = &out->stage[i];
        f->steps -= before[i].steps;
        f->sent -= before[i].sent;
        f->busy_seconds -= before[i].busy_seconds;
        f->transfer_seconds -= before[i].transfer_seconds;
        f->active_seconds -= before[i].active_seconds;
    }
}

/* ---- cases ---- */

/* What all cases of one thread count share. */
typedef struct {
    const cria_runtime *runtime;
    const cria_main_options *options;
    cria_calibration *calibration;
    const cria_rates *together;           /* of several ranks; NULL: one rank, which is measured beside every repeat */
    const cria_predicted_plan *predicted; /* NULL: no cluster is known */
    costs each;
} setting;

/* Reads as many bytes as a decoding step of the case does. */
static void calibrate_case(const setting *s, cria_bench_case *c) {
    cria_rates rates;
    if (!s->together) cria_calibration_measure(s->calibration, c->decode.bytes / (double)c->generated, &rates);
    keep_best(&c->rates, s->together ? s->together : &rates);
}

static cria_status run_repeats(cria_bench_steps *steps, const setting *s, cria_bench_case *c, cria_error *err) {
    double prefills[CRIA_BENCH_MAX_REPEAT], decodes[CRIA_BENCH_MAX_REPEAT];
    const cria_main_options *o = s->options;
    cria_executor *executor = cria_runtime_executor(s->runtime);
    cria_stage_figures before[CRIA_BENCH_MAX_STAGES];
    CRIA_TRY(cria_bench_decode(steps, 0, 2, err)); /* warm-up */
    /* A token into every KV block: a page that is touched for the first time costs more than what is written to it. */
    cria_runtime_summary summary;
    cria_runtime_summarise(s->runtime, &summary);
    for (int64_t at = summary.block_tokens; at < c->prompt + c->generated; at += summary.block_tokens)
        CRIA_TRY(cria_bench_decode(steps, at, 1, err));
    for (int64_t i = 0; i < o->repeat; i++) {
        calibrate_case(s, c);
        cria_executor_profile(executor, o->profile);
        cria_bench_stages(steps, before, CRIA_BENCH_MAX_STAGES);
        uint64_t start = cria_clock_ns();
        CRIA_TRY(cria_bench_prefill(steps, err));
        prefills[i] = cria_seconds_between(start, cria_clock_ns());
        keep_stages(steps, before, &c->prefill);
        read_profile(s->runtime, &c->prefill);
        cria_executor_profile(executor, o->profile);
        cria_bench_stages(steps, before, CRIA_BENCH_MAX_STAGES);
        start = cria_clock_ns();
        CRIA_TRY(cria_bench_decode(steps, c->prompt, c->generated, err));
        decodes[i] = cria_seconds_between(start, cria_clock_ns());
        keep_stages(steps, before, &c->decode);
        read_profile(s->runtime, &c->decode);
    }
    calibrate_case(s, c);
    c->prefill.seconds = median(prefills, o->repeat);
    c->decode.seconds = median(decodes, o->repeat);
    return CRIA_OK;
}

static void count_case(const cria_bench_steps *steps, const costs *each, cria_bench_case *c) {
    double batch = (double)c->batch, prompt = (double)c->prompt, generated = (double)c->generated;
    work prefilled = {.tokens = batch * prompt, .rows = batch, .pairs = batch * prompt * (prompt + 1) / 2};
    cria_bench_prefill_counts(steps, &prefilled.steps, &prefilled.keys);
    double seen = batch * generated * (prompt + (generated + 1) / 2);
    work decoded = {cria_bench_decode_runs(steps), batch * generated, batch * generated, seen, seen};
    count_work(each, &prefilled, &c->prefill);
    count_work(each, &decoded, &c->decode);
    c->prefill.steps = prefilled.steps;
    c->decode.steps = decoded.steps;
}

/* By operator: what is prepared for a product counts with what made it, an activation is its preparation alone. */
static cria_status predict_operators(const cria_predicted_plan *plan, const cria_step_shape *step, double times,
                                     cria_bench_phase *out, cria_error *err) {
    static const struct {
        cria_op_kind op;
        cria_kernel_id kernel;
    } rows[] = {{CRIA_OP_EMBED, CRIA_KERNEL_embed},
                {CRIA_OP_NORM, CRIA_KERNEL_norm},
                {CRIA_OP_ACTIVATION, CRIA_KERNEL_prepare},
                {CRIA_OP_LINEAR, CRIA_KERNEL_linear},
                {CRIA_OP_MUL, CRIA_KERNEL_glu},
                {CRIA_OP_ROPE, CRIA_KERNEL_rope},
                {CRIA_OP_ATTENTION, CRIA_KERNEL_attention},
                {CRIA_OP_GATHER, CRIA_KERNEL_gather},
                {CRIA_OP_SAMPLE, CRIA_KERNEL_sample}};
    double seconds[CRIA_OP_COUNT];
    CRIA_TRY(cria_predict_operators(plan, step, seconds, err));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        out->operators[rows[i].kernel].predicted += times * seconds[rows[i].op];
    return CRIA_OK;
}

/* The workspace is for the largest step, with as many rows of logits as the head takes at once. */
static cria_status predict_memory(const cria_predicted_plan *plan, const cria_runtime *runtime, cria_bench_memory *out,
                                  cria_error *err) {
    cria_runtime_summary s;
    cria_engine_config config;
    cria_prediction step;
    cria_runtime_summarise(runtime, &s);
    cria_runtime_engine_config(runtime, &config);
    int64_t budget = config.limits.tokens;
    cria_step_shape largest = {budget, cria_runtime_program(runtime)->head_rows, 1, (double)budget / 2};
    CRIA_TRY(cria_predict_step(plan, &largest, &step, err));
    *out = (cria_bench_memory){step.weights, step.kv_token * (double)(s.kv_blocks * s.block_tokens), step.activations};
    cria_prediction_deinit(&step);
    return CRIA_OK;
}

/* Seconds that a step adds where so many are under way, and what the first one takes beyond that. */
static double pipelined(const cria_prediction *step, double under_way, double *fill) {
    double each = fmax(step->longest, step->seconds / under_way);
    *fill = fmax(*fill, step->seconds - each);
    return each;
}

/* What the model of costs says of the same steps. Replicas run beside each other. */
static cria_status predict(const cria_predicted_plan *plan, const cria_runtime *runtime, const cria_bench_steps *steps,
                           cria_bench_case *c, cria_error *err) {
    cria_prediction step;
    cria_bench_shape each = cria_bench_shape_of(steps);
    double fill = 0, groups = (double)each.groups;
    c->prefill.predicted = c->decode.predicted = 0;
    for (int64_t at = 0; at < c->prompt; at += each.chunk) {
        int64_t count = c->prompt - at < each.chunk ? c->prompt - at : each.chunk;
        cria_step_shape shape = {count, at + count == c->prompt, 1, (double)at + (double)count / 2};
        CRIA_TRY(cria_predict_step(plan, &shape, &step, err));
        c->prefill.predicted += pipelined(&step, (double)each.under_way, &fill) * (double)each.sequences;
        cria_prediction_deinit(&step);
        CRIA_TRY(predict_operators(plan, &shape, (double)each.sequences, &c->prefill, err));
    }
    c->prefill.predicted += fill;
    /* A step's time is a straight line over the context. */
    int64_t tokens = (each.sequences + each.groups - 1) / each.groups;
    cria_step_shape shape = {tokens, tokens, tokens, (double)c->prompt + (double)(c->generated + 1) / 2};
    CRIA_TRY(cria_predict_step(plan, &shape, &step, err));
    fill = 0;
    c->decode.predicted = pipelined(&step, groups, &fill) * groups * (double)c->generated + fill;
    cria_prediction_deinit(&step);
    CRIA_TRY(predict_operators(plan, &shape, groups * (double)c->generated, &c->decode, err));
    return predict_memory(plan, runtime, &c->predicted, err);
}

static cria_status run_case(const setting *s, cria_bench_case *c, cria_error *err) {
    cria_bench_steps *steps;
    CRIA_TRY(cria_bench_steps_create(s->runtime, c->batch, c->prompt, c->generated, s->options->steps_under_way, &steps,
                                     err));
    count_case(steps, &s->each, c);
    cria_status status = run_repeats(steps, s, c, err);
    if (status == CRIA_OK && s->predicted) status = predict(s->predicted, s->runtime, steps, c, err);
    cria_bench_steps_destroy(steps);
    CRIA_TRY(status);
    cria_runtime_summary summary;
    cria_runtime_summarise(s->runtime, &summary);
    c->peak_gflops = peak_of(&c->rates, summary.weight_type);
    return CRIA_OK;
}

/* Collective. */
static cria_status find_held(const cria_runtime *runtime, const cria_ranks_joined *ranks, cria_bench_memory *out,
                             cria_error *err) {
    cria_runtime_summary s;
    cria_runtime_summarise(runtime, &s);
    *out = (cria_bench_memory){(double)s.weight_bytes, (double)s.kv_bytes, (double)s.workspace_bytes};
    if (!ranks->comm) return CRIA_OK;
    cria_bench_memory all[CRIA_COMM_MAX_RANKS];
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    for (int r = 0; r < ranks->size; r++) bytes[r] = sizeof *all;
    CRIA_TRY(cria_comm_all_gather(ranks->comm, out, all, bytes, err));
    for (int r = 0; r < ranks->size; r++) {
        out->weights = fmax(out->weights, all[r].weights);
        out->kv = fmax(out->kv, all[r].kv);
        out->workspace = fmax(out->workspace, all[r].workspace);
    }
    return CRIA_OK;
}

/* Rank 0 runs the cases; the others follow. Every rank calibrates at the same time. */
static cria_status run_cases(const cria_command *command, cria_ranks_joined *ranks, setting *s, int threads,
                             const int64_t *batches, size_t batch_count, cria_bench_case *cases, size_t *count,
                             cria_error *err) {
    cria_rates together;
    cria_predicted_plan predicted;
    const cria_plan *plan = cria_runtime_plan(s->runtime);
    if (ranks->comm) CRIA_TRY(measure_together(s->runtime, s->calibration, ranks->comm, &together, err));
    if (ranks->comm) s->together = &together;
    CRIA_TRY(costs_of(s->runtime, ranks->comm, &s->each, err));
    cria_bench_memory held;
    CRIA_TRY(find_held(s->runtime, ranks, &held, err));
    if (ranks->rank > 0) return cria_group_follow(cria_runtime_group(s->runtime), err);
    if (cria_ranks_predicted(command, ranks, s->runtime, &predicted)) s->predicted = &predicted;
    for (size_t i = 0; i < batch_count; i++) {
        cria_bench_case *c = &cases[*count];
        *c = (cria_bench_case){.threads = threads,
                               .batch = batches[i],
                               .prompt = s->options->prompt_tokens,
                               .generated = s->options->new_tokens,
                               .ranks = ranks->size,
                               .held = held,
                               .stages = cria_plan_stages(plan),
                               .replicas = cria_runtime_replicas(s->runtime)};
        CRIA_TRY(run_case(s, c, err));
        (*count)++;
    }
    return ranks->comm ? cria_group_stop(cria_runtime_group(s->runtime), err) : CRIA_OK;
}

/* All batches at one thread count: the model is loaded once for it. */
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
    cria_isa isa;
    CRIA_TRY(cria_isa_from_name(options.isa, &isa, err));
    cria_ranks_request(ranks, &request);
    setting s = {.options = &options};
    cria_runtime *runtime;
    CRIA_TRY(cria_runtime_open(command->path, &options, &request, command->log, &runtime, err));
    s.runtime = runtime;
    cria_pool *pool = NULL;
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    cria_status status = cria_pool_create(summary.threads, &pool, err);
    if (status == CRIA_OK) status = cria_calibration_create(pool, isa, CRIA_CALIBRATION_BYTES, &s.calibration, err);
    if (status == CRIA_OK && ranks->comm && !options.json) status = cria_ranks_print(ranks, runtime, err);
    if (status == CRIA_OK)
        status = run_cases(command, ranks, &s, summary.threads, batches, batch_count, cases, count, err);
    cria_calibration_destroy(s.calibration);
    cria_pool_destroy(pool);
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
        cria_status status = cria_calibration_create(pool, isa, CRIA_CALIBRATION_BYTES, &calibration, err);
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

/* Batches and thread counts of which every pair is a case. */
typedef struct {
    int64_t batch[CRIA_BENCH_MAX_CASES], thread[CRIA_BENCH_MAX_CASES];
    size_t batches, threads;
} bench_lists;

static cria_status bench_ranks(const cria_command *command, cria_ranks_joined *ranks, void *context, cria_error *err) {
    const bench_lists *lists = context;
    cria_bench_case cases[CRIA_BENCH_MAX_CASES];
    size_t count = 0;
    if (ranks->comm && command->options->profile)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "profile: it shows the operators of one rank, %d were started",
                         ranks->size);
    for (size_t i = 0; i < lists->threads; i++) {
        find_cached(command, lists->thread[i], ranks);
        CRIA_TRY(run_threads(command, ranks, lists->thread[i], lists->batch, lists->batches, cases, &count, err));
    }
    if (ranks->rank > 0) return CRIA_OK;
    cria_text out;
    cria_text_init(&out);
    cria_bench_print(command, cases, count, &out);
    print(&out);
    return CRIA_OK;
}

cria_status cria_command_bench(const cria_command *command, cria_error *err) {
    const cria_main_options *o = command->options;
    bench_lists lists = {.threads = 1};
    CRIA_TRY(cria_parse_list("batch", o->batch, lists.batch, CRIA_BENCH_MAX_CASES, &lists.batches, err));
    if (o->thread_list)
        CRIA_TRY(cria_parse_list("threads", o->thread_list, lists.thread, CRIA_BENCH_MAX_CASES, &lists.threads, err));
    if (o->calibrate) return calibrate(command, lists.thread, lists.threads, err);
    if (lists.batches * lists.threads > CRIA_BENCH_MAX_CASES)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch and threads: %zu cases, at most %d",
                         lists.batches * lists.threads, CRIA_BENCH_MAX_CASES);
    return cria_ranks_run(command, bench_ranks, &lists, err);
}
