/* cria profile: measures this machine's kernels, and the links between ranks where several were started. */
#include "server/commands/commands.h"

#include "base/clock.h"
#include "base/file.h"
#include "models/family.h"
#include "server/commands/devices.h"
#include "server/commands/ranks.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Lines of one operator: speed at the fewest and the most rows of every shape. */
static void print_shapes(const cria_device_type *type, int kind, cria_rate rate, cria_text *out) {
    for (int i = 0; i < type->samples; i++) {
        const cria_sample *s = &type->sample[i], *most = s;
        if (s->operator_kind != kind || s->rate != rate || s->rows != 1) continue;
        for (int k = 0; k < type->samples; k++) {
            const cria_sample *t = &type->sample[k];
            if (t->operator_kind == kind && t->rate == rate && t->columns == s->columns && t->depth == s->depth &&
                t->kv_columns == s->kv_columns && t->rows > most->rows &&
                (kind != CRIA_OP_ATTENTION || t->sequences > 1))
                most = t;
        }
        double weights = kind == CRIA_OP_ATTENTION ? 2 * s->kv_columns * s->depth * (rate == CRIA_RATE_F32 ? 4 : 2)
                                                   : s->columns * s->depth * cria_rate_bytes(rate);
        double flops = (kind == CRIA_OP_ATTENTION ? 4 : 2) * most->rows * most->columns * most->depth;
        cria_text_printf(out, "  %-10s %-9s %7.0f x %-6.0f %10.1f %8.2f   %5.0f %10.1f %9.1f\n",
                         cria_op_info_of((cria_op_kind)kind)->name, cria_rate_name(rate), s->columns, s->depth,
                         s->seconds * 1e6, weights / s->seconds / 1e9, most->rows, most->seconds * 1e6,
                         flops / most->seconds / 1e9);
    }
}

static void print_type(const cria_device_type *type, cria_text *out) {
    cria_text_printf(out, "%s: read %.2f GB/s; peaks", type->name, type->bandwidth / 1e9);
    for (int r = 0; r < CRIA_RATE_COUNT; r++)
        if (type->flops[r] > 0) cria_text_printf(out, " %s %.0f", cria_rate_name((cria_rate)r), type->flops[r] / 1e9);
    cria_text_printf(out, " GFLOP/s; %d samples\n", type->samples);
    if (!type->samples) return;
    cria_text_puts(out, "  operator   type      columns x depth      1 row us     GB/s    rows         us   GFLOP/s\n");
    for (int r = 0; r < CRIA_RATE_COUNT; r++) print_shapes(type, CRIA_OP_LINEAR, (cria_rate)r, out);
    for (int r = 0; r < CRIA_RATE_COUNT; r++) print_shapes(type, CRIA_OP_ATTENTION, (cria_rate)r, out);
}

static void print_table(const cria_profile *profile, const char *path, cria_text *out) {
    const cria_cluster *c = profile->cluster;
    for (int t = 0; t < cria_cluster_types(c); t++) print_type(cria_cluster_type(c, t), out);
    if (profile->links) {
        const cria_link *link = cria_cluster_hosts(c) > 1 ? cria_cluster_network(c) : &cria_cluster_host(c, 0)->link;
        cria_text_printf(out, "links %s: latency %.2f us, %.2f GB/s\n",
                         cria_cluster_hosts(c) > 1 ? "between hosts" : "between ranks", link->latency * 1e6,
                         link->bandwidth / 1e9);
        for (int i = 0; i < profile->links->count; i++) {
            const cria_link_sample *s = &profile->links->sample[i];
            cria_text_printf(out, "  %-10s %9.0f B %10.2f us %8.2f GB/s\n", cria_link_operation_name(s->operation),
                             s->bytes, s->seconds * 1e6, s->bytes / s->seconds / 1e9);
        }
    }
    if (path) cria_text_printf(out, "written to %s\n", path);
}

static bool same_shape(const cria_sample *a, const cria_sample *b) {
    return a->operator_kind == b->operator_kind && a->rate == b->rate && a->rows == b->rows &&
           a->columns == b->columns && a->depth == b->depth && a->sequences == b->sequences &&
           a->kv_columns == b->kv_columns;
}

/* A model's shapes join those that an earlier profile of the same ranks measured. */
static cria_status join_earlier(const char *path, cria_profile *profile, cria_error *err) {
    cria_cluster *earlier = NULL, *joined = NULL, *now = profile->cluster;
    cria_error ignored = {0};
    if (!cria_path_is_file(path) || cria_cluster_read(path, &earlier, &ignored) != CRIA_OK) return CRIA_OK;
    if (cria_cluster_types(earlier) != 1 || cria_cluster_types(now) != 1 || cria_cluster_hosts(now) != 1 ||
        cria_cluster_devices(earlier) != cria_cluster_devices(now)) {
        cria_cluster_destroy(earlier);
        return CRIA_OK;
    }
    cria_device_type type = *cria_cluster_type(now, 0);
    const cria_device_type *old = cria_cluster_type(earlier, 0);
    size_t most = (size_t)(type.samples + old->samples) + 1;
    cria_sample *sample = calloc(most, sizeof *sample);
    int *zero = calloc((size_t)cria_cluster_devices(now), sizeof *zero);
    cria_status status = sample && zero ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for %zu samples", most);
    if (status == CRIA_OK) {
        int count = type.samples;
        if (count) memcpy(sample, type.sample, (size_t)count * sizeof *sample);
        for (int i = 0; i < old->samples; i++) {
            bool again = false;
            for (int k = 0; k < type.samples && !again; k++) again = same_shape(&old->sample[i], &type.sample[k]);
            if (!again) sample[count++] = old->sample[i];
        }
        type.sample = sample;
        type.samples = count;
        cria_cluster_parts parts = {.name = cria_cluster_name(now),
                                    .type = &type,
                                    .types = 1,
                                    .link = &cria_cluster_host(now, 0)->link,
                                    .hosts = 1,
                                    .type_of = zero,
                                    .host_of = zero,
                                    .devices = cria_cluster_devices(now),
                                    .network = *cria_cluster_network(now)};
        status = cria_cluster_create(&parts, &joined, err);
    }
    free(sample);
    free(zero);
    cria_cluster_destroy(earlier);
    if (status != CRIA_OK) return status;
    cria_cluster_destroy(now);
    profile->cluster = joined;
    return CRIA_OK;
}

static cria_status write_profile(const char *path, const cria_text *text, cria_error *err) {
    char part[4200];
    snprintf(part, sizeof part, "%s.part", path);
    FILE *file = fopen(part, "w");
    if (!file) return cria_fail(err, CRIA_ERR_IO, "%s: %s", part, strerror(errno));
    bool good = fwrite(text->data, 1, text->length, file) == text->length;
    good = fclose(file) == 0 && good;
    /* Whoever reads it meanwhile reads the old one. */
    good = good && rename(part, path) == 0;
    return good ? CRIA_OK : cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
}

static cria_status report(const cria_command *command, const cria_machine *machine, int ranks, int threads,
                          double seconds, cria_profile *profile, cria_error *err) {
    const cria_main_options *o = command->options;
    char cached[4096], note[256];
    const char *path = o->out;
    /* Several hosts have no one cache. */
    if (!path && cria_cluster_hosts(profile->cluster) == 1 &&
        cria_profile_path(command, machine, ranks, threads, cached, sizeof cached)) {
        mkdir(command->cache, 0777); /* if it fails, so does the writing, with a message */
        path = cached;
    }
    if (path && command->path) CRIA_TRY(join_earlier(path, profile, err));
    snprintf(note, sizeof note,
             "Measured by cria profile in %.1f s: %d rank%s of %d thread%s on %s, %d processors, %s.", seconds, ranks,
             ranks > 1 ? "s" : "", threads, threads > 1 ? "s" : "", machine->processor, machine->cpus, o->isa);
    cria_text json, table;
    cria_text_init(&json);
    cria_text_init(&table);
    cria_cluster_print(profile->cluster, note, profile->links ? profile->links->sample : NULL,
                       profile->links ? profile->links->count : 0, &json);
    cria_status status = json.failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the profile") : CRIA_OK;
    if (status == CRIA_OK && path) status = write_profile(path, &json, err);
    if (status == CRIA_OK) {
        print_table(profile, path, &table);
        const cria_text *text = o->json ? &json : &table;
        if (!text->failed) fwrite(text->data, 1, text->length, stdout);
    }
    cria_text_deinit(&json);
    cria_text_deinit(&table);
    return status;
}

static cria_status profile_ranks(const cria_command *command, const cria_ranks_joined *ranks, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_machine machine;
    CRIA_TRY(cria_machine_find(o, &machine, err));
    cria_model_config config;
    cria_graph *graph = NULL;
    cria_weight_rates rates = {0};
    cria_status status = CRIA_OK;
    if (command->path) {
        status = cria_read_config(command->path, &config, err);
        if (status == CRIA_OK) status = cria_model_graph(&config, &graph, err);
        if (status == CRIA_OK) status = cria_weight_rates_find(command, &config, graph, &rates, err);
    }
    int threads = cria_machine_threads(&machine, o, ranks->share);
    cria_pool *pool = NULL;
    if (status == CRIA_OK) status = cria_pool_create(threads, &pool, err);
    if (status != CRIA_OK && ranks->comm) cria_comm_abort(ranks->comm, err->message);
    cria_profile profile = {0};
    uint64_t start = cria_clock_ns();
    if (status == CRIA_OK) {
        cria_profile_task task = {.depth = o->quick ? CRIA_PROFILE_QUICK : CRIA_PROFILE_FULL,
                                  .pool = pool,
                                  .isa = machine.isa,
                                  .comm = ranks->comm,
                                  .host = ranks->host,
                                  .machine = machine.processor,
                                  .memory = machine.memory / ranks->share,
                                  .graph = graph,
                                  .weight_bytes = rates.bytes,
                                  .rates = graph ? rates.used : NULL,
                                  .progress = o->quiet || ranks->rank ? NULL : stderr};
        status = cria_profile_run(&task, &profile, err);
    }
    if (status == CRIA_OK && ranks->rank == 0)
        status = report(command, &machine, ranks->size, threads, cria_seconds_between(start, cria_clock_ns()), &profile,
                        err);
    cria_profile_deinit(&profile);
    cria_pool_destroy(pool);
    cria_graph_destroy(graph);
    free(rates.of);
    return status;
}

cria_status cria_command_profile(const cria_command *command, cria_error *err) {
    cria_ranks_joined ranks;
    CRIA_TRY(cria_ranks_launch(command, err));
    cria_status status = cria_ranks_join(command, &ranks, err);
    if (status == CRIA_OK) status = profile_ranks(command, &ranks, err);
    return cria_ranks_leave(&ranks, command, status, err);
}
