/* Candidates: submeshes and their positions for the dynamic program, its costs from the book, devices given to stages.
 */
#include "parallel/plan/stages_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 512 };

bool cria_cluster_alike(const cria_cluster *c, int *per_host) {
    const cria_host *first = cria_cluster_host(c, 0);
    *per_host = first->devices;
    bool alike = (first->devices & (first->devices - 1)) == 0;
    for (int h = 0; h < cria_cluster_hosts(c); h++) {
        const cria_host *host = cria_cluster_host(c, h);
        alike = alike && host->devices == first->devices && host->link.latency == first->link.latency &&
                host->link.bandwidth == first->link.bandwidth;
    }
    for (int d = 0; d < cria_cluster_devices(c); d++)
        alike = alike && cria_cluster_type_of(c, d) == cria_cluster_type_of(c, 0);
    return alike;
}

/* What the dynamic program asks for its costs. */
typedef struct {
    const cria_build_task *task;
    int *size, *book_mesh; /* [meshes] */
    bool *allowed;         /* [meshes][devices + 1] */
    int meshes, capacity;
    /* Of the mesh and first layer that were asked last: sums of every way up to `end`; seconds by stages behind. */
    int mesh, first, end;
    cria_range_sums sums[CRIA_MAX_WAYS];
    bool possible[CRIA_MAX_WAYS];
    double by_after[MAX_STAGES];
} context;

static bool allowed(void *data, int mesh, int position) {
    const context *c = data;
    return c->allowed[mesh * (c->task->lineup->devices + 1) + position];
}

static void extend(context *c, int first, int end, int mesh) {
    const cria_mesh_kind *kind = cria_stage_book_kind(c->task->book, c->book_mesh[mesh]);
    int ways = kind->ways;
    if (mesh != c->mesh || first != c->first || end < c->end) {
        memset(c->sums, 0, (size_t)ways * sizeof *c->sums);
        for (int w = 0; w < ways; w++) c->possible[w] = c->task->searched || !kind->way[w].searched;
        c->mesh = mesh;
        c->first = c->end = first;
    }
    for (; c->end < end; c->end++)
        for (int w = 0; w < ways; w++)
            if (c->possible[w])
                c->possible[w] = cria_range_add(c->task->book, &c->sums[w], c->end, c->book_mesh[mesh], w);
}

/* The transfer into a stage, before it is known what comes before it: over the network wherever the plan has several
 * hosts, since its longest stage will most likely be one behind a host's border. */
static double expected_transfer(const context *c, int first, const cria_mesh_kind *kind, const cria_way *way) {
    const cria_build_task *t = c->task;
    if (first == 0) return 0;
    const cria_cluster *cluster = t->lineup->cluster;
    double repeat[CRIA_PHASES];
    cria_objective_repeat(t->task.options, repeat);
    const cria_stage_layer *layer = cria_stage_book_layer(t->book, first);
    int host = cria_cluster_host_of(cluster, kind->device[0]), copies = 1;
    bool across = cria_cluster_host_of(cluster, t->lineup->device[t->lineup->devices - 1]) !=
                  cria_cluster_host_of(cluster, t->lineup->device[0]);
    const cria_link *local = &cria_cluster_host(cluster, host)->link,
                    *slow = across ? cria_cluster_network(cluster) : local;
    for (int axis = 0; axis < CRIA_MESH_AXES; axis++)
        if (way->use[axis] != CRIA_AXIS_BATCH) copies *= way->size[axis];
    double lanes = across ? kind->hosts : kind->devices;
    double bytes = repeat[0] * layer->inbound + repeat[1] * layer->inbound_next;
    double seconds = (repeat[0] + repeat[1]) * slow->latency + bytes / (slow->bandwidth * lanes);
    if (copies > 1)
        seconds += (repeat[0] + repeat[1]) * local->latency * ceil(log2(copies)) +
                   bytes / kind->devices * (copies - 1) / local->bandwidth;
    return seconds;
}

/* Seconds of every number of stages behind: the fastest way and mode whose memory allows so many in flight. */
static void find_by_after(context *c, int first, int mesh) {
    const cria_price_task *task = &c->task->task;
    const cria_mesh_kind *kind = cria_stage_book_kind(c->task->book, c->book_mesh[mesh]);
    int most = MAX_STAGES;
    for (int a = 0; a < most; a++) c->by_after[a] = HUGE_VAL;
    for (int w = 0; w < kind->ways; w++) {
        if (!c->possible[w]) continue;
        double transfer = expected_transfer(c, first, kind, &kind->way[w]);
        for (int m = 0; m < CRIA_MODES; m++) {
            const cria_stage_mode *mode = &cria_stage_modes[m];
            if (!cria_mode_allowed(task, mode)) continue;
            double once, seconds = cria_range_seconds(task, &c->sums[w], mode, &once);
            seconds += transfer + once / task->micro_batches;
            double base = cria_range_memory(task, &c->sums[w], mode, 0, NULL);
            double each = cria_range_memory(task, &c->sums[w], mode, 1, NULL) - base;
            double room = kind->memory - base;
            if (room < each || !cria_kv_allowed(task, &c->sums[w])) continue;
            double flights = each > 0 ? floor(room / each) : most;
            if (task->schedule == CRIA_SCHEDULE_GPIPE && flights < task->micro_batches) continue;
            int last = flights >= task->micro_batches || flights >= most ? most - 1 : (int)flights - 1;
            if (last >= 0) c->by_after[last] = fmin(c->by_after[last], seconds);
        }
    }
    for (int a = most - 2; a >= 0; a--) c->by_after[a] = fmin(c->by_after[a], c->by_after[a + 1]);
}

static double cost(void *data, int first, int end, int mesh, int after) {
    context *c = data;
    if (mesh != c->mesh || first != c->first || end != c->end || after == 0) {
        extend(c, first, end, mesh);
        find_by_after(c, first, mesh);
    }
    return c->by_after[after];
}

/* A submesh of this kind may begin at this position. */
static bool allow(context *c, int size, int book_mesh, int position) {
    int wanted_size = c->task->task.options->per_stage;
    if (wanted_size && size != wanted_size) return true;
    int row = c->task->lineup->devices + 1, m = 0;
    while (m < c->meshes && !(c->size[m] == size && c->book_mesh[m] == book_mesh)) m++;
    if (m == c->meshes) {
        if (m == c->capacity) {
            int wanted = c->capacity ? 2 * c->capacity : 16;
            int *sizes = realloc(c->size, (size_t)wanted * sizeof *sizes);
            if (sizes) c->size = sizes;
            int *meshes = realloc(c->book_mesh, (size_t)wanted * sizeof *meshes);
            if (meshes) c->book_mesh = meshes;
            bool *flags = realloc(c->allowed, (size_t)wanted * (size_t)row * sizeof *flags);
            if (flags) c->allowed = flags;
            if (!sizes || !meshes || !flags) return false;
            c->capacity = wanted;
        }
        memset(c->allowed + (size_t)m * (size_t)row, 0, (size_t)row * sizeof *c->allowed);
        c->size[m] = size;
        c->book_mesh[m] = book_mesh;
        c->meshes++;
    }
    c->allowed[(size_t)m * (size_t)row + (size_t)position] = true;
    return true;
}

/* (1, 2^k) inside a host, (n, M) over whole hosts with n a power of two or all of them: these always tile the cluster
 * (Alpa, OSDI'22, theorem 1). */
static bool find_meshes_alike(context *c) {
    const cria_lineup *l = c->task->lineup;
    for (int size = 1; size <= l->devices; size *= 2) {
        int take = size;
        if (size > l->per_host && size % l->per_host != 0) continue;
        int mesh = cria_stage_book_mesh(c->task->book, l->device, take);
        if (mesh < 0) return false;
        for (int p = 0; p + size <= l->devices; p++)
            if (!allow(c, size, mesh, p)) return false;
    }
    if ((l->devices & (l->devices - 1)) != 0 && (l->devices <= l->per_host || l->devices % l->per_host == 0)) {
        int mesh = cria_stage_book_mesh(c->task->book, l->device, l->devices);
        if (mesh < 0 || !allow(c, l->devices, mesh, 0)) return false;
    }
    return true;
}

/* Unequal or odd hosts: whatever lies inside one host, or covers whole hosts, where it stands on the line. */
static bool find_meshes_by_place(context *c) {
    const cria_lineup *l = c->task->lineup;
    for (int p = 0; p < l->devices; p++)
        for (int end = p + 1; end <= l->devices; end++) {
            int first = cria_cluster_host_of(l->cluster, l->device[p]);
            bool inside = true;
            for (int i = p; i < end; i++) inside = inside && cria_cluster_host_of(l->cluster, l->device[i]) == first;
            bool begins = p == 0 || cria_cluster_host_of(l->cluster, l->device[p - 1]) != first;
            bool ends = end == l->devices || cria_cluster_host_of(l->cluster, l->device[end]) !=
                                                 cria_cluster_host_of(l->cluster, l->device[end - 1]);
            if (!inside && !(begins && ends)) continue;
            /* Large hosts: not every size. */
            int size = end - p;
            if (inside && size > 16 && (size & (size - 1)) != 0 && !(begins && ends)) continue;
            int mesh = cria_stage_book_mesh(c->task->book, l->device + p, size);
            if (mesh < 0 || !allow(c, size, mesh, p)) return false;
        }
    return true;
}

/* Gives devices to stages, the largest first, so that none that fits into a host lies on two. */
static void place(const cria_lineup *l, cria_candidate *c) {
    int next = 0;
    for (int size = l->devices; size > 0; size--)
        for (int s = 0; s < c->stages; s++) {
            if (c->stage[s].devices != size) continue;
            for (int i = 0; i < size; i++) c->device[c->stage[s].first_device + i] = l->device[next + i];
            next += size;
        }
}

/* The way that was cheapest for a stage with so many behind it. */
static bool find_way(context *c, const cria_stage_choice *choice, int after, cria_way *out) {
    const cria_price_task *task = &c->task->task;
    const cria_mesh_kind *kind = cria_stage_book_kind(c->task->book, c->book_mesh[choice->mesh]);
    double best = HUGE_VAL, flights = cria_in_flight(task, after);
    c->mesh = -1;
    extend(c, choice->first, choice->end, choice->mesh);
    for (int w = 0; w < kind->ways; w++)
        for (int m = 0; c->possible[w] && m < CRIA_MODES; m++) {
            const cria_stage_mode *mode = &cria_stage_modes[m];
            if (!cria_mode_allowed(task, mode)) continue;
            double once, seconds = cria_range_seconds(task, &c->sums[w], mode, &once);
            seconds += once / task->micro_batches + expected_transfer(c, choice->first, kind, &kind->way[w]);
            if (cria_range_memory(task, &c->sums[w], mode, flights, NULL) > kind->memory || seconds >= best) continue;
            if (!cria_kv_allowed(task, &c->sums[w])) continue;
            best = seconds;
            *out = kind->way[w];
        }
    return best < HUGE_VAL;
}

static bool take_choices(context *c, const cria_stage_choice *choice, int count, cria_candidate *out) {
    int devices = 0;
    for (int s = 0; s < count; s++) devices += c->size[choice[s].mesh];
    if (!cria_candidate_init(out, count, devices)) return false;
    for (int s = 0, at = 0; s < count; s++) {
        cria_candidate_stage *stage = &out->stage[s];
        *stage = (cria_candidate_stage){
            .first = choice[s].first, .end = choice[s].end, .first_device = at, .devices = c->size[choice[s].mesh]};
        if (!find_way(c, &choice[s], count - 1 - s, &stage->way)) return false;
        for (int i = 0; i < stage->devices; i++) out->device[at + i] = c->task->lineup->device[choice[s].position + i];
        at += stage->devices;
    }
    if (c->task->lineup->alike) place(c->task->lineup, out);
    return true;
}

cria_status cria_build_search(const cria_build_task *task, double upper, cria_candidate *out, cria_error *err) {
    *out = (cria_candidate){0};
    context *c = calloc(1, sizeof *c);
    int layers = cria_stage_book_layers(task->book), count = 0;
    cria_stage_choice *choice = malloc((size_t)layers * sizeof *choice);
    cria_status status = CRIA_OK;
    if (c) {
        c->task = task;
        c->mesh = -1;
    }
    if (!c || !choice || !(task->lineup->alike ? find_meshes_alike(c) : find_meshes_by_place(c))) {
        status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the meshes of %d devices", task->lineup->devices);
    } else {
        cria_objective objective = task->task.options->objective;
        cria_stage_search search = {.layers = layers,
                                    .devices = task->lineup->devices,
                                    .meshes = c->meshes,
                                    .size = c->size,
                                    .most_stages = MAX_STAGES,
                                    .exact_stages = task->task.options->stages,
                                    .all_devices = task->task.options->all_devices,
                                    .allowed = allowed,
                                    .cost = cost,
                                    .context = c,
                                    .goal = objective == CRIA_OBJECTIVE_TRAIN     ? CRIA_GOAL_PIPELINE
                                            : objective == CRIA_OBJECTIVE_LATENCY ? CRIA_GOAL_SUM
                                                                                  : CRIA_GOAL_CYCLE,
                                    .micro_batches = task->task.micro_batches,
                                    .slack = task->slack,
                                    .upper = upper};
        double best;
        status = cria_stage_search_run(&search, choice, &count, &best, err);
        if (status == CRIA_OK && count > 0 && !take_choices(c, choice, count, out)) {
            cria_candidate_deinit(out);
            status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for a plan of %d stages", count);
        }
    }
    if (c) {
        free(c->size);
        free(c->book_mesh);
        free(c->allowed);
    }
    free(c);
    free(choice);
    return status;
}

/* The first layer of the book that begins with layer `model_layer` of the model or after it. */
static int book_layer_of(const cria_stage_book *book, int model_layer) {
    const cria_graph *graph = cria_stage_book_task(book)->graph;
    int l = 0;
    while (l < cria_stage_book_layers(book) &&
           cria_graph_op(graph, cria_stage_book_layer(book, l)->first_op)->layer < model_layer)
        l++;
    return l;
}

bool cria_build_by_hand(const cria_build_task *task, const cria_hand_stage *stages, int count, cria_candidate *out,
                        char *why, size_t size) {
    const cria_lineup *l = task->lineup;
    int devices = 0, layers = 0, at = 0, model = cria_graph_layers(cria_stage_book_task(task->book)->graph);
    for (int s = 0; s < count; s++) {
        devices += stages[s].data * stages[s].tensor;
        layers += stages[s].layers;
    }
    bool train = task->task.options->objective == CRIA_OBJECTIVE_TRAIN;
    if (devices > l->devices || layers != model) {
        snprintf(why, size, "%d layers on %d devices, but there are %d and %d", layers, devices, model, l->devices);
        return false;
    }
    if (!cria_candidate_init(out, count, devices)) return false;
    for (int i = 0; i < devices; i++) out->device[i] = l->device[i];
    for (int s = 0, done = 0, first = 0; s < count; s++) {
        done += stages[s].layers;
        int end = s + 1 == count ? cria_stage_book_layers(task->book) : book_layer_of(task->book, done);
        cria_way way = {.size = {stages[s].data, stages[s].tensor}};
        if (stages[s].data > 1) way.use[0] = train ? CRIA_AXIS_BATCH : CRIA_AXIS_TENSOR;
        if (stages[s].tensor > 1) way.use[1] = CRIA_AXIS_TENSOR;
        way.experts = way.use[0] == CRIA_AXIS_BATCH && cria_stage_book_experts(task->book);
        out->stage[s] = (cria_candidate_stage){
            .first = first, .end = end, .first_device = at, .devices = stages[s].data * stages[s].tensor, .way = way};
        at += out->stage[s].devices;
        if (end <= first) {
            snprintf(why, size, "stage %d has no layer of its own", s);
            cria_candidate_deinit(out);
            return false;
        }
        first = end;
    }
    return true;
}
