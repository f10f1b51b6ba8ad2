/* Several ranks give one rank's logits and tokens: tensor and pipeline parallelism, both, and random legal plans. */
#include "base/json.h"
#include "parallel/plan/regular.h"
#include "tests/server/world.h"

#include <math.h>

enum { GREEDY = 24 };

static const char *const models[] = {
    "opt-plain",  "opt-pre-norm-projected", "opt-post-norm-projected", "llama-gqa", "llama-mha",
    "llama-tied", "llama-attention-bias"};

typedef struct {
    int32_t prompt[WORLD_PROMPT + GREEDY];
    int count;
    float *logits; /* [count][vocab] */
    int32_t greedy[GREEDY];
} answer;

static void model_path(const char *name, char path[512]) {
    snprintf(path, 512, "%s/tests/fixtures/models/%s", CRIA_SOURCE_DIR, name);
}

static void read_prompt(const char *name, answer *a) {
    char path[640];
    cria_json *json;
    cria_error err = {0};
    snprintf(path, sizeof path, "%s/tests/fixtures/models/%s/expected.json", CRIA_SOURCE_DIR, name);
    if (cria_json_parse_file(path, 1 << 20, &json, &err) != CRIA_OK) fail_msg("%s", err.message);
    a->count = 0;
    const cria_json_value *prompt = cria_json_get(cria_json_root(json), "prompt");
    for (const cria_json_value *v = cria_json_first(prompt); v && a->count < WORLD_PROMPT / 2; v = cria_json_next(v))
        a->prompt[a->count++] = (int32_t)cria_json_number(v);
    cria_json_destroy(json);
}

/* The prompt in chunks, then greedy decoding in company. */
static void run(world *w, answer *a) {
    world_open(w);
    for (int at = 0; at < a->count; at += 7) {
        cria_batch_clear(w->batch);
        world_add(w, 1, a->prompt, at, a->count - at < 7 ? a->count - at : 7);
        world_step(w, at);
    }
    for (int i = 0; i < GREEDY; i++) {
        a->greedy[i] = a->prompt[a->count + i] = w->result->result[w->batch->rows - 1].token;
        cria_batch_clear(w->batch);
        if (i % 2) world_add(w, 0, a->prompt, 0, 1 + i % 5);
        world_add(w, 1, a->prompt, a->count + i, 1);
        world_step(w, WORLD_PROMPT);
    }
    world_close(w);
    a->logits = w->logits;
}

static void compare(const char *name, const char *plan, const answer *one, const answer *many, int64_t vocab,
                    double limit) {
    double worst = 0;
    for (int64_t i = 0; i < one->count * vocab; i++) {
        double d = fabs((double)one->logits[i] - (double)many->logits[i]);
        if (!(d <= worst)) worst = d;
    }
    if (!(worst < limit)) fail_msg("%s, %s: logits differ by %g", name, plan, worst);
    for (int i = 0; i < GREEDY; i++)
        if (one->greedy[i] != many->greedy[i])
            fail_msg("%s, %s: token %d is %d, not %d", name, plan, i, many->greedy[i], one->greedy[i]);
}

typedef struct {
    int stages, rows, columns;
} shape;

static cria_status regular(void *context, const cria_graph *graph, int ranks, cria_plan **out, cria_plan_notes *notes,
                           cria_error *err) {
    (void)notes;
    const shape *s = context;
    (void)ranks;
    return cria_plan_create_regular(graph, s->stages, s->rows, s->columns, out, err);
}

static void check_shapes(const char *name, const char *kv, const shape *shapes, int count) {
    char path[512], text[64];
    answer one, many;
    model_path(name, path);
    read_prompt(name, &one);
    many = one;
    world alone = {.path = path, .isa = "auto", .dtype = "f32", .kv = kv, .size = 1};
    run(&alone, &one);
    for (int i = 0; i < count; i++) {
        shape s = shapes[i];
        world w = {.path = path,
                   .isa = "auto",
                   .dtype = "f32",
                   .kv = kv,
                   .size = s.stages * s.rows * s.columns,
                   .make_plan = regular,
                   .context = &s};
        run(&w, &many);
        snprintf(text, sizeof text, "%d stages of %d x %d", s.stages, s.rows, s.columns);
        /* Sums in another order may make a key or a value the next whole number. */
        compare(name, text, &one, &many, alone.vocab, kv ? 1e-2 : 1e-4);
        free(many.logits);
    }
    free(one.logits);
}

static void tensor_parallel_ranks_give_one_ranks_logits_and_tokens(void **state) {
    (void)state;
    const shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 3, 1}, {1, 1, 4}, {1, 2, 2}};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) check_shapes(models[m], NULL, shapes, 5);
}

static void ranks_that_share_the_kv_heads_of_int8_give_one_ranks_logits_and_tokens(void **state) {
    (void)state;
    const shape shapes[] = {{1, 1, 2}, {1, 1, 4}, {2, 1, 2}};
    check_shapes("opt-plain", "int8", shapes, 3);
    check_shapes("llama-gqa", "int8", shapes, 3);
}

static void pipelines_give_one_ranks_logits_and_tokens(void **state) {
    (void)state;
    const shape shapes[] = {{2, 1, 1}, {2, 1, 2}, {2, 2, 2}};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) check_shapes(models[m], NULL, shapes, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_parallel_ranks_give_one_ranks_logits_and_tokens),
        cmocka_unit_test(ranks_that_share_the_kv_heads_of_int8_give_one_ranks_logits_and_tokens),
        cmocka_unit_test(pipelines_give_one_ranks_logits_and_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
