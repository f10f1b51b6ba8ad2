/* Program: what one rank executes, as plain data: kernel calls, copies, collectives, sends and receives over preplanned
 * buffers. It can be printed and counted.
 *
 * Made by the lowering on the start-up thread, immutable afterwards. A program has two phases: BODY runs once per step
 * over all tokens; HEAD runs over chunks of at most head_rows logits rows, so that log-probabilities of a long prompt
 * need no more memory than those of one chunk. Values are f32, dense rows of a token; how many tokens there are is
 * known at run time, so everything is counted per token. */
#ifndef CRIA_PARALLEL_LOWER_PROGRAM_H
#define CRIA_PARALLEL_LOWER_PROGRAM_H

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "parallel/graph/graph.h"

#include <stdbool.h>
#include <stdint.h>

enum { CRIA_LONGEST_RUN = 16 };

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

/* What an instruction does besides calling a kernel. */
typedef enum {
    CRIA_DO_KERNEL,
    CRIA_DO_MOVE, /* copies parts of rows from operand 0 to operand 1 */
    CRIA_DO_ZERO, /* operand 0 */
    CRIA_DO_ADD,  /* operand 0 + operand 1 -> operand 2 */
    CRIA_DO_MUL,
    CRIA_DO_STATS,      /* a norm's moments of this rank's columns: operand 0 -> operand 1 */
    CRIA_DO_NORM,       /* in, weight, bias, out, and the moments of all ranks */
    CRIA_DO_SAMPLE,     /* logits of this rank's part of the vocabulary: reduces them, exchanges, chooses */
    CRIA_DO_ALL_REDUCE, /* operand 0, in place */
    CRIA_DO_ALL_GATHER, /* operand 0 -> operand 1, in blocks by rank */
    CRIA_DO_REDUCE_SCATTER,
    CRIA_DO_ALL_TO_ALL,
    CRIA_DO_SEND, /* operand 0, to `peer` */
    CRIA_DO_RECV,
    CRIA_DO_COUNT
} cria_do;
const char *cria_do_name(cria_do what);

/* Who takes part: the ranks that differ from this one only in their place along a mesh axis, or the whole stage. */
typedef enum { CRIA_GROUP_AXIS0, CRIA_GROUP_AXIS1, CRIA_GROUP_STAGE, CRIA_GROUP_COUNT } cria_group;

/* Where a copied element lies: tokens * block + token * stride + start + i * step + j floats from its operand. `block`
 * is for buffers that hold one dense block per rank. */
typedef struct {
    int64_t block, stride, start, step;
} cria_lattice;

typedef struct {
    cria_lattice from, to;
    int64_t outer, inner; /* 0 <= i < outer, 0 <= j < inner */
} cria_copy;

/* Operands by kernel: in order of the kernel's arguments struct. embed: ids, table, out. norm: in, weight, bias, out.
 * prepare: in, out. linear: in (prepared), weight, bias, residual, out. glu: gate, up, out. rope: x, table. kv_store:
 * kv, k, v. attention: kv, q, out. gather: in, out. sample: logits. */
typedef struct {
    cria_do what;
    cria_kernel_id kernel; /* CRIA_DO_KERNEL only */
    cria_phase phase;
    int layer, op; /* of the graph; for profiles and prints */
    cria_operand operand[5];
    int64_t width;  /* norm, prepare, glu, gather, everything that is no kernel: columns; rope: head_dim */
    int64_t heads;  /* rope, attention */
    int64_t offset; /* embed: added to the ids */
    float eps, scale;
    bool rms, accumulate;
    bool by_row; /* row t of what it writes needs row t of what it reads, no other (a gather: what was there before it)
                  */
    /* By row, and so is the instruction before: both may be done for some rows before others are begun. At most
     * CRIA_LONGEST_RUN are joined. */
    bool joins;
    cria_activation_name activation;
    cria_panel_type panel; /* prepare */
    cria_group group;      /* collectives, norm */
    int peer;              /* send, receive: rank of the plan */
    /* move: into `copies`. Collectives, norm: into `widths`, floats per token of each rank of the group; all-to-all: of
     * what is sent, then of what is received. */
    int first, count;
} cria_instruction;

typedef enum { CRIA_WEIGHT_PANELS, CRIA_WEIGHT_VECTOR, CRIA_WEIGHT_ROPE } cria_weight_kind;

#define CRIA_WEIGHT_MAX_PARTS 3

/* A part of the rows or columns of a matrix whose rows (columns) are those of two dims, the outer and the inner: places
 * [outer.begin, outer.end) x [inner.begin, inner.end), where the inner dim has `extent`. */
typedef struct {
    int64_t outer_begin, outer_end, inner_begin, inner_end, extent;
} cria_selection;
static inline int64_t cria_selection_count(const cria_selection *s) {
    return (s->outer_end - s->outer_begin) * (s->inner_end - s->inner_begin);
}
static inline int64_t cria_selection_at(const cria_selection *s, int64_t index) {
    int64_t inner = s->inner_end - s->inner_begin;
    return (s->outer_begin + index / inner) * s->extent + s->inner_begin + index % inner;
}

/* A weight of this rank: parts of parameters put one under the other (fused projections). */
typedef struct {
    cria_weight_kind kind;
    cria_panel_type panel;
    int64_t rows, cols; /* vectors: rows = 1 */
    int parts;
    int tensor[CRIA_WEIGHT_MAX_PARTS];              /* of the graph */
    cria_selection row[CRIA_WEIGHT_MAX_PARTS], col; /* of the parameters; vectors: all in `row` */
    int64_t offset, bytes;                          /* in the weights' arena, 64-byte aligned */
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
    cria_copy *copies;
    int copy_count;
    int64_t *widths;
    int width_count;
    int group_size[CRIA_GROUP_COUNT], group_rank[CRIA_GROUP_COUNT]; /* this rank's groups */
    int stage, stages;
    int64_t weight_bytes, workspace_bytes;
    int64_t max_tokens, head_rows;
    int64_t vocab, vocab_begin, vocab_all; /* this rank's logits are [vocab_begin, vocab_begin + vocab) of all */
} cria_program;

void cria_program_destroy(cria_program *program);
/* One line per instruction, then the totals. */
void cria_program_print(const cria_program *program, const cria_graph *graph, cria_text *out);
/* Bytes of weights that one decode step reads, each once: the number that limits batch-1 decoding. An embedding that is
 * only looked up counts nothing. */
int64_t cria_program_weight_bytes_read(const cria_program *program);
/* The widths of an instruction that has some; NULL in a program that has none. */
static inline const int64_t *cria_instruction_widths(const cria_program *program, const cria_instruction *instruction) {
    return program->widths ? program->widths + instruction->first : NULL;
}

/* Bytes that this rank sends in one instruction of `tokens` tokens (rows, in the head), as cria_comm_sent counts them.
 * The exchange of CRIA_DO_SAMPLE is counted without the lists that some requests ask for. */
int64_t cria_instruction_bytes(const cria_program *program, const cria_instruction *instruction, int64_t tokens);
/* The same for a whole step. */
int64_t cria_program_bytes(const cria_program *program, int64_t tokens, int64_t rows);

#endif
