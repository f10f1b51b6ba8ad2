/* cria solve: the planner's solver on an instance in the format of the ASPLOS/EuroSys 2025 contest. */
#include "parallel/solve/solve.h"
#include "base/clock.h"
#include "parallel/solve/instance.h"
#include "server/commands/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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
    const char *path;
    char beside[4096]; /* where an answer is written before it is renamed */
    char *text;        /* room for an answer */
    int nodes;
    cria_status status; /* of writing the last answer */
    cria_error *err;
} listener;

static void print_improvement(void *context, double seconds, int64_t cost, int64_t bound) {
    const listener *l = context;
    if (l->quiet) return;
    printf("%9.2f s  cost %" PRId64 "  bound %" PRId64 "\n", l->parsed + seconds, cost, bound);
    fflush(stdout);
}

static size_t format_strategies(const int32_t *strategy, int nodes, char *text) {
    size_t length = 0;
    text[length++] = '[';
    for (int v = 0; v < nodes; v++) {
        char digits[12];
        int count = 0;
        for (int32_t rest = strategy[v]; count == 0 || rest > 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
        if (v > 0) {
            text[length++] = ',';
            text[length++] = ' ';
        }
        while (count > 0) text[length++] = digits[--count];
    }
    text[length++] = ']';
    text[length++] = '\n';
    return length;
}

/* Written beside and renamed, so that FILE is whole at every moment. */
static void write_answer(void *context, const int32_t *strategy) {
    listener *l = context;
    size_t length = format_strategies(strategy, l->nodes, l->text);
    FILE *file = fopen(l->beside, "w");
    bool good = file && fwrite(l->text, 1, length, file) == length;
    if (file) good = fclose(file) == 0 && good;
    good = good && rename(l->beside, l->path) == 0;
    l->status = good ? CRIA_OK : cria_fail(l->err, CRIA_ERR_IO, "%s: %s", l->path, strerror(errno));
    if (!good) unlink(l->beside);
}

static cria_status open_listener(listener *l, const cria_main_options *options, int nodes) {
    l->nodes = nodes;
    l->text = malloc(4 + (size_t)nodes * 14);
    return l->text ? CRIA_OK
                   : cria_fail(l->err, CRIA_ERR_MEMORY, "no memory to write %d strategies to %s", nodes, options->out);
}

/* Seconds kept back for writing the answer and for a busy machine. */
static double margin(double seconds) {
    double kept = 0.2 + 0.015 * seconds;
    return kept < seconds * 0.3 ? kept : seconds * 0.3;
}

static int count_threads(const cria_main_options *options) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    long threads = options->threads ? (long)options->threads : cpus > 8 ? 8 : cpus < 1 ? 1 : cpus;
    return threads > 64 ? 64 : (int)threads;
}

static cria_status solve(const cria_main_options *options, const cria_problem *problem, const cria_until *until,
                         uint64_t start, listener *l, cria_solution *solution) {
    cria_solve_options how = {.iterations = options->iterations,
                              .threads = count_threads(options),
                              .seed = (uint64_t)options->seed,
                              .stop = until->stop,
                              .improved = print_improvement,
                              .answer = write_answer,
                              .context = l};
    l->parsed = cria_seconds_between(start, cria_clock_ns());
    if (until->deadline) {
        how.seconds = cria_seconds_between(start, until->deadline) - l->parsed;
        if (how.seconds <= 0) return cria_fail(l->err, CRIA_ERR_CLOSED, "the time was over once it was read");
    }
    CRIA_TRY(open_listener(l, options, cria_problem_nodes(problem)));
    CRIA_TRY(cria_solve(problem, &how, solution, l->err));
    return l->status;
}

cria_status cria_command_solve(const cria_command *command, cria_error *err) {
    const cria_main_options *options = command->options;
    if (!options->out) return cria_fail(err, CRIA_ERR_ARGUMENT, "give --out FILE for the chosen strategies");
    uint64_t start = cria_clock_ns();
    cria_until until = {.stop = &interrupted};
    if (options->solve_seconds > 0)
        until.deadline = start + (uint64_t)((options->solve_seconds - margin(options->solve_seconds)) * 1e9);
    listener l = {.quiet = options->quiet, .path = options->out, .err = err};
    int length = snprintf(l.beside, sizeof l.beside, "%s.part", options->out);
    if (length < 0 || (size_t)length >= sizeof l.beside) return cria_fail(err, CRIA_ERR_ARGUMENT, "--out: too long");
    /* once: whoever insists gets the usual end */
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    cria_problem *problem = NULL;
    cria_solution solution = {0};
    cria_status status = cria_instance_open(command->model, &until, &problem, err);
    if (status == CRIA_OK) status = solve(options, problem, &until, start, &l, &solution);
    double seconds = cria_seconds_between(start, cria_clock_ns());
    if (status == CRIA_OK)
        printf("{\"cost\": %" PRId64 ", \"bound\": %" PRId64 ", \"seconds\": %.3f, \"feasible\": true}\n",
               solution.cost, solution.bound, seconds);
    else if (status == CRIA_ERR_INFEASIBLE || status == CRIA_ERR_CLOSED)
        printf("{\"cost\": null, \"bound\": null, \"seconds\": %.3f, \"feasible\": false}\n", seconds);
    cria_solution_deinit(&solution);
    cria_problem_destroy(problem);
    free(l.text);
    return status;
}
