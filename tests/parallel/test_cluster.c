/* Clusters are read as they are written, and what is wrong in them is named. */
#include "parallel/plan/cluster.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONFIGS CRIA_SOURCE_DIR "/configs/clusters/"

static const char GOOD[] =
    "{\"format\": \"cria cluster\", \"version\": 1, \"name\": \"three\", \"devices\": {\"a\": {\"flops\": {\"f32\": "
    "1e12}, "
    "\"memory\": 1e9, \"bandwidth\": 1e11, \"measured\": [{\"operator\": \"linear\", \"rows\": 4, \"seconds\": 0.5}]}, "
    "\"b\": {\"flops\": {\"f16\": 2e12}, \"memory\": 2e9, \"bandwidth\": 2e11, \"efficiency\": {\"matmul\": 0.25}}}, "
    "\"hosts\": [{\"count\": 2, \"devices\": [\"a\", {\"type\": \"b\", \"count\": 2}], \"link\": {\"latency\": 1e-5, "
    "\"bandwidth\": 1e10}}], \"network\": {\"latency\": 2e-5, \"bandwidth\": 1e9}}";

static cria_status parse(const char *text, cria_cluster **out, cria_error *err) {
    cria_json *json;
    if (cria_json_parse(text, strlen(text), &json, err) != CRIA_OK) fail_msg("%s", err->message);
    cria_status status = cria_cluster_from_json(cria_json_root(json), out, err);
    cria_json_destroy(json);
    return status;
}

static void hosts_devices_and_links_are_as_the_file_says(void **state) {
    (void)state;
    cria_cluster *c;
    cria_error err = {0};
    if (parse(GOOD, &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_cluster_devices(c), 6);
    assert_int_equal(cria_cluster_hosts(c), 2);
    assert_int_equal(cria_cluster_host(c, 1)->first_device, 3);
    assert_int_equal(cria_cluster_host_of(c, 2), 0);
    assert_int_equal(cria_cluster_type_of(c, 3), 0);
    assert_int_equal(cria_cluster_type_of(c, 5), 1);
    assert_true(cria_cluster_network(c)->bandwidth == 1e9);
    assert_true(cria_cluster_type(c, 1)->matmul == 0.25);
    assert_int_equal(cria_cluster_type(c, 0)->samples, 1);
    assert_true(cria_cluster_type(c, 0)->sample[0].seconds == 0.5);
    cria_cluster *eight;
    assert_int_equal(cria_cluster_resize(c, 4, 2, &eight, &err), CRIA_OK);
    assert_int_equal(cria_cluster_devices(eight), 8);
    assert_int_equal(cria_cluster_type_of(eight, 7), 0);
    cria_cluster_destroy(c);
    assert_true(cria_cluster_type(eight, 0)->sample[0].seconds == 0.5);
    cria_cluster_destroy(eight);
}

static void what_is_wrong_is_named_with_its_place(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"\"cria cluster\"", "\"cluster\"", "\"format\""},
        {"\"version\": 1", "\"version\": 3", "version"},
        {"\"name\": \"three\"", "\"name\": \"\"", "\"name\""},
        {"\"name\": \"three\"", "\"nam\": \"three\"", "\"nam\" is no known key"},
        {"\"f32\": 1e12", "\"f32\": -1", "a: "},
        {"\"f32\": 1e12", "\"fp32\": 1e12", "a: \"fp32\" is no known key"},
        {"\"f32\": 1e12", "\"f32\": 0", "a: \"flops\" has no type"},
        {"\"f32\": 1e12", "\"f32\": NaN", "a: "},
        {"\"memory\": 1e9", "\"memory\": 0", "a: "},
        {"\"bandwidth\": 2e11", "\"bandwidth\": \"fast\"", "b: \"bandwidth\" must be a number"},
        {"\"bandwidth\": 2e11, ", "", "b: \"bandwidth\" must be a number, but is missing"},
        {"\"matmul\": 0.25", "\"matmul\": 1.5", "b: "},
        {"\"operator\": \"linear\"", "\"operator\": \"dot\"", "a: measured 0: \"operator\": \"dot\""},
        {"\"seconds\": 0.5", "\"seconds\": -0.5", "a: measured 0: "},
        {"\"count\": 2, \"devices\"", "\"count\": 0, \"devices\"", "hosts 0: "},
        {"\"count\": 2, \"devices\"", "\"count\": 20000, \"devices\"", "hosts 0: "},
        {"\"type\": \"b\", \"count\": 2", "\"type\": \"c\", \"count\": 2",
         "hosts 0: \"devices\": there is no type \"c\""},
        {"\"type\": \"b\", \"count\": 2", "\"type\": \"b\", \"count\": 65536", "more than 65536 devices"},
        {"\"type\": \"b\", \"count\": 2", "\"type\": \"b\", \"count\": 40000", "more than 65536 devices"},
        {"[\"a\", ", "[7, ", "hosts 0: \"devices\" must be an object"},
        {"\"latency\": 1e-5", "\"latency\": 11", "hosts 0: "},
        {"\"bandwidth\": 1e10", "\"bandwidth\": 0.5", "hosts 0: "},
        {", \"network\": {\"latency\": 2e-5, \"bandwidth\": 1e9}", "", "\"network\" must be an object, but is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[2048];
        const char *at = strstr(GOOD, rows[i][0]);
        if (!at) fail_msg("row %zu: no %s", i, rows[i][0]);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - GOOD), GOOD, rows[i][1], at + strlen(rows[i][0]));
        cria_cluster *c;
        cria_error err = {0};
        if (parse(text, &c, &err) == CRIA_OK) fail_msg("row %zu was accepted: %s", i, rows[i][1]);
        if (!strstr(err.message, rows[i][2])) fail_msg("row %zu: %s, not %s", i, err.message, rows[i][2]);
    }
}

static void every_cluster_that_comes_along_can_be_read(void **state) {
    (void)state;
    DIR *folder = opendir(CONFIGS);
    assert_non_null(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        char path[4096];
        snprintf(path, sizeof path, CONFIGS "%s", entry->d_name);
        cria_cluster *c;
        cria_error err = {0};
        if (cria_cluster_read(path, &c, &err) != CRIA_OK) fail_msg("%s", err.message);
        assert_true(cria_cluster_devices(c) >= 1);
        cria_cluster_destroy(c);
        files++;
    }
    closedir(folder);
    assert_true(files >= 13);
}

static void a_size_after_the_name_repeats_the_first_host(void **state) {
    (void)state;
    cria_cluster *c;
    cria_error err = {0};
    if (cria_cluster_read(CONFIGS "p3.16xlarge.json:128x8", &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_cluster_devices(c), 1024);
    assert_int_equal(cria_cluster_host_of(c, 1023), 127);
    cria_cluster_destroy(c);
    if (cria_cluster_read(CONFIGS "p3.16xlarge.json:3", &c, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(cria_cluster_devices(c), 3);
    cria_cluster_destroy(c);
    assert_int_equal(cria_cluster_read(CONFIGS "p3.16xlarge.json:0x8", &c, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_cluster_read(CONFIGS "p3.16xlarge.json:99999999999x8", &c, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_cluster_read(CONFIGS "p3.16xlarge.json:4096x4096", &c, &err), CRIA_ERR_FORMAT);
    assert_int_not_equal(cria_cluster_read(CONFIGS "nothing.json", &c, &err), CRIA_OK);
    assert_non_null(strstr(err.message, "nothing.json"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_devices_and_links_are_as_the_file_says),
        cmocka_unit_test(what_is_wrong_is_named_with_its_place),
        cmocka_unit_test(every_cluster_that_comes_along_can_be_read),
        cmocka_unit_test(a_size_after_the_name_repeats_the_first_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
