/* Contraction: builds the smaller model in which nodes that follow others have become part of them. */
#include "parallel/solve/model.h"

#include <stdlib.h>
#include <string.h>

/* root[v] and to[v][i]: which strategy v takes where its root takes i. */
typedef struct {
    const cria_model *from;
    const cria_change *change;
    cria_arena *scratch;
    int *root, *number; /* number[root]: its node in the new model */
    int32_t **to;       /* NULL: the identity */
    int *first_member, *next_member;
    int empty;
} forest;

static int32_t follow(const int32_t *table, int i) {
    return i < 0 ? -1 : table ? table[i] : i;
}

/* Composes the tables along the way to the root; `way` has room for every node. */
static cria_status find_root(forest *f, int v, int *way) {
    const int *parent = f->change->parent;
    int steps = 0;
    for (; f->root[v] < 0 && parent[v] >= 0; v = parent[v]) way[steps++] = v;
    if (f->root[v] < 0) f->root[v] = v;
    while (steps > 0) {
        int w = way[--steps], above = parent[w], top = f->root[above], n = f->from->node[top].strategies;
        CRIA_MODEL_NEW(f->scratch, f->to[w], n);
        for (int i = 0; i < n; i++) f->to[w][i] = follow(f->change->table[w], follow(f->to[above], i));
        f->root[w] = top;
    }
    return CRIA_OK;
}

static bool kept(const forest *f, int v, int i) {
    return i >= 0 && (!f->change->keep[v] || f->change->keep[v][i]);
}

/* Which strategies of a root remain for all of its members; their list into sel. */
static int select_strategies(const forest *f, int root, int32_t *sel) {
    int count = 0;
    for (int i = 0; i < f->from->node[root].strategies; i++) {
        bool good = true;
        for (int m = f->first_member[root]; m >= 0 && good; m = f->next_member[m])
            good = kept(f, m, follow(f->to[m], i));
        if (good) sel[count++] = i;
    }
    return count;
}

static int64_t sum(int64_t a, int64_t b) {
    return a >= CRIA_MODEL_FORBIDDEN || b >= CRIA_MODEL_FORBIDDEN ? CRIA_MODEL_FORBIDDEN : a + b;
}

typedef struct {
    int at, member, segment; /* segment: ~k where it ends */
} turn;

static int compare_turns(const void *a, const void *b) {
    const turn *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    if (x->member != y->member) return x->member < y->member ? -1 : 1;
    return (x->segment > y->segment) - (x->segment < y->segment); /* ends first */
}

/* Closes [begin, end) with what is used now: the least goes into room, the rest becomes a segment. */
static cria_status put_segment(cria_model *to, cria_model_node *node, int begin, int end, const int64_t *now) {
    int n = node->strategies;
    int64_t least = now[0];
    bool same = true;
    for (int i = 1; i < n; i++) {
        same = same && now[i] == now[0];
        if (now[i] < least) least = now[i];
    }
    for (int t = begin; t < end; t++) to->room[t] -= least;
    if (same) return CRIA_OK;
    cria_segment *s = node->segments ? &node->segment[node->segments - 1] : NULL;
    if (s && s->end == begin) {
        bool equal = true;
        for (int i = 0; i < n && equal; i++) equal = s->usage[i] == now[i] - least;
        if (equal) {
            s->end = end;
            return CRIA_OK;
        }
    }
    s = &node->segment[node->segments++];
    *s = (cria_segment){.begin = begin, .end = end};
    CRIA_MODEL_NEW(to->arena, s->usage, n);
    for (int i = 0; i < n; i++) s->usage[i] = now[i] - least;
    return CRIA_OK;
}

static cria_status sweep_segments(const forest *f, int root, int32_t *const *map, cria_model *to,
                                  cria_model_node *node) {
    int turns = 0;
    for (int m = f->first_member[root]; m >= 0; m = f->next_member[m]) turns += 2 * f->from->node[m].segments;
    if (turns == 0) return CRIA_OK;
    turn *order = malloc((size_t)turns * sizeof *order);
    int64_t *now = calloc((size_t)node->strategies + 1, sizeof *now);
    cria_status status = order && now ? CRIA_OK : CRIA_ERR_MEMORY;
    node->segment = cria_arena_alloc_array(to->arena, (size_t)turns, sizeof *node->segment);
    if (!node->segment) status = CRIA_ERR_MEMORY;
    int count = 0;
    for (int m = f->first_member[root]; m >= 0 && status == CRIA_OK; m = f->next_member[m])
        for (int k = 0; k < f->from->node[m].segments; k++) {
            order[count++] = (turn){f->from->node[m].segment[k].begin, m, k};
            order[count++] = (turn){f->from->node[m].segment[k].end, m, ~k};
        }
    if (status == CRIA_OK) qsort(order, (size_t)count, sizeof *order, compare_turns);
    for (int k = 0; k < count && status == CRIA_OK; k++) {
        if (k > 0 && order[k].at > order[k - 1].at) status = put_segment(to, node, order[k - 1].at, order[k].at, now);
        int m = order[k].member, s = order[k].segment;
        const int64_t *usage = f->from->node[m].segment[s < 0 ? ~s : s].usage;
        for (int i = 0; i < node->strategies; i++) now[i] += s < 0 ? -usage[map[m][i]] : usage[map[m][i]];
    }
    free(order);
    free(now);
    return status;
}

static cria_status build_node(const forest *f, int root, int32_t *sel, int32_t **map, cria_arena *stage_arena,
                              cria_model *to) {
    cria_model_node *node = &to->node[f->number[root]];
    node->strategies = select_strategies(f, root, sel);
    if (node->strategies == 0) return CRIA_ERR_INFEASIBLE;
    CRIA_MODEL_NEW(to->arena, node->cost, node->strategies);
    for (int m = f->first_member[root]; m >= 0; m = f->next_member[m]) {
        CRIA_MODEL_NEW(stage_arena, map[m], node->strategies);
        for (int i = 0; i < node->strategies; i++) {
            map[m][i] = follow(f->to[m], sel[i]);
            node->cost[i] = sum(node->cost[i], f->from->node[m].cost[map[m][i]]);
        }
    }
    return sweep_segments(f, root, map, to, node);
}

typedef struct {
    int a, b, edge; /* a < b: nodes of the new model */
} joined;

static int compare_joined(const void *a, const void *b) {
    const joined *x = a, *y = b;
    if (x->a != y->a) return x->a < y->a ? -1 : 1;
    if (x->b != y->b) return x->b < y->b ? -1 : 1;
    return (x->edge > y->edge) - (x->edge < y->edge);
}

static void add_edge(const forest *f, const cria_model_edge *edge, int32_t *const *map, const cria_model *to,
                     const joined *j, int64_t *cost) {
    int na = to->node[j->a].strategies, nb = to->node[j->b].strategies, stride = f->from->node[edge->b].strategies;
    bool straight = f->number[f->root[edge->a]] == j->a;
    const int32_t *first = map[edge->a], *second = map[edge->b];
    for (int i = 0; i < na; i++)
        for (int k = 0; k < nb; k++) {
            int p = straight ? first[i] : first[k], q = straight ? second[k] : second[i];
            cost[i * nb + k] = sum(cost[i * nb + k], edge->cost[(size_t)p * (size_t)stride + (size_t)q]);
        }
}

/* Takes f(x) and g(y) out of the matrix, so that the least of every row and column is 0; true if nothing is left. */
static bool settle_edge(cria_model_node *a, cria_model_node *b, int64_t *cost) {
    int na = a->strategies, nb = b->strategies;
    for (int i = 0; i < na; i++) {
        int64_t least = CRIA_MODEL_FORBIDDEN;
        for (int k = 0; k < nb; k++)
            if (cost[i * nb + k] < least) least = cost[i * nb + k];
        a->cost[i] = sum(a->cost[i], least);
        for (int k = 0; k < nb; k++)
            if (cost[i * nb + k] < CRIA_MODEL_FORBIDDEN) cost[i * nb + k] -= least;
    }
    bool empty = true;
    for (int k = 0; k < nb; k++) {
        int64_t least = CRIA_MODEL_FORBIDDEN;
        for (int i = 0; i < na; i++)
            if (cost[i * nb + k] < least) least = cost[i * nb + k];
        b->cost[k] = sum(b->cost[k], least);
        for (int i = 0; i < na; i++) {
            if (cost[i * nb + k] < CRIA_MODEL_FORBIDDEN) cost[i * nb + k] -= least;
            empty = empty && cost[i * nb + k] == 0;
        }
    }
    return empty;
}

static cria_status build_edges(const forest *f, int32_t *const *map, cria_model *to, joined *order, int count) {
    qsort(order, (size_t)count, sizeof *order, compare_joined);
    CRIA_MODEL_NEW(to->arena, to->edge, count);
    for (int k = 0, next; k < count; k = next) {
        joined *j = &order[k];
        int64_t *cost;
        for (next = k + 1; next < count && order[next].a == j->a && order[next].b == j->b;) next++;
        CRIA_MODEL_NEW(to->arena, cost, (size_t)to->node[j->a].strategies * (size_t)to->node[j->b].strategies);
        for (int i = k; i < next; i++) add_edge(f, &f->from->edge[order[i].edge], map, to, j, cost);
        if (settle_edge(&to->node[j->a], &to->node[j->b], cost)) continue;
        to->edge[to->edges++] = (cria_model_edge){j->a, j->b, cost};
    }
    return CRIA_OK;
}

static cria_status link_edges(cria_model *model) {
    int *all;
    CRIA_MODEL_NEW(model->arena, all, model->edges * 2);
    for (int e = 0; e < model->edges; e++) {
        model->node[model->edge[e].a].edges++;
        model->node[model->edge[e].b].edges++;
    }
    for (int v = 0; v < model->nodes; v++) {
        model->node[v].edge = all;
        all += model->node[v].edges;
        model->node[v].edges = 0;
    }
    for (int e = 0; e < model->edges; e++)
        for (int end = 0; end < 2; end++) {
            cria_model_node *node = &model->node[end ? model->edge[e].b : model->edge[e].a];
            node->edge[node->edges++] = e;
        }
    return CRIA_OK;
}

static cria_status find_forest(forest *f, cria_model *to) {
    int n = f->from->nodes, *way;
    CRIA_MODEL_NEW(f->scratch, way, n);
    CRIA_MODEL_NEW(f->scratch, f->root, n);
    CRIA_MODEL_NEW(f->scratch, f->number, n);
    CRIA_MODEL_NEW(f->scratch, f->to, n);
    CRIA_MODEL_NEW(f->scratch, f->first_member, n);
    CRIA_MODEL_NEW(f->scratch, f->next_member, n);
    for (int v = 0; v < n; v++) f->root[v] = f->first_member[v] = -1;
    for (int v = 0; v < n; v++) {
        cria_status status = find_root(f, v, way);
        if (status != CRIA_OK) return status;
    }
    for (int v = n - 1; v >= 0; v--) {
        f->next_member[v] = f->first_member[f->root[v]];
        f->first_member[f->root[v]] = v;
    }
    for (int v = 0; v < n; v++) f->number[v] = f->root[v] == v && !f->change->dead[v] ? to->nodes++ : -1;
    return CRIA_OK;
}

static cria_status build(forest *f, cria_model *to, cria_arena *stage_arena, const cria_stage **stages) {
    cria_status status = find_forest(f, to);
    if (status != CRIA_OK) return status;
    int n = f->from->nodes, most = 0, count = 0;
    int32_t **map, *sel;
    int *into, *sizes;
    joined *order;
    cria_stage *stage;
    for (int v = 0; v < n; v++)
        if (f->from->node[v].strategies > most) most = f->from->node[v].strategies;
    CRIA_MODEL_NEW(f->scratch, sel, most);
    CRIA_MODEL_NEW(stage_arena, map, n);
    CRIA_MODEL_NEW(stage_arena, into, n);
    CRIA_MODEL_NEW(stage_arena, sizes, to->nodes);
    CRIA_MODEL_NEW(stage_arena, stage, 1);
    CRIA_MODEL_NEW(to->arena, to->node, to->nodes);
    for (int v = 0; v < n; v++) {
        into[v] = f->change->dead[f->root[v]] ? -1 : f->number[f->root[v]];
        if (f->number[v] < 0) continue;
        f->empty = v;
        status = build_node(f, v, sel, map, stage_arena, to);
        if (status != CRIA_OK) return status;
    }
    CRIA_MODEL_NEW(f->scratch, order, f->from->edges);
    for (int e = 0; e < f->from->edges; e++) {
        const cria_model_edge *edge = &f->from->edge[e];
        int a = into[edge->a], b = into[edge->b];
        if (a < 0 || b < 0) continue; /* an eliminated node's costs are in its neighbours */
        if (a != b) {
            order[count++] = a < b ? (joined){a, b, e} : (joined){b, a, e};
            continue;
        }
        int64_t *cost = to->node[a].cost;
        for (int i = 0; i < to->node[a].strategies; i++)
            cost[i] = sum(cost[i], edge->cost[(size_t)map[edge->a][i] * (size_t)f->from->node[edge->b].strategies +
                                              (size_t)map[edge->b][i]]);
    }
    status = build_edges(f, map, to, order, count);
    if (status != CRIA_OK) return status;
    for (int v = 0; v < to->nodes; v++) sizes[v] = to->node[v].strategies;
    *stage = (cria_stage){*stages, n, into, map, sizes, f->change->eliminated, f->change->elimination};
    *stages = stage;
    return link_edges(to);
}

cria_status cria_contract(const cria_model *from, const cria_change *change, cria_model *to, cria_arena *stage_arena,
                          const cria_stage **stages, int *empty) {
    forest f = {.from = from, .change = change, .scratch = cria_arena_create(1 << 16, 0)};
    *to = (cria_model){.slices = from->slices,
                       .heir = from->heir,
                       .constant = from->constant,
                       .arena = cria_arena_create((size_t)1 << 16, 0)};
    cria_status status = f.scratch && to->arena ? CRIA_OK : CRIA_ERR_MEMORY;
    if (status == CRIA_OK) {
        to->room = cria_arena_alloc_array(to->arena, (size_t)to->slices + 1, sizeof *to->room);
        to->origin = cria_arena_alloc_array(to->arena, (size_t)to->slices + 1, sizeof *to->origin);
        if (!to->room || !to->origin) status = CRIA_ERR_MEMORY;
    }
    if (status == CRIA_OK) {
        if (to->slices) memcpy(to->room, from->room, (size_t)to->slices * sizeof *to->room);
        if (to->slices) memcpy(to->origin, from->origin, (size_t)to->slices * sizeof *to->origin);
        status = build(&f, to, stage_arena, stages);
    }
    if (status == CRIA_OK) status = cria_model_drop_slices(to);
    cria_arena_destroy(f.scratch);
    *empty = f.empty;
    if (status != CRIA_OK) {
        cria_arena_destroy(to->arena);
        to->arena = NULL;
    }
    return status;
}
