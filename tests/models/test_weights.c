/* Finding out what a path holds, and the checks that every weight format shares. */
#include "models/weights/reader.h"
#include "tests/models/files.h"

#define HEADER "{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"

static cria_text tiny_safetensors(void) {
    cria_text out;
    cria_text_init(&out);
    put(&out, sizeof HEADER - 1, 8);
    cria_text_puts(&out, HEADER "ab");
    return out;
}

static void refuse(const char *path, cria_status expected, const char *fragment) {
    cria_weights *w;
    cria_error err = {0};
    assert_int_equal(cria_weights_open(path, &w, &err), expected);
    assert_null(w);
    if (!strstr(err.message, fragment)) fail_msg("\"%s\" does not say %s", err.message, fragment);
}

static void paths_without_weights_say_so(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "empty.gguf", "weights.h5"};
    char folder[64], path[128];
    make_folder(folder);
    refuse("/nowhere/at/all", CRIA_ERR_NOT_FOUND, "no such file");
    refuse("", CRIA_ERR_NOT_FOUND, "no such file");
    write_bytes(folder, names[0], "{}", 2);
    refuse(folder, CRIA_ERR_NOT_FOUND, "holds no weights");
    snprintf(path, sizeof path, "%s/%s", folder, names[2]);
    write_bytes(folder, names[2], "x", 1);
    refuse(path, CRIA_ERR_ARGUMENT, "is no folder and no .gguf");
    snprintf(path, sizeof path, "%s/%s", folder, names[1]);
    write_bytes(folder, names[1], "", 0);
    refuse(path, CRIA_ERR_FORMAT, "does not begin with GGUF");
    remove_folder(folder, names, 3);
}

static void a_single_safetensors_file_goes_before_everything_else(void **state) {
    (void)state;
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                        "extra.safetensors"};
    char folder[64];
    cria_text text = tiny_safetensors();
    make_folder(folder);
    write_bytes(folder, names[0], text.data, text.length);
    write_bytes(folder, names[1], "{}", 2);
    write_bytes(folder, names[2], "junk", 4);
    write_bytes(folder, names[3], "junk", 4);
    cria_weights *w;
    cria_error err = {0};
    if (cria_weights_open(folder, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_string_equal(cria_weights_format(w), "safetensors");
    cria_weights_close(w);
    /* Without the single file and its index, the one that is left of the suffix counts, whatever its name. */
    remove_file(folder, names[0]);
    remove_file(folder, names[1]);
    write_bytes(folder, names[3], text.data, text.length);
    assert_int_equal(cria_weights_open(folder, &w, &err), CRIA_OK);
    assert_int_equal(cria_weights_count(w), 1);
    cria_weights_close(w);
    remove_file(folder, names[3]);
    refuse(folder, CRIA_ERR_FORMAT, "pytorch_model.bin: is not a whole zip archive");
    remove_folder(folder, names, 4);
    cria_text_deinit(&text);
}

static void a_file_without_tensors_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {"model.safetensors"};
    char folder[64];
    make_folder(folder);
    write_bytes(folder, names[0], "\2\0\0\0\0\0\0\0{}", 10);
    refuse(folder, CRIA_ERR_FORMAT, "holds no tensors");
    remove_folder(folder, names, 1);
}

static cria_status add(cria_weights *w, const char *name, cria_weight_view view, cria_error *err) {
    return cria_weights_add(w, name, strlen(name), &view, err);
}

static void views_are_checked_whatever_their_format(void **state) {
    (void)state;
    static const uint8_t bytes[64];
    cria_weights *w;
    cria_error err = {0};
    uint32_t file;
    assert_int_equal(cria_weights_create("test", &w, &err), CRIA_OK);
    assert_int_equal(cria_weights_lend(w, "folder/f", bytes, sizeof bytes, &file, &err), CRIA_OK);
    const cria_weight_view good = {.type = CRIA_F32, .dims = 1, .shape = {16}, .data = bytes, .bytes = 64};
    assert_int_equal(add(w, "good", good, &err), CRIA_OK);
    assert_int_equal(add(w, "good", good, &err), CRIA_ERR_FORMAT);
    assert_string_equal(err.message, "f: tensor good: stands already in f");
    cria_weight_view bad = good;
    bad.data = bytes + 1;
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT);
    const uint8_t elsewhere[64] = {0};
    bad.data = elsewhere;
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT);
    bad = good, bad.bytes = 60;
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT);
    bad = good, bad.dims = 5;
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT);
    bad = good, bad.shape[0] = -16;
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT);
    bad = (cria_weight_view){.type = CRIA_Q4_0, .dims = 2, .shape = {2, 16}, .data = bytes, .bytes = 18};
    assert_int_equal(add(w, "a", bad, &err), CRIA_ERR_FORMAT); /* a row of half a block */
    bad.shape[0] = 1, bad.shape[1] = 32;
    assert_int_equal(add(w, "a", bad, &err), CRIA_OK);
    assert_int_equal(cria_weights_add(w, "x\0y", 3, &good, &err), CRIA_ERR_FORMAT);
    assert_int_equal(add(w, "", good, &err), CRIA_ERR_FORMAT);
    assert_int_equal(cria_weights_count(w), 2);
    cria_weights_drop(w, cria_weights_at(w, 0)); /* nothing to drop of bytes that are not mapped */
    cria_weights_close(w);
    cria_weights_close(NULL);
}

static void a_hundred_thousand_names_are_found_by_hash(void **state) {
    (void)state;
    cria_names names = {0};
    enum { COUNT = 100000 };
    static char text[COUNT][16];
    uint32_t value;
    assert_false(cria_names_find(&names, "x", 1, &value));
    for (uint32_t i = 0; i < COUNT; i++) {
        size_t n = (size_t)snprintf(text[i], sizeof text[i], "layers.%u", i);
        assert_int_equal(cria_names_add(&names, text[i], n, i), CRIA_NAMES_ADDED);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(cria_names_find(&names, text[i], strlen(text[i]), &value) && value == i);
    }
    assert_int_equal(cria_names_add(&names, "layers.77", 9, 1), CRIA_NAMES_TWICE);
    assert_false(cria_names_find(&names, "layers.100000", 13, &value));
    cria_names_deinit(&names);
}

static void extents_may_touch_but_not_overlap(void **state) {
    (void)state;
    cria_error err;
    cria_extent touching[] = {{4, 8, "b"}, {0, 4, "a"}, {8, 8, "e"}, {8, 9, "c"}, {2, 2, "inside"}};
    assert_int_equal(cria_extents_check("f", touching, 5, &err), CRIA_OK);
    cria_extent nested[] = {{0, 10, "outer"}, {5, 5, "empty"}, {8, 9, "inner"}};
    assert_int_equal(cria_extents_check("f", nested, 3, &err), CRIA_ERR_FORMAT);
    assert_string_equal(err.message, "f: tensor inner: overlaps tensor outer");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_without_weights_say_so),
        cmocka_unit_test(a_single_safetensors_file_goes_before_everything_else),
        cmocka_unit_test(a_file_without_tensors_is_refused),
        cmocka_unit_test(views_are_checked_whatever_their_format),
        cmocka_unit_test(a_hundred_thousand_names_are_found_by_hash),
        cmocka_unit_test(extents_may_touch_but_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
