/* What every type of the KV cache takes of memory, in the runtime and in the planner's eyes, and how far the logits of
 * int8 are from those of f32. */
#include "models/family.h"
#include "server/commands/devices.h"
#include "tests/server/world.h"

#include <math.h>

static const char *const models[] = {"opt-plain", "llama-gqa"};

static const int32_t prompt[] = {3, 17, 9, 41, 22, 5, 60, 33, 12, 8, 27, 50, 2, 19, 44, 31, 7, 38, 26, 11};
enum { PROMPT = sizeof prompt / sizeof *prompt };

static void model_path(const char *name, char path[512]) {
    snprintf(path, 512, "%s/tests/fixtures/models/%s", CRIA_SOURCE_DIR, name);
}

/* Bytes of one token in all layers, by what the graph says. */
static double token_bytes(const char *path, const char *dtype, double *elements) {
    cria_model_config config;
    cria_graph *graph;
    cria_error err = {0};
    assert_int_equal(cria_read_config(path, &config, &err), CRIA_OK);
    assert_int_equal(cria_model_graph(&config, &graph, &err), CRIA_OK);
    double each = cria_kv_element_bytes(dtype, CRIA_RATE_F32, graph);
    cria_graph_destroy(graph);
    *elements = 2.0 * (double)(config.layers * config.kv_heads * config.head_dim);
    return each * *elements;
}

static void a_token_takes_the_bytes_that_the_planner_reckons_with(void **state) {
    (void)state;
    static const char *const types[] = {"auto", "f32", "bf16", "int8"};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            char path[512];
            cria_main_options options = {0};
            cria_error err = {0};
            cria_runtime *runtime;
            cria_runtime_summary s;
            double elements;
            model_path(models[m], path);
            assert_int_equal(cria_options_defaults(cria_option_table, cria_option_count, &options, &err), CRIA_OK);
            options.dtype = "f32";
            options.kv_cache_dtype = types[t];
            options.quiet = true;
            cria_runtime_request request = {.threads = 1};
            if (cria_runtime_open(path, &options, &request, NULL, &runtime, &err) != CRIA_OK)
                fail_msg("%s", err.message);
            cria_runtime_summarise(runtime, &s);
            cria_runtime_close(runtime);
            double tokens = (double)(s.kv_blocks * s.block_tokens), expected = token_bytes(path, types[t], &elements);
            assert_string_equal(s.kv_type, t == 0 ? "f32" : types[t]);
            assert_true(fabs((double)s.kv_bytes - expected * tokens) < 0.5);
            if (t == 3) assert_true(expected > elements && expected < 2 * elements);
        }
    }
}

static void prefill(const char *path, const char *kv, world *w) {
    *w = (world){.path = path, .isa = "auto", .dtype = "f32", .kv = kv, .size = 1};
    world_open(w);
    for (int at = 0; at < PROMPT; at += 7) {
        cria_batch_clear(w->batch);
        world_add(w, 1, prompt, at, PROMPT - at < 7 ? PROMPT - at : 7);
        world_step(w, at);
    }
    world_close(w);
}

/* Mean over the prompt of sum p * (log p - log q), the logits of p the exact ones. */
static double divergence(const float *exact, const float *other, int64_t vocab) {
    double all = 0;
    for (int64_t row = 0; row < PROMPT; row++, exact += vocab, other += vocab) {
        double sum_p = 0, sum_q = 0;
        for (int64_t i = 0; i < vocab; i++) sum_p += exp((double)exact[i]), sum_q += exp((double)other[i]);
        for (int64_t i = 0; i < vocab; i++)
            all += exp((double)exact[i]) / sum_p * ((double)exact[i] - log(sum_p) - (double)other[i] + log(sum_q));
    }
    return all / PROMPT;
}

static void int8_gives_nearly_the_probabilities_of_f32(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        char path[512];
        world f32, int8;
        model_path(models[m], path);
        prefill(path, "f32", &f32);
        prefill(path, "int8", &int8);
        double kl = divergence(f32.logits, int8.logits, f32.vocab);
        if (!(kl > 0 && kl < 1e-3)) fail_msg("%s: KL %g", models[m], kl);
        free(f32.logits), free(int8.logits);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_takes_the_bytes_that_the_planner_reckons_with),
        cmocka_unit_test(int8_gives_nearly_the_probabilities_of_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
