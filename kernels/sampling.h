/* What the reference and the overlays of the sample operator share: the few changes of single logits, and the random
 * numbers. Internal to kernels/. */
#ifndef CRIA_KERNELS_SAMPLING_H
#define CRIA_KERNELS_SAMPLING_H

#include "base/random.h"
#include "kernels/kernels.h"

#include <math.h>

#define CRIA_LEAST_LOGPROB (-9999.0f)
#define CRIA_GREEDY_TEMPERATURE 1e-5f

static inline float *cria_sample_logits(const cria_sample_args *args, int64_t row) {
    return args->logits + row * args->stride;
}

static inline float cria_sample_logprob(float logit, double log_sum) {
    double value = logit - log_sum;
    return value >= CRIA_LEAST_LOGPROB ? (float)value : CRIA_LEAST_LOGPROB; /* NaN too */
}

/* True if the row's logits are not what is sampled from. */
static inline bool cria_sample_is_edited(const cria_row *row) {
    return row->allowed.count > 0 || row->biases.count > 0 || row->history.count > 0;
}

/* Applies allowed ids, biases and penalties; returns the changed logits (args->scratch, or the row itself). */
float *cria_sample_edit(const cria_sample_args *args, int64_t row, int worker);

/* What is chosen where every token is banned. */
static inline int32_t cria_sample_fallback(const cria_sample_args *args, const cria_row *row) {
    int32_t token = row->allowed.count > 0 ? args->allowed[row->allowed.begin] : 0;
    return token >= 0 && token < args->vocab ? token : 0;
}

/* The result of a row that has no distribution. */
void cria_sample_broken(const cria_sample_args *args, int64_t row);

/* Orders floats as unsigned integers; both zeros are one. */
static inline uint32_t cria_order_key(float value) {
    uint32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
static inline float cria_order_value(uint32_t key) {
    float value;
    key = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    memcpy(&value, &key, sizeof value);
    return value;
}

#endif
