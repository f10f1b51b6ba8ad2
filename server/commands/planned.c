/* Plans for the ranks that are there: their cluster, the choice on the first rank, and the split that follows from it.
 */
#include "server/commands/planned.h"

#include "base/file.h"
#include "models/family.h"
#include "parallel/plan/plan_table.h"
#include "server/commands/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool cria_plan_is_auto(const cria_main_options *o, int ranks) {
    return o->plan ? strcmp(o->plan, "auto") == 0 : ranks > 1;
}

static bool on_one_host(const cria_ranks_joined *ranks) {
    return ranks->share == ranks->size;
}

/* Calibrates all ranks at once. */
static cria_status calibrate(const cria_machine *machine, const cria_ranks_joined *ranks, int threads,
                             cria_cluster **out, cria_error *err) {
    cria_pool *pool;
    CRIA_TRY(cria_pool_create(threads, &pool, err));
    cria_profile_task task = {.depth = CRIA_PROFILE_BRIEF,
                              .pool = pool,
                              .isa = machine->isa,
                              .comm = ranks->comm,
                              .host = ranks->host,
                              .machine = machine->processor,
                              .memory = machine->memory / ranks->share};
    cria_profile profile;
    cria_status status = cria_profile_run(&task, &profile, err);
    if (status == CRIA_OK && ranks->rank == 0) {
        *out = profile.cluster;
        profile.cluster = NULL;
    }
    cria_profile_deinit(&profile);
    cria_pool_destroy(pool);
    return status;
}

cria_status cria_ranks_cluster(const cria_command *command, const cria_ranks_joined *ranks, int threads,
                               cria_cluster **out, cria_error *err) {
    *out = NULL;
    cria_machine machine;
    CRIA_TRY(cria_machine_find(command->options, &machine, err));
    char path[4096];
    int32_t cached = 0;
    if (ranks->rank == 0 && on_one_host(ranks) &&
        cria_profile_path(command, &machine, ranks->size, threads, path, sizeof path) && cria_path_is_file(path)) {
        cria_error broken = {0};
        cached = cria_cluster_read(path, out, &broken) == CRIA_OK;
        if (!cached)
            cria_log_write(command->log, CRIA_LOG_WARNING, "the cached profile is not used: %s", broken.message);
    }
    if (ranks->comm) CRIA_TRY(cria_comm_broadcast(ranks->comm, 0, &cached, sizeof cached, err));
    return cached ? CRIA_OK : calibrate(&machine, ranks, threads, out, err);
}

/* ---- choosing, on the first rank ---- */

static cria_status find_rates(const cria_command *command, const cria_model_config *config, const cria_graph *graph,
                              cria_ranks_joined *ranks, cria_error *err) {
    cria_weight_rates rates;
    if (ranks->rate_of) return CRIA_OK;
    CRIA_TRY(cria_weight_rates_find(command, config, graph, &rates, err));
    ranks->rate = rates.most;
    ranks->rate_of = rates.of;
    return CRIA_OK;
}

static cria_status set_options(const cria_command *command, const cria_ranks_joined *ranks, const cria_graph *graph,
                               cria_stages_options *s, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_stages_defaults(s);
    s->objective = strcmp(o->objective, "throughput") == 0 ? CRIA_OBJECTIVE_THROUGHPUT : CRIA_OBJECTIVE_LATENCY;
    s->element.rate = ranks->rate;
    s->element.rate_of = ranks->rate_of;
    s->element.weight = cria_rate_bytes(s->element.rate);
    s->element.activation = 4;
    s->element.kv = cria_kv_element_bytes(o->kv_cache_dtype, s->element.rate, graph);
    s->prompt_tokens = o->prompt_tokens;
    s->new_tokens = o->new_tokens;
    s->batch = strcmp(command->name, "generate") == 0 ? 1 : o->plan_batch;
    if (strcmp(command->name, "bench") == 0) {
        int64_t batches[64];
        size_t count;
        CRIA_TRY(cria_parse_list("batch", o->batch, batches, 64, &count, err));
        s->batch = 1;
        for (size_t i = 0; i < count; i++)
            if (batches[i] > s->batch) s->batch = batches[i];
    }
    /* Either size says what the other is. */
    int size = ranks->size / (o->data_parallel_size > 1 ? (int)o->data_parallel_size : 1);
    s->per_stage = (int)o->tensor_parallel;
    s->stages = (int)o->pipeline_parallel;
    if (s->stages && !s->per_stage) s->per_stage = size / s->stages;
    if (s->per_stage && !s->stages) s->stages = size / s->per_stage;
    /* Without --plan auto whoever starts N ranks wants N ranks. */
    s->all_devices = !o->plan || s->per_stage || s->stages;
    s->in_order = true;
    /* Copies that the options ask for are made of the ranks of the first. */
    s->one_copy = o->data_parallel_size > 0 || strcmp(command->name, "generate") == 0;
    return CRIA_OK;
}

/* Replicas are alike: the plan is for the ranks of the first. */
static cria_status keep_first(cria_cluster **cluster, int devices, cria_error *err) {
    cria_cluster *all = *cluster;
    if (devices >= cria_cluster_devices(all)) return CRIA_OK;
    int hosts = cria_cluster_host_of(all, devices - 1) + 1;
    cria_link *link = calloc((size_t)hosts, sizeof *link);
    int *type = calloc((size_t)devices, sizeof *type), *host = calloc((size_t)devices, sizeof *host);
    cria_status status =
        link && type && host ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d devices", devices);
    if (status == CRIA_OK) {
        for (int h = 0; h < hosts; h++) link[h] = cria_cluster_host(all, h)->link;
        for (int d = 0; d < devices; d++) {
            type[d] = cria_cluster_type_of(all, d);
            host[d] = cria_cluster_host_of(all, d);
        }
        cria_cluster_parts parts = {.name = cria_cluster_name(all),
                                    .type = cria_cluster_type(all, 0),
                                    .types = cria_cluster_types(all),
                                    .link = link,
                                    .hosts = hosts,
                                    .type_of = type,
                                    .host_of = host,
                                    .devices = devices,
                                    .network = *cria_cluster_network(all)};
        status = cria_cluster_create(&parts, cluster, err);
        if (status == CRIA_OK) cria_cluster_destroy(all);
    }
    free(link);
    free(type);
    free(host);
    return status;
}

/* One rank with the whole host to itself, where that is faster than all of them. */
static cria_status try_alone(const cria_command *command, const cria_ranks_joined *ranks, const cria_graph *graph,
                             const cria_stages_options *options, cria_cluster **cluster, cria_stages_result *best,
                             cria_error *err) {
    if (options->all_devices || ranks->size == 1 || !on_one_host(ranks) || command->options->threads > 0)
        return CRIA_OK;
    cria_cluster *one;
    cria_stages_result result;
    cria_error reason = {0};
    CRIA_TRY(cria_this_machine(command, 1, &one, err));
    if (cria_stages_plan(graph, one, options, &result, &reason) != CRIA_OK) {
        cria_cluster_destroy(one);
        return CRIA_OK;
    }
    if (!command->options->quiet)
        fprintf(stderr, "%d ranks: %.4g s a request; one rank with all threads: %.4g s\n", ranks->size,
                best->chosen.seconds, result.chosen.seconds);
    bool better = result.chosen.seconds < best->chosen.seconds;
    cria_stages_result_deinit(better ? best : &result);
    cria_cluster_destroy(better ? *cluster : one);
    if (better) {
        *best = result;
        *cluster = one;
    }
    return CRIA_OK;
}

/* As JSON, with what a step of one token for every sequence takes after the prompt and half of the answer. */
static cria_status print_plan(const cria_command *command, const cria_stages_result *result,
                              const cria_cluster *cluster, const cria_stages_options *o, cria_text *json,
                              cria_error *err) {
    cria_predicted_plan plan = {.plan = result->plan,
                                .graph = result->graph,
                                .cluster = cluster,
                                .device = result->notes.device,
                                .rate = o->element.rate,
                                .rate_of = o->element.rate_of,
                                .kv = o->element.kv};
    cria_plan_notes notes;
    int replicas = result->chosen.replicas;
    CRIA_TRY(cria_predict_notes(&plan, o->batch / replicas, o->prompt_tokens, o->prompt_tokens + o->new_tokens / 2,
                                command->options->max_num_batched_tokens, &notes, err));
    for (int s = 0; s < notes.stages; s++) notes.stage[s].memory_limit = result->notes.stage[s].memory_limit;
    for (int r = 0; r < notes.ranks; r++) notes.bytes[r] = result->notes.bytes[r];
    notes.replicas = replicas;
    cria_plan_print(result->plan, result->graph, &notes, json);
    cria_plan_notes_deinit(&notes);
    return json->failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan") : CRIA_OK;
}

/* The plan as JSON, and the cluster it is for. */
static cria_status choose(const cria_command *command, cria_ranks_joined *ranks, cria_cluster **cluster,
                          cria_text *json, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_model_config config;
    cria_graph *graph = NULL;
    cria_stages_options options;
    cria_stages_result result = {0};
    CRIA_TRY(cria_read_config(command->path, &config, err));
    CRIA_TRY(cria_model_graph(&config, &graph, err));
    cria_status status = find_rates(command, &config, graph, ranks, err);
    if (status == CRIA_OK) status = set_options(command, ranks, graph, &options, err);
    int replicas = o->data_parallel_size > 1 ? (int)o->data_parallel_size : 1;
    if (status == CRIA_OK && replicas > 1) {
        options.all_devices = true;
        status = keep_first(cluster, ranks->size / replicas, err);
    }
    if (status == CRIA_OK) status = cria_stages_plan(graph, *cluster, &options, &result, err);
    if (status == CRIA_OK) status = try_alone(command, ranks, graph, &options, cluster, &result, err);
    if (status == CRIA_OK) {
        cria_text table;
        cria_text_init(&table);
        cria_plan_table(&result, *cluster, &table);
        if (!table.failed && !o->quiet) fprintf(stderr, "%.*s\n", (int)table.length, table.data);
        cria_text_deinit(&table);
        status = print_plan(command, &result, *cluster, &options, json, err);
    }
    cria_stages_result_deinit(&result);
    cria_graph_destroy(graph);
    return status;
}

/* ---- handing out ---- */

typedef struct {
    cria_error error;
    int64_t length;
} letter;

/* The first rank's plan, or its failure, comes to all. */
static cria_status hand_out(cria_ranks_joined *ranks, cria_status status, const cria_error *why, cria_text *json,
                            cria_error *err) {
    letter l = {.error = *why, .length = (int64_t)json->length};
    l.error.status = status;
    if (ranks->comm) CRIA_TRY(cria_comm_broadcast(ranks->comm, 0, &l, sizeof l, err));
    if (l.error.status != CRIA_OK) {
        l.error.message[sizeof l.error.message - 1] = '\0';
        return cria_fail(err, l.error.status, "%s", l.error.message);
    }
    ranks->plan_json = malloc((size_t)l.length + 1);
    /* A rank without memory for a plan has none for a model: the others hear of it by its end. */
    if (!ranks->plan_json) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the plan");
    if (ranks->rank == 0) memcpy(ranks->plan_json, json->data, (size_t)l.length);
    ranks->plan_json[l.length] = '\0';
    if (!ranks->comm) return CRIA_OK;
    return cria_comm_broadcast(ranks->comm, 0, ranks->plan_json, l.length, err);
}

/* Plans keep to the order of ranks, so that the part of the ranks that a plan needs is in the plan's order. */
static cria_status read_devices(cria_ranks_joined *ranks, cria_error *err) {
    cria_json *json;
    cria_plan_notes notes;
    CRIA_TRY(cria_json_parse(ranks->plan_json, strlen(ranks->plan_json), &json, err));
    cria_status status = cria_plan_check_json(cria_json_root(json), &notes, err);
    cria_json_destroy(json);
    CRIA_TRY(status);
    ranks->needed = notes.ranks;
    ranks->replicas = notes.replicas;
    ranks->device = notes.device;
    notes.device = NULL;
    for (int r = 0; r < ranks->needed && status == CRIA_OK; r++)
        if (ranks->device[r] >= ranks->size || (r && ranks->device[r] <= ranks->device[r - 1]))
            status = cria_fail(err, CRIA_ERR_INTERNAL, "the plan's devices are not in the order of the ranks");
    cria_plan_notes_deinit(&notes);
    return status;
}

static bool is_needed(const cria_ranks_joined *ranks, int rank) {
    for (int r = 0; r < ranks->needed; r++)
        if (ranks->device[r] == rank) return true;
    return false;
}

/* Ranks that are not needed are left out; their processors go to their neighbours. */
static cria_status split(cria_ranks_joined *ranks, cria_error *err) {
    CRIA_TRY(read_devices(ranks, err));
    bool all = ranks->options->data_parallel_size > 1 || ranks->needed * ranks->replicas == ranks->size;
    if (!ranks->comm || all) return CRIA_OK;
    char(*host)[64] = calloc((size_t)ranks->size, sizeof *host);
    int64_t *bytes = calloc((size_t)ranks->size, sizeof *bytes);
    cria_status status =
        host && bytes ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d ranks", ranks->size);
    for (int r = 0; r < ranks->size && status == CRIA_OK; r++) bytes[r] = sizeof *host;
    if (status == CRIA_OK) status = cria_comm_all_gather(ranks->comm, ranks->host, host, bytes, err);
    cria_comm *part = NULL;
    if (status == CRIA_OK) status = cria_comm_split(ranks->comm, is_needed(ranks, ranks->rank) ? 0 : -1, &part, err);
    if (status == CRIA_OK) {
        ranks->share = 0;
        for (int r = 0; r < ranks->size; r++) ranks->share += is_needed(ranks, r) && strcmp(host[r], ranks->host) == 0;
        ranks->world = ranks->comm;
        ranks->comm = part;
        ranks->size = ranks->needed;
        if (part) ranks->rank = cria_comm_rank(part);
    }
    free(host);
    free(bytes);
    return status;
}

cria_status cria_ranks_plan(const cria_command *command, cria_ranks_joined *ranks, cria_error *err) {
    const cria_main_options *o = command->options;
    if (ranks->size == 1 && !cria_plan_is_auto(o, 1)) return CRIA_OK;
    cria_machine machine;
    CRIA_TRY(cria_machine_find(o, &machine, err));
    int threads = cria_machine_threads(&machine, o, ranks->share);
    CRIA_TRY(cria_ranks_cluster(command, ranks, threads, &ranks->cluster, err));
    if (!cria_plan_is_auto(o, ranks->size)) return CRIA_OK;
    cria_text json;
    cria_text_init(&json);
    cria_error why = {0};
    cria_status status = ranks->rank == 0 ? choose(command, ranks, &ranks->cluster, &json, &why) : CRIA_OK;
    status = hand_out(ranks, status, &why, &json, err);
    cria_text_deinit(&json);
    return status == CRIA_OK ? split(ranks, err) : status;
}

static cria_status wait_idle(const cria_ranks_joined *ranks, cria_error *err) {
    char end;
    return cria_comm_await_broadcast(ranks->world, 0, &end, 1, err);
}

cria_status cria_ranks_run(const cria_command *command, cria_ranks_body *body, void *context, cria_error *err) {
    cria_ranks_joined ranks;
    CRIA_TRY(cria_ranks_launch(command, err));
    cria_status status = cria_ranks_join(command, &ranks, err);
    if (status == CRIA_OK) status = cria_ranks_plan(command, &ranks, err);
    if (status == CRIA_OK)
        status = cria_ranks_is_idle(&ranks) ? wait_idle(&ranks, err) : body(command, &ranks, context, err);
    return cria_ranks_leave(&ranks, command, status, err);
}

bool cria_ranks_predicted(const cria_command *command, cria_ranks_joined *ranks, const cria_runtime *runtime,
                          cria_predicted_plan *out) {
    cria_error ignored = {0};
    if (!ranks->cluster ||
        find_rates(command, cria_runtime_config(runtime), cria_runtime_graph(runtime), ranks, &ignored) != CRIA_OK)
        return false;
    cria_runtime_summary s;
    cria_runtime_summarise(runtime, &s);
    *out = (cria_predicted_plan){.plan = cria_runtime_plan(runtime),
                                 .graph = cria_runtime_graph(runtime),
                                 .cluster = ranks->cluster,
                                 .device = ranks->device,
                                 .rate = ranks->rate,
                                 .rate_of = ranks->rate_of,
                                 .kv = cria_kv_element_bytes(s.kv_type, ranks->rate, cria_runtime_graph(runtime))};
    return cria_cluster_devices(ranks->cluster) >= cria_plan_ranks(out->plan);
}
