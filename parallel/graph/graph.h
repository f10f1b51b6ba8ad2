/* Graph: a model written once, for one device, as operators over named tensors with named dims.
 *
 * Everything else is derived from it: the planner reads dims and costs, the lowering makes a rank's program. Built by
 * models/ on the start-up thread, immutable afterwards. Operators stand in execution order (every input is made before
 * it is used). A dim that operands of an operator share by name is the same index: a linear layer contracts the dims
 * that its input and its weight have in common, so legal shardings follow from the names (parallel/graph/ops.c). */
#ifndef CRIA_PARALLEL_GRAPH_GRAPH_H
#define CRIA_PARALLEL_GRAPH_GRAPH_H

#include "base/error.h"
#include "base/text.h"
#include "kernels/activation.h"

#include <stdbool.h>
#include <stdint.h>

/* Names that every graph knows; a graph registers more with cria_graph_dim. */
typedef int cria_dim_name;
enum {
    CRIA_DIM_TOKEN, /* packed tokens of a step; symbolic: known at run time, bounded by the batch limits */
    CRIA_DIM_ROW,   /* tokens whose logits are wanted; symbolic */
    CRIA_DIM_HIDDEN,
    CRIA_DIM_EMBED, /* OPT-350M's narrower embedding */
    CRIA_DIM_HEAD,
    CRIA_DIM_KV_HEAD,
    CRIA_DIM_HEAD_DIM,
    CRIA_DIM_FFN,
    CRIA_DIM_VOCAB,
    CRIA_DIM_POSITION,
    CRIA_DIM_BATCH,    /* training: sequences or samples of a step */
    CRIA_DIM_SEQUENCE, /* training: tokens of a sequence */
    CRIA_DIM_COUNT
};

#define CRIA_SYMBOLIC (-1)
#define CRIA_MAX_DIMS 5
#define CRIA_MAX_DIM_NAMES 1024
#define CRIA_MAX_ELEMENTS ((int64_t)1 << 48) /* of a tensor without its symbolic dims */

typedef struct {
    cria_dim_name name;
    int64_t extent; /* CRIA_SYMBOLIC for token and row */
} cria_dim;

/* States are what an optimizer keeps of a parameter between steps. */
typedef enum { CRIA_TENSOR_INPUT, CRIA_TENSOR_PARAM, CRIA_TENSOR_VALUE, CRIA_TENSOR_STATE } cria_tensor_kind;

/* How a parameter is made of what the checkpoint holds. */
typedef enum {
    CRIA_PARAM_PLAIN,     /* as stored, [out..., in...] */
    CRIA_PARAM_QK_ROWS,   /* rows of a query or key projection: GGUF's pairwise row order is undone by the reader */
    CRIA_PARAM_ROPE_TABLE /* computed: cos and sin per position from the graph's rope frequencies */
} cria_param_kind;

typedef struct {
    char name[96]; /* parameters: the Hugging Face name; values: "layer 3 fc1" */
    cria_tensor_kind kind;
    cria_param_kind param;
    bool differentiable; /* an input whose gradient is wanted too (cria_graph_want_gradient) */
    int dims;
    cria_dim dim[CRIA_MAX_DIMS];
} cria_tensor;

/* "dims" below: the output has the dims that the operator states in `dim`. */
typedef enum {
    /* What models are made of. */
    CRIA_OP_EMBED,      /* ids[n...], table[m, w] -> [n..., w]; row_offset is added to the ids */
    CRIA_OP_ADD,        /* a, b -> a + b; b may lack dims of a */
    CRIA_OP_MUL,        /* a, b -> a * b */
    CRIA_OP_NORM,       /* x, weight?, bias? -> layer norm or RMS norm over the last dim, or over those in `over` */
    CRIA_OP_LINEAR,     /* x, weight[out..., in...], bias? -> contraction over the shared dims */
    CRIA_OP_ACTIVATION, /* x -> activation(x) */
    CRIA_OP_ROPE,       /* x[token, head, head_dim], table -> rotated by position; backwards if `backward` */
    CRIA_OP_ATTENTION,  /* q, k, v[token, head, head_dim] -> causal attention over the paged cache that this operator
                         * owns; in training [batch, sequence, head, head_dim], or tokens of whole sequences */
    CRIA_OP_GATHER,     /* x[token, w] -> [row, w]: the rows that need logits; in training all of them */
    CRIA_OP_SAMPLE,     /* logits[row, vocab] -> [row]: tokens and log-probabilities */
    /* What networks for training are made of besides. */
    CRIA_OP_EINSUM,  /* a, b? -> scale * the sum of a * b over every dim that is not in `dim`; dims that only the output
                      * has are repeated. Transposes, batched dots, sums and broadcasts, and the gradients of all. */
    CRIA_OP_SUB,     /* a, b -> a - b; b may lack dims of a */
    CRIA_OP_FILL,    /* -> dims, every element `scale` */
    CRIA_OP_RESHAPE, /* x -> dims, as many elements in the same order */
    CRIA_OP_WHOLE,   /* x -> x, on every device whole */
    CRIA_OP_SOFTMAX, /* x -> softmax over the last dim */
    CRIA_OP_CROSS_ENTROPY, /* logits[n..., vocab], labels[n...] -> [n...]: -log softmax(logits)[label]; 0 if label < 0
                            */
    CRIA_OP_CONV,          /* x[n, h, w, in], kernel[out, kh, kw, in] -> dims [n, h', w', out]; stride, pad */
    CRIA_OP_POOL,          /* x[n, h, w, c] -> dims [n, h', w', c]: maximum of a window; window, stride, pad */
    CRIA_OP_ROUTE,         /* gates[n, token, expert] -> dims [n, token, expert, slot]: 1 where the token is among those
                            * that its `top` best experts have a slot for, in order (GShard, Lepikhin et al. 2020) */
    /* Gradients: "dy" is the gradient of the output of what they are named after. */
    CRIA_OP_EMBED_GRADIENT,         /* ids, dy -> dims (the table's) */
    CRIA_OP_NORM_GRADIENT,          /* x, dy, weight? -> of x */
    CRIA_OP_ACTIVATION_GRADIENT,    /* x, dy -> of x */
    CRIA_OP_ATTENTION_GRADIENT,     /* q, k, v, dy -> of input `which` */
    CRIA_OP_SCATTER,                /* dy[row, w] -> dims [token, w]: of what gather read */
    CRIA_OP_SOFTMAX_GRADIENT,       /* softmax(x), dy -> of x */
    CRIA_OP_CROSS_ENTROPY_GRADIENT, /* logits, labels, dy[n...] -> of logits */
    CRIA_OP_CONV_INPUT_GRADIENT,    /* dy, kernel -> dims (x's) */
    CRIA_OP_CONV_KERNEL_GRADIENT,   /* x, dy -> dims (the kernel's) */
    CRIA_OP_POOL_GRADIENT,          /* x, dy -> of x */
    /* Updates: the output takes the place of the first input (cria_op_alias). */
    CRIA_OP_SGD,    /* parameter, gradient -> parameter - rate * gradient */
    CRIA_OP_MOMENT, /* moment, gradient -> decay * moment + (1 - decay) * gradient, or gradient^2 if `square` */
    CRIA_OP_ADAM,   /* parameter, mean, variance, step -> Adam's step with bias correction; rate, decay, decay2, eps */
    CRIA_OP_COUNT
} cria_op_kind;

/* Which part of a training step an operator belongs to. */
typedef enum { CRIA_PASS_FORWARD, CRIA_PASS_BACKWARD, CRIA_PASS_UPDATE, CRIA_PASS_COUNT } cria_pass;

#define CRIA_MAX_INPUTS 4
#define CRIA_NO_TENSOR (-1)

typedef struct {
    cria_op_kind kind;
    int layer; /* -1 before the first, `layers` after the last */
    cria_pass pass;
    int input[CRIA_MAX_INPUTS]; /* tensor ids; CRIA_NO_TENSOR where an optional one is absent */
    int output;
    /* Attributes; each is used by the kinds that name it above. */
    cria_activation_name activation;
    bool rms;
    float eps;
    float scale;        /* attention, einsum, fill */
    int64_t row_offset; /* embed */
    int64_t kv_heads;   /* attention */
    int dims;
    cria_dim dim[CRIA_MAX_DIMS];
    unsigned over; /* norm: bits of dims; 0: the last */
    bool backward, square;
    int which;
    int window, stride, pad; /* conv and pool, the same in both directions */
    int top;
    float rate, decay, decay2;
} cria_op;

typedef struct cria_graph cria_graph;

cria_graph *cria_graph_create(const char *model_name, int layers);
void cria_graph_destroy(cria_graph *graph);

/* The rotary frequencies of the model, [head_dim / 2] (copied); the table parameter is computed from them. */
cria_status cria_graph_set_rope(cria_graph *graph, const double *inverse_frequencies, int count, cria_error *err);
const double *cria_graph_rope(const cria_graph *graph, int *count);

/* How finely dims may be cut over devices (parallel/graph/index.h). Models keep weights whose columns are quantised in
 * groups of 32 (the default); 1 where there are none. `sequence`: tokens come as whole sequences of this length, as in
 * training, and may be cut between them; 0 (the default): batches are made at run time. */
void cria_graph_set_group(cria_graph *graph, int64_t group);
int64_t cria_graph_group(const cria_graph *graph);
void cria_graph_set_sequence(cria_graph *graph, int64_t length);
int64_t cria_graph_sequence(const cria_graph *graph);
/* The name of a dim: one of those above or, where none is called so, one that this graph gets now. Names are those of
 * indices: operands that share a name share the index, so that the two dims of a square weight need two names. Failures
 * are remembered as by cria_graph_add. */
cria_dim_name cria_graph_dim(cria_graph *graph, const char *name);
/* The number of names, and a name as text. */
int cria_graph_dim_names(const cria_graph *graph);
const char *cria_dim_to_name(const cria_graph *graph, cria_dim_name name);
/* Dims of that name are cut at multiples of `unit` (and of what was said before). */
void cria_graph_set_unit(cria_graph *graph, cria_dim_name name, int64_t unit);
/* Dims of name `large` are `ratio` times as long as those of `small` and are cut where those are, as a reshape that
 * splits or joins them wants it (cria_graph_add says so of every reshape). */
void cria_graph_link_dims(cria_graph *graph, cria_dim_name large, cria_dim_name small, int64_t ratio);
int64_t cria_graph_named_unit(const cria_graph *graph, cria_dim_name name);
/* Tokens, rows, sequences of a batch, and what reshapes make of them, such as groups of tokens. */
bool cria_graph_is_batch(const cria_graph *graph, cria_dim_name name);
/* Gives all symbolic dims of a name an extent: a step of training knows how many tokens it has. */
void cria_graph_bind(cria_graph *graph, cria_dim_name name, int64_t extent);
/* Takes the last operator away with its output, if that is the last tensor. */
void cria_graph_drop_last(cria_graph *graph);
/* The heads of the graph's attention operators; false where it has none. */
bool cria_graph_heads(const cria_graph *graph, int64_t *heads, int64_t *kv_heads, int64_t *head_dim);

/* Adding tensors and operators. A failure (shapes that do not fit, out of memory) is remembered: further calls return
 * CRIA_NO_TENSOR and cria_graph_check reports the first one, so that builders read as a list of layers. */
int cria_graph_input(cria_graph *graph, const char *name, cria_dim dim);
int cria_graph_param(cria_graph *graph, cria_param_kind kind, int dims, const cria_dim *dim, const char *name_format,
                     ...) __attribute__((format(printf, 5, 6)));
/* An input of several dims; a state. */
int cria_graph_tensor_add(cria_graph *graph, cria_tensor_kind kind, int dims, const cria_dim *dim,
                          const char *name_format, ...) __attribute__((format(printf, 5, 6)));
/* Gradients will be computed for this input as for a parameter. */
void cria_graph_want_gradient(cria_graph *graph, int input);
/* Infers the output's dims by the operator's shape rule; `op->output` is ignored. Returns the output tensor. */
int cria_graph_add(cria_graph *graph, cria_op op, const char *name_format, ...) __attribute__((format(printf, 3, 4)));
cria_status cria_graph_check(const cria_graph *graph, cria_error *err);

const char *cria_graph_name(const cria_graph *graph);
int cria_graph_layers(const cria_graph *graph);
int cria_graph_ops(const cria_graph *graph);
const cria_op *cria_graph_op(const cria_graph *graph, int index);
int cria_graph_tensors(const cria_graph *graph);
const cria_tensor *cria_graph_tensor(const cria_graph *graph, int id);
/* The tensor of that name; CRIA_NO_TENSOR if there is none. Names are unlike each other: where a builder gives one
 * twice, the second gets a number. */
int cria_graph_find(const cria_graph *graph, const char *name);
/* How many operators read a tensor, and the last of them (-1: none). */
int cria_graph_uses(const cria_graph *graph, int tensor, int *last_op);
/* Which input the output takes the place of (updates); -1: none. It must live in that input's sharding. */
int cria_op_alias(const cria_op *op);
/* Product of the extents of dims [first, dims); symbolic dims count as 1. */
int64_t cria_tensor_extent(const cria_tensor *tensor, int first);

struct cria_index_list;
struct cria_backward;

/* One row per operator kind: everything the planner and the lowering need to know about it (parallel/graph/ops.c). */
typedef struct {
    const char *name;
    int min_inputs, max_inputs;
    /* Output dims from input tensors and attributes; false if they do not fit. */
    bool (*infer)(const cria_graph *graph, const cria_op *op, cria_tensor *output);
    /* Floating-point operations for `tokens` values of the symbolic dim; attention: for `context` keys each where
     * sequences have no length. */
    double (*flops)(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context);
    void (*indices)(struct cria_index_list *list); /* read through cria_op_indices (parallel/graph/index.h) */
    /* Adds the gradients of the inputs (parallel/graph/gradient.h); NULL: it has none. */
    void (*gradient)(struct cria_backward *backward, const cria_op *op, int dy);
} cria_op_info;
const cria_op_info *cria_op_info_of(cria_op_kind kind);

/* A table of operators with shapes, then totals: parameters, and FLOPs per token at a given context. */
void cria_graph_print(const cria_graph *graph, cria_text *out);
int64_t cria_graph_param_count(const cria_graph *graph);
double cria_graph_flops(const cria_graph *graph, int64_t tokens, int64_t rows, int64_t context);

#endif
