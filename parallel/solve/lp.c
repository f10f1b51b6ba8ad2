/* Laying a net out as a linear program for GLPK, and reading back multipliers and assignments. */
#include "parallel/solve/lp.h"

#include <glpk.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Beyond it simplex takes longer than all else together. */
enum { MOST_COLUMNS = 12000 };
/* GLPK calls an answer integral, and a bound reached, within 1e-7 of it or less. */
#define MOST_MAGNITUDE 1e6

/* Columns: strategies of nodes, then pairs of edges. Rows: nodes, ends of edges, slices; from 1, as GLPK counts. */
typedef struct {
    glp_prob *program;
    const cria_net *net;
    int *row_of_edge;    /* [edges]: of the first strategy of a; those of b follow */
    int *column_of_edge; /* [edges] */
    int row_of_slice;
    double scale;        /* of costs: GLPK's tolerances are absolute in parts */
    double *slice_scale; /* [slices] */
    int *index;
    double *value;
} layout;

bool cria_lp_suits(const cria_net *net) {
    return net->nodes > 0 && net->at[net->nodes] + net->entries <= MOST_COLUMNS;
}

static bool allowed(const cria_net *net, double cost) {
    return cost < net->forbidden;
}

static void add_column(layout *l, int column, double cost, bool open, int count) {
    glp_set_obj_coef(l->program, column, open ? cost / l->scale : 0);
    if (open)
        glp_set_col_bnds(l->program, column, GLP_LO, 0, 0);
    else
        glp_set_col_bnds(l->program, column, GLP_FX, 0, 0);
    glp_set_mat_col(l->program, column, count, l->index, l->value);
}

static void put(layout *l, int *count, int row, double value) {
    ++*count;
    l->index[*count] = row;
    l->value[*count] = value;
}

static void add_nodes(layout *l) {
    const cria_net *net = l->net;
    for (int v = 0; v < net->nodes; v++)
        for (int i = 0; i < net->n[v]; i++) {
            int count = 0;
            put(l, &count, 1 + v, 1);
            for (int h = net->half_at[v]; h < net->half_at[v + 1]; h++) {
                const cria_net_edge *edge = &net->edge[net->half[h].edge];
                int first = l->row_of_edge[net->half[h].edge] + (edge->a == v ? 0 : net->n[edge->a]);
                put(l, &count, first + i, -1);
            }
            for (int k = net->segment_at[v]; k < net->segment_at[v + 1]; k++) {
                const cria_net_segment *g = &net->segment[k];
                for (int t = g->begin; t < g->end && g->usage[i] > 0; t++)
                    put(l, &count, l->row_of_slice + t, g->usage[i] / l->slice_scale[t]);
            }
            double cost = net->unary[net->at[v] + (size_t)i];
            add_column(l, 1 + (int)net->at[v] + i, cost, allowed(net, cost), count);
        }
}

static void add_edges(layout *l) {
    const cria_net *net = l->net;
    for (int e = 0; e < net->edges; e++) {
        const cria_net_edge *edge = &net->edge[e];
        int na = net->n[edge->a], nb = net->n[edge->b];
        for (int i = 0; i < na * nb; i++) {
            int count = 0;
            put(l, &count, l->row_of_edge[e] + i / nb, 1);
            put(l, &count, l->row_of_edge[e] + na + i % nb, 1);
            add_column(l, l->column_of_edge[e] + i, edge->ab[i], allowed(net, edge->ab[i]), count);
        }
    }
}

static cria_status place_rows(layout *l, cria_arena *arena) {
    const cria_net *net = l->net;
    int rows = net->nodes, columns = (int)net->at[net->nodes];
    CRIA_MODEL_NEW(arena, l->row_of_edge, net->edges);
    CRIA_MODEL_NEW(arena, l->column_of_edge, net->edges);
    CRIA_MODEL_NEW(arena, l->slice_scale, net->slices);
    for (int e = 0; e < net->edges; e++) {
        l->row_of_edge[e] = 1 + rows;
        l->column_of_edge[e] = 1 + columns;
        rows += net->n[net->edge[e].a] + net->n[net->edge[e].b];
        columns += net->n[net->edge[e].a] * net->n[net->edge[e].b];
    }
    l->row_of_slice = 1 + rows;
    rows += net->slices;
    CRIA_MODEL_NEW(arena, l->index, rows + 1);
    CRIA_MODEL_NEW(arena, l->value, rows + 1);
    glp_add_rows(l->program, rows);
    glp_add_cols(l->program, columns);
    for (int v = 0; v < net->nodes; v++) glp_set_row_bnds(l->program, 1 + v, GLP_FX, 1, 1);
    for (int r = 1 + net->nodes; r < l->row_of_slice; r++) glp_set_row_bnds(l->program, r, GLP_FX, 0, 0);
    for (int t = 0; t < net->slices; t++) {
        l->slice_scale[t] = net->room[t] > 1 ? net->room[t] : 1;
        glp_set_row_bnds(l->program, l->row_of_slice + t, GLP_UP, 0, net->room[t] / l->slice_scale[t]);
    }
    return CRIA_OK;
}

static cria_status lay_out(const cria_net *net, cria_arena *arena, layout *l) {
    *l = (layout){.program = glp_create_prob(), .net = net, .scale = 1};
    cria_status status = place_rows(l, arena);
    if (status != CRIA_OK) return status;
    for (size_t i = 0; i < net->at[net->nodes]; i++)
        if (allowed(net, net->unary[i])) l->scale = fmax(l->scale, fabs(net->unary[i]));
    add_nodes(l);
    add_edges(l);
    return CRIA_OK;
}

static void *open_arena(void) {
    return cria_arena_create((size_t)1 << 20, 0);
}

/* Milliseconds until the deadline, as GLPK takes them. */
static int milliseconds(const cria_until *until) {
    if (!until || !until->deadline) return INT_MAX;
    uint64_t now = cria_clock_ns();
    double left = now < until->deadline ? cria_seconds_between(now, until->deadline) : 0;
    return 1 + (int)(fmin(left, 1e6) * 1000);
}

static void take_multipliers(const layout *l, cria_dual *dual) {
    const cria_net *net = l->net;
    for (int e = 0; e < net->edges; e++) {
        int na = net->n[net->edge[e].a], nb = net->n[net->edge[e].b], row = l->row_of_edge[e];
        for (int i = 0; i < na; i++)
            dual->to_a[dual->message_a[e] + (size_t)i] = l->scale * glp_get_row_dual(l->program, row + i);
        for (int i = 0; i < nb; i++)
            dual->to_b[dual->message_b[e] + (size_t)i] = l->scale * glp_get_row_dual(l->program, row + na + i);
    }
    for (int t = 0; t < net->slices; t++) {
        double price = -l->scale * glp_get_row_dual(l->program, l->row_of_slice + t) / l->slice_scale[t];
        dual->price[t] = price > 0 ? price : 0;
    }
    cria_dual_price(dual);
}

static bool run_relaxation(layout *l, int most_pivots, const cria_until *until) {
    glp_smcp how;
    glp_init_smcp(&how);
    how.msg_lev = GLP_MSG_OFF;
    how.meth = GLP_DUALP;
    how.tm_lim = milliseconds(until);
    how.it_lim = most_pivots;
    glp_scale_prob(l->program, GLP_SF_EQ);
    glp_adv_basis(l->program, 0);
    return glp_simplex(l->program, &how) == 0 && glp_get_status(l->program) == GLP_OPT;
}

cria_status cria_lp_relax(cria_dual *dual, int most_pivots, const cria_until *until, double *optimum) {
    layout l;
    bool optimal = false;
    cria_arena *arena = open_arena();
    if (!arena) return CRIA_ERR_MEMORY;
    glp_term_out(GLP_OFF);
    cria_status status = lay_out(dual->net, arena, &l);
    if (status == CRIA_OK) optimal = run_relaxation(&l, most_pivots, until);
    if (optimal) take_multipliers(&l, dual);
    if (optimum) *optimum = optimal ? dual->net->constant + l.scale * glp_get_obj_val(l.program) : NAN;
    glp_delete_prob(l.program);
    glp_free_env(); /* a thread's own */
    cria_arena_destroy(arena);
    return status;
}

typedef struct {
    const cria_until *until;
    int64_t steps, most_steps;
    bool stopped;
} watch;

/* GLPK calls it all along: it can be told to stop. */
static void watch_search(glp_tree *tree, void *context) {
    watch *w = context;
    if (++w->steps <= w->most_steps && !cria_until_over(w->until)) return;
    w->stopped = true;
    glp_ios_terminate(tree);
}

static bool read_assignment(const layout *l, int32_t *x) {
    const cria_net *net = l->net;
    for (int v = 0; v < net->nodes; v++) {
        x[v] = 0;
        for (int i = 0; i < net->n[v]; i++)
            if (glp_mip_col_val(l->program, 1 + (int)net->at[v] + i) > 0.5) x[v] = i;
    }
    double *over = malloc(((size_t)net->slices + 1) * sizeof *over);
    bool fits = over && cria_net_usage(net, x, over) <= 0;
    free(over);
    return fits;
}

/* The pairs of edges need not be integral by order: where strategies are, they are. */
static int run_search(layout *l, double best, watch *w) {
    glp_iocp how;
    for (int c = 1; c <= (int)l->net->at[l->net->nodes]; c++)
        if (glp_get_col_type(l->program, c) == GLP_LO) glp_set_col_kind(l->program, c, GLP_BV);
    /* an answer must cost a whole unit less than the best */
    int row = glp_add_rows(l->program, 1), count = 0, columns = glp_get_num_cols(l->program);
    int *index = malloc(((size_t)columns + 1) * sizeof *index);
    double *value = malloc(((size_t)columns + 1) * sizeof *value);
    if (index && value) {
        for (int c = 1; c <= columns; c++)
            if (glp_get_obj_coef(l->program, c) != 0) {
                index[++count] = c;
                value[count] = glp_get_obj_coef(l->program, c);
            }
        glp_set_mat_row(l->program, row, count, index, value);
        glp_set_row_bnds(l->program, row, GLP_UP, 0, (best - 0.5 - l->net->constant) / l->scale);
    }
    free(index);
    free(value);
    glp_init_iocp(&how);
    how.msg_lev = GLP_MSG_OFF;
    how.presolve = GLP_ON;
    how.mir_cuts = how.cov_cuts = GLP_ON;
    how.tm_lim = milliseconds(w->until);
    how.cb_func = watch_search;
    how.cb_info = w;
    return glp_intopt(l->program, &how);
}

cria_status cria_lp_search(const cria_net *net, double *best, int32_t *x, int64_t most_steps, const cria_until *until,
                           bool *found, bool *complete) {
    layout l;
    watch w = {.until = until, .most_steps = most_steps};
    *found = *complete = false;
    cria_arena *arena = open_arena();
    int32_t *candidate = malloc(((size_t)net->nodes + 1) * sizeof *candidate);
    glp_term_out(GLP_OFF);
    cria_status status = arena && candidate ? CRIA_OK : CRIA_ERR_MEMORY;
    if (status == CRIA_OK) status = lay_out(net, arena, &l);
    if (status == CRIA_OK) {
        int failed = run_search(&l, *best, &w), end = glp_mip_status(l.program);
        bool trusted = net->magnitude <= MOST_MAGNITUDE;
        if ((end == GLP_OPT || end == GLP_FEAS) && read_assignment(&l, candidate)) {
            double cost = cria_net_cost(net, candidate);
            *found = cost < *best && cost < net->constant + net->forbidden;
            if (*found) {
                *best = cost;
                memcpy(x, candidate, (size_t)net->nodes * sizeof *x);
            }
            *complete = trusted && *found && failed == 0 && end == GLP_OPT;
        }
        *complete =
            *complete || (trusted && !w.stopped && (failed == GLP_ENOPFS || (failed == 0 && end == GLP_NOFEAS)));
        glp_delete_prob(l.program);
    }
    glp_free_env(); /* a thread's own */
    free(candidate);
    cria_arena_destroy(arena);
    return status;
}
