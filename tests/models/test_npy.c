/* Alpa's folders of NPY files: header versions and types, and headers that lie. */
#include "models/weights/reader.h"
#include "tests/models/files.h"

/* A whole file; the data are bytes 0, 1, 2, ... */
static cria_text npy(int major, const char *header, size_t data_bytes) {
    cria_text out;
    cria_text_init(&out);
    cria_text_append(&out, "\x93NUMPY", 6);
    put(&out, (uint64_t)major, 1), put(&out, 0, 1), put(&out, strlen(header), major == 1 ? 2 : 4);
    cria_text_puts(&out, header);
    for (size_t i = 0; i < data_bytes; i++) put(&out, i, 1);
    return out;
}

static cria_status read_bytes(const void *bytes, size_t size, cria_weights **out, cria_error *err) {
    uint32_t file;
    assert_int_equal(cria_weights_create("npy", out, err), CRIA_OK);
    assert_int_equal(cria_weights_lend(*out, "a.weight", bytes, size, &file, err), CRIA_OK);
    return cria_npy_read(*out, file, "a.weight", err);
}

static void headers_of_all_versions_and_types_are_read(void **state) {
    (void)state;
    static const struct {
        int major;
        const char *header;
        size_t bytes;
        cria_type type;
        int dims;
        int64_t a, b;
    } files[] = {
        {1, "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }      \n", 12, CRIA_F16, 2, 2, 3},
        {2, "{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }\n", 20, CRIA_F32, 1, 5, 0},
        {3, "{\"shape\": (1,4), \"fortran_order\": False, \"descr\": \"<f8\"}", 32, CRIA_F64, 2, 1, 4},
        {1, "{'descr':'|i1','fortran_order':True,'shape':(3,)}", 3, CRIA_I8, 1, 3, 0},
        {1, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }", 8, CRIA_I64, 0, 0, 0},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 7), }", 0, CRIA_F32, 2, 0, 7},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cria_text text = npy(files[i].major, files[i].header, files[i].bytes);
        cria_weights *w;
        cria_error err = {0};
        if (read_bytes(text.data, text.length, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
        const cria_weight_view *v = cria_weights_find(w, "a.weight");
        assert_true(v && v->type == files[i].type && v->dims == files[i].dims && v->bytes == files[i].bytes);
        assert_true((v->dims < 1 || v->shape[0] == files[i].a) && (v->dims < 2 || v->shape[1] == files[i].b));
        assert_ptr_equal(v->data, text.data + text.length - files[i].bytes);
        cria_weights_close(w);
        cria_text_deinit(&text);
    }
}

static void refuse(int major, const char *header, size_t bytes, cria_status expected, const char *fragment) {
    cria_text text = npy(major, header, bytes);
    cria_weights *w;
    cria_error err = {0};
    cria_status status = read_bytes(text.data, text.length, &w, &err);
    if (status != expected || !strstr(err.message, fragment) || strncmp(err.message, "a.weight: ", 10) != 0) {
        fail_msg("%s gave %s \"%s\", not \"%s\"", header, cria_status_name(status), err.message, fragment);
    }
    cria_weights_close(w);
    cria_text_deinit(&text);
}

static void headers_that_lie_are_refused(void **state) {
    (void)state;
#define F4(rest) "{'descr': '<f4', 'fortran_order': " rest "}"
    const cria_status no = CRIA_ERR_FORMAT, never = CRIA_ERR_UNSUPPORTED;
    refuse(1, F4("False, 'shape': (2, 2)"), 15, no, "its 15 bytes do not fit");
    refuse(1, F4("False, 'shape': (2, 2)"), 17, no, "its 17 bytes do not fit");
    refuse(1, F4("False, 'shape': (4611686018427387904, 8)"), 0, no, "do not fit");
    refuse(1, F4("True, 'shape': (2, 2)"), 16, never, "fortran_order");
    refuse(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (4,)}", 16, never, "type >f4");
    refuse(1, "{'descr': '|O', 'fortran_order': False, 'shape': (4,)}", 16, never, "type |O");
    refuse(4, F4("False, 'shape': (4,)"), 16, no, "version 4");
    refuse(0, F4("False, 'shape': (4,)"), 16, no, "version 0");
    static const char *const broken[] = {
        "",
        "{",
        "{}",
        "[]",
        F4("False"),
        F4("Maybe, 'shape': (4,)"),
        F4("False, 'shape': (4)"),
        F4("False, 'shape': 4"),
        F4("False, 'shape': (-4,)"),
        F4("False, 'shape': (1,1,1,1,4)"),
        F4("False, 'shape': (99999999999999999999,)"),
        F4("False, 'shape': (4,), 'more': 1"),
        F4("False, 'shape': (4,), 'shape': (4,)"),
        F4("False, 'shape': (4,)") "x",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<f4",
        "{'descr': '<f4\\'', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'fortran_order': False, 'shape': (4,)}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) refuse(1, broken[i], 16, no, "its header is not");
}

static void every_prefix_of_a_file_is_refused(void **state) {
    (void)state;
    cria_text text = npy(1, F4("False, 'shape': (2, 2)"), 16);
    for (size_t n = 0; n < text.length; n++) {
        cria_weights *w;
        char *exact = malloc(n + 1); /* its own block, so that a sanitizer sees a read past the end */
        memcpy(exact, text.data, n);
        assert_int_not_equal(read_bytes(exact, n, &w, NULL), CRIA_OK);
        cria_weights_close(w);
        free(exact);
    }
    cria_text_deinit(&text);
}

static void a_folder_of_files_without_extension_is_a_checkpoint(void **state) {
    (void)state;
    static const char *const names[] = {"decoder.embed_tokens.weight", "decoder.layers.0.fc1.bias", "config.json",
                                        "notes.txt"};
    char folder[64];
    make_folder(folder);
    cria_text tokens = npy(1, F4("False, 'shape': (2, 2)"), 16), bias = npy(2, F4("False, 'shape': (3,)"), 12);
    write_bytes(folder, names[0], tokens.data, tokens.length);
    write_bytes(folder, names[1], bias.data, bias.length);
    write_bytes(folder, names[2], "{}", 2);
    write_bytes(folder, names[3], "x", 1);
    cria_weights *w;
    cria_error err = {0};
    if (cria_weights_open(folder, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_string_equal(cria_weights_format(w), "npy");
    assert_int_equal(cria_weights_count(w), 2);
    assert_int_equal(cria_weights_find(w, names[1])->shape[0], 3);
    assert_string_equal(cria_weights_at(w, 0)->name, names[0]);
    cria_weights_close(w);
    write_bytes(folder, names[1], "not npy", 7);
    assert_int_equal(cria_weights_open(folder, &w, &err), CRIA_ERR_FORMAT);
    assert_string_equal(err.message, "decoder.layers.0.fc1.bias: is not an NPY file");
    remove_folder(folder, names, 4);
    cria_text_deinit(&tokens);
    cria_text_deinit(&bias);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_of_all_versions_and_types_are_read),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(every_prefix_of_a_file_is_refused),
        cmocka_unit_test(a_folder_of_files_without_extension_is_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
