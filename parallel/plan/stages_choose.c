/* Which setting and candidate is best: the dynamic program and the plans made by hand under one price. */
#include "parallel/plan/stages_choose.h"

#include "parallel/plan/stages_search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 10, MOST_SETTINGS = 64, MOST_HAND_STAGES = 1024, MOST_ORDERS = 24, MOST_RUNS = 4 };

static int layers_for(int devices) {
    return devices > 256 ? 34 : devices > 64 ? 52 : 66;
}

/* The place of a kind of plan in the list of others; a better one takes its place. */
static void remember(cria_plan_choice *c, const cria_plan_summary *summary) {
    int i = 0;
    while (i < c->others && strcmp(c->other[i].name, summary->name) != 0) i++;
    if (i == KINDS) return;
    bool better = i == c->others || summary->seconds < c->other[i].seconds ||
                  (!c->other[i].feasible && !summary->feasible && !c->other[i].why[0]);
    if (better) c->other[i] = *summary;
    if (i == c->others) c->others++;
}

/* What the options rule out is listed, but not taken. */
static void keep_to_options(const cria_plan_choice *c, const cria_candidate *candidate, cria_plan_summary *summary) {
    const cria_stages_options *o = c->options;
    bool sizes = true;
    for (int s = 0; s < candidate->stages; s++)
        sizes = sizes && (!o->per_stage || candidate->stage[s].devices == o->per_stage);
    /* Copies follow each other in order: they have no room for devices that are left over. */
    bool all = o->all_devices || (o->in_order && summary->replicas > 1);
    bool used = candidate->devices * summary->replicas == c->lineup->devices;
    const char *why = o->stages && candidate->stages != o->stages ? "another number of stages was asked for"
                      : !sizes                                    ? "stages of another size were asked for"
                      : all && !used                              ? "all devices are to be used"
                                                                  : NULL;
    if (!why) return;
    summary->feasible = false;
    summary->ruled_out = true;
    summary->seconds = HUGE_VAL;
    snprintf(summary->why, sizeof summary->why, "%s", why);
}

/* In less time; or in the same, with less to do for the slowest stage, so that more requests a second get through. */
static bool is_better(const cria_plan_summary *a, const cria_plan_summary *b) {
    if (a->seconds < b->seconds * (1 - CRIA_SAME_SECONDS)) return true;
    return a->seconds <= b->seconds * (1 + CRIA_SAME_SECONDS) && a->longest < b->longest * (1 - CRIA_SAME_SECONDS);
}

/* Of what cannot be, what lacks least memory. */
static void keep_nearest(cria_plan_choice *c, const cria_plan_summary *summary) {
    if (summary->feasible) return;
    bool nearer = summary->excess > 0 && (c->excess == 0 || summary->excess < c->excess);
    if (!nearer && (c->nearest[0] || summary->excess > 0)) return;
    snprintf(c->nearest, sizeof c->nearest, "%s", summary->why);
    c->excess = summary->excess;
}

/* Prices a candidate, keeps it if it is the best. Takes the candidate. The setting is moved into the choice with it, so
 * that it must be opened again by the caller who wants to go on: *setting is empty then. */
static bool offer(cria_plan_choice *c, cria_setting *setting, cria_candidate *candidate, const char *name,
                  cria_candidate *winner, cria_plan_summary *winning) {
    cria_plan_summary summary = {0};
    snprintf(summary.name, sizeof summary.name, "%s", name);
    cria_candidate_price(setting->build.book, &setting->build.task, candidate, &summary, NULL);
    if (summary.feasible) keep_to_options(c, candidate, &summary);
    keep_nearest(c, &summary);
    bool won = summary.feasible && is_better(&summary, winning);
    if (won) {
        cria_candidate_deinit(winner);
        *winner = *candidate;
        *winning = summary;
    } else {
        cria_candidate_deinit(candidate);
    }
    *candidate = (cria_candidate){0};
    if (strcmp(name, "search") != 0) remember(c, &summary);
    return won;
}

static void offer_by_hand(cria_plan_choice *c, cria_setting *s, const cria_hand_stage *stage, int count,
                          const char *name, cria_candidate *winner, cria_plan_summary *winning) {
    cria_candidate candidate;
    cria_plan_summary summary = {.seconds = HUGE_VAL, .stages = count};
    if (cria_build_by_hand(&s->build, stage, count, &candidate, summary.why, sizeof summary.why)) {
        offer(c, s, &candidate, name, winner, winning);
        return;
    }
    snprintf(summary.name, sizeof summary.name, "%s", name);
    remember(c, &summary);
}

/* Layers over stages as evenly as they go. */
static void even_stages(cria_hand_stage *stage, int count, int layers, int data, int tensor) {
    for (int s = 0; s < count; s++)
        stage[s] = (cria_hand_stage){(s + 1) * layers / count - s * layers / count, data, tensor};
}

/* What engineers write: one device, all devices one way, a stage per device, and Megatron-LM's grid of tensors inside a
 * host, stages over hosts and data over the rest (Narayanan et al. 2021). */
static void offer_all_by_hand(cria_plan_choice *c, cria_setting *s, cria_candidate *winner,
                              cria_plan_summary *winning) {
    int devices = s->build.lineup->devices, layers = cria_graph_layers(c->graph);
    bool train = c->options->objective == CRIA_OBJECTIVE_TRAIN;
    cria_hand_stage *stage = malloc(MOST_HAND_STAGES * sizeof *stage);
    if (!stage || layers < 1) {
        free(stage);
        return;
    }
    even_stages(stage, 1, layers, 1, 1);
    offer_by_hand(c, s, stage, 1, "one device", winner, winning);
    if (devices > 1) {
        even_stages(stage, 1, layers, 1, devices);
        offer_by_hand(c, s, stage, 1, "pure tensor", winner, winning);
        if (train) {
            even_stages(stage, 1, layers, devices, 1);
            offer_by_hand(c, s, stage, 1, "pure data", winner, winning);
        }
        int most = devices < layers ? devices : layers;
        if (most > MOST_HAND_STAGES) most = MOST_HAND_STAGES;
        even_stages(stage, most, layers, 1, 1);
        if (devices <= layers) offer_by_hand(c, s, stage, most, "pure pipeline", winner, winning);
    }
    for (int tensor = 1; devices > 1 && tensor <= s->build.lineup->per_host; tensor *= 2)
        for (int stages = 1; stages <= layers && stages <= MOST_HAND_STAGES; stages++) {
            if (devices % (tensor * stages) != 0 || layers % stages != 0) continue;
            int data = devices / tensor / stages;
            if (data > 1 && !train) continue;
            even_stages(stage, stages, layers, data, tensor);
            offer_by_hand(c, s, stage, stages, "Megatron", winner, winning);
        }
    free(stage);
}

/* Orders of the runs of equal devices on the line; the first is that of the file. order[i]: which run comes i-th. */
static int find_orders(const cria_lineup *l, bool in_order, int *start, int *runs, int order[MOST_ORDERS][MOST_RUNS]) {
    *runs = 0;
    for (int d = 0; d < l->devices; d++) {
        bool begins = d == 0;
        if (!begins) {
            int type = cria_cluster_type_of(l->cluster, l->device[d]),
                host = cria_cluster_host_of(l->cluster, l->device[d]),
                before = cria_cluster_host_of(l->cluster, l->device[d - 1]);
            begins = type != cria_cluster_type_of(l->cluster, l->device[d - 1]) ||
                     cria_cluster_host(l->cluster, host)->devices != cria_cluster_host(l->cluster, before)->devices;
        }
        if (begins && *runs == MOST_RUNS) {
            *runs = 1;
            break;
        }
        if (begins) start[(*runs)++] = d;
    }
    start[*runs] = l->devices;
    int orders = 0;
    for (int code = 0; code < 256 && orders < MOST_ORDERS; code++) {
        int seen = 0, n = *runs;
        for (int i = 0; i < n; i++) {
            order[orders][i] = code >> (2 * (n - 1 - i)) & 3;
            if (order[orders][i] < n) seen |= 1 << order[orders][i];
        }
        if (code >> (2 * n) == 0 && seen == (1 << n) - 1) orders++;
    }
    return in_order ? 1 : orders;
}

static bool reorder(const cria_lineup *from, const int *start, int runs, const int *order, cria_lineup *to) {
    *to = *from;
    to->device = malloc((size_t)from->devices * sizeof *to->device);
    if (!to->device) return false;
    int at = 0;
    for (int i = 0; i < runs; i++)
        for (int d = start[order[i]]; d < start[order[i] + 1]; d++) to->device[at++] = from->device[d];
    return true;
}

/* One setting on one lineup. The line's devices are owned by the choice if the setting wins. */
static cria_status try_setting(cria_plan_choice *c, cria_lineup *line, int64_t micro_batch, int micro_batches,
                               int replicas, cria_error *err) {
    cria_lineup *kept = malloc(sizeof *kept);
    if (!kept) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the planner");
    *kept = *line;
    cria_setting s;
    cria_status status = cria_setting_open(c->graph, kept, c->options, micro_batch, micro_batches, replicas,
                                           layers_for(line->devices), &s, err);
    if (status != CRIA_OK) {
        free(kept);
        return status;
    }
    /* Searched ways are few where only tensors are cut, and where there are few devices. */
    s.build.searched = c->options->search && c->options->objective != CRIA_OBJECTIVE_TRAIN;
    cria_candidate winner = {0}, found;
    cria_plan_summary winning = {.seconds = HUGE_VAL, .longest = HUGE_VAL};
    if (c->best.setting.build.book) winning = c->best.summary;
    winning.name[0] = '\0'; /* nobody of this setting yet */
    offer_all_by_hand(c, &s, &winner, &winning);
    status = cria_build_search(&s.build, winning.seconds * (1 + CRIA_SAME_SECONDS), &found, err);
    if (status == CRIA_OK && found.stages > 0) {
        cria_plan_summary before = winning;
        bool had = winner.stages > 0 || c->best.setting.build.book;
        if (offer(c, &s, &found, "search", &winner, &winning) && had && before.name[0]) {
            snprintf(before.name, sizeof before.name, "next best");
            remember(c, &before);
        }
    }
    if (status != CRIA_OK || winner.stages == 0) {
        cria_candidate_deinit(&winner);
        cria_setting_close(&s);
        free(kept->device);
        free(kept);
        return status;
    }
    if (c->best.setting.build.book) {
        cria_plan_summary second = c->best.summary;
        snprintf(second.name, sizeof second.name, "next best");
        remember(c, &second);
        cria_lineup *old = (cria_lineup *)c->best.setting.build.lineup;
        cria_setting_close(&c->best.setting);
        cria_candidate_deinit(&c->best.candidate);
        free(old->device);
        free(old);
    }
    c->best.setting = s;
    c->best.candidate = winner;
    c->best.summary = winning;
    return CRIA_OK;
}

static cria_status try_orders(cria_plan_choice *c, int devices, int64_t micro_batch, int micro_batches, int replicas,
                              cria_error *err) {
    int start[MOST_RUNS + 1], runs, order[MOST_ORDERS][MOST_RUNS];
    cria_lineup part = *c->lineup;
    part.devices = devices;
    int orders = find_orders(&part, c->options->in_order, start, &runs, order);
    for (int i = 0; i < orders; i++) {
        cria_lineup line;
        if (!reorder(&part, start, runs, order[i], &line))
            return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d devices", devices);
        CRIA_TRY(try_setting(c, &line, micro_batch, micro_batches, replicas, err));
    }
    return CRIA_OK;
}

static cria_status choose_training(cria_plan_choice *c, cria_error *err) {
    const cria_stages_options *o = c->options;
    /* The order matters for speed only: a good plan early prunes the others. */
    static const int64_t sizes[] = {4, 8, 2, 16, 1, 32, 64, 128, 256, 3, 6, 12, 24, 48, 96, 5, 10, 20, 40, 80};
    bool any = false;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t size = o->micro_batch ? o->micro_batch : sizes[i];
        if (size <= o->global_batch && o->global_batch % size == 0) {
            CRIA_TRY(try_orders(c, c->lineup->devices, size, (int)(o->global_batch / size), 1, err));
            any = true;
        }
        if (o->micro_batch) break;
    }
    if (!any) return try_orders(c, c->lineup->devices, o->global_batch, 1, 1, err);
    return CRIA_OK;
}

/* Replicas on equal parts of the devices, and as many micro-batches as keep stages busy. */
static cria_status choose_throughput(cria_plan_choice *c, cria_error *err) {
    int devices = c->lineup->devices, most = c->options->one_copy ? 1 : devices;
    for (int replicas = 1; replicas <= most && replicas <= c->options->batch; replicas *= 2) {
        if (devices % replicas != 0 || c->options->batch % replicas != 0) continue;
        int per = devices / replicas, host = c->lineup->per_host;
        /* Copies are alike: none lies across hosts where another does not. */
        if (replicas > 1 && (!c->lineup->uniform || (host % per != 0 && per % host != 0))) continue;
        int64_t batch = c->options->batch / replicas;
        for (int micro = 1; micro <= devices / replicas && micro <= batch; micro *= 2)
            if (batch % micro == 0) CRIA_TRY(try_orders(c, devices / replicas, batch / micro, micro, replicas, err));
    }
    return CRIA_OK;
}

/* Lets the intra-operator pass cut the operators of every stage of the best plan. */
static void refine(cria_plan_choice *c) {
    for (int s = 0; c->options->search && s < c->best.candidate.stages; s++) {
        cria_candidate_stage *stage = &c->best.candidate.stage[s];
        if (stage->way.searched || stage->devices < 2) continue;
        cria_candidate_stage before = *stage;
        stage->way.searched = true;
        stage->way.experts = false;
        cria_plan_summary summary = c->best.summary;
        cria_candidate_price(c->best.setting.build.book, &c->best.setting.build.task, &c->best.candidate, &summary,
                             NULL);
        if (summary.feasible && summary.seconds <= c->best.summary.seconds)
            c->best.summary = summary;
        else
            *stage = before;
    }
}

/* The most activations that a device of the candidate holds under a schedule; < 0: no memory to find out. */
static double most_activations(cria_stage_book *book, const cria_price_task *task, cria_candidate *candidate,
                               cria_plan_summary *summary) {
    cria_plan_notes notes;
    if (cria_plan_notes_init(&notes, candidate->devices, candidate->stages, NULL) != CRIA_OK) return -1;
    cria_candidate_price(book, task, candidate, summary, &notes);
    int64_t most = 0;
    for (int s = 0; s < notes.stages; s++)
        if (notes.stage[s].activations > most) most = notes.stage[s].activations;
    cria_plan_notes_deinit(&notes);
    return (double)most;
}

/* The best plan under the other schedule. Both have the same bubbles; GPipe holds all micro-batches at once, so that it
 * is slower where stages must recompute or cut their state for it, and never faster. */
static void offer_other_schedule(cria_plan_choice *c) {
    cria_stage_book *book = c->best.setting.build.book;
    cria_price_task task = c->best.setting.build.task;
    cria_candidate copy;
    if (c->best.candidate.stages < 2 || c->options->objective != CRIA_OBJECTIVE_TRAIN ||
        !cria_candidate_copy(&c->best.candidate, &copy))
        return;
    bool gpipe = task.schedule == CRIA_SCHEDULE_GPIPE;
    task.schedule = gpipe ? CRIA_SCHEDULE_1F1B : CRIA_SCHEDULE_GPIPE;
    cria_plan_summary summary = {0}, best = {0};
    snprintf(summary.name, sizeof summary.name, "%s", gpipe ? "1F1B" : "GPipe");
    double other = most_activations(book, &task, &copy, &summary);
    if (summary.feasible)
        snprintf(summary.why, sizeof summary.why, "%s activations: up to %.3g GB of a device, %.3g GB under %s",
                 gpipe ? "fewer" : "all", other / 1e9,
                 most_activations(book, &c->best.setting.build.task, &c->best.candidate, &best) / 1e9,
                 gpipe ? "GPipe" : "1F1B");
    remember(c, &summary);
    if (!c->options->schedule && is_better(&summary, &c->best.summary)) {
        cria_candidate_price(book, &task, &c->best.candidate, &c->best.summary, NULL);
        c->best.setting.build.task.schedule = task.schedule;
    }
    cria_candidate_deinit(&copy);
}

static int by_seconds(const void *a, const void *b) {
    double x = ((const cria_plan_summary *)a)->seconds, y = ((const cria_plan_summary *)b)->seconds;
    return (x > y) - (x < y);
}

cria_status cria_plan_choose(cria_plan_choice *c, cria_error *err) {
    c->other = calloc(KINDS, sizeof *c->other);
    if (!c->other) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the planner");
    switch (c->options->objective) {
    case CRIA_OBJECTIVE_TRAIN:
        CRIA_TRY(choose_training(c, err));
        break;
    case CRIA_OBJECTIVE_THROUGHPUT:
        CRIA_TRY(choose_throughput(c, err));
        break;
    default:
        CRIA_TRY(try_orders(c, c->lineup->devices, c->options->batch, 1, 1, err));
    }
    if (!c->best.setting.build.book)
        return cria_fail(err, CRIA_ERR_INFEASIBLE, "no plan for %s fits on %s: %s", cria_graph_name(c->graph),
                         cria_cluster_name(c->lineup->cluster), c->nearest);
    refine(c);
    offer_other_schedule(c);
    qsort(c->other, (size_t)c->others, sizeof *c->other, by_seconds);
    return CRIA_OK;
}

void cria_plan_choice_deinit(cria_plan_choice *c) {
    if (c->best.setting.build.book) {
        cria_lineup *line = (cria_lineup *)c->best.setting.build.lineup;
        cria_setting_close(&c->best.setting);
        free(line->device);
        free(line);
    }
    cria_candidate_deinit(&c->best.candidate);
    free(c->other);
    *c = (cria_plan_choice){0};
}

static const char *unit_of(cria_objective objective) {
    return objective == CRIA_OBJECTIVE_TRAIN     ? "an update"
           : objective == CRIA_OBJECTIVE_LATENCY ? "a request"
                                                 : "a token";
}

void cria_plan_choice_explain(const cria_plan_choice *c, const cria_plan_summary *other, int others, char *out,
                              size_t size) {
    const cria_plan_summary *best = &c->best.summary, *rival = NULL, *one = NULL;
    for (int i = 0; i < others; i++) {
        if (!rival && other[i].feasible && other[i].seconds > best->seconds * (1 + 1e-9)) rival = &other[i];
        if (strcmp(other[i].name, "one device") == 0) one = &other[i];
    }
    int at = snprintf(out, size, "%.3g s for %s", best->seconds, unit_of(c->options->objective));
    if (rival && at < (int)size)
        at += snprintf(out + at, size - (size_t)at, ", %.1f%% less than %s (%.3g s)",
                       100 * (1 - best->seconds / rival->seconds), rival->name, rival->seconds);
    if (at >= (int)size) return;
    if (best->devices == 1 && c->lineup->devices > 1 && best->replicas == 1)
        snprintf(
            out + at, size - (size_t)at,
            "; one device is best: the model fits on it, and over more devices collectives and transfers cost more "
            "than they save in computation");
    else if (best->devices == 1 && best->replicas > 1)
        snprintf(out + at, size - (size_t)at, "; copies on devices of their own exchange nothing");
    else if (one && !one->feasible && !one->ruled_out)
        snprintf(out + at, size - (size_t)at, "; one device cannot hold it: %s", one->why);
    else if (one && one->feasible)
        snprintf(out + at, size - (size_t)at, "; one device would take %.3g s", one->seconds);
}
