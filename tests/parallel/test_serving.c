/* Plans for serving: lengths, rates and the KV budget, and when one device is best. */
#include "models/family.h"
#include "parallel/plan/serving.h"
#include "tests/parallel/model_configs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

static cria_graph *opt(int64_t hidden, int64_t layers, int64_t heads) {
    return graph_of(opt_config(hidden, layers, heads));
}

static cria_stages_options options_of(cria_objective objective) {
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = objective;
    return o;
}

static void lengths_give_their_means_and_what_tokens_see(void **state) {
    (void)state;
    cria_stages_options o = options_of(CRIA_OBJECTIVE_LATENCY);
    cria_error err = {0};
    assert_int_equal(cria_serving_lengths("100:20*3,500:60", &o, &err), CRIA_OK);
    assert_int_equal(o.prompt_tokens, 200);
    assert_int_equal(o.new_tokens, 30);
    /* Tokens of long prompts are more and see more: (3 * 100^2 + 500^2) / 2 / 800. */
    assert_true(fabs(o.prompt_context - 280000.0 / 2 / 800) < 1e-9);
    assert_true(fabs(o.new_context - (3.0 * 20 * 110 + 60 * 530) / 120) < 1e-9);
    static const char *const bad[] = {"",        "100",     "100:", ":20",   "100:0",    "100:20*",
                                      "100:20,", "100:20x", "-1:5", "1e9:5", "100:20*0", "nan:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (cria_serving_lengths(bad[i], &o, &err) != CRIA_ERR_ARGUMENT) fail_msg("\"%s\" was taken", bad[i]);
}

static void higher_rates_need_more_requests_at_once(void **state) {
    (void)state;
    cria_cluster *c = cluster_of("dgx-a100.json:1x4");
    cria_graph *g = opt(4096, 8, 32);
    cria_stages_options o = options_of(CRIA_OBJECTIVE_THROUGHPUT);
    o.search = false;
    cria_error err = {0};
    cria_stages_result slow, fast;
    if (cria_serving_plan(g, c, &o, 2, &slow, &err) != CRIA_OK) fail_msg("%s", err.message);
    if (cria_serving_plan(g, c, &o, 60, &fast, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_true(slow.capacity >= 2 && fast.capacity >= 60);
    assert_true(slow.chosen.latency < fast.chosen.latency);
    assert_true(slow.queue.slots < fast.queue.slots);
    /* Of neighbouring numbers at once, none has requests answered sooner. */
    for (int64_t batch = fast.queue.slots / 2; batch <= fast.queue.slots * 2; batch *= 4) {
        cria_stages_result near;
        o.batch = batch;
        assert_int_equal(cria_stages_plan(g, c, &o, &near, &err), CRIA_OK);
        double capacity = near.chosen.tokens_per_second / (double)o.new_tokens;
        if (capacity > 60)
            assert_true(cria_serving_queue(60, batch, capacity).wait + (double)batch / capacity >=
                        fast.queue.wait + (double)fast.queue.slots / fast.capacity);
        cria_stages_result_deinit(&near);
    }
    o.batch = 1;
    cria_stages_result one;
    assert_int_equal(cria_stages_plan(g, c, &o, &one, &err), CRIA_OK);
    assert_true(one.chosen.tokens_per_second / (double)o.new_tokens < 60);
    cria_stages_result_deinit(&one);
    cria_stages_result_deinit(&slow);
    cria_stages_result_deinit(&fast);
    assert_int_equal(cria_serving_plan(g, c, &o, 1e7, &slow, &err), CRIA_ERR_INFEASIBLE);
    assert_non_null(strstr(err.message, "1e+07 requests a second"));
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

static void queues_are_those_of_the_textbook(void **state) {
    (void)state;
    /* One slot: M/D/1. Half a second of service, one request a second. */
    cria_queue q = cria_serving_queue(1, 1, 2);
    assert_true(fabs(q.running - 0.5) < 1e-12 && fabs(q.delayed - 0.5) < 1e-12 && fabs(q.wait - 0.25) < 1e-12);
    /* Erlang's C of two servers under a load of one is 1/3. */
    q = cria_serving_queue(1, 2, 2);
    assert_true(fabs(q.delayed - 1.0 / 3) < 1e-12 && fabs(q.wait - 1.0 / 6) < 1e-12);
    /* Many slots and little load: nobody waits. Near capacity, nearly everybody. */
    assert_true(cria_serving_queue(1, 8192, 8192).wait == 0);
    assert_true(cria_serving_queue(1.9999, 4, 2).delayed > 0.99 && cria_serving_queue(1.9999, 4, 2).wait > 1000);
}

static void the_kv_budget_is_kept_or_the_error_says_what_is_needed(void **state) {
    (void)state;
    cria_cluster *c = cluster_of("dgx-a100.json:1x4");
    cria_graph *g = opt(2048, 8, 16);
    cria_stages_options o = options_of(CRIA_OBJECTIVE_LATENCY);
    o.search = false;
    o.batch = 16;
    cria_error err = {0};
    cria_stages_result r;
    /* K and V of 8 layers, 2048 wide, in two bytes. */
    const double token = 2.0 * 8 * 2048 * 2, all = token * 16 * (double)(o.prompt_tokens + o.new_tokens);
    o.kv_budget = all / 3; /* then four devices must share it */
    if (cria_stages_plan(g, c, &o, &r, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_true(r.chosen.devices == 4);
    for (int s = 0; s < r.notes.stages; s++) {
        assert_true((double)r.notes.stage[s].kv <= o.kv_budget);
        double held = (double)r.notes.stage[s].kv_blocks * (double)r.notes.block_tokens * token / r.notes.ranks;
        assert_true(held <= o.kv_budget * (1 + 1e-9));
    }
    cria_stages_result_deinit(&r);
    o.kv_budget = all / 5;
    assert_int_equal(cria_stages_plan(g, c, &o, &r, &err), CRIA_ERR_INFEASIBLE);
    assert_non_null(strstr(err.message, "KV cache"));
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

static void where_links_are_slow_one_device_is_best_and_the_plan_says_why(void **state) {
    (void)state;
    static const char text[] =
        "{\"format\": \"cria cluster\", \"version\": 1, \"name\": \"slow links\", \"devices\": {\"a\": {\"flops\": "
        "{\"f32\": 1e13, \"f16\": 1e14}, \"memory\": 1e10, \"bandwidth\": 1e12}}, \"hosts\": [{\"devices\": "
        "[{\"type\": \"a\", \"count\": 4}], \"link\": {\"latency\": 0.01, \"bandwidth\": 1e7}}]}";
    cria_json *json;
    cria_cluster *c;
    cria_error err = {0};
    assert_int_equal(cria_json_parse(text, sizeof text - 1, &json, &err), CRIA_OK);
    if (cria_cluster_from_json(cria_json_root(json), &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_json_destroy(json);
    cria_graph *g = opt(1024, 4, 16);
    cria_stages_options o = options_of(CRIA_OBJECTIVE_LATENCY);
    cria_stages_result r;
    if (cria_stages_plan(g, c, &o, &r, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(r.chosen.devices, 1);
    assert_non_null(strstr(r.why, "one device is best"));
    cria_stages_result_deinit(&r);
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

/* Copies exchange nothing: where links are slow and requests are many, each rank gets one, ranks in order or not. None
 * where one copy is asked for, and none that leaves a rank over. */
static void throughput_takes_copies_where_links_are_slow(void **state) {
    (void)state;
    cria_cluster *c = cluster_of("two-cores.json");
    cria_graph *g = opt(256, 4, 4);
    cria_stages_options o = options_of(CRIA_OBJECTIVE_THROUGHPUT);
    o.search = false;
    o.batch = 64;
    cria_error err = {0};
    for (int ordered = 0; ordered < 2; ordered++)
        for (int one = 0; one < 2; one++) {
            cria_stages_result r;
            o.in_order = ordered;
            o.one_copy = one;
            if (cria_stages_plan(g, c, &o, &r, &err) != CRIA_OK) fail_msg("%s", err.message);
            assert_int_equal(r.chosen.replicas, one ? 1 : 2);
            assert_int_equal(r.notes.replicas, r.chosen.replicas);
            if (!one) assert_int_equal(r.chosen.devices, 1);
            cria_stages_result_deinit(&r);
        }
    cria_graph_destroy(g);
    cria_cluster_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_give_their_means_and_what_tokens_see),
        cmocka_unit_test(higher_rates_need_more_requests_at_once),
        cmocka_unit_test(queues_are_those_of_the_textbook),
        cmocka_unit_test(the_kv_budget_is_kept_or_the_error_says_what_is_needed),
        cmocka_unit_test(throughput_takes_copies_where_links_are_slow),
        cmocka_unit_test(where_links_are_slow_one_device_is_best_and_the_plan_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
