/* Clusters by name, and this machine: what it is, its cached profile, a calibration on ranks that are threads. */
#include "server/commands/devices.h"

#include "base/file.h"
#include "models/family.h"
#include "models/source.h"
#include "models/weights/weights.h"
#include "parallel/profile/bed.h"
#include "server/agree.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const size_t MAX_CONFIG = (size_t)1 << 24;

cria_status cria_machine_find(const cria_main_options *options, cria_machine *out, cria_error *err) {
    *out = (cria_machine){.processor = "cpu", .cpus = 1};
    CRIA_TRY(cria_isa_from_name(options->isa, &out->isa, err));
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) out->cpus = CPU_COUNT(&set);
    /* A part is left to the system and to what else runs. */
    out->memory = 0.8 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out->processor, sizeof out->processor, "%.90s", value + 2);
        break;
    }
    if (file) fclose(file);
    return CRIA_OK;
}

int cria_machine_threads(const cria_machine *machine, const cria_main_options *options, int ranks) {
    if (options->threads > 0) return (int)options->threads;
    return machine->cpus / ranks > 1 ? machine->cpus / ranks : 1;
}

bool cria_profile_path(const cria_command *command, const cria_machine *m, int ranks, int threads, char *out,
                       size_t size) {
    if (!command->cache) return false;
    uint64_t hash = cria_hash_bytes(0, m->processor, strlen(m->processor));
    hash = cria_hash_bytes(hash, &m->cpus, sizeof m->cpus);
    int n = snprintf(out, size, "%s/profile-%08x-%s-%dx%d.json", command->cache, (unsigned)(hash ^ hash >> 32),
                     command->options->isa, ranks, threads);
    return n > 0 && (size_t)n < size;
}

/* One of the ranks that a calibration runs on: a thread with a pool of its own. */
typedef struct {
    const cria_machine *machine;
    cria_comm *comm;
    int threads, ranks;
    cria_cluster *cluster;
    cria_status status;
    cria_error error;
    pthread_t thread;
} calibrator;

static void *calibrate(void *context) {
    calibrator *c = context;
    cria_pool *pool;
    c->status = cria_pool_create(c->threads, &pool, &c->error);
    if (c->status != CRIA_OK) {
        if (c->comm) cria_comm_abort(c->comm, c->error.message);
        return NULL;
    }
    cria_profile_task task = {.depth = CRIA_PROFILE_BRIEF,
                              .pool = pool,
                              .isa = c->machine->isa,
                              .comm = c->comm,
                              .host = "this",
                              .machine = c->machine->processor,
                              .memory = c->machine->memory / c->ranks};
    cria_profile profile;
    c->status = cria_profile_run(&task, &profile, &c->error);
    if (c->status == CRIA_OK) {
        c->cluster = profile.cluster;
        profile.cluster = NULL;
        cria_profile_deinit(&profile);
    }
    cria_pool_destroy(pool);
    return NULL;
}

static cria_status calibrate_all(const cria_machine *machine, int ranks, int threads, cria_cluster **out,
                                 cria_error *err) {
    calibrator *all = calloc((size_t)ranks, sizeof *all);
    cria_comm **comm = calloc((size_t)ranks, sizeof *comm);
    cria_comm_options options = {.deadline_seconds = 60, .spin = ranks * threads <= machine->cpus};
    cria_status status = all && comm ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d ranks", ranks);
    if (status == CRIA_OK && ranks > 1) status = cria_comm_create_threads(ranks, &options, comm, err);
    int started = 0;
    for (; status == CRIA_OK && started < ranks; started++) {
        all[started] = (calibrator){.machine = machine, .comm = comm[started], .threads = threads, .ranks = ranks};
        if (pthread_create(&all[started].thread, NULL, calibrate, &all[started]) != 0) {
            if (comm[0]) cria_comm_abort(comm[0], "a thread cannot be started");
            status = cria_fail(err, CRIA_ERR_MEMORY, "%d threads cannot be started", ranks);
            break;
        }
    }
    for (int r = 0; r < started; r++) pthread_join(all[r].thread, NULL);
    for (int r = 0; r < started; r++)
        if (status == CRIA_OK && all[r].status != CRIA_OK)
            status = cria_fail(err, all[r].status, "%s", all[r].error.message);
    if (status == CRIA_OK) {
        *out = all[0].cluster;
        all[0].cluster = NULL;
    }
    for (int r = 0; r < ranks && all && comm; r++) {
        cria_cluster_destroy(all[r].cluster);
        cria_comm_destroy(comm[r]);
    }
    free(all);
    free(comm);
    return status;
}

cria_status cria_this_machine(const cria_command *command, int ranks, cria_cluster **out, cria_error *err) {
    cria_machine machine;
    CRIA_TRY(cria_machine_find(command->options, &machine, err));
    int threads = cria_machine_threads(&machine, command->options, ranks);
    char path[4096];
    if (cria_profile_path(command, &machine, ranks, threads, path, sizeof path) && cria_path_is_file(path)) {
        cria_error broken = {0};
        if (cria_cluster_read(path, out, &broken) == CRIA_OK) return CRIA_OK;
        cria_log_write(command->log, CRIA_LOG_WARNING, "the cached profile is not used: %s", broken.message);
    }
    return calibrate_all(&machine, ranks, threads, out, err);
}

/* "this" or "this:N". */
static bool is_this(const char *name, int *ranks) {
    if (strncmp(name, "this", 4) != 0 || (name[4] && name[4] != ':')) return false;
    char *end = "";
    long n = name[4] ? strtol(name + 5, &end, 10) : 1;
    *ranks = *end || n < 1 || n > 256 ? 0 : (int)n;
    return true;
}

cria_status cria_open_cluster(const cria_command *command, const char *name, cria_cluster **out, cria_error *err) {
    char path[4096], self[2048];
    int ranks;
    const char *colon = strrchr(name, ':');
    int stem = colon ? (int)(colon - name) : (int)strlen(name);
    snprintf(path, sizeof path, "%.*s", stem, name);
    if (is_this(name, &ranks))
        return ranks ? cria_this_machine(command, ranks, out, err)
                     : cria_fail(err, CRIA_ERR_ARGUMENT, "--cluster %s: this:N has 1 to 256 ranks", name);
    if (cria_path_is_file(path)) return cria_cluster_read(name, out, err);
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    const char *const folders[] = {"configs/clusters", "../configs/clusters", "../share/cria/clusters"};
    for (int i = 0; i < 3; i++) {
        int n = i == 0 ? snprintf(path, sizeof path, "%s/%.*s.json", folders[i], stem, name)
                       : snprintf(path, sizeof path, "%s/%s/%.*s.json", self, folders[i], stem, name);
        if (n < 0 || (size_t)n >= sizeof path || !cria_path_is_file(path)) continue;
        size_t at = strlen(path);
        snprintf(path + at, sizeof path - at, "%s", colon ? colon : "");
        return cria_cluster_read(path, out, err);
    }
    return cria_fail(err, CRIA_ERR_NOT_FOUND, "--cluster %s: no such file, and no such name in configs/clusters", name);
}

cria_status cria_read_config(const char *path, cria_model_config *config, cria_error *err) {
    size_t length = strlen(path);
    char file[4096];
    if (length > 5 && strcmp(path + length - 5, ".json") == 0) {
        cria_json *json;
        CRIA_TRY(cria_json_parse_file(path, MAX_CONFIG, &json, err));
        cria_status status = cria_config_from_json(cria_json_root(json), config, err);
        cria_json_destroy(json);
        return status;
    }
    if (cria_path_is_file(path)) {
        cria_weights *weights;
        CRIA_TRY(cria_weights_open(path, &weights, err));
        const struct cria_gguf *gguf = cria_weights_gguf(weights);
        cria_status status =
            gguf ? cria_config_from_gguf(gguf, config, err)
                 : cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: neither a folder nor .gguf or .json", path);
        cria_weights_close(weights);
        return status;
    }
    CRIA_TRY(cria_path_join(path, "config.json", file, sizeof file, err));
    return cria_path_is_file(file) ? cria_config_read(path, config, err)
                                   : cria_config_from_alpa_name(path, config, err);
}

/* Bytes by type of panel, as the instruction set has them; the largest wins. */
static cria_status count_panels(const cria_checkpoint *checkpoint, const cria_graph *graph, const char *dtype,
                                const cria_kernels *kernels, cria_weight_rates *out, cria_error *err) {
    cria_panel_type *panel = calloc((size_t)cria_graph_tensors(graph) + 1, sizeof *panel);
    if (!panel) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d tensors", cria_graph_tensors(graph));
    cria_status status = cria_choose_panels(checkpoint, graph, dtype, kernels->coarse_outputs, panel, err);
    double bytes[CRIA_RATE_COUNT] = {0};
    for (int t = 0; status == CRIA_OK && t < cria_graph_tensors(graph); t++) {
        const cria_tensor *tensor = cria_graph_tensor(graph, t);
        out->of[t] = CRIA_RATE_F32;
        if (tensor->kind != CRIA_TENSOR_PARAM || tensor->dims < 2) continue;
        out->of[t] = cria_rate_of_panel(kernels->panel[panel[t]]);
        double all = (double)cria_tensor_extent(tensor, 0) * cria_rate_bytes(out->of[t]);
        bytes[out->of[t]] += all;
        out->bytes += all;
    }
    for (int r = 0; r < CRIA_RATE_COUNT; r++) {
        if (bytes[r] > bytes[out->most]) out->most = (cria_rate)r;
        out->used[r] = bytes[r] > 0.01 * out->bytes;
    }
    free(panel);
    return status;
}

cria_status cria_weight_rates_find(const cria_command *command, const cria_model_config *config,
                                   const cria_graph *graph, cria_weight_rates *out, cria_error *err) {
    cria_weights *weights = NULL;
    cria_error none = {0};
    *out = (cria_weight_rates){.most = CRIA_RATE_F32};
    out->of = calloc((size_t)cria_graph_tensors(graph) + 1, sizeof *out->of);
    if (!out->of) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d tensors", cria_graph_tensors(graph));
    cria_status status = CRIA_OK;
    if (cria_weights_open(command->path, &weights, &none) == CRIA_OK) {
        cria_checkpoint checkpoint = {weights, config};
        const char *dtype = command->options->dtype ? command->options->dtype : "auto";
        cria_isa isa;
        cria_kernels kernels;
        status = cria_isa_from_name(command->options->isa, &isa, err);
        if (status == CRIA_OK) {
            cria_kernels_select(isa, &kernels);
            status = count_panels(&checkpoint, graph, dtype, &kernels, out, err);
        }
        cria_weights_close(weights);
    } else {
        out->most = config->type == CRIA_F32 ? CRIA_RATE_F32 : CRIA_RATE_BF16;
        for (int t = 0; t < cria_graph_tensors(graph); t++) out->of[t] = out->most;
        out->used[out->most] = true;
    }
    if (status != CRIA_OK) {
        free(out->of);
        out->of = NULL;
    }
    return status;
}

double cria_kv_element_bytes(const char *dtype, cria_rate rate, const cria_graph *graph) {
    if (strcmp(dtype, "auto") == 0) return rate == CRIA_RATE_F32 ? 4 : 2;
    if (strcmp(dtype, "int8") != 0) return strcmp(dtype, "f32") == 0 ? 4 : 2;
    for (int i = 0; i < cria_graph_ops(graph); i++) {
        const cria_op *op = cria_graph_op(graph, i);
        if (op->kind != CRIA_OP_ATTENTION) continue;
        const cria_tensor *q = cria_graph_tensor(graph, op->input[0]);
        /* A key is filled up to fours; a key and a value have a scale of four bytes each. */
        int64_t dim = q->dim[q->dims - 1].extent;
        return (double)((dim + 3) / 4 * 4 + dim + 8) / (double)(2 * dim);
    }
    return 1;
}
