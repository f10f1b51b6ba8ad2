/* From what a user calls a model to a path: existing paths, known names, and the local Hugging Face cache. */
#include "base/json.h"
#include "models/resolve.h"
#include "tests/models/files.h"

#include <sys/stat.h>

static void make(const char *parent, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", parent, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void drop(const char *parent, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", parent, name);
    assert_int_equal(remove(path), 0);
}

static void find(const char *model, const cria_model_places *places, const char *expected) {
    char path[4096];
    cria_error err = {0};
    if (cria_model_resolve(model, places, path, sizeof path, &err) != CRIA_OK) fail_msg("%s", err.message);
    if (strcmp(path, expected) != 0) fail_msg("%s is %s, not %s", model, path, expected);
}

static void refuse(const char *model, const cria_model_places *places, cria_status expected, const char *fragment) {
    char path[4096];
    cria_error err = {0};
    cria_status status = cria_model_resolve(model, places, path, sizeof path, &err);
    if (status != expected || !strstr(err.message, fragment)) {
        fail_msg("%s: %s \"%s\" instead of \"%s\"", model, cria_status_name(status), err.message, fragment);
    }
}

static void existing_folders_and_gguf_files_are_taken_as_they_are(void **state) {
    (void)state;
    static const char *const names[] = {"m.gguf", "m.safetensors"};
    const cria_model_places nowhere = {0};
    char folder[64], path[128], small[8];
    make_folder(folder);
    write_bytes(folder, names[0], "x", 1);
    write_bytes(folder, names[1], "x", 1);
    find(folder, &nowhere, folder);
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    find(path, &nowhere, path);
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    refuse(path, &nowhere, CRIA_ERR_ARGUMENT, "no .gguf");
    refuse("", &nowhere, CRIA_ERR_ARGUMENT, "empty");
    cria_error err = {0};
    assert_int_equal(cria_model_resolve(folder, &nowhere, small, sizeof small, &err), CRIA_ERR_ARGUMENT);
    remove_folder(folder, names, 2);
}

static void a_known_name_is_a_file_of_the_cache(void **state) {
    (void)state;
    char folder[64], expected[256], cache[128];
    make_folder(folder);
    make(folder, ".cache");
    make(folder, ".cache/cria");
    snprintf(cache, sizeof cache, "%s/.cache", folder);
    snprintf(expected, sizeof expected, "%s/cria/SmolLM2-135M-Instruct.Q4_1.gguf", cache);
    const cria_model_places by_home = {.home = folder, .xdg_cache_home = ""}, by_cache = {.xdg_cache_home = cache};
    refuse("smollm2-135m-instruct", &by_home, CRIA_ERR_NOT_FOUND, expected);
    refuse("smollm2-135m-instruct", &(cria_model_places){0}, CRIA_ERR_NOT_FOUND, "XDG_CACHE_HOME");
    write_bytes(folder, ".cache/cria/SmolLM2-135M-Instruct.Q4_1.gguf", "x", 1);
    find("smollm2-135m-instruct", &by_home, expected);
    find("smollm2-135m-instruct", &by_cache, expected);
    const char *const made[] = {".cache/cria/SmolLM2-135M-Instruct.Q4_1.gguf", ".cache/cria", ".cache"};
    for (int i = 0; i < 3; i++) drop(folder, made[i]);
    rmdir(folder);
}

static void a_hub_id_is_the_snapshot_of_its_main_ref(void **state) {
    (void)state;
    static const char *const folders[] = {
        "hub", "hub/models--facebook--opt-125m", "hub/models--facebook--opt-125m/refs",
        "hub/models--facebook--opt-125m/snapshots", "hub/models--facebook--opt-125m/snapshots/27dcfa74d334"};
    static const char ref[] = "hub/models--facebook--opt-125m/refs/main";
    char root[64], hub[128], expected[256];
    make_folder(root);
    for (int i = 0; i < 4; i++) make(root, folders[i]);
    snprintf(hub, sizeof hub, "%s/hub", root);
    snprintf(expected, sizeof expected, "%s/%s", root, folders[4]);
    const cria_model_places by_home = {.home = "/nowhere", .hf_home = root}, by_hub = {.hf_hub_cache = hub};
    refuse("facebook/opt-125m", &by_home, CRIA_ERR_NOT_FOUND, "refs/main");
    write_bytes(root, ref, "27dcfa74d334\n", 13);
    refuse("facebook/opt-125m", &by_home, CRIA_ERR_NOT_FOUND, "snapshots/27dcfa74d334");
    make(root, folders[4]);
    find("facebook/opt-125m", &by_home, expected);
    find("opt-125m", &by_home, expected);
    snprintf(expected, sizeof expected, "%s/%s", hub, folders[4] + 4);
    char path[512];
    cria_error err = {0};
    assert_int_equal(cria_model_resolve("facebook/opt-125m", &by_hub, path, sizeof path, &err), CRIA_OK);
    assert_string_equal(path, expected);
    static const char *const bad_refs[] = {"", "..", "../../x", "a/b"};
    for (size_t i = 0; i < sizeof bad_refs / sizeof *bad_refs; i++) {
        write_bytes(root, ref, bad_refs[i], strlen(bad_refs[i]));
        refuse("facebook/opt-125m", &by_home, CRIA_ERR_NOT_FOUND, "refs/main");
    }
    drop(root, ref);
    for (int i = 5; i-- > 0;) drop(root, folders[i]);
    rmdir(root);
}

static void what_is_nowhere_names_the_places(void **state) {
    (void)state;
    const cria_model_places places = {.home = "/home/alice"};
    refuse("no-such-model", &places, CRIA_ERR_NOT_FOUND, "/home/alice/.cache/huggingface/hub");
    refuse("no/such/model", &places, CRIA_ERR_NOT_FOUND, "no folder");
    refuse("../../no/such", &places, CRIA_ERR_NOT_FOUND, "no folder");
    refuse("facebook/opt-9b", &places, CRIA_ERR_NOT_FOUND,
           "/home/alice/.cache/huggingface/hub/models--facebook--opt-9b/refs/main");
    refuse("gone.gguf", &(cria_model_places){0}, CRIA_ERR_NOT_FOUND, "gone.gguf");
}

static void a_models_file_goes_before_the_table(void **state) {
    (void)state;
    static const char *const names[] = {"models.json", "cria"};
    char folder[64], file[128], expected[256];
    make_folder(folder);
    make(folder, "cria");
    snprintf(file, sizeof file, "%s/models.json", folder);
    snprintf(expected, sizeof expected, "%s/cria/mine.gguf", folder);
    const cria_model_places places = {.xdg_cache_home = folder, .models_file = file};
    write_bytes(folder, "cria/mine.gguf", "x", 1);
    static const struct {
        const char *json, *fragment;
        cria_status status;
    } wrong[] = {
        {"{\"models\":[{\"name\":\"mine\",\"file\":\"../mine.gguf\"}]}", "is no file name", CRIA_ERR_FORMAT},
        {"{\"models\":[{\"name\":\"mine\"}]}", "either a file or a hub id", CRIA_ERR_FORMAT},
        {"{\"models\":[{\"name\":\"mine\",\"hub\":\"../..\"}]}", "no hub id", CRIA_ERR_ARGUMENT},
        {"{\"models\":[{\"name\":7}]}", "models.json", CRIA_ERR_ARGUMENT},
        {"{\"models\":7}", "was not found", CRIA_ERR_NOT_FOUND},
        {"{", "models.json", CRIA_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_bytes(folder, names[0], wrong[i].json, strlen(wrong[i].json));
        refuse("mine", &places, wrong[i].status, wrong[i].fragment);
    }
    const char *json = "{\"models\":[{\"name\":\"other\",\"hub\":\"a/b\"},{\"name\":\"mine\",\"file\":\"mine.gguf\"},"
                       "{\"name\":\"opt-125m\",\"file\":\"mine.gguf\"}]}";
    write_bytes(folder, names[0], json, strlen(json));
    find("mine", &places, expected);
    find("opt-125m", &places, expected);
    refuse("opt-350m", &places, CRIA_ERR_NOT_FOUND, "models--facebook--opt-350m");
    drop(folder, "cria/mine.gguf");
    drop(folder, "cria");
    drop(folder, "models.json");
    rmdir(folder);
}

static void the_table_is_the_one_of_configs(void **state) {
    (void)state;
    size_t count, i = 0;
    const cria_known_model *table = cria_known_models(&count);
    cria_json *json;
    cria_error err = {0};
    if (cria_json_parse_file(CRIA_SOURCE_DIR "/configs/models.json", 1 << 20, &json, &err) != CRIA_OK) {
        fail_msg("%s", err.message);
    }
    const cria_json_value *root = cria_json_root(json), *list = cria_json_get(root, "models");
    const char *text;
    assert_int_equal(cria_json_get_string(root, "default", "", &text, &err), CRIA_OK);
    assert_string_equal(text, table[0].name);
    assert_int_equal(cria_json_size(list), count);
    for (const cria_json_value *v = cria_json_first(list); v; v = cria_json_next(v), i++) {
        const char *file, *hub;
        assert_int_equal(cria_json_get_string(v, "name", "", &text, &err), CRIA_OK);
        assert_int_equal(cria_json_get_string(v, "file", "", &file, &err), CRIA_OK);
        assert_int_equal(cria_json_get_string(v, "hub", "", &hub, &err), CRIA_OK);
        assert_string_equal(text, table[i].name);
        assert_string_equal(file, table[i].file ? table[i].file : "");
        assert_string_equal(hub, table[i].hub ? table[i].hub : "");
    }
    cria_json_destroy(json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(existing_folders_and_gguf_files_are_taken_as_they_are),
        cmocka_unit_test(a_known_name_is_a_file_of_the_cache),
        cmocka_unit_test(a_hub_id_is_the_snapshot_of_its_main_ref),
        cmocka_unit_test(what_is_nowhere_names_the_places),
        cmocka_unit_test(a_models_file_goes_before_the_table),
        cmocka_unit_test(the_table_is_the_one_of_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
