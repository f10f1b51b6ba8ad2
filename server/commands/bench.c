/* `cria bench`: prefill and decode speed of the executor itself, batch by batch, thread count by thread count. */
#include "server/commands/commands.h"

#include "base/clock.h"
#include "base/text.h"
#include "parallel/execute/memory.h"
#include "server/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CASES = 32, MAX_REPEAT = 1000 };

typedef struct {
    int64_t threads, batch, prompt, generated;
    double prefill_seconds, decode_seconds; /* medians; decode: of all steps together */
    double prefill_flops, decode_flops, decode_bytes;
    double read_gbps; /* calibration beside the sample */
} sample;

/* One run's state: every sequence has the same length and its own blocks. */
typedef struct {
    cria_executor *executor;
    cria_batch *batch;
    cria_batch_result *result;
    int64_t sequences, block_tokens, vocab, budget;
} bench;

/* Sums a buffer larger than any cache on all threads: what reading weights once can reach at best. */
typedef struct {
    const uint64_t *data;
    int64_t words;
    uint64_t sums[256][8];
} reading;

static void read_job(cria_worker *worker, void *context) {
    reading *r = context;
    uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int64_t begin, end;
    while (cria_worker_take(worker, r->words, 32768, &begin, &end))
        for (int64_t i = begin; i + 32 <= end; i += 32)
            for (int k = 0; k < 32; k += 4) {
                s0 += r->data[i + k];
                s1 += r->data[i + k + 1];
                s2 += r->data[i + k + 2];
                s3 += r->data[i + k + 3];
            }
    r->sums[worker->index % 256][0] = s0 + s1 + s2 + s3;
}

static double measure_read(cria_pool *pool, cria_memory *memory) {
    static const int rounds = 5;
    reading *r = calloc(1, sizeof *r);
    if (!r) return 0;
    *r = (reading){.data = memory->data, .words = memory->bytes / 8};
    double best = 0;
    for (int i = 0; i < rounds; i++) {
        uint64_t start = cria_clock_ns();
        cria_pool_run(pool, read_job, r);
        double rate = (double)memory->bytes / cria_seconds_between(start, cria_clock_ns()) / 1e9;
        if (rate > best) best = rate;
    }
    free(r);
    return best;
}

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
            CRIA_TRY(cria_executor_step(b->executor, b->batch, b->result, err));
            at += count;
        }
    return CRIA_OK;
}

static cria_status decode(bench *b, int64_t prompt, int64_t steps, int64_t blocks_each, cria_error *err) {
    for (int64_t i = 0; i < steps; i++) {
        cria_batch_clear(b->batch);
        for (int64_t s = 0; s < b->sequences; s++) add_tokens(b, s, prompt + i, 1, blocks_each, true);
        CRIA_TRY(cria_executor_step(b->executor, b->batch, b->result, err));
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

static void print_profile(const cria_runtime *runtime, const char *phase) {
    const cria_program *p = cria_runtime_program(runtime);
    double by_kernel[CRIA_KERNEL_COUNT] = {0}, total = 0;
    for (int i = 0; i < p->instruction_count; i++) {
        double seconds = cria_executor_seconds(cria_runtime_executor(runtime), i);
        by_kernel[p->instructions[i].kernel] += seconds;
        total += seconds;
    }
    fprintf(stderr, "%s by operator:", phase);
    for (int k = 0; k < CRIA_KERNEL_COUNT; k++)
        if (total > 0 && by_kernel[k] > 0.001 * total)
            fprintf(stderr, "  %s %.1f%%", cria_kernel_name((cria_kernel_id)k), 100 * by_kernel[k] / total);
    fprintf(stderr, "\n");
}

static cria_status run_case(const cria_runtime *runtime, const cria_main_options *o, cria_pool *pool,
                            cria_memory *memory, sample *out, cria_error *err) {
    cria_engine_config config;
    cria_runtime_engine_config(runtime, &config);
    bench b = {.executor = cria_runtime_executor(runtime),
               .sequences = out->batch,
               .block_tokens = config.block_tokens,
               .vocab = config.vocab,
               .budget = config.limits.tokens};
    int64_t blocks_each = (out->prompt + out->generated + b.block_tokens - 1) / b.block_tokens;
    if (out->prompt + out->generated > config.max_model_len)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "prompt-tokens + new-tokens: %lld is over the model's length %lld",
                         (long long)(out->prompt + out->generated), (long long)config.max_model_len);
    if (blocks_each * b.sequences > config.blocks)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "batch %lld needs %lld KV blocks, there are %lld",
                         (long long)b.sequences, (long long)(blocks_each * b.sequences), (long long)config.blocks);
    double prefills[MAX_REPEAT], decodes[MAX_REPEAT];
    cria_status status = cria_batch_create(&config.limits, &b.batch, err);
    if (status == CRIA_OK) status = cria_batch_result_create(&config.limits, &b.result, err);
    if (status == CRIA_OK) status = decode(&b, 0, 2, blocks_each, err); /* warm-up */
    for (int64_t i = 0; i < o->repeat && status == CRIA_OK; i++) {
        out->read_gbps = fmax(out->read_gbps, measure_read(pool, memory));
        cria_executor_profile(b.executor, o->profile);
        uint64_t start = cria_clock_ns();
        status = prefill(&b, out->prompt, blocks_each, err);
        uint64_t middle = cria_clock_ns();
        if (o->profile) print_profile(runtime, "prefill");
        cria_executor_profile(b.executor, o->profile);
        uint64_t again = cria_clock_ns();
        if (status == CRIA_OK) status = decode(&b, out->prompt, out->generated, blocks_each, err);
        prefills[i] = cria_seconds_between(start, middle);
        decodes[i] = cria_seconds_between(again, cria_clock_ns());
        if (o->profile) print_profile(runtime, "decode");
    }
    cria_batch_destroy(b.batch);
    cria_batch_result_destroy(b.result);
    CRIA_TRY(status);
    out->prefill_seconds = median(prefills, o->repeat);
    out->decode_seconds = median(decodes, o->repeat);
    const cria_graph *graph = cria_runtime_graph(runtime);
    int64_t context = out->prompt + out->generated / 2;
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    double kv_per_token = (double)summary.kv_bytes / (double)(summary.kv_blocks * summary.block_tokens);
    out->prefill_flops = (double)out->batch * cria_graph_flops(graph, out->prompt, 1, out->prompt / 2);
    out->decode_flops = (double)(out->generated * out->batch) * cria_graph_flops(graph, 1, 1, context);
    out->decode_bytes =
        (double)out->generated * ((double)cria_program_weight_bytes_read(cria_runtime_program(runtime)) +
                                  (double)out->batch * (double)context * kv_per_token);
    return CRIA_OK;
}

static void print_results(const cria_command *command, const sample *samples, size_t count) {
    bool json = command->options->json;
    cria_text out;
    cria_text_init(&out);
    if (json) {
        cria_text_puts(&out, "{\"model\":");
        cria_text_json_string(&out, command->model, strlen(command->model));
        cria_text_puts(&out, ",\"results\":[");
    } else {
        cria_text_puts(&out, "threads batch  prefill tok/s  GFLOP/s   decode tok/s    GB/s  read limit GB/s\n");
    }
    for (size_t i = 0; i < count; i++) {
        const sample *s = &samples[i];
        double prefill = (double)(s->batch * s->prompt) / s->prefill_seconds;
        double decode_rate = (double)(s->batch * s->generated) / s->decode_seconds;
        double gflops = s->prefill_flops / s->prefill_seconds / 1e9, gbps = s->decode_bytes / s->decode_seconds / 1e9;
        if (json)
            cria_text_printf(&out,
                             "%s{\"threads\":%lld,\"batch\":%lld,\"prompt_tokens\":%lld,\"new_tokens\":%lld,"
                             "\"prefill_tokens_per_second\":%.3f,\"decode_tokens_per_second\":%.3f,"
                             "\"prefill_gflops\":%.3f,\"decode_gbps\":%.3f,\"limits\":{\"read_gbps\":%.3f}}",
                             i ? "," : "", (long long)s->threads, (long long)s->batch, (long long)s->prompt,
                             (long long)s->generated, prefill, decode_rate, gflops, gbps, s->read_gbps);
        else
            cria_text_printf(&out, "%7lld %5lld %14.1f %8.1f %14.1f %7.2f %16.2f\n", (long long)s->threads,
                             (long long)s->batch, prefill, gflops, decode_rate, gbps, s->read_gbps);
    }
    if (json) cria_text_puts(&out, "]}\n");
    if (!out.failed) fwrite(out.data, 1, out.length, stdout);
    cria_text_deinit(&out);
}

/* All batches at one thread count: the model is loaded once for it. */
static cria_status run_threads(const cria_command *command, int64_t threads, const int64_t *batches, size_t batch_count,
                               sample *samples, size_t *sample_count, cria_error *err) {
    cria_main_options options = *command->options;
    int64_t largest = 1;
    for (size_t i = 0; i < batch_count; i++)
        if (batches[i] > largest) largest = batches[i];
    options.max_num_seqs = largest;
    if (options.max_model_len == 0) options.max_model_len = options.prompt_tokens + options.new_tokens;
    if (options.kv_cache_memory == 0) options.kv_cache_memory = INT64_MAX / 2; /* as much as max_num_seqs need */
    cria_runtime_request request = {.threads = (int)threads, .progress = stderr};
    cria_runtime *runtime;
    CRIA_TRY(cria_runtime_open(command->path, &options, &request, command->log, &runtime, err));
    cria_pool *pool = NULL;
    cria_memory memory = {0};
    cria_runtime_summary summary;
    cria_runtime_summarise(runtime, &summary);
    cria_status status = cria_pool_create(summary.threads, &pool, err);
    if (status == CRIA_OK) status = cria_memory_map(&memory, (int64_t)256 << 20, "calibration", err);
    if (status == CRIA_OK) memset(memory.data, 1, (size_t)memory.bytes);
    for (size_t i = 0; i < batch_count && status == CRIA_OK && *sample_count < MAX_CASES; i++) {
        sample *s = &samples[*sample_count];
        *s = (sample){.threads = summary.threads,
                      .batch = batches[i],
                      .prompt = options.prompt_tokens,
                      .generated = options.new_tokens};
        status = run_case(runtime, &options, pool, &memory, s, err);
        if (status == CRIA_OK) (*sample_count)++;
    }
    cria_memory_unmap(&memory);
    cria_pool_destroy(pool);
    cria_runtime_close(runtime);
    return status;
}

cria_status cria_command_bench(const cria_command *command, cria_error *err) {
    int64_t batches[MAX_CASES], threads[MAX_CASES] = {0};
    size_t batch_count, thread_count = 1, count = 0;
    sample samples[MAX_CASES];
    CRIA_TRY(cria_parse_list("batch", command->options->batch, batches, MAX_CASES, &batch_count, err));
    if (command->options->thread_list)
        CRIA_TRY(cria_parse_list("threads", command->options->thread_list, threads, MAX_CASES, &thread_count, err));
    for (size_t i = 0; i < thread_count; i++)
        CRIA_TRY(run_threads(command, threads[i], batches, batch_count, samples, &count, err));
    print_results(command, samples, count);
    return CRIA_OK;
}
