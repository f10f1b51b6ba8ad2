/* Random legal plans on 2 to 8 ranks give one rank's logits and tokens, and send exactly the bytes that their programs
 * say. Argument: how many plans; the default is a short form. */
#include "base/random.h"
#include "parallel/plan/strategy.h"
#include "tests/server/world.h"

#include <math.h>

enum { MOST_STAGES = 4, TOKENS = 11, GREEDY = 4 };

static const char *const models[] = {"opt-plain", "opt-post-norm-projected", "llama-gqa", "llama-mha", "llama-tied"};

static int plans = 70;

typedef struct {
    uint64_t seed, drawn;
} dice;

static int roll(dice *d, int sides) {
    uint32_t words[4];
    cria_philox(d->seed, d->drawn++, 0, words);
    return (int)(words[0] % (uint32_t)sides);
}

/* What operator leaves: as computed, summed, or in any sharding that can be made of it and cuts no tokens. */
static void choose_output(dice *d, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                          cria_strategy *s) {
    cria_error ignored = {0};
    int dims = cria_graph_tensor(graph, op->output)->dims;
    for (int tries = 0; tries < 8; tries++) {
        cria_strategy other = *s;
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
            int pick = roll(d, dims + 1);
            if (mesh->size[axis] < 2 || pick == 0) continue;
            other.output.dim[axis] = (int8_t)(pick == dims ? CRIA_REPLICATED : pick);
        }
        if (cria_strategy_check(graph, op, mesh, &other, &ignored) != CRIA_OK) continue;
        *s = other;
        return;
    }
}

static void choose_strategy(dice *d, const cria_graph *graph, const cria_op *op, const cria_mesh *mesh,
                            cria_strategy *out) {
    cria_strategy all[CRIA_MAX_STRATEGIES];
    cria_strategy_options options = {
        .force_batch_axis = -1, .allow_replicated = true, .reduce_scatter = true, .symbolic = 16, .element = 4};
    int count = cria_strategies(graph, op, mesh, &options, all);
    assert_true(count > 0);
    *out = all[roll(d, count)];
    if (roll(d, 2)) choose_output(d, graph, op, mesh, out);
}

static cria_status random_plan(void *context, const cria_graph *graph, int ranks, cria_plan **out,
                               cria_plan_notes *notes, cria_error *err) {
    (void)notes;
    dice d = {.seed = *(const uint64_t *)context};
    int ops = cria_graph_ops(graph), stages = 1 + roll(&d, ranks < MOST_STAGES ? ranks : MOST_STAGES);
    cria_stage stage[MOST_STAGES] = {{0}};
    cria_strategy *strategies = calloc((size_t)ops, sizeof *strategies);
    int first_rank = 0, first_op = 0;
    for (int s = 0; s < stages; s++) {
        bool last = s == stages - 1;
        int left = ranks - first_rank - (stages - s - 1), size = last ? left : 1 + roll(&d, left);
        int rows = 1 + roll(&d, size);
        while (size % rows != 0) rows--;
        int room = ops - first_op - (stages - s - 1);
        stage[s] = (cria_stage){
            .first_op = first_op,
            .end_op = last ? ops : first_op + 1 + roll(&d, room < ops / stages + 4 ? room : ops / stages + 4),
            .mesh = {.size = {rows, size / rows}, .alpha = {1, 1}, .beta = {0.01, 0.01}},
            .first_rank = first_rank};
        for (int i = stage[s].first_op; i < stage[s].end_op; i++)
            choose_strategy(&d, graph, cria_graph_op(graph, i), &stage[s].mesh, &strategies[i]);
        first_op = stage[s].end_op;
        first_rank += size;
    }
    cria_status status = cria_plan_create(graph, stage, stages, strategies, out, err);
    free(strategies);
    return status;
}

typedef struct {
    float *logits; /* [TOKENS][vocab] */
    int32_t tokens[GREEDY];
} answer;

static void run(world *w, answer *a) {
    int32_t ids[TOKENS + GREEDY];
    world_open(w);
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 37 + 5) % (int)w->vocab;
    for (int at = 0; at < TOKENS; at += 6) {
        cria_batch_clear(w->batch);
        world_add(w, 1, ids, at, TOKENS - at < 6 ? TOKENS - at : 6);
        world_step(w, at);
    }
    for (int i = 0; i < GREEDY; i++) {
        a->tokens[i] = ids[TOKENS + i] = w->result->result[w->batch->rows - 1].token;
        cria_batch_clear(w->batch);
        world_add(w, 1, ids, TOKENS + i, 1);
        world_step(w, WORLD_PROMPT);
    }
    world_close(w);
    a->logits = w->logits;
}

static void random_legal_plans_give_one_ranks_logits_and_tokens(void **state) {
    (void)state;
    enum { MODELS = sizeof models / sizeof *models };
    answer one[MODELS];
    char path[MODELS][512];
    int64_t vocab[MODELS];
    for (int m = 0; m < MODELS; m++) {
        snprintf(path[m], sizeof path[m], "%s/tests/fixtures/models/%s", CRIA_SOURCE_DIR, models[m]);
        world alone = {.path = path[m], .isa = "auto", .dtype = "f32", .size = 1};
        run(&alone, &one[m]);
        vocab[m] = alone.vocab;
    }
    for (int i = 0; i < plans; i++) {
        int m = i % MODELS;
        uint64_t seed = (uint64_t)i;
        answer many;
        world w = {.path = path[m],
                   .isa = "auto",
                   .dtype = "f32",
                   .size = 2 + i % 7,
                   .make_plan = random_plan,
                   .context = &seed};
        run(&w, &many);
        double worst = 0;
        for (int64_t k = 0; k < TOKENS * vocab[m]; k++) {
            double difference = fabs((double)one[m].logits[k] - (double)many.logits[k]);
            if (!(difference <= worst)) worst = difference;
        }
        if (!(worst < 1e-4)) fail_msg("plan %d (%s, %d ranks): logits differ by %g", i, models[m], w.size, worst);
        for (int k = 0; k < GREEDY; k++)
            if (one[m].tokens[k] != many.tokens[k])
                fail_msg("plan %d (%s, %d ranks): token %d is %d, not %d", i, models[m], w.size, k, many.tokens[k],
                         one[m].tokens[k]);
        free(many.logits);
    }
    for (int m = 0; m < MODELS; m++) free(one[m].logits);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_legal_plans_give_one_ranks_logits_and_tokens),
    };
    if (argc > 1) plans = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
