/* One epoch of the solver: on one thread the bound climbs and rules strategies out, on the others annealing looks for
 * better answers; they meet after every round of a fixed amount of work, so that the outcome does not depend on which
 * thread was faster. */
#include "base/clock.h"
#include "parallel/solve/exact.h"
#include "parallel/solve/lp.h"
#include "parallel/solve/solver.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A round is about this much work, in operations on costs. */
#define MOST_ROUND_WORK 1e8
enum {
    MOST_THREADS = 64,
    REFRESH_PASSES = 30,
    MOST_PASSES = 512,
    WORK_PER_MOVE = 150,
    REPAIR_ROUNDS = 300,
    MOST_PIVOTS = 20000
};
#define FIRST_RUN INT64_C(100000)
#define LEAST_STEP 1e-7
/* By the clock, a run takes this share of the time that has passed. Annealing has settled once SETTLED_RUNS in a row
 * have each gained less than SETTLED of what there is, and the bound is within SETTLED_GAP: from then on a run anneals
 * for a part of it only, the last by the clock for another, every third not at all: the rest are windows. */
#define RUN_SHARE 0.12
#define SETTLED 1e-3
#define SETTLED_RUNS 3
#define SETTLED_GAP 0.015
#define COOL 0.8
#define LAST_COOL 0.5
/* The dual rests once PATIENCE passes have closed less than this part of the gap. */
#define LEAST_GAIN 0.015
enum { WARM_PASSES = 60, PATIENCE = 150, MOVES_PER_NODE = 1000 };

/* One thread's search: a run of annealing after the other, each twice as long as two before. */
typedef struct {
    cria_search search;
    cria_anneal run;
    int runs, idle;  /* runs begun; those in a row that gained little */
    double factor;   /* of the heat of this run */
    int64_t before;  /* cost of the best answer when it began */
    bool repairing;  /* nothing fits yet */
    double improved; /* best cost that was offered */
    int64_t chunk;
    const atomic_bool *pause; /* set by the thread that ends a round by the clock; NULL: rounds of `chunk` */
    const cria_until *until;
} worker;

typedef enum { CLIMB, EXACT, REST } pace;

typedef struct {
    cria_solver *solver;
    cria_net net;
    cria_dual dual;
    worker worker[MOST_THREADS];
    int threads;
    pace pace;
    int rest, next_rest; /* rounds that the dual rests, and will rest the next time */
    int passes;          /* a round */
    double work;         /* a round */
    double mark;         /* the bound, PATIENCE passes ago at most */
    int marked;          /* the pass it was taken at */
    bool stalled;
    int searches; /* exact ones */
    bool timed;   /* by the clock: rounds last as long as the slowest part of them, runs of annealing end on time */
    atomic_bool pause;
    int warm;   /* passes before the prices move */
    bool *keep; /* [strategies]: not ruled out */
    size_t dropped;
    double limit; /* what costs as much is of no interest */
    /* of the exact search */
    int32_t *x;
    double x_cost;
    bool x_found, complete;
    cria_status status;
} epoch;

/* What the problem may cost at most if it can be had at all. */
static double dearest(const cria_model *m) {
    double sum = (double)m->constant + 1;
    for (int v = 0; v < m->nodes; v++) {
        int64_t most = 0;
        for (int i = 0; i < m->node[v].strategies; i++)
            if (m->node[v].cost[i] < CRIA_MODEL_FORBIDDEN && m->node[v].cost[i] > most) most = m->node[v].cost[i];
        sum += (double)most;
    }
    for (int e = 0; e < m->edges; e++) {
        int64_t most = 0;
        size_t count = (size_t)m->node[m->edge[e].a].strategies * (size_t)m->node[m->edge[e].b].strategies;
        for (size_t i = 0; i < count; i++)
            if (m->edge[e].cost[i] < CRIA_MODEL_FORBIDDEN && m->edge[e].cost[i] > most) most = m->edge[e].cost[i];
        sum += (double)most;
    }
    return sum;
}

/* The prices of the last epoch, each at the slice that has taken its place. */
static void take_prices(epoch *e) {
    cria_solver *s = e->solver;
    const cria_model *m = &s->reduction.model;
    if (!s->price || m->slices == 0) return;
    double *price = e->dual.price;
    int32_t *number = malloc((size_t)s->slices * sizeof *number);
    if (!number) return; /* then they begin at 0 */
    memset(number, -1, (size_t)s->slices * sizeof *number);
    for (int t = 0; t < m->slices; t++) number[m->origin[t]] = t;
    for (int t = 0; t < s->slices; t++) {
        int to = t, steps = 0;
        while (to >= 0 && m->heir[to] != to && steps++ < s->slices) to = m->heir[to];
        if (to >= 0 && number[to] >= 0) price[number[to]] += s->price[t];
    }
    free(number);
    cria_dual_price(&e->dual);
    e->dual.step = fmin(2 * s->step, 1);
    e->warm = WARM_PASSES;
}

static cria_status leave_prices(epoch *e) {
    cria_solver *s = e->solver;
    const cria_model *m = &s->reduction.model;
    if (!s->price) {
        s->price = calloc((size_t)s->slices + 1, sizeof *s->price);
        if (!s->price) return CRIA_ERR_MEMORY;
    }
    s->step = e->dual.step;
    memset(s->price, 0, (size_t)s->slices * sizeof *s->price);
    for (int t = 0; t < m->slices; t++) s->price[m->origin[t]] = e->dual.best_price[t];
    return CRIA_OK;
}

/* By the clock, a run takes a share of the time that has passed, and the last one all that is left: it ends cold. */
static void time_run(const epoch *e, worker *w, bool settled) {
    const cria_solver *s = e->solver;
    uint64_t now = cria_clock_ns();
    double passed = cria_seconds_between(s->start, now), left = cria_seconds_between(now, s->until.deadline);
    double slot = fmax(passed * RUN_SHARE, 0.05);
    if (now >= s->until.deadline) left = 0;
    bool last = left < 2 * slot;
    if (last) {
        if (settled) w->run.cool = LAST_COOL;
        slot = 0.97 * left; /* what it found is to be fused and written */
        w->factor = 1;
    }
    w->run.begin = now;
    w->run.end = now + (uint64_t)(slot * 1e9) + 1;
}

static void begin_run(epoch *e, worker *w, int number) {
    static const double factors[] = {1, 0.3, 3};
    const cria_solver *s = e->solver;
    w->factor = factors[(w->runs + number) % 3];
    w->run = (cria_anneal){.moves = FIRST_RUN << (w->runs / 2 < 14 ? w->runs / 2 : 14), .weight = 1};
    double above = fmax((double)s->cost - e->net.constant, 1), scale = above / e->net.nodes;
    w->idle = w->runs > 0 && (double)w->before - (double)s->cost < SETTLED * above ? w->idle + 1 : 0;
    bool settled = w->idle >= SETTLED_RUNS && (double)s->cost - (double)s->bound < SETTLED_GAP * fabs((double)s->cost);
    w->run.cool = !settled ? 1 : w->runs % 3 == 2 ? 0 : COOL;
    if (e->timed) time_run(e, w, settled);
    w->run.hot = 0.02 * scale * s->heat * w->factor;
    w->run.cold = w->run.hot / 50;
    /* while prices move, a run must not outlive them */
    int64_t most = (int64_t)e->net.nodes * MOVES_PER_NODE;
    if (e->pace == CLIMB && w->run.moves > most) w->run.moves = most;
    w->before = s->cost;
    w->runs++;
}

/* A worker begins at the best answer or near it; or, while the dual still moves, now and then at what the dual says. */
static void place_worker(epoch *e, worker *w, int32_t *x) {
    const cria_solver *s = e->solver;
    bool near = s->found && (w->runs % 3 != 1 || e->pace == REST);
    if (near) cria_reduction_project(&s->reduction, s->best, x);
    cria_search_set(&w->search, near ? x : e->dual.x, near ? e->dual.best_price : e->dual.price);
    w->repairing = !near || !cria_search_fits(&w->search);
}

static void *run_worker(void *context) {
    worker *w = context;
    if (w->repairing)
        w->repairing = !cria_search_repair(&w->search, 1e-3 * fabs(w->search.cost) + 1, REPAIR_ROUNDS, w->until);
    else
        cria_search_anneal(&w->search, &w->run, w->chunk, w->pause, w->until);
    return NULL;
}

/* Strategies whose least cost, by the last pass, is no better than the best answer are ruled out. */
static void rule_out(epoch *e) {
    const cria_dual *d = &e->dual;
    double slack = e->net.magnitude * 1e-11 + 1e-6, most = e->limit - 1 + slack - d->forward;
    for (size_t i = 0; i < e->net.at[e->net.nodes]; i++)
        if (d->belief[i] > most && e->keep[i]) {
            e->keep[i] = false;
            e->dropped++;
        }
}

static void refresh(epoch *e) {
    cria_dual *d = &e->dual;
    if (e->net.slices) memcpy(d->price, d->best_price, (size_t)e->net.slices * sizeof *d->price);
    cria_dual_price(d);
    for (int k = 0; k < REFRESH_PASSES && !cria_until_over(&e->solver->until); k++) {
        cria_dual_pass(d);
        if (e->solver->found) rule_out(e);
    }
}

/* Branch and bound of our own first: it settles most. Where it does not, GLPK's multipliers make its bounds better, if
 * the net is small enough, and GLPK branches on what it branches on badly. */
static void search_exactly(epoch *e) {
    cria_solver *s = e->solver;
    int64_t steps = s->steps / (1 + e->net.nodes / 20);
    bool small = e->searches++ > 0 && cria_lp_suits(&e->net), found = false;
    if (small && e->searches == 2) e->status = cria_lp_relax(&e->dual, MOST_PIVOTS, &s->until, NULL);
    if (small && e->searches == 2 && e->status == CRIA_OK) {
        cria_dual_pass(&e->dual); /* keeps the prices if they are better */
        if (s->found) rule_out(e);
    }
    refresh(e);
    if (e->status == CRIA_OK)
        e->status = cria_exact_search(&e->dual, &e->x_cost, e->x, steps, &s->until, &e->x_found, &e->complete);
    if (!small || e->status != CRIA_OK || e->complete || cria_until_over(&s->until)) return;
    e->status = cria_lp_search(&e->net, &e->x_cost, e->x, steps / 1000, &s->until, &found, &e->complete);
    e->x_found = e->x_found || found;
}

static void climb(epoch *e) {
    cria_dual *d = &e->dual;
    for (int k = 0; k < e->passes && !e->stalled && !cria_until_over(&e->solver->until); k++) {
        if (e->warm > 0)
            e->warm--;
        else
            cria_dual_climb(d, e->solver->found ? e->limit : d->best + 0.05 * fabs(d->best) + 1);
        cria_dual_pass(d);
        if (e->solver->found) rule_out(e);
        if (d->rounds - e->marked >= PATIENCE) {
            e->stalled = e->solver->found && d->step < 0.01 && d->best - e->mark < LEAST_GAIN * (e->limit - d->best);
            e->mark = d->best;
            e->marked = d->rounds;
        }
        e->stalled = e->stalled || d->step < LEAST_STEP;
        double cost = d->worst <= 0 ? cria_net_cost(&e->net, d->x) : INFINITY;
        if (cost >= e->x_cost) continue;
        memcpy(e->x, d->x, (size_t)e->net.nodes * sizeof *e->x);
        e->x_cost = cost;
        e->x_found = true;
    }
}

static void run_dual(epoch *e) {
    if (e->pace == CLIMB) climb(e);
    if (e->pace == EXACT) search_exactly(e);
}

/* The end of a run and the best answer so far: the best of both. */
static void fuse(const epoch *e, worker *w, int32_t *x) {
    memset(x, 0, (size_t)e->net.nodes * sizeof *x);
    if (cria_reduction_project(&e->solver->reduction, e->solver->best, x)) cria_search_fuse(&w->search, x);
}

/* What the round has found, in the order of the threads. */
static cria_status gather(epoch *e, int first, int32_t *x) {
    cria_solver *s = e->solver;
    cria_status status = e->status;
    cria_solver_raise(s, e->dual.best);
    if (e->x_found && status == CRIA_OK) status = cria_solver_offer(s, e->x);
    e->x_found = false;
    if (e->complete && s->found) cria_solver_close(s);
    for (int k = first; k < e->threads && status == CRIA_OK; k++) {
        worker *w = &e->worker[k];
        if (w->run.over && !w->repairing && s->found) fuse(e, w, x);
        if (w->search.best_cost < w->improved) {
            w->improved = w->search.best_cost;
            status = cria_solver_offer(s, w->search.best);
        }
        if (w->repairing) {
            if (e->pace != REST) cria_search_set(&w->search, e->dual.x, e->dual.price);
        } else if (w->run.over || w->run.moves == 0) {
            /* halfway to the heat that found something */
            if (w->runs > 0 && s->cost < w->before) s->heat *= sqrt(w->factor);
            if (w->runs > 0) place_worker(e, w, x);
            begin_run(e, w, k);
        }
    }
    return status;
}

/* What the dual does in the next round. */
static void set_pace(epoch *e) {
    if (e->pace == CLIMB && e->stalled) {
        e->pace = EXACT;
    } else if (e->pace == EXACT) {
        e->solver->steps *= 2;
        e->pace = REST;
        e->rest = e->next_rest;
        e->next_rest = e->next_rest < 200 ? e->next_rest * 2 : e->next_rest;
    } else if (e->pace == REST && --e->rest <= 0) {
        e->pace = CLIMB;
        e->stalled = false;
        e->mark = e->dual.best;
        e->marked = e->dual.rounds;
        e->dual.step *= 4;
        e->dual.since_better = 0;
        if (e->net.slices) memcpy(e->dual.price, e->dual.best_price, (size_t)e->net.slices * sizeof *e->dual.price);
        cria_dual_price(&e->dual);
    }
}

static cria_status run_round(epoch *e, int32_t *x) {
    cria_solver *s = e->solver;
    pthread_t thread[MOST_THREADS];
    bool started[MOST_THREADS] = {false};
    /* the dual has a thread of its own, if there are two */
    int first = e->pace != REST && e->threads > 1;
    e->limit = e->x_cost = s->found ? (double)s->cost : e->net.constant + e->net.forbidden;
    e->passes = (int)fmin(fmax(e->work / (4.0 * (double)e->net.entries + 1), 1), MOST_PASSES);
    atomic_store(&e->pause, false);
    for (int k = first; k < e->threads; k++) {
        worker *w = &e->worker[k];
        w->chunk = e->timed && k > 0 ? INT64_MAX / 2 : (int64_t)(e->work / WORK_PER_MOVE) + 1;
        w->pause = e->timed && k > 0 ? &e->pause : NULL;
        if (e->pace == CLIMB && !w->repairing) cria_search_price(&w->search, e->dual.best_price);
        if (k > 0) started[k] = pthread_create(&thread[k], NULL, run_worker, &e->worker[k]) == 0;
    }
    if (e->pace != REST) run_dual(e);
    if (!first) run_worker(&e->worker[0]);
    atomic_store(&e->pause, true);
    for (int k = 1; k < e->threads; k++) {
        if (k < first) continue;
        if (started[k])
            pthread_join(thread[k], NULL);
        else
            run_worker(&e->worker[k]);
    }
    s->rounds++;
    e->work = fmin(e->work * 1.5, MOST_ROUND_WORK);
    cria_status status = gather(e, first, x);
    set_pace(e);
    return status;
}

/* Is so much ruled out that reducing again is worth its while? */
static bool worth_reducing(const epoch *e) {
    size_t all = e->net.at[e->net.nodes];
    return e->dropped * (e->pace == CLIMB ? 16 : 50) > all;
}

/* What the workers are at, as assignments of the problem. */
static cria_status leave_runs(epoch *e) {
    cria_solver *s = e->solver;
    for (int k = 0; k < e->threads; k++) {
        const worker *w = &e->worker[k];
        cria_kept_run *kept = &s->kept[k];
        free(kept->x);
        *kept =
            (cria_kept_run){.run = w->run, .runs = w->runs, .idle = w->idle, .factor = w->factor, .before = w->before};
        if (w->repairing || w->run.moves == 0 || w->run.over) continue;
        kept->x = malloc(((size_t)cria_problem_nodes(s->problem) + 1) * sizeof *kept->x);
        cria_status status = kept->x ? cria_reduction_expand(&s->reduction, w->search.x, kept->x) : CRIA_ERR_MEMORY;
        if (status != CRIA_OK) return status;
    }
    return CRIA_OK;
}

/* Goes on with the run where it was, or where it can be near that. */
static void take_run(epoch *e, worker *w, const cria_kept_run *kept, int32_t *x) {
    memset(x, 0, (size_t)e->net.nodes * sizeof *x);
    cria_reduction_project(&e->solver->reduction, kept->x, x);
    cria_search_set(&w->search, x, e->dual.best_price);
    w->repairing = !cria_search_fits(&w->search);
    w->run = kept->run;
    w->factor = kept->factor;
    w->before = kept->before;
}

static cria_status reduce_further(epoch *e) {
    cria_solver *s = e->solver;
    cria_status status = leave_prices(e);
    if (status == CRIA_OK) status = leave_runs(e);
    if (status == CRIA_OK) status = cria_reduction_restrict(&s->reduction, e->keep, &s->until);
    if (status != CRIA_ERR_INFEASIBLE) return status;
    cria_solver_close(s); /* nothing cheaper is left */
    return CRIA_OK;
}

static cria_status open_epoch(epoch *e) {
    cria_solver *s = e->solver;
    const cria_model *m = &s->reduction.model;
    if (!s->price)
        for (int t = 0; t < m->slices; t++) s->slices = m->origin[t] + 1 > s->slices ? m->origin[t] + 1 : s->slices;
    cria_status status = cria_net_create(m, s->found ? (double)s->cost : dearest(m), &e->net);
    if (status == CRIA_OK) status = cria_dual_create(&e->net, &e->dual);
    for (int k = 0; k < e->threads && status == CRIA_OK; k++) {
        e->worker[k].until = &s->until;
        e->worker[k].improved = INFINITY;
        status = cria_search_create(&e->net, s->options->seed * 1000003 + (uint64_t)k + (uint64_t)s->rounds * 7919,
                                    &e->worker[k].search);
    }
    if (status != CRIA_OK) return status;
    e->keep = malloc(e->net.at[e->net.nodes] + 1);
    e->x = malloc(((size_t)e->net.nodes + 1) * sizeof *e->x);
    if (!e->keep || !e->x) return CRIA_ERR_MEMORY;
    memset(e->keep, 1, e->net.at[e->net.nodes]);
    take_prices(e);
    return CRIA_OK;
}

static void close_epoch(epoch *e) {
    for (int k = 0; k < e->threads; k++) cria_search_deinit(&e->worker[k].search);
    cria_dual_deinit(&e->dual);
    cria_net_deinit(&e->net);
    free(e->keep);
    free(e->x);
}

cria_status cria_epoch(cria_solver *s) {
    epoch *e = calloc(1, sizeof *e);
    if (!e) return CRIA_ERR_MEMORY;
    e->solver = s;
    e->threads = s->options->threads;
    e->timed = s->until.deadline && s->options->iterations <= 0;
    e->next_rest = 10;
    e->work = s->rounds == 0 ? 1e6 : MOST_ROUND_WORK / 4;
    cria_status status = open_epoch(e);
    int32_t *x = malloc(((size_t)s->reduction.model.nodes + 1) * sizeof *x);
    if (!x) status = CRIA_ERR_MEMORY;
    if (status == CRIA_OK) {
        cria_dual_pass(&e->dual);
        cria_solver_raise(s, e->dual.best);
        for (int k = 0; k < e->threads; k++) {
            e->worker[k].runs = s->kept[k].runs;
            e->worker[k].idle = s->kept[k].idle;
            if (s->kept[k].x)
                take_run(e, &e->worker[k], &s->kept[k], x);
            else
                place_worker(e, &e->worker[k], x);
        }
        if (e->net.nodes <= 100) e->pace = EXACT; /* it may be over at once */
    }
    bool reduced = false;
    while (status == CRIA_OK && !reduced && !cria_solver_over(s)) {
        status = run_round(e, x);
        if (status == CRIA_OK && e->complete && !s->found) {
            snprintf(s->reduction.infeasible, sizeof s->reduction.infeasible,
                     "no assignment stays within the usage limit");
            status = CRIA_ERR_INFEASIBLE;
        }
        reduced = status == CRIA_OK && s->found && !s->proven && worth_reducing(e);
    }
    if (reduced) status = reduce_further(e);
    free(x);
    close_epoch(e);
    free(e);
    return status;
}
