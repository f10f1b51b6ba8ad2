/* cria solve: the planner's solver on an instance in the format of the ASPLOS/EuroSys 2025 contest. */
#include "parallel/solve/solve.h"
#include "base/clock.h"
#include "parallel/solve/instance.h"
#include "server/commands/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The only thing that a signal handler may touch; one command runs per process. */
static atomic_bool interrupted;

static void interrupt(int number) {
    (void)number;
    atomic_store_explicit(&interrupted, true, memory_order_relaxed);
}

typedef struct {
    double parsed; /* seconds before the solver began */
    bool quiet;
} listener;

static void print_improvement(void *context, double seconds, int64_t cost, int64_t bound) {
    const listener *l = context;
    if (l->quiet) return;
    printf("%9.2f s  cost %" PRId64 "  bound %" PRId64 "\n", l->parsed + seconds, cost, bound);
    fflush(stdout);
}

/* Written beside and renamed, so that FILE is whole at every moment. */
static cria_status write_strategies(const char *path, const int32_t *strategy, int nodes, cria_error *err) {
    char beside[4096];
    int length = snprintf(beside, sizeof beside, "%s.part", path);
    if (length < 0 || (size_t)length >= sizeof beside) return cria_fail(err, CRIA_ERR_ARGUMENT, "--out: too long");
    FILE *file = fopen(beside, "w");
    if (!file) return cria_fail(err, CRIA_ERR_IO, "%s: %s", beside, strerror(errno));
    for (int v = 0; v < nodes; v++) fprintf(file, "%s%" PRId32, v ? ", " : "[", strategy[v]);
    fputs(nodes ? "]\n" : "[]\n", file);
    bool good = !ferror(file);
    good = fclose(file) == 0 && good;
    if (good && rename(beside, path) == 0) return CRIA_OK;
    cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
    unlink(beside);
    return CRIA_ERR_IO;
}

/* Seconds kept back for writing the answer and for a busy machine. */
static double margin(double seconds, int nodes) {
    double kept = 0.1 + 0.01 * seconds + 2e-6 * nodes;
    return kept < seconds * 0.3 ? kept : seconds * 0.3;
}

cria_status cria_command_solve(const cria_command *command, cria_error *err) {
    const cria_main_options *options = command->options;
    if (!options->out) return cria_fail(err, CRIA_ERR_ARGUMENT, "give --out FILE for the chosen strategies");
    uint64_t start = cria_clock_ns();
    cria_problem *problem;
    CRIA_TRY(cria_instance_open(command->model, &problem, err));
    int nodes = cria_problem_nodes(problem);
    listener l = {.parsed = cria_seconds_between(start, cria_clock_ns()), .quiet = options->quiet};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    cria_solve_options how = {.iterations = options->iterations,
                              .threads = options->threads ? (int)options->threads
                                         : cpus > 8       ? 8
                                         : cpus < 1       ? 1
                                                          : (int)cpus,
                              .seed = (uint64_t)options->seed,
                              .stop = &interrupted,
                              .improved = print_improvement,
                              .context = &l};
    if (how.threads > 64) how.threads = 64;
    if (options->solve_seconds > 0) {
        how.seconds = options->solve_seconds - margin(options->solve_seconds, nodes) - l.parsed;
        if (how.seconds < 1e-3) how.seconds = 1e-3;
    }
    struct sigaction action = {.sa_handler = interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    cria_solution solution;
    cria_status status = cria_solve(problem, &how, &solution, err);
    if (status == CRIA_OK) status = write_strategies(options->out, solution.strategy, nodes, err);
    if (status == CRIA_OK)
        printf("{\"cost\": %" PRId64 ", \"bound\": %" PRId64 ", \"seconds\": %.3f, \"feasible\": true}\n",
               solution.cost, solution.bound, cria_seconds_between(start, cria_clock_ns()));
    else if (status == CRIA_ERR_INFEASIBLE)
        printf("{\"cost\": null, \"bound\": null, \"seconds\": %.3f, \"feasible\": false}\n",
               cria_seconds_between(start, cria_clock_ns()));
    cria_solution_deinit(&solution);
    cria_problem_destroy(problem);
    return status;
}
