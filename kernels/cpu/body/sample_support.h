/* Which tokens min-p, top-k and top-p leave, without sorting a vocabulary. */
#ifndef CRIA_KERNELS_CPU_BODY_SAMPLE_SUPPORT_H
#define CRIA_KERNELS_CPU_BODY_SAMPLE_SUPPORT_H

#include "kernels/cpu/body/sample_scan.h"

enum {
    TOP_K_HEAP = 1024,  /* larger k are found by bisection */
    MASS_BINS = 1024,   /* of a histogram over logits */
    LIKELY_WINDOW = 8,  /* width of the first histogram, as (most - logit) / temperature */
    WIDEST_WINDOW = 32, /* of the second, whose last bin takes all that is below */
    CANDIDATES = 1024   /* that are sorted at last */
};

/* Logits above `least` are left, and those equal to it up to token `last`. */
typedef struct {
    float least;
    int64_t last;
} support;

/* The k-th largest logit, 1 <= k <= vocab. */
static float kth_largest(const float *logits, int64_t vocab, int64_t k) {
    if (k <= TOP_K_HEAP) {
        float values[TOP_K_HEAP];
        int32_t ids[TOP_K_HEAP];
        top_heap heap = {values, ids, 0};
        collect_top(logits, vocab, k, &heap);
        return values[0];
    }
    uint32_t low = cria_order_key(-INFINITY), high = cria_order_key(FLT_MAX);
    while (low < high) { /* fewer than k are above high; at least k are at low or above */
        uint32_t middle = low + (high - low) / 2;
        if (count_greater(logits, vocab, cria_order_value(middle)) < k) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return cria_order_value(low);
}

/* What the search for the nucleus carries: the tokens are weighted exp((logit - most) * scale). Logits in
 * [least, highest] are sorted into bins of width 1 / density, the largest into bin 0, everything else into the last. */
typedef struct {
    const float *logits;
    int64_t vocab;
    float most, scale;
    float least, highest, density;
} mass_search;

VECTOR_INLINE vi bins_of(const mass_search *search, vf x) {
    vf at = (vf_set(search->highest) - x) * vf_set(search->density);
    return vf_truncate(vf_min(vf_set(MASS_BINS - 1), at));
}

static void fill_bins(const mass_search *search, double *mass, int32_t *count) {
    vf least = vf_set(search->least), highest = vf_set(search->highest);
    float weights[LANES];
    int32_t bins[LANES];
    memset(mass, 0, MASS_BINS * sizeof *mass);
    memset(count, 0, MASS_BINS * sizeof *count);
    for (int64_t i = 0; i < search->vocab; i += LANES) {
        vf x = load_logits(search->logits + i, search->vocab - i);
        unsigned inside = vf_bits(vf_and(vf_at_least(x, least), vf_at_least(highest, x)));
        if (!inside) continue;
        vf_store(weights, vf_exp((x - vf_set(search->most)) * vf_set(search->scale)));
        vi_store(bins, bins_of(search, x));
        for (; inside; inside &= inside - 1) {
            int lane = __builtin_ctz(inside);
            mass[bins[lane]] += weights[lane];
            count[bins[lane]]++;
        }
    }
}

/* Narrows [least, highest] to the logits that are in one bin. */
static void enter_bin(mass_search *search, int32_t bin) {
    vf low = vf_set(INFINITY), high = vf_set(-INFINITY), least = vf_set(search->least);
    vf highest = vf_set(search->highest), wanted = vi_to_float(vi_set(bin));
    for (int64_t i = 0; i < search->vocab; i += LANES) {
        vf x = load_logits(search->logits + i, search->vocab - i);
        vmask inside = vf_and(vf_at_least(x, least), vf_at_least(highest, x));
        if (!vf_bits(inside)) continue;
        inside = vf_and(inside, vf_equal(vi_to_float(bins_of(search, x)), wanted));
        low = vf_choose(inside, vf_min(low, x), low);
        high = vf_choose(inside, vf_max(high, x), high);
    }
    search->least = vf_hmin(low);
    search->highest = vf_hmax(high);
    float density = MASS_BINS / (search->highest - search->least);
    search->density = density <= FLT_MAX ? density : FLT_MAX;
}

static inline double weight_of(const mass_search *search, float logit) {
    return exp(((double)logit - search->most) * search->scale);
}

/* The last token that is needed among the logits of [least, highest], few enough to be sorted. */
static support sort_candidates(const mass_search *search, int64_t count, double mass, double wanted) {
    float values[CANDIDATES];
    int32_t ids[CANDIDATES];
    top_heap heap = {values, ids, 0};
    vf least = vf_set(search->least), highest = vf_set(search->highest);
    for (int64_t i = 0; i < search->vocab && heap.count < count; i += LANES) {
        vf x = load_logits(search->logits + i, search->vocab - i);
        unsigned inside = vf_bits(vf_and(vf_at_least(x, least), vf_at_least(highest, x)));
        for (; inside && heap.count < count; inside &= inside - 1) {
            int64_t token = i + __builtin_ctz(inside);
            values[heap.count] = search->logits[token];
            ids[heap.count++] = (int32_t)token;
        }
    }
    for (int64_t i = heap.count / 2; i-- > 0;) sift_down(&heap, i, heap.count);
    sort_top(&heap);
    int64_t at = 0;
    while (at < heap.count - 1 && (mass += weight_of(search, values[at])) < wanted) at++;
    return (support){values[at], ids[at]};
}

/* The last token that is needed among logits that are all equal. */
static support count_ties(const mass_search *search, double mass, double wanted) {
    support kept = {search->least, -1};
    double each = weight_of(search, search->least);
    vf value = vf_set(search->least);
    for (int64_t i = 0; i < search->vocab; i += LANES) {
        unsigned found = vf_bits(vf_equal(load_logits(search->logits + i, search->vocab - i), value));
        for (; found; found &= found - 1) {
            kept.last = i + __builtin_ctz(found);
            mass += each;
            if (mass >= wanted) return kept;
        }
    }
    return kept;
}

/* Mass of all logits that are at least `least`. */
static double total_mass(const mass_search *search) {
    vf least = vf_set(search->least), most = vf_set(search->most), scale = vf_set(search->scale);
    double total = 0;
    for (int64_t first = 0; first < search->vocab; first += SCAN_BLOCK) {
        int64_t count = search->vocab - first < SCAN_BLOCK ? search->vocab - first : SCAN_BLOCK;
        vf sum = vf_set(0);
        for (int64_t i = 0; i < count; i += LANES) {
            vf x = load_logits(search->logits + first + i, count - i);
            vmask inside = vf_at_least(x, least);
            if (vf_bits(inside)) sum = sum + vf_choose(inside, vf_exp((x - most) * scale), vf_set(0));
        }
        total += vf_hsum(sum);
    }
    return total;
}

/* The bin in which the mass reaches what is wanted; *mass becomes the mass before it. -1: it is not reached. */
static int32_t find_bin(const double *masses, const int32_t *counts, double wanted, double *mass) {
    double before = *mass;
    for (int32_t bin = 0; bin < MASS_BINS; bin++) {
        if (counts[bin] > 0 && before + masses[bin] >= wanted) {
            *mass = before;
            return bin;
        }
        before += masses[bin];
    }
    return -1;
}

/* Where rounding keeps the mass below what is wanted: the last bin that holds any logit. */
static int32_t last_bin(const double *masses, const int32_t *counts, double *mass) {
    int32_t last = MASS_BINS - 1;
    while (last > 0 && counts[last] == 0) last--;
    for (int32_t bin = 0; bin < last; bin++) *mass += masses[bin];
    return last;
}

/* The most likely tokens whose mass reaches top_p. A histogram over the likeliest (or, where they do not reach it, over
 * all) finds the bin in which that happens; a finer one splits that bin, until so few tokens are left that they can be
 * sorted. */
static support nucleus(const float *logits, int64_t vocab, float least, float most, float temperature, float top_p) {
    double masses[MASS_BINS], mass = 0;
    int32_t counts[MASS_BINS], bin = -1;
    mass_search search = {logits, vocab, most, 1 / temperature, least, most, 0};
    double wanted = total_mass(&search) * top_p;
    for (float window = LIKELY_WINDOW; bin < 0 && window <= WIDEST_WINDOW; window *= WIDEST_WINDOW / LIKELY_WINDOW) {
        search.least = window < WIDEST_WINDOW ? fmaxf(least, most - window * temperature) : least;
        search.density = MASS_BINS / (window * temperature);
        fill_bins(&search, masses, counts);
        bin = find_bin(masses, counts, wanted, &mass);
    }
    for (;;) {
        if (bin < 0) bin = last_bin(masses, counts, &mass);
        enter_bin(&search, bin);
        if (search.least == search.highest) return count_ties(&search, mass, wanted);
        if (counts[bin] <= CANDIDATES) return sort_candidates(&search, counts[bin], mass, wanted);
        fill_bins(&search, masses, counts);
        bin = find_bin(masses, counts, wanted, &mass);
    }
}

static support find_support(const cria_row *row, const float *logits, int64_t vocab, float most) {
    support kept = {-FLT_MAX, vocab};
    if (row->min_p > 0) {
        float least = (float)(most + (double)row->temperature * log(row->min_p));
        kept.least = fmaxf(kept.least, fminf(least, most));
    }
    if (row->top_k > 0 && row->top_k < vocab) kept.least = fmaxf(kept.least, kth_largest(logits, vocab, row->top_k));
    return row->top_p < 1 ? nucleus(logits, vocab, kept.least, most, row->temperature, row->top_p) : kept;
}

#endif
