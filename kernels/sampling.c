/* The changes that a sampling row asks of single logits. */
#include "kernels/sampling.h"

#include <float.h>
#include <string.h>

enum { MASK_TOKENS = 65536 }; /* tokens whose permission is held at once, in bits on the stack */

/* Copies the allowed logits and bans all others, whatever the order of the list. */
static void keep_allowed(const int32_t *allowed, int64_t count, int64_t first, const float *in, int64_t vocab,
                         float *out) {
    uint64_t mask[MASK_TOKENS / 64];
    for (int64_t base = 0; base < vocab; base += MASK_TOKENS) {
        int64_t tokens = vocab - base < MASK_TOKENS ? vocab - base : MASK_TOKENS;
        memset(mask, 0, sizeof mask);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = allowed[i] - first - base;
            if (at >= 0 && at < tokens) mask[at / 64] |= UINT64_C(1) << at % 64;
        }
        for (int64_t i = 0; i < tokens; i++) {
            out[base + i] = mask[i / 64] >> i % 64 & 1 ? in[base + i] : -INFINITY;
        }
    }
}

static float penalised(const cria_row *row, const cria_history *entry, float logit) {
    if (row->repetition_penalty != 1) {
        logit = logit > 0 ? logit / row->repetition_penalty : logit * row->repetition_penalty;
    }
    if (entry->output_count > 0) {
        logit -= row->frequency_penalty * (float)entry->output_count;
        logit -= row->presence_penalty;
    }
    return logit;
}

/* A bias or a penalty may overflow; the sampler counts on finite maxima. */
static inline float bounded(float logit) {
    return logit > FLT_MAX ? FLT_MAX : logit == logit ? logit : -INFINITY;
}

float *cria_sample_edit(const cria_sample_args *args, int64_t index, int worker) {
    const cria_row *row = &args->row[index];
    float *in = cria_sample_logits(args, index), *out = in;
    if (args->scratch) {
        out = (float *)((char *)args->scratch + (size_t)worker * cria_sample_scratch_bytes(args->vocab));
    }
    if (row->allowed.count > 0) {
        keep_allowed(args->allowed + row->allowed.begin, row->allowed.count, args->first, in, args->vocab, out);
    } else if (out != in) {
        memcpy(out, in, (size_t)args->vocab * sizeof *out);
    }
    for (int32_t i = 0; i < row->biases.count; i++) {
        const cria_bias *bias = &args->biases[row->biases.begin + i];
        int64_t at = bias->token - args->first;
        if (at < 0 || at >= args->vocab) continue;
        out[at] = bounded(out[at] + bias->bias);
    }
    for (int32_t i = 0; i < row->history.count; i++) {
        const cria_history *entry = &args->history[row->history.begin + i];
        int64_t at = entry->token - args->first;
        if (at < 0 || at >= args->vocab) continue;
        out[at] = bounded(penalised(row, entry, out[at]));
    }
    return out;
}

void cria_sample_broken(const cria_sample_args *args, int64_t index) {
    const cria_row *row = &args->row[index];
    int64_t count = row->top_logprobs;
    if (count > args->top_stride) count = args->top_stride;
    if (count > args->vocab) count = args->vocab;
    if (count < 0) count = 0;
    for (int64_t i = 0; i < count; i++) {
        args->top_ids[index * args->top_stride + i] = (int32_t)i;
        args->top_logprobs[index * args->top_stride + i] = CRIA_LEAST_LOGPROB;
    }
    args->result[index] = (cria_row_result){
        .token = row->sample ? 0 : -1, .rank = 1, .logprob = CRIA_LEAST_LOGPROB, .top_count = (int32_t)count};
}
