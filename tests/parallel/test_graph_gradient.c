/* Gradients: of every operator that has one, and of whole training steps, against central differences in double
 * precision, evaluated from the operators' definitions (tests/parallel/interpret.h). */
#include "parallel/graph/gradient.h"

#include "parallel/nets/network.h"
#include "tests/parallel/interpret.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NONE = CRIA_NO_TENSOR, MOST_PROBES = 40 };

/* The loss is run again with one element moved; where a tensor has many, some are probed. Analytic and numeric slopes
 * agree within `tolerance` of the largest slope of the tensor. */
static void check_tensor(const cria_graph *g, double **value, int forward_ops, int loss, int tensor, int gradient,
                         double tolerance) {
    const cria_tensor *t = cria_graph_tensor(g, tensor);
    int64_t elements = interpret_elements(t), stride = (elements + MOST_PROBES - 1) / MOST_PROBES;
    double largest = 1e-3; /* the gradient of a key's bias is zero */
    for (int64_t e = 0; e < elements; e++) largest = fmax(largest, fabs(value[gradient][e]));
    for (int64_t e = 0; e < elements; e += stride) {
        const double h = 1e-5, kept = value[tensor][e];
        double side[2];
        for (int s = 0; s < 2; s++) {
            value[tensor][e] = kept + (s ? h : -h);
            interpret_run(g, value, 0, forward_ops);
            side[s] = *value[loss];
        }
        value[tensor][e] = kept;
        double numeric = (side[1] - side[0]) / (2 * h), analytic = value[gradient][e];
        if (!(fabs(numeric - analytic) <= tolerance * largest))
            fail_msg("%s of %s: element %lld: %.10g by differences, %.10g by gradient (largest %.3g)", t->name,
                     cria_graph_name(g), (long long)e, numeric, analytic, largest);
    }
}

static int check_all(cria_graph *g, int loss, double width, uint64_t seed) {
    cria_error err = {0};
    int count = cria_graph_tensors(g), forward_ops = cria_graph_ops(g), checked = 0;
    int *gradient = malloc((size_t)count * sizeof *gradient);
    if (cria_graph_gradient(g, loss, gradient, &err) != CRIA_OK) fail_msg("%s: %s", cria_graph_name(g), err.message);
    double **value = interpret_create(g);
    interpret_fill(g, value, width, seed);
    interpret_run(g, value, 0, cria_graph_ops(g));
    for (int t = 0; t < count; t++) {
        const cria_tensor *tensor = cria_graph_tensor(g, t);
        bool leaf =
            tensor->differentiable || (tensor->kind == CRIA_TENSOR_PARAM && tensor->param != CRIA_PARAM_ROPE_TABLE);
        if (!leaf) continue;
        if (gradient[t] < 0) fail_msg("%s has no gradient", tensor->name);
        check_tensor(g, value, forward_ops, loss, t, gradient[t], 1e-6);
        checked++;
    }
    interpret_destroy(g, value);
    free(gradient);
    return checked;
}

/* ---- One operator at a time: every element of its output enters the loss with a weight of its own. ---- */

typedef struct {
    cria_graph *g;
    cria_dim a, b, c, d;
} bench;

static bench make(const char *name) {
    bench m = {.g = cria_graph_create(name, 1)};
    m.a = (cria_dim){cria_graph_dim(m.g, "a"), 3};
    m.b = (cria_dim){cria_graph_dim(m.g, "b"), 4};
    m.c = (cria_dim){cria_graph_dim(m.g, "c"), 2};
    m.d = (cria_dim){cria_graph_dim(m.g, "d"), 5};
    cria_graph_set_group(m.g, 1);
    return m;
}

static int param(bench *m, const char *name, int dims, const cria_dim *dim) {
    return cria_graph_param(m->g, CRIA_PARAM_PLAIN, dims, dim, "%s", name);
}
#define DIMS(...)                                                                                                      \
    (int)(sizeof((cria_dim[]){__VA_ARGS__}) / sizeof(cria_dim)), (cria_dim[]) {                                        \
        __VA_ARGS__                                                                                                    \
    }

static cria_op with_dims(cria_op op, int dims, const cria_dim *dim) {
    op.dims = dims;
    memcpy(op.dim, dim, (size_t)dims * sizeof *dim);
    return op;
}

static void finish(bench *m, cria_op op, int leaves) {
    int y = cria_graph_add(m->g, op, "y");
    cria_error err = {0};
    if (cria_graph_check(m->g, &err) != CRIA_OK) fail_msg("%s", err.message);
    const cria_tensor like = *cria_graph_tensor(m->g, y);
    int weight = cria_graph_tensor_add(m->g, CRIA_TENSOR_INPUT, like.dims, like.dim, "weight of y");
    cria_op sum = {.kind = CRIA_OP_EINSUM, .input = {y, weight, NONE, NONE}, .scale = 1};
    int loss = cria_graph_add(m->g, sum, "loss");
    assert_int_equal(check_all(m->g, loss, 1, 7), leaves);
    cria_graph_destroy(m->g);
}

static void sums_and_differences_also_of_operands_that_are_repeated_or_turned(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (int dims = 0; dims <= 2; dims++) { /* of the second operand */
            bench m = make(kind ? "sub" : "add");
            int x = param(&m, "x", DIMS(m.a, m.b)), y = param(&m, "y", dims, (cria_dim[]){m.b, m.a});
            finish(&m, (cria_op){.kind = kind ? CRIA_OP_SUB : CRIA_OP_ADD, .input = {x, y, NONE, NONE}}, 2);
        }
}

static void products_of_elements_also_with_themselves(void **state) {
    (void)state;
    bench m = make("mul");
    int x = param(&m, "x", DIMS(m.a, m.b)), y = param(&m, "y", DIMS(m.a, m.b));
    finish(&m, (cria_op){.kind = CRIA_OP_MUL, .input = {x, y, NONE, NONE}}, 2);
    m = make("square");
    x = param(&m, "x", DIMS(m.a, m.b));
    finish(&m, (cria_op){.kind = CRIA_OP_MUL, .input = {x, x, NONE, NONE}}, 1);
}

static void finish_einsum(bench *m, int x, int y, int dims, const cria_dim *dim) {
    cria_op op = {.kind = CRIA_OP_EINSUM, .input = {x, y, NONE, NONE}, .scale = -0.75F};
    finish(m, with_dims(op, dims, dim), y < 0 || x == y ? 1 : 2);
}

static void einsums_of_every_form(void **state) {
    (void)state;
    bench m = make("product");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b)), param(&m, "y", DIMS(m.c, m.b)), DIMS(m.a, m.c));
    m = make("batched product");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b, m.c)), param(&m, "y", DIMS(m.d, m.b, m.a)), DIMS(m.a, m.d, m.c));
    m = make("a dim that only one operand has is summed");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b, m.c)), param(&m, "y", DIMS(m.a, m.d)), DIMS(m.a, m.b));
    m = make("a dim that only the output has is repeated");
    finish_einsum(&m, param(&m, "x", DIMS(m.a)), param(&m, "y", DIMS(m.b)), DIMS(m.c, m.b, m.a));
    m = make("transpose");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b, m.c)), NONE, DIMS(m.c, m.a, m.b));
    m = make("sum");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b, m.c)), NONE, DIMS(m.b));
    m = make("sum of all");
    finish_einsum(&m, param(&m, "x", DIMS(m.a, m.b)), NONE, 0, &m.a);
    m = make("sum of squares");
    int x = param(&m, "x", DIMS(m.a, m.b));
    finish_einsum(&m, x, x, 0, &m.a);
}

static void linear_layers_with_and_without_bias(void **state) {
    (void)state;
    for (int bias = 0; bias < 2; bias++) {
        bench m = make("linear");
        int x = param(&m, "x", DIMS(m.a, m.b, m.c)), w = param(&m, "w", DIMS(m.d, m.b, m.c));
        int b = bias ? param(&m, "bias", DIMS(m.d)) : NONE;
        finish(&m, (cria_op){.kind = CRIA_OP_LINEAR, .input = {x, w, b, NONE}}, 2 + bias);
    }
}

static void embeddings_with_an_offset(void **state) {
    (void)state;
    bench m = make("embed");
    int ids = cria_graph_tensor_add(m.g, CRIA_TENSOR_INPUT, DIMS(m.a, m.b), "ids");
    int table = param(&m, "table", DIMS(m.d, m.c)); /* 12 ids of 3 rows: some come twice */
    finish(&m, (cria_op){.kind = CRIA_OP_EMBED, .input = {ids, table, NONE, NONE}, .row_offset = 2}, 1);
}

static void norms_over_the_last_dim_and_over_all_but_the_last(void **state) {
    (void)state;
    for (int rms = 0; rms < 2; rms++)
        for (int affine = 0; affine < 3; affine++)
            for (int batch = 0; batch < 2; batch++) {
                bench m = make(rms ? "RMS norm" : "layer norm");
                int x = param(&m, "x", DIMS(m.a, m.b, m.d));
                int w = affine > 0 ? param(&m, "weight", DIMS(m.d)) : NONE;
                int b = affine > 1 ? param(&m, "bias", DIMS(m.d)) : NONE;
                cria_op op = {.kind = CRIA_OP_NORM, .input = {x, w, b, NONE}, .rms = rms, .eps = 1e-3F};
                if (batch) op.over = 3;
                finish(&m, op, 1 + affine);
            }
}

static void every_activation(void **state) {
    (void)state;
    for (int a = CRIA_ACT_NONE; a < CRIA_ACT_COUNT; a++) {
        bench m = make("activation");
        int x = param(&m, "x", DIMS(m.a, m.b, m.d));
        finish(&m, (cria_op){.kind = CRIA_OP_ACTIVATION, .input = {x, NONE, NONE, NONE}, .activation = (unsigned)a}, 1);
    }
}

static void rotation_of_two_sequences(void **state) {
    (void)state;
    bench m = make("rope");
    const double frequency[2] = {1, 0.1};
    cria_error err = {0};
    assert_int_equal(cria_graph_set_rope(m.g, frequency, 2, &err), CRIA_OK);
    cria_graph_set_sequence(m.g, 3);
    cria_dim token = {CRIA_DIM_TOKEN, 6}, head_dim = {CRIA_DIM_HEAD_DIM, 4}, position = {CRIA_DIM_POSITION, 10};
    int x = param(&m, "x", DIMS(token, m.c, head_dim));
    int table = cria_graph_param(m.g, CRIA_PARAM_ROPE_TABLE, DIMS(position, head_dim), "table");
    finish(&m, (cria_op){.kind = CRIA_OP_ROPE, .input = {x, table, NONE, NONE}}, 1);
}

static void attention_of_packed_sequences_and_of_batches(void **state) {
    (void)state;
    for (int batched = 0; batched < 2; batched++)
        for (int64_t group = 1; group <= 2; group++) {
            bench m = make(batched ? "batched attention" : "packed attention");
            if (!batched) cria_graph_set_sequence(m.g, 3);
            cria_dim lead[2] = {{batched ? CRIA_DIM_BATCH : CRIA_DIM_TOKEN, batched ? 2 : 6}, {CRIA_DIM_SEQUENCE, 3}};
            cria_dim head = {CRIA_DIM_HEAD, 2 * group}, kv = {group == 1 ? CRIA_DIM_HEAD : CRIA_DIM_KV_HEAD, 2},
                     width = {CRIA_DIM_HEAD_DIM, 4};
            cria_dim q_dim[4] = {lead[0], lead[1], head, width}, k_dim[4] = {lead[0], lead[1], kv, width};
            if (!batched) q_dim[1] = head, q_dim[2] = width, k_dim[1] = kv, k_dim[2] = width;
            int dims = 3 + batched;
            int q = param(&m, "q", dims, q_dim), k = param(&m, "k", dims, k_dim), v = param(&m, "v", dims, k_dim);
            finish(&m, (cria_op){.kind = CRIA_OP_ATTENTION, .input = {q, k, v, NONE}, .scale = 0.5F, .kv_heads = 2}, 3);
        }
}

static void moves_of_elements(void **state) {
    (void)state;
    bench m = make("gather");
    cria_dim token = {CRIA_DIM_TOKEN, 4};
    int x = param(&m, "x", DIMS(token, m.b));
    finish(&m, (cria_op){.kind = CRIA_OP_GATHER, .input = {x, NONE, NONE, NONE}}, 1);
    m = make("reshape");
    x = param(&m, "x", DIMS(m.a, m.b, m.c));
    cria_dim e = {cria_graph_dim(m.g, "e"), 12}, f = {cria_graph_dim(m.g, "f"), 2};
    cria_op op = {.kind = CRIA_OP_RESHAPE, .input = {x, NONE, NONE, NONE}};
    finish(&m, with_dims(op, DIMS(e, f)), 1);
    m = make("whole");
    x = param(&m, "x", DIMS(m.a, m.b));
    finish(&m, (cria_op){.kind = CRIA_OP_WHOLE, .input = {x, NONE, NONE, NONE}}, 1);
}

static void softmax_and_cross_entropy(void **state) {
    (void)state;
    bench m = make("softmax");
    int x = param(&m, "x", DIMS(m.a, m.b, m.d));
    finish(&m, (cria_op){.kind = CRIA_OP_SOFTMAX, .input = {x, NONE, NONE, NONE}}, 1);
    m = make("cross entropy");
    x = param(&m, "x", DIMS(m.a, m.b, m.d));
    int labels = cria_graph_tensor_add(m.g, CRIA_TENSOR_INPUT, DIMS(m.a, m.b), "labels");
    finish(&m, (cria_op){.kind = CRIA_OP_CROSS_ENTROPY, .input = {x, labels, NONE, NONE}}, 1);
}

static void convolutions_and_pools(void **state) {
    (void)state;
    const int form[4][3] = {{3, 1, 1}, {3, 2, 1}, {1, 2, 0}, {2, 1, 0}}; /* window, stride, pad */
    for (int i = 0; i < 8; i++) {
        int window = form[i % 4][0], stride = form[i % 4][1], pad = form[i % 4][2];
        bench m = make(i < 4 ? "conv" : "pool");
        cria_dim h = {cria_graph_dim(m.g, "h"), 5}, w = {cria_graph_dim(m.g, "w"), 6};
        cria_dim h2 = {cria_graph_dim(m.g, "h2"), (5 + 2 * pad - window) / stride + 1},
                 w2 = {cria_graph_dim(m.g, "w2"), (6 + 2 * pad - window) / stride + 1},
                 kh = {cria_graph_dim(m.g, "kh"), window}, kw = {cria_graph_dim(m.g, "kw"), window};
        int x = param(&m, "x", DIMS(m.c, h, w, m.a));
        cria_op op = {.kind = i < 4 ? CRIA_OP_CONV : CRIA_OP_POOL,
                      .input = {x, NONE, NONE, NONE},
                      .window = window,
                      .stride = stride,
                      .pad = pad};
        if (i < 4) op.input[1] = param(&m, "kernel", DIMS(m.b, kh, kw, m.a));
        finish(&m, with_dims(op, DIMS(m.c, h2, w2, i < 4 ? m.b : m.a)), i < 4 ? 2 : 1);
    }
}

/* x enters three operators, one of them twice: its gradient is the sum of four. */
static void gradients_of_all_readers_are_summed(void **state) {
    (void)state;
    bench m = make("fan-out");
    int x = param(&m, "x", DIMS(m.a, m.b)), w = param(&m, "w", DIMS(m.d, m.b));
    int y = cria_graph_add(m.g, (cria_op){.kind = CRIA_OP_LINEAR, .input = {x, w, NONE, NONE}}, "y");
    cria_op back = {.kind = CRIA_OP_EINSUM, .input = {y, w, NONE, NONE}, .scale = 1};
    y = cria_graph_add(m.g, with_dims(back, DIMS(m.a, m.b)), "z");
    y = cria_graph_add(m.g, (cria_op){.kind = CRIA_OP_MUL, .input = {y, x, NONE, NONE}}, "zx");
    int square = cria_graph_add(m.g, (cria_op){.kind = CRIA_OP_MUL, .input = {x, x, NONE, NONE}}, "xx");
    finish(&m, (cria_op){.kind = CRIA_OP_ADD, .input = {y, square, NONE, NONE}}, 2);
}

/* ---- Whole networks. ---- */

static void check_network(const char *spec, double width) {
    cria_graph *g = NULL;
    cria_error err = {0};
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s: %s", spec, err.message);
    int loss = cria_graph_op(g, cria_graph_ops(g) - 1)->output;
    assert_string_equal(cria_graph_tensor(g, loss)->name, "loss");
    assert_true(check_all(g, loss, width, 3) > 2);
    cria_graph_destroy(g);
}

static void whole_networks(void **state) {
    (void)state;
    check_network("gpt:layers=2,hidden=8,heads=2,seq=3,batch=2,vocab=11,loss=1,train=0", 0.5);
    check_network("gpt:layers=1,hidden=8,heads=4,seq=4,batch=1,vocab=7,tied=1,loss=1,train=0", 0.5);
    check_network("moe:layers=2,hidden=8,heads=2,seq=4,batch=2,vocab=11,experts=4,group=8,loss=1,train=0", 0.5);
    check_network("wide-resnet:layers=14,image=16,channels=2,width=2,classes=3,batch=2,loss=1,train=0", 0.5);
}

/* The step that a network takes is the one that its gradients say: parameters move by -rate * gradient, and the mean
 * squared loss falls. */
static void a_step_of_an_mlp_moves_its_parameters_downhill(void **state) {
    (void)state;
    cria_graph *g = NULL;
    cria_error err = {0};
    const char *spec = "mlp:layers=2,hidden=5,batch=4,bias=1,relu=1,loss=1,train=1";
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    double **value = interpret_create(g), before = 0, numeric[8];
    interpret_fill(g, value, 1, 5);
    int loss = -1, updates = 0;
    for (int t = 0; t < cria_graph_tensors(g); t++)
        if (strcmp(cria_graph_tensor(g, t)->name, "loss") == 0) loss = t;
    interpret_run(g, value, 0, cria_graph_ops(g));
    before = *value[loss];
    for (int i = 0; i < cria_graph_ops(g); i++) { /* the slope of the first element of each parameter */
        const cria_op *op = cria_graph_op(g, i);
        if (op->kind != CRIA_OP_SGD) continue;
        double *first = value[op->input[0]], kept = *first, side[2];
        for (int s = 0; s < 2; s++) {
            *first = kept + (s ? 1e-6 : -1e-6);
            interpret_run(g, value, 0, i);
            side[s] = *value[loss];
        }
        *first = kept;
        numeric[updates++] = kept - (double)op->rate * (side[1] - side[0]) / 2e-6;
    }
    assert_int_equal(updates, 4);
    interpret_run(g, value, 0, cria_graph_ops(g));
    for (int i = 0, u = 0; i < cria_graph_ops(g); i++) {
        const cria_op *op = cria_graph_op(g, i);
        if (op->kind != CRIA_OP_SGD) continue;
        assert_true(fabs(*value[op->output] - numeric[u++]) < 1e-8);
        const cria_tensor *parameter = cria_graph_tensor(g, op->input[0]);
        memcpy(value[op->input[0]], value[op->output], (size_t)interpret_elements(parameter) * sizeof(double));
    }
    interpret_run(g, value, 0, cria_graph_ops(g));
    assert_true(*value[loss] < before);
    interpret_destroy(g, value);
    cria_graph_destroy(g);
}

/* Adam's first step from moments of 0 moves every element by the rate against the sign of its gradient. */
static void the_first_step_of_adam_has_the_length_of_the_rate(void **state) {
    (void)state;
    cria_graph *g = NULL;
    cria_error err = {0};
    const char *spec = "gpt:layers=1,hidden=8,heads=2,seq=3,batch=2,vocab=11";
    if (cria_network_create(spec, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    double **value = interpret_create(g);
    interpret_fill(g, value, 0.5, 9);
    for (int t = 0; t < cria_graph_tensors(g); t++)
        if (cria_graph_tensor(g, t)->kind == CRIA_TENSOR_STATE)
            memset(value[t], 0, (size_t)interpret_elements(cria_graph_tensor(g, t)) * sizeof(double));
    interpret_run(g, value, 0, cria_graph_ops(g));
    int checked = 0;
    for (int i = 0; i < cria_graph_ops(g); i++) {
        const cria_op *op = cria_graph_op(g, i);
        if (op->kind != CRIA_OP_ADAM) continue;
        int64_t n = interpret_elements(cria_graph_tensor(g, op->output));
        for (int64_t e = 0; e < n; e++) {
            double moved = value[op->output][e] - value[op->input[0]][e], mean = value[op->input[1]][e];
            if (fabs(mean) < 1e-6) continue;
            assert_true(moved * mean < 0 && fabs(fabs(moved) / (double)op->rate - 1) < 1e-2);
            checked++;
        }
    }
    assert_true(checked > 500);
    interpret_destroy(g, value);
    cria_graph_destroy(g);
}

static void what_has_no_gradient_is_named(void **state) {
    (void)state;
    bench m = make("sampled");
    int x = param(&m, "x", DIMS(m.a, m.b)), gradient[8];
    int ids = cria_graph_add(m.g, (cria_op){.kind = CRIA_OP_SAMPLE, .input = {x, NONE, NONE, NONE}}, "ids");
    cria_op sum = {.kind = CRIA_OP_EINSUM, .input = {ids, NONE, NONE, NONE}, .scale = 1};
    int loss = cria_graph_add(m.g, sum, "loss");
    cria_error err = {0};
    assert_int_equal(cria_graph_gradient(m.g, x, gradient, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "\"x\" is no scalar"));
    assert_int_equal(cria_graph_gradient(m.g, loss, gradient, &err), CRIA_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "\"ids\" of kind sample has no gradient"));
    cria_graph_destroy(m.g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_differences_also_of_operands_that_are_repeated_or_turned),
        cmocka_unit_test(products_of_elements_also_with_themselves),
        cmocka_unit_test(einsums_of_every_form),
        cmocka_unit_test(linear_layers_with_and_without_bias),
        cmocka_unit_test(embeddings_with_an_offset),
        cmocka_unit_test(norms_over_the_last_dim_and_over_all_but_the_last),
        cmocka_unit_test(every_activation),
        cmocka_unit_test(rotation_of_two_sequences),
        cmocka_unit_test(attention_of_packed_sequences_and_of_batches),
        cmocka_unit_test(moves_of_elements),
        cmocka_unit_test(softmax_and_cross_entropy),
        cmocka_unit_test(convolutions_and_pools),
        cmocka_unit_test(gradients_of_all_readers_are_summed),
        cmocka_unit_test(whole_networks),
        cmocka_unit_test(a_step_of_an_mlp_moves_its_parameters_downhill),
        cmocka_unit_test(the_first_step_of_adam_has_the_length_of_the_rate),
        cmocka_unit_test(what_has_no_gradient_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
