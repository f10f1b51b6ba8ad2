/* Parameter source: finds a graph's parameters in a checkpoint, whatever its naming. Start-up thread. */
#ifndef CRIA_MODELS_SOURCE_H
#define CRIA_MODELS_SOURCE_H

#include "models/config.h"
#include "models/weights/weights.h"
#include "parallel/execute/executor.h"
#include "parallel/graph/graph.h"

typedef struct {
    const cria_weights *weights;
    const cria_model_config *config;
} cria_checkpoint;

/* A source over `checkpoint` (borrowed). `find` checks shape and row count and names the tensor on failure; position
 * tables may have more rows than needed. */
cria_param_source cria_checkpoint_source(cria_checkpoint *checkpoint);

/* The checkpoint's tensor for a parameter: tried as it is named, without "model.", with it, by GGUF's llama names and
 * by GGUF's tied head. NULL if there is none. */
const cria_weight_view *cria_checkpoint_find(const cria_checkpoint *checkpoint, const char *param);

/* Names, types and shapes alone, no data. Fails if the checkpoint lacks a parameter of the graph or has it in another
 * shape, as the source does, and, with up to three names, if it holds tensors that no parameter uses (rotary tables and
 * position ids that older files carry are known and ignored). */
cria_status cria_checkpoint_check(const cria_checkpoint *checkpoint, const cria_graph *graph, cria_error *err);

/* "auto": what the checkpoint holds (f32 -> f32; f16 and bf16 -> bf16; Q8_0 -> q8; Q4_0 -> q4_0; Q4_1 -> q4), or "f32",
 * "bf16", "int8", "int4" for all matrices; position tables stay f32 where the rest is quantised. Which 8-bit matrices
 * want finer activations and which 4-bit ones bear coarser ones is said too, with `coarse_outputs` (cria_kernels) the
 * layers that end attention among them; cria_kernels.panel makes of it what the instruction set has. By tensor id into
 * `panel`, which has cria_graph_tensors(graph) entries. */
cria_status cria_choose_panels(const cria_checkpoint *checkpoint, const cria_graph *graph, const char *dtype,
                               bool coarse_outputs, cria_panel_type *panel, cria_error *err);

#endif
