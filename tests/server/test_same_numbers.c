/* Every fixture checkpoint gives transformers' numbers: logits of each prompt position and 64 greedy tokens, whatever
 * the chunking, the instruction set and the company in the batch. */
#include "base/file.h"
#include "base/json.h"
#include "server/runtime.h"
#include "tests/server/add_tokens.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_CASES = 64, MAX_PROMPT = 64, GREEDY = 64 };

typedef struct {
    char path[512], expected[512], logits[512];
} fixture;

typedef struct {
    cria_runtime *runtime;
    cria_batch *batch;
    cria_batch_result *result;
    int64_t vocab, block_tokens;
    float *logits; /* [MAX_PROMPT][vocab]: what the sink saw, by absolute row */
    int64_t base;  /* position of the step's first row */
} session;

static int by_path(const void *a, const void *b) {
    return strcmp(((const fixture *)a)->path, ((const fixture *)b)->path);
}

static int list_fixtures(fixture *out) {
    int count = 0;
    static const char *const folders[] = {CRIA_SOURCE_DIR "/tests/fixtures/models",
                                          CRIA_SOURCE_DIR "/tests/fixtures/gguf"};
    for (int f = 0; f < 2; f++) {
        DIR *dir = opendir(folders[f]);
        assert_non_null(dir);
        for (struct dirent *entry; (entry = readdir(dir)) && count < MAX_CASES;) {
            char *dot = strstr(entry->d_name, ".gguf");
            if (entry->d_name[0] == '.' || (f == 1 && !dot)) continue;
            fixture *c = &out[count++];
            snprintf(c->path, sizeof c->path, "%s/%s", folders[f], entry->d_name);
            int stem = f == 1 ? (int)(dot - entry->d_name) : (int)strlen(entry->d_name);
            const char *join = f == 1 ? "." : "/";
            snprintf(c->expected, sizeof c->expected, "%s/%.*s%sexpected.json", folders[f], stem, entry->d_name, join);
            snprintf(c->logits, sizeof c->logits, "%s/%.*s%sexpected_logits.f32", folders[f], stem, entry->d_name,
                     join);
        }
        closedir(dir);
    }
    qsort(out, (size_t)count, sizeof *out, by_path);
    return count;
}

static void keep_logits(void *context, int64_t first_row, int64_t rows, int64_t vocab, int64_t stride,
                        const float *logits) {
    session *s = context;
    for (int64_t r = 0; r < rows; r++)
        memcpy(s->logits + (s->base + first_row + r) * vocab, logits + r * stride, (size_t)vocab * sizeof *logits);
}

static void open_session(session *s, const char *path, const char *isa, const char *dtype) {
    cria_main_options options = {0};
    cria_error err = {0};
    assert_int_equal(cria_options_defaults(cria_option_table, cria_option_count, &options, &err), CRIA_OK);
    options.isa = isa;
    options.dtype = dtype;
    options.quiet = true;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 128;
    options.block_size = "16";
    cria_runtime_request request = {.threads = strcmp(isa, "ref") == 0 ? 2 : 1};
    if (cria_runtime_open(path, &options, &request, NULL, &s->runtime, &err) != CRIA_OK)
        fail_msg("%s: %s", path, err.message);
    cria_engine_config config;
    cria_runtime_engine_config(s->runtime, &config);
    assert_int_equal(cria_batch_create(&config.limits, &s->batch, &err), CRIA_OK);
    assert_int_equal(cria_batch_result_create(&config.limits, &s->result, &err), CRIA_OK);
    s->vocab = config.vocab;
    s->block_tokens = config.block_tokens;
    s->logits = calloc((size_t)(MAX_PROMPT * s->vocab), sizeof *s->logits);
    assert_non_null(s->logits);
    cria_executor_set_sink(cria_runtime_executor(s->runtime), keep_logits, s);
}

static void close_session(session *s) {
    cria_batch_destroy(s->batch);
    cria_batch_result_destroy(s->result);
    cria_runtime_close(s->runtime);
    free(s->logits);
}

static void add(session *s, int sequence, const int32_t *ids, int first, int count) {
    add_tokens(s->batch, s->block_tokens, sequence, ids, first, count);
}

static void step(session *s, int64_t base) {
    cria_error err = {0};
    s->base = base;
    if (cria_executor_step(cria_runtime_executor(s->runtime), s->batch, s->result, &err) != CRIA_OK)
        fail_msg("%s", err.message);
}

static int read_ids(const cria_json_value *array, int32_t *out, int max) {
    int count = 0;
    for (const cria_json_value *v = cria_json_first(array); v && count < max; v = cria_json_next(v))
        out[count++] = (int32_t)cria_json_number(v);
    return count;
}

/* Prefills in chunks and returns the largest difference from the expected logits. */
static double prefill(session *s, const int32_t *prompt, int count, int chunk, const float *expected) {
    for (int at = 0; at < count; at += chunk) {
        cria_batch_clear(s->batch);
        add(s, 1, prompt, at, count - at < chunk ? count - at : chunk);
        step(s, at);
    }
    double worst = 0;
    for (int64_t i = 0; i < count * s->vocab; i++) {
        double d = fabs((double)s->logits[i] - (double)expected[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static void check_fixture(const fixture *f, const char *isa) {
    cria_json *json;
    cria_error err = {0};
    cria_mapping logits;
    int32_t prompt[MAX_PROMPT + GREEDY], greedy[GREEDY];
    if (cria_json_parse_file(f->expected, 1 << 20, &json, &err) != CRIA_OK) fail_msg("%s", err.message);
    int count = read_ids(cria_json_get(cria_json_root(json), "prompt"), prompt, MAX_PROMPT);
    int expected_count = read_ids(cria_json_get(cria_json_root(json), "greedy"), greedy, GREEDY);
    double tolerance = cria_json_number(cria_json_get(cria_json_root(json), "tolerance"));
    assert_int_equal(expected_count, GREEDY);
    assert_int_equal(cria_mapping_open(f->logits, &logits, &err), CRIA_OK);
    session s = {0};
    open_session(&s, f->path, isa, "f32");
    assert_int_equal(logits.size, (size_t)(count * s.vocab) * sizeof(float));

    double worst = prefill(&s, prompt, count, count, (const float *)logits.data);
    if (!(worst < tolerance)) fail_msg("%s (%s): logits differ by %g", f->path, isa, worst);
    float *whole = malloc((size_t)(count * s.vocab) * sizeof *whole);
    assert_non_null(whole);
    memcpy(whole, s.logits, (size_t)(count * s.vocab) * sizeof *whole);
    prefill(&s, prompt, count, 3, (const float *)logits.data);
    if (memcmp(whole, s.logits, (size_t)(count * s.vocab) * sizeof *whole) != 0)
        fail_msg("%s (%s): logits depend on the chunking", f->path, isa);
    free(whole);

    int32_t next = s.result->result[s.batch->rows - 1].token;
    for (int i = 0; i < GREEDY; i++) {
        if (next != greedy[i]) fail_msg("%s (%s): greedy token %d is %d, not %d", f->path, isa, i, next, greedy[i]);
        prompt[count + i] = next;
        cria_batch_clear(s.batch);
        /* Company: another sequence that decodes nonsense must change nothing. */
        if (i % 2) add(&s, 0, prompt, 0, 1 + i % 5);
        add(&s, 1, prompt, count + i, 1);
        step(&s, 0);
        next = s.result->result[s.batch->rows - 1].token;
    }
    close_session(&s);
    cria_mapping_close(&logits);
    cria_json_destroy(json);
}

static void check_all(const char *isa) {
    static fixture fixtures[MAX_CASES];
    int count = list_fixtures(fixtures);
    assert_true(count >= 12);
    for (int i = 0; i < count; i++) check_fixture(&fixtures[i], isa);
}

static void every_checkpoint_gives_the_numbers_of_transformers_with_the_reference_kernels(void **state) {
    (void)state;
    check_all("ref");
}

static void every_checkpoint_gives_the_numbers_of_transformers_with_the_widest_kernels(void **state) {
    (void)state;
    check_all("auto");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_checkpoint_gives_the_numbers_of_transformers_with_the_reference_kernels),
        cmocka_unit_test(every_checkpoint_gives_the_numbers_of_transformers_with_the_widest_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
