/* The ablation's settings under our model: the order of the ways that Alpa measured (OSDI'22, Fig. 8). */
#include "parallel/plan/ablation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int find(const char *family, int devices) {
    for (int i = 0; i < CRIA_ABLATION_SETTINGS; i++) {
        const cria_ablation_setting *s = cria_ablation_setting_of(i);
        if (strcmp(s->family, family) == 0 && s->devices == devices) return i;
    }
    fail_msg("no %s on %d devices", family, devices);
    return -1;
}

static void predict(const cria_cluster *c, int index, cria_ablation_result r[CRIA_ABLATION_WAYS]) {
    cria_error err = {0};
    for (int way = 0; way < CRIA_ABLATION_WAYS; way++)
        if (cria_ablation_predict(c, index, (cria_ablation_way)way, &r[way], &err) != CRIA_OK)
            fail_msg("%s: %s", cria_ablation_name((cria_ablation_way)way), err.message);
}

static void the_pass_is_best_the_heuristic_near_it_and_zero_behind(void **state) {
    (void)state;
    static const struct {
        const char *family;
        int devices;
        double near; /* the heuristic is within this of the pass */
    } settings[] = {{"GPT", 8, 1.25}, {"MoE", 8, 2.5}};
    cria_cluster *c;
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json", &c, NULL), CRIA_OK);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        cria_ablation_result r[CRIA_ABLATION_WAYS];
        predict(c, find(settings[i].family, settings[i].devices), r);
        double ilp = r[CRIA_ABLATION_ILP].seconds;
        assert_true(r[CRIA_ABLATION_ILP].fits);
        for (int way = 0; way < CRIA_ABLATION_WAYS; way++) assert_true(!r[way].fits || r[way].seconds >= ilp);
        assert_true(r[CRIA_ABLATION_HEURISTIC].seconds < settings[i].near * ilp);
        assert_true(r[CRIA_ABLATION_ZERO3].seconds > r[CRIA_ABLATION_HEURISTIC].seconds * (1 - 1e-9));
        assert_true(r[CRIA_ABLATION_ZERO3].peak_bytes < r[CRIA_ABLATION_ZERO2].peak_bytes);
        assert_true(r[CRIA_ABLATION_ZERO2].peak_bytes < r[CRIA_ABLATION_DATA].peak_bytes);
    }
    cria_cluster_destroy(c);
}

static void one_device_needs_no_communication_and_takes_the_time_and_memory_that_were_measured(void **state) {
    (void)state;
    static const char *const families[] = {"GPT", "MoE", "Wide-ResNet"};
    static const double gib[] = {9.54, 8.33, 10.25}; /* the peak that Alpa reports */
    cria_cluster *c;
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json", &c, NULL), CRIA_OK);
    for (int i = 0; i < 3; i++) {
        int index = find(families[i], 1);
        cria_ablation_result r[CRIA_ABLATION_WAYS];
        predict(c, index, r);
        for (int way = 0; way < CRIA_ABLATION_WAYS; way++) {
            assert_true(r[way].communication == 0 && r[way].fits);
            assert_true(fabs(r[way].seconds / r[0].seconds - 1) < 1e-9);
        }
        assert_true(fabs(r[0].seconds / cria_ablation_setting_of(index)->measured[0] - 1) < 0.15);
        /* What is kept between operators, without what a library's kernels need besides. */
        double peak = (double)r[0].peak_bytes / (gib[i] * 1073741824);
        if (peak > 1 || peak < 0.7) fail_msg("%s: %.2f of the measured peak", families[i], peak);
    }
    cria_cluster_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pass_is_best_the_heuristic_near_it_and_zero_behind),
        cmocka_unit_test(one_device_needs_no_communication_and_takes_the_time_and_memory_that_were_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
