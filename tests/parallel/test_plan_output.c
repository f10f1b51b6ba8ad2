/* What a plan prints and draws: the table's numbers are those of the plan, the picture is well-formed and shows every
 * device, layer and stage. */
#include "parallel/nets/network.h"
#include "parallel/plan/plan_svg.h"
#include "parallel/plan/plan_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/parallel/planning.h"

typedef struct {
    cria_cluster *cluster;
    cria_graph *graph;
    cria_stages_result plan;
    cria_text table, svg;
} output;

/* Owns the cluster from then on. */
static output *make(cria_cluster *cluster, const char *net, int stages, int micro_batch) {
    output *x = calloc(1, sizeof *x);
    cria_error err = {0};
    x->cluster = cluster;
    if (cria_network_create(net, &x->graph, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_stages_options o;
    cria_stages_defaults(&o);
    o.objective = CRIA_OBJECTIVE_TRAIN;
    o.element = (cria_element){CRIA_RATE_F16, 2, 2, 2, NULL};
    o.micro_batch = micro_batch;
    o.global_batch = 64;
    o.stages = stages;
    o.search = false;
    if (cria_stages_plan(x->graph, x->cluster, &o, &x->plan, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_text_init(&x->table);
    cria_text_init(&x->svg);
    cria_plan_table(&x->plan, x->cluster, &x->table);
    cria_plan_svg(&x->plan, x->cluster, &x->svg);
    cria_text_append(&x->table, "", 1);
    cria_text_append(&x->svg, "", 1);
    assert_false(x->table.failed || x->svg.failed);
    return x;
}

static void drop(output *x) {
    cria_text_deinit(&x->table);
    cria_text_deinit(&x->svg);
    cria_stages_result_deinit(&x->plan);
    cria_graph_destroy(x->graph);
    cria_cluster_destroy(x->cluster);
    free(x);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

/* Every element that begins ends, in order; attributes are quoted, entities known. */
static void check_xml(const char *p) {
    char open[16][32];
    int depth = 0, elements = 0;
    for (; *p; p++) {
        if (*p == '&' && strncmp(p, "&lt;", 4) != 0 && strncmp(p, "&gt;", 4) != 0 && strncmp(p, "&amp;", 5) != 0)
            fail_msg("\"%.20s\"", p);
        assert_int_not_equal(*p, '>');
        if (*p != '<') continue;
        bool ends = p[1] == '/';
        p += 1 + ends;
        int length = (int)strspn(p, "abcdefghijklmnopqrstuvwxyz");
        assert_in_range(length, 1, 31);
        if (ends) {
            assert_true(depth > 0);
            depth--;
            assert_true(strncmp(open[depth], p, (size_t)length) == 0 && open[depth][length] == '\0');
            p += length;
        } else {
            assert_true(depth < 16 && (depth > 0 || elements == 0));
            snprintf(open[depth++], 32, "%.*s", length, p);
            elements++;
            for (p += length; *p == ' ';) {
                while (*p == ' ') p++;
                if (*p == '>') break;
                p += strcspn(p, "= >");
                assert_true(p[0] == '=' && p[1] == '"');
                p += 2 + strcspn(p + 2, "\"<");
                assert_int_equal(*p++, '"');
            }
        }
        assert_int_equal(*p, '>');
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 10);
}

static const char pipeline[] = "gpt:layers=8,hidden=1024,heads=16,batch=2,train=0,loss=1";

static void the_picture_has_a_column_for_each_device_and_a_row_for_each_layer(void **state) {
    (void)state;
    output *x = make(cluster_of("p3.16xlarge.json:1x4"), pipeline, 4, 2);
    check_xml(x->svg.data);
    const cria_plan_notes *n = &x->plan.notes;
    assert_int_equal(n->stages, 4);
    for (int l = 0; l < x->plan.layers; l++) {
        int s = cria_plan_stage_of_op(x->plan.plan, x->plan.layer_end[l] - 1);
        const cria_stage *stage = cria_plan_stage(x->plan.plan, s);
        for (int d = 0; d < stage->mesh.size[0] * stage->mesh.size[1]; d++) {
            char cell[64];
            snprintf(cell, sizeof cell, "stage %d, device %d: ", s, n->device[stage->first_rank + d]);
            assert_true(count(x->svg.data, cell) > 0);
        }
    }
    /* One cell for each layer on each device of its stage, here one. */
    assert_int_equal(count(x->svg.data, ", device "), x->plan.layers);
    /* Every micro-batch that is shown goes forward and back through every stage. */
    for (int s = 0; s < 4; s++) {
        char lane[32];
        snprintf(lane, sizeof lane, ">stage %d, micro-batch ", s);
        int passes = count(x->svg.data, lane);
        assert_true(passes >= 8 && passes % 2 == 0);
    }
    assert_int_equal(count(x->svg.data, "forward, "), count(x->svg.data, "backward, "));
    drop(x);
}

static void colours_say_how_a_stage_is_cut(void **state) {
    (void)state;
    static const struct {
        const char *net;
        const char *title;
    } cuts[] = {{"gpt:layers=2,hidden=512,heads=8,batch=2,vocab=512,train=0,loss=1", ": data (batch cut)"},
                {"gpt:layers=4,hidden=4096,heads=32,batch=1,vocab=512,train=0,loss=1", ": tensor (weights cut)"}};
    const char *colour[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        output *x = make(cluster_of("p3.16xlarge.json:1x2"), cuts[i].net, 1, i ? 1 : 2);
        check_xml(x->svg.data);
        const char *cell = strstr(x->svg.data, cuts[i].title);
        if (!cell) fail_msg("%s: no cell says \"%s\"\n%s", cuts[i].net, cuts[i].title, x->table.data);
        while (strncmp(cell, "fill=\"", 6) != 0) cell--;
        char legend[64];
        snprintf(legend, sizeof legend, "height=\"12.00\" %.14s", cell);
        assert_int_equal(count(x->svg.data, legend), 1); /* the same colour stands in the legend */
        colour[i] = strncmp(cell, "fill=\"#4e93d0\"", 14) == 0 ? "blue" : "other";
        drop(x);
    }
    assert_string_not_equal(colour[0], colour[1]);
}

/* Beside the plan: what was compared with it, and why it won, with the numbers that the result has. */
static void the_table_says_where_stages_are_what_was_compared_and_why(void **state) {
    (void)state;
    output *x = make(cluster_of("p3.16xlarge.json:1x4"), pipeline, 4, 2);
    const char *t = x->table.data;
    for (int s = 0; s < 4; s++) {
        const cria_plan_stage_notes *n = &x->plan.notes.stage[s];
        char memory[64];
        snprintf(memory, sizeof memory, "%6.2f / %.2f\n", (double)n->memory / 1e9, (double)n->memory_limit / 1e9);
        assert_non_null(strstr(t, memory));
        assert_true(n->memory <= n->memory_limit);
    }
    static const char *const rows[] = {"embed + 0-", " + head",    "chosen",   "Megatron",
                                       "GPipe",      "one device", "1f1b, 32 "};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strstr(t, rows[i])) fail_msg("no \"%s\" in\n%s", rows[i], t);
    for (int i = 0; i < x->plan.others; i++) {
        assert_non_null(strstr(t, x->plan.other[i].name));
        if (x->plan.other[i].feasible) assert_true(x->plan.other[i].seconds >= x->plan.chosen.seconds * (1 - 1e-6));
        /* The schedule that lost says what it holds, or that it does not fit. */
        if (strcmp(x->plan.other[i].name, "GPipe") == 0)
            assert_non_null(strstr(x->plan.other[i].why, x->plan.other[i].feasible ? "GB under 1F1B" : "GB"));
    }
    char first[24];
    snprintf(first, sizeof first, "why: %.3g s for", x->plan.chosen.seconds);
    assert_non_null(strstr(t, first));
    for (const char *line = t; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strcspn(line, "\n") > 80) fail_msg("more than 80 columns: %.*s", (int)strcspn(line, "\n"), line);
    drop(x);
}

static void a_name_is_text_and_no_markup(void **state) {
    (void)state;
    static const char text[] =
        "{\"format\": \"cria cluster\", \"version\": 1, \"name\": \"</text> & <b>\", \"devices\": {\"a\": {\"flops\": "
        "{\"f32\": 1e13, \"f16\": 1e14}, \"memory\": 1e11, \"bandwidth\": 1e12}}, \"hosts\": [{\"devices\": "
        "[{\"type\": \"a\", \"count\": 2}], \"link\": {\"latency\": 1e-5, \"bandwidth\": 1e10}}]}";
    cria_json *json;
    cria_cluster *cluster;
    cria_error err = {0};
    assert_int_equal(cria_json_parse(text, sizeof text - 1, &json, &err), CRIA_OK);
    if (cria_cluster_from_json(cria_json_root(json), &cluster, &err) != CRIA_OK) fail_msg("%s", err.message);
    cria_json_destroy(json);
    output *x = make(cluster, pipeline, 2, 2);
    check_xml(x->svg.data);
    assert_non_null(strstr(x->svg.data, "on &lt;/text&gt; &amp; &lt;b&gt;, best for"));
    drop(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_picture_has_a_column_for_each_device_and_a_row_for_each_layer),
        cmocka_unit_test(a_name_is_text_and_no_markup),
        cmocka_unit_test(colours_say_how_a_stage_is_cut),
        cmocka_unit_test(the_table_says_where_stages_are_what_was_compared_and_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
