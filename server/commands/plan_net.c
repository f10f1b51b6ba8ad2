/* cria plan --net NET --mesh AxB: the intra-operator pass alone on a named network. */
#include "server/commands/commands.h"

#include "base/clock.h"
#include "parallel/graph/graph_file.h"
#include "parallel/nets/network.h"
#include "parallel/plan/intra.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cria_status parse_mesh(const char *text, cria_mesh *mesh, cria_error *err) {
    long long size[CRIA_MESH_AXES] = {0, 0};
    const char *p = text;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        char *end;
        errno = 0;
        size[axis] = *p >= '0' && *p <= '9' ? strtoll(p, &end, 10) : 0;
        if (size[axis] < 1 || errno || *end != (axis == 0 ? 'x' : '\0'))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "--mesh %s: not AxB with two numbers of 1 or more, such as 1x4",
                             text);
        p = end + 1;
    }
    enum { MOST = 65536 };
    if (size[0] > MOST || size[1] > MOST / size[0])
        return cria_fail(err, CRIA_ERR_ARGUMENT, "--mesh %s: more than %d devices", text, MOST);
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) mesh->size[axis] = (int)size[axis];
    return CRIA_OK;
}

static cria_status parse_pair(const char *flag, const char *text, double out[CRIA_MESH_AXES], cria_error *err) {
    const char *p = text;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        char *end;
        out[axis] = strtod(p, &end);
        if (end == p || *end != (axis == 0 ? ',' : '\0'))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s %s: not two numbers, one per axis, such as 1,0.01", flag,
                             text);
        if (!(out[axis] >= 0 && out[axis] <= 1e15))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "--%s %s: must be 0 to 1e15", flag, text);
        p = end + 1;
    }
    return CRIA_OK;
}

/* Alpa's setting, unless more freedom is asked for. */
static void set_options(const cria_main_options *o, cria_mesh *mesh, cria_intra_options *out) {
    cria_intra_defaults(out);
    cria_intra_as_alpa(mesh, out);
    cria_strategy_options *s = &out->strategies;
    if (o->free_plan) s->forbid_all_to_all = false;
    if (o->free_plan || o->reduce_scatter) {
        s->reduce_scatter = true;
        s->follow = false;
    }
    s->force_batch_axis = (int)o->batch_axis;
    s->allow_replicated = o->allow_idle;
    s->forbid_all_gather = o->forbid_all_gather;
    s->forbid_all_to_all = s->forbid_all_to_all || o->forbid_all_to_all;
    s->prefer_reduce_scatter = o->reduce_scatter;
    s->data_parallel_only = o->data_parallel;
    out->memory_limit = o->memory_limit;
    out->seconds = o->solve_seconds;
}

typedef struct {
    const cria_graph *graph;
    int ops;
    const char *net;
    cria_mesh mesh;
    cria_intra_options options;
    cria_sharding *boundary; /* [tensors] */
    cria_intra_result result;
    double where_made; /* the objective if every sum is made where its parts are */
    uint64_t start;
    bool forbid_all_to_all; /* by the user */
} run;

/* Along an axis that must cut the batch, results stay cut. */
static void free_forced_axes(run *r) {
    const cria_strategy_options *s = &r->options.strategies;
    for (int t = 0; t < cria_graph_tensors(r->graph); t++)
        for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
            if (s->data_parallel_only || s->force_batch_axis == axis) r->boundary[t].dim[axis] = CRIA_ANY;
}

static cria_status solve(run *r, cria_error *err) {
    cria_strategy_options *s = &r->options.strategies;
    cria_status status = cria_intra_solve(r->graph, 0, r->ops, &r->mesh, &r->options, &r->result, err);
    /* Alpa has no all-to-alls on two axes, and operators that follow do so as values lie. Where the user's wishes leave
     * no plan like that, either is given up before the plan is. */
    if (status == CRIA_ERR_INFEASIBLE && s->forbid_all_to_all && !r->forbid_all_to_all) {
        s->forbid_all_to_all = false;
        status = cria_intra_solve(r->graph, 0, r->ops, &r->mesh, &r->options, &r->result, err);
    }
    if (status == CRIA_ERR_INFEASIBLE && s->follow) {
        s->follow = false;
        status = cria_intra_solve(r->graph, 0, r->ops, &r->mesh, &r->options, &r->result, err);
    }
    if (status != CRIA_OK) return status;
    cria_intra_options where = r->options;
    cria_intra_result made;
    where.strategies.sum_where_made = true;
    r->where_made = HUGE_VAL;
    if (cria_intra_solve(r->graph, 0, r->ops, &r->mesh, &where, &made, NULL) == CRIA_OK) r->where_made = made.objective;
    cria_intra_result_deinit(&made);
    return CRIA_OK;
}

static const char *const step_names[] = {[CRIA_RESHARD_SLICE] = "slice",
                                         [CRIA_RESHARD_ALL_GATHER] = "all-gather",
                                         [CRIA_RESHARD_ALL_TO_ALL] = "all-to-all",
                                         [CRIA_RESHARD_ALL_REDUCE] = "all-reduce",
                                         [CRIA_RESHARD_REDUCE_SCATTER] = "reduce-scatter"};

/* "batch@0 hidden1@1": which index each axis cuts. */
static void print_strategy(const run *r, const cria_op *op, const cria_strategy *strategy, cria_text *out) {
    cria_op_index index[CRIA_MAX_INDICES];
    cria_op_indices(r->graph, op, index);
    bool any = false;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) {
        int which = strategy->index[axis];
        if (r->mesh.size[axis] < 2) continue;
        const char *name = which >= 0              ? cria_dim_to_name(r->graph, index[which].dim.name)
                           : which == CRIA_PARTIAL ? "partial"
                                                   : "idle";
        cria_text_printf(out, "%s%s@%d", any ? " " : "", name, axis);
        any = true;
    }
    if (!any) cria_text_puts(out, "whole");
}

static const char *operand_name(const cria_intra_step *step, char text[16]) {
    if (step->operand == CRIA_INTRA_STATS_STEP) return "statistics";
    if (step->operand == CRIA_INTRA_OUTPUT_STEP) return "output";
    if (step->operand == CRIA_INTRA_RESULT_STEP) return "result";
    snprintf(text, 16, "input %d", step->operand);
    return text;
}

static void print_json_op(const run *r, int i, cria_text *out) {
    const cria_op *op = cria_graph_op(r->graph, i);
    const cria_tensor *output = cria_graph_tensor(r->graph, op->output);
    const cria_strategy *strategy = &r->result.strategy[i];
    cria_intra_step steps[CRIA_MAX_INTRA_STEPS];
    int count = cria_intra_steps(r->graph, i, r->ops, &r->mesh, &r->options, strategy, r->result.held, steps);
    char text[32];
    cria_text_puts(out, i ? ",\n {\"name\": " : "\n {\"name\": ");
    cria_text_json_string(out, output->name, strlen(output->name));
    cria_text_printf(out, ", \"kind\": \"%s\", \"strategy\": \"", cria_op_info_of(op->kind)->name);
    print_strategy(r, op, strategy, out);
    cria_text_puts(out, "\", \"inputs\": [");
    for (int k = 0, any = 0; k < CRIA_MAX_INPUTS; k++) {
        if (op->input[k] < 0) continue;
        const cria_tensor *input = cria_graph_tensor(r->graph, op->input[k]);
        cria_text_printf(out, "%s\"%s\"", any++ ? ", " : "", cria_sharding_print(input, strategy->input[k], text));
    }
    cria_text_printf(out, "], \"output\": \"%s\", \"collectives\": [",
                     cria_sharding_print(output, strategy->output, text));
    for (int s = 0; s < count; s++) {
        char operand[16];
        cria_text_printf(out, "%s{\"kind\": \"%s\", \"of\": \"%s\", \"axis\": %d, \"bytes\": ", s ? ", " : "",
                         step_names[steps[s].step.kind], operand_name(&steps[s], operand), steps[s].step.axis);
        cria_text_json_number(out, steps[s].step.bytes);
        cria_text_puts(out, ", \"cost\": ");
        cria_text_json_number(out, steps[s].cost);
        cria_text_puts(out, "}");
    }
    cria_text_puts(out, "]}");
}

static void put_number(cria_text *out, const char *key, double value) {
    cria_text_printf(out, "\"%s\": ", key);
    cria_text_json_number(out, value);
    cria_text_puts(out, ", ");
}

static void print_json(const run *r, cria_text *out) {
    cria_text_puts(out, "{\"net\": ");
    cria_text_json_string(out, r->net, strlen(r->net));
    cria_text_printf(out, ", \"mesh\": [%d, %d], ", r->mesh.size[0], r->mesh.size[1]);
    put_number(out, "objective", r->result.objective);
    put_number(out, "bound", r->result.bound);
    put_number(out, "seconds", cria_seconds_between(r->start, cria_clock_ns()));
    cria_text_printf(out, "\"optimal\": %s, ", r->result.optimal ? "true" : "false");
    put_number(out, "objective_sums_where_made", r->where_made);
    put_number(out, "collectives", r->result.collectives);
    put_number(out, "resharding", r->result.resharding);
    cria_text_printf(out, "\"peak_bytes\": %lld, \"operators\": [", (long long)r->result.peak_bytes);
    for (int i = 0; i < r->ops; i++) print_json_op(r, i, out);
    cria_text_puts(out, "]}\n");
}

static void print_table(const run *r, cria_text *out) {
    cria_text_printf(out, "%-36s %-16s %-28s %-10s %s\n", "operator", "kind", "strategy", "output", "communication");
    for (int i = 0; i < r->ops; i++) {
        const cria_op *op = cria_graph_op(r->graph, i);
        const cria_tensor *output = cria_graph_tensor(r->graph, op->output);
        cria_intra_step steps[CRIA_MAX_INTRA_STEPS];
        int count =
            cria_intra_steps(r->graph, i, r->ops, &r->mesh, &r->options, &r->result.strategy[i], r->result.held, steps);
        char text[32], operand[16];
        cria_text strategy;
        cria_text_init(&strategy);
        print_strategy(r, op, &r->result.strategy[i], &strategy);
        cria_text_printf(out, "%-36s %-16s %-28s %-10s", output->name, cria_op_info_of(op->kind)->name,
                         strategy.data ? strategy.data : "",
                         cria_sharding_print(output, r->result.strategy[i].output, text));
        for (int s = 0; s < count; s++)
            cria_text_printf(out, "%s %s %s@%d %.6g", s ? "," : "", operand_name(&steps[s], operand),
                             step_names[steps[s].step.kind], steps[s].step.axis, steps[s].cost);
        cria_text_puts(out, "\n");
        cria_text_deinit(&strategy);
    }
    cria_text_printf(out, "\n%s on %d x %d: objective %.12g, bound %.12g%s\n", r->net, r->mesh.size[0], r->mesh.size[1],
                     r->result.objective, r->result.bound, r->result.optimal ? " (optimal)" : "");
    if (r->where_made < HUGE_VAL && r->where_made > r->result.objective)
        cria_text_printf(out, "if every sum were made where its parts are, as Alpa does: %.12g\n", r->where_made);
    cria_text_printf(out, "collectives %.6g, resharding %.6g; at most %lld bytes per device; %.3f s\n",
                     r->result.collectives, r->result.resharding, (long long)r->result.peak_bytes,
                     cria_seconds_between(r->start, cria_clock_ns()));
}

cria_status cria_command_plan_net(const cria_command *command, cria_error *err) {
    const cria_main_options *options = command->options;
    run r = {.net = options->net, .start = cria_clock_ns(), .forbid_all_to_all = options->forbid_all_to_all};
    CRIA_TRY(parse_mesh(options->mesh, &r.mesh, err));
    CRIA_TRY(parse_pair("alpha", options->alpha, r.mesh.alpha, err));
    CRIA_TRY(parse_pair("beta", options->beta, r.mesh.beta, err));
    set_options(options, &r.mesh, &r.options);
    cria_graph *graph;
    CRIA_TRY(cria_network_create(options->net, &graph, err));
    r.graph = graph;
    r.ops = cria_graph_ops(graph);
    if (options->graph_out) {
        cria_status written = cria_graph_write_file(graph, options->graph_out, err);
        if (written != CRIA_OK) {
            cria_graph_destroy(graph);
            return written;
        }
    }
    r.boundary = malloc(((size_t)cria_graph_tensors(graph) + 1) * sizeof *r.boundary);
    cria_status status = r.boundary ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory to plan");
    if (status == CRIA_OK) cria_intra_whole_results(graph, &r.mesh, r.boundary);
    if (status == CRIA_OK) free_forced_axes(&r);
    r.options.boundary = r.boundary;
    if (status == CRIA_OK) status = solve(&r, err);
    if (status == CRIA_OK) {
        cria_text out;
        cria_text_init(&out);
        (options->json ? print_json : print_table)(&r, &out);
        if (out.failed)
            status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the result");
        else
            fputs(out.data, stdout);
        cria_text_deinit(&out);
    }
    cria_intra_result_deinit(&r.result);
    free(r.boundary);
    cria_graph_destroy(graph);
    return status;
}
