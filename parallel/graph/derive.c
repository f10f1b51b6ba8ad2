/* Gradient rules: which operators compute the gradients of an operator's inputs from that of its output. */
#include "parallel/graph/rules.h"

#include <string.h>

#define INPUTS(a, b, c, d) .input = {a, b, c, d}
enum { NONE = CRIA_NO_TENSOR };

static const cria_tensor *tensor_of(cria_backward *backward, int id) {
    return cria_graph_tensor(cria_backward_graph(backward), id);
}

/* Makes the dims of a tensor those that an operator states. */
static cria_op with_dims_of(cria_backward *backward, cria_op op, int tensor) {
    const cria_tensor *like = tensor_of(backward, tensor);
    op.dims = like->dims;
    memcpy(op.dim, like->dim, sizeof op.dim);
    return op;
}

/* The sum of scale * dy * other over all that an input does not have. */
static void give_sum(cria_backward *backward, const cria_op *op, int input, int dy, int other, float scale) {
    if (!cria_backward_wants(backward, op, input)) return;
    cria_op sum = {.kind = CRIA_OP_EINSUM, INPUTS(dy, other, NONE, NONE), .scale = scale};
    cria_backward_give(backward, op, input, with_dims_of(backward, sum, op->input[input]));
}

void cria_gradient_zero(cria_backward *backward, const cria_op *op, int dy) {
    (void)backward, (void)op, (void)dy;
}

void cria_gradient_whole(cria_backward *backward, const cria_op *op, int dy) {
    if (cria_backward_wants(backward, op, 0)) cria_backward_pass(backward, op, 0, dy);
}

static bool same_dims(const cria_tensor *a, const cria_tensor *b) {
    for (int d = 0; d < a->dims && d < b->dims; d++)
        if (a->dim[d].name != b->dim[d].name) return false;
    return a->dims == b->dims;
}

/* ADD and SUB; what the second operand was repeated over is summed. */
void cria_gradient_add(cria_backward *backward, const cria_op *op, int dy) {
    cria_gradient_whole(backward, op, dy);
    if (!cria_backward_wants(backward, op, 1)) return;
    if (op->kind == CRIA_OP_ADD && same_dims(tensor_of(backward, op->input[1]), tensor_of(backward, dy)))
        cria_backward_pass(backward, op, 1, dy);
    else
        give_sum(backward, op, 1, dy, NONE, op->kind == CRIA_OP_ADD ? 1 : -1);
}

void cria_gradient_mul(cria_backward *backward, const cria_op *op, int dy) {
    for (int i = 0; i < 2; i++)
        if (cria_backward_wants(backward, op, i))
            cria_backward_give(backward, op, i,
                               (cria_op){.kind = CRIA_OP_MUL, INPUTS(dy, op->input[1 - i], NONE, NONE)});
}

void cria_gradient_einsum(cria_backward *backward, const cria_op *op, int dy) {
    give_sum(backward, op, 0, dy, op->input[1], op->scale);
    if (op->input[1] >= 0) give_sum(backward, op, 1, dy, op->input[0], op->scale);
}

void cria_gradient_linear(cria_backward *backward, const cria_op *op, int dy) {
    give_sum(backward, op, 0, dy, op->input[1], 1);
    give_sum(backward, op, 1, dy, op->input[0], 1);
    if (op->input[2] >= 0) give_sum(backward, op, 2, dy, NONE, 1);
}

void cria_gradient_embed(cria_backward *backward, const cria_op *op, int dy) {
    if (!cria_backward_wants(backward, op, 1)) return;
    cria_op rows = {.kind = CRIA_OP_EMBED_GRADIENT, INPUTS(op->input[0], dy, NONE, NONE), .row_offset = op->row_offset};
    cria_backward_give(backward, op, 1, with_dims_of(backward, rows, op->input[1]));
}

/* The weight's gradient needs x without its mean and over its deviation: computed again, not kept. */
void cria_gradient_norm(cria_backward *backward, const cria_op *op, int dy) {
    if (cria_backward_wants(backward, op, 0)) {
        cria_op x = *op;
        x.kind = CRIA_OP_NORM_GRADIENT;
        x.input[1] = dy;
        x.input[2] = op->input[1];
        cria_backward_give(backward, op, 0, x);
    }
    if (cria_backward_wants(backward, op, 1)) {
        cria_op plain = *op;
        plain.input[1] = plain.input[2] = NONE;
        int normal = cria_backward_help(backward, op, plain, "normalised input of");
        give_sum(backward, op, 1, dy, normal, 1);
    }
    if (op->input[2] >= 0) give_sum(backward, op, 2, dy, NONE, 1);
}

/* Where the output tells as much as the input, it is read instead: what comes behind keeps it anyway, so that the input
 * need not be kept too. */
void cria_gradient_activation(cria_backward *backward, const cria_op *op, int dy) {
    if (!cria_backward_wants(backward, op, 0)) return;
    int seen = cria_op_gradient_of_output(op) ? op->output : op->input[0];
    cria_backward_give(
        backward, op, 0,
        (cria_op){.kind = CRIA_OP_ACTIVATION_GRADIENT, INPUTS(seen, dy, NONE, NONE), .activation = op->activation});
}

void cria_gradient_rope(cria_backward *backward, const cria_op *op, int dy) {
    if (!cria_backward_wants(backward, op, 0)) return;
    cria_op back = *op;
    back.input[0] = dy;
    back.backward = !op->backward;
    cria_backward_give(backward, op, 0, back);
}

void cria_gradient_attention(cria_backward *backward, const cria_op *op, int dy) {
    for (int i = 2; i >= 0; i--) { /* v first: its scores are those that the others use */
        if (!cria_backward_wants(backward, op, i)) continue;
        cria_op of = *op;
        of.kind = CRIA_OP_ATTENTION_GRADIENT;
        of.input[3] = dy;
        of.which = i;
        cria_backward_give(backward, op, i, of);
    }
}

static void give_reshaped(cria_backward *backward, const cria_op *op, int dy, cria_op_kind kind) {
    if (!cria_backward_wants(backward, op, 0)) return;
    cria_op back = {.kind = kind, INPUTS(dy, NONE, NONE, NONE)};
    cria_backward_give(backward, op, 0, with_dims_of(backward, back, op->input[0]));
}

void cria_gradient_gather(cria_backward *backward, const cria_op *op, int dy) {
    give_reshaped(backward, op, dy, CRIA_OP_SCATTER);
}

void cria_gradient_reshape(cria_backward *backward, const cria_op *op, int dy) {
    give_reshaped(backward, op, dy, CRIA_OP_RESHAPE);
}

void cria_gradient_softmax(cria_backward *backward, const cria_op *op, int dy) {
    if (cria_backward_wants(backward, op, 0))
        cria_backward_give(backward, op, 0,
                           (cria_op){.kind = CRIA_OP_SOFTMAX_GRADIENT, INPUTS(op->output, dy, NONE, NONE)});
}

void cria_gradient_cross_entropy(cria_backward *backward, const cria_op *op, int dy) {
    if (cria_backward_wants(backward, op, 0))
        cria_backward_give(
            backward, op, 0,
            (cria_op){.kind = CRIA_OP_CROSS_ENTROPY_GRADIENT, INPUTS(op->input[0], op->input[1], dy, NONE)});
}

void cria_gradient_conv(cria_backward *backward, const cria_op *op, int dy) {
    for (int i = 1; i >= 0; i--) {
        if (!cria_backward_wants(backward, op, i)) continue;
        cria_op of = *op;
        of.kind = i ? CRIA_OP_CONV_KERNEL_GRADIENT : CRIA_OP_CONV_INPUT_GRADIENT;
        of.input[i] = dy; /* takes the place of what is derived: [dy, kernel] or [x, dy] */
        cria_backward_give(backward, op, i, with_dims_of(backward, of, op->input[i]));
    }
}

void cria_gradient_pool(cria_backward *backward, const cria_op *op, int dy) {
    if (!cria_backward_wants(backward, op, 0)) return;
    cria_op of = *op;
    of.kind = CRIA_OP_POOL_GRADIENT;
    of.input[1] = dy;
    of.dims = 0;
    cria_backward_give(backward, op, 0, of);
}
