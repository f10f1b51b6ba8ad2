/* Graph files: every net and model comes back as it was written, and what is wrong with a file is said with its place.
 */
#include "parallel/graph/graph_file.h"

#include "models/family.h"
#include "parallel/graph/attributes.h"
#include "parallel/graph/gradient.h"
#include "parallel/graph/language.h"
#include "parallel/nets/network.h"
#include "parallel/plan/plan_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cria_status read_text(const char *text, size_t length, cria_graph **out, cria_error *err) {
    cria_json *json = NULL;
    CRIA_TRY(cria_json_parse(text, length, &json, err));
    cria_status status = cria_graph_read(cria_json_root(json), out, err);
    cria_json_destroy(json);
    return status;
}

/* Written, read and written again: the same text, hash, table and units. Destroys the graph. */
static void check_round_trip(cria_graph *g) {
    cria_text text[2], table[2];
    for (int i = 0; i < 2; i++) {
        cria_text_init(&text[i]);
        cria_text_init(&table[i]);
    }
    cria_graph *back = NULL;
    cria_error err = {0};
    cria_graph_write(g, &text[0]);
    if (read_text(text[0].data, text[0].length, &back, &err) != CRIA_OK)
        fail_msg("%s: %s", cria_graph_name(g), err.message);
    cria_graph_write(back, &text[1]);
    assert_string_equal(text[0].data, text[1].data);
    assert_true(cria_graph_hash(g, 0, cria_graph_ops(g)) == cria_graph_hash(back, 0, cria_graph_ops(back)));
    cria_graph_print(g, &table[0]);
    cria_graph_print(back, &table[1]);
    assert_string_equal(table[0].data, table[1].data);
    assert_int_equal(cria_graph_dim_names(g), cria_graph_dim_names(back));
    for (int i = 0; i < cria_graph_dim_names(g); i++)
        assert_int_equal(cria_graph_named_unit(g, i), cria_graph_named_unit(back, i));
    for (int i = 0; i < 2; i++) {
        cria_text_deinit(&text[i]);
        cria_text_deinit(&table[i]);
    }
    cria_graph_destroy(g);
    cria_graph_destroy(back);
}

static void every_net_comes_back_as_it_was_written(void **state) {
    (void)state;
    static const char *const specs[] = {"mlp:layers=3,bias=1,relu=1,loss=1,train=1",
                                        "attention",
                                        "gpt:layers=2,tied=1",
                                        "gpt:layers=2,adam=0",
                                        "moe:layers=2",
                                        "wide-resnet:layers=14",
                                        "chain:steps=3,reshape=1",
                                        "sum:dots=3,readers=6,whole=0"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        cria_graph *g = NULL;
        cria_error err = {0};
        if (cria_network_create(specs[i], &g, &err) != CRIA_OK) fail_msg("%s", err.message);
        check_round_trip(g);
    }
}

static cria_graph *llama(void) {
    cria_model_config config = {.family = CRIA_FAMILY_LLAMA,
                                .architecture = "LlamaForCausalLM",
                                .vocab = 1000,
                                .hidden = 96,
                                .embed_dim = 96,
                                .layers = 2,
                                .heads = 6,
                                .kv_heads = 2,
                                .head_dim = 16,
                                .ffn = 160,
                                .max_positions = 128,
                                .activation = CRIA_ACT_SILU,
                                .norm_eps = 1e-5,
                                .rope = {.theta = 10000}};
    cria_graph *g = NULL;
    cria_error err = {0};
    if (cria_model_graph(&config, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    return g;
}

static void models_come_back_for_serving_and_for_training(void **state) {
    (void)state;
    check_round_trip(llama());
    cria_graph *g = llama();
    cria_error err = {0};
    int loss;
    const cria_optimizer adam = {CRIA_OPTIMIZER_ADAM, 1e-3F, 0.9F, 0.95F, 1e-8F};
    assert_int_equal(cria_graph_add_language_loss(g, 2, 16, &loss, &err), CRIA_OK);
    assert_int_equal(cria_graph_train(g, loss, &adam, &err), CRIA_OK);
    check_round_trip(g);
}

/* A graph as somebody would write it by hand, with one line taken out or changed by each test. */
static const char *const by_hand =
    "{\"format\": \"cria graph\", \"version\": 1, \"name\": \"two\",\n"
    "\"tensors\": [{\"name\": \"x\", \"dims\": [[\"rows\", 8], [\"in\", 4]]},\n"
    "{\"name\": \"w\", \"kind\": \"parameter\", \"dims\": [[\"out\", 6], [\"in\", 4]]}],\n"
    "\"operators\": [{\"kind\": \"einsum\", \"name\": \"y\", \"inputs\": [\"x\", \"w\"],\n"
    "\"dims\": [[\"rows\", 8], [\"out\", 6]]},\n"
    "{\"kind\": \"activation\", \"name\": \"z\", \"inputs\": [\"y\"],\n"
    "\"activation\": \"relu\"}]}";

static void a_graph_written_by_hand_needs_no_more_than_its_operators(void **state) {
    (void)state;
    cria_graph *g = NULL;
    cria_error err = {0};
    if (read_text(by_hand, strlen(by_hand), &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_graph_ops(g), 2);
    assert_true((double)cria_graph_op(g, 0)->scale == 1);
    assert_int_equal(cria_graph_op(g, 1)->activation, CRIA_ACT_RELU);
    assert_int_equal(cria_graph_find(g, "z"), cria_graph_op(g, 1)->output);
    assert_int_equal(cria_graph_group(g), 1);
    cria_graph_destroy(g);
}

/* `from` in the graph above becomes `to`; the message holds `says`. */
static void check_refused(const char *from, const char *to, const char *says) {
    const char *at = strstr(by_hand, from);
    assert_non_null(at);
    cria_text text;
    cria_text_init(&text);
    cria_text_append(&text, by_hand, (size_t)(at - by_hand));
    cria_text_puts(&text, to);
    cria_text_puts(&text, at + strlen(from));
    cria_graph *g = NULL;
    cria_error err = {0};
    assert_int_not_equal(read_text(text.data, text.length, &g, &err), CRIA_OK);
    if (!strstr(err.message, says)) fail_msg("%s -> %s: \"%s\" does not say \"%s\"", from, to, err.message, says);
    cria_text_deinit(&text);
}

static void what_is_wrong_is_said_with_its_place(void **state) {
    (void)state;
    check_refused("cria graph", "cria plan", "no graph file");
    check_refused("\"version\": 1", "\"version\": 2", "version");
    check_refused("\"name\": \"two\"", "\"name\": \"two\", \"lairs\": 3", "unknown key \"lairs\"");
    check_refused("\"name\": \"w\"", "\"name\": \"x\"", "tensor 1 \"x\": another tensor has the same name");
    check_refused("[\"out\", 6], [\"in\", 4]", "[\"in\", 6], [\"in\", 4]", "tensor 1 \"w\"");
    check_refused("[\"in\", 4]]},\n{", "[\"in\", 0]]},\n{", "tensor 0 \"x\": the extent of dim \"in\"");
    check_refused("[\"in\", 4]]},\n{", "[\"in\", 1.5]]},\n{", "whole number");
    check_refused("[\"in\", 4]]},\n{", "[\"in\", null]]},\n{", "only token and row");
    check_refused("[\"in\", 4]]},\n{", "[\"in\", 1000000000000000]]},\n{", "2^40");
    check_refused("[\"rows\", 8], [\"in\", 4]", "[\"rows\", 1000000000], [\"in\", 1000000000]", "elements");
    check_refused("[\"in\", 4]]},\n{", "[\"in\"]]},\n{", "[name, extent]");
    check_refused("[\"in\", 4]]},\n{", "[\"whole\", 4]]},\n{", "not idle, partial or whole");
    check_refused("\"kind\": \"parameter\"", "\"kind\": \"value\"", "not listed");
    check_refused("\"kind\": \"parameter\"", "\"kind\": \"weight\"", "\"weight\" is not known");
    check_refused("\"kind\": \"einsum\"", "\"kind\": \"einsam\"", "operator 0 \"y\": there is no kind of operator");
    check_refused("\"x\", \"w\"]", "\"x\", \"z\"]", "operator 0 \"y\": input \"z\" does not exist");
    check_refused("\"x\", \"w\"]", "]", "einsum has 0 inputs, not 1 to 2");
    check_refused("\"x\", \"w\"]", "null, \"w\"]", "input 0 is no name");
    check_refused("[\"rows\", 8], [\"out\", 6]", "[\"rows\", 9], [\"out\", 6]", "shapes do not fit");
    check_refused("[[\"rows\", 8], [\"out\", 6]]", "7", "\"dims\" must be an array");
    check_refused("\"inputs\": [\"y\"]", "\"inputs\": [\"y\"], \"scale\": 2",
                  "operator 1 \"z\": unknown key \"scale\"");
    check_refused("\"activation\": \"relu\"", "\"activation\": \"rely\"", "\"rely\" is not known");
    check_refused("\"name\": \"z\"", "\"name\": \"y\"", "operator 1 \"y\": another tensor");
    check_refused("\"kind\": \"activation\", ", "", "there is no kind of operator called \"\"");
}

/* A kind that is added without a word in the schema, or an attribute, would make its graphs invalid. */
static void the_schema_knows_every_kind_and_attribute(void **state) {
    (void)state;
    cria_json *json = NULL;
    cria_error err = {0};
    if (cria_json_parse_file(CRIA_SOURCE_DIR "/docs/graph.schema.json", 1 << 20, &json, &err) != CRIA_OK)
        fail_msg("%s", err.message);
    const cria_json_value *operation = cria_json_get(cria_json_get(cria_json_root(json), "$defs"), "operator");
    const cria_json_value *properties = cria_json_get(operation, "properties");
    const cria_json_value *kind = cria_json_first(cria_json_get(cria_json_get(properties, "kind"), "enum"));
    for (int k = 0; k < CRIA_OP_COUNT; k++, kind = cria_json_next(kind)) {
        size_t length;
        assert_string_equal(cria_json_text(kind, &length), cria_op_info_of((cria_op_kind)k)->name);
    }
    assert_null(kind);
    for (const cria_attribute *a = cria_attributes; a->name; a++)
        if (!cria_json_get(properties, a->name)) fail_msg("the schema does not know %s", a->name);
    cria_json_destroy(json);
}

static void a_net_may_be_a_file(void **state) {
    (void)state;
    cria_graph *g = NULL, *back = NULL;
    cria_error err = {0};
    assert_int_equal(cria_network_create("mlp:train=1", &g, &err), CRIA_OK);
    const char *path = "test_graph_file.json";
    if (cria_graph_write_file(g, path, &err) != CRIA_OK) fail_msg("%s", err.message);
    if (cria_network_create("graph:test_graph_file.json", &back, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_true(cria_graph_hash(g, 0, cria_graph_ops(g)) == cria_graph_hash(back, 0, cria_graph_ops(back)));
    cria_graph_destroy(g);
    cria_graph_destroy(back);
    remove(path);
    assert_int_equal(cria_network_create("graph:no such file", &back, &err), CRIA_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "no such file"));
    assert_int_equal(cria_network_create("graph", &back, &err), CRIA_ERR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_net_comes_back_as_it_was_written),
        cmocka_unit_test(models_come_back_for_serving_and_for_training),
        cmocka_unit_test(a_graph_written_by_hand_needs_no_more_than_its_operators),
        cmocka_unit_test(what_is_wrong_is_said_with_its_place),
        cmocka_unit_test(the_schema_knows_every_kind_and_attribute),
        cmocka_unit_test(a_net_may_be_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
