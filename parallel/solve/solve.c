/* The solver: reduce, bound, fix what the bound decides, search what is left, and again. */
#include "parallel/solve/solve.h"

#include "base/clock.h"
#include "parallel/solve/dual.h"
#include "parallel/solve/exact.h"
#include "parallel/solve/model.h"
#include "parallel/solve/search.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 64, PASSES = 6000, QUIET_PASSES = 400 };
static const int64_t first_steps = 200000, first_moves = 4000000;

typedef struct {
    const cria_problem *problem;
    const cria_solve_options *options;
    uint64_t start;
    cria_until until;
    cria_reduction reduction;
    cria_net net;
    cria_dual dual;
    cria_search search[MOST_THREADS];
    int threads;
    int32_t *best, *candidate; /* [nodes of the problem] */
    int64_t cost, bound;
    bool found, proven;
    int64_t rounds, steps;
} solver;

static double seconds_since(const solver *s) {
    return cria_seconds_between(s->start, cria_clock_ns());
}

static void tell(solver *s) {
    if (s->found && s->bound > s->cost) s->bound = s->cost;
    s->proven = s->proven || (s->found && s->bound == s->cost);
    if (s->options->improved && s->found)
        s->options->improved(s->options->context, seconds_since(s), s->cost, s->bound);
}

static void raise_bound(solver *s, double bound) {
    if (!(bound > -9e17)) return;
    int64_t whole = (int64_t)ceil(bound);
    if (whole <= s->bound) return;
    bool much = (double)whole - (double)s->bound > 1e-4 * fabs(bound);
    s->bound = whole;
    if (much || (s->found && whole >= s->cost)) tell(s);
}

/* Judges an assignment of the reduced problem by the problem itself, and keeps it if it is the best. */
static cria_status offer(solver *s, const int32_t *x) {
    int64_t cost, peak;
    cria_status status = cria_reduction_expand(&s->reduction, x, s->candidate);
    if (status != CRIA_OK) return status;
    if (cria_problem_cost(s->problem, s->candidate, &cost, &peak, NULL) != CRIA_OK) return CRIA_OK;
    if (s->found && cost >= s->cost) return CRIA_OK;
    int32_t *swap = s->best;
    s->best = s->candidate;
    s->candidate = swap;
    s->cost = cost;
    s->found = true;
    if (s->options->answer) s->options->answer(s->options->context, s->best);
    tell(s);
    return CRIA_OK;
}

/* What the problem may cost at most if it can be had at all. */
static double dearest(const solver *s) {
    const cria_model *m = &s->reduction.model;
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

static bool over(const solver *s) {
    return s->proven || cria_until_over(&s->until);
}

/* Makes an assignment of the dual fit. */
static cria_status try_repair(solver *s, const int32_t *x) {
    cria_search *search = &s->search[0];
    double before = search->best_cost;
    cria_search_set(search, x, s->dual.price);
    cria_search_repair(search, 1e-3 * fabs(s->dual.bound) + 1, 300, &s->until);
    return search->best_cost < before ? offer(s, search->best) : CRIA_OK;
}

/* Passes until the bound stands still. `share`: of the whole time. */
static cria_status climb(solver *s, double share) {
    cria_dual *d = &s->dual;
    double limit = s->options->seconds > 0 ? s->options->seconds * share : INFINITY, cheapest = INFINITY;
    for (int pass = 0; pass < PASSES && !over(s); pass++) {
        cria_dual_pass(d);
        raise_bound(s, d->best);
        cria_status status = CRIA_OK;
        double cost = cria_net_cost(&s->net, d->x);
        if (d->worst <= 0 && cost < cheapest) {
            cheapest = cost;
            status = try_repair(s, d->x);
        } else if (pass == 0 || (pass >= 16 && (pass & (pass - 1)) == 0) || pass % 200 == 199) {
            status = try_repair(s, d->x);
        }
        if (status != CRIA_OK) return status;
        if (d->step < 1e-4 || seconds_since(s) > limit) break;
        cria_dual_climb(d, s->found ? (double)s->cost : d->best + 0.05 * fabs(d->best) + 1);
    }
    return CRIA_OK;
}

/* At the best prices: every strategy whose least cost passes the best answer can go. How many went, in *dropped. */
static cria_status fix(solver *s, size_t *dropped) {
    cria_dual *d = &s->dual;
    const cria_net *net = &s->net;
    *dropped = 0;
    if (net->slices) memcpy(d->price, d->best_price, (size_t)net->slices * sizeof *d->price);
    cria_net_price(net, d->price, d->work, d->unary);
    for (size_t i = 0; i < net->at[net->nodes]; i++) d->unary[i] += net->unary[i];
    for (int k = 0; k < 30 && !over(s); k++) cria_dual_pass(d);
    raise_bound(s, d->best);
    if (!s->found || over(s)) return CRIA_OK;
    size_t all = net->at[net->nodes];
    bool *keep = malloc(all + 1);
    if (!keep) return CRIA_ERR_MEMORY;
    double slack = net->magnitude * 1e-11 + 1e-6;
    for (size_t i = 0; i < all; i++) {
        keep[i] = d->forward + d->belief[i] - slack <= (double)s->cost - 1;
        *dropped += !keep[i];
    }
    cria_status status = CRIA_OK;
    if (*dropped * 50 > all) {
        status = cria_reduction_restrict(&s->reduction, keep, &s->until);
        if (status == CRIA_ERR_INFEASIBLE) { /* nothing cheaper is left */
            s->bound = s->cost;
            tell(s);
            status = CRIA_OK;
        }
    } else {
        *dropped = 0;
    }
    free(keep);
    return status;
}

/* A step looks at every node: larger nets get fewer, so that it costs no more than a round of annealing. */
static cria_status search_exactly(solver *s) {
    double best = s->found ? (double)s->cost : (double)s->net.constant + s->net.forbidden;
    bool found = false, complete = false;
    int32_t *x = malloc(((size_t)s->net.nodes + 1) * sizeof *x);
    if (!x) return CRIA_ERR_MEMORY;
    cria_status status =
        cria_exact_search(&s->dual, &best, x, s->steps / (1 + s->net.nodes / 20), &s->until, &found, &complete);
    if (status == CRIA_OK && found) status = offer(s, x);
    free(x);
    if (status != CRIA_OK || !complete) return status;
    if (!s->found) {
        snprintf(s->reduction.infeasible, sizeof s->reduction.infeasible, "no assignment stays within the usage limit");
        return CRIA_ERR_INFEASIBLE;
    }
    s->bound = s->cost;
    tell(s);
    return CRIA_OK;
}

typedef struct {
    cria_search *search;
    const cria_until *until;
    int64_t moves;
    double hot, cold, weight;
} anneal_job;

static void *run_anneal(void *context) {
    anneal_job *job = context;
    cria_search_anneal(job->search, job->moves, job->hot, job->cold, job->weight, job->until);
    return NULL;
}

/* One round of annealing on every thread, each from the best answer; the temperature varies from round to round. */
static cria_status anneal(solver *s, const int32_t *x) {
    pthread_t thread[MOST_THREADS];
    anneal_job job[MOST_THREADS];
    bool started[MOST_THREADS] = {false};
    static const double heats[] = {1, 0.3, 3, 0.1};
    double gap = fmax((double)s->cost - (double)s->bound, 1e-5 * fabs((double)s->cost) + 1);
    for (int k = 0; k < s->threads; k++) {
        double hot = heats[(s->rounds + k) % 4] * gap / 6000;
        job[k] = (anneal_job){&s->search[k], &s->until, first_moves, hot, hot / 100, s->rounds % 3 == 2 ? 0 : 1};
        cria_search_set(&s->search[k], x, s->dual.best_price);
        if (k > 0) started[k] = pthread_create(&thread[k], NULL, run_anneal, &job[k]) == 0;
    }
    run_anneal(&job[0]);
    for (int k = 1; k < s->threads; k++) {
        if (started[k])
            pthread_join(thread[k], NULL);
        else
            run_anneal(&job[k]);
    }
    s->rounds++;
    for (int k = 0; k < s->threads; k++) {
        if (s->search[k].best_cost >= (double)s->cost) continue;
        cria_status status = offer(s, s->search[k].best);
        if (status != CRIA_OK) return status;
    }
    return CRIA_OK;
}

static cria_status open_epoch(solver *s) {
    cria_status status = cria_net_create(&s->reduction.model, s->found ? (double)s->cost : dearest(s), &s->net);
    if (status == CRIA_OK) status = cria_dual_create(&s->net, &s->dual);
    for (int k = 0; k < s->threads && status == CRIA_OK; k++)
        status = cria_search_create(&s->net, s->options->seed * 1000003 + (uint64_t)k + (uint64_t)s->rounds * 7919,
                                    &s->search[k]);
    return status;
}

static void close_epoch(solver *s) {
    for (int k = 0; k < s->threads; k++) cria_search_deinit(&s->search[k]);
    cria_dual_deinit(&s->dual);
    cria_net_deinit(&s->net);
}

/* Anneals until the answer is better by enough to try fixing again, or time is over. */
static cria_status improve(solver *s, int epoch) {
    int32_t *x = malloc(((size_t)s->net.nodes + 1) * sizeof *x);
    if (!x) return CRIA_ERR_MEMORY;
    cria_status status = CRIA_OK;
    int64_t before = s->found ? s->cost : INT64_MAX, rounds = 0;
    while (!over(s) && status == CRIA_OK) {
        if (s->options->iterations > 0 && s->rounds >= s->options->iterations) break;
        bool start = s->found && cria_reduction_project(&s->reduction, s->best, x);
        if (!start) {
            /* the best answer has no counterpart in what is left: start from the dual */
            status = try_repair(s, s->dual.x);
            start = isfinite(s->search[0].best_cost);
            if (start) memcpy(x, s->search[0].best, (size_t)s->net.nodes * sizeof *x);
        }
        if (status != CRIA_OK) break;
        if (start && s->found)
            status = anneal(s, x);
        else {
            cria_dual_pass(&s->dual);
            cria_dual_climb(&s->dual, s->dual.best + 0.05 * fabs(s->dual.best) + 1);
            s->rounds++;
        }
        rounds++;
        if (rounds >= 8 + epoch * 4 && s->cost < before) break;
        if (rounds >= 60) break;
    }
    free(x);
    return status;
}

static bool exhausted(const solver *s) {
    return over(s) || (s->options->iterations > 0 && s->rounds >= s->options->iterations);
}

static cria_status solve_reduced(solver *s) {
    s->steps = first_steps;
    for (int epoch = 0; !over(s); epoch++) {
        size_t dropped = 0;
        memset(s->search, 0, sizeof s->search);
        memset(&s->dual, 0, sizeof s->dual);
        cria_status status = open_epoch(s);
        if (status == CRIA_OK) status = climb(s, epoch == 0 ? 0.35 : 1);
        if (status == CRIA_OK && !over(s)) status = fix(s, &dropped);
        if (status == CRIA_OK && !over(s) && dropped == 0) status = search_exactly(s);
        if (status == CRIA_OK && !over(s) && dropped == 0) {
            s->steps *= 2;
            status = improve(s, epoch);
        }
        close_epoch(s);
        if (status != CRIA_OK) return status;
        if (dropped == 0 && exhausted(s)) break;
    }
    return CRIA_OK;
}

static cria_status run(solver *s) {
    s->bound = INT64_MIN;
    /* a large problem may be worth more search in a larger form than reduction to the end */
    cria_until early = s->until;
    if (early.deadline) early.deadline = s->start + (uint64_t)(s->options->seconds * 0.4e9);
    cria_status status = cria_reduce(s->problem, &early, &s->reduction);
    if (status != CRIA_OK) return status;
    if (s->reduction.model.nodes > 0) return solve_reduced(s);
    s->bound = s->reduction.model.constant;
    int32_t nothing = 0;
    return offer(s, &nothing);
}

cria_status cria_solve(const cria_problem *problem, const cria_solve_options *options, cria_solution *out,
                       cria_error *err) {
    *out = (cria_solution){0};
    if (options->threads < 1 || options->threads > MOST_THREADS)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "threads: %d, not 1 to %d", options->threads, MOST_THREADS);
    size_t room = ((size_t)cria_problem_nodes(problem) + 1) * sizeof(int32_t);
    solver *s = calloc(1, sizeof *s);
    if (!s) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to solve");
    s->problem = problem;
    s->options = options;
    s->start = cria_clock_ns();
    s->threads = options->threads;
    s->until.stop = options->stop;
    if (options->seconds > 0) s->until.deadline = s->start + (uint64_t)(options->seconds * 1e9);
    s->best = calloc(1, room);
    s->candidate = calloc(1, room);
    cria_status status = s->best && s->candidate ? run(s) : CRIA_ERR_MEMORY;
    out->seconds = seconds_since(s);
    if (status == CRIA_ERR_MEMORY && !s->found) {
        cria_fail(err, status, "no memory to solve a problem of %d nodes", cria_problem_nodes(problem));
    } else if (status == CRIA_ERR_INFEASIBLE && !s->found) {
        cria_fail(err, status, "infeasible: %s", s->reduction.infeasible);
    } else if (!s->found) {
        status = cria_fail(err, CRIA_ERR_INFEASIBLE, "no assignment was found in %.1f s", out->seconds);
    } else {
        status = CRIA_OK;
        out->strategy = s->best;
        out->cost = s->cost;
        out->bound = s->bound;
        out->optimal = s->proven;
        s->best = NULL;
    }
    cria_reduction_deinit(&s->reduction);
    free(s->best);
    free(s->candidate);
    free(s);
    return status;
}

void cria_solution_deinit(cria_solution *solution) {
    free(solution->strategy);
    *solution = (cria_solution){0};
}
