/* Runtime: a loaded model ready to step: configuration, weights, graph, plan, program, executor, tokenizer.
 *
 * What every command that runs a model shares. Start-up thread; afterwards its parts follow their own headers. */
#ifndef CRIA_SERVER_RUNTIME_H
#define CRIA_SERVER_RUNTIME_H

#include "base/log.h"
#include "models/config.h"
#include "parallel/execute/group.h"
#include "parallel/graph/graph.h"
#include "parallel/lower/program.h"
#include "parallel/plan/plan_file.h"
#include "server/engine/engine.h"
#include "server/options.h"
#include "tokenizer/tokenizer.h"

#include <stdint.h>
#include <stdio.h>

typedef struct cria_runtime cria_runtime;

/* Makes the plan for so many ranks (of one replica); the same on every rank. *notes, zeroed: what is predicted of it,
 * where something is; becomes the caller's. */
typedef cria_status cria_plan_maker(void *context, const cria_graph *graph, int ranks, cria_plan **out,
                                    cria_plan_notes *notes, cria_error *err);

/* What a command may want changed against its options. */
typedef struct {
    int threads;                /* 0: options->threads */
    bool graph_only;            /* configuration, graph and program, no weights packed (inspect) */
    bool needs_tokenizer;       /* failing to open it fails the start */
    FILE *progress;             /* where the progress bar goes; NULL: nowhere */
    cria_comm *comm;            /* all ranks, each of which opens the runtime; NULL: this one alone; borrowed */
    int share;                  /* how many ranks share this host's processors; 0: one */
    int replicas;               /* how often the plan runs beside itself, on ranks of its own; 0: once */
    int ranks, rank;            /* graph_only without comm: as which rank of how many; 0: alone */
    bool plan_sizes_kv;         /* the KV cache is as large as the plan says, where it does and the options do not */
    cria_plan_maker *make_plan; /* NULL: tensor parallelism over all ranks */
    void *plan_context;
    const char *version; /* of the program: ranks must have the same */
} cria_runtime_request;

/* `path`: a resolved folder or .gguf file. `log` is borrowed; the progress bar is not shown where options->quiet. */
cria_status cria_runtime_open(const char *path, const cria_main_options *options, const cria_runtime_request *request,
                              cria_log *log, cria_runtime **out, cria_error *err);
void cria_runtime_close(cria_runtime *runtime);

const cria_model_config *cria_runtime_config(const cria_runtime *runtime);
const cria_graph *cria_runtime_graph(const cria_runtime *runtime);
const cria_program *cria_runtime_program(const cria_runtime *runtime);
cria_executor *cria_runtime_executor(const cria_runtime *runtime);
const cria_plan *cria_runtime_plan(const cria_runtime *runtime);
/* What was predicted of the plan; NULL: nothing. */
const cria_plan_notes *cria_runtime_plan_notes(const cria_runtime *runtime);
/* Rank 0: bytes that the fullest rank of each stage holds; [stages of the plan]. */
const int64_t *cria_runtime_stage_bytes(const cria_runtime *runtime);
/* Runs steps on all ranks (rank 0), or is followed (the others: cria_group_follow); NULL where there is one rank. */
cria_group_runner *cria_runtime_group(const cria_runtime *runtime);
/* How often the plan runs beside itself. */
int cria_runtime_replicas(const cria_runtime *runtime);
/* This rank's part in it: its rank in the plan. */
int cria_runtime_plan_rank(const cria_runtime *runtime);
/* What rank 0 runs steps of a replica with. */
cria_runner cria_runtime_runner(const cria_runtime *runtime, int replica);
/* Rank 0: an engine over all replicas. */
cria_status cria_runtime_start_engine(const cria_runtime *runtime, cria_deliver *deliver, void *deliver_context,
                                      cria_log *log, cria_engine **out, cria_error *err);
const cria_tokenizer *cria_runtime_tokenizer(const cria_runtime *runtime); /* NULL where the model has none */
/* The chat template that a GGUF file carries; NULL for folders (the tokenizer has theirs). */
const char *cria_runtime_chat_template(const cria_runtime *runtime);
/* The engine's configuration for this model and these options. */
void cria_runtime_engine_config(const cria_runtime *runtime, cria_engine_config *out);

/* The memory split and the numeric types, for the lines that start-up prints. */
typedef struct {
    int64_t weight_bytes, kv_bytes, workspace_bytes;
    int64_t kv_blocks, block_tokens, max_model_len;
    int threads;
    const char *isa;
    const char *weight_type; /* of the matrices that hold most bytes: "f32", "bf16", "int8", "q8", "q4", "q4_0" */
    const char *kv_type;     /* "f32", "bf16", "int8" */
} cria_runtime_summary;
void cria_runtime_summarise(const cria_runtime *runtime, cria_runtime_summary *out);

#endif
