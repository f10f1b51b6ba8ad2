/* Plans by rule do what their rule says, and the intra-operator pass is never worse than any of them. */
#include "parallel/nets/network.h"
#include "parallel/plan/handmade.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double compute(void *context, const cria_graph *g, const cria_op *op, const cria_mesh *mesh,
                      const cria_strategy *strategy) {
    double flops = cria_op_info_of(op->kind)->flops(g, op, 64, 1);
    return *(double *)context * flops * cria_strategy_share(g, op, mesh, 64, strategy);
}

static cria_graph *network(const char *spec) {
    cria_graph *g;
    cria_error err = {0};
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s: %s", spec, err.message);
    return g;
}

/* The cost of a rule's plan. */
static cria_status by_hand(cria_hand hand, const cria_graph *g, const cria_mesh *mesh, const cria_intra_options *o,
                           cria_intra_result *out, cria_error *err) {
    int ops = cria_graph_ops(g);
    cria_strategy *strategies = calloc((size_t)ops, sizeof *strategies);
    cria_status status = cria_handmade(hand, g, 0, ops, mesh, o, strategies, err);
    if (status == CRIA_OK) status = cria_intra_fixed(g, 0, ops, mesh, o, strategies, out, err);
    free(strategies);
    return status;
}

static const char *const nets[] = {"mlp:layers=2,hidden=128,batch=1024,train=1",
                                   "mlp:layers=3,hidden=256,batch=32,bias=1,relu=1,train=1",
                                   "mlp:layers=4,hidden=100,batch=60,bias=1,train=1",
                                   "mlp:layers=2,hidden=64,batch=64",
                                   "gpt:layers=1,hidden=96,heads=12,seq=32,batch=24,vocab=200",
                                   "moe:layers=2,hidden=32,heads=4,seq=16,batch=8,vocab=100,experts=4,group=32",
                                   "wide-resnet:layers=14,image=16,channels=8,classes=30,batch=24,adam=0"};
enum { SMALL = 4 }; /* so many of them are small */
static const int meshes[][2] = {{1, 4}, {3, 1}, {2, 4}, {4, 3}, {8, 2}};

static void the_pass_is_never_worse_than_a_rule(void **state) {
    (void)state;
    int compared = 0;
    for (size_t n = 0; n < sizeof nets / sizeof *nets; n++) {
        cria_graph *g = network(nets[n]);
        for (size_t m = 0; m < sizeof meshes / sizeof *meshes; m++)
            for (int kind = 0; kind < (n < SMALL ? 4 : 1); kind++) {
                double rate = kind % 2 ? 1 : 1e-3;
                cria_mesh mesh = {
                    .size = {meshes[m][0], meshes[m][1]}, .alpha = {1, 2}, .beta = {1, kind < 2 ? 1 : 0.05}};
                cria_intra_options o;
                cria_intra_defaults(&o);
                o.strategies.symbolic = 64;
                o.compute = compute;
                o.context = &rate;
                o.gather_parameters = true;
                cria_error err = {0};
                cria_intra_result best;
                if (cria_intra_solve(g, 0, cria_graph_ops(g), &mesh, &o, &best, &err) != CRIA_OK)
                    fail_msg("%s: %s", nets[n], err.message);
                for (int hand = 0; hand < CRIA_HAND_COUNT; hand++) {
                    cria_intra_result rule;
                    if (by_hand(hand, g, &mesh, &o, &rule, &err) != CRIA_OK)
                        fail_msg("%s on %d x %d by %s: %s", nets[n], mesh.size[0], mesh.size[1], cria_hand_name(hand),
                                 err.message);
                    if (best.objective > rule.objective * (1 + 1e-9))
                        fail_msg("%s on %d x %d: %.9g, but %s %.9g", nets[n], mesh.size[0], mesh.size[1],
                                 best.objective, cria_hand_name(hand), rule.objective);
                    compared++;
                    cria_intra_result_deinit(&rule);
                }
                cria_intra_result_deinit(&best);
            }
        cria_graph_destroy(g);
    }
    assert_int_equal(compared, (SMALL * 4 + 3) * 5 * CRIA_HAND_COUNT);
}

static double all_reduce(double bytes) {
    return 1 + 2 * 3.0 / 4 * bytes;
}
static double gather(double bytes) {
    return 1 + 3.0 / 4 * bytes;
}

/* On four devices in a row, where communication is the only cost. */
static void rules_communicate_what_their_papers_say(void **state) {
    (void)state;
    cria_graph *g = network("mlp:layers=2,hidden=128,batch=64,train=1");
    cria_mesh mesh = {.size = {1, 4}, .alpha = {1, 1}, .beta = {1, 1}};
    cria_intra_options o;
    cria_intra_defaults(&o);
    o.gather_parameters = true;
    const double weight = 128 * 128 * 4, activation = 64 * 128 * 4;
    const double expected[CRIA_HAND_COUNT] = {
        [CRIA_HAND_ONE_DEVICE] = 0,
        [CRIA_HAND_DATA_PARALLEL] = 2 * all_reduce(weight),
        [CRIA_HAND_MEGATRON] = all_reduce(activation),
        /* Scattered gradients, gathered parameters. */
        [CRIA_HAND_ZERO2] = 2 * (gather(weight) + gather(weight)),
        /* The second weight is gathered backward too; x needs no gradient. */
        [CRIA_HAND_ZERO3] = 2 * (gather(weight) + gather(weight)) + gather(weight),
        [CRIA_HAND_LARGEST_DIM] = -1,
    };
    int64_t peak[CRIA_HAND_COUNT];
    for (int hand = 0; hand < CRIA_HAND_COUNT; hand++) {
        cria_intra_result rule;
        cria_error err = {0};
        if (by_hand(hand, g, &mesh, &o, &rule, &err) != CRIA_OK) fail_msg("%s: %s", cria_hand_name(hand), err.message);
        if (expected[hand] >= 0 && fabs(rule.objective - expected[hand]) > 1e-9 * (1 + expected[hand]))
            fail_msg("%s: %.9g, not %.9g", cria_hand_name(hand), rule.objective, expected[hand]);
        peak[hand] = rule.peak_bytes;
        cria_intra_result_deinit(&rule);
    }
    assert_true(peak[CRIA_HAND_ZERO3] < peak[CRIA_HAND_ZERO2]);
    assert_true(peak[CRIA_HAND_ZERO2] <= peak[CRIA_HAND_DATA_PARALLEL]);
    cria_graph_destroy(g);
}

/* Which index of an operator the rule cuts over a line of four; "": none. */
static const char *cut_of(const cria_graph *g, const cria_strategy *strategies, const char *name) {
    for (int i = 0; i < cria_graph_ops(g); i++) {
        const cria_op *op = cria_graph_op(g, i);
        if (strcmp(cria_graph_tensor(g, op->output)->name, name) != 0) continue;
        cria_op_index index[CRIA_MAX_INDICES];
        cria_op_indices(g, op, index);
        int which = strategies[i].index[0];
        return which >= 0 ? cria_dim_to_name(g, index[which].dim.name) : "";
    }
    fail_msg("no operator \"%s\"", name);
    return NULL;
}

/* The largest dims of a transformer's matrices are those that Megatron-LM cuts: three times the width comes out of
 * queries, keys and values together, as much goes into the attention's output as comes out of it, and the ffn is wider.
 * Token ids are cut by the sequence, where there are fewer sequences, and the residual stream with them. */
static void the_largest_dims_of_a_transformer_are_heads_ffn_vocabulary_and_sequence(void **state) {
    (void)state;
    static const char *const expected[][2] = {
        {"token embedding", "sequence"},
        {"layer 0 attention norm", "sequence"},
        {"layer 0 q", "head"},
        {"layer 0 v", "head"},
        {"layer 0 attention", "head"},
        {"layer 0 attention output", "head"},
        {"layer 0 attention residual", "sequence"},
        {"layer 0 fc1", "ffn"},
        {"layer 0 fc2", "ffn"},
        {"logits", "vocab"},
        {"gradient of layer 0 fc1.weight", "ffn"},
        {"updated layer 0 fc1.weight", "ffn"},
        {"updated layer 0 q.weight mean", "head"},
    };
    cria_graph *g = network("gpt:layers=1,hidden=512,heads=8,seq=64,batch=8,vocab=2048,tied=1");
    cria_mesh mesh = {.size = {4, 1}, .alpha = {1, 1}, .beta = {1, 1}};
    cria_intra_options o;
    cria_intra_defaults(&o);
    o.gather_parameters = true;
    cria_strategy *strategies = calloc((size_t)cria_graph_ops(g), sizeof *strategies);
    assert_int_equal(cria_handmade(CRIA_HAND_LARGEST_DIM, g, 0, cria_graph_ops(g), &mesh, &o, strategies, NULL),
                     CRIA_OK);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const char *cut = cut_of(g, strategies, expected[i][0]);
        if (strcmp(cut, expected[i][1]) != 0) fail_msg("%s: %s, not %s", expected[i][0], cut, expected[i][1]);
    }
    free(strategies);
    cria_graph_destroy(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pass_is_never_worse_than_a_rule),
        cmocka_unit_test(rules_communicate_what_their_papers_say),
        cmocka_unit_test(the_largest_dims_of_a_transformer_are_heads_ffn_vocabulary_and_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
