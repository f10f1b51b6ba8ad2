/* The writer of graph files. */
#include "parallel/graph/attributes.h"
#include "parallel/graph/graph_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void put_string(cria_text *out, const char *text) {
    cria_text_json_string(out, text, strlen(text));
}

static void put_dims(const cria_graph *graph, int dims, const cria_dim *dim, cria_text *out) {
    cria_text_puts(out, "[");
    for (int d = 0; d < dims; d++) {
        cria_text_puts(out, d ? ", [" : "[");
        put_string(out, cria_dim_to_name(graph, dim[d].name));
        if (dim[d].extent == CRIA_SYMBOLIC)
            cria_text_puts(out, ", null]");
        else
            cria_text_printf(out, ", %lld]", (long long)dim[d].extent);
    }
    cria_text_puts(out, "]");
}

/* Those that the graph registered, and others with a unit of their own. */
static void put_names(const cria_graph *graph, cria_text *out) {
    bool first = true;
    cria_text_puts(out, ",\n  \"names\": [");
    for (int i = 0; i < cria_graph_dim_names(graph); i++) {
        int64_t unit = cria_graph_named_unit(graph, i);
        if (i < CRIA_DIM_COUNT && unit == 1) continue;
        cria_text_puts(out, first ? "{\"name\": " : ", {\"name\": ");
        put_string(out, cria_dim_to_name(graph, i));
        if (unit != 1) cria_text_printf(out, ", \"unit\": %lld", (long long)unit);
        cria_text_puts(out, "}");
        first = false;
    }
    cria_text_puts(out, "]");
}

static void put_tensor(const cria_graph *graph, const cria_tensor *tensor, bool first, cria_text *out) {
    cria_text_puts(out, first ? "\n    {\"name\": " : ",\n    {\"name\": ");
    put_string(out, tensor->name);
    cria_text_printf(out, ", \"kind\": \"%s\", \"dims\": ", cria_tensor_words[tensor->kind]);
    put_dims(graph, tensor->dims, tensor->dim, out);
    if (tensor->kind == CRIA_TENSOR_PARAM && tensor->param != CRIA_PARAM_PLAIN)
        cria_text_printf(out, ", \"source\": \"%s\"", cria_param_words[tensor->param]);
    if (tensor->differentiable) cria_text_puts(out, ", \"gradient\": true");
    cria_text_puts(out, "}");
}

static void put_attribute(const cria_graph *graph, const cria_op *op, const cria_attribute *attribute, cria_text *out) {
    double value = cria_attribute_get(attribute, op);
    if (!cria_attribute_applies(attribute, op->kind) || value == attribute->fallback) return;
    cria_text_printf(out, ", \"%s\": ", attribute->name);
    if (attribute->type == CRIA_ATTRIBUTE_BOOL) {
        cria_text_puts(out, value != 0 ? "true" : "false");
    } else if (attribute->type == CRIA_ATTRIBUTE_ACTIVATION) {
        put_string(out, cria_activation_words[op->activation]);
    } else if (attribute->type == CRIA_ATTRIBUTE_OVER) {
        const cria_tensor *x = cria_graph_tensor(graph, op->input[0]);
        bool first = true;
        for (int d = 0; d < x->dims; d++) {
            if (!(op->over >> d & 1)) continue;
            cria_text_puts(out, first ? "[" : ", ");
            put_string(out, cria_dim_to_name(graph, x->dim[d].name));
            first = false;
        }
        cria_text_puts(out, "]");
    } else {
        cria_text_json_number(out, value);
    }
}

static void put_op(const cria_graph *graph, const cria_op *op, bool first, cria_text *out) {
    const cria_op_info *info = cria_op_info_of(op->kind);
    cria_text_printf(out, "%s\n    {\"kind\": \"%s\", \"name\": ", first ? "" : ",", info->name);
    put_string(out, cria_graph_tensor(graph, op->output)->name);
    cria_text_puts(out, ", \"inputs\": [");
    int inputs = info->max_inputs;
    while (inputs > 0 && op->input[inputs - 1] < 0) inputs--;
    for (int k = 0; k < inputs; k++) {
        cria_text_puts(out, k ? ", " : "");
        if (op->input[k] < 0)
            cria_text_puts(out, "null");
        else
            put_string(out, cria_graph_tensor(graph, op->input[k])->name);
    }
    cria_text_printf(out, "], \"layer\": %d", op->layer);
    if (op->pass != CRIA_PASS_FORWARD) cria_text_printf(out, ", \"pass\": \"%s\"", cria_pass_words[op->pass]);
    if (cria_op_states_dims(op->kind)) {
        cria_text_puts(out, ", \"dims\": ");
        put_dims(graph, op->dims, op->dim, out);
    }
    for (const cria_attribute *a = cria_attributes; a->name; a++) put_attribute(graph, op, a, out);
    cria_text_puts(out, "}");
}

void cria_graph_write(const cria_graph *graph, cria_text *out) {
    int frequencies;
    const double *frequency = cria_graph_rope(graph, &frequencies);
    cria_text_puts(out, "{\n  \"format\": \"cria graph\", \"version\": 1, \"name\": ");
    put_string(out, cria_graph_name(graph));
    cria_text_printf(out, ", \"layers\": %d, \"group\": %lld, \"sequence\": %lld", cria_graph_layers(graph),
                     (long long)cria_graph_group(graph), (long long)cria_graph_sequence(graph));
    for (int i = 0; i < frequencies; i++) {
        cria_text_puts(out, i ? ", " : ",\n  \"rope\": [");
        cria_text_json_number(out, frequency[i]);
    }
    if (frequencies) cria_text_puts(out, "]");
    put_names(graph, out);
    cria_text_puts(out, ",\n  \"tensors\": [");
    bool first = true;
    for (int t = 0; t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        if (tensor->kind == CRIA_TENSOR_VALUE) continue;
        put_tensor(graph, tensor, first, out);
        first = false;
    }
    cria_text_puts(out, "],\n  \"operators\": [");
    for (int i = 0; i < cria_graph_ops(graph); i++) put_op(graph, cria_graph_op(graph, i), i == 0, out);
    cria_text_puts(out, "]\n}\n");
}

cria_status cria_graph_write_file(const cria_graph *graph, const char *path, cria_error *err) {
    cria_text text;
    cria_text_init(&text);
    cria_graph_write(graph, &text);
    cria_status status = CRIA_OK;
    FILE *file = text.failed ? NULL : fopen(path, "wb");
    if (text.failed)
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory to write %s", path);
    else if (!file)
        status = cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
    bool whole = file && fwrite(text.data, 1, text.length, file) == text.length;
    if (file && (fclose(file) != 0 || !whole)) status = cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
    cria_text_deinit(&text);
    return status;
}
