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

/* GPipe holds all micro-batches at once: where they do not fit, a plan for it recomputes, cuts more, or there is none.
 */
static void gpipe_takes_more_memory_and_never_less_time(void **state) {
    (void)state;
    cria_cluster *c = open_cluster(CONFIGS "p3.16xlarge.json:1x4");
    cria_graph *g;
    assert_int_equal(cria_network_create("gpt:layers=8,hidden=2048,heads=16,batch=2,train=0,loss=1", &g, NULL),
                     CRIA_OK);
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    o.micro_batch = 2;
    o.global_batch = 64;
    o.stages = 4;
    o.search = false;
    cria_stages_result r[2];
    cria_error err = {0};
    for (int i = 0; i < 2; i++) {
        o.schedule = i ? CRIA_SCHEDULE_GPIPE : CRIA_SCHEDULE_1F1B;
        if (cria_stages_plan(g, c, &o, &r[i], &err) != CRIA_OK) fail_msg("%s", err.message);
        assert_int_equal(r[i].notes.schedule, o.schedule);
        assert_int_equal(r[i].notes.stages, 4);
    }
    assert_true(r[1].chosen.seconds >= r[0].chosen.seconds * (1 - 1e-9));
    int64_t last[2] = {r[0].notes.stage[3].activations, r[1].notes.stage[3].activations};
    assert_true(last[1] > last[0]);
    o.schedule = CRIA_SCHEDULE_INFERENCE; /* to be chosen */
    cria_stages_result chosen;
    assert_int_equal(cria_stages_plan(g, c, &o, &chosen, &err), CRIA_OK);
    assert_int_equal(chosen.notes.schedule, CRIA_SCHEDULE_1F1B);
    bool listed = false;
    for (int i = 0; i < chosen.others; i++) listed = listed || strcmp(chosen.other[i].name, "GPipe") == 0;
    assert_true(listed);
    cria_stages_result_deinit(&chosen);
    for (int i = 0; i < 2; i++) cria_stages_result_deinit(&r[i]);
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

/* A model too large for its devices: the error names the stage, what it needs and what there is. */
static void what_does_not_fit_is_named_with_its_stage_and_both_sizes(void **state) {
    (void)state;
    cria_cluster *c = open_cluster(CONFIGS "p3.16xlarge.json:1x2");
    cria_graph *g;
    assert_int_equal(cria_network_create("gpt:size=15b,batch=1,train=0,loss=1", &g, NULL), CRIA_OK);
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    o.micro_batch = 1;
    cria_stages_result r;
    cria_error err = {0};
    assert_int_equal(cria_stages_plan(g, c, &o, &r, &err), CRIA_ERR_INFEASIBLE);
    assert_non_null(strstr(err.message, "stage "));
    assert_non_null(strstr(err.message, "GB of each device's 16"));
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

/* What is named is what lacks least: spread over all devices, not the whole model on one. */
static void of_what_does_not_fit_the_nearest_is_named(void **state) {
    (void)state;
    cria_cluster *c = open_cluster(CONFIGS "p3.16xlarge.json:1x8");
    cria_graph *g;
    assert_int_equal(cria_network_create("gpt:size=15b,batch=1,train=0,loss=1", &g, NULL), CRIA_OK);
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    cria_stages_result r;
    cria_error err = {0};
    assert_int_equal(cria_stages_plan(g, c, &o, &r, &err), CRIA_ERR_INFEASIBLE);
    const char *needs = strstr(err.message, "needs ");
    assert_non_null(needs);
    /* 16 bytes for each of 15.4 billion parameters, over eight devices. */
    double gigabytes = strtod(needs + 6, NULL);
    assert_true(gigabytes > 15.3 * 16 / 8 && gigabytes < 1.5 * 15.4 * 16 / 8);
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_points_are_predicted_within_a_tenth_and_no_published_plan_is_better_than_ours),
        cmocka_unit_test(unequal_devices_get_unequal_stages_that_beat_even_ones),
        cmocka_unit_test(gpipe_takes_more_memory_and_never_less_time),
        cmocka_unit_test(what_does_not_fit_is_named_with_its_stage_and_both_sizes),
        cmocka_unit_test(of_what_does_not_fit_the_nearest_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
