/* What ends the solver: rounds (the same answer every time), the clock, a flag, and signals to the command. */
#include "parallel/solve/instance.h"
#include "parallel/solve/solve.h"

#include "base/random.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { NODES = 300, STRATEGIES = 9, DEGREE = 3 };

static uint32_t roll(uint64_t *drawn, uint32_t below) {
    uint32_t word[4];
    cria_philox(7, (*drawn)++, 0, word);
    return word[0] % below;
}

/* A problem that no search finishes: random costs on a random graph, and room for about half of the usage. */
static cria_problem *make_hard(FILE *copy) {
    cria_problem *p;
    uint64_t drawn = 0;
    static int64_t cost[NODES][STRATEGIES], usage[NODES][STRATEGIES], edge[NODES * DEGREE][STRATEGIES * STRATEGIES];
    static int ends[NODES * DEGREE][2], begin[NODES];
    const int64_t limit = 100 * 30;
    assert_int_equal(cria_problem_create(limit, &p, NULL), CRIA_OK);
    for (int v = 0; v < NODES; v++) {
        begin[v] = (int)roll(&drawn, NODES);
        for (int i = 0; i < STRATEGIES; i++) {
            cost[v][i] = roll(&drawn, 1000);
            usage[v][i] = roll(&drawn, 100);
        }
        assert_int_equal(cria_problem_node(p, STRATEGIES, cost[v], usage[v], begin[v], begin[v] + 100, NULL), v);
    }
    for (int e = 0; e < NODES * DEGREE; e++) {
        ends[e][0] = e % NODES;
        ends[e][1] = (e + 1 + (int)roll(&drawn, NODES - 1)) % NODES;
        for (int i = 0; i < STRATEGIES * STRATEGIES; i++) edge[e][i] = roll(&drawn, 1000);
        assert_int_equal(cria_problem_edge(p, ends[e][0], ends[e][1], edge[e], NULL), CRIA_OK);
    }
    if (!copy) return p;
#define ROWS(name, count, width, format, ...)                                                                          \
    fprintf(copy, "\"" name "\":[");                                                                                   \
    for (int r = 0; r < (count); r++)                                                                                  \
        for (int i = 0; i < (width); i++)                                                                              \
            fprintf(copy, "%s" format "%s", i ? "," : r ? ",[" : "[", __VA_ARGS__, i == (width)-1 ? "]" : "");         \
    fprintf(copy, "]")
    fprintf(copy, "{\"problem\":{\"nodes\":{");
    ROWS("intervals", NODES, 2, "%d", begin[r] + 100 * i);
    fputc(',', copy);
    ROWS("costs", NODES, STRATEGIES, "%lld", (long long)cost[r][i]);
    fputc(',', copy);
    ROWS("usages", NODES, STRATEGIES, "%lld", (long long)usage[r][i]);
    fprintf(copy, "},\"edges\":{");
    ROWS("nodes", NODES * DEGREE, 2, "%d", ends[r][i]);
    fputc(',', copy);
    ROWS("costs", NODES * DEGREE, STRATEGIES * STRATEGIES, "%lld", (long long)edge[r][i]);
    fprintf(copy, "},\"usage_limit\":%lld}}", (long long)limit);
#undef ROWS
    return p;
}

static void rounds_seed_and_threads_decide_the_answer(void **state) {
    (void)state;
    cria_problem *p = make_hard(NULL);
    int32_t first[NODES];
    for (int threads = 1; threads <= 3; threads += 2)
        for (int again = 0; again < 2; again++) {
            cria_solve_options options = {.iterations = 2, .threads = threads, .seed = 5};
            cria_solution s;
            assert_int_equal(cria_solve(p, &options, &s, NULL), CRIA_OK);
            if (again) assert_memory_equal(first, s.strategy, sizeof first);
            memcpy(first, s.strategy, sizeof first);
            cria_solution_deinit(&s);
        }
    cria_problem_destroy(p);
}

/* The answer is the judge's, and no improvement was worse than the one before. */
static void check_answer(const cria_problem *p, const cria_solution *s) {
    int64_t cost, peak;
    assert_int_equal(cria_problem_cost(p, s->strategy, &cost, &peak, NULL), CRIA_OK);
    assert_int_equal(cost, s->cost);
    assert_true(s->bound <= cost);
}

static void the_clock_ends_it_with_the_best_so_far(void **state) {
    (void)state;
    cria_problem *p = make_hard(NULL);
    cria_solve_options options = {.seconds = 2, .threads = 2};
    cria_solution s;
    assert_int_equal(cria_solve(p, &options, &s, NULL), CRIA_OK);
    check_answer(p, &s);
    assert_false(s.optimal);
    cria_solution_deinit(&s);
    cria_problem_destroy(p);
}

typedef struct {
    const cria_problem *problem;
    atomic_bool stop;
    int answers, improvements;
    int64_t cost;
} watch;

static void count_answer(void *context, const int32_t *strategy) {
    watch *w = context;
    int64_t peak;
    assert_int_equal(cria_problem_cost(w->problem, strategy, &w->cost, &peak, NULL), CRIA_OK);
    w->answers++;
}

/* Called after `answer`, with the cost of what it was given; the third improvement is enough. */
static void count_improvement(void *context, double seconds, int64_t cost, int64_t bound) {
    watch *w = context;
    (void)seconds;
    assert_int_equal(cost, w->cost);
    assert_true(bound <= cost);
    if (++w->improvements == 3) atomic_store(&w->stop, true);
}

static void the_flag_ends_it_and_every_answer_was_told(void **state) {
    (void)state;
    watch w = {.problem = make_hard(NULL)};
    cria_solve_options options = {
        .threads = 2, .stop = &w.stop, .improved = count_improvement, .answer = count_answer, .context = &w};
    cria_solution s;
    assert_int_equal(cria_solve(w.problem, &options, &s, NULL), CRIA_OK);
    check_answer(w.problem, &s);
    assert_int_equal(s.cost, w.cost);
    assert_true(w.answers >= 1 && w.improvements >= 3);
    cria_solution_deinit(&s);
    cria_problem_destroy((cria_problem *)(uintptr_t)w.problem);
}

/* Reads FILE as the command writes it. */
static void read_answer(const char *path, int32_t *strategy) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fgetc(file), '[');
    for (int v = 0; v < NODES; v++) {
        assert_int_equal(fscanf(file, v ? ", %d" : "%d", &strategy[v]), 1);
    }
    assert_int_equal(fgetc(file), ']');
    fclose(file);
}

/* ./cria solve on the hard problem; `signal_number` once it has printed an improvement, 0: none. Its last line. */
static void run_command(const char *instance, const char *out, const char *seconds, int signal_number, char *line,
                        int size) {
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 1);
        close(pipes[0]);
        execl("./cria", "cria", "solve", instance, "--time", seconds, "--threads", "2", "--out", out, NULL);
        _exit(127);
    }
    close(pipes[1]);
    FILE *from = fdopen(pipes[0], "r");
    char next[512];
    line[0] = 0;
    for (int lines = 0; fgets(next, sizeof next, from); lines++) {
        snprintf(line, (size_t)size, "%s", next);
        if (lines == 0 && signal_number) kill(child, signal_number);
    }
    fclose(from);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void signals_and_the_clock_leave_a_whole_answer_in_the_file(void **state) {
    (void)state;
    char instance[] = "/tmp/cria-instance-XXXXXX", out[] = "/tmp/cria-answer-XXXXXX", line[512], wanted[64];
    int fd = mkstemp(instance);
    FILE *copy = fdopen(fd, "w");
    cria_problem *p = make_hard(copy);
    fclose(copy);
    close(mkstemp(out));
    const struct {
        const char *seconds;
        int signal_number;
    } cases[] = {{"3", 0}, {"0", SIGINT}, {"0", SIGTERM}};
    for (int k = 0; k < 3; k++) {
        int32_t strategy[NODES];
        int64_t cost, peak;
        run_command(instance, out, cases[k].seconds, cases[k].signal_number, line, sizeof line);
        read_answer(out, strategy);
        assert_int_equal(cria_problem_cost(p, strategy, &cost, &peak, NULL), CRIA_OK);
        snprintf(wanted, sizeof wanted, "{\"cost\": %lld, ", (long long)cost);
        assert_true(strncmp(line, wanted, strlen(wanted)) == 0);
        assert_non_null(strstr(line, "\"feasible\": true}"));
    }
    unlink(instance);
    unlink(out);
    cria_problem_destroy(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_seed_and_threads_decide_the_answer),
        cmocka_unit_test(the_clock_ends_it_with_the_best_so_far),
        cmocka_unit_test(the_flag_ends_it_and_every_answer_was_told),
        cmocka_unit_test(signals_and_the_clock_leave_a_whole_answer_in_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
