/* Turning a problem into a model, and making slices few. */
#include "parallel/solve/model.h"

#include "parallel/solve/problem_rows.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t time;
    int interval; /* ~interval where it ends */
} point;

/* Ends come before beginnings of the same time: [a, t) and [t, b) never meet. */
static int compare_points(const void *a, const void *b) {
    const point *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return (x->interval >= 0) - (y->interval >= 0);
}

/* Usage can only be largest between a beginning and the end that follows it: first[i], last[i] are the slices that
 * interval i is alive in, [first, last). */
static cria_status find_slices(const cria_problem *problem, cria_arena *arena, int *first, int *last, int *slices) {
    point *points;
    CRIA_MODEL_NEW(arena, points, problem->intervals * 2);
    for (int i = 0; i < problem->intervals; i++) {
        points[2 * i] = (point){problem->interval[i].begin, i};
        points[2 * i + 1] = (point){problem->interval[i].end, ~i};
    }
    qsort(points, (size_t)problem->intervals * 2, sizeof *points, compare_points);
    int now = 0;
    bool began = false;
    for (int k = 0; k < problem->intervals * 2; k++) {
        if (points[k].interval >= 0) {
            first[points[k].interval] = now;
            began = true;
        } else {
            now += began;
            began = false;
            last[~points[k].interval] = now;
        }
    }
    *slices = now;
    return CRIA_OK;
}

static cria_status add_node(const cria_problem *problem, int v, const int *first, const int *last, cria_model *out) {
    const cria_problem_node_row *row = &problem->node[v];
    cria_model_node *node = &out->node[v];
    node->strategies = row->strategies;
    node->cost = problem->values + row->cost;
    if (problem->usage_limit < 0 || row->usage == SIZE_MAX) return CRIA_OK;
    int count = 0;
    for (int i = row->interval; i >= 0; i = problem->interval[i].next) count++;
    CRIA_MODEL_NEW(out->arena, node->segment, count);
    for (int i = row->interval; i >= 0; i = problem->interval[i].next) {
        if (first[i] >= last[i]) continue;
        int at = node->segments++;
        /* by insertion: a node has few intervals */
        for (; at > 0 && node->segment[at - 1].begin > first[i]; at--) node->segment[at] = node->segment[at - 1];
        node->segment[at] = (cria_segment){first[i], last[i], problem->values + row->usage};
    }
    return CRIA_OK;
}

cria_status cria_model_create(const cria_problem *problem, cria_arena *arena, cria_arena *heirs, cria_model *out) {
    int *first, *last;
    *out = (cria_model){.nodes = problem->nodes, .edges = problem->edges, .arena = arena};
    CRIA_MODEL_NEW(arena, first, problem->intervals);
    CRIA_MODEL_NEW(arena, last, problem->intervals);
    if (problem->usage_limit >= 0) {
        cria_status status = find_slices(problem, arena, first, last, &out->slices);
        if (status != CRIA_OK) return status;
    }
    CRIA_MODEL_NEW(arena, out->room, out->slices);
    CRIA_MODEL_NEW(arena, out->origin, out->slices);
    CRIA_MODEL_NEW(heirs, out->heir, out->slices);
    for (int t = 0; t < out->slices; t++) {
        out->room[t] = problem->usage_limit;
        out->origin[t] = out->heir[t] = t;
    }
    CRIA_MODEL_NEW(arena, out->node, out->nodes);
    for (int v = 0; v < out->nodes; v++) {
        cria_status status = add_node(problem, v, first, last, out);
        if (status != CRIA_OK) return status;
    }
    CRIA_MODEL_NEW(arena, out->edge, out->edges);
    for (int e = 0; e < out->edges; e++)
        out->edge[e] =
            (cria_model_edge){problem->edge[e].a, problem->edge[e].b, problem->values + problem->edge[e].cost};
    return CRIA_OK;
}

/* at least as large for every strategy */
static bool covers(const int64_t *larger, const int64_t *smaller, int strategies) {
    for (int i = 0; i < strategies; i++)
        if ((larger ? larger[i] : 0) < (smaller ? smaller[i] : 0)) return false;
    return true;
}

/* For every slice t: does what is used at t - 1 (rises[t]), or at t (falls[t]), never pass what is used at the other
 * one? Strategies' usages only change at the ends of segments. */
static void compare_neighbours(const cria_model *model, bool *not_rising, bool *not_falling) {
    for (int v = 0; v < model->nodes; v++) {
        const cria_model_node *node = &model->node[v];
        for (int k = 0; k <= node->segments; k++) {
            const cria_segment *before = k > 0 ? &node->segment[k - 1] : NULL;
            const cria_segment *after = k < node->segments ? &node->segment[k] : NULL;
            bool adjoin = before && after && before->end == after->begin;
            if (after) {
                const int64_t *u = adjoin ? before->usage : NULL;
                if (!covers(after->usage, u, node->strategies)) not_rising[after->begin] = true;
                if (!covers(u, after->usage, node->strategies)) not_falling[after->begin] = true;
            }
            if (before && !adjoin && before->end < model->slices) not_rising[before->end] = true;
        }
    }
}

cria_status cria_model_drop_slices(cria_model *model) {
    int64_t *most;
    bool *not_rising, *not_falling, *drop;
    int *renumbered;
    CRIA_MODEL_NEW(model->arena, most, model->slices);
    CRIA_MODEL_NEW(model->arena, not_rising, model->slices);
    CRIA_MODEL_NEW(model->arena, not_falling, model->slices);
    CRIA_MODEL_NEW(model->arena, drop, model->slices);
    CRIA_MODEL_NEW(model->arena, renumbered, model->slices);
    for (int v = 0; v < model->nodes; v++)
        for (int k = 0; k < model->node[v].segments; k++) {
            const cria_segment *s = &model->node[v].segment[k];
            int64_t largest = 0;
            for (int i = 0; i < model->node[v].strategies; i++)
                if (s->usage[i] > largest) largest = s->usage[i];
            most[s->begin] += largest;
            most[s->end] -= largest;
        }
    compare_neighbours(model, not_rising, not_falling);
    int64_t sum = 0;
    int held = -1; /* the last slice kept, while nothing stands between it and t */
    for (int t = 0; t < model->slices; t++) {
        sum += most[t];
        if (sum <= model->room[t]) {
            drop[t] = true;
            model->heir[model->origin[t]] = -1;
            held = -1;
            continue;
        }
        if (held >= 0 && !not_falling[t] && model->room[held] <= model->room[t]) {
            drop[t] = true;
            model->heir[model->origin[t]] = model->origin[held];
            /* t uses no more than `held`; what comes next is compared with t, so it must not be dropped against `held`
             * unless it falls again */
            continue;
        }
        if (held == t - 1 && held >= 0 && !not_rising[t] && model->room[t] <= model->room[held]) {
            drop[held] = true;
            model->heir[model->origin[held]] = model->origin[t];
        }
        held = t;
    }
    int kept = 0;
    for (int t = 0; t < model->slices; t++) {
        renumbered[t] = kept;
        if (drop[t]) continue;
        model->origin[kept] = model->origin[t];
        model->room[kept++] = model->room[t];
    }
    renumbered[model->slices] = kept;
    for (int v = 0; v < model->nodes; v++) {
        cria_model_node *node = &model->node[v];
        int segments = 0;
        for (int k = 0; k < node->segments; k++) {
            cria_segment s = node->segment[k];
            s.begin = renumbered[s.begin];
            s.end = renumbered[s.end];
            if (s.begin < s.end) node->segment[segments++] = s;
        }
        node->segments = segments;
    }
    model->slices = kept;
    return CRIA_OK;
}
