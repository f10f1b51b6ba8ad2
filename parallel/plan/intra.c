/* The intra-operator pass: the cheapest strategies within memory, and what given ones cost. */
#include "parallel/plan/intra.h"

#include "base/clock.h"
#include "parallel/plan/intra_problem.h"

#include <math.h>
#include <stdlib.h>

void cria_intra_defaults(cria_intra_options *options) {
    *options = (cria_intra_options){
        .strategies =
            {.force_batch_axis = -1, .allow_replicated = true, .reduce_scatter = true, .symbolic = 1, .element = 4},
        .memory_limit = -1,
        .threads = 1,
    };
}

void cria_intra_as_alpa(cria_mesh *mesh, cria_intra_options *options) {
    mesh->tie = 1;
    mesh->fractional = true;
    options->strategies.allow_replicated = false;
    options->strategies.reduce_scatter = false;
    options->strategies.follow = true;
    if (mesh->size[0] > 1 && mesh->size[1] > 1) options->strategies.forbid_all_to_all = true;
}

void cria_intra_whole_results(const cria_graph *graph, const cria_mesh *mesh, cria_sharding *boundary) {
    int tensors = cria_graph_tensors(graph), last = mesh->size[1] > 1 ? 1 : 0;
    for (int t = 0; t < tensors; t++) {
        boundary[t] = (cria_sharding){{CRIA_ANY, CRIA_ANY}};
        boundary[t].dim[last] = CRIA_REPLICATED;
    }
}

static cria_status check(const cria_mesh *mesh, const cria_intra_options *options, cria_error *err) {
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        if (mesh->size[axis] < 1)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "mesh axis %d has %d devices", axis, mesh->size[axis]);
        if (!(mesh->alpha[axis] >= 0 && mesh->alpha[axis] < HUGE_VAL && mesh->beta[axis] >= 0 &&
              mesh->beta[axis] < HUGE_VAL))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "mesh axis %d: alpha %g and beta %g must be finite, 0 or more",
                             axis, mesh->alpha[axis], mesh->beta[axis]);
    }
    if (!(options->strategies.element > 0) || options->strategies.symbolic < 1)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "elements of %g bytes and %lld for symbolic dims must be positive",
                         options->strategies.element, (long long)options->strategies.symbolic);
    return CRIA_OK;
}

static cria_status finish(const cria_intra_problem *p, const cria_intra_answer *answer, uint64_t start,
                          cria_intra_result *out, cria_error *err) {
    CRIA_TRY(cria_intra_report(p, answer->choice, out, err));
    out->optimal = answer->optimal;
    out->bound = answer->optimal || answer->bound > out->objective ? out->objective : answer->bound;
    out->seconds = cria_seconds_between(start, cria_clock_ns());
    return CRIA_OK;
}

/* First without a limit, which is easy and often enough; then within it. */
static cria_status solve(const cria_intra_problem *p, uint64_t start, cria_intra_answer *answer, cria_error *err) {
    const cria_intra_options *o = p->options;
    CRIA_TRY(cria_intra_search(p, false, o->seconds, answer, err));
    if (o->memory_limit < 0 || cria_intra_peak(p, answer->choice) <= (double)o->memory_limit) return CRIA_OK;
    double bound = answer->bound, left = 0;
    free(answer->choice);
    if (o->seconds > 0) {
        left = o->seconds - cria_seconds_between(start, cria_clock_ns());
        if (left < 0.01) left = 0.01;
    }
    CRIA_TRY(cria_intra_search(p, true, left, answer, err));
    if (bound > answer->bound) answer->bound = bound;
    return CRIA_OK;
}

cria_status cria_intra_solve(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                             const cria_intra_options *options, cria_intra_result *out, cria_error *err) {
    uint64_t start = cria_clock_ns();
    *out = (cria_intra_result){0};
    CRIA_TRY(check(mesh, options, err));
    cria_intra_problem p;
    CRIA_TRY(cria_intra_problem_create(graph, first_op, end_op, mesh, options, NULL, &p, err));
    cria_intra_answer answer = {0};
    cria_status status = solve(&p, start, &answer, err);
    if (status == CRIA_OK) status = finish(&p, &answer, start, out, err);
    free(answer.choice);
    cria_intra_problem_deinit(&p);
    if (status != CRIA_OK) cria_intra_result_deinit(out);
    return status;
}

cria_status cria_intra_fixed(const cria_graph *graph, int first_op, int end_op, const cria_mesh *mesh,
                             const cria_intra_options *options, const cria_strategy *strategies, cria_intra_result *out,
                             cria_error *err) {
    uint64_t start = cria_clock_ns();
    *out = (cria_intra_result){0};
    CRIA_TRY(check(mesh, options, err));
    cria_intra_problem p;
    CRIA_TRY(cria_intra_problem_create(graph, first_op, end_op, mesh, options, strategies, &p, err));
    cria_intra_answer answer = {0};
    cria_status status = cria_intra_search(&p, false, options->seconds, &answer, err);
    if (status == CRIA_OK) status = finish(&p, &answer, start, out, err);
    free(answer.choice);
    cria_intra_problem_deinit(&p);
    if (status != CRIA_OK) cria_intra_result_deinit(out);
    return status;
}

void cria_intra_result_deinit(cria_intra_result *result) {
    free(result->strategy);
    free(result->held);
    *result = (cria_intra_result){0};
}
