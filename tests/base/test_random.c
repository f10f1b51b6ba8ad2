/* Philox against the published vectors, uniform numbers, seeds, and the clock. */
#include "base/clock.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void philox_gives_the_published_vectors(void **state) {
    (void)state;
    /* The known-answer tests that the authors distribute for philox4x32-10. */
    static const struct {
        uint64_t key, low, high;
        uint32_t out[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        cria_philox(cases[i].key, cases[i].low, cases[i].high, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void uniform_numbers_stay_inside_the_open_interval(void **state) {
    (void)state;
    assert_true(cria_uniform(0) > 0);
    assert_true(cria_uniform(UINT32_MAX) < 1);
    double sum = 0;
    for (uint64_t i = 0; i < 25000; i++) {
        uint32_t out[4];
        cria_philox(7, i, 0, out);
        for (int k = 0; k < 4; k++) sum += (double)cria_uniform(out[k]);
    }
    /* The mean of 100,000 has a deviation of 0.0009. */
    assert_true(sum / 100000 > 0.495 && sum / 100000 < 0.505);
}

static void seeds_differ(void **state) {
    (void)state;
    assert_true(cria_random_seed() != cria_random_seed());
}

static void the_clock_never_goes_back(void **state) {
    (void)state;
    uint64_t last = cria_clock_ns(), start = last;
    for (int i = 0; i < 10000; i++) {
        uint64_t now = cria_clock_ns();
        assert_true(now >= last);
        last = now;
    }
    assert_true(last > start);
    assert_true(cria_seconds_between(0, 1500000000) == 1.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors),
        cmocka_unit_test(uniform_numbers_stay_inside_the_open_interval),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(the_clock_never_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
