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

typedef enum {
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
    CRIA_DIM_COUNT
} cria_dim_name;

#define CRIA_SYMBOLIC (-1)
#define CRIA_MAX_DIMS 5

typedef struct {
    cria_dim_name name;
    int64_t extent; /* CRIA_SYMBOLIC for token and row */
} cria_dim;

typedef enum { CRIA_TENSOR_INPUT, CRIA_TENSOR_PARAM, CRIA_TENSOR_VALUE } cria_tensor_kind;

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
    int dims;
    cria_dim dim[CRIA_MAX_DIMS];
} cria_tensor;

typedef enum {
    CRIA_OP_EMBED,      /* ids, table[n, w] -> [token, w]; row_offset is added to the ids */
    CRIA_OP_ADD,        /* a, b -> a + b */
    CRIA_OP_MUL,        /* a, b -> a * b */
    CRIA_OP_NORM,       /* x, weight?, bias? -> layer norm or RMS norm over the last dim */
    CRIA_OP_LINEAR,     /* x, weight[out..., in...], bias? -> contraction over the shared dims */
    CRIA_OP_ACTIVATION, /* x -> activation(x) */
    CRIA_OP_ROPE,       /* x[token, head, head_dim], table -> rotated by position */
    CRIA_OP_ATTENTION,  /* q, k, v -> causal attention over the paged cache that this operator owns */
    CRIA_OP_GATHER,     /* x[token, w] -> [row, w]: the rows that need logits */
    CRIA_OP_SAMPLE,     /* logits[row, vocab] -> [row]: tokens and log-probabilities */
    CRIA_OP_COUNT
} cria_op_kind;

#define CRIA_MAX_INPUTS 4
#define CRIA_NO_TENSOR (-1)

typedef struct {
    cria_op_kind kind;
    int layer;                  /* -1 before the first, `layers` after the last */
    int input[CRIA_MAX_INPUTS]; /* tensor ids; CRIA_NO_TENSOR where an optional one is absent */
    int output;
    /* Attributes; each is used by the kinds that name it above. */
    cria_activation_name activation;
    bool rms;
    float eps;
    float scale;        /* attention */
    int64_t row_offset; /* embed */
    int64_t kv_heads;   /* attention */
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
/* The heads of the graph's attention operators; false where it has none. */
bool cria_graph_heads(const cria_graph *graph, int64_t *heads, int64_t *kv_heads, int64_t *head_dim);

/* Adding tensors and operators. A failure (shapes that do not fit, out of memory) is remembered: further calls return
 * CRIA_NO_TENSOR and cria_graph_check reports the first one, so that builders read as a list of layers. */
int cria_graph_input(cria_graph *graph, const char *name, cria_dim dim);
int cria_graph_param(cria_graph *graph, cria_param_kind kind, int dims, const cria_dim *dim, const char *name_format,
                     ...) __attribute__((format(printf, 5, 6)));
/* Infers the output's dims by the operator's shape rule; `op->output` is ignored. Returns the output tensor. */
int cria_graph_add(cria_graph *graph, cria_op op, const char *name_format, ...) __attribute__((format(printf, 3, 4)));
cria_status cria_graph_check(const cria_graph *graph, cria_error *err);

const char *cria_graph_name(const cria_graph *graph);
int cria_graph_layers(const cria_graph *graph);
int cria_graph_ops(const cria_graph *graph);
const cria_op *cria_graph_op(const cria_graph *graph, int index);
int cria_graph_tensors(const cria_graph *graph);
const cria_tensor *cria_graph_tensor(const cria_graph *graph, int id);
/* How many operators read a tensor, and the last of them (-1: none). */
int cria_graph_uses(const cria_graph *graph, int tensor, int *last_op);
/* Product of the extents of dims [first, dims); symbolic dims count as 1. */
int64_t cria_tensor_extent(const cria_tensor *tensor, int first);

struct cria_index_list;

/* One row per operator kind: everything the planner and the lowering need to know about it (parallel/graph/ops.c). */
typedef struct {
    const char *name;
    int min_inputs, max_inputs;
    /* Output dims from input tensors; false if they do not fit. */
    bool (*infer)(const cria_graph *graph, const cria_op *op, cria_tensor *output);
    /* Floating-point operations for `tokens` values of the symbolic dim; attention: for `context` keys each. */
    double (*flops)(const cria_graph *graph, const cria_op *op, int64_t tokens, int64_t context);
    bool token_parallel;                           /* every row of the symbolic dim is computed on its own */
    void (*indices)(struct cria_index_list *list); /* read through cria_op_indices (parallel/graph/index.h) */
} cria_op_info;
const cria_op_info *cria_op_info_of(cria_op_kind kind);
const char *cria_dim_to_name(cria_dim_name name);

/* A table of operators with shapes, then totals: parameters, and FLOPs per token at a given context. */
void cria_graph_print(const cria_graph *graph, cria_text *out);
int64_t cria_graph_param_count(const cria_graph *graph);
double cria_graph_flops(const cria_graph *graph, int64_t tokens, int64_t rows, int64_t context);

#endif
