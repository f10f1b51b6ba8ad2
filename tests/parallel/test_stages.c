/* The inter-operator pass on published settings and on clusters of which the right answer is known. */
#include "parallel/nets/network.h"
#include "parallel/plan/published.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONFIGS CRIA_SOURCE_DIR "/configs/clusters/"

static cria_cluster *open_cluster(const char *name) {
    cria_cluster *c;
    cria_error err = {0};
    if (cria_cluster_read(name, &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    return c;
}

static void published_points_are_predicted_within_a_tenth_and_no_published_plan_is_better_than_ours(void **state) {
    (void)state;
    cria_cluster *c = open_cluster(CONFIGS "p3.16xlarge.json");
    double error = 0;
    for (int i = 0; i < CRIA_PUBLISHED_POINTS; i++) {
        const cria_published_point *p = cria_published_point_of(i);
        cria_plan_summary own, other[2];
        assert_int_equal(cria_published_plan(c, i, &own, NULL), CRIA_OK);
        for (int m = 0; m < 2; m++) {
            assert_int_equal(cria_published_predict(c, i, (cria_published_method)m, &other[m], NULL), CRIA_OK);
            assert_true(other[m].feasible);
            error += fabs(other[m].flops / 1e12 / (m ? p->megatron : p->alpa) - 1) / (2 * CRIA_PUBLISHED_POINTS);
            if (own.seconds > other[m].seconds * (1 + 1e-9))
                fail_msg("%s: %g s, but %g s is published", p->size, own.seconds, other[m].seconds);
        }
    }
    assert_true(error < 0.1);
    cria_cluster_destroy(c);
}

static void unequal_devices_get_unequal_stages_that_beat_even_ones(void **state) {
    (void)state;
    cria_cluster *c = open_cluster(CONFIGS "unequal.json");
    cria_graph *g;
    assert_int_equal(cria_network_create("gpt:size=1.3b,batch=8,train=0,loss=1", &g, NULL), CRIA_OK);
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    o.micro_batch = 8;
    cria_stages_result r;
    cria_error err = {0};
    if (cria_stages_plan(g, c, &o, &r, &err) != CRIA_OK) fail_msg("%s", err.message);
    const cria_hand_stage even[2][4] = {{{12, 2, 1}, {12, 2, 1}}, {{6, 1, 1}, {6, 1, 1}, {6, 1, 1}, {6, 1, 1}}};
    for (int i = 0; i < 2; i++) {
        cria_plan_summary hand;
        assert_int_equal(cria_stages_by_hand(g, c, &o, even[i], i ? 4 : 2, 0, &hand, NULL), CRIA_OK);
        assert_true(!hand.feasible || hand.seconds > r.chosen.seconds * 1.05);
    }
    for (int s = 0; s < r.notes.stages; s++) assert_true(r.notes.stage[s].memory <= r.notes.stage[s].memory_limit);
    cria_stages_result_deinit(&r);
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_points_are_predicted_within_a_tenth_and_no_published_plan_is_better_than_ours),
        cmocka_unit_test(unequal_devices_get_unequal_stages_that_beat_even_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
