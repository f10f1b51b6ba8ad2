/* Single passes over a row of logits: maximum and sum of exponentials, ranks, searches, lists of the largest. */
#ifndef CRIA_KERNELS_CPU_BODY_SAMPLE_SCAN_H
#define CRIA_KERNELS_CPU_BODY_SAMPLE_SCAN_H

#include "kernels/cpu/row_vector.h"
#include "kernels/sampling.h"

#include <float.h>

enum { SCAN_BLOCK = 2048 }; /* logits between two updates of the running maximum: they stay in the first-level cache */

static inline vf load_logits(const float *logits, int64_t left) {
    if (left >= LANES) return vf_load(logits);
    return vf_choose(vf_first(left), vf_load_first(logits, left), vf_set(-INFINITY));
}

typedef struct {
    float most;
    int64_t token; /* the first of the largest */
    double sum;    /* of exp(logit - most) */
    bool nan;
} row_scan;

/* The largest of up to SCAN_BLOCK logits; notes NaN. */
static float block_most(const float *logits, int64_t count, bool *nan) {
    vf a = vf_set(-INFINITY), b = a;
    vmask odd = vf_nan(a);
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        vf x = vf_load(logits + i), y = vf_load(logits + i + LANES);
        odd = vf_or(odd, vf_nan(x + y)); /* infinities of both signs show too: looked at again below */
        a = vf_max(x, a);
        b = vf_max(y, b);
    }
    for (; i < count; i += LANES) {
        vf x = load_logits(logits + i, count - i);
        odd = vf_or(odd, vf_nan(x));
        a = vf_max(x, a);
    }
    if (vf_bits(odd)) {
        for (i = 0; i < count; i++) *nan |= isnan(logits[i]);
    }
    return vf_hmax(vf_max(a, b));
}

/* Sum of exp(logit - most) over up to SCAN_BLOCK logits. */
static float block_sum(const float *logits, int64_t count, float most) {
    vf sum[2] = {vf_set(0), vf_set(0)}, m = vf_set(most);
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        sum[0] = sum[0] + vf_exp(vf_load(logits + i) - m);
        sum[1] = sum[1] + vf_exp(vf_load(logits + i + LANES) - m);
    }
    for (; i < count; i += LANES) sum[0] = sum[0] + vf_exp(load_logits(logits + i, count - i) - m);
    return vf_hsum(sum[0] + sum[1]);
}

static int64_t first_equal(const float *logits, int64_t count, float value) {
    for (int64_t i = 0; i < count; i += LANES) {
        unsigned found = vf_bits(vf_equal(load_logits(logits + i, count - i), vf_set(value)));
        if (found) return i + __builtin_ctz(found);
    }
    return 0;
}

/* One pass over memory: the sum so far is brought down where a block has a larger maximum. `sums`: false where only the
 * maximum is wanted. Stops at +infinity or NaN. */
static row_scan scan_row(const float *logits, int64_t vocab, bool sums) {
    row_scan scan = {.most = -INFINITY, .token = -1};
    for (int64_t first = 0; first < vocab && !scan.nan && scan.most <= FLT_MAX; first += SCAN_BLOCK) {
        int64_t count = vocab - first < SCAN_BLOCK ? vocab - first : SCAN_BLOCK;
        float most = block_most(logits + first, count, &scan.nan);
        if (most > scan.most) {
            scan.sum *= exp((double)scan.most - most);
            scan.most = most;
            scan.token = first;
        }
        if (sums && scan.most > -INFINITY) scan.sum += block_sum(logits + first, count, scan.most);
    }
    if (scan.token >= 0) {
        int64_t left = vocab - scan.token < SCAN_BLOCK ? vocab - scan.token : SCAN_BLOCK;
        scan.token += first_equal(logits + scan.token, left, scan.most);
    }
    return scan;
}

static int64_t count_greater(const float *logits, int64_t vocab, float value) {
    int64_t count = 0;
    for (int64_t i = 0; i < vocab; i += LANES) {
        count += __builtin_popcount(vf_bits(vf_greater(load_logits(logits + i, vocab - i), vf_set(value))));
    }
    return count;
}

/* A heap of the largest logits seen, the least of them at the root; of equal ones the higher id is the lesser. */
typedef struct {
    float *values;
    int32_t *ids;
    int64_t count;
} top_heap;

static inline bool is_less(const top_heap *heap, int64_t a, int64_t b) {
    if (heap->values[a] != heap->values[b]) return heap->values[a] < heap->values[b];
    return heap->ids[a] > heap->ids[b];
}

static inline void swap_entries(top_heap *heap, int64_t a, int64_t b) {
    float value = heap->values[a];
    int32_t id = heap->ids[a];
    heap->values[a] = heap->values[b];
    heap->ids[a] = heap->ids[b];
    heap->values[b] = value;
    heap->ids[b] = id;
}

/* Restores the order below `at` in the first `count` entries. */
static void sift_down(top_heap *heap, int64_t at, int64_t count) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && is_less(heap, child + 1, child)) child++;
        if (!is_less(heap, child, at)) return;
        swap_entries(heap, child, at);
        at = child;
    }
}

/* Fills the heap with the `room` largest logits, room <= vocab. */
static void collect_top(const float *logits, int64_t vocab, int64_t room, top_heap *heap) {
    heap->count = room;
    if (room == 0) return;
    for (int64_t i = 0; i < room; i++) {
        heap->values[i] = logits[i];
        heap->ids[i] = (int32_t)i;
    }
    for (int64_t i = room / 2; i-- > 0;) sift_down(heap, i, room);
    for (int64_t i = room; i < vocab; i += LANES) {
        unsigned found = vf_bits(vf_greater(load_logits(logits + i, vocab - i), vf_set(heap->values[0])));
        for (; found; found &= found - 1) {
            int64_t token = i + __builtin_ctz(found);
            if (logits[token] <= heap->values[0]) continue; /* the root has risen since */
            heap->values[0] = logits[token];
            heap->ids[0] = (int32_t)token;
            sift_down(heap, 0, room);
        }
    }
}

/* Sorts the heap's entries, the largest first. */
static void sort_top(top_heap *heap) {
    for (int64_t count = heap->count - 1; count > 0; count--) {
        swap_entries(heap, 0, count);
        sift_down(heap, 0, count);
    }
}

#endif
