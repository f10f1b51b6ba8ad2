/* Nets: specifications are read or refused by name, and the graphs are those that the closed forms are about. */
#include "parallel/nets/network.h"

#include "parallel/graph/index.h"
#include "parallel/plan/strategy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static cria_graph *net(const char *spec) {
    cria_graph *graph = NULL;
    cria_error err = {0};
    if (cria_network_create(spec, &graph, &err) != CRIA_OK) fail_msg("%s: %s", spec, err.message);
    return graph;
}

static int count_kind(const cria_graph *graph, cria_op_kind kind) {
    int count = 0;
    for (int i = 0; i < cria_graph_ops(graph); i++) count += cria_graph_op(graph, i)->kind == kind;
    return count;
}

/* Two layers: two dots forward, two for the weights, one for the hidden value; x and y need no gradient, and the loss
 * itself is not computed. The updates take the place of the weights. */
static void an_mlp_step_has_no_operator_too_many(void **state) {
    (void)state;
    cria_graph *g = net("mlp:layers=2,hidden=128,batch=1024,bias=0,train=1");
    int dots = 0;
    for (int i = 0; i < cria_graph_ops(g); i++) dots += cria_op_multiplies(g, cria_graph_op(g, i));
    assert_int_equal(dots, 5);
    assert_int_equal(cria_graph_ops(g), 5 + 2 + 2); /* difference and its scale, two updates */
    assert_int_equal(count_kind(g, CRIA_OP_SGD), 2);
    for (int i = 0; i < cria_graph_ops(g); i++) {
        const cria_op *op = cria_graph_op(g, i);
        if (op->kind != CRIA_OP_SGD) continue;
        assert_int_equal(cria_op_alias(op), 0);
        assert_int_equal(cria_graph_tensor(g, op->input[0])->kind, CRIA_TENSOR_PARAM);
    }
    cria_graph_destroy(g);
    g = net("mlp:layers=12,bias=1,relu=1,loss=1,train=1");
    assert_int_equal(count_kind(g, CRIA_OP_SGD), 24);
    assert_int_equal(count_kind(g, CRIA_OP_ACTIVATION_GRADIENT), 11);
    cria_graph_destroy(g);
    g = net("mlp:layers=3,train=0");
    assert_int_equal(cria_graph_ops(g), 3);
    cria_graph_destroy(g);
}

static void check_refused(const char *spec, const char *names) {
    cria_graph *graph = NULL;
    cria_error err = {0};
    assert_int_not_equal(cria_network_create(spec, &graph, &err), CRIA_OK);
    assert_int_equal(err.status, CRIA_ERR_ARGUMENT);
    if (!strstr(err.message, names)) fail_msg("%s: \"%s\" does not name %s", spec, err.message, names);
}

static void what_is_wrong_with_a_specification_is_named(void **state) {
    (void)state;
    check_refused("mpl:layers=2", "mpl");
    check_refused("", "unknown net");
    check_refused("mlp:", "unknown key");
    check_refused("mlp:layer=2", "layer");
    check_refused("mlp:layers", "layers= needs a number");
    check_refused("mlp:layers=", "layers=");
    check_refused("mlp:layers=two", "layers=two");
    check_refused("mlp:layers=0", "from 1 to");
    check_refused("mlp:layers=-3", "layers=-3");
    check_refused("mlp:layers=2.5", "layers=2.5");
    check_refused("mlp:layers=99999999999999999999999", "layers=");
    check_refused("mlp:bias=2", "bias=2");
    check_refused("mlp:layers=2,,hidden=3", "unknown key \"\"");
    check_refused("mlp:size=39b", "size");
}

/* ---- Every net. ---- */

static const char *const all[] = {"mlp:layers=3,bias=1,relu=1,loss=1,train=1",
                                  "attention",
                                  "attention:whole=0",
                                  "gpt:layers=2,tied=1",
                                  "gpt:train=0",
                                  "moe:layers=2",
                                  "wide-resnet:layers=14",
                                  "chain",
                                  "chain:steps=3,reshape=1",
                                  "sum",
                                  "sum:dots=3,readers=6,whole=0"};
enum { ALL = sizeof all / sizeof *all };

/* Every dim of every operand is exactly one index of its operator, in proportion; output dims come first. */
static void every_dim_of_every_operand_of_every_net_is_one_index(void **state) {
    (void)state;
    for (int n = 0; n < ALL; n++) {
        cria_graph *g = net(all[n]);
        for (int i = 0; i < cria_graph_ops(g); i++) {
            const cria_op *op = cria_graph_op(g, i);
            cria_op_index index[CRIA_MAX_INDICES];
            int count = cria_op_indices(g, op, index);
            for (int k = 0; k <= CRIA_MAX_INPUTS; k++) {
                int id = k < CRIA_MAX_INPUTS ? op->input[k] : op->output, seen = 0;
                const cria_tensor *t = id < 0 ? NULL : cria_graph_tensor(g, id);
                for (int x = 0; x < count; x++) {
                    int d = k < CRIA_MAX_INPUTS ? index[x].input[k] : index[x].output;
                    if (d < 0) continue;
                    assert_true(t && d < t->dims && !(seen >> d & 1));
                    bool window = op->kind >= CRIA_OP_CONV && index[x].split == CRIA_SPLIT_NEVER;
                    if (!window) assert_true(t->dim[d].extent % index[x].dim.extent == 0);
                    /* What is cut together is cut at the same places. */
                    if (index[x].split != CRIA_SPLIT_NEVER)
                        assert_true(cria_graph_unit(g, t->dim[d]) ==
                                    index[x].unit * (t->dim[d].extent / index[x].dim.extent));
                    if (k == CRIA_MAX_INPUTS) assert_int_equal(x, d);
                    seen |= 1 << d;
                }
                if (t) assert_int_equal(seen, (1 << t->dims) - 1);
            }
        }
        cria_graph_destroy(g);
    }
}

static void every_operator_of_every_net_can_be_cut_somehow(void **state) {
    (void)state;
    cria_mesh mesh = {.size = {2, 2}, .alpha = {1, 1}, .beta = {1, 1}, .tie = 1};
    cria_strategy_options options = {.force_batch_axis = -1, .allow_replicated = true, .symbolic = 1, .element = 4};
    static cria_strategy list[CRIA_MAX_STRATEGIES];
    for (int n = 0; n < ALL; n++) {
        cria_graph *g = net(all[n]);
        for (int i = 0; i < cria_graph_ops(g); i++) {
            const cria_op *op = cria_graph_op(g, i);
            int count = cria_strategies(g, op, &mesh, &options, list);
            bool alone = op->kind == CRIA_OP_WHOLE || cria_graph_tensor(g, op->output)->dims == 0;
            if (count < (alone ? 1 : 2))
                fail_msg("%s: %s has %d strategies", all[n], cria_graph_tensor(g, op->output)->name, count);
        }
        cria_graph_destroy(g);
    }
}

/* Parameters that Alpa's artifact reports for its sizes. */
static void published_sizes_have_the_published_parameters(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        double billions, tolerance;
    } size[] = {
        {"gpt:size=350m,tied=1", 0.355, 0.01},     {"gpt:size=760m,tied=1", 0.759, 0.01},
        {"gpt:size=1.3b,tied=1", 1.3, 0.02},       {"gpt:size=2.6b,tied=1", 2.649, 0.01},
        {"gpt:size=6.7b,tied=1", 6.6537, 0.01},    {"gpt:size=15b,tied=1", 15, 0.04},
        {"gpt:size=39b,tied=1", 39, 0.01},         {"moe:size=380m,tied=1", 0.3835, 0.01},
        {"moe:size=690m,tied=1", 0.6857, 0.01},    {"moe:size=1.3b,tied=1", 1.3468, 0.01},
        {"moe:size=2.4b,tied=1", 2.383, 0.01},     {"moe:size=10b,tied=1", 10.1696, 0.01},
        {"moe:size=27b,tied=1", 26.6481, 0.01},    {"moe:size=70b,tied=1", 70.4152, 0.01},
        {"wide-resnet:size=250m", 0.254123, 1e-3}, {"wide-resnet:size=500m", 0.495046, 1e-3},
        {"wide-resnet:size=1b", 1.005653, 1e-3},   {"wide-resnet:size=2b", 1.965011, 1e-3},
        {"wide-resnet:size=4b", 4.0009, 1e-3},     {"wide-resnet:size=6.8b", 6.7277, 1e-3},
        {"wide-resnet:size=13b", 13.2671, 1e-5},
    };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        cria_graph *g = net(size[i].spec);
        double billions = (double)cria_graph_param_count(g) / 1e9;
        if (fabs(billions / size[i].billions - 1) > size[i].tolerance)
            fail_msg("%s has %.6f billion parameters, not %.6f", size[i].spec, billions, size[i].billions);
        cria_graph_destroy(g);
    }
}

/* 96 B S L H^2 (1 + S / 6H) + 6 B S H V counts a second forward pass for recomputation: 72 without. */
static void a_step_of_gpt_has_the_operations_of_the_formula(void **state) {
    (void)state;
    cria_graph *g = net("gpt:size=1.3b,batch=4");
    double b = 4, s = 1024, l = 24, h = 2048, v = 51200;
    double expected = 72 * b * s * l * h * h * (1 + s / (6 * h)) + 6 * b * s * h * v, found = 0;
    double attention = 4 * b * s * s * h * l; /* forward; backward it costs 2.5 times as much, the formula says 2 */
    for (int i = 0; i < cria_graph_ops(g); i++)
        if (cria_op_multiplies(g, cria_graph_op(g, i))) found += cria_op_flops(g, cria_graph_op(g, i), 1, 1);
    assert_true(fabs(found / (expected + 0.5 * attention) - 1) < 1e-9);
    cria_graph_destroy(g);
}

/* The sections behind the last heading of docs/nets.md are what the table of nets says today. */
static void the_document_lists_every_net_and_key(void **state) {
    (void)state;
    cria_text text, said;
    cria_text_init(&text);
    cria_text_init(&said);
    cria_network_document(&text);
    FILE *file = fopen(CRIA_SOURCE_DIR "/docs/nets.md", "rb");
    assert_non_null(file);
    char bytes[4096];
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, file)) > 0;) cria_text_append(&said, bytes, n);
    fclose(file);
    const char *at = strstr(said.data, "\n### mlp\n");
    if (!at || strcmp(at, text.data) != 0) {
        FILE *wanted = fopen("nets_tail.md", "wb");
        if (wanted) {
            fwrite(text.data, 1, text.length, wanted);
            fclose(wanted);
        }
        fail_msg("docs/nets.md should end with what now is in nets_tail.md in the build folder");
    }
    cria_text_deinit(&text);
    cria_text_deinit(&said);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_mlp_step_has_no_operator_too_many),
        cmocka_unit_test(every_dim_of_every_operand_of_every_net_is_one_index),
        cmocka_unit_test(every_operator_of_every_net_can_be_cut_somehow),
        cmocka_unit_test(published_sizes_have_the_published_parameters),
        cmocka_unit_test(a_step_of_gpt_has_the_operations_of_the_formula),
        cmocka_unit_test(the_document_lists_every_net_and_key),
        cmocka_unit_test(what_is_wrong_with_a_specification_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
