/* The solver: reduce, search what is left, and once that rules out enough of it, again. */
#include "parallel/solve/solve.h"

#include "base/clock.h"
#include "parallel/solve/eliminate.h"
#include "parallel/solve/solver.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_THREADS = 64 };

static double seconds_since(const cria_solver *s) {
    return cria_seconds_between(s->start, cria_clock_ns());
}

static void tell(cria_solver *s) {
    if (s->found && s->bound > s->cost) s->bound = s->cost;
    s->proven = s->proven || (s->found && s->bound == s->cost);
    if (s->options->improved && s->found)
        s->options->improved(s->options->context, seconds_since(s), s->cost, s->bound);
}

void cria_solver_raise(cria_solver *s, double bound) {
    if (!(bound > -9e17)) return;
    int64_t whole = (int64_t)ceil(bound);
    if (whole <= s->bound) return;
    bool much = (double)whole - (double)s->bound > 1e-4 * fabs(bound);
    s->bound = whole;
    if (much || (s->found && whole >= s->cost)) tell(s);
}

void cria_solver_close(cria_solver *s) {
    s->bound = s->cost;
    tell(s);
}

cria_status cria_solver_offer(cria_solver *s, const int32_t *x) {
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

bool cria_solver_over(const cria_solver *s) {
    return s->proven || cria_until_over(&s->until) ||
           (s->options->iterations > 0 && s->rounds >= s->options->iterations);
}

/* What is left without memory may be narrow enough to be solved outright. */
static cria_status try_elimination(cria_solver *s, double most_work, double *work) {
    int32_t *x = malloc(((size_t)s->reduction.model.nodes + 1) * sizeof *x);
    cria_status status = x ? cria_eliminate(&s->reduction.model, most_work, &s->until, x, work) : CRIA_ERR_MEMORY;
    if (status == CRIA_ERR_INFEASIBLE)
        snprintf(s->reduction.infeasible, sizeof s->reduction.infeasible, "no assignment avoids what is forbidden");
    if (status == CRIA_OK && *work <= most_work) status = cria_solver_offer(s, x);
    if (status == CRIA_OK && *work <= most_work) cria_solver_close(s);
    free(x);
    return status == CRIA_ERR_CLOSED ? CRIA_OK : status;
}

/* Elimination and the search race: neither runs much longer than the other would take. With a number of rounds given,
 * the clock decides nothing. */
static cria_status search(cria_solver *s) {
    static const double little = 3e7, most = 4e9, per_second = 4e8;
    bool timed = s->options->iterations <= 0;
    double work;
    CRIA_TRY(try_elimination(s, timed ? little : most, &work));
    if (cria_solver_over(s)) return CRIA_OK;
    if (!(timed && work <= most)) return cria_epoch(s);
    uint64_t deadline = s->until.deadline, until = cria_clock_ns() + (uint64_t)(work / per_second * 1e9);
    if (!deadline || until < deadline) s->until.deadline = until;
    cria_status status = cria_epoch(s);
    s->until.deadline = deadline;
    if (status != CRIA_OK || cria_solver_over(s) || cria_clock_ns() < until) return status;
    return try_elimination(s, most, &work);
}

static cria_status run(cria_solver *s) {
    s->bound = INT64_MIN;
    /* a large problem may be worth more search in a larger form than reduction to the end */
    cria_until early = s->until;
    if (early.deadline) early.deadline = s->start + (uint64_t)(s->options->seconds * 0.4e9);
    cria_status status = cria_reduce(s->problem, &early, &s->reduction);
    if (status != CRIA_OK) return status;
    cria_solver_raise(s, (double)s->reduction.model.constant); /* what is left costs at least 0 */
    while (s->reduction.model.nodes > 0 && status == CRIA_OK && !cria_solver_over(s)) status = search(s);
    if (status != CRIA_OK || s->reduction.model.nodes > 0 || s->proven) return status;
    int32_t nothing = 0;
    status = cria_solver_offer(s, &nothing);
    if (status == CRIA_OK) cria_solver_close(s);
    return status;
}

cria_status cria_solve(const cria_problem *problem, const cria_solve_options *options, cria_solution *out,
                       cria_error *err) {
    *out = (cria_solution){0};
    if (options->threads < 1 || options->threads > MOST_THREADS)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "threads: %d, not 1 to %d", options->threads, MOST_THREADS);
    size_t room = ((size_t)cria_problem_nodes(problem) + 1) * sizeof(int32_t);
    cria_solver *s = calloc(1, sizeof *s);
    if (!s) return cria_fail(err, CRIA_ERR_MEMORY, "no memory to solve");
    s->problem = problem;
    s->options = options;
    s->start = cria_clock_ns();
    s->heat = 1;
    s->steps = 100000;
    s->until.stop = options->stop;
    if (options->seconds > 0) s->until.deadline = s->start + (uint64_t)(options->seconds * 1e9);
    s->best = calloc(1, room);
    s->candidate = calloc(1, room);
    s->kept = calloc((size_t)options->threads, sizeof *s->kept);
    cria_status status = s->best && s->candidate && s->kept ? run(s) : CRIA_ERR_MEMORY;
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
    free(s->price);
    for (int k = 0; s->kept && k < options->threads; k++) free(s->kept[k].x);
    free(s->kept);
    free(s);
    return status;
}

void cria_solution_deinit(cria_solution *solution) {
    free(solution->strategy);
    *solution = (cria_solution){0};
}
