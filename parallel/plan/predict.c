/* Predictions of given plans: every stage priced as the inter-operator pass prices its layers, transfers between them.
 */
#include "parallel/plan/predict.h"

#include "parallel/plan/stages_layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const cria_predicted_plan *p;
    cria_element element;
    cria_layer_task task;
    int *last_use, *device, *type; /* [tensors], [ranks], [ranks] */
    double *share;
} predictor;

static cria_status open_predictor(predictor *q, const cria_predicted_plan *p, const cria_step_shape *step,
                                  cria_error *err) {
    int ranks = cria_plan_ranks(p->plan), tensors = cria_graph_tensors(p->graph);
    *q = (predictor){.p = p, .element = {p->rate, cria_rate_bytes(p->rate), 4, p->kv, p->rate_of}};
    q->last_use = malloc(((size_t)tensors + 1) * sizeof *q->last_use);
    q->device = malloc((size_t)ranks * sizeof *q->device);
    q->type = malloc((size_t)ranks * sizeof *q->type);
    q->share = malloc(2 * ((size_t)ranks + 1) * sizeof *q->share);
    if (!q->last_use || !q->device || !q->type || !q->share)
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory to predict a plan of %d ranks", ranks);
    for (int t = 0; t < tensors; t++) q->last_use[t] = -1;
    for (int i = 0; i < cria_graph_ops(p->graph); i++)
        for (int k = 0; k < CRIA_MAX_INPUTS; k++)
            if (cria_graph_op(p->graph, i)->input[k] >= 0) q->last_use[cria_graph_op(p->graph, i)->input[k]] = i;
    for (int r = 0; r < ranks; r++) {
        q->device[r] = p->device ? p->device[r] : r;
        if (q->device[r] < 0 || q->device[r] >= cria_cluster_devices(p->cluster))
            return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan has %d ranks, the cluster %d devices", ranks,
                             cria_cluster_devices(p->cluster));
        q->type[r] = cria_cluster_type_of(p->cluster, q->device[r]);
    }
    cria_step_shape phase = {step->tokens, step->rows, step->sequences, step->context};
    q->task = (cria_layer_task){.graph = p->graph,
                                .cluster = p->cluster,
                                .last_use = q->last_use,
                                .phase = {phase, phase},
                                .element = q->element};
    return CRIA_OK;
}

static void close_predictor(predictor *q) {
    free(q->last_use);
    free(q->device);
    free(q->type);
    free(q->share);
}

/* Bytes of values that are made before operator `op` and read from it on. */
static double crossing(const predictor *q, int op) {
    double bytes = 0;
    for (int i = 0; i < op; i++) {
        int output = cria_graph_op(q->p->graph, i)->output;
        if (q->last_use[output] < op) continue;
        const cria_tensor *tensor = cria_graph_tensor(q->p->graph, output);
        bool rows = tensor->dims > 0 && tensor->dim[0].name == CRIA_DIM_ROW;
        int64_t symbolic = rows ? q->task.phase[0].rows : q->task.phase[0].tokens;
        bytes += (double)cria_tensor_extent(tensor, 0) * (double)symbolic * q->element.activation;
    }
    return bytes;
}

static bool predict_stage(const predictor *q, int s, cria_stage_seconds *out, cria_layer_cost *cost) {
    const cria_plan *plan = q->p->plan;
    const cria_stage *stage = cria_plan_stage(plan, s);
    int count = stage->mesh.size[0] * stage->mesh.size[1];
    const int *device = q->device + stage->first_rank;
    cria_mesh mesh =
        cria_cost_mesh(q->p->cluster, device, stage->mesh.size[0], stage->mesh.size[1], q->p->rate, true, q->share);
    /* Cut as the plan says, whatever the devices' speeds would ask for. */
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++) mesh.share[axis] = stage->mesh.share[axis];
    if (!cria_layer_evaluate(&q->task, stage->first_op, stage->end_op, &mesh, q->type + stage->first_rank, 0,
                             cria_plan_strategy(plan, stage->first_op), cost))
        return false;
    const cria_seconds *seconds = &cost->phase[0];
    *out = (cria_stage_seconds){seconds->compute, seconds->collectives, seconds->resharding, 0};
    if (s > 0) {
        const cria_stage *before = cria_plan_stage(plan, s - 1);
        out->transfer = cria_cost_transfer(q->p->cluster, q->device + before->first_rank,
                                           before->mesh.size[0] * before->mesh.size[1], device, count,
                                           crossing(q, stage->first_op), count);
    }
    return true;
}

/* The batch goes from the first rank to all others; results come back from another host or stage. */
static double hand_out(const predictor *q) {
    int ranks = cria_plan_ranks(q->p->plan), first = cria_cluster_host_of(q->p->cluster, q->device[0]);
    double seconds = 0;
    for (int r = 1; r < ranks; r++) {
        int host = cria_cluster_host_of(q->p->cluster, q->device[r]);
        const cria_link *link =
            host == first ? &cria_cluster_host(q->p->cluster, host)->link : cria_cluster_network(q->p->cluster);
        seconds = fmax(seconds, link->latency);
    }
    return cria_plan_stages(q->p->plan) > 1 ? 2 * seconds : seconds;
}

static void add(cria_stage_seconds *sum, const cria_stage_seconds *s) {
    sum->compute += s->compute;
    sum->collectives += s->collectives;
    sum->resharding += s->resharding;
    sum->transfer += s->transfer;
}

static double total(const cria_stage_seconds *s) {
    return s->compute + s->collectives + s->resharding + s->transfer;
}

cria_status cria_predict_step(const cria_predicted_plan *p, const cria_step_shape *step, cria_prediction *out,
                              cria_error *err) {
    predictor q;
    *out = (cria_prediction){.stages = cria_plan_stages(p->plan)};
    out->stage = calloc((size_t)out->stages, sizeof *out->stage);
    cria_status status = open_predictor(&q, p, step, err);
    if (status == CRIA_OK && !out->stage) status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the prediction");
    for (int s = 0; s < out->stages && status == CRIA_OK; s++) {
        cria_layer_cost cost;
        if (!predict_stage(&q, s, &out->stage[s], &cost))
            status = cria_fail(err, CRIA_ERR_UNSUPPORTED, "stage %d of the plan cannot be priced", s);
        if (status != CRIA_OK) break;
        if (s == 0) out->stage[s].transfer += hand_out(&q);
        add(&out->sum, &out->stage[s]);
        out->seconds += total(&out->stage[s]);
        out->longest = fmax(out->longest, total(&out->stage[s]));
        out->weights = fmax(out->weights, cost.parameters * q.element.weight);
        out->activations = fmax(out->activations, cost.work);
        out->kv_token = fmax(out->kv_token, cost.kv);
    }
    close_predictor(&q);
    if (status != CRIA_OK) cria_prediction_deinit(out);
    return status;
}

cria_status cria_predict_operators(const cria_predicted_plan *p, const cria_step_shape *step,
                                   double seconds[CRIA_OP_COUNT], cria_error *err) {
    predictor q;
    cria_status status = open_predictor(&q, p, step, err);
    for (int k = 0; k < CRIA_OP_COUNT; k++) seconds[k] = 0;
    for (int i = 0; i < cria_graph_ops(p->graph) && status == CRIA_OK; i++) {
        const cria_op *op = cria_graph_op(p->graph, i);
        const cria_stage *stage = cria_plan_stage(p->plan, cria_plan_stage_of_op(p->plan, i));
        seconds[op->kind] += cria_cost_operator(p->cluster, q.type + stage->first_rank, p->graph, op, &stage->mesh,
                                                &q.task.phase[0], &q.element, cria_plan_strategy(p->plan, i));
    }
    close_predictor(&q);
    return status;
}

void cria_prediction_deinit(cria_prediction *prediction) {
    free(prediction->stage);
    *prediction = (cria_prediction){0};
}

/* Seconds until a prompt's first token, in chunks. */
static cria_status predict_prompt(const cria_predicted_plan *p, int64_t prompt, int64_t budget, double *seconds,
                                  cria_error *err) {
    *seconds = 0;
    for (int64_t at = 0; at < prompt; at += budget) {
        int64_t count = prompt - at < budget ? prompt - at : budget;
        cria_step_shape step = {count, at + count == prompt, 1, (double)at + (double)count / 2};
        cria_prediction chunk;
        CRIA_TRY(cria_predict_step(p, &step, &chunk, err));
        *seconds += chunk.seconds;
        cria_prediction_deinit(&chunk);
    }
    return CRIA_OK;
}

cria_status cria_predict_notes(const cria_predicted_plan *p, int64_t batch, int64_t prompt, int64_t context,
                               int64_t budget, cria_plan_notes *out, cria_error *err) {
    int ranks = cria_plan_ranks(p->plan), stages = cria_plan_stages(p->plan);
    cria_prediction step;
    cria_step_shape shape = {batch, batch, batch, (double)context};
    CRIA_TRY(cria_plan_notes_init(out, ranks, stages, err));
    cria_status status = predict_prompt(p, prompt, budget, &out->first_token, err);
    if (status == CRIA_OK) status = cria_predict_step(p, &shape, &step, err);
    if (status != CRIA_OK) {
        cria_plan_notes_deinit(out);
        return status;
    }
    snprintf(out->cluster, sizeof out->cluster, "%s", cria_cluster_name(p->cluster));
    out->objective = CRIA_OBJECTIVE_LATENCY;
    out->schedule = CRIA_SCHEDULE_INFERENCE;
    out->micro_batches = 1;
    out->replicas = 1;
    out->tokens = batch;
    out->step_seconds = step.seconds;
    out->tokens_per_second = (double)batch / step.seconds;
    out->latency = out->first_token + step.seconds * (double)(context > prompt ? context - prompt : 0);
    for (int r = 0; r < ranks; r++) out->device[r] = p->device ? p->device[r] : r;
    for (int s = 0; s < stages; s++) {
        const cria_stage_seconds *from = &step.stage[s];
        cria_plan_stage_notes *n = &out->stage[s];
        n->compute = from->compute;
        n->collectives = from->collectives;
        n->resharding = from->resharding;
        n->transfer = from->transfer;
        n->bubble = step.seconds - total(from);
        n->weights = (int64_t)step.weights;
        n->activations = (int64_t)step.activations;
        n->kv = (int64_t)(step.kv_token * (double)(batch * context));
        n->memory = n->weights + n->activations + n->kv;
    }
    cria_prediction_deinit(&step);
    return CRIA_OK;
}
