/* The graph's storage: tensors and operators in growable arrays, built once and then only read. */
#include "parallel/graph/graph.h"

#include "parallel/graph/names.h"
#include "parallel/graph/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cria_graph {
    char name[128];
    int layers;
    cria_tensor *tensors;
    int tensor_count, tensor_capacity;
    cria_op *ops;
    int op_count, op_capacity;
    double *rope;
    int rope_count;
    int64_t group, sequence;
    cria_dim_table names;
    cria_tensor_index index;
    int attention; /* the first operator of that kind; -1: none */
    cria_error first_error;
};

static int fail_build(cria_graph *graph, const char *name, const char *what) {
    if (graph->first_error.status == CRIA_OK)
        cria_fail(&graph->first_error, CRIA_ERR_INTERNAL, "graph %s: %s: %s", graph->name, name, what);
    return CRIA_NO_TENSOR;
}

cria_graph *cria_graph_create(const char *model_name, int layers) {
    cria_graph *graph = calloc(1, sizeof *graph);
    if (!graph) return NULL;
    snprintf(graph->name, sizeof graph->name, "%s", model_name);
    graph->layers = layers;
    graph->group = 32;
    graph->attention = -1;
    if (!cria_dim_table_init(&graph->names)) {
        cria_graph_destroy(graph);
        return NULL;
    }
    return graph;
}

void cria_graph_destroy(cria_graph *graph) {
    if (!graph) return;
    free(graph->tensors);
    free(graph->ops);
    free(graph->rope);
    cria_dim_table_deinit(&graph->names);
    cria_tensor_index_deinit(&graph->index);
    free(graph);
}

cria_dim_name cria_graph_dim(cria_graph *graph, const char *name) {
    const char *why;
    int number = cria_dim_table_find(&graph->names, name, &why);
    if (number < 0) fail_build(graph, name, why);
    return number < 0 ? 0 : number;
}
int cria_graph_dim_names(const cria_graph *graph) {
    return graph->names.count;
}
const char *cria_dim_to_name(const cria_graph *graph, cria_dim_name name) {
    return graph->names.entry[name].text;
}
void cria_graph_set_unit(cria_graph *graph, cria_dim_name name, int64_t unit) {
    cria_dim_table_raise(&graph->names, name, unit);
}
int64_t cria_graph_named_unit(const cria_graph *graph, cria_dim_name name) {
    return graph->names.entry[name].unit;
}
bool cria_graph_is_batch(const cria_graph *graph, cria_dim_name name) {
    return graph->names.entry[name].batch;
}
void cria_graph_link_dims(cria_graph *graph, cria_dim_name large, cria_dim_name small, int64_t ratio) {
    const char *why = cria_dim_table_link(&graph->names, large, small, ratio);
    if (why) fail_build(graph, cria_dim_to_name(graph, large), why);
}

cria_status cria_graph_set_rope(cria_graph *graph, const double *inverse_frequencies, int count, cria_error *err) {
    double *copy = malloc((size_t)count * sizeof *copy);
    if (!copy) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d rotary frequencies", count);
    memcpy(copy, inverse_frequencies, (size_t)count * sizeof *copy);
    free(graph->rope);
    graph->rope = copy;
    graph->rope_count = count;
    return CRIA_OK;
}

const double *cria_graph_rope(const cria_graph *graph, int *count) {
    *count = graph->rope_count;
    return graph->rope;
}

void cria_graph_set_group(cria_graph *graph, int64_t group) {
    graph->group = group;
}
int64_t cria_graph_group(const cria_graph *graph) {
    return graph->group;
}
void cria_graph_set_sequence(cria_graph *graph, int64_t length) {
    graph->sequence = length;
}
int64_t cria_graph_sequence(const cria_graph *graph) {
    return graph->sequence;
}

bool cria_graph_heads(const cria_graph *graph, int64_t *heads, int64_t *kv_heads, int64_t *head_dim) {
    if (graph->attention < 0) return false;
    const cria_op *op = &graph->ops[graph->attention];
    const cria_tensor *q = &graph->tensors[op->input[0]];
    *heads = q->dim[q->dims - 2].extent;
    *kv_heads = op->kv_heads;
    *head_dim = q->dim[q->dims - 1].extent;
    return true;
}

/* Extents whose product is no int64 would make every size that is derived from them wrong. */
static const char *check_tensor(const cria_tensor *tensor) {
    int64_t elements = 1;
    for (int d = 0; d < tensor->dims; d++) {
        for (int e = 0; e < d; e++)
            if (tensor->dim[e].name == tensor->dim[d].name) return "two dims have the same name";
        int64_t extent = tensor->dim[d].extent;
        if (extent == CRIA_SYMBOLIC) continue;
        if (extent < 1) return "a dim has no extent";
        if (__builtin_mul_overflow(elements, extent, &elements) || elements > CRIA_MAX_ELEMENTS)
            return "more than 2^48 elements";
    }
    return NULL;
}

void cria_graph_bind(cria_graph *graph, cria_dim_name name, int64_t extent) {
    for (int t = 0; t < graph->tensor_count; t++) {
        cria_tensor *tensor = &graph->tensors[t];
        for (int d = 0; d < tensor->dims; d++)
            if (tensor->dim[d].name == name && tensor->dim[d].extent == CRIA_SYMBOLIC) tensor->dim[d].extent = extent;
        const char *wrong = check_tensor(tensor);
        if (wrong) fail_build(graph, tensor->name, wrong);
    }
}

void cria_graph_drop_last(cria_graph *graph) {
    if (graph->op_count == 0 || graph->ops[graph->op_count - 1].output != graph->tensor_count - 1) return;
    graph->op_count--;
    cria_tensor_index_drop(&graph->index, graph->tensors, --graph->tensor_count);
    if (graph->attention == graph->op_count) graph->attention = -1;
}

static int add_tensor(cria_graph *graph, const cria_tensor *tensor) {
    const char *wrong = check_tensor(tensor);
    if (wrong) return fail_build(graph, tensor->name, wrong);
    if (!cria_graph_grow((void **)&graph->tensors, graph->tensor_count, &graph->tensor_capacity, sizeof *tensor))
        return fail_build(graph, tensor->name, "no memory");
    graph->tensors[graph->tensor_count] = *tensor;
    cria_tensor_index_unique(&graph->index, graph->tensors, graph->tensors[graph->tensor_count].name);
    if (!cria_tensor_index_add(&graph->index, graph->tensors, graph->tensor_count))
        return fail_build(graph, tensor->name, "no memory");
    return graph->tensor_count++;
}

int cria_graph_input(cria_graph *graph, const char *name, cria_dim dim) {
    cria_tensor tensor = {.kind = CRIA_TENSOR_INPUT, .dims = 1, .dim = {dim}};
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    return add_tensor(graph, &tensor);
}

int cria_graph_param(cria_graph *graph, cria_param_kind kind, int dims, const cria_dim *dim, const char *name_format,
                     ...) {
    cria_tensor tensor = {.kind = CRIA_TENSOR_PARAM, .param = kind, .dims = dims};
    va_list args;
    va_start(args, name_format);
    vsnprintf(tensor.name, sizeof tensor.name, name_format, args);
    va_end(args);
    if (dims < 0 || dims > CRIA_MAX_DIMS) return fail_build(graph, tensor.name, "too many dims");
    for (int i = 0; i < dims; i++) tensor.dim[i] = dim[i];
    /* A tied parameter is asked for twice and is one tensor. */
    int known = cria_graph_find(graph, tensor.name);
    if (known >= 0 && graph->tensors[known].kind == CRIA_TENSOR_PARAM) return known;
    return add_tensor(graph, &tensor);
}

int cria_graph_tensor_add(cria_graph *graph, cria_tensor_kind kind, int dims, const cria_dim *dim,
                          const char *name_format, ...) {
    cria_tensor tensor = {.kind = kind, .dims = dims};
    va_list args;
    va_start(args, name_format);
    vsnprintf(tensor.name, sizeof tensor.name, name_format, args);
    va_end(args);
    if (dims < 0 || dims > CRIA_MAX_DIMS) return fail_build(graph, tensor.name, "too many dims");
    for (int i = 0; i < dims; i++) tensor.dim[i] = dim[i];
    return add_tensor(graph, &tensor);
}

void cria_graph_want_gradient(cria_graph *graph, int input) {
    if (input >= 0) graph->tensors[input].differentiable = true;
}

/* Says which operands do not fit: "einsum of [batch=4, hidden=8] [hidden=9]". */
static int fail_shapes(cria_graph *graph, const cria_op *op, const char *name) {
    char what[192];
    int at = snprintf(what, sizeof what, "shapes do not fit: %s of", cria_op_info_of(op->kind)->name);
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        const cria_tensor *x = &graph->tensors[op->input[k]];
        for (int d = 0; d < x->dims && at < (int)sizeof what; d++)
            at += snprintf(what + at, sizeof what - (size_t)at, "%s%s=%lld", d ? ", " : " [",
                           cria_dim_to_name(graph, x->dim[d].name), (long long)x->dim[d].extent);
        if (at < (int)sizeof what) at += snprintf(what + at, sizeof what - (size_t)at, x->dims ? "]" : " []");
    }
    return fail_build(graph, name, what);
}

/* A name stands for one index of the operator, whose extent is the same in every operand. */
static bool names_agree(const cria_graph *graph, const cria_op *op, const cria_tensor *output) {
    for (int i = 0; i < CRIA_MAX_INPUTS; i++)
        for (int j = i + 1; j <= CRIA_MAX_INPUTS; j++) {
            const cria_tensor *a = op->input[i] < 0 ? NULL : &graph->tensors[op->input[i]], *b = output;
            if (j < CRIA_MAX_INPUTS) b = op->input[j] < 0 ? NULL : &graph->tensors[op->input[j]];
            for (int d = 0; a && b && d < a->dims; d++)
                for (int e = 0; e < b->dims; e++)
                    if (a->dim[d].name == b->dim[e].name && a->dim[d].extent != b->dim[e].extent) return false;
        }
    return true;
}

static void link_reshaped(cria_graph *graph, const cria_tensor *in, const cria_tensor *out) {
    for (cria_reshape_run run = {0}; cria_reshape_next(in, out, &run);) {
        if (run.in == run.in_end || run.out == run.out_end) continue;
        cria_dim a = in->dim[run.in], b = out->dim[run.out];
        if (a.extent % b.extent == 0)
            cria_graph_link_dims(graph, a.name, b.name, a.extent / b.extent);
        else if (b.extent % a.extent == 0)
            cria_graph_link_dims(graph, b.name, a.name, b.extent / a.extent);
    }
}

int cria_graph_add(cria_graph *graph, cria_op op, const char *name_format, ...) {
    cria_tensor output = {.kind = CRIA_TENSOR_VALUE};
    va_list args;
    va_start(args, name_format);
    vsnprintf(output.name, sizeof output.name, name_format, args);
    va_end(args);
    const cria_op_info *info = cria_op_info_of(op.kind);
    for (int i = 0; i < CRIA_MAX_INPUTS; i++) {
        if (i >= info->max_inputs) op.input[i] = CRIA_NO_TENSOR;
        bool required = i < info->min_inputs;
        if ((required && op.input[i] < 0) || op.input[i] >= graph->tensor_count)
            return fail_build(graph, output.name, "an input is missing");
    }
    if (!info->infer(graph, &op, &output)) return fail_shapes(graph, &op, output.name);
    if (!names_agree(graph, &op, &output)) return fail_build(graph, output.name, "a dim has two extents");
    if (!cria_graph_grow((void **)&graph->ops, graph->op_count, &graph->op_capacity, sizeof op))
        return fail_build(graph, output.name, "no memory");
    if (op.kind == CRIA_OP_RESHAPE) link_reshaped(graph, &graph->tensors[op.input[0]], &output);
    op.output = add_tensor(graph, &output);
    if (op.output < 0) return CRIA_NO_TENSOR;
    if (op.kind == CRIA_OP_ATTENTION && graph->attention < 0) graph->attention = graph->op_count;
    graph->ops[graph->op_count++] = op;
    return op.output;
}

cria_status cria_graph_check(const cria_graph *graph, cria_error *err) {
    if (graph->first_error.status == CRIA_OK) return CRIA_OK;
    return cria_fail(err, graph->first_error.status, "%s", graph->first_error.message);
}

const char *cria_graph_name(const cria_graph *graph) {
    return graph->name;
}
int cria_graph_layers(const cria_graph *graph) {
    return graph->layers;
}
int cria_graph_ops(const cria_graph *graph) {
    return graph->op_count;
}
const cria_op *cria_graph_op(const cria_graph *graph, int index) {
    return &graph->ops[index];
}
int cria_graph_find(const cria_graph *graph, const char *name) {
    return cria_tensor_index_find(&graph->index, graph->tensors, name);
}
int cria_graph_tensors(const cria_graph *graph) {
    return graph->tensor_count;
}
const cria_tensor *cria_graph_tensor(const cria_graph *graph, int id) {
    return &graph->tensors[id];
}

int cria_graph_uses(const cria_graph *graph, int tensor, int *last_op) {
    int uses = 0;
    *last_op = -1;
    for (int i = 0; i < graph->op_count; i++)
        for (int j = 0; j < CRIA_MAX_INPUTS; j++)
            if (graph->ops[i].input[j] == tensor) {
                uses++;
                *last_op = i;
            }
    return uses;
}

int64_t cria_tensor_extent(const cria_tensor *tensor, int first) {
    int64_t extent = 1;
    for (int i = first; i < tensor->dims; i++)
        if (tensor->dim[i].extent != CRIA_SYMBOLIC) extent *= tensor->dim[i].extent;
    return extent;
}

int64_t cria_graph_param_count(const cria_graph *graph) {
    int64_t total = 0;
    for (int i = 0; i < graph->tensor_count; i++) {
        const cria_tensor *tensor = &graph->tensors[i];
        if (tensor->kind == CRIA_TENSOR_PARAM && tensor->param != CRIA_PARAM_ROPE_TABLE)
            total += cria_tensor_extent(tensor, 0);
    }
    return total;
}

double cria_graph_flops(const cria_graph *graph, int64_t tokens, int64_t rows, int64_t context) {
    double total = 0;
    for (int i = 0; i < graph->op_count; i++) {
        const cria_op *op = &graph->ops[i];
        bool head = graph->tensors[op->output].dim[0].name == CRIA_DIM_ROW;
        total += cria_op_info_of(op->kind)->flops(graph, op, head ? rows : tokens, context);
    }
    return total;
}

static void print_dims(const cria_graph *graph, const cria_tensor *tensor, cria_text *out) {
    cria_text_puts(out, "[");
    for (int i = 0; i < tensor->dims; i++) {
        cria_text_printf(out, "%s%s", i ? ", " : "", cria_dim_to_name(graph, tensor->dim[i].name));
        if (tensor->dim[i].extent != CRIA_SYMBOLIC) cria_text_printf(out, "=%lld", (long long)tensor->dim[i].extent);
    }
    cria_text_puts(out, "]");
}

void cria_graph_print(const cria_graph *graph, cria_text *out) {
    cria_text_printf(out, "graph %s: %d layers, %d operators, %lld parameters\n", graph->name, graph->layers,
                     graph->op_count, (long long)cria_graph_param_count(graph));
    for (int i = 0; i < graph->op_count; i++) {
        const cria_op *op = &graph->ops[i];
        cria_text_printf(out, "%4d %-22s %-28s ", i, cria_op_info_of(op->kind)->name, graph->tensors[op->output].name);
        print_dims(graph, &graph->tensors[op->output], out);
        cria_text_puts(out, " <-");
        for (int j = 0; j < CRIA_MAX_INPUTS; j++)
            if (op->input[j] >= 0) {
                cria_text_printf(out, " %s", graph->tensors[op->input[j]].name);
                if (graph->tensors[op->input[j]].kind == CRIA_TENSOR_PARAM)
                    print_dims(graph, &graph->tensors[op->input[j]], out);
            }
        cria_text_puts(out, "\n");
    }
}
