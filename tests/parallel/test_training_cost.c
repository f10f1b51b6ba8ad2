/* Training is priced in two ways: stages derive the backward pass from the forward strategies, the intra-operator pass
 * plans the training graph. Where both cut operators by the same rule, they must agree. */
#include "parallel/nets/network.h"
#include "parallel/plan/handmade.h"
#include "parallel/plan/stages_layer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MOST = 8 };

typedef struct {
    double compute, communication;
} seconds;

typedef struct {
    const cria_cluster *cluster;
    const int *type;
    cria_step_shape shape;
    cria_element element;
} context;

static const cria_element half = {CRIA_RATE_F16, 2, 2, 2, NULL};

static cria_graph *network(const char *net, int train) {
    char spec[160];
    cria_graph *g;
    cria_error err = {0};
    snprintf(spec, sizeof spec, "%s,train=%d", net, train);
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

static cria_layer_task training(const cria_graph *graph, const cria_cluster *cluster, const int *last_use,
                                cria_step_shape shape) {
    return (cria_layer_task){.graph = graph,
                             .cluster = cluster,
                             .last_use = last_use,
                             .train = true,
                             .phase = {shape, shape},
                             .element = half,
                             .optimizer = 12};
}

/* Forward strategies by the usual way, the backward pass derived. */
static seconds derived(const char *net, const cria_cluster *cluster, const int *type, const cria_mesh *mesh,
                       cria_step_shape shape) {
    cria_graph *g = network(net, 0);
    int ops = cria_graph_ops(g), *last = malloc(((size_t)cria_graph_tensors(g) + 1) * sizeof *last);
    for (int t = 0; t < cria_graph_tensors(g); t++) cria_graph_uses(g, t, &last[t]);
    cria_layer_task task = training(g, cluster, last, shape);
    cria_strategy *strategy = calloc((size_t)ops, sizeof *strategy);
    cria_layer_usual_way(&task, 0, ops, mesh, (cria_axis_use[]){CRIA_AXIS_BATCH, CRIA_AXIS_TENSOR}, false, strategy);
    cria_layer_cost cost;
    assert_true(cria_layer_evaluate(&task, 0, ops, mesh, type, 1, strategy, &cost));
    seconds out = {0, cost.sync};
    for (int p = 0; p < CRIA_PHASES; p++) {
        out.compute += cost.phase[p].compute;
        out.communication += cost.phase[p].collectives + cost.phase[p].resharding;
    }
    free(strategy);
    free(last);
    cria_graph_destroy(g);
    return out;
}

static double compute(void *data, const cria_graph *g, const cria_op *op, const cria_mesh *mesh,
                      const cria_strategy *strategy) {
    const context *c = data;
    if (cria_op_alias(op) >= 0) return 0; /* updates are priced apart */
    return cria_cost_operator(c->cluster, c->type, g, op, mesh, &c->shape, &c->element, strategy);
}

/* The training graph under Megatron's rule, or data parallel. */
static seconds planned(const char *net, const cria_cluster *cluster, const int *type, const cria_mesh *mesh,
                       cria_step_shape shape) {
    cria_graph *g = network(net, 1);
    int ops = cria_graph_ops(g);
    context c = {cluster, type, shape, half};
    cria_intra_options o;
    cria_intra_defaults(&o);
    o.strategies.element = 2;
    o.strategies.reduce_scatter = false;
    o.compute = compute;
    o.context = &c;
    cria_strategy *strategy = calloc((size_t)ops, sizeof *strategy);
    cria_intra_result r;
    cria_error err = {0};
    /* Along a line the rule would cut tensors, whichever axis it is. */
    cria_hand hand = mesh->size[1] > 1 ? CRIA_HAND_MEGATRON : CRIA_HAND_DATA_PARALLEL;
    assert_int_equal(cria_handmade(hand, g, 0, ops, mesh, &o, strategy, &err), CRIA_OK);
    if (cria_intra_fixed(g, 0, ops, mesh, &o, strategy, &r, &err) != CRIA_OK) fail_msg("%s", err.message);
    seconds out = {r.compute, r.collectives + r.resharding};
    cria_intra_result_deinit(&r);
    free(strategy);
    cria_graph_destroy(g);
    return out;
}

static void costs_derived_from_forward_strategies_are_those_of_the_training_graph(void **state) {
    (void)state;
    static const struct {
        const char *net;
        cria_step_shape shape;
        double tolerance;
    } nets[] = {
        {"mlp:layers=4,hidden=1024,batch=4096", {4096, 4096, 4096, 1}, 0.12},
        {"gpt:layers=4,hidden=2048,heads=16,batch=8,vocab=51200,adam=0", {8192, 8192, 8, 1024}, 0.12},
    };
    static const int shapes[][2] = {{1, 1}, {8, 1}, {1, 8}, {2, 4}, {4, 2}};
    cria_cluster *cluster;
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json:1x8", &cluster, NULL),
                     CRIA_OK);
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        for (size_t m = 0; m < sizeof shapes / sizeof *shapes; m++) {
            int device[MOST], type[MOST];
            double share[2 * MOST];
            for (int d = 0; d < MOST; d++) {
                device[d] = d;
                type[d] = cria_cluster_type_of(cluster, d);
            }
            cria_mesh mesh = cria_cost_mesh(cluster, device, shapes[m][0], shapes[m][1], CRIA_RATE_F16, false, share);
            seconds a = derived(nets[i].net, cluster, type, &mesh, nets[i].shape),
                    b = planned(nets[i].net, cluster, type, &mesh, nets[i].shape);
            if (fabs(a.compute / b.compute - 1) > nets[i].tolerance ||
                fabs(a.communication - b.communication) > nets[i].tolerance * b.communication)
                fail_msg("%s on %d x %d: derived %g s and %g s of communication, planned %g s and %g s", nets[i].net,
                         shapes[m][0], shapes[m][1], a.compute, a.communication, b.compute, b.communication);
        }
    cria_cluster_destroy(cluster);
}

/* The cost of a whole net on a line of devices that has the batch cut over it. */
static cria_layer_cost along_the_batch(const char *net, cria_step_shape shape, int devices, bool experts) {
    cria_cluster *cluster;
    cria_graph *g = network(net, 0);
    int ops = cria_graph_ops(g), *last = malloc(((size_t)cria_graph_tensors(g) + 1) * sizeof *last);
    int device[MOST], type[MOST];
    double share[2 * MOST];
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json:1x8", &cluster, NULL),
                     CRIA_OK);
    for (int t = 0; t < cria_graph_tensors(g); t++) cria_graph_uses(g, t, &last[t]);
    for (int d = 0; d < MOST; d++) {
        device[d] = d;
        type[d] = cria_cluster_type_of(cluster, d);
    }
    cria_layer_task task = training(g, cluster, last, shape);
    cria_mesh mesh = cria_cost_mesh(cluster, device, devices, 1, CRIA_RATE_F16, false, share);
    cria_strategy *strategy = calloc((size_t)ops, sizeof *strategy);
    cria_axis_use use[] = {devices > 1 ? CRIA_AXIS_BATCH : CRIA_AXIS_IDLE, CRIA_AXIS_IDLE};
    cria_layer_usual_way(&task, 0, ops, &mesh, use, experts, strategy);
    cria_layer_cost cost;
    assert_true(cria_layer_evaluate(&task, 0, ops, &mesh, type, devices > 1, strategy, &cost));
    free(strategy);
    free(last);
    cria_graph_destroy(g);
    cria_cluster_destroy(cluster);
    return cost;
}

/* Groups of tokens lie where their sequences do, so that nothing travels forward and every gradient is summed; experts
 * that are cut over the batch get their tokens from everywhere, and only the rest is summed. */
static void tokens_travel_to_experts_or_their_gradients_are_summed(void **state) {
    (void)state;
    const char *net = "moe:layers=1,hidden=256,heads=4,seq=128,batch=8,vocab=512,experts=8,group=128";
    const cria_step_shape shape = {1024, 1024, 8, 128};
    cria_layer_cost data = along_the_batch(net, shape, 4, false), cut = along_the_batch(net, shape, 4, true);
    const double experts = 2.0 * 8 * 256 * 8 * 256; /* parameters */
    assert_true(data.sent[0] == 0);
    assert_true(fabs(data.parameters - cut.parameters - experts * 3 / 4) < 1);
    /* An all-reduce sends 2 * 3 / 4 of what it sums. */
    assert_true(fabs(data.sync_sent - cut.sync_sent - experts * half.weight * 1.5) < 1);
    /* Every device sends 3 / 4 of its part of two choices for each token, there and back. */
    double all_to_all = 2 * 2 * 3.0 / 4 * (1024 / 4) * 256 * half.activation;
    assert_true(fabs(cut.sent[0] - all_to_all) < 1e-3 * all_to_all);
}

/* Of a product its input, which is ReLU's output; ReLU's own input is not needed again, that of GELU would be. */
static void a_relu_between_products_keeps_nothing_of_its_own(void **state) {
    (void)state;
    const cria_step_shape shape = {32, 32, 32, 1};
    double hidden = 32 * 64 * half.activation;
    assert_true(fabs(along_the_batch("mlp:layers=3,hidden=64,batch=32", shape, 1, false).saved - 2 * hidden) < 1);
    assert_true(fabs(along_the_batch("mlp:layers=3,hidden=64,batch=32,relu=1", shape, 1, false).saved - 2 * hidden) <
                1);
}

/* Where a byte takes a second and nothing else does, seconds and bytes of every collective are the same number:
 * forward, backward, of gradients, and of parameters that are gathered. */
static void as_many_bytes_are_sent_as_are_paid_for(void **state) {
    (void)state;
    static const int shapes[][2] = {{8, 1}, {1, 8}, {2, 4}, {4, 2}};
    cria_cluster *cluster;
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json:1x8", &cluster, NULL),
                     CRIA_OK);
    cria_graph *g = network("gpt:layers=2,hidden=512,heads=8,batch=8,seq=64,vocab=1024,loss=1", 0);
    int ops = cria_graph_ops(g), type[MOST] = {0}, *last = malloc(((size_t)cria_graph_tensors(g) + 1) * sizeof *last);
    for (int t = 0; t < cria_graph_tensors(g); t++) cria_graph_uses(g, t, &last[t]);
    cria_step_shape shape = {512, 512, 8, 64};
    cria_layer_task task = training(g, cluster, last, shape);
    cria_strategy *strategy = calloc((size_t)ops, sizeof *strategy);
    for (size_t m = 0; m < sizeof shapes / sizeof *shapes; m++) {
        cria_mesh mesh = {.size = {shapes[m][0], shapes[m][1]}, .beta = {1, 1}};
        cria_layer_usual_way(&task, 0, ops, &mesh, (cria_axis_use[]){CRIA_AXIS_BATCH, CRIA_AXIS_TENSOR}, false,
                             strategy);
        cria_layer_cost c;
        assert_true(cria_layer_evaluate(&task, 0, ops, &mesh, type, 1, strategy, &c));
        for (int p = 0; p < CRIA_PHASES; p++) {
            double paid = c.phase[p].collectives + c.phase[p].resharding;
            assert_true(fabs(c.sent[p] - paid) <= 1e-9 * paid);
        }
        assert_true(fabs(c.sync_sent - c.sync) <= 1e-9 * c.sync);
        assert_true(fabs(c.gather_sent - c.gather) <= 1e-9 * c.gather);
        assert_true(fabs(c.scatter_sent - c.scatter) <= 1e-9 * c.scatter);
        /* The backward pass of tensor cuts sums gradients of values; a batch cut sums those of weights. */
        assert_true((c.sent[1] > 0) == (shapes[m][1] > 1));
        assert_true((c.sync_sent > 0) == (shapes[m][0] > 1));
    }
    free(strategy);
    free(last);
    cria_graph_destroy(g);
    cria_cluster_destroy(cluster);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_derived_from_forward_strategies_are_those_of_the_training_graph),
        cmocka_unit_test(as_many_bytes_are_sent_as_are_paid_for),
        cmocka_unit_test(a_relu_between_products_keeps_nothing_of_its_own),
        cmocka_unit_test(tokens_travel_to_experts_or_their_gradients_are_summed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
