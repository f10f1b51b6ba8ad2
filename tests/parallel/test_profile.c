/* Profiles: samples take the place of the model where they were measured, links are fitted, ranks become devices. */
#include "models/family.h"
#include "parallel/plan/cost.h"
#include "parallel/profile/bed.h"
#include "parallel/profile/profile.h"
#include "parallel/profile/shapes.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cria_graph *small_model(void) {
    static const char text[] =
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 96, "
        "\"num_hidden_layers\": 3, \"num_attention_heads\": 3, \"num_key_value_heads\": 1, \"intermediate_size\": 256, "
        "\"vocab_size\": 512, \"max_position_embeddings\": 128, \"torch_dtype\": \"float32\", \"rms_norm_eps\": 1e-5}";
    cria_json *json;
    cria_model_config config;
    cria_graph *graph;
    cria_error err = {0};
    assert_int_equal(cria_json_parse(text, strlen(text), &json, &err), CRIA_OK);
    if (cria_config_from_json(cria_json_root(json), &config, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_json_destroy(json);
    if (cria_model_graph(&config, &graph, &err) != CRIA_OK) fail_msg("%s", err.message);
    return graph;
}

static const cria_device_type plain = {.name = "plain",
                                       .flops = {1e11, 1e11, 1e11, 4e11},
                                       .memory = 1e9,
                                       .bandwidth = 1e10,
                                       .matmul = 0.5,
                                       .half = 8,
                                       .attention = 0.3,
                                       .streaming = 0.7,
                                       .launch = 1e-6};

static cria_work product(cria_rate rate, double rows, double columns, double depth) {
    return (cria_work){.kind = CRIA_OP_LINEAR,
                       .rate = rate,
                       .multiplies = true,
                       .flops = 2 * rows * columns * depth,
                       .bytes = columns * depth * 2 + 4 * rows * (columns + depth),
                       .rows = rows,
                       .columns = columns,
                       .depth = depth};
}

static void a_sample_is_what_its_shape_takes_and_shapes_between_lie_between(void **state) {
    (void)state;
    static const cria_element bf16 = {CRIA_RATE_BF16, 2, 4, 2, NULL}, f32 = {CRIA_RATE_F32, 4, 4, 4, NULL};
    cria_work one = product(CRIA_RATE_BF16, 1, 512, 512), two = product(CRIA_RATE_BF16, 2, 512, 512),
              four = product(CRIA_RATE_BF16, 4, 512, 512), other = product(CRIA_RATE_F32, 1, 512, 512);
    double expected = cria_cost_work(&plain, &bf16, &one);
    cria_sample sample[2] = {
        {CRIA_OP_LINEAR, CRIA_RATE_BF16, 1, 512, 512, 3 * cria_cost_work(&plain, &bf16, &one), 1, 512, 0, {0}},
        {CRIA_OP_LINEAR, CRIA_RATE_BF16, 4, 512, 512, 5 * cria_cost_work(&plain, &bf16, &four), 1, 512, 0, {0}}};
    cria_device_type type = plain;
    type.sample = sample;
    type.samples = 2;
    const int zero = 0;
    const cria_link link = {1e-6, 1e10};
    cria_cluster_parts parts = {"c", &type, 1, &link, 1, &zero, &zero, 1, link};
    cria_cluster *c;
    cria_error err = {0};
    if (cria_cluster_create(&parts, &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    const cria_device_type *measured = cria_cluster_type(c, 0);
    assert_true(fabs(cria_cost_work(measured, &bf16, &one) / (3 * expected) - 1) < 1e-3);
    double middle = cria_cost_work(measured, &bf16, &two) / cria_cost_work(&plain, &bf16, &two);
    assert_true(middle > 3.5 && middle < 4.3);
    /* Another type of weights was not measured. */
    assert_true(cria_cost_work(measured, &f32, &other) == cria_cost_work(&plain, &f32, &other));
    cria_cluster_destroy(c);
}

static void what_is_fused_costs_nothing(void **state) {
    (void)state;
    static const cria_element f32 = {CRIA_RATE_F32, 4, 4, 4, NULL};
    cria_device_type fused = plain;
    fused.fused = 1;
    cria_work add = {.kind = CRIA_OP_ADD, .flops = 512, .bytes = 6144, .rows = 1, .columns = 512, .depth = 1};
    assert_true(cria_cost_work(&plain, &f32, &add) > 0);
    assert_true(cria_cost_work(&fused, &f32, &add) == 0);
    add.kind = CRIA_OP_NORM;
    assert_true(cria_cost_work(&fused, &f32, &add) > 0);
}

static void a_cluster_that_was_written_is_read_back_as_it_was(void **state) {
    (void)state;
    cria_sample sample[] = {{CRIA_OP_ATTENTION, CRIA_RATE_BF16, 16, 768, 100, 1.25e-5, 16, 256, 0, {0}},
                            {CRIA_OP_NORM, CRIA_RATE_Q4, 2, 768, 1, 1e-6, 1, 768, 0, {0}}};
    cria_device_type types[2] = {plain, plain};
    types[0].sample = sample;
    types[0].samples = 2;
    types[0].fused = 1;
    snprintf(types[1].name, sizeof types[1].name, "an \"other\"");
    const cria_link links[] = {{1e-6, 1e10}, {2e-6, 2e10}};
    const int type_of[] = {0, 0, 1, 0}, host_of[] = {0, 0, 0, 1};
    cria_cluster_parts parts = {"two hosts", types, 2, links, 2, type_of, host_of, 4, {1e-3, 1e9}};
    const cria_link_sample measured = {CRIA_LINK_ALL_REDUCE, 1024, 1e-5};
    cria_cluster *c, *again;
    cria_error err = {0};
    if (cria_cluster_create(&parts, &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_text text, second;
    cria_text_init(&text);
    cria_text_init(&second);
    cria_cluster_print(c, "a note", &measured, 1, &text);
    cria_json *json;
    if (cria_json_parse(text.data, text.length, &json, &err) != CRIA_OK) fail_msg("%s", err.message);
    if (cria_cluster_from_json(cria_json_root(json), &again, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_json_destroy(json);
    assert_int_equal(cria_cluster_devices(again), 4);
    assert_int_equal(cria_cluster_type_of(again, 2), 1);
    assert_int_equal(cria_cluster_host_of(again, 3), 1);
    assert_true(cria_cluster_network(again)->latency == 1e-3);
    assert_true(cria_cluster_type(again, 0)->sample[0].ratio == cria_cluster_type(c, 0)->sample[0].ratio);
    cria_cluster_print(again, "a note", &measured, 1, &second);
    assert_string_equal(text.data, second.data);
    cria_text_deinit(&text);
    cria_text_deinit(&second);
    cria_cluster_destroy(c);
    cria_cluster_destroy(again);
}

static void the_line_through_exact_times_has_their_latency_and_bandwidth(void **state) {
    (void)state;
    for (int ranks = 2; ranks <= 6; ranks += 2) {
        cria_link_samples samples = {.count = 0};
        for (double bytes = 1024; bytes < 1e7; bytes *= 4)
            samples.sample[samples.count++] = (cria_link_sample){
                CRIA_LINK_ALL_REDUCE, bytes, 3e-6 * ceil(log2(ranks)) + 2.0 * (ranks - 1) / ranks * bytes / 5e9};
        samples.sample[samples.count++] = (cria_link_sample){CRIA_LINK_SEND, 1024, 1}; /* not looked at */
        cria_link link = cria_links_fit(&samples, ranks);
        assert_true(fabs(link.latency / 3e-6 - 1) < 1e-6);
        assert_true(fabs(link.bandwidth / 5e9 - 1) < 1e-6);
    }
}

static bool has(const cria_shapes *s, int kind, double columns, double depth) {
    for (int i = 0; i < s->count; i++)
        if (s->shape[i].sample.operator_kind == kind && s->shape[i].sample.columns == columns &&
            s->shape[i].sample.depth == depth)
            return true;
    return false;
}

static void a_models_shapes_are_found_whole_and_cut_each_once(void **state) {
    (void)state;
    static const bool rates[CRIA_RATE_COUNT] = {[CRIA_RATE_F32] = true};
    cria_graph *g = small_model();
    cria_shapes s;
    assert_true(cria_shapes_find(g, rates, 2, CRIA_PROFILE_QUICK, &s));
    assert_true(has(&s, CRIA_OP_LINEAR, 256, 96));
    assert_true(has(&s, CRIA_OP_LINEAR, 128, 96)); /* feed-forward columns in two */
    assert_true(has(&s, CRIA_OP_LINEAR, 96, 128)); /* and what reads them */
    assert_true(has(&s, CRIA_OP_LINEAR, 64, 96));  /* two of three heads */
    assert_true(has(&s, CRIA_OP_LINEAR, 512, 96));
    assert_true(has(&s, CRIA_OP_ATTENTION, 96, 32));
    assert_true(has(&s, CRIA_OP_SAMPLE, 256, 1));
    for (int i = 0; i < s.count; i++)
        for (int k = 0; k < i; k++) assert_true(memcmp(&s.shape[i], &s.shape[k], sizeof s.shape[i]) != 0);
    cria_shapes_deinit(&s);
    cria_graph_destroy(g);
}

/* A type that shared another's samples would be predicted at the other's speed: twice as fast or half. */
static void every_type_of_weights_has_samples_of_its_own(void **state) {
    (void)state;
    for (int r = 0; r < CRIA_RATE_COUNT; r++)
        if (r != CRIA_RATE_F16) assert_int_equal(cria_rate_of_panel(cria_panel_of_rate((cria_rate)r)), r);
    for (int a = 0; a < CRIA_RATE_COUNT; a++)
        for (int b = 0; b < a; b++) assert_string_not_equal(cria_rate_name((cria_rate)a), cria_rate_name((cria_rate)b));
}

enum { RANKS = 2 };
typedef struct {
    cria_comm *comm;
    cria_graph *graph;
    cria_profile profile;
    cria_profile_depth depth;
    const char *host, *machine;
    pthread_t thread;
    cria_status status;
    cria_error err;
} measuring;

static void *measure(void *context) {
    static const bool rates[CRIA_RATE_COUNT] = {[CRIA_RATE_Q4] = true};
    measuring *m = context;
    cria_pool *pool;
    m->status = cria_pool_create(1, &pool, &m->err);
    if (m->status != CRIA_OK) return NULL;
    cria_profile_task task = {.depth = m->depth,
                              .pool = pool,
                              .isa = cria_isa_best(),
                              .comm = m->comm,
                              .host = m->host,
                              .machine = m->machine,
                              .memory = 1e9,
                              .graph = m->graph,
                              .rates = rates};
    m->status = cria_profile_run(&task, &m->profile, &m->err);
    cria_pool_destroy(pool);
    return NULL;
}

/* Runs both ranks; the caller deinits the profiles. */
static void measure_both(measuring m[RANKS]) {
    cria_comm *comm[RANKS];
    cria_error err = {0};
    if (cria_comm_create_threads(RANKS, NULL, comm, &err) != CRIA_OK) fail_msg("%s", err.message);
    for (int r = 0; r < RANKS; r++) m[r].comm = comm[r];
    for (int r = 0; r < RANKS; r++) assert_int_equal(pthread_create(&m[r].thread, NULL, measure, &m[r]), 0);
    for (int r = 0; r < RANKS; r++) pthread_join(m[r].thread, NULL);
    for (int r = 0; r < RANKS; r++) cria_comm_destroy(comm[r]);
    for (int r = 0; r < RANKS; r++)
        if (m[r].status != CRIA_OK) fail_msg("%s", m[r].err.message);
}

static void two_ranks_of_a_host_are_two_devices_of_one_type_that_know_the_same(void **state) {
    (void)state;
    cria_graph *g = small_model();
    measuring m[RANKS] = {{.graph = g, .depth = CRIA_PROFILE_QUICK, .host = "a", .machine = "cpu"},
                          {.graph = g, .depth = CRIA_PROFILE_QUICK, .host = "a", .machine = "cpu"}};
    measure_both(m);
    cria_text text[RANKS];
    for (int r = 0; r < RANKS; r++) {
        const cria_cluster *c = m[r].profile.cluster;
        assert_int_equal(cria_cluster_devices(c), 2);
        assert_int_equal(cria_cluster_hosts(c), 1);
        assert_int_equal(cria_cluster_types(c), 1);
        assert_true(cria_cluster_type(c, 0)->samples > 50);
        assert_true(cria_cluster_host(c, 0)->link.latency > 0);
        cria_text_init(&text[r]);
        cria_cluster_print(c, NULL, m[r].profile.links->sample, m[r].profile.links->count, &text[r]);
    }
    assert_string_equal(text[0].data, text[1].data);
    for (int r = 0; r < RANKS; r++) {
        cria_text_deinit(&text[r]);
        cria_profile_deinit(&m[r].profile);
    }
    cria_graph_destroy(g);
}

static void ranks_of_two_hosts_have_a_network_and_unlike_ones_types_of_their_own(void **state) {
    (void)state;
    measuring m[RANKS] = {{.depth = CRIA_PROFILE_BRIEF, .host = "a", .machine = "fast"},
                          {.depth = CRIA_PROFILE_BRIEF, .host = "b", .machine = "slow"}};
    measure_both(m);
    for (int r = 0; r < RANKS; r++) {
        const cria_cluster *c = m[r].profile.cluster;
        assert_int_equal(cria_cluster_hosts(c), 2);
        assert_int_equal(cria_cluster_types(c), 2);
        assert_int_equal(cria_cluster_type_of(c, 1), 1);
        assert_true(cria_cluster_network(c)->bandwidth > 0);
        cria_profile_deinit(&m[r].profile);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_what_its_shape_takes_and_shapes_between_lie_between),
        cmocka_unit_test(what_is_fused_costs_nothing),
        cmocka_unit_test(a_cluster_that_was_written_is_read_back_as_it_was),
        cmocka_unit_test(the_line_through_exact_times_has_their_latency_and_bandwidth),
        cmocka_unit_test(a_models_shapes_are_found_whole_and_cut_each_once),
        cmocka_unit_test(every_type_of_weights_has_samples_of_its_own),
        cmocka_unit_test(two_ranks_of_a_host_are_two_devices_of_one_type_that_know_the_same),
        cmocka_unit_test(ranks_of_two_hosts_have_a_network_and_unlike_ones_types_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
