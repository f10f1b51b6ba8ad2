/* Nets: specifications are read or refused by name, and the graphs are those that the closed forms are about. */
#include "parallel/nets/network.h"

#include "parallel/graph/index.h"
#include "parallel/plan/strategy.h"

#include <setjmp.h>
#include <stdarg.h>
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_mlp_step_has_no_operator_too_many),
        cmocka_unit_test(what_is_wrong_with_a_specification_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
