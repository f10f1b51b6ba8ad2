/* Program: what one rank executes, as plain data: kernel calls over preplanned buffers. It can be printed and counted.
 *
 * Made by the lowering on the start-up thread, immutable afterwards. A program has two phases: BODY runs once per step
 * over all tokens; HEAD runs over chunks of at most head_rows logits rows, so that log-probabilities of a long prompt
 * need no more memory than those of one chunk. */
#ifndef CRIA_PARALLEL_LOWER_PROGRAM_H
#define CRIA_PARALLEL_LOWER_PROGRAM_H

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "parallel/graph/graph.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum { CRIA_PHASE_BODY, CRIA_PHASE_HEAD } cria_phase;

typedef enum {
    CRIA_SPACE_NONE,
    CRIA_SPACE_WORK,      /* offset: bytes into the workspace; stride: elements per token */
    CRIA_SPACE_WEIGHT,    /* index: into the program's weights */
    CRIA_SPACE_KV,        /* index: which KV layer of this rank */
    CRIA_SPACE_TOKEN_IDS, /* the batch's arrays */
    CRIA_SPACE_POSITIONS
} cria_space;

typedef struct {
    cria_space space;
    int32_t index;
    int64_t offset, stride;
} cria_operand;

/* Operands by kernel: in order of the kernel's arguments struct. embed: ids, table, out. norm: in, weight, bias, out.
 * prepare: in, out. linear: in (prepared), weight, bias, residual, out. glu: gate, up, out. rope: x, table. kv_store:
 * kv, k, v. attention: kv, q, out. gather: in, out. sample: logits. */
typedef struct {
    cria_kernel_id kernel;
    cria_phase phase;
    int layer, op; /* of the graph; for profiles and prints */
    cria_operand operand[5];
    int64_t width;  /* norm, prepare, glu, gather: columns; rope: head_dim */
    int64_t heads;  /* rope, attention */
    int64_t offset; /* embed: added to the ids */
    float eps, scale;
    bool rms, accumulate;
    cria_activation_name activation;
    cria_panel_type panel; /* prepare */
} cria_instruction;

typedef enum { CRIA_WEIGHT_PANELS, CRIA_WEIGHT_VECTOR, CRIA_WEIGHT_ROPE } cria_weight_kind;

#define CRIA_WEIGHT_MAX_PARTS 3

/* A weight of this rank: parts of parameters put one under the other (fused projections), rows [begin, end) of each. */
typedef struct {
    cria_weight_kind kind;
    cria_panel_type panel;
    int64_t rows, cols; /* vectors: rows = 1 */
    int parts;
    int tensor[CRIA_WEIGHT_MAX_PARTS]; /* of the graph */
    int64_t row_begin[CRIA_WEIGHT_MAX_PARTS], row_end[CRIA_WEIGHT_MAX_PARTS];
    int64_t offset, bytes; /* in the weights' arena, 64-byte aligned */
} cria_weight_spec;

typedef struct {
    int64_t kv_heads, head_dim;
    int layer;
} cria_kv_spec;

typedef struct {
    cria_instruction *instructions;
    int instruction_count;
    cria_weight_spec *weights;
    int weight_count;
    cria_kv_spec *kv;
    int kv_count;
    int64_t weight_bytes, workspace_bytes;
    int64_t max_tokens, head_rows, vocab;
} cria_program;

void cria_program_destroy(cria_program *program);
/* One line per instruction, then the totals. */
void cria_program_print(const cria_program *program, const cria_graph *graph, cria_text *out);
/* Bytes of weights that one decode step reads, each once: the number that limits batch-1 decoding. An embedding that is
 * only looked up counts nothing. */
int64_t cria_program_weight_bytes_read(const cria_program *program);

#endif
