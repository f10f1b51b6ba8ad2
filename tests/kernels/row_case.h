/* What the tests of the row operators share: the tables of every instruction set that this CPU has, ref first, and
 * comparisons that say where two rows differ. */
#ifndef CRIA_TESTS_ROW_CASE_H
#define CRIA_TESTS_ROW_CASE_H

#include "tests/kernels/kernel_case.h"

#include <stdio.h>

enum { MOST_TABLES = 3 };

/* Tables of ref, avx2 and avx512; returns how many this CPU can run. */
static inline int row_tables(cria_kernels tables[MOST_TABLES]) {
    int count = 0;
    for (int isa = CRIA_ISA_REF; isa <= CRIA_ISA_AVX512 && isa <= (int)cria_isa_best(); isa++) {
        cria_kernels_select((cria_isa)isa, &tables[count++]);
    }
    return count;
}

static inline float *random_rows(uint64_t *seed, float scale, int64_t count) {
    float *rows = aligned_garbage((size_t)count * sizeof *rows);
    random_fill(seed, scale, count, rows);
    return rows;
}

/* Every value within `relative` of its own size plus `absolute`; NaN only where NaN is expected. */
static inline void assert_close(const char *what, const float *got, const float *expected, int64_t count,
                                double relative, double absolute) {
    for (int64_t i = 0; i < count; i++) {
        double limit = absolute + relative * fabs(expected[i]);
        if (isnan(expected[i]) ? isnan(got[i]) : got[i] == expected[i] || fabs((double)got[i] - expected[i]) <= limit) {
            continue;
        }
        fail_msg("%s: value %lld is %.9g, expected %.9g", what, (long long)i, got[i], expected[i]);
    }
}

#endif
