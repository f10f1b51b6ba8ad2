/* The inter-operator pass: tries numbers of micro-batches and replicas, searches each, compares with plans made by
 * hand, and turns the best into a plan with notes. */
#include "parallel/plan/stages.h"

#include "base/clock.h"
#include "parallel/plan/stages_build.h"
#include "parallel/plan/stages_choose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cria_stages_defaults(cria_stages_options *options) {
    *options = (cria_stages_options){.element = {CRIA_RATE_F16, 2, 4, 2, NULL},
                                     .prompt_tokens = 512,
                                     .new_tokens = 128,
                                     .batch = 1,
                                     .global_batch = 1024,
                                     .sequence = 1024,
                                     .optimizer_state = 8,
                                     .search = true};
}

double cria_stages_optimizer_bytes(const cria_stages_options *options) {
    return options->optimizer_state + (options->element.weight < 4 ? 4 : 0);
}

/* Slack of the dynamic program where clusters are large: plans this close are not told apart. */
static double slack_of(int devices) {
    return devices > 256 ? 0.02 : devices > 16 ? 0.005 : 0;
}

cria_status cria_setting_open(const cria_graph *graph, const cria_lineup *lineup, const cria_stages_options *options,
                              int64_t micro_batch, int micro_batches, int replicas, int most_layers, cria_setting *out,
                              cria_error *err) {
    bool train = options->objective == CRIA_OBJECTIVE_TRAIN;
    *out = (cria_setting){.build = {.lineup = lineup, .slack = slack_of(lineup->devices)}};
    if (train && options->graph_of) {
        graph = options->graph_of(options->context, micro_batch, err);
        if (!graph) return err ? err->status : CRIA_ERR_MEMORY;
    }
    cria_book_task task = {.graph = graph,
                           .cluster = lineup->cluster,
                           .train = train,
                           .element = options->element,
                           .sequences = micro_batch,
                           .most_layers = most_layers,
                           .search = options->search};
    cria_objective_repeat(options, task.repeat);
    if (train) {
        int64_t tokens = micro_batch * options->sequence;
        task.phase[0] = task.phase[1] = (cria_step_shape){tokens, tokens, micro_batch, (double)options->sequence};
        task.optimizer = cria_stages_optimizer_bytes(options);
    } else {
        /* A prompt's token sees half of the prompt on average. */
        double prompt = options->prompt_context, next = options->new_context;
        if (prompt <= 0) prompt = (double)options->prompt_tokens / 2;
        if (next <= 0) next = (double)options->prompt_tokens + (double)options->new_tokens / 2;
        task.phase[0] = (cria_step_shape){micro_batch * options->prompt_tokens, micro_batch, micro_batch, prompt};
        task.phase[1] = (cria_step_shape){micro_batch, micro_batch, micro_batch, next};
    }
    CRIA_TRY(cria_stage_book_create(&task, &out->build.book, err));
    out->graph = graph;
    out->build.task = (cria_price_task){.options = options,
                                        .cluster = lineup->cluster,
                                        .micro_batch = micro_batch,
                                        .micro_batches = micro_batches,
                                        .replicas = replicas,
                                        .batch = (double)micro_batch * micro_batches,
                                        .force_recompute = -1,
                                        .schedule = !train              ? CRIA_SCHEDULE_INFERENCE
                                                    : options->schedule ? options->schedule
                                                                        : CRIA_SCHEDULE_1F1B};
    return CRIA_OK;
}

void cria_setting_close(cria_setting *setting) {
    cria_stage_book_destroy(setting->build.book);
    *setting = (cria_setting){0};
}

/* All devices in the order of the file. */
static cria_status make_lineup(const cria_cluster *cluster, bool in_order, cria_lineup *out, cria_error *err) {
    *out = (cria_lineup){.cluster = cluster, .devices = cria_cluster_devices(cluster)};
    out->device = malloc((size_t)out->devices * sizeof *out->device);
    if (!out->device) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d devices", out->devices);
    for (int d = 0; d < out->devices; d++) out->device[d] = d;
    /* Hosts that are alike may change places; ranks may not. */
    out->uniform = cria_cluster_alike(cluster, &out->per_host);
    out->alike = out->uniform && !in_order;
    return CRIA_OK;
}

static cria_status check(const cria_graph *graph, const cria_stages_options *o, cria_error *err) {
    if (cria_graph_ops(graph) < 1) return cria_fail(err, CRIA_ERR_ARGUMENT, "the graph has no operators");
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"prompt tokens", o->prompt_tokens},
                   {"new tokens", o->new_tokens},
                   {"batch", o->batch},
                   {"global batch", o->global_batch},
                   {"sequence", o->sequence}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value < 1 || numbers[i].value > (int64_t)1 << 30)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "%s must be 1 to 2^30, but are %lld", numbers[i].name,
                             (long long)numbers[i].value);
    return CRIA_OK;
}

/* The plan and its notes from the best candidate. */
static cria_status build_plan(cria_setting *setting, cria_candidate *candidate, cria_stages_result *out,
                              cria_error *err) {
    cria_stage_book *book = setting->build.book;
    const cria_graph *graph = setting->graph;
    cria_stage *stage = calloc((size_t)candidate->stages, sizeof *stage);
    cria_strategy *strategy = calloc((size_t)cria_graph_ops(graph), sizeof *strategy);
    double *share = calloc(2 * (size_t)candidate->devices + 2 * (size_t)candidate->stages, sizeof *share), *at = share;
    cria_status status =
        stage && strategy && share ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    for (int s = 0, rank = 0; status == CRIA_OK && s < candidate->stages; s++) {
        const cria_candidate_stage *from = &candidate->stage[s];
        const int *device = candidate->device + from->first_device;
        int mesh = cria_stage_book_mesh(book, device, from->devices);
        int way = cria_stage_book_way(book, mesh, &from->way);
        stage[s].first_op = cria_stage_book_layer(book, from->first)->first_op;
        stage[s].end_op = cria_stage_book_layer(book, from->end - 1)->end_op;
        stage[s].first_rank = rank;
        stage[s].mesh = cria_stage_book_mesh_of(book, device, &from->way, at);
        at += from->way.size[0] + from->way.size[1];
        rank += from->devices;
        for (int l = from->first; l < from->end; l++)
            if (!cria_stage_book_strategies(book, l, mesh, way, strategy + cria_stage_book_layer(book, l)->first_op))
                status = cria_fail(err, CRIA_ERR_INTERNAL, "layer %d of stage %d has no strategies", l, s);
    }
    if (status == CRIA_OK) status = cria_plan_create(graph, stage, candidate->stages, strategy, &out->plan, err);
    free(stage);
    free(strategy);
    free(share);
    return status;
}

static cria_status write_result(cria_setting *setting, cria_candidate *candidate, const cria_plan_summary *summary,
                                cria_stages_result *out, cria_error *err) {
    const cria_stages_options *o = setting->build.task.options;
    CRIA_TRY(cria_plan_notes_init(&out->notes, candidate->devices, candidate->stages, err));
    CRIA_TRY(build_plan(setting, candidate, out, err));
    out->graph = setting->graph;
    out->chosen = *summary;
    snprintf(out->chosen.name, sizeof out->chosen.name, "chosen");
    cria_plan_notes *n = &out->notes;
    cria_plan_summary again = {0};
    cria_candidate_price(setting->build.book, &setting->build.task, candidate, &again, n);
    snprintf(n->cluster, sizeof n->cluster, "%s", cria_cluster_name(setting->build.task.cluster));
    n->objective = o->objective;
    n->schedule = setting->build.task.schedule;
    n->micro_batches = summary->micro_batches;
    n->replicas = summary->replicas;
    n->tokens = o->objective == CRIA_OBJECTIVE_TRAIN ? summary->micro_batch * o->sequence : summary->micro_batch;
    n->tokens_per_second = summary->tokens_per_second;
    n->first_token = summary->first_token;
    n->latency = summary->latency;
    for (int r = 0; r < candidate->devices; r++) n->device[r] = candidate->device[r];
    for (int r = 0; o->objective != CRIA_OBJECTIVE_TRAIN && r < candidate->devices; r++)
        n->bytes[r] = cria_plan_collective_bytes(out->plan, out->graph, r, n->tokens, summary->micro_batch,
                                                 o->element.activation);
    out->layers = cria_stage_book_layers(setting->build.book);
    out->layer_end = calloc((size_t)out->layers, sizeof *out->layer_end);
    for (int l = 0; out->layer_end && l < out->layers; l++)
        out->layer_end[l] = cria_stage_book_layer(setting->build.book, l)->end_op;
    return out->layer_end ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
}

cria_status cria_stages_plan(const cria_graph *graph, const cria_cluster *cluster, const cria_stages_options *options,
                             cria_stages_result *out, cria_error *err) {
    *out = (cria_stages_result){0};
    CRIA_TRY(check(graph, options, err));
    uint64_t start = cria_clock_ns();
    cria_lineup lineup;
    CRIA_TRY(make_lineup(cluster, options->in_order, &lineup, err));
    cria_plan_choice choice = {.graph = graph, .lineup = &lineup, .options = options};
    cria_status status = cria_plan_choose(&choice, err);
    if (status == CRIA_OK)
        status = write_result(&choice.best.setting, &choice.best.candidate, &choice.best.summary, out, err);
    if (status == CRIA_OK) {
        out->other = choice.other;
        out->others = choice.others;
        choice.other = NULL;
        cria_plan_choice_explain(&choice, out->other, out->others, out->why, sizeof out->why);
    }
    cria_plan_choice_deinit(&choice);
    free(lineup.device);
    out->seconds = cria_seconds_between(start, cria_clock_ns());
    if (status != CRIA_OK) cria_stages_result_deinit(out);
    return status;
}

void cria_stages_result_deinit(cria_stages_result *result) {
    cria_plan_destroy(result->plan);
    cria_plan_notes_deinit(&result->notes);
    free(result->other);
    free(result->layer_end);
    *result = (cria_stages_result){0};
}

cria_status cria_stages_by_hand(const cria_graph *graph, const cria_cluster *cluster,
                                const cria_stages_options *options, const cria_hand_stage *stages, int count,
                                unsigned flags, cria_plan_summary *out, cria_error *err) {
    *out = (cria_plan_summary){.name = "by hand"};
    CRIA_TRY(check(graph, options, err));
    if (options->objective != CRIA_OBJECTIVE_TRAIN || options->micro_batch < 1 ||
        options->global_batch % options->micro_batch != 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "a plan by hand is for training, with a micro-batch that divides the "
                         "global batch");
    cria_lineup lineup;
    CRIA_TRY(make_lineup(cluster, options->in_order, &lineup, err));
    cria_stages_options plain = *options;
    plain.search = false;
    cria_setting setting;
    cria_candidate candidate = {0};
    cria_status status =
        cria_setting_open(graph, &lineup, &plain, options->micro_batch,
                          (int)(options->global_batch / options->micro_batch), 1, 1 << 20, &setting, err);
    if (status == CRIA_OK) {
        setting.build.task.force_recompute = flags & CRIA_HAND_RECOMPUTE ? 1 : -1;
        setting.build.task.plain = flags & CRIA_HAND_PLAIN;
        if (cria_build_by_hand(&setting.build, stages, count, &candidate, out->why, sizeof out->why))
            cria_candidate_price(setting.build.book, &setting.build.task, &candidate, out, NULL);
        cria_candidate_deinit(&candidate);
        cria_setting_close(&setting);
    }
    free(lineup.device);
    return status;
}
