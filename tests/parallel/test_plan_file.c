/* Plan files come back as they were written, and files for something else are refused with the place. */
#include "parallel/plan/plan_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cria_graph *chain(int64_t hidden, int layers) {
    cria_graph *g = cria_graph_create("chain", layers);
    cria_dim token = {CRIA_DIM_TOKEN, CRIA_SYMBOLIC}, h = {CRIA_DIM_HIDDEN, hidden}, f = {CRIA_DIM_FFN, 4 * hidden};
    cria_dim v = {CRIA_DIM_VOCAB, 100};
    cria_graph_set_group(g, 1);
    int ids = cria_graph_input(g, "token_ids", token);
    int table = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){v, h}, "table");
    int x = cria_graph_add(g, (cria_op){.kind = CRIA_OP_EMBED, .layer = -1, .input = {ids, table, -1, -1}}, "x");
    for (int l = 0; l < layers; l++) {
        int up = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){f, h}, "up %d", l);
        int down = cria_graph_param(g, CRIA_PARAM_PLAIN, 2, (cria_dim[]){h, f}, "down %d", l);
        int a = cria_graph_add(g, (cria_op){.kind = CRIA_OP_LINEAR, .layer = l, .input = {x, up, -1, -1}}, "a %d", l);
        int b = cria_graph_add(g, (cria_op){.kind = CRIA_OP_LINEAR, .layer = l, .input = {a, down, -1, -1}}, "b %d", l);
        x = cria_graph_add(g, (cria_op){.kind = CRIA_OP_ADD, .layer = l, .input = {x, b, -1, -1}}, "c %d", l);
    }
    cria_error err = {0};
    if (cria_graph_check(g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

static int8_t index_of(const cria_graph *g, int op, cria_dim_name name) {
    cria_op_index indices[CRIA_MAX_INDICES];
    int count = cria_op_indices(g, cria_graph_op(g, op), indices);
    for (int i = 0; i < count; i++)
        if (indices[i].dim.name == name) return (int8_t)i;
    return CRIA_IDLE;
}

/* Embedding and first layer on ranks 0 and 1 with unequal shares, second layer on a 2 x 2 mesh. */
static cria_plan *two_stages(const cria_graph *g) {
    static const double share[2] = {3, 1};
    cria_stage stage[2] = {
        {.end_op = 4, .mesh = {.size = {1, 2}, .alpha = {0, 1e-6}, .beta = {0, 1e-9}, .share = {NULL, share}}},
        {.first_op = 4, .end_op = 7, .first_rank = 2, .mesh = {.size = {2, 2}, .alpha = {1e-5, 2e-6}}}};
    cria_strategy strategy[7];
    for (int i = 0; i < 7; i++) {
        cria_dim_name cut = i == 0 ? CRIA_DIM_VOCAB : CRIA_DIM_FFN;
        int8_t index[2] = {CRIA_IDLE, index_of(g, i, cut)};
        const cria_mesh *mesh = &stage[i >= 4].mesh;
        assert_null(cria_strategy_derive(g, cria_graph_op(g, i), mesh, index, &strategy[i]));
        if (strategy[i].output.dim[1] == CRIA_PARTIAL) strategy[i].output.dim[1] = CRIA_REPLICATED;
    }
    strategy[5].output.dim[1] = 1; /* the sum is scattered */
    cria_plan *plan;
    cria_error err = {0};
    if (cria_plan_create(g, stage, 2, strategy, &plan, &err) != CRIA_OK) fail_msg("%s", err.message);
    return plan;
}

static void fill_notes(cria_plan_notes *notes) {
    assert_int_equal(cria_plan_notes_init(notes, 6, 2, NULL), CRIA_OK);
    snprintf(notes->cluster, sizeof notes->cluster, "six \"fast\" ones");
    notes->objective = CRIA_OBJECTIVE_TRAIN;
    notes->schedule = CRIA_SCHEDULE_1F1B;
    notes->micro_batches = 64;
    notes->tokens = 2048;
    notes->step_seconds = 1.25;
    notes->tokens_per_second = 1e6 / 3;
    for (int r = 0; r < 6; r++) notes->device[r] = 5 - r, notes->bytes[r] = (int64_t)1 << (50 + r);
    notes->stage[1] = (cria_plan_stage_notes){
        .compute = 0.1, .bubble = 1e-9, .memory = 7, .memory_limit = 9, .kv_blocks = 3, .recompute = true, .zero = 3};
}

static cria_json *parse(const char *text, size_t length) {
    cria_json *json;
    cria_error err = {0};
    if (cria_json_parse(text, length, &json, &err) != CRIA_OK) fail_msg("%s", err.message);
    return json;
}

static void a_plan_comes_back_as_it_was_written(void **state) {
    (void)state;
    cria_graph *g = chain(8, 2);
    cria_plan *plan = two_stages(g), *read;
    cria_plan_notes notes, back;
    fill_notes(&notes);
    cria_text first, second;
    cria_text_init(&first);
    cria_text_init(&second);
    cria_plan_print(plan, g, &notes, &first);
    cria_json *json = parse(first.data, first.length);
    cria_error err = {0};
    if (cria_plan_from_json(cria_json_root(json), g, &read, &back, &err) != CRIA_OK) fail_msg("%s", err.message);
    for (int i = 0; i < cria_graph_ops(g); i++)
        assert_memory_equal(cria_plan_strategy(plan, i), cria_plan_strategy(read, i), sizeof(cria_strategy));
    assert_true(cria_plan_stage(read, 0)->mesh.share[1][0] == 3.0);
    assert_true(cria_plan_stage(read, 1)->mesh.alpha[0] == 1e-5);
    for (int r = 0; r < 6; r++) {
        assert_int_equal(back.device[r], 5 - r);
        assert_true(back.bytes[r] == (int64_t)1 << (50 + r));
    }
    assert_memory_equal(&back.stage[1], &notes.stage[1], sizeof notes.stage[1]);
    assert_string_equal(back.cluster, notes.cluster);
    /* What is written of it again is the same text, so nothing was lost. */
    cria_plan_print(read, g, &back, &second);
    assert_string_equal(first.data, second.data);
    assert_int_equal(cria_plan_check_json(cria_json_root(json), NULL, NULL), CRIA_OK);
    cria_json_destroy(json);
    cria_plan_notes_deinit(&notes);
    cria_plan_notes_deinit(&back);
    cria_text_deinit(&first);
    cria_text_deinit(&second);
    cria_plan_destroy(plan);
    cria_plan_destroy(read);
    cria_graph_destroy(g);
}

static void a_file_on_disk_is_read_and_named_in_errors(void **state) {
    (void)state;
    cria_graph *g = chain(8, 2), *other = chain(16, 2);
    cria_plan *plan = two_stages(g), *read;
    cria_error err = {0};
    assert_int_equal(cria_plan_write("test_plan_file.json", plan, g, NULL, &err), CRIA_OK);
    assert_int_equal(cria_plan_read("test_plan_file.json", g, &read, NULL, &err), CRIA_OK);
    cria_plan_destroy(read);
    assert_int_equal(cria_plan_read("test_plan_file.json", other, &read, NULL, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "test_plan_file.json: the plan is for chain"));
    assert_int_equal(cria_plan_write("/no/such/folder/plan.json", plan, g, NULL, &err), CRIA_ERR_IO);
    remove("test_plan_file.json");
    cria_plan_destroy(plan);
    cria_graph_destroy(g);
    cria_graph_destroy(other);
}

/* Each row: what is replaced in a good plan, by what, and what the error must say. */
static void a_wrong_plan_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"\"cria plan\"", "\"alpa plan\"", "\"format\""},
        {"\"version\": 1", "\"version\": 2", "version"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"\"operators\": 7", "\"operators\": 8", "operators"},
        {"\"operators\": 7", "\"operators\": 1e300", "operators"},
        {"\"hash\": \"", "\"hash\": \"x", "hash"},
        {"\"ranks\": 6", "\"ranks\": 7", "6 of 7 ranks"},
        {"\"ranks\": 6", "\"ranks\": 5", "stage 1"},
        {"\"ranks\": 6", "\"ranks\": 0", "ranks"},
        {"\"ranks\": 6", "\"ranks\": 9007199254740993", "ranks"},
        {"\"mesh\": [1, 2]", "\"mesh\": [1, 2, 1]", "stage 0: \"mesh\" must have 2 elements"},
        {"\"mesh\": [1, 2]", "\"mesh\": [0, 2]", "stage 0: \"mesh\": axis 0"},
        {"\"mesh\": [2, 2]", "\"mesh\": [2, 2.5]", "stage 1: \"mesh\": axis 1"},
        {"\"mesh\": [2, 2]", "\"mesh\": [6, 6]", "stage 1: \"mesh\": 6 x 6"},
        {"\"first_rank\": 2", "\"first_rank\": 1", "stage 1: \"first_rank\" is 1, but must be 2"},
        {"\"shares\": [null, [3, 1]]", "\"shares\": [null, [3]]", "shares"},
        {"\"shares\": [null, [3, 1]]", "\"shares\": [null, [3, -1]]", "shares"},
        {"\"shares\": [null, [3, 1]]", "\"shares\": [null, [1e9, 1e-8]]", "leaves a device"},
        {"\"alpha\": [0,", "\"alpha\": [NaN,", "alpha"},
        {"\"name\": \"b 0\"", "\"name\": \"c 0\"", "operator 2 is \"c 0\" in the plan, but \"b 0\" in the model"},
        {"\"cut\": [\"idle\", \"vocab\"]", "\"cut\": [\"idle\", \"head\"]", "operator \"x\" has no index \"head\""},
        {"\"cut\": [\"idle\", \"vocab\"]", "\"cut\": [\"idle\"]", "cut"},
        {"\"output\": [\"whole\", \"ffn\"]", "\"output\": [\"whole\", \"vocab\"]", "no dim \"vocab\""},
        {"\"output\": [\"whole\", \"ffn\"]", "\"output\": [\"whole\", 3]", "two words"},
        {"\"output\": [\"whole\", \"ffn\"]", "\"output\": [\"whole\", \"partial\"]", "operator \"a 0\""},
        {"\"objective\": \"train\"", "\"objective\": \"speed\"", "\"objective\": \"speed\" is not known"},
        {"\"micro_batches\": 64", "\"micro_batches\": 0", "micro_batches"},
        {"\"devices\": [5,", "\"devices\": [", "\"devices\" has 5 elements"},
        {"\"bytes\": [1125899906842624,", "\"bytes\": [-1,", "\"bytes\": rank 0"},
        {"\"zero\": 3", "\"zero\": 4", "stage 1: "},
    };
    cria_graph *g = chain(8, 2);
    cria_plan *plan = two_stages(g), *read;
    cria_plan_notes notes;
    fill_notes(&notes);
    cria_text good, bad;
    cria_text_init(&good);
    cria_text_init(&bad);
    cria_plan_print(plan, g, &notes, &good);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *at = strstr(good.data, rows[i][0]);
        if (!at) fail_msg("row %zu: no %s in %s", i, rows[i][0], good.data);
        cria_text_clear(&bad);
        cria_text_append(&bad, good.data, (size_t)(at - good.data));
        cria_text_puts(&bad, rows[i][1]);
        cria_text_puts(&bad, at + strlen(rows[i][0]));
        cria_json *json = parse(bad.data, bad.length);
        cria_error err = {0};
        if (cria_plan_from_json(cria_json_root(json), g, &read, NULL, &err) == CRIA_OK)
            fail_msg("row %zu was accepted: %s", i, rows[i][1]);
        if (!strstr(err.message, rows[i][2])) fail_msg("row %zu: %s, not %s", i, err.message, rows[i][2]);
        cria_json_destroy(json);
    }
    cria_text_deinit(&good);
    cria_text_deinit(&bad);
    cria_plan_notes_deinit(&notes);
    cria_plan_destroy(plan);
    cria_graph_destroy(g);
}

static void equal_layers_have_one_hash_and_different_ones_another(void **state) {
    (void)state;
    cria_graph *g = chain(8, 3), *wide = chain(16, 3);
    assert_true(cria_graph_hash(g, 1, 4) == cria_graph_hash(g, 4, 7));
    assert_true(cria_graph_hash(g, 1, 4) != cria_graph_hash(g, 1, 7));
    assert_true(cria_graph_hash(g, 1, 4) != cria_graph_hash(g, 2, 5));
    assert_true(cria_graph_hash(g, 1, 4) != cria_graph_hash(wide, 1, 4));
    cria_graph_destroy(g);
    cria_graph_destroy(wide);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_comes_back_as_it_was_written),
        cmocka_unit_test(a_file_on_disk_is_read_and_named_in_errors),
        cmocka_unit_test(a_wrong_plan_is_refused_with_its_place),
        cmocka_unit_test(equal_layers_have_one_hash_and_different_ones_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
