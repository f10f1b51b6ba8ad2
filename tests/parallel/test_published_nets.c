/* MoE and Wide-ResNet through the inter-operator pass: every plan that Alpa published for them fits and is priced, and
 * none is better under our model than ours (suite_auto_moe.py, suite_wresnet.py and the training steps of its
 * artifact).
 */
#include "parallel/nets/network.h"
#include "parallel/plan/stages.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST_STAGES = 8, MOST_GRAPHS = 64 };

typedef struct {
    const char *net;
    int hosts, devices;
    int64_t global_batch;
    int micro_batches, stages;
    /* The line of devices is in `data` where the batch was forced to it, in `tensor` where it was forced away from it.
     */
    cria_hand_stage stage[MOST_STAGES];
    unsigned open; /* stages (bits) that Alpa's pass was free to cut either way */
} setting;

static const setting settings[] = {
    {"moe:size=380m", 1, 1, 1024, 512, 1, {{8, 1, 1}}, 0},
    {"moe:size=690m", 1, 2, 1024, 32, 1, {{8, 2, 1}}, 0},
    {"moe:size=1.3b", 1, 4, 1024, 32, 2, {{8, 2, 1}, {8, 2, 1}}, 0},
    {"moe:size=2.4b", 1, 8, 1024, 32, 2, {{8, 4, 1}, {8, 4, 1}}, 0},
    {"moe:size=10b", 2, 8, 1024, 16, 2, {{8, 8, 1}, {8, 8, 1}}, 3},
    {"moe:size=27b",
     4,
     8,
     1024,
     128,
     8,
     {{2, 4, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}},
     255},
    {"moe:size=70b",
     8,
     8,
     1024,
     64,
     8,
     {{4, 8, 1}, {4, 8, 1}, {4, 8, 1}, {4, 8, 1}, {4, 8, 1}, {4, 8, 1}, {4, 8, 1}, {4, 8, 1}},
     255},
    {"wide-resnet:size=250m", 1, 1, 1536, 24, 1, {{16, 1, 1}}, 0},
    {"wide-resnet:size=500m", 1, 2, 1536, 24, 1, {{16, 1, 2}}, 1},
    {"wide-resnet:size=1b", 1, 4, 1536, 24, 1, {{16, 1, 4}}, 1},
    {"wide-resnet:size=2b", 1, 8, 1536, 24, 2, {{8, 4, 1}, {8, 1, 4}}, 1},
    {"wide-resnet:size=4b", 2, 8, 1536, 32, 3, {{5, 4, 1}, {4, 4, 1}, {7, 8, 1}}, 4},
    {"wide-resnet:size=6.8b", 4, 8, 1536, 32, 4, {{5, 8, 1}, {4, 8, 1}, {4, 8, 1}, {3, 8, 1}}, 14},
    {"wide-resnet:size=12.6b",
     8,
     8,
     1520,
     38,
     8,
     {{4, 8, 1}, {4, 1, 8}, {4, 8, 1}, {4, 1, 8}, {4, 8, 1}, {4, 8, 1}, {5, 1, 8}, {4, 8, 1}},
     0xb5},
};

/* Graphs of one net for the sizes of a micro-batch. */
typedef struct {
    const char *net;
    int64_t micro_batch[MOST_GRAPHS];
    cria_graph *graph[MOST_GRAPHS];
    int count;
} family;

static const cria_graph *graph_of(void *context, int64_t micro_batch, cria_error *err) {
    family *f = context;
    for (int i = 0; i < f->count; i++)
        if (f->micro_batch[i] == micro_batch) return f->graph[i];
    char spec[96];
    snprintf(spec, sizeof spec, "%s,batch=%lld,train=0,loss=1", f->net, (long long)micro_batch);
    assert_true(f->count < MOST_GRAPHS);
    if (cria_network_create(spec, &f->graph[f->count], err) != CRIA_OK) return NULL;
    f->micro_batch[f->count] = micro_batch;
    return f->graph[f->count++];
}

static cria_stages_options options_of(const setting *s, family *f) {
    bool half = strncmp(s->net, "moe", 3) == 0; /* Wide-ResNet was trained in f32 */
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = half ? (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL} : (cria_element){CRIA_RATE_F32, 4, 4, 4, NULL};
    o.global_batch = s->global_batch;
    o.sequence = half ? 1024 : 1;
    /* MoE was trained with Adafactor and a master copy in f32, Wide-ResNet with a momentum. */
    o.optimizer_state = half ? 0 : 4;
    o.search = false;
    o.graph_of = graph_of;
    o.context = f;
    return o;
}

/* The published plan at its best under our model: every way of cutting the stages that were free. */
static cria_plan_summary price(const setting *s, const cria_graph *g, const cria_cluster *c,
                               const cria_stages_options *o) {
    cria_plan_summary best = {.seconds = HUGE_VAL};
    cria_error err = {0};
    for (unsigned turned = s->open;; turned = (turned - 1) & s->open) {
        cria_hand_stage stage[MOST_STAGES];
        cria_plan_summary summary;
        for (int i = 0; i < s->stages; i++) {
            cria_hand_stage as = s->stage[i];
            stage[i] = turned >> i & 1 ? (cria_hand_stage){as.layers, as.tensor, as.data} : as;
        }
        if (cria_stages_by_hand(g, c, o, stage, s->stages, CRIA_HAND_FREE, &summary, &err) != CRIA_OK)
            fail_msg("%s: %s", s->net, err.message);
        if (!best.feasible && (summary.feasible || !best.why[0])) best = summary;
        if (summary.feasible && summary.seconds < best.seconds) best = summary;
        if (!turned) return best;
    }
}

static void every_published_plan_fits_and_none_is_better_than_ours(void **state) {
    (void)state;
    cria_cluster *host;
    cria_error err = {0};
    assert_int_equal(cria_cluster_read(CRIA_SOURCE_DIR "/configs/clusters/p3.16xlarge.json", &host, &err), CRIA_OK);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *s = &settings[i];
        family f = {.net = s->net};
        cria_stages_options o = options_of(s, &f);
        cria_cluster *c;
        cria_stages_result own;
        assert_int_equal(cria_cluster_resize(host, s->hosts, s->devices, &c, &err), CRIA_OK);
        const cria_graph *g = graph_of(&f, s->global_batch / s->micro_batches, &err);
        assert_non_null(g);
        if (cria_stages_plan(g, c, &o, &own, &err) != CRIA_OK) fail_msg("%s: %s", s->net, err.message);
        o.micro_batch = s->global_batch / s->micro_batches;
        cria_plan_summary published = price(s, g, c, &o);
        if (!published.feasible) fail_msg("%s: %s", s->net, published.why);
        if (own.chosen.seconds > published.seconds * (1 + 1e-9))
            fail_msg("%s: %g s, but %g s is published", s->net, own.chosen.seconds, published.seconds);
        for (int k = 0; k < own.others; k++)
            assert_true(!own.other[k].feasible || own.other[k].seconds >= own.chosen.seconds * (1 - 1e-9));
        for (int k = 0; k < own.notes.stages; k++)
            assert_true(own.notes.stage[k].memory <= own.notes.stage[k].memory_limit);
        cria_stages_result_deinit(&own);
        for (int k = 0; k < f.count; k++) cria_graph_destroy(f.graph[k]);
        cria_cluster_destroy(c);
    }
    cria_cluster_destroy(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_published_plan_fits_and_none_is_better_than_ours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
