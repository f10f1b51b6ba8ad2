/* Options of the cria program: one struct, one table (server/options.c), used by every command. Immutable once parsed.
 */
#ifndef CRIA_SERVER_OPTIONS_H
#define CRIA_SERVER_OPTIONS_H

#include "base/option.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CRIA_COMMAND_SERVE = 1,
    CRIA_COMMAND_GENERATE = 2,
    CRIA_COMMAND_BENCH = 4,
    CRIA_COMMAND_TOKENIZE = 8,
    CRIA_COMMAND_INSPECT = 16,
    CRIA_COMMAND_PLAN = 32,
    CRIA_COMMAND_PROFILE = 64,
    CRIA_COMMAND_SOLVE = 128,
    CRIA_COMMAND_RUNS = CRIA_COMMAND_SERVE | CRIA_COMMAND_GENERATE | CRIA_COMMAND_BENCH | CRIA_COMMAND_INSPECT
};

typedef struct {
    /* the model and how it runs */
    const char *dtype, *kv_cache_dtype, *isa, *block_size;
    int64_t threads, max_model_len, max_num_seqs, max_num_batched_tokens, kv_cache_memory, max_logprobs;
    bool enable_prefix_caching, quiet;
    const char *log_level;
    /* ranks */
    int64_t ranks, inspect_rank, tensor_parallel, pipeline_parallel, data_parallel_size;
    const char *plan, *hostfile, *comm;
    bool restart_ranks;
    /* serve */
    const char *host, *served_model_name, *api_key, *allowed_origins, *chat_template, *generation_config;
    int64_t port, max_connections, max_waiting, max_waiting_tokens, drain_seconds;
    /* generate, tokenize */
    const char *prompt, *prompt_ids, *stop;
    int64_t max_tokens, top_k, seed, logprobs;
    double temperature, top_p, min_p, repetition_penalty;
    bool json, echo, ignore_eos, no_special;
    /* bench */
    int64_t prompt_tokens, new_tokens, repeat, steps_under_way;
    const char *batch, *thread_list;
    bool profile, calibrate;
    /* inspect */
    bool program;
    /* plan, profile */
    const char *cluster, *objective, *net, *out, *graph_out, *svg, *check;
    const char *optimizer, *plan_type;
    int64_t plan_batch, global_batch, sequence_length, kv_budget;
    const char *lengths, *schedule;
    double plan_rate;
    bool published, ablation, quick;
    /* plan --net: the intra-operator pass alone */
    const char *mesh, *alpha, *beta;
    int64_t batch_axis, memory_limit;
    bool allow_idle, free_plan;
    bool forbid_all_gather, forbid_all_to_all, reduce_scatter, data_parallel;
    double solve_seconds;
    /* solve */
    int64_t iterations;
} cria_main_options;

/* The most entries of a row's top list: --max-logprobs, and at least what Alpa's /logprobs may ask for. */
static inline int64_t cria_options_top_logprobs(const cria_main_options *options) {
    const int64_t next = 100;
    return options->max_logprobs > next ? options->max_logprobs : next;
}

extern const cria_option cria_option_table[];
extern const size_t cria_option_count;

#endif
