/* A request's tokens and log-probabilities are bit-identical alone, among 15 others, with any chunk size, after
 * preemption and with prefix-cache hits: the real engine over the real executor, in every numeric type; and the same on
 * the ranks of pipelines with several steps under way, and of replicas. */
#include "base/queue.h"
#include "parallel/plan/strategy.h"
#include "tests/server/world.h"

enum { REQUESTS = 16, MAX_NEW = 24, PROMPT_MAX = 80 };

typedef struct {
    int count, prompt_count;
    int32_t token[MAX_NEW];
    float logprob[MAX_NEW];
    float prompt_logprob[PROMPT_MAX];
    int cached;
} answer;

/* How the same work is run. */
typedef struct {
    const char *name;
    int64_t chunk, sequences, blocks; /* blocks 0: plenty */
    bool prefix_cache, one_by_one, twice;
} setting;

/* Of the weights and of the KV cache; NULL: auto. */
typedef struct {
    const char *dtype, *kv;
} numbers;

static void deliver(void *context, cria_event *event) {
    assert_true(cria_queue_try_push(context, &event));
}

/* Prompts share their first 34 tokens in groups of four, so that prefix-cache hits and different lengths occur. */
static cria_request *make_request(int index, int64_t vocab, answer *to) {
    cria_request *r = cria_request_create();
    assert_non_null(r);
    int length = 20 + (index * 13) % 44;
    r->prompt = malloc((size_t)length * sizeof *r->prompt);
    assert_non_null(r->prompt);
    for (int i = 0; i < length; i++) {
        int group = i < 34 ? index / 4 : index + 100;
        r->prompt[i] = (int32_t)((i * 31 + group * 17 + 3) % vocab);
    }
    r->prompt_count = (size_t)length;
    r->user = to;
    r->sampling.max_tokens = MAX_NEW;
    r->sampling.ignore_eos = true;
    r->sampling.logprobs = 2;
    r->sampling.temperature = index % 2 ? 0.8f : 0;
    r->sampling.top_p = index % 4 == 1 ? 0.9f : 1;
    r->sampling.repetition_penalty = index % 3 ? 1 : 1.1f;
    r->sampling.seed = (uint64_t)(index + 5);
    r->sampling.prompt_logprobs = index % 5 == 4 ? 1 : -1;
    return r;
}

static void take(cria_queue *queue, int open) {
    while (open > 0) {
        cria_event *event;
        assert_true(cria_queue_pop(queue, &event, 60000));
        answer *a = event->user;
        if (event->kind == CRIA_EVENT_TOKEN) {
            assert_true(a->count < MAX_NEW && event->has_logprobs);
            a->token[a->count] = event->token;
            a->logprob[a->count++] = event->logprobs[0].logprob;
        } else if (event->kind == CRIA_EVENT_PROMPT) {
            for (int i = 0; i < event->count; i++) {
                a->prompt_logprob[event->first + i] = event->logprobs[i].logprob;
                a->prompt_count++;
            }
        } else {
            assert_int_equal(event->finish, CRIA_FINISH_LENGTH);
            a->cached = event->cached_tokens;
            open--;
        }
        cria_event_destroy(event);
    }
}

static cria_main_options options_of(numbers n, const setting *s) {
    cria_main_options options = {0};
    cria_error err = {0};
    assert_int_equal(cria_options_defaults(cria_option_table, cria_option_count, &options, &err), CRIA_OK);
    options.dtype = n.dtype;
    options.kv_cache_dtype = n.kv ? n.kv : "auto";
    options.quiet = true;
    options.block_size = "16";
    options.max_num_seqs = s->sequences;
    options.max_num_batched_tokens = s->chunk;
    options.enable_prefix_caching = s->prefix_cache;
    options.max_model_len = 88;
    return options;
}

/* Runs all requests on an engine of its own; gives its figures. */
static cria_engine_stats drive(const cria_runtime *runtime, const setting *s, answer *answers) {
    cria_error err = {0};
    cria_engine_config config;
    cria_runtime_engine_config(runtime, &config);
    if (s->blocks && s->blocks < config.blocks) config.blocks = s->blocks;
    cria_queue *queue = cria_queue_create(sizeof(cria_event *), REQUESTS * (PROMPT_MAX + MAX_NEW + 2));
    cria_engine *engine;
    int replicas = cria_runtime_replicas(runtime);
    cria_runner runners[WORLD_MOST];
    for (int i = 0; i < replicas; i++) runners[i] = cria_runtime_runner(runtime, i);
    assert_int_equal(cria_engine_create_replicas(&config, runners, replicas, deliver, queue, NULL, &engine, &err),
                     CRIA_OK);
    for (int round = 0; round < (s->twice ? 2 : 1); round++) {
        memset(answers, 0, REQUESTS * sizeof *answers);
        for (int i = 0; i < REQUESTS; i++) {
            uint64_t id;
            cria_request *r = make_request(i, config.vocab, &answers[i]);
            if (cria_engine_submit(engine, r, &id, &err) != CRIA_OK) fail_msg("%s: %s", s->name, err.message);
            if (s->one_by_one) take(queue, 1);
        }
        if (!s->one_by_one) take(queue, REQUESTS);
    }
    cria_engine_stats stats;
    cria_engine_stats_get(engine, &stats);
    assert_int_equal(stats.blocks_free, stats.blocks_total);
    assert_int_equal(stats.blocks_total, config.blocks * replicas);
    cria_engine_destroy(engine);
    cria_queue_destroy(queue);
    return stats;
}

/* On one rank; returns how often a sequence was preempted. */
static uint64_t run(const char *model, numbers n, const setting *s, answer *answers) {
    cria_main_options options = options_of(n, s);
    cria_error err = {0};
    cria_runtime *runtime;
    cria_runtime_request request = {.threads =
                                        s->chunk == 33 ? 2 : 1}; /* the number of workers must not matter either */
    char path[512];
    snprintf(path, sizeof path, "%s/tests/fixtures/models/%s", CRIA_SOURCE_DIR, model);
    if (cria_runtime_open(path, &options, &request, NULL, &runtime, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_engine_stats stats = drive(runtime, s, answers);
    cria_runtime_close(runtime);
    return stats.preemptions;
}

/* ---- on several ranks ---- */

/* As many stages as ranks, each with its share of the operators, whatever layer they are of. */
static cria_status pipeline(void *context, const cria_graph *graph, int ranks, cria_plan **out, cria_plan_notes *notes,
                            cria_error *err) {
    cria_stage stage[WORLD_MOST] = {{0}};
    int ops = cria_graph_ops(graph);
    cria_strategy *strategies = calloc((size_t)ops, sizeof *strategies);
    (void)context, (void)notes;
    assert_non_null(strategies);
    for (int s = 0; s < ranks; s++) {
        const int8_t whole[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
        stage[s] = (cria_stage){
            .first_op = ops * s / ranks, .end_op = ops * (s + 1) / ranks, .mesh = {.size = {1, 1}}, .first_rank = s};
        for (int i = stage[s].first_op; i < stage[s].end_op; i++)
            cria_strategy_derive(graph, cria_graph_op(graph, i), &stage[s].mesh, whole, &strategies[i]);
    }
    cria_status status = cria_plan_create(graph, stage, ranks, strategies, out, err);
    free(strategies);
    return status;
}

static cria_engine_stats run_ranks(const char *model, numbers n, const setting *s, int stages, int replicas,
                                   answer *answers) {
    char path[512];
    snprintf(path, sizeof path, "%s/tests/fixtures/models/%s", CRIA_SOURCE_DIR, model);
    cria_main_options options = options_of(n, s);
    world w = {
        .path = path, .size = stages * replicas, .replicas = replicas, .options = &options, .make_plan = pipeline};
    world_open(&w);
    cria_stage_figures figures[WORLD_MOST] = {{0}};
    cria_engine_stats stats = drive(w.rank[0].runtime, s, answers);
    for (int i = 0; i < replicas; i++) {
        cria_runner runner = cria_runtime_runner(w.rank[0].runtime, i);
        assert_int_equal(runner.stages(runner.self, figures, WORLD_MOST), stages);
    }
    for (int i = 0; i < stages; i++) {
        assert_int_equal(figures[i].steps, stats.steps);
        assert_true(figures[i].busy_seconds > 0 && figures[i].active_seconds >= figures[i].busy_seconds / replicas);
        assert_true((figures[i].sent > 0) == (i < stages - 1));
    }
    world_close(&w);
    return stats;
}

static void check_same(const char *how, const setting *s, const answer *expected, const answer *got) {
    int cached = 0;
    for (int i = 0; i < REQUESTS; i++) {
        cached += got[i].cached;
        if (got[i].count != MAX_NEW || memcmp(got[i].token, expected[i].token, sizeof got[i].token) != 0)
            fail_msg("%s: request %d has other tokens when %s", how, i, s->name);
        if (memcmp(got[i].logprob, expected[i].logprob, sizeof got[i].logprob) != 0 ||
            memcmp(got[i].prompt_logprob, expected[i].prompt_logprob, sizeof got[i].prompt_logprob) != 0)
            fail_msg("%s: request %d has other log-probabilities when %s", how, i, s->name);
    }
    if (s->prefix_cache) assert_true(cached > 0);
}

static const setting alone = {"alone", 128, 16, 0, false, true, false};
static const setting settings[] = {
    {"among 15 others", 128, 16, 0, false, false, false}, {"chunks of 7", 7, 5, 0, false, false, false},
    {"chunks of 33", 33, 16, 0, false, false, false},     {"preempted", 64, 16, 20, false, false, false},
    {"prefix cache", 64, 16, 0, true, false, true},       {"prefix cache, preempted", 48, 8, 24, true, false, true},
};

static void check_model(const char *model, numbers n) {
    static answer expected[REQUESTS], got[REQUESTS];
    char how[64];
    snprintf(how, sizeof how, "%s %s, KV %s", model, n.dtype, n.kv ? n.kv : "auto");
    run(model, n, &alone, expected);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        uint64_t preemptions = run(model, n, &settings[k], got);
        check_same(how, &settings[k], expected, got);
        if (strstr(settings[k].name, "preempted")) assert_true(preemptions > 0);
    }
}

static void check_ranks(const char *model, numbers n, int stages, int replicas) {
    static answer expected[REQUESTS], got[REQUESTS];
    char how[80];
    snprintf(how, sizeof how, "%s %s, KV %s, %d stages, %d replicas", model, n.dtype, n.kv ? n.kv : "auto", stages,
             replicas);
    run(model, n, &alone, expected);
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        cria_engine_stats stats = run_ranks(model, n, &settings[k], stages, replicas, got);
        check_same(how, &settings[k], expected, got);
        if (strstr(settings[k].name, "preempted") && replicas == 1) assert_true(stats.preemptions > 0);
    }
}

static void opt_requests_are_bit_identical_in_any_company(void **state) {
    (void)state;
    check_model("opt-plain", (numbers){"f32", NULL});
    check_model("opt-plain", (numbers){"int8", NULL});
}

static void llama_requests_are_bit_identical_in_any_company(void **state) {
    (void)state;
    check_model("llama-gqa", (numbers){"f32", NULL});
    check_model("llama-gqa", (numbers){"bf16", NULL});
    check_model("llama-gqa", (numbers){"int4", NULL});
    check_model("llama-gqa", (numbers){"q8", NULL});
}

static void requests_are_bit_identical_with_keys_and_values_of_int8(void **state) {
    (void)state;
    check_model("opt-plain", (numbers){"f32", "int8"});
    check_model("llama-gqa", (numbers){"bf16", "int8"});
    check_model("llama-gqa", (numbers){"int4", "int8"});
    check_ranks("llama-gqa", (numbers){"f32", "int8"}, 2, 1);
}

static void requests_are_bit_identical_on_the_ranks_of_a_pipeline(void **state) {
    (void)state;
    check_ranks("opt-plain", (numbers){"f32", NULL}, 2, 1);
    check_ranks("llama-gqa", (numbers){"f32", NULL}, 4, 1);
    check_ranks("llama-gqa", (numbers){"int4", NULL}, 2, 1);
}

static void requests_are_bit_identical_on_replicas(void **state) {
    (void)state;
    check_ranks("opt-plain", (numbers){"f32", NULL}, 1, 2);
    check_ranks("llama-gqa", (numbers){"f32", NULL}, 2, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt_requests_are_bit_identical_in_any_company),
        cmocka_unit_test(llama_requests_are_bit_identical_in_any_company),
        cmocka_unit_test(requests_are_bit_identical_with_keys_and_values_of_int8),
        cmocka_unit_test(requests_are_bit_identical_on_the_ranks_of_a_pipeline),
        cmocka_unit_test(requests_are_bit_identical_on_replicas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
