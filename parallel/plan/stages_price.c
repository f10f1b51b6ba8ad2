/* Prices of candidates: sums over layers, modes, memory, the schedule's time, and notes of where it goes. */
#include "parallel/plan/stages_price.h"

#include "parallel/plan/stages_search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Cheapest in time first; the first that fits into memory is taken among those of equal time. */
const cria_stage_mode cria_stage_modes[CRIA_MODES] = {{0, false}, {1, false}, {0, true},
                                                      {1, true},  {3, false}, {3, true}};

bool cria_range_add(cria_stage_book *book, cria_range_sums *s, int layer, int mesh, int way) {
    const cria_layer_cost *c = cria_stage_book_cost(book, layer, mesh, way);
    if (!c) return false;
    bool last = cria_stage_book_layer(book, layer)->last;
    for (int p = 0; p < CRIA_PHASES; p++) {
        s->phase[p].compute += c->phase[p].compute;
        s->phase[p].collectives += c->phase[p].collectives;
        s->phase[p].resharding += c->phase[p].resharding;
        s->sent[p] += c->sent[p];
    }
    if (!last) s->redo_sent += c->sent[0];
    s->sync_sent += c->sync_sent;
    s->gather_sent += c->gather_sent;
    s->scatter_sent += c->scatter_sent;
    if (!last) s->redo += c->phase[0].compute + c->phase[0].collectives + c->phase[0].resharding;
    s->sync += c->sync;
    s->update += c->update;
    s->gather += c->gather;
    s->scatter += c->scatter;
    s->parameters += c->parameters;
    s->cut_parameters += c->cut_parameters;
    s->most_parameters = fmax(s->most_parameters, c->parameters + c->shared[CRIA_SHARED_TABLE]);
    for (int k = 0; k < CRIA_SHARED; k++) {
        if (c->shared[k] <= s->shared[k]) continue;
        double new = (c->shared[k] - s->shared[k]) / c->shared[k];
        s->parameters += new * c->shared[k];
        s->cut_parameters += new * c->cut_shared[k];
        s->shared[k] = c->shared[k];
    }
    s->work = fmax(s->work, c->work);
    s->kv += c->kv;
    s->saved += c->saved;
    s->kept += last ? c->saved : c->input;
    if (!last) s->most_saved = fmax(s->most_saved, c->saved);
    return true;
}

static double sum_of(const cria_seconds *s) {
    return s->compute + s->collectives + s->resharding;
}

void cria_objective_repeat(const cria_stages_options *o, double repeat[CRIA_PHASES]) {
    double tokens = o->new_tokens > 0 ? (double)o->new_tokens : 1;
    repeat[0] = o->objective == CRIA_OBJECTIVE_THROUGHPUT ? 1 / tokens : 1;
    repeat[1] = o->objective == CRIA_OBJECTIVE_THROUGHPUT ? 1 : o->objective == CRIA_OBJECTIVE_TRAIN ? 1 : tokens - 1;
}

double cria_in_flight(const cria_price_task *task, int after) {
    return task->schedule == CRIA_SCHEDULE_GPIPE ? task->micro_batches : fmin(after + 1, task->micro_batches);
}

bool cria_mode_allowed(const cria_price_task *task, const cria_stage_mode *mode) {
    if (task->options->objective != CRIA_OBJECTIVE_TRAIN) return mode->zero == 0 && !mode->recompute;
    if (task->plain && mode->zero) return false;
    return task->force_recompute < 0 || mode->recompute == (task->force_recompute > 0);
}

double cria_range_seconds(const cria_price_task *task, const cria_range_sums *s, const cria_stage_mode *mode,
                          double *once) {
    double repeat[CRIA_PHASES], seconds = 0;
    cria_objective_repeat(task->options, repeat);
    for (int p = 0; p < CRIA_PHASES; p++) seconds += repeat[p] * sum_of(&s->phase[p]);
    *once = 0;
    if (task->options->objective != CRIA_OBJECTIVE_TRAIN) return seconds;
    if (mode->recompute) seconds += s->redo;
    if (mode->zero == 3) seconds += s->gather + s->scatter;
    *once = (mode->zero == 3 ? 0 : s->sync) +
            s->update * (mode->zero && s->parameters > 0 ? s->cut_parameters / s->parameters : 1);
    return seconds;
}

/* Of all requests at their end. */
static double kv_bytes(const cria_price_task *task, const cria_range_sums *s) {
    const cria_stages_options *o = task->options;
    if (o->objective == CRIA_OBJECTIVE_TRAIN) return 0;
    return s->kv * task->batch * (double)(o->prompt_tokens + o->new_tokens);
}

bool cria_kv_allowed(const cria_price_task *task, const cria_range_sums *s) {
    return task->options->kv_budget <= 0 || kv_bytes(task, s) <= task->options->kv_budget;
}

double cria_range_memory(const cria_price_task *task, const cria_range_sums *s, const cria_stage_mode *mode,
                         double in_flight, cria_plan_stage_notes *notes) {
    const cria_stages_options *o = task->options;
    double weight = o->element.weight, weights = s->parameters * weight, optimizer = 0, activations = s->work, kv = 0;
    if (o->objective == CRIA_OBJECTIVE_TRAIN) {
        /* Gradients are as wide as weights. */
        double state = cria_stages_optimizer_bytes(o);
        double held = mode->zero == 3 ? s->cut_parameters : s->parameters;
        weights = 2 * held * weight + (mode->zero == 3 ? s->most_parameters * weight : 0);
        optimizer = (mode->zero ? s->cut_parameters : s->parameters) * state;
        activations += in_flight * (mode->recompute ? s->kept : s->saved) + (mode->recompute ? s->most_saved : 0);
    } else {
        kv = kv_bytes(task, s);
    }
    if (notes) {
        notes->weights = (int64_t)weights;
        notes->optimizer = (int64_t)optimizer;
        notes->activations = (int64_t)activations;
        notes->kv = (int64_t)kv;
        notes->memory = notes->weights + notes->optimizer + notes->activations + notes->kv;
    }
    return weights + optimizer + activations + kv;
}

bool cria_candidate_init(cria_candidate *c, int stages, int devices) {
    *c = (cria_candidate){.stages = stages, .devices = devices};
    c->stage = calloc((size_t)stages + 1, sizeof *c->stage);
    c->device = calloc((size_t)devices + 1, sizeof *c->device);
    if (c->stage && c->device) return true;
    cria_candidate_deinit(c);
    return false;
}

void cria_candidate_deinit(cria_candidate *c) {
    free(c->stage);
    free(c->device);
    *c = (cria_candidate){0};
}

bool cria_candidate_copy(const cria_candidate *from, cria_candidate *to) {
    if (!cria_candidate_init(to, from->stages, from->devices)) return false;
    memcpy(to->stage, from->stage, (size_t)from->stages * sizeof *to->stage);
    memcpy(to->device, from->device, (size_t)from->devices * sizeof *to->device);
    return true;
}

/* What one stage costs while its candidate is priced. */
typedef struct {
    cria_range_sums sums;
    double seconds, once, transfer; /* of one micro-batch; of a step; of one micro-batch, in `seconds` too */
    double memory, limit;
} stage_price;

/* The fastest mode that fits with so many micro-batches in flight. False: none fits; the least memory is in p. */
static bool choose_mode(const cria_price_task *task, cria_candidate_stage *stage, double in_flight, stage_price *p) {
    double best = HUGE_VAL, least = HUGE_VAL;
    for (int m = 0; m < CRIA_MODES; m++) {
        const cria_stage_mode *mode = &cria_stage_modes[m];
        if (!cria_mode_allowed(task, mode)) continue;
        double once, seconds = cria_range_seconds(task, &p->sums, mode, &once);
        double memory = cria_range_memory(task, &p->sums, mode, in_flight, NULL);
        least = fmin(least, memory);
        double total = seconds + once / task->micro_batches;
        if (memory > p->limit || total >= best * (1 - 1e-12)) continue;
        best = total;
        stage->mode = *mode;
        p->seconds = seconds;
        p->once = once;
        p->memory = memory;
    }
    if (best == HUGE_VAL) p->memory = least;
    return best < HUGE_VAL;
}

static double transfer_of(cria_stage_book *book, const cria_price_task *task, const cria_candidate *c, int s) {
    if (s == 0) return 0;
    const cria_candidate_stage *from = &c->stage[s - 1], *to = &c->stage[s];
    const cria_stage_layer *layer = cria_stage_book_layer(book, to->first);
    int copies = 1;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (to->way.use[axis] != CRIA_AXIS_BATCH) copies *= to->way.size[axis];
    double repeat[CRIA_PHASES];
    cria_objective_repeat(task->options, repeat);
    const int *a = c->device + from->first_device, *b = c->device + to->first_device;
    return repeat[0] * cria_cost_transfer(task->cluster, a, from->devices, b, to->devices, layer->inbound, copies) +
           repeat[1] * cria_cost_transfer(task->cluster, a, from->devices, b, to->devices, layer->inbound_next, copies);
}

static bool price_stage(cria_stage_book *book, const cria_price_task *task, cria_candidate *c, int s, stage_price *p,
                        cria_plan_summary *out) {
    cria_candidate_stage *stage = &c->stage[s];
    *p = (stage_price){0};
    int mesh = cria_stage_book_mesh(book, c->device + stage->first_device, stage->devices);
    int way = mesh < 0 ? -1 : cria_stage_book_way(book, mesh, &stage->way);
    if (way < 0) {
        snprintf(out->why, sizeof out->why, "%d sequences cannot be cut over %d devices", (int)task->micro_batch,
                 stage->way.size[0]);
        return false;
    }
    for (int l = stage->first; l < stage->end; l++)
        if (!cria_range_add(book, &p->sums, l, mesh, way)) {
            snprintf(out->why, sizeof out->why, "stage %d: layer %d cannot be cut over %d x %d devices", s, l,
                     stage->way.size[0], stage->way.size[1]);
            return false;
        }
    p->limit = cria_stage_book_kind(book, mesh)->memory;
    double in_flight = cria_in_flight(task, c->stages - 1 - s);
    double kv = kv_bytes(task, &p->sums), worst = out->excess;
    if (!cria_kv_allowed(task, &p->sums)) {
        out->excess = fmax(worst, kv / task->options->kv_budget);
        if (out->excess == worst) return false;
        snprintf(out->why, sizeof out->why,
                 "stage %d needs %.3g GB of KV cache on each device, but %.3g GB are allowed", s, kv / 1e9,
                 task->options->kv_budget / 1e9);
        return false;
    }
    if (!choose_mode(task, stage, in_flight, p)) {
        out->excess = fmax(worst, p->memory / p->limit);
        if (out->excess == worst) return false;
        snprintf(out->why, sizeof out->why, "stage %d needs %.3g GB of each device's %.3g GB", s, p->memory / 1e9,
                 p->limit / 1e9);
        return false;
    }
    p->transfer = transfer_of(book, task, c, s);
    p->seconds += p->transfer;
    return true;
}

/* Training: bytes that a device of a stage sends in one update, as cria_range_seconds counts their seconds; between
 * stages, every value and gradient once. */
static double update_bytes(cria_stage_book *book, const cria_price_task *task, const cria_candidate *c, int s,
                           const cria_range_sums *sums) {
    const cria_stage_mode *mode = &c->stage[s].mode;
    double each = sums->sent[0] + sums->sent[1] + (mode->recompute ? sums->redo_sent : 0), stages = 0;
    if (mode->zero == 3) each += sums->gather_sent + sums->scatter_sent;
    if (s > 0) stages += cria_stage_book_layer(book, c->stage[s].first)->inbound;
    if (s + 1 < c->stages) stages += cria_stage_book_layer(book, c->stage[s].end)->inbound;
    return task->micro_batches * (each + stages / c->stage[s].devices) + (mode->zero == 3 ? 0 : sums->sync_sent);
}

static void write_notes(cria_stage_book *book, const cria_price_task *task, const cria_candidate *c,
                        const stage_price *price, double step, cria_plan_notes *notes) {
    double repeat[CRIA_PHASES], count = task->micro_batches;
    cria_objective_repeat(task->options, repeat);
    bool train = task->options->objective == CRIA_OBJECTIVE_TRAIN;
    for (int s = 0; s < c->stages; s++) {
        const stage_price *p = &price[s];
        const cria_stage_mode *mode = &c->stage[s].mode;
        cria_plan_stage_notes *n = &notes->stage[s];
        *n = (cria_plan_stage_notes){.recompute = mode->recompute, .zero = mode->zero};
        for (int phase = 0; phase < CRIA_PHASES; phase++) {
            /* Recomputing layers run forward twice. */
            double again =
                train && phase == 0 && mode->recompute ? p->sums.redo / fmax(sum_of(&p->sums.phase[0]), 1e-300) : 0;
            n->compute += count * repeat[phase] * (1 + again) * p->sums.phase[phase].compute;
            n->collectives += count * repeat[phase] * (1 + again) * p->sums.phase[phase].collectives;
            n->resharding += count * repeat[phase] * (1 + again) * p->sums.phase[phase].resharding;
        }
        if (mode->zero == 3) n->collectives += count * (p->sums.gather + p->sums.scatter);
        n->transfer = count * p->transfer;
        n->update = p->once;
        for (int i = 0; train && notes->bytes && i < c->stage[s].devices; i++)
            notes->bytes[c->stage[s].first_device + i] = llround(update_bytes(book, task, c, s, &p->sums));
        n->bubble = step - count * p->seconds - p->once;
        if (n->bubble < 1e-9 * step) n->bubble = 0; /* rounding */
        double in_flight = cria_in_flight(task, c->stages - 1 - s);
        cria_range_memory(task, &p->sums, mode, in_flight, n);
        n->memory_limit = (int64_t)p->limit;
        double room = p->limit - (double)(n->memory - n->kv);
        if (task->options->kv_budget > 0) room = fmin(room, task->options->kv_budget);
        if (!train && p->sums.kv > 0) n->kv_blocks = (int64_t)(room / (p->sums.kv * (double)notes->block_tokens));
        n->kv_blocks = n->kv_blocks < 0 ? 0 : n->kv_blocks;
    }
}

/* Time of the whole from its stages. */
static double finish(cria_stage_book *book, const cria_price_task *task, const cria_candidate *c,
                     const stage_price *price, cria_plan_summary *out) {
    const cria_stages_options *o = task->options;
    double sum = 0, longest = 0, once = 0, first = 0;
    for (int s = 0; s < c->stages; s++) {
        sum += price[s].seconds;
        longest = fmax(longest, price[s].seconds);
        once = fmax(once, price[s].once);
        first += sum_of(&price[s].sums.phase[0]);
    }
    double count = task->micro_batches, step;
    out->longest = longest;
    if (o->objective == CRIA_OBJECTIVE_TRAIN) {
        step = cria_search_finish(CRIA_GOAL_PIPELINE, count, sum, longest) + once;
        out->seconds = step;
        out->tokens_per_second = (double)(o->global_batch * o->sequence) / step;
        double flops = 0;
        const cria_layer_task *t = cria_stage_book_task(book);
        for (int l = 0; l < cria_stage_book_layers(book); l++) {
            const cria_stage_layer *layer = cria_stage_book_layer(book, l);
            for (int i = layer->first_op; i < layer->end_op; i++) {
                const cria_op *op = cria_graph_op(t->graph, i);
                if (!cria_op_multiplies(t->graph, op)) continue;
                flops +=
                    (layer->edge ? 3 : 4) * cria_op_flops(t->graph, op, cria_phase_symbolic(t->graph, op, &t->phase[0]),
                                                          (int64_t)t->phase[0].context);
            }
        }
        out->flops = flops * count / step / c->devices;
        return step;
    }
    double cycle = cria_search_finish(CRIA_GOAL_CYCLE, count, sum, longest);
    if (o->objective == CRIA_OBJECTIVE_LATENCY) {
        step = out->seconds = out->latency = sum;
        out->first_token = first;
        out->tokens_per_second = task->batch * (double)o->new_tokens / sum * task->replicas;
    } else {
        step = cycle;
        out->first_token = first;
        out->latency = cycle * (double)o->new_tokens;
        out->tokens_per_second = task->batch / cycle * task->replicas;
        out->seconds = (double)o->batch / out->tokens_per_second;
    }
    return step;
}

void cria_candidate_price(cria_stage_book *book, const cria_price_task *task, cria_candidate *c, cria_plan_summary *out,
                          cria_plan_notes *notes) {
    out->feasible = false;
    out->why[0] = '\0';
    out->seconds = out->longest = HUGE_VAL;
    out->stages = c->stages;
    out->devices = c->devices;
    out->replicas = task->replicas;
    out->micro_batches = task->micro_batches;
    out->micro_batch = task->micro_batch;
    stage_price *price = malloc((size_t)c->stages * sizeof *price);
    if (!price) {
        snprintf(out->why, sizeof out->why, "no memory to price it");
        return;
    }
    out->feasible = true;
    out->excess = 0;
    for (int s = 0; s < c->stages; s++) {
        out->feasible = price_stage(book, task, c, s, &price[s], out) && out->feasible;
        if (!out->feasible && out->excess == 0) break;
    }
    if (out->feasible) {
        double step = finish(book, task, c, price, out);
        if (notes) {
            write_notes(book, task, c, price, step, notes);
            notes->step_seconds = step;
        }
    }
    free(price);
}
