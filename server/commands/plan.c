/* cria plan: cuts a model over a cluster; with --net and --mesh, runs the intra-operator pass alone. */
#include "base/file.h"
#include "models/family.h"
#include "parallel/lower/traffic.h"
#include "parallel/nets/network.h"
#include "parallel/plan/plan_svg.h"
#include "parallel/plan/plan_table.h"
#include "parallel/plan/serving.h"
#include "server/commands/devices.h"
#include "server/commands/plan_published.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_GRAPHS = 64 };

/* What is planned: a model whose dims are symbolic, or a net that is built for every size of a micro-batch. */
typedef struct {
    cria_graph *graph;
    cria_type type;          /* the checkpoint's */
    cria_weight_rates rates; /* as the runtime would hold them; of == NULL: where it was not measured */
    const char *net;
    bool batched; /* the net has a batch to set */
    struct {
        int64_t micro_batch;
        cria_graph *graph;
    } built[MOST_GRAPHS];
    int count;
} plan_model;

static cria_status build_net(const plan_model *m, int64_t micro_batch, cria_graph **out, cria_error *err) {
    char spec[1024];
    int length = m->batched ? snprintf(spec, sizeof spec, "%s%cbatch=%lld,train=0,loss=1", m->net,
                                       strchr(m->net, ':') ? ',' : ':', (long long)micro_batch)
                            : snprintf(spec, sizeof spec, "%s", m->net);
    if (length < 0 || (size_t)length >= sizeof spec) return cria_fail(err, CRIA_ERR_ARGUMENT, "--net: too long");
    return cria_network_create(spec, out, err);
}

static const cria_graph *graph_of(void *context, int64_t micro_batch, cria_error *err) {
    plan_model *m = context;
    for (int i = 0; i < m->count; i++)
        if (m->built[i].micro_batch == micro_batch) return m->built[i].graph;
    if (m->count == MOST_GRAPHS) {
        cria_fail(err, CRIA_ERR_INTERNAL, "more than %d sizes of a micro-batch", MOST_GRAPHS);
        return NULL;
    }
    if (build_net(m, micro_batch, &m->built[m->count].graph, err) != CRIA_OK) return NULL;
    m->built[m->count].micro_batch = micro_batch;
    return m->built[m->count++].graph;
}

static void close_model(plan_model *m) {
    for (int i = 0; i < m->count; i++) cria_graph_destroy(m->built[i].graph);
    cria_graph_destroy(m->graph);
    free(m->rates.of);
}

/* `measured`: the devices run this program's kernels, which hold weights in types of their own. */
static cria_status open_model(const cria_command *command, bool measured, plan_model *m, cria_error *err) {
    const cria_main_options *o = command->options;
    bool train = strcmp(o->objective, "train") == 0;
    *m = (plan_model){.net = o->net, .type = CRIA_F16};
    if (o->net) {
        if (!train) return cria_fail(err, CRIA_ERR_ARGUMENT, "--net is for --objective train; give a MODEL to serve");
        m->batched =
            strncmp(o->net, "gpt", 3) == 0 || strncmp(o->net, "moe", 3) == 0 || strncmp(o->net, "wide-resnet", 11) == 0;
        return build_net(m, 1, &m->graph, err);
    }
    if (!command->path) return cria_fail(err, CRIA_ERR_ARGUMENT, "give a MODEL, or --net NET");
    cria_model_config config;
    CRIA_TRY(cria_read_config(command->path, &config, err));
    CRIA_TRY(cria_model_graph(&config, &m->graph, err));
    m->type = config.type;
    if (!train && measured) CRIA_TRY(cria_weight_rates_find(command, &config, m->graph, &m->rates, err));
    if (train) cria_graph_set_sequence(m->graph, o->sequence_length);
    return CRIA_OK;
}

/* Bytes beside each parameter (cria_stages_options). */
static double optimizer_state(const char *name) {
    return strcmp(name, "adam") == 0 ? 8 : strcmp(name, "momentum") == 0 ? 4 : 0;
}

static cria_status set_options(const cria_command *command, plan_model *m, cria_stages_options *s, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_stages_defaults(s);
    for (int k = CRIA_OBJECTIVE_LATENCY; k <= CRIA_OBJECTIVE_TRAIN; k++)
        if (strcmp(o->objective, cria_objective_name((cria_objective)k)) == 0) s->objective = (cria_objective)k;
    bool train = s->objective == CRIA_OBJECTIVE_TRAIN;
    bool given = strcmp(o->plan_type, "auto") != 0;
    const char *type = given ? o->plan_type : cria_type_name(m->type);
    bool here = !given && m->rates.of;
    s->element.rate = here ? m->rates.most : CRIA_RATE_COUNT;
    for (int r = 0; s->element.rate == CRIA_RATE_COUNT && r < CRIA_RATE_COUNT; r++)
        if (strcmp(type, cria_rate_name((cria_rate)r)) == 0) s->element.rate = (cria_rate)r;
    if (s->element.rate == CRIA_RATE_COUNT) /* quantised checkpoints */
        s->element.rate = train ? CRIA_RATE_F16 : CRIA_RATE_INT8;
    s->element.weight = cria_rate_bytes(s->element.rate);
    /* The executor keeps activations in f32 when serving; training keeps them as narrow as weights. */
    s->element.activation = train ? cria_rate_bytes(s->element.rate) : 4;
    if (here || strcmp(o->kv_cache_dtype, "auto") != 0)
        s->element.kv = cria_kv_element_bytes(o->kv_cache_dtype, s->element.rate, m->graph);
    if (here) s->element.rate_of = m->rates.of;
    if (train && s->element.rate >= CRIA_RATE_INT8)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "--type int8 is for serving only");
    s->prompt_tokens = o->prompt_tokens;
    s->new_tokens = o->new_tokens;
    s->batch = o->plan_batch;
    s->kv_budget = (double)o->kv_budget;
    if (strcmp(o->schedule, "auto") != 0)
        s->schedule = strcmp(o->schedule, "gpipe") == 0 ? CRIA_SCHEDULE_GPIPE : CRIA_SCHEDULE_1F1B;
    if (o->lengths) CRIA_TRY(cria_serving_lengths(o->lengths, s, err));
    s->global_batch = o->global_batch;
    s->sequence = o->sequence_length;
    s->optimizer_state = optimizer_state(o->optimizer);
    if (m->batched) {
        s->graph_of = graph_of;
        s->context = m;
    }
    return CRIA_OK;
}

static cria_status check_plan(const cria_command *command, cria_error *err) {
    const cria_main_options *o = command->options;
    cria_plan_notes notes = {0};
    cria_status status;
    if (command->path || o->net) {
        plan_model m = {0};
        status = open_model(command, false, &m, err);
        cria_plan *plan = NULL;
        if (status == CRIA_OK) status = cria_plan_read(o->check, m.graph, &plan, &notes, err);
        cria_plan_destroy(plan);
        close_model(&m);
    } else {
        cria_json *json;
        cria_error inner = {0};
        CRIA_TRY(cria_json_parse_file(o->check, (size_t)1 << 30, &json, err));
        status = cria_plan_check_json(cria_json_root(json), &notes, &inner);
        cria_json_destroy(json);
        if (status != CRIA_OK) cria_fail(err, status, "%s: %s", o->check, inner.message);
    }
    if (status != CRIA_OK) return status;
    for (int s = 0; status == CRIA_OK && s < notes.stages; s++)
        if (notes.stage[s].memory_limit > 0 && notes.stage[s].memory > notes.stage[s].memory_limit)
            status = cria_fail(err, CRIA_ERR_INFEASIBLE, "%s: stage %d: %lld bytes of memory, over the limit of %lld",
                               o->check, s, (long long)notes.stage[s].memory, (long long)notes.stage[s].memory_limit);
    if (status == CRIA_OK)
        printf("%s: a good plan: %d stages on %d ranks, %s, %g s a step%s\n", o->check, notes.stages, notes.ranks,
               cria_objective_name(notes.objective), notes.step_seconds,
               command->path || o->net ? "" : " (give a MODEL to check the operators too)");
    cria_plan_notes_deinit(&notes);
    return status;
}

static cria_status write_file(const char *path, const cria_text *text, cria_error *err) {
    if (text->failed) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the picture");
    FILE *file = fopen(path, "w");
    if (!file) return cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
    bool good = fwrite(text->data, 1, text->length, file) == text->length;
    good = fclose(file) == 0 && good;
    return good ? CRIA_OK : cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(errno));
}

/* What the planner knows of the traffic are costs; what will be sent, its ranks' programs say. */
static cria_status count_traffic(cria_stages_result *result, cria_error *err) {
    const cria_plan_notes *n = &result->notes;
    cria_status status = cria_plan_traffic(result->graph, result->plan, n->tokens, n->tokens, n->bytes, err);
    if (status != CRIA_OK) cria_stages_result_deinit(result);
    return status;
}

static cria_status plan_model_on(const cria_command *command, plan_model *m, const cria_cluster *cluster,
                                 cria_error *err) {
    const cria_main_options *o = command->options;
    cria_stages_options options;
    cria_stages_result result;
    CRIA_TRY(set_options(command, m, &options, err));
    bool by_rate = o->plan_rate > 0 && options.objective != CRIA_OBJECTIVE_TRAIN;
    CRIA_TRY(by_rate ? cria_serving_plan(m->graph, cluster, &options, o->plan_rate, &result, err)
                     : cria_stages_plan(m->graph, cluster, &options, &result, err));
    if (command->path && options.objective != CRIA_OBJECTIVE_TRAIN) CRIA_TRY(count_traffic(&result, err));
    cria_text text;
    cria_text_init(&text);
    if (o->json)
        cria_plan_table_json(&result, &text);
    else
        cria_plan_table(&result, cluster, &text);
    cria_status status = text.failed ? cria_fail(err, CRIA_ERR_MEMORY, "no memory for the output") : CRIA_OK;
    if (status == CRIA_OK) fwrite(text.data, 1, text.length, stdout);
    if (status == CRIA_OK && o->out) status = cria_plan_write(o->out, result.plan, result.graph, &result.notes, err);
    if (status == CRIA_OK && o->svg) {
        cria_text_clear(&text);
        cria_plan_svg(&result, cluster, &text);
        status = write_file(o->svg, &text, err);
    }
    cria_text_deinit(&text);
    cria_stages_result_deinit(&result);
    return status;
}

cria_status cria_command_plan(const cria_command *command, cria_error *err) {
    const cria_main_options *o = command->options;
    if (o->net && o->mesh) return cria_command_plan_net(command, err);
    if (o->check) return check_plan(command, err);
    cria_cluster *cluster;
    bool as_published = (o->published || o->ablation) && strcmp(o->cluster, "this") == 0;
    CRIA_TRY(cria_open_cluster(command, as_published ? "p3.16xlarge" : o->cluster, &cluster, err));
    plan_model model = {0};
    cria_status status;
    if (o->ablation) {
        status = cria_plan_ablation(cluster, o->json, err);
    } else if (o->published) {
        status = cria_plan_published(cluster, o->json, !o->json, err);
    } else {
        bool measured = cria_cluster_type(cluster, cria_cluster_type_of(cluster, 0))->samples > 0;
        status = open_model(command, measured, &model, err);
        if (status == CRIA_OK) status = plan_model_on(command, &model, cluster, err);
    }
    close_model(&model);
    cria_cluster_destroy(cluster);
    return status;
}
