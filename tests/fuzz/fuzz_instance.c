/* Fuzzing the reader of contest instances: any bytes, plain or compressed, are an error with words or a problem, which
 * the solver then answers as the judge says, or calls infeasible. */
#include "parallel/solve/instance.h"
#include "parallel/solve/solve.h"

#include "tests/fuzz/require.h"

static void solve(const cria_problem *problem) {
    const cria_solve_options options = {.seconds = 0.1, .iterations = 2, .threads = 1};
    cria_error err = {0};
    cria_solution solution;
    cria_status status = cria_solve(problem, &options, &solution, &err);
    require(status == CRIA_OK || status == CRIA_ERR_INFEASIBLE);
    if (status != CRIA_OK) {
        require(err.message[0]);
        return;
    }
    int64_t cost, peak;
    require(cria_problem_cost(problem, solution.strategy, &cost, &peak, NULL) == CRIA_OK);
    require(cost == solution.cost && solution.bound <= cost);
    require(!solution.optimal || solution.bound == cost);
    cria_solution_deinit(&solution);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cria_error err = {0};
    cria_problem *problem;
    cria_status status = cria_instance_read(data, size, NULL, &problem, &err);
    if (status != CRIA_OK) {
        require(status == err.status && err.message[0]);
        return 0;
    }
    solve(problem);
    cria_problem_destroy(problem);
    return 0;
}
