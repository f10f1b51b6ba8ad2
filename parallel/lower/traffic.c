/* Lowers a plan for each rank and counts what its program sends. */
#include "parallel/lower/traffic.h"

#include "parallel/lower/lower.h"

#include <stdlib.h>

cria_status cria_plan_traffic(const cria_graph *graph, const cria_plan *plan, int64_t tokens, int64_t rows,
                              int64_t *bytes, cria_error *err) {
    /* How weights are stored decides nothing about what is sent. */
    cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph) + 1, sizeof *panel);
    if (!panel) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d tensors", cria_graph_tensors(graph));
    cria_lower_options options = {.max_tokens = tokens, .max_rows = rows, .max_positions = tokens, .panel = panel};
    cria_status status = CRIA_OK;
    for (int r = 0; r < cria_plan_ranks(plan) && status == CRIA_OK; r++) {
        cria_program *program;
        status = cria_lower(graph, plan, r, &options, &program, err);
        if (status != CRIA_OK) break;
        bytes[r] = cria_program_bytes(program, tokens, rows);
        cria_program_destroy(program);
    }
    free(panel);
    return status;
}
