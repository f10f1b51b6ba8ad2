/* Run by mpirun: what every rank sends in steps of a plan is what the plan file says, byte for byte.
 * Arguments: MODEL PLAN STAGES ROWS COLUMNS TOKENS. Rank 0 writes the regular plan of that shape with its notes to the
 * file PLAN; with STAGES 0 the file is there already. Then all ranks read it and run it. */
#include "parallel/lower/traffic.h"
#include "parallel/plan/plan_file.h"
#include "parallel/plan/regular.h"
#include "server/runtime.h"
#include "tests/server/add_tokens.h"

#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 3 };

typedef struct {
    const char *file;
    int stages, rows, columns, rank;
    int64_t tokens;
    cria_comm *comm;
} task;

static cria_status write_plan(const task *t, const cria_graph *graph, cria_error *err) {
    cria_plan *plan;
    cria_plan_notes notes;
    CRIA_TRY(cria_plan_create_regular(graph, t->stages, t->rows, t->columns, &plan, err));
    cria_status status = cria_plan_notes_init(&notes, cria_plan_ranks(plan), t->stages, err);
    if (status == CRIA_OK) {
        notes.tokens = t->tokens;
        for (int r = 0; r < notes.ranks; r++) notes.device[r] = r;
        status = cria_plan_traffic(graph, plan, t->tokens, t->tokens, notes.bytes, err);
        if (status == CRIA_OK) status = cria_plan_write(t->file, plan, graph, &notes, err);
        cria_plan_notes_deinit(&notes);
    }
    cria_plan_destroy(plan);
    return status;
}

static cria_status make_plan(void *context, const cria_graph *graph, int ranks, cria_plan **out, cria_plan_notes *notes,
                             cria_error *err) {
    const task *t = context;
    (void)ranks;
    if (t->rank == 0 && t->stages > 0) CRIA_TRY(write_plan(t, graph, err));
    CRIA_TRY(cria_comm_barrier(t->comm, err));
    return cria_plan_read(t->file, graph, out, notes, err);
}

/* Decode steps: one token of each of so many sequences. */
static cria_status run_steps(const task *t, cria_runtime *runtime, cria_error *err) {
    cria_engine_config config;
    cria_batch *batch;
    cria_batch_result *result;
    cria_runtime_engine_config(runtime, &config);
    CRIA_TRY(cria_batch_create(&config.limits, &batch, err));
    CRIA_TRY(cria_batch_result_create(&config.limits, &result, err));
    cria_runner runner = cria_runtime_runner(runtime, 0);
    cria_status status = CRIA_OK;
    for (int step = 0; step < STEPS && status == CRIA_OK; step++) {
        int32_t ids[STEPS] = {5, 6, 7};
        cria_batch_clear(batch);
        for (int s = 0; s < (int)t->tokens; s++) add_tokens(batch, config.block_tokens, s, ids, step, 1);
        status = runner.step(runner.self, batch, result, err);
    }
    cria_batch_destroy(batch);
    cria_batch_result_destroy(result);
    return status == CRIA_OK ? cria_group_stop(cria_runtime_group(runtime), err) : status;
}

static cria_status run(task *t, const char *model, cria_error *err) {
    cria_main_options options = {0};
    CRIA_TRY(cria_options_defaults(cria_option_table, cria_option_count, &options, err));
    options.quiet = true;
    options.block_size = "16";
    options.max_num_seqs = t->tokens + 8; /* add_tokens takes 8 blocks for each */
    cria_runtime_request request = {.threads = 1, .comm = t->comm, .make_plan = make_plan, .plan_context = t};
    cria_runtime *runtime;
    CRIA_TRY(cria_runtime_open(model, &options, &request, NULL, &runtime, err));
    cria_status status =
        t->rank == 0 ? run_steps(t, runtime, err) : cria_group_follow(cria_runtime_group(runtime), err);
    uint64_t sent = cria_executor_sent(cria_runtime_executor(runtime));
    const cria_plan_notes *notes = cria_runtime_plan_notes(runtime);
    int64_t planned = notes->bytes[t->rank];
    if (status == CRIA_OK) {
        printf("rank %d sent %llu bytes in %d steps of %lld tokens; the plan says %lld each\n", t->rank,
               (unsigned long long)sent, STEPS, (long long)t->tokens, (long long)planned);
        if (notes->tokens != t->tokens || sent != STEPS * (uint64_t)planned)
            status = cria_fail(err, CRIA_ERR_INTERNAL, "rank %d sent other than planned", t->rank);
    }
    cria_runtime_close(runtime);
    return status;
}

int main(int argc, char **argv) {
    cria_error err = {0};
    if (argc != 7) return 2;
    task t = {.file = argv[2],
              .stages = atoi(argv[3]),
              .rows = atoi(argv[4]),
              .columns = atoi(argv[5]),
              .tokens = atoi(argv[6])};
    cria_comm_options options = {.deadline_seconds = 60};
    cria_status status = cria_comm_create_mpi(&options, &t.comm, &err);
    if (status == CRIA_OK) {
        t.rank = cria_comm_rank(t.comm);
        status = run(&t, argv[1], &err);
    }
    if (status != CRIA_OK) {
        fprintf(stderr, "%s\n", err.message);
        cria_comm_end_world(1);
        return 1;
    }
    cria_comm_destroy(t.comm);
    return 0;
}
