/* The operator table: one function per operator, starting as `ref` (double accumulation, the judge) and overlaid by
 * cpu/avx2, cpu/avx512, cpu/avx512vnni, cpu/avx512bf16, cpu/amx, later cuda. Chosen at run time by CPUID.
 *
 * Every function is called by all workers of a pool at once with the same arguments; it divides its work by
 * cria_worker_take and nothing else, and returns inside the section: the caller (the executor) ends it. A result never
 * depends on the number of workers nor on which worker computed it, and a row never depends on its neighbours: bit for
 * bit. Nothing is allocated. Pointers do not alias unless it is said. All strides are in elements of the row's type. */
#ifndef CRIA_KERNELS_KERNELS_H
#define CRIA_KERNELS_KERNELS_H

#include "base/error.h"
#include "base/pool.h"
#include "kernels/activation.h"
#include "kernels/panels.h"
#include "kernels/row.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stdint.h>

/* out[t] (+)= row (ids[t] + id_offset) of the table; a row that the table does not have is zero. */
typedef struct {
    const cria_panels *table;
    const int32_t *ids;
    int64_t tokens, id_offset;
    bool accumulate;
    float *out;
    int64_t out_stride;
} cria_embed_args;

/* Layer norm (mean and variance) or RMS norm over `width`; weight and bias may be NULL; in and out may be the same. */
typedef struct {
    const float *in;
    int64_t in_stride, tokens, width;
    const float *weight, *bias;
    float eps;
    bool rms;
    float *out;
    int64_t out_stride;
} cria_norm_args;

/* Rounds or quantises activations into the prepared form of a panel type (kernels/panels.h). */
typedef struct {
    cria_panel_type type;
    const float *in;
    int64_t in_stride, tokens, cols;
    void *out; /* tokens rows of cria_prepared_row_bytes(type, cols) */
} cria_prepare_args;

/* out[t][n] = residual[t][n] + activation(sum_k in[t][k] * weight[n][k] + bias[n]); residual may be out itself.
 * f32 panels read `in` as prepared rows too (64-byte aligned rows of cols f32). */
typedef struct {
    const cria_panels *weight;
    const void *in; /* prepared rows */
    int64_t tokens;
    const float *bias;     /* weight->rows values, or NULL */
    const float *residual; /* or NULL */
    int64_t residual_stride;
    cria_activation_name activation;
    float *out;
    int64_t out_stride;
} cria_linear_args;

/* out[t][i] = activation(gate[t][i]) * up[t][i]; where `up` is NULL: out = activation(gate). */
typedef struct {
    const float *gate, *up;
    int64_t in_stride, tokens, width;
    cria_activation_name activation;
    float *out; /* may be gate */
    int64_t out_stride;
} cria_glu_args;

/* Rotary embedding in place on x[t][head][head_dim], half-split pairs (i, i + head_dim/2) as Hugging Face's Llama.
 * table[position][head_dim/2][2] = cos, sin. */
typedef struct {
    float *x;
    int64_t stride, tokens, heads, head_dim;
    const int32_t *positions;
    const float *table;
} cria_rope_args;

/* The paged KV cache of one layer. Block b starts at pages + b * block_bytes and holds, per KV head, K transposed, so
 * that scores are sums of whole vectors, and then V, in `type` (F32, BF16 or I8). Elements lie in cells of four bytes,
 * n = 1 of f32, 2 of bf16 or 4 of int8, which one instruction multiplies and adds: K as [head_dim /
 * n][block_tokens][n], the last n filled up with zeros, V as [block_tokens / n][head_dim][n], which makes block_tokens
 * a multiple of n. Of I8 an f32 scale of each token's key follows a head's values, then one of each token's value
 * (kernels/kv.h): a scale for each token and head, so that what is written for one token never changes what stands for
 * another. */
typedef struct {
    void *pages;
    cria_type type;
    int64_t block_tokens, kv_heads, head_dim, block_bytes;
} cria_kv_layer;

/* Bytes of one block of one layer (a multiple of 64). */
size_t cria_kv_block_bytes(cria_type type, int64_t block_tokens, int64_t kv_heads, int64_t head_dim);

/* Writes k and v of each token to its slot (block * block_tokens + offset). Tokens whose values share cells follow each
 * other, as those of a sequence do. */
typedef struct {
    const cria_kv_layer *layer;
    const float *k, *v; /* [t][kv_head][head_dim] */
    int64_t stride, tokens;
    const int32_t *slots;
} cria_kv_store_args;

/* Causal attention of packed sequences over the paged cache (which already holds this step's keys). Sequence s has the
 * query rows query_begin[s] .. query_begin[s+1]-1, the last of them at position context[s] - 1. Query head h reads KV
 * head h / (heads / kv_heads). Keys are added block by block from position 0, so that a query's result does not depend
 * on how its prompt was chunked; wholly masked blocks are skipped. scores = scale * q.k, softmax, times v. */
typedef struct {
    const cria_kv_layer *layer;
    int64_t sequences;
    const int32_t *query_begin; /* sequences + 1 */
    const int32_t *context;     /* sequences: keys visible to the last query, its own included */
    const int32_t *block_table; /* [sequences][table_stride] block ids */
    int64_t table_stride;
    int64_t heads;
    float scale;
    const float *q; /* [t][head][head_dim] */
    int64_t q_stride;
    float *out;
    int64_t out_stride;
    void *scratch; /* workers * cria_attention_scratch_bytes */
} cria_attention_args;
size_t cria_attention_scratch_bytes(int64_t heads, int64_t kv_heads, int64_t head_dim);

/* out[r] = in[rows[r]]. */
typedef struct {
    const float *in;
    int64_t in_stride, width, count;
    const int32_t *rows;
    float *out;
    int64_t out_stride;
} cria_gather_args;

/* From logits to tokens and log-probabilities (kernels/row.h), one worker per row. First the raw log-softmax (maximum,
 * sum of exponentials in a fixed order), the top list and the target's rank. Then, in vLLM's order and meaning: allowed
 * ids, biases, penalties (repetition, frequency, presence), temperature, min-p, top-k (ties at the k-th stay), top-p (a
 * token stays while those before it, the lower id first among equals, sum to less than p). Of what is left
 * argmax(logit - log(-log(1 - u))), u from Philox(seed, counter, token id), which needs no sum over the vocabulary and
 * gives the same token however the vocabulary is split.
 *
 * Rows whose logits hold NaN, or nothing but -infinity, give token 0, log-probability -9999 and rank 1; +infinity
 * counts as the largest float; where everything is banned the first allowed id is chosen, or 0. Log-probabilities are
 * clamped to >= -9999. Logits may be overwritten. */
typedef struct {
    float *logits; /* [rows][stride] */
    int64_t rows, vocab, stride;
    const cria_row *row;
    const cria_history *history;
    const cria_bias *biases;
    const int32_t *allowed;
    cria_row_result *result;
    int32_t *top_ids; /* [rows][top_stride], most likely first, the lower id first among equals */
    float *top_logprobs;
    int64_t top_stride;
    int64_t first; /* the id of the first logit, where these are a part of a row (kernels/split.h); else 0 */
    void *scratch; /* workers * cria_sample_scratch_bytes, for the changed copy of a row with penalties, biases or
                    * allowed ids; NULL: such a row is changed in place, and its rank counts the changed logits */
} cria_sample_args;
size_t cria_sample_scratch_bytes(int64_t vocab);

/* One row per operator generates the table. */
#define CRIA_KERNEL_LIST(X)                                                                                            \
    X(embed)                                                                                                           \
    X(norm)                                                                                                            \
    X(prepare)                                                                                                         \
    X(linear)                                                                                                          \
    X(glu)                                                                                                             \
    X(rope)                                                                                                            \
    X(kv_store)                                                                                                        \
    X(attention)                                                                                                       \
    X(gather)                                                                                                          \
    X(sample)

typedef enum {
#define X(name) CRIA_KERNEL_##name,
    CRIA_KERNEL_LIST(X)
#undef X
        CRIA_KERNEL_COUNT
} cria_kernel_id;

typedef struct {
    const char *name; /* "ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx": the widest overlay */
    /* The type to pack a matrix into where one is wanted: the same panels, with the activations that this instruction
     * set multiplies best. Other types are computed too, but may be as slow as `ref`. */
    cria_panel_type panel[CRIA_PANEL_COUNT];
    bool coarse_outputs; /* the layers that end attention want Q4_COARSE too, not the feed-forward layers alone */
#define X(name) void (*name)(const cria_##name##_args *args, cria_worker *worker);
    CRIA_KERNEL_LIST(X)
#undef X
} cria_kernels;

const char *cria_kernel_name(cria_kernel_id id);

/* What the CPU can do, for tests and for `--isa`. */
typedef enum {
    CRIA_ISA_REF,
    CRIA_ISA_AVX2,
    CRIA_ISA_AVX512,
    CRIA_ISA_AVX512_VNNI,
    CRIA_ISA_AVX512_BF16,
    CRIA_ISA_AMX /* bf16 and int8 tiles; asks the kernel for leave to use them, for the whole process */
} cria_isa;
cria_isa cria_isa_best(void);
/* "auto", "ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"; CRIA_ERR_UNSUPPORTED where this CPU lacks it. */
cria_status cria_isa_from_name(const char *name, cria_isa *out, cria_error *err);
/* Fills the table with ref and overlays everything up to `isa`. */
void cria_kernels_select(cria_isa isa, cria_kernels *out);

#endif
