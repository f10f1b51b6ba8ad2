/* Every plan that serving can come by is lowered on every rank: each strategy of each operator alone, and what the
 * planner chooses; one that cuts tokens is chosen by nobody and refused by name. */
#include "parallel/lower/lower.h"
#include "parallel/plan/stages.h"
#include "tests/parallel/model_configs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

enum { TOKENS = 16 };

static cria_model_config llama(void) {
    return (cria_model_config){.family = CRIA_FAMILY_LLAMA,
                               .architecture = "LlamaForCausalLM",
                               .vocab = 1000,
                               .hidden = 288,
                               .layers = 2,
                               .heads = 9,
                               .kv_heads = 3,
                               .head_dim = 32,
                               .ffn = 514,
                               .max_positions = 64,
                               .activation = CRIA_ACT_SILU,
                               .norm_eps = 1e-5,
                               .rope = {.kind = CRIA_ROPE_DEFAULT, .theta = 1e5}};
}

static cria_graph *build(int model) {
    return graph_of(model ? llama() : opt_config(256, 2, 8));
}

static cria_status lower_all(const cria_graph *graph, const cria_plan *plan, cria_error *err) {
    cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph), sizeof *panel);
    cria_lower_options options = {.max_tokens = TOKENS, .max_rows = 4, .max_positions = 64, .panel = panel};
    cria_status status = CRIA_OK;
    assert_non_null(panel);
    for (int r = 0; r < cria_plan_ranks(plan) && status == CRIA_OK; r++) {
        cria_program *program;
        status = cria_lower(graph, plan, r, &options, &program, err);
        if (status == CRIA_OK) cria_program_destroy(program);
    }
    free(panel);
    return status;
}

/* A plan of one stage in which every operator is whole everywhere, but for those that are set otherwise. */
typedef struct {
    const cria_graph *graph;
    cria_stage stage;
    cria_strategy *strategies;
} one_stage;

static one_stage whole(const cria_graph *graph, int rows, int columns) {
    int ops = cria_graph_ops(graph);
    one_stage p = {.graph = graph, .strategies = calloc((size_t)ops, sizeof *p.strategies)};
    p.stage = (cria_stage){.end_op = ops, .mesh = {.size = {rows, columns}, .alpha = {1, 1}, .beta = {0.01, 0.01}}};
    const int8_t idle[CRIA_MESH_AXES] = {CRIA_IDLE, CRIA_IDLE};
    for (int i = 0; i < ops; i++)
        assert_null(cria_strategy_derive(graph, cria_graph_op(graph, i), &p.stage.mesh, idle, &p.strategies[i]));
    return p;
}

static cria_status lower_with(one_stage *p, int op, const cria_strategy *strategy, cria_error *err) {
    cria_strategy before = p->strategies[op];
    cria_plan *plan;
    p->strategies[op] = *strategy;
    cria_status status = cria_plan_create(p->graph, &p->stage, 1, p->strategies, &plan, err);
    p->strategies[op] = before;
    if (status != CRIA_OK) return status;
    status = lower_all(p->graph, plan, err);
    cria_plan_destroy(plan);
    return status;
}

/* A strategy with every output that can be made of it and cuts no tokens. Returns how many there were. */
static int lower_outputs(one_stage *p, int op, const cria_strategy *strategy) {
    int dims = cria_graph_tensor(p->graph, cria_graph_op(p->graph, op)->output)->dims, done = 0;
    cria_error err = {0};
    for (int a = CRIA_PARTIAL; a < dims; a++)
        for (int b = CRIA_PARTIAL; b < dims; b++) {
            cria_strategy other = *strategy;
            other.output.dim[0] = (int8_t)a;
            other.output.dim[1] = (int8_t)b;
            if (a == 0 || b == 0) continue;
            if (cria_strategy_check(p->graph, cria_graph_op(p->graph, op), &p->stage.mesh, &other, &err) != CRIA_OK)
                continue;
            if (lower_with(p, op, &other, &err) != CRIA_OK) fail_msg("operator %d: %s", op, err.message);
            done++;
        }
    return done;
}

static void every_strategy_of_every_operator_is_lowered(void **state) {
    (void)state;
    static const int meshes[][2] = {{1, 2}, {3, 1}, {2, 2}, {2, 3}};
    cria_strategy_options options = {
        .force_batch_axis = -1, .allow_replicated = true, .reduce_scatter = true, .symbolic = TOKENS, .element = 4};
    for (int model = 0; model < 2; model++)
        for (size_t m = 0; m < sizeof meshes / sizeof *meshes; m++) {
            cria_graph *graph = build(model);
            one_stage p = whole(graph, meshes[m][0], meshes[m][1]);
            int done = 0;
            for (int i = 0; i < cria_graph_ops(graph); i++) {
                cria_strategy all[CRIA_MAX_STRATEGIES];
                int count = cria_strategies(graph, cria_graph_op(graph, i), &p.stage.mesh, &options, all);
                for (int s = 0; s < count; s++) done += lower_outputs(&p, i, &all[s]);
            }
            assert_true(done > 5 * cria_graph_ops(graph));
            free(p.strategies);
            cria_graph_destroy(graph);
        }
}

static void a_plan_that_cuts_tokens_is_refused_by_the_operators_name(void **state) {
    (void)state;
    cria_graph *graph = build(1);
    one_stage p = whole(graph, 1, 2);
    int refused = 0;
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        const char *name = cria_graph_tensor(graph, op->output)->name;
        cria_op_index indices[CRIA_MAX_INDICES];
        int count = cria_op_indices(graph, op, indices);
        for (int k = 0; k < count; k++) {
            const int8_t cut[CRIA_MESH_AXES] = {CRIA_IDLE, (int8_t)k};
            cria_strategy strategy;
            cria_error err = {0};
            if (indices[k].dim.extent != CRIA_SYMBOLIC) continue;
            if (cria_strategy_derive(graph, op, &p.stage.mesh, cut, &strategy)) continue; /* attention: nobody may */
            assert_int_equal(lower_with(&p, i, &strategy, &err), CRIA_ERR_UNSUPPORTED);
            if (!strstr(err.message, name) || !strstr(err.message, "tokens")) fail_msg("%s: %s", name, err.message);
            refused++;
        }
    }
    assert_true(refused > cria_graph_ops(graph) / 2);
    free(p.strategies);
    cria_graph_destroy(graph);
}

static void whatever_the_serving_planner_chooses_is_lowered(void **state) {
    (void)state;
    static const char *const clusters[] = {"dgx-a100.json:1x4", "dgx-a100.json:2x2", "two-cores.json", "unequal.json"};
    int lowered = 0;
    for (size_t c = 0; c < sizeof clusters / sizeof *clusters; c++)
        for (int model = 0; model < 2; model++)
            for (int way = 0; way < 6; way++) {
                cria_cluster *cluster = cluster_of(clusters[c]);
                cria_graph *graph = build(model);
                cria_stages_options o;
                cria_stages_result r;
                cria_error err = {0};
                cria_stages_defaults(&o);
                o.objective = way % 2 ? CRIA_OBJECTIVE_THROUGHPUT : CRIA_OBJECTIVE_LATENCY;
                o.search = true;
                o.prompt_tokens = o.new_tokens = 32;
                o.batch = way % 2 ? 16 : 1;
                o.all_devices = o.in_order = way > 1; /* else one device is best for models so small */
                o.stages = way > 3 ? 1 : 0;
                cria_status status = cria_stages_plan(graph, cluster, &o, &r, &err);
                if (status == CRIA_OK) {
                    if (lower_all(graph, r.plan, &err) != CRIA_OK)
                        fail_msg("%s, model %d, way %d: %s", clusters[c], model, way, err.message);
                    lowered += r.chosen.devices > 1;
                    cria_stages_result_deinit(&r);
                } else if (status != CRIA_ERR_INFEASIBLE) {
                    fail_msg("%s, model %d, way %d: %s", clusters[c], model, way, err.message);
                }
                cria_graph_destroy(graph);
                cria_cluster_destroy(cluster);
            }
    assert_true(lowered >= 24); /* of 48: the others are of one device, or there is no such plan */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_strategy_of_every_operator_is_lowered),
        cmocka_unit_test(a_plan_that_cuts_tokens_is_refused_by_the_operators_name),
        cmocka_unit_test(whatever_the_serving_planner_chooses_is_lowered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
