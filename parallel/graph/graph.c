/* The graph's storage: tensors and operators in growable arrays, built once and then only read. */
#include "parallel/graph/graph.h"

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
    cria_error first_error;
};

cria_graph *cria_graph_create(const char *model_name, int layers) {
    cria_graph *graph = calloc(1, sizeof *graph);
    if (!graph) return NULL;
    snprintf(graph->name, sizeof graph->name, "%s", model_name);
    graph->layers = layers;
    graph->group = 32;
    return graph;
}

void cria_graph_destroy(cria_graph *graph) {
    if (!graph) return;
    free(graph->tensors);
    free(graph->ops);
    free(graph->rope);
    free(graph);
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
    for (int i = 0; i < graph->op_count; i++) {
        if (graph->ops[i].kind != CRIA_OP_ATTENTION) continue;
        const cria_tensor *q = &graph->tensors[graph->ops[i].input[0]];
        *heads = q->dim[1].extent;
        *kv_heads = graph->ops[i].kv_heads;
        *head_dim = q->dim[2].extent;
        return true;
    }
    return false;
}

/* Doubles an array when it is full; false when memory is out. */
static bool grow(void **array, int count, int *capacity, size_t size) {
    if (count < *capacity) return true;
    int wanted = *capacity ? *capacity * 2 : 64;
    void *bigger = realloc(*array, (size_t)wanted * size);
    if (!bigger) return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

static int fail_build(cria_graph *graph, const char *name, const char *what) {
    if (graph->first_error.status == CRIA_OK)
        cria_fail(&graph->first_error, CRIA_ERR_INTERNAL, "graph %s: %s: %s", graph->name, name, what);
    return CRIA_NO_TENSOR;
}

static int add_tensor(cria_graph *graph, const cria_tensor *tensor) {
    if (!grow((void **)&graph->tensors, graph->tensor_count, &graph->tensor_capacity, sizeof *tensor))
        return fail_build(graph, tensor->name, "no memory");
    graph->tensors[graph->tensor_count] = *tensor;
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
    for (int i = 0; i < dims; i++) tensor.dim[i] = dim[i];
    /* A tied parameter is asked for twice and is one tensor. */
    for (int i = 0; i < graph->tensor_count; i++)
        if (graph->tensors[i].kind == CRIA_TENSOR_PARAM && strcmp(graph->tensors[i].name, tensor.name) == 0) return i;
    return add_tensor(graph, &tensor);
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
    if (!info->infer(graph, &op, &output)) return fail_build(graph, output.name, "shapes do not fit");
    if (!grow((void **)&graph->ops, graph->op_count, &graph->op_capacity, sizeof op))
        return fail_build(graph, output.name, "no memory");
    op.output = add_tensor(graph, &output);
    if (op.output < 0) return CRIA_NO_TENSOR;
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

static void print_dims(const cria_tensor *tensor, cria_text *out) {
    cria_text_puts(out, "[");
    for (int i = 0; i < tensor->dims; i++) {
        cria_text_printf(out, "%s%s", i ? ", " : "", cria_dim_to_name(tensor->dim[i].name));
        if (tensor->dim[i].extent != CRIA_SYMBOLIC) cria_text_printf(out, "=%lld", (long long)tensor->dim[i].extent);
    }
    cria_text_puts(out, "]");
}

void cria_graph_print(const cria_graph *graph, cria_text *out) {
    cria_text_printf(out, "graph %s: %d layers, %d operators, %lld parameters\n", graph->name, graph->layers,
                     graph->op_count, (long long)cria_graph_param_count(graph));
    for (int i = 0; i < graph->op_count; i++) {
        const cria_op *op = &graph->ops[i];
        cria_text_printf(out, "%4d %-10s %-28s ", i, cria_op_info_of(op->kind)->name, graph->tensors[op->output].name);
        print_dims(&graph->tensors[op->output], out);
        cria_text_puts(out, " <-");
        for (int j = 0; j < CRIA_MAX_INPUTS; j++)
            if (op->input[j] >= 0) {
                cria_text_printf(out, " %s", graph->tensors[op->input[j]].name);
                if (graph->tensors[op->input[j]].kind == CRIA_TENSOR_PARAM)
                    print_dims(&graph->tensors[op->input[j]], out);
            }
        cria_text_puts(out, "\n");
    }
}
