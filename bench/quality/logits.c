/* cria_logits: writes the logits of given token ids, in windows that each start at position 0, as raw f32. */
#include "base/file.h"
#include "server/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    FILE *file;
    bool failed;
} output;

static void write_rows(void *context, int64_t first_row, int64_t rows, int64_t vocab, int64_t stride,
                       const float *logits) {
    (void)first_row; /* chunks come in the order of the rows */
    output *out = context;
    for (int64_t r = 0; r < rows; r++)
        if (fwrite(logits + r * stride, sizeof *logits, (size_t)vocab, out->file) != (size_t)vocab) out->failed = true;
}

/* One window as one step of one sequence that owns the first blocks. */
static void fill(cria_batch *b, const int32_t *ids, int64_t count, int64_t block_tokens) {
    cria_batch_clear(b);
    for (int32_t i = 0; i < count; i++) {
        b->token_ids[i] = ids[i];
        b->positions[i] = b->slots[i] = b->row_token[i] = i;
        b->row[i] = (cria_row){.sample = 1, .target = -1, .top_p = 1, .repetition_penalty = 1};
    }
    b->tokens = b->rows = b->context[0] = (int32_t)count;
    b->sequences = 1;
    b->query_begin[0] = 0;
    b->query_begin[1] = (int32_t)count;
    for (int32_t i = 0; i * block_tokens < count; i++) b->block_table[i] = i;
}

static cria_status run_windows(cria_runtime *runtime, const cria_mapping *ids, int64_t window, output *out,
                               cria_error *err) {
    cria_engine_config config;
    cria_batch *batch = NULL;
    cria_batch_result *result = NULL;
    cria_runtime_engine_config(runtime, &config);
    int64_t total = (int64_t)(ids->size / sizeof(int32_t));
    const int32_t *id = (const int32_t *)(const void *)ids->data;
    for (int64_t i = 0; i < total; i++)
        if (id[i] < 0 || id[i] >= config.vocab)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "token id %d is outside the vocabulary", id[i]);
    cria_status status = cria_batch_create(&config.limits, &batch, err);
    if (status == CRIA_OK) status = cria_batch_result_create(&config.limits, &result, err);
    cria_executor_set_sink(cria_runtime_executor(runtime), write_rows, out);
    for (int64_t at = 0; status == CRIA_OK && at < total; at += window) {
        fill(batch, id + at, total - at < window ? total - at : window, config.block_tokens);
        status = cria_executor_step(cria_runtime_executor(runtime), batch, result, err);
        if (status == CRIA_OK && out->failed) status = cria_fail(err, CRIA_ERR_IO, "cannot write the logits");
    }
    cria_batch_destroy(batch);
    cria_batch_result_destroy(result);
    return status;
}

static cria_status run(const cria_main_options *given, const char *const argument[4], cria_error *err) {
    cria_main_options options = *given;
    char *end;
    int64_t window = strtoll(argument[3], &end, 10);
    if (*end || window < 1 || window > 65536)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "WINDOW: \"%s\" is not between 1 and 65536", argument[3]);
    options.max_num_seqs = 1;
    options.max_num_batched_tokens = options.max_model_len = window;
    options.quiet = true;
    cria_runtime_request request = {0};
    cria_runtime *runtime;
    cria_mapping ids;
    CRIA_TRY(cria_mapping_open(argument[1], &ids, err));
    cria_status status = cria_runtime_open(argument[0], &options, &request, NULL, &runtime, err);
    if (status == CRIA_OK) {
        output out = {.file = fopen(argument[2], "wb")};
        status = out.file ? run_windows(runtime, &ids, window, &out, err)
                          : cria_fail(err, CRIA_ERR_IO, "%s: cannot be written", argument[2]);
        if (out.file && fclose(out.file) != 0 && status == CRIA_OK)
            status = cria_fail(err, CRIA_ERR_IO, "%s: cannot be written", argument[2]);
        cria_runtime_close(runtime);
    }
    cria_mapping_close(&ids);
    return status;
}

int main(int argc, char **argv) {
    cria_error err = {0};
    cria_main_options options = {0};
    const char *argument[4];
    size_t count = 0;
    cria_status status = cria_options_defaults(cria_option_table, cria_option_count, &options, &err);
    if (status == CRIA_OK)
        status = cria_options_parse(cria_option_table, cria_option_count, CRIA_COMMAND_GENERATE, argc - 1, argv + 1,
                                    &options, argument, 4, &count, &err);
    if (status == CRIA_OK && count != 4)
        status = cria_fail(&err, CRIA_ERR_ARGUMENT, "usage: cria_logits MODEL IDS OUT WINDOW [options of generate]");
    if (status == CRIA_OK) status = run(&options, argument, &err);
    if (status == CRIA_OK) return 0;
    fprintf(stderr, "cria_logits: %s\n", err.message);
    return 1;
}
