/* The reader of graph files: every name and number is checked before anything is built of it. */
#include "parallel/graph/attributes.h"
#include "parallel/graph/graph_file.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LAYERS = 100000, MAX_OPERATORS = 1 << 20, MAX_GROUP = 1 << 16, MAX_FREQUENCIES = 4096 };
static const size_t MAX_FILE = (size_t)1 << 30;
static const int64_t MAX_EXTENT = (int64_t)1 << 40;

static cria_status get(const cria_json_value *object, const char *key, cria_json_type type, const cria_json_value **out,
                       cria_error *err) {
    *out = cria_json_get(object, key);
    return cria_json_want(*out, type, key, err);
}

/* Refuses keys that nobody reads: a misspelt attribute would silently have its default. `known` ends with NULL. */
static cria_status check_keys(const cria_json_value *object, const char *const *known, cria_op_kind kind,
                              cria_error *err) {
    for (const cria_json_value *v = cria_json_first(object); v; v = cria_json_next(v)) {
        const char *key = cria_json_key(v);
        bool found = kind < CRIA_OP_COUNT && cria_op_states_dims(kind) && strcmp(key, "dims") == 0;
        for (const char *const *k = known; *k && !found; k++) found = strcmp(*k, key) == 0;
        for (const cria_attribute *a = cria_attributes; kind < CRIA_OP_COUNT && a->name && !found; a++)
            found = cria_attribute_applies(a, kind) && strcmp(a->name, key) == 0;
        if (!found) return cria_fail(err, CRIA_ERR_FORMAT, "unknown key \"%.60s\"", key);
    }
    return CRIA_OK;
}

static cria_status find_word(const char *key, const char *text, const char *const *words, int *out, cria_error *err) {
    for (*out = 0; words[*out]; ++*out)
        if (strcmp(text, words[*out]) == 0) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\": \"%.60s\" is not known", key, text);
}

static cria_status get_word(const cria_json_value *object, const char *key, const char *const *words, int *out,
                            cria_error *err) {
    const char *text;
    CRIA_TRY(cria_json_get_string(object, key, words[0], &text, err));
    return find_word(key, text, words, out, err);
}

/* Text without NUL of 1 to 95 bytes. */
static cria_status get_name(const cria_json_value *object, const char **out, cria_error *err) {
    CRIA_TRY(cria_json_get_string(object, "name", "", out, err));
    size_t length = strlen(*out);
    if (length < 1 || length > 95)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"name\" has %zu bytes, not 1 to 95: \"%.60s\"", length, *out);
    return CRIA_OK;
}

static const char *text_of(const cria_json_value *value) {
    size_t length;
    const char *text = cria_json_type_of(value) == CRIA_JSON_STRING ? cria_json_text(value, &length) : NULL;
    return text && strlen(text) == length ? text : NULL;
}

/* ["batch", 64], or ["token", null] where the extent is known at run time. */
static cria_status read_dim(cria_graph *graph, const cria_json_value *pair, cria_dim *out, cria_error *err) {
    const cria_json_value *name = cria_json_first(pair), *extent = name ? cria_json_next(name) : NULL;
    const char *text = text_of(name);
    if (cria_json_type_of(pair) != CRIA_JSON_ARRAY || cria_json_size(pair) != 2 || !text)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"dims\" must be a list of [name, extent]");
    out->name = cria_graph_dim(graph, text);
    out->extent = CRIA_SYMBOLIC;
    if (cria_json_type_of(extent) == CRIA_JSON_NULL) {
        if (out->name == CRIA_DIM_TOKEN || out->name == CRIA_DIM_ROW) return CRIA_OK;
        return cria_fail(err, CRIA_ERR_FORMAT, "dim \"%.40s\" has no extent; only token and row may be without", text);
    }
    if (!cria_json_int(extent, &out->extent) || out->extent < 1 || out->extent > MAX_EXTENT)
        return cria_fail(err, CRIA_ERR_FORMAT, "the extent of dim \"%.40s\" must be a whole number from 1 to 2^40",
                         text);
    return CRIA_OK;
}

static cria_status read_dims(cria_graph *graph, const cria_json_value *object, int *dims, cria_dim *dim,
                             cria_error *err) {
    const cria_json_value *list;
    CRIA_TRY(get(object, "dims", CRIA_JSON_ARRAY, &list, err));
    if (cria_json_size(list) > CRIA_MAX_DIMS)
        return cria_fail(err, CRIA_ERR_FORMAT, "%zu dims; at most %d", cria_json_size(list), CRIA_MAX_DIMS);
    *dims = 0;
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v))
        CRIA_TRY(read_dim(graph, v, &dim[(*dims)++], err));
    return CRIA_OK;
}

static cria_status check_new(const cria_graph *graph, const char *name, cria_error *err) {
    if (cria_graph_find(graph, name) < 0) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "another tensor has the same name");
}

static cria_status read_tensor(cria_graph *graph, const cria_json_value *value, const char **name, cria_error *err) {
    static const char *const keys[] = {"name", "kind", "dims", "source", "gradient", NULL};
    int kind, param, dims;
    bool gradient;
    cria_dim dim[CRIA_MAX_DIMS];
    CRIA_TRY(cria_json_want(value, CRIA_JSON_OBJECT, "tensors", err));
    CRIA_TRY(get_name(value, name, err));
    CRIA_TRY(check_new(graph, *name, err));
    CRIA_TRY(check_keys(value, keys, CRIA_OP_COUNT, err));
    CRIA_TRY(get_word(value, "kind", cria_tensor_words, &kind, err));
    CRIA_TRY(get_word(value, "source", cria_param_words, &param, err));
    CRIA_TRY(cria_json_get_bool(value, "gradient", false, &gradient, err));
    CRIA_TRY(read_dims(graph, value, &dims, dim, err));
    if (kind == CRIA_TENSOR_VALUE)
        return cria_fail(err, CRIA_ERR_FORMAT, "values are the outputs of operators and are not listed");
    int tensor = kind == CRIA_TENSOR_PARAM
                     ? cria_graph_param(graph, (cria_param_kind)param, dims, dim, "%s", *name)
                     : cria_graph_tensor_add(graph, (cria_tensor_kind)kind, dims, dim, "%s", *name);
    if (gradient && kind == CRIA_TENSOR_INPUT) cria_graph_want_gradient(graph, tensor);
    int count = 0;
    cria_graph_rope(graph, &count);
    bool table = kind == CRIA_TENSOR_PARAM && param == CRIA_PARAM_ROPE_TABLE;
    if (table && (dims != 2 || dim[1].extent != 2 * (int64_t)count))
        return cria_fail(err, CRIA_ERR_FORMAT, "a rotary table has two dims, the second twice as long as \"rope\" (%d)",
                         count);
    return cria_graph_check(graph, err);
}

static cria_status read_inputs(const cria_graph *graph, const cria_json_value *object, cria_op *op, cria_error *err) {
    const cria_op_info *info = cria_op_info_of(op->kind);
    const cria_json_value *list = cria_json_get(object, "inputs");
    if (list) CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "inputs", err));
    int count = (int)cria_json_size(list);
    if (count < info->min_inputs || count > info->max_inputs)
        return cria_fail(err, CRIA_ERR_FORMAT, "%s has %d inputs, not %d to %d", info->name, count, info->min_inputs,
                         info->max_inputs);
    for (int k = 0; k < CRIA_MAX_INPUTS; k++) op->input[k] = CRIA_NO_TENSOR;
    int k = 0;
    for (const cria_json_value *v = list ? cria_json_first(list) : NULL; v; v = cria_json_next(v), k++) {
        bool absent = cria_json_type_of(v) == CRIA_JSON_NULL && k >= info->min_inputs;
        if (absent) continue;
        const char *text = text_of(v);
        if (!text) return cria_fail(err, CRIA_ERR_FORMAT, "input %d is no name of a tensor", k);
        op->input[k] = cria_graph_find(graph, text);
        if (op->input[k] < 0)
            return cria_fail(err, CRIA_ERR_FORMAT, "input \"%.95s\" does not exist before it is read", text);
    }
    return CRIA_OK;
}

/* The dims of the first input by name. */
static cria_status read_over(cria_graph *graph, const cria_json_value *list, cria_op *op, cria_error *err) {
    CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "over", err));
    const cria_tensor x = *cria_graph_tensor(graph, op->input[0]);
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        const char *text = text_of(v);
        int found = -1;
        for (int d = 0; text && d < x.dims; d++)
            if (strcmp(cria_dim_to_name(graph, x.dim[d].name), text) == 0) found = d;
        if (found < 0)
            return cria_fail(err, CRIA_ERR_FORMAT, "\"over\": the input has no dim \"%.40s\"", text ? text : "?");
        op->over |= 1U << found;
    }
    return CRIA_OK;
}

static cria_status read_attribute(cria_graph *graph, const cria_json_value *object, const cria_attribute *attribute,
                                  cria_op *op, cria_error *err) {
    const cria_json_value *value = cria_json_get(object, attribute->name);
    double number = attribute->fallback;
    bool whole = attribute->type == CRIA_ATTRIBUTE_INT || attribute->type == CRIA_ATTRIBUTE_LONG;
    if (!value && number < attribute->least)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\" is missing", attribute->name);
    if (value && attribute->type == CRIA_ATTRIBUTE_OVER) return read_over(graph, value, op, err);
    if (value && attribute->type == CRIA_ATTRIBUTE_ACTIVATION) {
        int word;
        CRIA_TRY(get_word(object, attribute->name, cria_activation_words, &word, err));
        number = word;
    } else if (attribute->type == CRIA_ATTRIBUTE_BOOL) {
        bool flag;
        CRIA_TRY(cria_json_get_bool(object, attribute->name, false, &flag, err));
        number = flag;
    } else if (whole) {
        int64_t exact;
        CRIA_TRY(cria_json_get_int(object, attribute->name, (int64_t)number, (int64_t)attribute->least,
                                   (int64_t)attribute->most, &exact, err));
        number = (double)exact;
    } else if (value) {
        CRIA_TRY(
            cria_json_get_double(object, attribute->name, number, attribute->least, attribute->most, &number, err));
    }
    cria_attribute_set(attribute, op, number);
    return CRIA_OK;
}

static cria_status read_op(cria_graph *graph, const cria_json_value *value, const char **name, cria_error *err) {
    static const char *const keys[] = {"kind", "name", "inputs", "layer", "pass", NULL};
    cria_op op = {0};
    const char *kind;
    int64_t layer;
    int pass;
    CRIA_TRY(cria_json_want(value, CRIA_JSON_OBJECT, "operators", err));
    CRIA_TRY(get_name(value, name, err));
    CRIA_TRY(check_new(graph, *name, err));
    CRIA_TRY(cria_json_get_string(value, "kind", "", &kind, err));
    while (op.kind < CRIA_OP_COUNT && strcmp(cria_op_info_of(op.kind)->name, kind) != 0) op.kind++;
    if (op.kind == CRIA_OP_COUNT)
        return cria_fail(err, CRIA_ERR_FORMAT, "there is no kind of operator called \"%.60s\"", kind);
    CRIA_TRY(check_keys(value, keys, op.kind, err));
    CRIA_TRY(cria_json_get_int(value, "layer", 0, -1, cria_graph_layers(graph), &layer, err));
    op.layer = (int)layer;
    CRIA_TRY(get_word(value, "pass", cria_pass_words, &pass, err));
    op.pass = (cria_pass)pass;
    CRIA_TRY(read_inputs(graph, value, &op, err));
    if (cria_op_states_dims(op.kind)) CRIA_TRY(read_dims(graph, value, &op.dims, op.dim, err));
    for (const cria_attribute *a = cria_attributes; a->name; a++)
        if (cria_attribute_applies(a, op.kind)) CRIA_TRY(read_attribute(graph, value, a, &op, err));
    cria_graph_add(graph, op, "%s", *name);
    return cria_graph_check(graph, err);
}

/* Errors of one entry of a list say which. */
typedef cria_status read_entry(cria_graph *graph, const cria_json_value *value, const char **name, cria_error *err);

static cria_status read_list(cria_graph *graph, const cria_json_value *root, const char *key, const char *what,
                             read_entry *read, cria_error *err) {
    const cria_json_value *list;
    CRIA_TRY(get(root, key, CRIA_JSON_ARRAY, &list, err));
    if (cria_json_size(list) > MAX_OPERATORS)
        return cria_fail(err, CRIA_ERR_FORMAT, "%zu %s; at most %d", cria_json_size(list), key, MAX_OPERATORS);
    int number = 0;
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v), number++) {
        const char *name = "";
        cria_error why = {0};
        cria_status status = read(graph, v, &name, &why);
        if (status == CRIA_OK) continue;
        return cria_fail(err, status == CRIA_ERR_MEMORY ? status : CRIA_ERR_FORMAT, "%s %d \"%.60s\": %s", what, number,
                         name, why.message);
    }
    return CRIA_OK;
}

static cria_status read_names(cria_graph *graph, const cria_json_value *root, cria_error *err) {
    static const char *const keys[] = {"name", "unit", NULL};
    const cria_json_value *list = cria_json_get(root, "names");
    if (list) CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "names", err));
    for (const cria_json_value *v = list ? cria_json_first(list) : NULL; v; v = cria_json_next(v)) {
        const char *name;
        int64_t unit;
        CRIA_TRY(cria_json_want(v, CRIA_JSON_OBJECT, "names", err));
        CRIA_TRY(check_keys(v, keys, CRIA_OP_COUNT, err));
        CRIA_TRY(get_name(v, &name, err));
        CRIA_TRY(cria_json_get_int(v, "unit", 1, 1, CRIA_MAX_ELEMENTS, &unit, err));
        cria_dim_name number = cria_graph_dim(graph, name);
        CRIA_TRY(cria_graph_check(graph, err));
        cria_graph_set_unit(graph, number, unit);
    }
    return CRIA_OK;
}

static cria_status read_rope(cria_graph *graph, const cria_json_value *root, cria_error *err) {
    double frequency[MAX_FREQUENCIES];
    int count = 0;
    const cria_json_value *list = cria_json_get(root, "rope");
    if (!list) return CRIA_OK;
    CRIA_TRY(cria_json_want(list, CRIA_JSON_ARRAY, "rope", err));
    if (cria_json_size(list) > MAX_FREQUENCIES)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"rope\" has %zu numbers; at most %d", cria_json_size(list),
                         MAX_FREQUENCIES);
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v)) {
        CRIA_TRY(cria_json_want(v, CRIA_JSON_NUMBER, "rope", err));
        double number = cria_json_number(v);
        if (!(number >= 0 && number <= 1e30))
            return cria_fail(err, CRIA_ERR_FORMAT, "\"rope\" has the frequency %g", number);
        frequency[count++] = number;
    }
    return count ? cria_graph_set_rope(graph, frequency, count, err) : CRIA_OK;
}

static cria_status read_all(cria_graph *graph, const cria_json_value *root, cria_error *err) {
    int64_t group, sequence;
    CRIA_TRY(cria_json_get_int(root, "group", 1, 1, MAX_GROUP, &group, err));
    CRIA_TRY(cria_json_get_int(root, "sequence", 0, 0, INT32_MAX, &sequence, err));
    cria_graph_set_group(graph, group);
    cria_graph_set_sequence(graph, sequence);
    CRIA_TRY(read_rope(graph, root, err));
    CRIA_TRY(read_names(graph, root, err));
    CRIA_TRY(read_list(graph, root, "tensors", "tensor", read_tensor, err));
    CRIA_TRY(read_list(graph, root, "operators", "operator", read_op, err));
    if (cria_graph_ops(graph) == 0) return cria_fail(err, CRIA_ERR_FORMAT, "a graph without operators");
    return CRIA_OK;
}

cria_status cria_graph_read(const cria_json_value *root, cria_graph **out, cria_error *err) {
    static const char *const keys[] = {"format", "version", "name",    "layers",    "group", "sequence",
                                       "rope",   "names",   "tensors", "operators", NULL};
    const char *format, *name;
    int64_t version, layers;
    CRIA_TRY(cria_json_want(root, CRIA_JSON_OBJECT, "graph", err));
    CRIA_TRY(cria_json_get_string(root, "format", "", &format, err));
    if (strcmp(format, "cria graph") != 0)
        return cria_fail(err, CRIA_ERR_FORMAT, "no graph file: \"format\" is \"%.40s\", not \"cria graph\"", format);
    CRIA_TRY(cria_json_get_int(root, "version", 0, 1, 1, &version, err));
    CRIA_TRY(check_keys(root, keys, CRIA_OP_COUNT, err));
    CRIA_TRY(get_name(root, &name, err));
    CRIA_TRY(cria_json_get_int(root, "layers", 1, 0, MAX_LAYERS, &layers, err));
    cria_graph *graph = cria_graph_create(name, (int)layers);
    if (!graph) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for graph %s", name);
    cria_status status = read_all(graph, root, err);
    if (status != CRIA_OK) {
        cria_graph_destroy(graph);
        return status;
    }
    *out = graph;
    return CRIA_OK;
}

cria_status cria_graph_read_file(const char *path, cria_graph **out, cria_error *err) {
    cria_json *json = NULL;
    CRIA_TRY(cria_json_parse_file(path, MAX_FILE, &json, err));
    cria_status status = cria_graph_read(cria_json_root(json), out, err);
    cria_json_destroy(json);
    return status == CRIA_OK ? CRIA_OK : cria_fail_within(err, path);
}
