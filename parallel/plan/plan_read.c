/* The plan file's reader: every number, name and length is checked before anything is built of it. */
#include "parallel/plan/plan_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 4096, MAX_OPERATORS = 1 << 20 };
static const size_t MAX_FILE = (size_t)1 << 30;
static const double MOST = 1e300;

/* What is being read. `graph` is NULL where the file is only checked. */
typedef struct {
    const cria_graph *graph;
    int ops, ranks, stages;
    cria_stage *stage;
    double *shares; /* [2 * ranks]: enough, since the axes of a mesh are no longer than it has devices */
    int shares_used;
    cria_strategy *strategy;
} reader;

static cria_status get(const cria_json_value *object, const char *key, cria_json_type type, const cria_json_value **out,
                       cria_error *err) {
    *out = cria_json_get(object, key);
    return cria_json_want(*out, type, key, err);
}

static cria_status get_int(const cria_json_value *object, const char *key, int64_t min, int64_t max, int *out,
                           cria_error *err) {
    const cria_json_value *value;
    int64_t number = 0;
    CRIA_TRY(get(object, key, CRIA_JSON_NUMBER, &value, err));
    CRIA_TRY(cria_json_get_int(object, key, 0, min, max, &number, err));
    *out = (int)number;
    return CRIA_OK;
}

static cria_status get_size(const cria_json_value *object, const char *key, int64_t *out, cria_error *err) {
    return cria_json_get_int(object, key, 0, 0, INT64_MAX, out, err);
}

static cria_status get_seconds(const cria_json_value *object, const char *key, double *out, cria_error *err) {
    return cria_json_get_double(object, key, 0, 0, MOST, out, err);
}

/* One of `count` words; `index` is which. */
static cria_status get_word(const cria_json_value *object, const char *key, const char *const *words, int count,
                            int *index, cria_error *err) {
    const char *text;
    CRIA_TRY(cria_json_get_string(object, key, words[0], &text, err));
    for (*index = 0; *index < count; ++*index)
        if (strcmp(text, words[*index]) == 0) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\": \"%s\" is not known", key, text);
}

/* Exactly two elements. */
static cria_status get_two(const cria_json_value *object, const char *key, const cria_json_value *out[CRIA_MESH_AXES],
                           cria_error *err) {
    const cria_json_value *array;
    CRIA_TRY(get(object, key, CRIA_JSON_ARRAY, &array, err));
    if (cria_json_size(array) != CRIA_MESH_AXES)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\" must have %d elements, but has %zu", key, CRIA_MESH_AXES,
                         cria_json_size(array));
    out[0] = cria_json_first(array);
    out[1] = cria_json_next(out[0]);
    return CRIA_OK;
}

static cria_status get_numbers(const cria_json_value *object, const char *key, double out[CRIA_MESH_AXES],
                               cria_error *err) {
    const cria_json_value *two[CRIA_MESH_AXES];
    CRIA_TRY(get_two(object, key, two, err));
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        CRIA_TRY(cria_json_want(two[axis], CRIA_JSON_NUMBER, key, err));
        out[axis] = cria_json_number(two[axis]);
        if (!(out[axis] >= 0 && out[axis] <= MOST))
            return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\": %g is not a cost", key, out[axis]);
    }
    return CRIA_OK;
}

static cria_status read_shares(reader *r, const cria_json_value *object, cria_mesh *mesh, cria_error *err) {
    if (!cria_json_get(object, "shares")) return CRIA_OK;
    const cria_json_value *two[CRIA_MESH_AXES];
    CRIA_TRY(get_two(object, "shares", two, err));
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (cria_json_type_of(two[axis]) == CRIA_JSON_NULL) continue;
        CRIA_TRY(cria_json_want(two[axis], CRIA_JSON_ARRAY, "shares", err));
        if (cria_json_size(two[axis]) != (size_t)mesh->size[axis])
            return cria_fail(err, CRIA_ERR_FORMAT, "\"shares\": axis %d has %d positions, but %zu shares", axis,
                             mesh->size[axis], cria_json_size(two[axis]));
        double *share = r->shares + r->shares_used;
        r->shares_used += mesh->size[axis];
        mesh->share[axis] = share;
        for (const cria_json_value *v = cria_json_first(two[axis]); v; v = cria_json_next(v)) {
            double value = cria_json_type_of(v) == CRIA_JSON_NUMBER ? cria_json_number(v) : -1;
            if (!(value > 1e-9 && value <= 1e9))
                return cria_fail(err, CRIA_ERR_FORMAT, "\"shares\": axis %d: a share must be a number over 0", axis);
            *share++ = value;
        }
    }
    return CRIA_OK;
}

static cria_status read_mesh(reader *r, const cria_json_value *object, cria_stage *stage, cria_error *err) {
    const cria_json_value *size[CRIA_MESH_AXES];
    CRIA_TRY(get_two(object, "mesh", size, err));
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int64_t n;
        if (!cria_json_int(size[axis], &n) || n < 1 || n > r->ranks)
            return cria_fail(err, CRIA_ERR_FORMAT, "\"mesh\": axis %d is no size from 1 to %d", axis, r->ranks);
        stage->mesh.size[axis] = (int)n;
    }
    if ((int64_t)stage->mesh.size[0] * stage->mesh.size[1] > r->ranks - stage->first_rank)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"mesh\": %d x %d devices from rank %d on are more than %d ranks",
                         stage->mesh.size[0], stage->mesh.size[1], stage->first_rank, r->ranks);
    CRIA_TRY(get_numbers(object, "alpha", stage->mesh.alpha, err));
    CRIA_TRY(get_numbers(object, "beta", stage->mesh.beta, err));
    return read_shares(r, object, &stage->mesh, err);
}

static const char *word_of(const cria_json_value *value, const char *key, cria_error *err) {
    size_t length;
    const char *text = cria_json_type_of(value) == CRIA_JSON_STRING ? cria_json_text(value, &length) : NULL;
    if (!text || strlen(text) != length) {
        cria_fail(err, CRIA_ERR_FORMAT, "\"%s\" must have two words", key);
        return NULL;
    }
    return text;
}

/* The index of an operator by name. */
static bool find_cut(const cria_graph *graph, const cria_op *op, const char *word, int8_t *out) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(graph, op, indices);
    *out = strcmp(word, "idle") == 0 ? CRIA_IDLE : CRIA_PARTIAL;
    if (*out == CRIA_IDLE || strcmp(word, "partial") == 0) return true;
    for (int i = 0; i < count; i++)
        if (strcmp(word, cria_dim_to_name(graph, indices[i].dim.name)) == 0) {
            *out = (int8_t)i;
            return true;
        }
    return false;
}

static bool find_dim(const cria_graph *graph, const cria_tensor *tensor, const char *word, int8_t *out) {
    *out = strcmp(word, "whole") == 0 ? CRIA_REPLICATED : CRIA_PARTIAL;
    if (*out == CRIA_REPLICATED || strcmp(word, "partial") == 0) return true;
    for (int d = 0; d < tensor->dims; d++)
        if (strcmp(word, cria_dim_to_name(graph, tensor->dim[d].name)) == 0) {
            *out = (int8_t)d;
            return true;
        }
    return false;
}

static cria_status read_strategy(reader *r, const cria_json_value *value, int op_index, const cria_mesh *mesh,
                                 cria_error *err) {
    const char *name;
    CRIA_TRY(cria_json_want(value, CRIA_JSON_OBJECT, "strategies", err));
    CRIA_TRY(cria_json_get_string(value, "name", "", &name, err));
    const cria_json_value *cut[CRIA_MESH_AXES], *left[CRIA_MESH_AXES];
    CRIA_TRY(get_two(value, "cut", cut, err));
    CRIA_TRY(get_two(value, "output", left, err));
    const char *cut_word[CRIA_MESH_AXES], *left_word[CRIA_MESH_AXES];
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (!(cut_word[axis] = word_of(cut[axis], "cut", err))) return CRIA_ERR_FORMAT;
        if (!(left_word[axis] = word_of(left[axis], "output", err))) return CRIA_ERR_FORMAT;
    }
    if (!r->graph) return CRIA_OK;
    const cria_op *op = cria_graph_op(r->graph, op_index);
    const cria_tensor *output = cria_graph_tensor(r->graph, op->output);
    if (strcmp(name, output->name) != 0)
        return cria_fail(err, CRIA_ERR_FORMAT, "operator %d is \"%s\" in the plan, but \"%s\" in the model", op_index,
                         name, output->name);
    int8_t index[CRIA_MESH_AXES];
    cria_sharding sharding;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (!find_cut(r->graph, op, cut_word[axis], &index[axis]))
            return cria_fail(err, CRIA_ERR_FORMAT, "operator \"%s\" has no index \"%s\"", name, cut_word[axis]);
        if (!find_dim(r->graph, output, left_word[axis], &sharding.dim[axis]))
            return cria_fail(err, CRIA_ERR_FORMAT, "operator \"%s\": the output has no dim \"%s\"", name,
                             left_word[axis]);
    }
    const char *why = cria_strategy_derive(r->graph, op, mesh, index, &r->strategy[op_index]);
    if (why) return cria_fail(err, CRIA_ERR_FORMAT, "operator \"%s\": %s", name, why);
    r->strategy[op_index].output = cria_sharding_canonical(sharding, mesh);
    return CRIA_OK;
}

static cria_status read_stage_notes(const cria_json_value *object, cria_plan_stage_notes *n, cria_error *err) {
    const cria_json_value *p = cria_json_get(object, "predicted");
    if (!p) return CRIA_OK;
    CRIA_TRY(cria_json_want(p, CRIA_JSON_OBJECT, "predicted", err));
    CRIA_TRY(get_seconds(p, "compute", &n->compute, err));
    CRIA_TRY(get_seconds(p, "collectives", &n->collectives, err));
    CRIA_TRY(get_seconds(p, "resharding", &n->resharding, err));
    CRIA_TRY(get_seconds(p, "transfer", &n->transfer, err));
    CRIA_TRY(get_seconds(p, "bubble", &n->bubble, err));
    CRIA_TRY(get_seconds(p, "update", &n->update, err));
    CRIA_TRY(get_size(p, "weights", &n->weights, err));
    CRIA_TRY(get_size(p, "optimizer", &n->optimizer, err));
    CRIA_TRY(get_size(p, "activations", &n->activations, err));
    CRIA_TRY(get_size(p, "kv", &n->kv, err));
    CRIA_TRY(get_size(p, "memory", &n->memory, err));
    CRIA_TRY(get_size(p, "memory_limit", &n->memory_limit, err));
    CRIA_TRY(get_size(p, "kv_blocks", &n->kv_blocks, err));
    CRIA_TRY(cria_json_get_bool(p, "recompute", false, &n->recompute, err));
    int64_t zero;
    CRIA_TRY(cria_json_get_int(p, "zero", 0, 0, 3, &zero, err));
    n->zero = (int)zero;
    return CRIA_OK;
}

static cria_status read_stage(reader *r, const cria_json_value *object, int s, int first_op, cria_plan_notes *notes,
                              cria_error *err) {
    cria_stage *stage = &r->stage[s];
    int count;
    CRIA_TRY(cria_json_want(object, CRIA_JSON_OBJECT, "stages", err));
    CRIA_TRY(get_int(object, "operators", 1, r->ops - first_op, &count, err));
    CRIA_TRY(get_int(object, "first_rank", 0, r->ranks - 1, &stage->first_rank, err));
    stage->first_op = first_op;
    stage->end_op = first_op + count;
    int expected = s ? r->stage[s - 1].first_rank + r->stage[s - 1].mesh.size[0] * r->stage[s - 1].mesh.size[1] : 0;
    if (stage->first_rank != expected)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"first_rank\" is %d, but must be %d", stage->first_rank, expected);
    CRIA_TRY(read_mesh(r, object, stage, err));
    CRIA_TRY(read_stage_notes(object, &notes->stage[s], err));
    const cria_json_value *strategies;
    CRIA_TRY(get(object, "strategies", CRIA_JSON_ARRAY, &strategies, err));
    if (cria_json_size(strategies) != (size_t)count)
        return cria_fail(err, CRIA_ERR_FORMAT, "%d operators, but %zu strategies", count, cria_json_size(strategies));
    int op = first_op;
    for (const cria_json_value *v = cria_json_first(strategies); v; v = cria_json_next(v))
        CRIA_TRY(read_strategy(r, v, op++, &stage->mesh, err));
    return CRIA_OK;
}

static cria_status read_stages(reader *r, const cria_json_value *stages, cria_plan_notes *notes, cria_error *err) {
    int s = 0, op = 0;
    for (const cria_json_value *v = cria_json_first(stages); v; v = cria_json_next(v)) {
        if (read_stage(r, v, s, op, notes, err) != CRIA_OK) {
            char place[32];
            snprintf(place, sizeof place, "stage %d", s);
            if (err) return cria_fail_within(err, place);
            return CRIA_ERR_FORMAT;
        }
        op = r->stage[s++].end_op;
    }
    const cria_stage *last = &r->stage[s - 1];
    int ranks = last->first_rank + last->mesh.size[0] * last->mesh.size[1];
    if (op != r->ops) return cria_fail(err, CRIA_ERR_FORMAT, "the stages cover %d of %d operators", op, r->ops);
    if (ranks != r->ranks) return cria_fail(err, CRIA_ERR_FORMAT, "the stages cover %d of %d ranks", ranks, r->ranks);
    return CRIA_OK;
}

/* A list with one whole number for every rank; left as zeros where the file has none. */
static cria_status read_per_rank(const cria_json_value *root, const char *key, int ranks, int64_t max, int *ints,
                                 int64_t *wide, cria_error *err) {
    const cria_json_value *array = cria_json_get(root, key);
    if (!array) return CRIA_OK;
    CRIA_TRY(cria_json_want(array, CRIA_JSON_ARRAY, key, err));
    if (cria_json_size(array) != (size_t)ranks)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\" has %zu elements for %d ranks", key, cria_json_size(array),
                         ranks);
    int rank = 0;
    for (const cria_json_value *v = cria_json_first(array); v; v = cria_json_next(v), rank++) {
        int64_t number;
        if (!cria_json_int(v, &number) || number < 0 || number > max)
            return cria_fail(err, CRIA_ERR_FORMAT, "\"%s\": rank %d has no whole number from 0 to %" PRId64, key, rank,
                             max);
        if (ints) ints[rank] = (int)number;
        if (wide) wide[rank] = number;
    }
    return CRIA_OK;
}

static cria_status read_notes(const cria_json_value *root, cria_plan_notes *n, cria_error *err) {
    static const char *const objectives[] = {"latency", "throughput", "train"};
    static const char *const schedules[] = {"inference", "gpipe", "1f1b"};
    const char *cluster;
    int word;
    CRIA_TRY(cria_json_get_string(root, "cluster", "", &cluster, err));
    snprintf(n->cluster, sizeof n->cluster, "%s", cluster);
    CRIA_TRY(get_word(root, "objective", objectives, 3, &word, err));
    n->objective = (cria_objective)word;
    const cria_json_value *schedule = cria_json_get(root, "schedule"), *predicted = cria_json_get(root, "predicted");
    if (schedule) {
        CRIA_TRY(cria_json_want(schedule, CRIA_JSON_OBJECT, "schedule", err));
        CRIA_TRY(get_word(schedule, "kind", schedules, 3, &word, err));
        n->schedule = (cria_schedule)word;
        CRIA_TRY(get_int(schedule, "micro_batches", 1, INT32_MAX, &n->micro_batches, err));
        CRIA_TRY(cria_json_get_int(schedule, "tokens", 1, 1, INT64_MAX, &n->tokens, err));
        CRIA_TRY(cria_json_get_int(schedule, "block_tokens", 16, 1, INT32_MAX, &n->block_tokens, err));
        int64_t replicas;
        CRIA_TRY(cria_json_get_int(schedule, "replicas", 1, 1, INT32_MAX, &replicas, err));
        n->replicas = (int)replicas;
    }
    if (predicted) {
        CRIA_TRY(cria_json_want(predicted, CRIA_JSON_OBJECT, "predicted", err));
        CRIA_TRY(get_seconds(predicted, "step_seconds", &n->step_seconds, err));
        CRIA_TRY(get_seconds(predicted, "tokens_per_second", &n->tokens_per_second, err));
        CRIA_TRY(get_seconds(predicted, "first_token", &n->first_token, err));
        CRIA_TRY(get_seconds(predicted, "latency", &n->latency, err));
    }
    CRIA_TRY(read_per_rank(root, "devices", n->ranks, INT32_MAX, n->device, NULL, err));
    return read_per_rank(root, "bytes", n->ranks, INT64_MAX, NULL, n->bytes, err);
}

static cria_status read_model(reader *r, const cria_json_value *root, cria_error *err) {
    const cria_json_value *model;
    const char *name, *hash;
    CRIA_TRY(get(root, "model", CRIA_JSON_OBJECT, &model, err));
    CRIA_TRY(get_int(model, "operators", 1, MAX_OPERATORS, &r->ops, err));
    CRIA_TRY(cria_json_get_string(model, "name", "", &name, err));
    CRIA_TRY(cria_json_get_string(model, "hash", "", &hash, err));
    if (!r->graph) return CRIA_OK;
    char expected[17];
    snprintf(expected, sizeof expected, "%016" PRIx64, cria_graph_hash(r->graph, 0, cria_graph_ops(r->graph)));
    if (r->ops != cria_graph_ops(r->graph))
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan is for %s with %d operators, but %s has %d", name, r->ops,
                         cria_graph_name(r->graph), cria_graph_ops(r->graph));
    if (strcmp(hash, expected) != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan is for %s (hash %.20s), not for %s (hash %s)", name, hash,
                         cria_graph_name(r->graph), expected);
    return CRIA_OK;
}

static cria_status read_head(reader *r, const cria_json_value *root, const cria_json_value **stages, cria_error *err) {
    const char *format;
    int version;
    if (cria_json_type_of(root) != CRIA_JSON_OBJECT) return cria_fail(err, CRIA_ERR_FORMAT, "a plan is a JSON object");
    CRIA_TRY(cria_json_get_string(root, "format", "", &format, err));
    if (strcmp(format, "cria plan") != 0)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"format\" must be \"cria plan\", but is \"%s\"", format);
    CRIA_TRY(get_int(root, "version", 0, INT32_MAX, &version, err));
    if (version != CRIA_PLAN_VERSION)
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "\"version\" is %d; this program reads %d", version,
                         CRIA_PLAN_VERSION);
    CRIA_TRY(read_model(r, root, err));
    CRIA_TRY(get_int(root, "ranks", 1, CRIA_MAX_RANKS, &r->ranks, err));
    CRIA_TRY(get(root, "stages", CRIA_JSON_ARRAY, stages, err));
    size_t count = cria_json_size(*stages);
    if (count < 1 || count > MAX_STAGES)
        return cria_fail(err, CRIA_ERR_FORMAT, "\"stages\" has %zu stages, not 1 to %d", count, MAX_STAGES);
    r->stages = (int)count;
    return CRIA_OK;
}

static cria_status read_plan(const cria_json_value *root, const cria_graph *graph, cria_plan **out,
                             cria_plan_notes *notes, cria_error *err) {
    reader r = {.graph = graph};
    const cria_json_value *stages;
    CRIA_TRY(read_head(&r, root, &stages, err));
    CRIA_TRY(cria_plan_notes_init(notes, r.ranks, r.stages, err));
    r.stage = calloc((size_t)r.stages, sizeof *r.stage);
    r.shares = calloc((size_t)r.ranks * 2 + (size_t)r.stages * 2, sizeof *r.shares);
    r.strategy = graph ? calloc((size_t)r.ops, sizeof *r.strategy) : NULL;
    cria_status status = CRIA_OK;
    if (!r.stage || !r.shares || (graph && !r.strategy))
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for a plan of %d operators", r.ops);
    if (status == CRIA_OK) status = read_stages(&r, stages, notes, err);
    if (status == CRIA_OK) status = read_notes(root, notes, err);
    if (status == CRIA_OK && graph) status = cria_plan_create(graph, r.stage, r.stages, r.strategy, out, err);
    free(r.stage);
    free(r.shares);
    free(r.strategy);
    if (status != CRIA_OK) cria_plan_notes_deinit(notes);
    return status;
}

cria_status cria_plan_from_json(const cria_json_value *root, const cria_graph *graph, cria_plan **out,
                                cria_plan_notes *notes, cria_error *err) {
    cria_plan_notes unwanted;
    cria_status status = read_plan(root, graph, out, notes ? notes : &unwanted, err);
    if (status == CRIA_OK && !notes) cria_plan_notes_deinit(&unwanted);
    return status;
}

cria_status cria_plan_check_json(const cria_json_value *root, cria_plan_notes *notes, cria_error *err) {
    return cria_plan_from_json(root, NULL, NULL, notes, err);
}

cria_status cria_plan_read(const char *path, const cria_graph *graph, cria_plan **out, cria_plan_notes *notes,
                           cria_error *err) {
    cria_json *json;
    cria_error inner = {0};
    CRIA_TRY(cria_json_parse_file(path, MAX_FILE, &json, err));
    cria_status status = cria_plan_from_json(cria_json_root(json), graph, out, notes, &inner);
    cria_json_destroy(json);
    if (status != CRIA_OK) return cria_fail(err, status, "%s: %s", path, inner.message);
    return CRIA_OK;
}
