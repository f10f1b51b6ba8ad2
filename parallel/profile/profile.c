/* The profile of all ranks: facts gathered, peaks, links and kernels measured, and the cluster made of them. */
#include "parallel/profile/profile.h"

#include "base/progress.h"
#include "parallel/profile/bed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a rank says of itself. */
typedef struct {
    char host[64], machine[32];
    int32_t threads, isa;
    double memory;
    cria_rates rates;
    cria_link inside; /* of its host; bandwidth 0: it has no neighbour there */
} facts;

typedef struct {
    const cria_profile_task *task;
    int rank, size;
    facts *all;             /* [size] */
    int *type_of, *host_of; /* [size] */
    int types, hosts;
    cria_shapes shapes;
    cria_sample *sample; /* [types][shapes] */
    cria_link network;
    cria_link_samples links;
    const cria_kernels *kernels;
} profiler;

static cria_status out_of_memory(cria_error *err) {
    return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the profile");
}

static cria_status share_facts(profiler *p, const facts *mine, cria_error *err) {
    if (!p->task->comm) {
        p->all[0] = *mine;
        return CRIA_OK;
    }
    int64_t bytes[CRIA_COMM_MAX_RANKS];
    for (int r = 0; r < p->size; r++) bytes[r] = sizeof *mine;
    return cria_comm_all_gather(p->task->comm, mine, p->all, bytes, err);
}

/* Ranks that follow each other on one host are its devices; ranks that are alike are of one type. */
static void find_groups(profiler *p) {
    for (int r = 0; r < p->size; r++) {
        const facts *f = &p->all[r];
        bool begins = r == 0 || strcmp(f->host, p->all[r - 1].host) != 0;
        p->hosts += begins;
        p->host_of[r] = p->hosts - 1;
        p->type_of[r] = -1;
        for (int q = 0; q < r && p->type_of[r] < 0; q++)
            if (strcmp(f->machine, p->all[q].machine) == 0 && f->threads == p->all[q].threads &&
                f->isa == p->all[q].isa)
                p->type_of[r] = p->type_of[q];
        if (p->type_of[r] < 0) p->type_of[r] = p->types++;
    }
}

/* Ranks that read this host's memory, and fill its caches, at the same time. */
static int ranks_here(const profiler *p) {
    int count = 0;
    for (int r = 0; r < p->size; r++) count += p->host_of[r] == p->host_of[p->rank];
    return count;
}

static cria_status measure_rates(const profiler *p, cria_rates *out, cria_error *err) {
    cria_calibration *calibration;
    CRIA_TRY(cria_calibration_create(p->task->pool, p->task->isa, CRIA_CALIBRATION_BYTES / ranks_here(p), &calibration,
                                     err));
    cria_status status = p->task->comm ? cria_comm_barrier(p->task->comm, err) : CRIA_OK;
    if (status == CRIA_OK) cria_calibration_measure(calibration, CRIA_CALIBRATION_BYTES, out);
    cria_calibration_destroy(calibration);
    return status;
}

/* Links inside every host that has several ranks, all hosts at once; then between the first ranks of the hosts. */
static cria_status measure_links(profiler *p, facts *mine, cria_error *err) {
    if (p->size < 2) return CRIA_OK;
    bool brief = p->task->depth == CRIA_PROFILE_BRIEF;
    int host = p->host_of[p->rank], first = p->rank, neighbours = 0;
    for (int r = p->size - 1; r >= 0; r--)
        if (p->host_of[r] == host) first = r, neighbours++;
    cria_comm *inside = NULL, *leaders = NULL;
    CRIA_TRY(cria_comm_split(p->task->comm, host, &inside, err));
    cria_status status = CRIA_OK;
    if (neighbours > 1) {
        status = cria_links_measure(inside, brief, &p->links, err);
        mine->inside = cria_links_fit(&p->links, neighbours);
    }
    cria_comm_destroy(inside);
    CRIA_TRY(status);
    if (p->hosts > 1) {
        CRIA_TRY(cria_comm_split(p->task->comm, p->rank == first ? 0 : -1, &leaders, err));
        if (leaders) status = cria_links_measure(leaders, brief, &p->links, err);
        cria_comm_destroy(leaders);
        CRIA_TRY(status);
        CRIA_TRY(cria_comm_broadcast(p->task->comm, 0, &p->links, sizeof p->links, err));
        p->network = cria_links_fit(&p->links, p->hosts);
    }
    return CRIA_OK;
}

static cria_status time_shapes(const profiler *p, cria_bed *bed, cria_sample *sample, cria_error *err) {
    static const int rounds[] = {2, 3, 5};
    static const double least[] = {5e-4, 1.5e-3, 4e-3};
    cria_profile_depth depth = p->task->depth;
    cria_progress *progress =
        cria_progress_create(p->task->progress, "measuring kernels", "shapes", (uint64_t)p->shapes.count);
    cria_status status = CRIA_OK;
    for (int i = 0; i < p->shapes.count && status == CRIA_OK; i++) {
        sample[i] = p->shapes.shape[i].sample;
        status = cria_bed_time(bed, &sample[i], p->shapes.shape[i].head_dim, rounds[depth], least[depth], err);
        cria_progress_advance(progress, 1);
    }
    cria_progress_destroy(progress);
    return status;
}

/* As much as a rank's part of the model: what fits a cache there fits it here. */
static double cold_bytes(const profiler *p) {
    if (p->task->depth == CRIA_PROFILE_BRIEF) return 0x1p27 / ranks_here(p);
    return p->task->weight_bytes > 0 ? p->task->weight_bytes / p->size : 0x1p28;
}

/* Ranks of one type measure together and agree; then everybody hears of every type. */
static cria_status measure_kernels(profiler *p, cria_error *err) {
    const cria_profile_task *t = p->task;
    bool all[CRIA_RATE_COUNT];
    for (int r = 0; r < CRIA_RATE_COUNT; r++) all[r] = true;
    if (!cria_shapes_find(t->graph, t->rates ? t->rates : all, p->size, t->depth, &p->shapes))
        return out_of_memory(err);
    size_t count = (size_t)p->shapes.count;
    p->sample = calloc((size_t)p->types * count + 1, sizeof *p->sample);
    if (!p->sample) return out_of_memory(err);
    cria_comm *alike = NULL;
    if (t->comm) CRIA_TRY(cria_comm_split(t->comm, p->type_of[p->rank], &alike, err));
    cria_bed *bed = NULL;
    /* The brief measurement is a starting server's: its shapes are small, and its memory is wanted. */
    int64_t value_bytes = (int64_t)(t->depth == CRIA_PROFILE_BRIEF ? 4 : 32) << 20;
    cria_status status = cria_bed_create(t->pool, p->kernels, cold_bytes(p), value_bytes, alike, &bed, err);
    if (status == CRIA_OK) status = time_shapes(p, bed, p->sample + (size_t)p->type_of[p->rank] * count, err);
    cria_bed_destroy(bed);
    cria_comm_destroy(alike);
    for (int type = 0; type < p->types && status == CRIA_OK && t->comm; type++) {
        int root = 0;
        while (p->type_of[root] != type) root++;
        status = cria_comm_broadcast(t->comm, root, p->sample + (size_t)type * count,
                                     (int64_t)(count * sizeof *p->sample), err);
    }
    return status;
}

/* Takes out what could not be timed; returns how many are left. */
static int compact(cria_sample *sample, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (sample[i].seconds > 0) sample[kept++] = sample[i];
    return kept;
}

static void describe_type(const profiler *p, int type, cria_device_type *out) {
    /* Efficiencies where nothing was measured: near what kernels reach on processors with AVX2 to AVX-512
     * (docs/benchmarks.md). */
    *out = (cria_device_type){.matmul = 0.6, .half = 8, .attention = 0.3, .streaming = 0.7, .launch = 2e-6, .fused = 1};
    double members = 0, read = 0, f32 = 0, bf16 = 0, i8 = 0;
    const facts *first = NULL;
    out->memory = HUGE_VAL;
    for (int r = 0; r < p->size; r++) {
        const facts *f = &p->all[r];
        if (p->type_of[r] != type) continue;
        if (!first) first = f;
        members++;
        read += f->rates.read_gbps;
        f32 += f->rates.f32_gflops;
        bf16 += f->rates.bf16_gflops;
        i8 += f->rates.i8_gops;
        out->memory = fmin(out->memory, f->memory);
    }
    out->bandwidth = fmax(1e9 * read / members, 1);
    /* Without vector instructions nothing was measured: a scalar multiply-add every other nanosecond. */
    out->flops[CRIA_RATE_F32] = fmax(1e9 * f32 / members, 1e9);
    out->flops[CRIA_RATE_F16] = out->flops[CRIA_RATE_F32];
    out->flops[CRIA_RATE_BF16] = bf16 > 0 ? 1e9 * bf16 / members : out->flops[CRIA_RATE_F32];
    out->flops[CRIA_RATE_INT8] = i8 > 0 ? 1e9 * i8 / members : out->flops[CRIA_RATE_F32];
    if (p->types > 1)
        snprintf(out->name, sizeof out->name, "%.18s x%d #%d", first->machine, first->threads, type);
    else
        snprintf(out->name, sizeof out->name, "%.24s x%d", first->machine, first->threads);
    if (!p->sample) return;
    cria_sample *sample = p->sample + (size_t)type * (size_t)p->shapes.count;
    out->sample = sample;
    out->samples = compact(sample, p->shapes.count);
}

static cria_status make_cluster(const profiler *p, cria_cluster **out, cria_error *err) {
    cria_device_type *type = calloc((size_t)p->types, sizeof *type);
    cria_link *link = calloc((size_t)p->hosts, sizeof *link);
    cria_status status = type && link ? CRIA_OK : out_of_memory(err);
    if (status == CRIA_OK) {
        for (int t = 0; t < p->types; t++) describe_type(p, t, &type[t]);
        for (int r = 0; r < p->size; r++) {
            cria_link *l = &link[p->host_of[r]];
            if (p->all[r].inside.bandwidth > 0) *l = p->all[r].inside;
            /* A host of one rank: its own memory would be the link, should there be more. */
            if (l->bandwidth <= 0) *l = (cria_link){2e-6, type[p->type_of[r]].bandwidth / 2};
        }
        cria_cluster_parts parts = {.name = p->hosts > 1 ? "these hosts" : "this machine",
                                    .type = type,
                                    .types = p->types,
                                    .link = link,
                                    .hosts = p->hosts,
                                    .type_of = p->type_of,
                                    .host_of = p->host_of,
                                    .devices = p->size,
                                    .network = p->hosts > 1 ? p->network : link[0]};
        status = cria_cluster_create(&parts, out, err);
    }
    free(type);
    free(link);
    return status;
}

static cria_status run(profiler *p, cria_profile *out, cria_error *err) {
    const cria_profile_task *t = p->task;
    facts mine = {.threads = cria_pool_threads(t->pool), .isa = (int32_t)t->isa, .memory = t->memory};
    snprintf(mine.host, sizeof mine.host, "%s", t->host ? t->host : "");
    snprintf(mine.machine, sizeof mine.machine, "%s", t->machine ? t->machine : "cpu");
    CRIA_TRY(share_facts(p, &mine, err));
    find_groups(p);
    CRIA_TRY(measure_rates(p, &mine.rates, err));
    CRIA_TRY(measure_links(p, &mine, err));
    CRIA_TRY(share_facts(p, &mine, err));
    CRIA_TRY(measure_kernels(p, err));
    if (p->size > 1) {
        out->links = malloc(sizeof *out->links);
        if (!out->links) return out_of_memory(err);
        *out->links = p->links;
    }
    return make_cluster(p, &out->cluster, err);
}

cria_status cria_profile_run(const cria_profile_task *task, cria_profile *out, cria_error *err) {
    *out = (cria_profile){0};
    cria_kernels kernels;
    cria_kernels_select(task->isa, &kernels);
    profiler p = {.task = task,
                  .size = task->comm ? cria_comm_size(task->comm) : 1,
                  .rank = task->comm ? cria_comm_rank(task->comm) : 0,
                  .kernels = &kernels};
    p.all = calloc((size_t)p.size, sizeof *p.all);
    p.type_of = calloc((size_t)p.size, sizeof *p.type_of);
    p.host_of = calloc((size_t)p.size, sizeof *p.host_of);
    cria_status status = p.all && p.type_of && p.host_of ? run(&p, out, err) : out_of_memory(err);
    free(p.all);
    free(p.type_of);
    free(p.host_of);
    free(p.sample);
    cria_shapes_deinit(&p.shapes);
    if (status == CRIA_OK) return CRIA_OK;
    cria_profile_deinit(out);
    /* The others wait for this rank. */
    if (task->comm) cria_comm_abort(task->comm, err ? err->message : "profiling failed");
    return status;
}

void cria_profile_deinit(cria_profile *profile) {
    cria_cluster_destroy(profile->cluster);
    free(profile->links);
    *profile = (cria_profile){0};
}
