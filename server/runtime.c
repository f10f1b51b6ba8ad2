/* Puts a model together: each object in the order that its memory needs, taken apart in the reverse. */
#include "server/runtime.h"

#include "base/file.h"
#include "models/family.h"
#include "models/gguf.h"
#include "models/source.h"
#include "models/weights/weights.h"
#include "parallel/lower/lower.h"
#include "parallel/plan/plan.h"
#include "parallel/plan/plan_file.h"
#include "parallel/plan/regular.h"
#include "server/agree.h"
#include "server/loading.h"
#include "server/model_tokenizer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cria_runtime {
    cria_model_config config;
    cria_weights *weights;
    cria_checkpoint checkpoint;
    cria_graph *graph;
    cria_plan *plan;
    cria_plan_notes notes;
    int64_t *stage_bytes;
    cria_program *program;
    cria_panel_type *panel;
    cria_kernels kernels;
    cria_pool *pool;
    cria_executor *executor;
    cria_comm *comm; /* borrowed; NULL: alone */
    cria_ranks ranks;
    cria_group_runner *group;
    int rank, size, replicas;
    cria_tokenizer *tokenizer;
    cria_batch_limits limits;
    cria_type kv_type;
    int64_t block_tokens, blocks, max_model_len, max_waiting, max_waiting_tokens;
    int threads;
    bool prefix_cache;
};

static int available_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

static cria_status open_config(cria_runtime *r, const char *path, cria_error *err) {
    const cria_gguf *gguf = cria_weights_gguf(r->weights);
    if (gguf) return cria_config_from_gguf(gguf, &r->config, err);
    char file[4096];
    CRIA_TRY(cria_path_join(path, "config.json", file, sizeof file, err));
    if (cria_path_is_file(file)) return cria_config_read(path, &r->config, err);
    return cria_config_from_alpa_name(path, &r->config, err);
}

static cria_status open_tokenizer(cria_runtime *r, const char *path, bool required, cria_log *log, cria_error *err) {
    const cria_gguf *gguf = cria_weights_gguf(r->weights);
    cria_error local = {0};
    cria_status status = gguf ? cria_model_tokenizer_from_gguf(gguf, &r->tokenizer, &local)
                              : cria_tokenizer_open(path, &r->tokenizer, &local);
    if (status == CRIA_OK) return CRIA_OK;
    r->tokenizer = NULL;
    if (required) return cria_fail(err, status, "tokenizer: %s", local.message);
    cria_log_write(log, CRIA_LOG_WARNING, "no tokenizer: %s", local.message);
    return CRIA_OK;
}

static int64_t bytes_per_block(const cria_runtime *r) {
    return cria_executor_kv_bytes(r->program, r->kv_type, r->block_tokens, 1);
}

/* Every rank has the same blocks, as many as the one with the least memory for them can hold. */
static cria_status agree_on_blocks(cria_runtime *r, cria_error *err) {
    int64_t all[CRIA_COMM_MAX_RANKS], bytes[CRIA_COMM_MAX_RANKS];
    if (!r->comm) return CRIA_OK;
    for (int i = 0; i < r->size; i++) bytes[i] = sizeof *all;
    CRIA_TRY(cria_comm_all_gather(r->comm, &r->blocks, all, bytes, err));
    for (int i = 0; i < r->size; i++)
        if (all[i] < r->blocks) r->blocks = all[i];
    return CRIA_OK;
}

/* How many blocks of ours the plan's stages all have room for; 0: it does not say. */
static int64_t planned_blocks(const cria_runtime *r) {
    int64_t tokens = r->notes.stages > 0 ? INT64_MAX : 0;
    for (int i = 0; i < r->notes.stages; i++) {
        int64_t blocks = r->notes.stage[i].kv_blocks;
        if (blocks > INT64_MAX / r->notes.block_tokens) continue;
        if (blocks * r->notes.block_tokens < tokens) tokens = blocks * r->notes.block_tokens;
    }
    return tokens / r->block_tokens;
}

/* How many KV blocks: what the user gave, else what the plan says; else what max_num_seqs sequences of full length
 * need, at most 512 MiB or one full sequence, whichever is more. Never more than those sequences need. */
static cria_status size_kv(cria_runtime *r, const cria_main_options *options, const cria_runtime_request *request,
                           cria_log *log, cria_error *err) {
    int64_t per_sequence = (r->max_model_len + r->block_tokens - 1) / r->block_tokens, per_block = bytes_per_block(r);
    int64_t want = per_sequence * options->max_num_seqs, budget = options->kv_cache_memory;
    int64_t planned = budget == 0 && request->plan_sizes_kv ? planned_blocks(r) : 0;
    if (planned > 0) {
        budget = per_block > 0 && planned > INT64_MAX / per_block ? INT64_MAX : planned * per_block;
    } else if (budget == 0) {
        budget = (int64_t)512 << 20;
        int64_t available = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE) / 2;
        if (per_sequence * per_block > budget) budget = per_sequence * per_block;
        if (available > 0 && budget > available / r->size) budget = available / r->size;
    }
    r->blocks = per_block > 0 && budget / per_block < want ? budget / per_block : want;
    CRIA_TRY(agree_on_blocks(r, err));
    if (r->blocks < 1)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "kv-cache-memory: %lld bytes, but one block of %lld tokens needs %lld",
                         (long long)budget, (long long)r->block_tokens, (long long)per_block);
    if (r->blocks >= per_sequence) return CRIA_OK;
    if (options->max_model_len > 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT,
                         "kv-cache-memory: %lld bytes hold %lld tokens, max-model-len %lld needs %lld bytes",
                         (long long)budget, (long long)(r->blocks * r->block_tokens), (long long)r->max_model_len,
                         (long long)(per_sequence * per_block));
    r->max_model_len = r->blocks * r->block_tokens;
    cria_log_write(log, CRIA_LOG_WARNING, "max-model-len is cut to %lld tokens, which is what the KV cache holds",
                   (long long)r->max_model_len);
    return CRIA_OK;
}

static cria_status choose_lengths(cria_runtime *r, const cria_main_options *options, cria_error *err) {
    r->block_tokens = strtoll(options->block_size, NULL, 10);
    r->max_model_len = options->max_model_len ? options->max_model_len : r->config.max_positions;
    if (r->max_model_len > r->config.max_positions)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "max-model-len: %lld is over the model's %lld positions",
                         (long long)r->max_model_len, (long long)r->config.max_positions);
    int64_t tokens = options->max_num_batched_tokens;
    if (tokens < options->max_num_seqs) tokens = options->max_num_seqs;
    r->limits = (cria_batch_limits){.tokens = tokens,
                                    .sequences = options->max_num_seqs,
                                    .rows = tokens,
                                    .history = options->max_num_seqs * 4096,
                                    .biases = options->max_num_seqs * 1024 + 65536,
                                    .allowed = options->max_num_seqs * 1024 + r->config.vocab,
                                    .top_logprobs = cria_options_top_logprobs(options)};
    return CRIA_OK;
}

/* The same on every rank, whatever part of the model it has. */
static bool any_narrow_panel(const cria_runtime *r) {
    for (int i = 0; i < cria_graph_tensors(r->graph); i++)
        if (r->panel[i] != CRIA_PANEL_F32) return true;
    return false;
}

static cria_status make_plan(cria_runtime *r, const cria_runtime_request *request, cria_error *err) {
    int size = r->size / r->replicas;
    if (size < 1 || size * r->replicas != r->size)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "%d ranks cannot be %d replicas of equal size", r->size, r->replicas);
    if (size == 1 && !request->make_plan) return cria_plan_create_single(r->graph, &r->plan, err);
    if (!request->make_plan) return cria_plan_create_regular(r->graph, 1, 1, size, &r->plan, err);
    CRIA_TRY(request->make_plan(request->plan_context, r->graph, size, &r->plan, &r->notes, err));
    if (cria_plan_ranks(r->plan) == size) return CRIA_OK;
    return cria_fail(err, CRIA_ERR_ARGUMENT, "the plan is for %d ranks, but %d were started", cria_plan_ranks(r->plan),
                     size);
}

static cria_status build_program(cria_runtime *r, const cria_main_options *options, const cria_runtime_request *request,
                                 cria_error *err) {
    CRIA_TRY(cria_model_graph(&r->config, &r->graph, err));
    CRIA_TRY(cria_checkpoint_check(&r->checkpoint, r->graph, err));
    r->panel = calloc((size_t)cria_graph_tensors(r->graph), sizeof *r->panel);
    if (!r->panel) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d tensors", cria_graph_tensors(r->graph));
    CRIA_TRY(cria_choose_panels(&r->checkpoint, r->graph, options->dtype, r->kernels.coarse_outputs, r->panel, err));
    for (int t = 0; t < cria_graph_tensors(r->graph); t++) r->panel[t] = r->kernels.panel[r->panel[t]];
    CRIA_TRY(make_plan(r, request, err));
    cria_lower_options lower = {.max_tokens = r->limits.tokens,
                                .max_rows = r->limits.rows,
                                .max_positions = r->max_model_len,
                                .panel = r->panel};
    if (r->replicas > 1 && r->notes.stages == 0)
        CRIA_TRY(cria_plan_notes_init(&r->notes, cria_plan_ranks(r->plan), cria_plan_stages(r->plan), err));
    r->notes.replicas = r->replicas;
    return cria_lower(r->graph, r->plan, cria_runtime_plan_rank(r), &lower, &r->program, err);
}

static cria_type kv_type_of(const cria_runtime *r, const char *name) {
    if (strcmp(name, "int8") == 0) return CRIA_I8;
    if (strcmp(name, "auto") == 0) return any_narrow_panel(r) ? CRIA_BF16 : CRIA_F32;
    return strcmp(name, "bf16") == 0 ? CRIA_BF16 : CRIA_F32;
}

/* What each rank can do by itself. */
static cria_status prepare(cria_runtime *r, const char *path, const cria_main_options *options,
                           const cria_runtime_request *request, cria_log *log, cria_error *err) {
    cria_isa isa;
    CRIA_TRY(cria_isa_from_name(options->isa, &isa, err));
    cria_kernels_select(isa, &r->kernels);
    CRIA_TRY(cria_weights_open(path, &r->weights, err));
    CRIA_TRY(open_config(r, path, err));
    r->checkpoint = (cria_checkpoint){r->weights, &r->config};
    CRIA_TRY(choose_lengths(r, options, err));
    CRIA_TRY(build_program(r, options, request, err));
    r->kv_type = kv_type_of(r, options->kv_cache_dtype);
    r->prefix_cache = options->enable_prefix_caching;
    /* Who has no such options is the only client of its engine: bench, with at most 1024 sequences at once. */
    r->max_waiting = options->max_waiting ? options->max_waiting : 1024;
    r->max_waiting_tokens = options->max_waiting_tokens ? options->max_waiting_tokens : 1000000;
    r->threads = request->threads ? request->threads : (int)options->threads;
    if (r->threads == 0) r->threads = available_cpus() / (request->share > 1 ? request->share : 1);
    if (r->threads < 1) r->threads = 1;
    return r->rank == 0 ? open_tokenizer(r, path, request->needs_tokenizer, log, err) : CRIA_OK;
}

static uint64_t hash_plan(const cria_runtime *r) {
    cria_text text;
    cria_text_init(&text);
    cria_plan_print(r->plan, r->graph, NULL, &text);
    uint64_t hash = cria_hash_bytes(0, text.data, text.length);
    cria_text_deinit(&text);
    return hash;
}

/* All ranks see whether one has failed, and whether they are about to run the same model in the same way. */
static cria_status agree(cria_runtime *r, cria_status status, const cria_error *why, const cria_main_options *options,
                         const cria_runtime_request *request, cria_error *err) {
    cria_agreement a = {.name = {"versions of cria", "weights", "models", "plans", "limits (options)"}};
    if (status == CRIA_OK) {
        a.hash[0] = cria_hash_bytes(0, request->version ? request->version : "",
                                    request->version ? strlen(request->version) : 0);
        a.hash[1] = cria_hash_weights(r->weights);
        a.hash[2] = cria_graph_hash(r->graph, 0, cria_graph_ops(r->graph));
        a.hash[3] = hash_plan(r);
        const int64_t limits[] = {r->limits.tokens,       r->limits.sequences, r->limits.rows,
                                  r->limits.history,      r->limits.biases,    r->limits.allowed,
                                  r->limits.top_logprobs, r->block_tokens,     r->max_model_len,
                                  (int64_t)r->kv_type,    r->replicas};
        a.hash[4] = cria_hash_bytes(cria_hash_bytes(0, limits, sizeof limits), options->dtype, strlen(options->dtype));
    }
    return cria_agree(r->comm, status, why, &a, err);
}

static cria_status finish_load(cria_runtime *r, const cria_main_options *options, const cria_runtime_request *request,
                               cria_error *err) {
    CRIA_TRY(cria_pool_create(r->threads, &r->pool, err));
    cria_param_source source = cria_checkpoint_source(&r->checkpoint);
    cria_loading *loading;
    FILE *progress = options->quiet || r->rank > 0 ? NULL : request->progress;
    CRIA_TRY(cria_loading_begin(r->comm, r->program->weight_bytes, progress, &loading, err));
    cria_executor_options execute = {.limits = r->limits,
                                     .block_tokens = r->block_tokens,
                                     .blocks = r->blocks,
                                     .kv_type = r->kv_type,
                                     .loaded = cria_loading_advance,
                                     .loaded_context = loading,
                                     .ranks = r->comm ? &r->ranks : NULL};
    cria_status status =
        cria_executor_create(r->graph, r->program, &r->kernels, r->pool, &source, &execute, &r->executor, err);
    cria_loading_end(loading);
    CRIA_TRY(status);
    if (!r->comm) return CRIA_OK;
    return cria_group_create(r->executor, &r->ranks, r->plan, &r->limits, r->block_tokens, &r->group, err);
}

/* What the fullest rank of each stage holds, on every rank. */
static cria_status share_bytes(cria_runtime *r, cria_error *err) {
    const cria_program *p = r->program;
    int64_t mine = p->weight_bytes + bytes_per_block(r) * r->blocks + p->workspace_bytes;
    int64_t all[CRIA_COMM_MAX_RANKS] = {mine}, each[CRIA_COMM_MAX_RANKS];
    r->stage_bytes = calloc((size_t)cria_plan_stages(r->plan), sizeof *r->stage_bytes);
    if (!r->stage_bytes) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d stages", cria_plan_stages(r->plan));
    for (int i = 0; i < r->size; i++) each[i] = sizeof mine;
    if (r->comm) CRIA_TRY(cria_comm_all_gather(r->comm, &mine, all, each, err));
    for (int i = 0; i < r->size; i++) {
        int64_t *most = &r->stage_bytes[cria_plan_stage_of_rank(r->plan, i % cria_plan_ranks(r->plan))];
        if (all[i] > *most) *most = all[i];
    }
    return CRIA_OK;
}

static cria_status open_runtime(cria_runtime *r, const char *path, const cria_main_options *options,
                                const cria_runtime_request *request, cria_log *log, cria_error *err) {
    r->comm = request->comm;
    r->size = r->comm ? cria_comm_size(r->comm) : request->ranks > 1 ? request->ranks : 1;
    r->rank = r->comm ? cria_comm_rank(r->comm) : request->rank;
    r->replicas = request->replicas > 1 ? request->replicas : 1;
    cria_error local = {0};
    cria_status status = prepare(r, path, options, request, log, &local);
    if (r->comm)
        CRIA_TRY(agree(r, status, &local, options, request, err));
    else if (status != CRIA_OK)
        return cria_fail(err, status, "%s", local.message);
    CRIA_TRY(size_kv(r, options, request, log, err));
    r->limits.blocks_per_sequence = (r->max_model_len + r->block_tokens - 1) / r->block_tokens;
    if (request->graph_only) return CRIA_OK;
    CRIA_TRY(share_bytes(r, err));
    if (!r->comm) return finish_load(r, options, request, err);
    CRIA_TRY(cria_ranks_create(r->comm, r->plan, r->replicas, &r->ranks, err));
    status = finish_load(r, options, request, &local);
    return cria_agree(r->comm, status, &local, NULL, err);
}

cria_status cria_runtime_open(const char *path, const cria_main_options *options, const cria_runtime_request *request,
                              cria_log *log, cria_runtime **out, cria_error *err) {
    cria_runtime *r = calloc(1, sizeof *r);
    if (!r) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the runtime");
    cria_status status = open_runtime(r, path, options, request, log, err);
    if (status != CRIA_OK) {
        cria_runtime_close(r);
        return status;
    }
    *out = r;
    return CRIA_OK;
}

void cria_runtime_close(cria_runtime *r) {
    if (!r) return;
    cria_group_destroy(r->group);
    cria_executor_destroy(r->executor);
    cria_ranks_destroy(&r->ranks);
    cria_pool_destroy(r->pool);
    cria_tokenizer_destroy(r->tokenizer);
    cria_program_destroy(r->program);
    cria_plan_destroy(r->plan);
    cria_plan_notes_deinit(&r->notes);
    free(r->stage_bytes);
    cria_graph_destroy(r->graph);
    cria_weights_close(r->weights);
    free(r->panel);
    free(r);
}

const cria_model_config *cria_runtime_config(const cria_runtime *r) {
    return &r->config;
}
const cria_graph *cria_runtime_graph(const cria_runtime *r) {
    return r->graph;
}
const cria_program *cria_runtime_program(const cria_runtime *r) {
    return r->program;
}
cria_executor *cria_runtime_executor(const cria_runtime *r) {
    return r->executor;
}
const cria_plan *cria_runtime_plan(const cria_runtime *r) {
    return r->plan;
}
const cria_plan_notes *cria_runtime_plan_notes(const cria_runtime *r) {
    return r->notes.stages > 0 ? &r->notes : NULL;
}
const int64_t *cria_runtime_stage_bytes(const cria_runtime *r) {
    return r->stage_bytes;
}
cria_group_runner *cria_runtime_group(const cria_runtime *r) {
    return r->group;
}
int cria_runtime_replicas(const cria_runtime *r) {
    return r->replicas;
}

int cria_runtime_plan_rank(const cria_runtime *r) {
    return r->rank % cria_plan_ranks(r->plan);
}

cria_runner cria_runtime_runner(const cria_runtime *r, int replica) {
    return r->group ? cria_group_as_runner(r->group, replica) : cria_executor_runner(r->executor);
}

cria_status cria_runtime_start_engine(const cria_runtime *r, cria_deliver *deliver, void *deliver_context,
                                      cria_log *log, cria_engine **out, cria_error *err) {
    cria_engine_config config;
    cria_runner *runners = calloc((size_t)r->replicas, sizeof *runners);
    if (!runners) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d replicas", r->replicas);
    for (int i = 0; i < r->replicas; i++) runners[i] = cria_runtime_runner(r, i);
    cria_runtime_engine_config(r, &config);
    cria_status status =
        cria_engine_create_replicas(&config, runners, r->replicas, deliver, deliver_context, log, out, err);
    free(runners);
    return status;
}
const cria_tokenizer *cria_runtime_tokenizer(const cria_runtime *r) {
    return r->tokenizer;
}

const char *cria_runtime_chat_template(const cria_runtime *r) {
    const cria_gguf *gguf = cria_weights_gguf(r->weights);
    const char *text = NULL;
    if (gguf && cria_gguf_get_string(gguf, "tokenizer.chat_template", NULL, &text, NULL) != CRIA_OK) return NULL;
    return text;
}

/* Chat checkpoints often have their end of turn in the tokenizer alone; vLLM stops at it too. */
static void add_eos(cria_engine_config *config, int32_t id) {
    const int most = (int)(sizeof config->eos / sizeof *config->eos);
    if (id < 0 || id >= config->vocab || config->eos_count == most) return;
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos[i] == id) return;
    }
    config->eos[config->eos_count++] = id;
}

void cria_runtime_engine_config(const cria_runtime *r, cria_engine_config *out) {
    *out = (cria_engine_config){.max_model_len = r->max_model_len,
                                .block_tokens = r->block_tokens,
                                .blocks = r->blocks,
                                .vocab = r->config.vocab,
                                .eos_count = r->config.eos_count,
                                .prefix_cache = r->prefix_cache,
                                .max_waiting = r->max_waiting,
                                .max_waiting_prompt_tokens = r->max_waiting_tokens,
                                .limits = r->limits};
    for (int i = 0; i < r->config.eos_count; i++) out->eos[i] = (int32_t)r->config.eos[i];
    add_eos(out, r->tokenizer ? cria_tokenizer_eos(r->tokenizer) : -1);
}

void cria_runtime_summarise(const cria_runtime *r, cria_runtime_summary *out) {
    int64_t bytes[CRIA_PANEL_COUNT] = {0};
    cria_panel_type most = CRIA_PANEL_F32;
    for (int i = 0; i < r->program->weight_count; i++) {
        const cria_weight_spec *w = &r->program->weights[i];
        if (w->kind != CRIA_WEIGHT_PANELS) continue;
        cria_panel_type layout = cria_panel_layout(w->panel);
        bytes[layout] += w->bytes;
        if (bytes[layout] > bytes[most]) most = layout;
    }
    *out = (cria_runtime_summary){.weight_bytes = r->program->weight_bytes,
                                  .kv_bytes = bytes_per_block(r) * r->blocks,
                                  .workspace_bytes = r->program->workspace_bytes,
                                  .kv_blocks = r->blocks,
                                  .block_tokens = r->block_tokens,
                                  .max_model_len = r->max_model_len,
                                  .threads = r->threads,
                                  .isa = r->kernels.name,
                                  .weight_type = cria_panel_type_name(most),
                                  .kv_type = r->kv_type == CRIA_I8 ? "int8" : cria_type_name(r->kv_type)};
}
