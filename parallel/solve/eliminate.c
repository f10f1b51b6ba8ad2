/* Bucket elimination: an order of little work found on the graph alone, then tables in that order. */
#include "parallel/solve/eliminate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NEIGHBOURS = 40, MOST_FACTORS = 1024, MOST_STRATEGIES = 65535 };

static const double most_entries = 1 << 23; /* of one table */
static const double most_choices = 1 << 27; /* of all tables of choices, which are kept to the end */

/* The graph while nodes are taken away. */
typedef struct {
    const cria_model *model;
    int **next;               /* [nodes]: neighbours, ascending */
    int *degree;              /* [nodes] */
    double *size;             /* [nodes]: strategies of the node and its neighbours multiplied; < 0: taken away */
    int *heap, *place, count; /* of nodes by size; place[v]: where v is in the heap */
    int *order;               /* [nodes]: when each is taken away, from 0 */
    cria_arena *arena;
} ordering;

static bool before(const ordering *o, int v, int w) {
    return o->size[v] < o->size[w] || (o->size[v] == o->size[w] && v < w);
}

static void put(ordering *o, int at, int v) {
    o->heap[at] = v;
    o->place[v] = at;
}

/* Moves a node of the heap whose size changed to where it belongs. */
static void settle(ordering *o, int at) {
    int v = o->heap[at];
    while (at > 0 && before(o, v, o->heap[(at - 1) / 2])) {
        put(o, at, o->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        int child = 2 * at + 1;
        if (child >= o->count) break;
        if (child + 1 < o->count && before(o, o->heap[child + 1], o->heap[child])) child++;
        if (!before(o, o->heap[child], v)) break;
        put(o, at, o->heap[child]);
        at = child;
    }
    put(o, at, v);
}

static void measure(ordering *o, int v) {
    double size = o->model->node[v].strategies;
    for (int k = 0; k < o->degree[v]; k++) size *= o->model->node[o->next[v][k]].strategies;
    o->size[v] = size;
}

static void join(int *list, int *count, int v) {
    int at = 0;
    while (at < *count && list[at] < v) at++;
    if (at < *count && list[at] == v) return;
    memmove(list + at + 1, list + at, (size_t)(*count - at) * sizeof *list);
    list[at] = v;
    ++*count;
}

static cria_status begin_order(ordering *o) {
    const cria_model *m = o->model;
    CRIA_MODEL_NEW(o->arena, o->next, m->nodes);
    CRIA_MODEL_NEW(o->arena, o->degree, m->nodes);
    CRIA_MODEL_NEW(o->arena, o->size, m->nodes);
    CRIA_MODEL_NEW(o->arena, o->heap, m->nodes);
    CRIA_MODEL_NEW(o->arena, o->place, m->nodes);
    CRIA_MODEL_NEW(o->arena, o->order, m->nodes);
    for (int v = 0; v < m->nodes; v++) {
        int room = m->node[v].edges > MOST_NEIGHBOURS ? m->node[v].edges : MOST_NEIGHBOURS;
        CRIA_MODEL_NEW(o->arena, o->next[v], 2 * room + 2);
        for (int k = 0; k < m->node[v].edges; k++) {
            const cria_model_edge *e = &m->edge[m->node[v].edge[k]];
            join(o->next[v], &o->degree[v], e->a == v ? e->b : e->a);
        }
    }
    for (int v = 0; v < m->nodes; v++) {
        measure(o, v);
        put(o, o->count++, v);
        settle(o, o->count - 1);
    }
    return CRIA_OK;
}

/* Takes the node away whose table is smallest, again and again. Returns how many additions all tables take; HUGE_VAL:
 * they need too much memory. */
static double find_order(ordering *o) {
    double work = 0, choices = 0;
    for (int done = 0; o->count > 0; done++) {
        int v = o->heap[0], last = o->heap[--o->count];
        double entries = o->size[v] / o->model->node[v].strategies;
        work += o->size[v];
        choices += entries;
        if (entries > most_entries || choices > most_choices || o->degree[v] > MOST_NEIGHBOURS) return HUGE_VAL;
        o->order[v] = done;
        if (last != v) {
            put(o, 0, last);
            settle(o, 0);
        }
        for (int k = 0; k < o->degree[v]; k++) {
            int w = o->next[v][k];
            int most = o->degree[w] + o->degree[v];
            if (most > 2 * MOST_NEIGHBOURS && most > 2 * o->model->node[w].edges) return HUGE_VAL;
            for (int j = 0; j < o->degree[v]; j++)
                if (j != k) join(o->next[w], &o->degree[w], o->next[v][j]);
            int at = 0;
            while (o->next[w][at] != v) at++;
            memmove(o->next[w] + at, o->next[w] + at + 1, (size_t)(o->degree[w] - at - 1) * sizeof(int));
            o->degree[w]--;
        }
        for (int k = 0; k < o->degree[v]; k++) {
            measure(o, o->next[v][k]);
            settle(o, o->place[o->next[v][k]]);
        }
    }
    return work;
}

/* Costs over several nodes, the one that is taken away first last: its costs lie side by side. */
typedef struct factor factor;
struct factor {
    factor *next; /* in the bucket of the last node */
    int nodes;
    int *node;    /* latest first */
    double *cost; /* from malloc if `owned`, else of the arena; infinite: forbidden */
    bool owned;
};

typedef struct {
    const cria_model *model;
    const ordering *order;
    factor **bucket;   /* [nodes] */
    int **left;        /* [nodes]: the nodes of its table, latest first */
    int *left_count;   /* [nodes] */
    uint16_t **choice; /* [nodes]: over those */
    cria_arena *arena;
    const cria_until *until;
} elimination;

static double as_double(int64_t cost) {
    return cost >= CRIA_MODEL_FORBIDDEN ? HUGE_VAL : (double)cost;
}

static int strategies(const elimination *e, int v) {
    return e->model->node[v].strategies;
}

static cria_status add_edge(elimination *e, const cria_model_edge *edge) {
    int a = edge->a, b = edge->b;
    factor *f;
    CRIA_MODEL_NEW(e->arena, f, 1);
    CRIA_MODEL_NEW(e->arena, f->node, 2);
    f->nodes = 2;
    bool swap = e->order->order[a] < e->order->order[b];
    f->node[0] = swap ? b : a;
    f->node[1] = swap ? a : b;
    size_t na = (size_t)strategies(e, a), nb = (size_t)strategies(e, b);
    CRIA_MODEL_NEW(e->arena, f->cost, na * nb);
    for (size_t i = 0; i < na; i++)
        for (size_t j = 0; j < nb; j++) f->cost[swap ? j * na + i : i * nb + j] = as_double(edge->cost[i * nb + j]);
    f->next = e->bucket[f->node[1]];
    e->bucket[f->node[1]] = f;
    return CRIA_OK;
}

/* The factors of a bucket as its table is filled. */
typedef struct {
    int factors;
    const double *cost[MOST_FACTORS]; /* where the choice of the outer nodes begins */
    size_t stride[MOST_FACTORS][MOST_NEIGHBOURS];
    const double *own; /* of the node itself */
    double *sum;       /* [choices of the innermost node][strategies] */
} filling;

/* The nodes of v's table: all that its factors join it with. */
static cria_status find_left(elimination *e, int v) {
    int count = 0, *list = e->order->next[v]; /* when it was taken away, its neighbours were these */
    CRIA_MODEL_NEW(e->arena, e->left[v], e->order->degree[v]);
    for (int k = 0; k < e->order->degree[v]; k++) {
        int at = count++;
        while (at > 0 && e->order->order[e->left[v][at - 1]] < e->order->order[list[k]]) {
            e->left[v][at] = e->left[v][at - 1];
            at--;
        }
        e->left[v][at] = list[k];
    }
    e->left_count[v] = count;
    return CRIA_OK;
}

static bool begin_filling(const elimination *e, int v, filling *f) {
    f->factors = 0;
    for (const factor *g = e->bucket[v]; g; g = g->next) {
        if (f->factors == MOST_FACTORS) return false;
        size_t stride = (size_t)strategies(e, v), *strides = f->stride[f->factors];
        memset(strides, 0, sizeof f->stride[0]);
        for (int k = g->nodes - 2, at = e->left_count[v] - 1; k >= 0; k--) {
            while (e->left[v][at] != g->node[k]) at--;
            strides[at] = stride;
            stride *= (size_t)strategies(e, g->node[k]);
        }
        f->cost[f->factors++] = g->cost;
    }
    return true;
}

/* One row of the table: every choice of the innermost node, the outer ones as they are. What a factor has for both is
 * one block. */
static void fill_row(const filling *f, int inner, int rows, int n, double *cost, uint16_t *choice) {
    double *restrict sum = f->sum;
    memcpy(sum, f->own, (size_t)n * sizeof *sum);
    for (int k = 0; k < f->factors; k++) {
        const double *restrict other = f->cost[k];
        if (inner < 0 || !f->stride[k][inner])
            for (int i = 0; i < n; i++) sum[i] += other[i];
    }
    for (int j = 1; j < rows; j++) memcpy(sum + (size_t)j * (size_t)n, sum, (size_t)n * sizeof *sum);
    for (int k = 0; k < f->factors; k++) {
        const double *restrict other = f->cost[k];
        if (inner >= 0 && f->stride[k][inner])
            for (int i = 0; i < rows * n; i++) sum[i] += other[i];
    }
    for (int j = 0; j < rows; j++, sum += n) {
        double least = sum[0];
        int best = 0;
        for (int i = 1; i < n; i++) {
            best = sum[i] < least ? i : best;
            least = sum[i] < least ? sum[i] : least;
        }
        cost[j] = least;
        choice[j] = (uint16_t)best;
    }
}

/* The row after this one: the choices of the outer nodes as a number with a digit for each. False: there is none. */
static bool next_row(const elimination *e, int v, filling *f, int *position) {
    for (int k = e->left_count[v] - 2; k >= 0; k--) {
        int m = strategies(e, e->left[v][k]);
        bool wraps = ++position[k] == m;
        if (wraps) position[k] = 0;
        for (int g = 0; g < f->factors; g++)
            f->cost[g] += wraps ? -(ptrdiff_t)(f->stride[g][k] * (size_t)(m - 1)) : (ptrdiff_t)f->stride[g][k];
        if (!wraps) return true;
    }
    return false;
}

static cria_status fill(elimination *e, int v, filling *f, double *cost) {
    int n = strategies(e, v), inner = e->left_count[v] - 1, position[MOST_NEIGHBOURS] = {0};
    int rows = inner >= 0 ? strategies(e, e->left[v][inner]) : 1;
    double *own = malloc((size_t)n * (size_t)(rows + 1) * sizeof *own);
    if (!own) return CRIA_ERR_MEMORY;
    for (int i = 0; i < n; i++) own[i] = as_double(e->model->node[v].cost[i]);
    f->own = own;
    f->sum = own + n;
    cria_status status = CRIA_OK;
    uint16_t *choice = e->choice[v];
    int64_t count = 0;
    do {
        fill_row(f, inner, rows, n, cost, choice);
        cost += rows;
        choice += rows;
        if (++count % 4096 == 0 && cria_until_over(e->until)) status = CRIA_ERR_CLOSED;
    } while (status == CRIA_OK && next_row(e, v, f, position));
    free(own);
    return status;
}

static void drop_bucket(elimination *e, int v) {
    for (factor *g = e->bucket[v]; g; g = g->next)
        if (g->owned) free(g->cost);
    e->bucket[v] = NULL;
}

static cria_status take_away(elimination *e, int v, filling *f) {
    cria_status status = find_left(e, v);
    if (status != CRIA_OK) return status;
    size_t entries = 1;
    for (int k = 0; k < e->left_count[v]; k++) entries *= (size_t)strategies(e, e->left[v][k]);
    factor *out;
    CRIA_MODEL_NEW(e->arena, out, 1);
    if (!begin_filling(e, v, f)) return CRIA_ERR_MEMORY;
    e->choice[v] = malloc(entries * sizeof *e->choice[v]);
    out->cost = malloc(entries * sizeof *out->cost);
    if (!e->choice[v] || !out->cost) {
        free(out->cost);
        return CRIA_ERR_MEMORY;
    }
    out->owned = true;
    out->nodes = e->left_count[v];
    out->node = e->left[v];
    status = fill(e, v, f, out->cost);
    drop_bucket(e, v);
    if (status == CRIA_OK && out->nodes > 0) {
        int last = out->node[out->nodes - 1];
        out->next = e->bucket[last];
        e->bucket[last] = out;
        return CRIA_OK;
    }
    if (status == CRIA_OK && out->cost[0] == HUGE_VAL) status = CRIA_ERR_INFEASIBLE;
    free(out->cost);
    return status;
}

static cria_status run(elimination *e, int32_t *x) {
    int nodes = e->model->nodes, *sequence;
    CRIA_MODEL_NEW(e->arena, e->bucket, nodes);
    CRIA_MODEL_NEW(e->arena, e->left, nodes);
    CRIA_MODEL_NEW(e->arena, e->left_count, nodes);
    CRIA_MODEL_NEW(e->arena, e->choice, nodes);
    CRIA_MODEL_NEW(e->arena, sequence, nodes);
    filling *f;
    CRIA_MODEL_NEW(e->arena, f, 1);
    for (int v = 0; v < nodes; v++) sequence[e->order->order[v]] = v;
    cria_status status = CRIA_OK;
    for (int k = 0; k < e->model->edges && status == CRIA_OK; k++) status = add_edge(e, &e->model->edge[k]);
    for (int i = 0; i < nodes && status == CRIA_OK; i++) status = take_away(e, sequence[i], f);
    for (int i = nodes - 1; i >= 0 && status == CRIA_OK; i--) {
        int v = sequence[i];
        size_t at = 0;
        for (int k = 0; k < e->left_count[v]; k++)
            at = at * (size_t)strategies(e, e->left[v][k]) + (size_t)x[e->left[v][k]];
        x[v] = e->choice[v][at];
    }
    for (int v = 0; v < nodes; v++) {
        free(e->choice[v]);
        drop_bucket(e, v);
    }
    return status;
}

/* Sums are exact only below 2^53. */
static bool is_exact(const cria_model *m) {
    double sum = 0;
    for (int v = 0; v < m->nodes; v++) {
        double most = 0;
        if (m->node[v].strategies > MOST_STRATEGIES) return false;
        for (int i = 0; i < m->node[v].strategies; i++)
            if (m->node[v].cost[i] < CRIA_MODEL_FORBIDDEN) most = fmax(most, fabs((double)m->node[v].cost[i]));
        sum += most;
    }
    for (int e = 0; e < m->edges; e++) {
        size_t count = (size_t)m->node[m->edge[e].a].strategies * (size_t)m->node[m->edge[e].b].strategies;
        double most = 0;
        for (size_t i = 0; i < count; i++)
            if (m->edge[e].cost[i] < CRIA_MODEL_FORBIDDEN) most = fmax(most, fabs((double)m->edge[e].cost[i]));
        sum += most;
    }
    return sum < 9007199254740992.0;
}

cria_status cria_eliminate(const cria_model *model, double most_work, const cria_until *until, int32_t *x,
                           double *work) {
    *work = HUGE_VAL;
    if (model->slices > 0 || !is_exact(model)) return CRIA_OK;
    cria_arena *arena = cria_arena_create((size_t)1 << 20, 0);
    if (!arena) return CRIA_ERR_MEMORY;
    ordering order = {.model = model, .arena = arena};
    cria_status status = begin_order(&order);
    if (status == CRIA_OK) *work = find_order(&order);
    if (status == CRIA_OK && *work <= most_work) {
        elimination e = {.model = model, .order = &order, .arena = arena, .until = until};
        status = run(&e, x);
    }
    cria_arena_destroy(arena);
    return status;
}
