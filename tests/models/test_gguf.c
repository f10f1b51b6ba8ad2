/* GGUF files: every value type through the typed access, the tensor directory, and malformed files by name. */
#include "models/gguf.h"
#include "models/weights/reader.h"
#include "tests/models/gguf_file.h"

/* A file with a key of every type and two tensors. */
static cria_text whole_file(uint32_t version) {
    cria_text out;
    put_header(&out, version, 2, 20);
    put_key(&out, "u8", CRIA_GGUF_U8), put(&out, 200, 1);
    put_key(&out, "i8", CRIA_GGUF_I8), put(&out, (uint64_t)-100, 1);
    put_key(&out, "u16", CRIA_GGUF_U16), put(&out, 60000, 2);
    put_key(&out, "i16", CRIA_GGUF_I16), put(&out, (uint64_t)-30000, 2);
    put_key(&out, "u32", CRIA_GGUF_U32), put(&out, 4000000000u, 4);
    put_key(&out, "i32", CRIA_GGUF_I32), put(&out, (uint64_t)-5, 4);
    put_key(&out, "u64", CRIA_GGUF_U64), put(&out, UINT64_MAX, 8);
    put_key(&out, "i64", CRIA_GGUF_I64), put(&out, (uint64_t)INT64_MIN, 8);
    put_key(&out, "f32", CRIA_GGUF_F32), put(&out, bits_of_float(1.5f), 4);
    put_key(&out, "f64", CRIA_GGUF_F64), put(&out, bits_of_double(-2.25), 8);
    put_key(&out, "nan", CRIA_GGUF_F32), put(&out, bits_of_float(__builtin_nanf("")), 4);
    put_key(&out, "yes", CRIA_GGUF_BOOL), put(&out, 1, 1);
    put_key(&out, "maybe", CRIA_GGUF_BOOL), put(&out, 2, 1);
    put_key(&out, "text", CRIA_GGUF_STRING), put_string(&out, "caf\xc3\xa9");
    put_key(&out, "nul", CRIA_GGUF_STRING), put(&out, 3, 8), cria_text_append(&out, "a\0b", 3);
    put_key(&out, "strings", CRIA_GGUF_ARRAY), put(&out, CRIA_GGUF_STRING, 4), put(&out, 2, 8);
    put_string(&out, ""), put_string(&out, "xyz");
    put_key(&out, "ints", CRIA_GGUF_ARRAY), put(&out, CRIA_GGUF_I32, 4), put(&out, 2, 8);
    put(&out, 7, 4), put(&out, (uint64_t)-8, 4);
    put_key(&out, "uints", CRIA_GGUF_ARRAY), put(&out, CRIA_GGUF_U32, 4), put(&out, 1, 8), put(&out, 0x80000000u, 4);
    put_key(&out, "floats", CRIA_GGUF_ARRAY), put(&out, CRIA_GGUF_F32, 4), put(&out, 1, 8);
    put(&out, bits_of_float(0.5f), 4);
    put_key(&out, "nested", CRIA_GGUF_ARRAY), put(&out, CRIA_GGUF_ARRAY, 4), put(&out, 2, 8);
    put(&out, CRIA_GGUF_U16, 4), put(&out, 3, 8), put(&out, 0, 6);
    put(&out, CRIA_GGUF_STRING, 4), put(&out, 1, 8), put_string(&out, "in");
    put_tensor(&out, "plain", 2, (const uint64_t[]){3, 2}, 0, 0);
    put_tensor(&out, "packed", 2, (const uint64_t[]){64, 2}, 3, 32);
    pad(&out, 32);
    put_floats(&out, (const float[]){1, 2, 3, 4, 5, 6}, 6);
    pad(&out, 32);
    for (int i = 0; i < 80; i++) put(&out, (uint64_t)i, 1);
    return out;
}

static void every_value_type_is_read(void **state) {
    (void)state;
    cria_text text = whole_file(3);
    cria_gguf *g;
    cria_error err = {0};
    if (cria_gguf_parse("f.gguf", text.data, text.length, &g, &err) != CRIA_OK) fail_msg("%s", err.message);
    int64_t i;
    double d;
    bool b;
    const char *s;
    const struct {
        const char *key;
        int64_t value;
    } ints[] = {{"u8", 200},         {"i8", -100}, {"u16", 60000},     {"i16", -30000},
                {"u32", 4000000000}, {"i32", -5},  {"i64", INT64_MIN}, {"absent", 42}};
    for (size_t k = 0; k < sizeof ints / sizeof *ints; k++) {
        assert_int_equal(cria_gguf_get_int(g, ints[k].key, 42, INT64_MIN, INT64_MAX - 1, &i, &err), CRIA_OK);
        assert_true(i == ints[k].value);
    }
    assert_int_equal(cria_gguf_get_int(g, "u64", 0, 0, INT64_MAX - 1, &i, &err), CRIA_ERR_FORMAT);
    assert_int_equal(cria_gguf_get_int(g, "u8", 0, 0, 100, &i, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "key u8: is 200, outside 0 to 100"));
    assert_int_equal(cria_gguf_get_int(g, "text", 0, 0, 100, &i, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "key text: is of type string"));
    assert_true(cria_gguf_get_double(g, "f32", 0, 0, 9, &d, &err) == CRIA_OK && d == 1.5);
    assert_true(cria_gguf_get_double(g, "f64", 0, -9, 9, &d, &err) == CRIA_OK && d == -2.25);
    assert_true(cria_gguf_get_double(g, "i32", 0, -9, 9, &d, &err) == CRIA_OK && d == -5);
    assert_true(cria_gguf_get_double(g, "absent", 3.5, 0, 9, &d, &err) == CRIA_OK && d == 3.5);
    assert_int_equal(cria_gguf_get_double(g, "nan", 0, -9, 9, &d, &err), CRIA_ERR_FORMAT);
    assert_true(cria_gguf_get_bool(g, "yes", false, &b, &err) == CRIA_OK && b);
    assert_true(cria_gguf_get_bool(g, "absent", true, &b, &err) == CRIA_OK && b);
    assert_int_equal(cria_gguf_get_bool(g, "maybe", false, &b, &err), CRIA_ERR_FORMAT);
    assert_int_equal(cria_gguf_get_bool(g, "u8", false, &b, &err), CRIA_ERR_FORMAT);
    assert_int_equal(cria_gguf_get_string(g, "text", NULL, &s, &err), CRIA_OK);
    assert_string_equal(s, "caf\xc3\xa9");
    assert_int_equal(cria_gguf_get_string(g, "nul", NULL, &s, &err), CRIA_ERR_FORMAT);
    assert_true(cria_gguf_get_string(g, "absent", NULL, &s, &err) == CRIA_OK && !s);
    assert_int_equal(cria_gguf_type_of(g, "absent"), CRIA_GGUF_ABSENT);
    assert_int_equal(cria_gguf_type_of(g, "nested"), CRIA_GGUF_ARRAY);
    assert_string_equal(cria_gguf_type_name(cria_gguf_type_of(g, "f64")), "f64");
    assert_int_equal(cria_gguf_count(g), 20);
    assert_string_equal(cria_gguf_key(g, 2), "u16");
    cria_gguf_destroy(g);
    cria_text_deinit(&text);
}

static void arrays_are_read_with_their_element_type(void **state) {
    (void)state;
    cria_text text = whole_file(2);
    cria_gguf *g;
    cria_error err = {0};
    assert_int_equal(cria_gguf_parse("f.gguf", text.data, text.length, &g, &err), CRIA_OK);
    const char *const *strings;
    const size_t *lengths;
    const int32_t *ints;
    const float *floats;
    size_t n;
    assert_int_equal(cria_gguf_get_strings(g, "strings", &strings, &lengths, &n, &err), CRIA_OK);
    assert_true(n == 2 && lengths[0] == 0 && lengths[1] == 3 && memcmp(strings[1], "xyz", 3) == 0);
    assert_int_equal(cria_gguf_get_ints(g, "ints", &ints, &n, &err), CRIA_OK);
    assert_true(n == 2 && ints[0] == 7 && ints[1] == -8);
    assert_int_equal(cria_gguf_get_floats(g, "floats", &floats, &n, &err), CRIA_OK);
    assert_true(n == 1 && floats[0] == 0.5f);
    assert_int_equal(cria_gguf_get_ints(g, "uints", &ints, &n, &err), CRIA_ERR_FORMAT);
    assert_int_equal(cria_gguf_get_ints(g, "floats", &ints, &n, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "key floats: is an array of f32"));
    assert_int_equal(cria_gguf_get_strings(g, "text", &strings, &lengths, &n, &err), CRIA_ERR_FORMAT);
    assert_true(cria_gguf_get_floats(g, "absent", &floats, &n, &err) == CRIA_OK && n == 0 && !floats);
    assert_int_equal(cria_gguf_array_count(g, "nested"), 2);
    assert_int_equal(cria_gguf_array_count(g, "text"), 0);
    cria_gguf_destroy(g);
    cria_text_deinit(&text);
}

static void tensors_have_their_dims_turned_round(void **state) {
    (void)state;
    static const char *const names[] = {"model.gguf"};
    char folder[64];
    cria_text text = whole_file(3);
    make_folder(folder);
    write_bytes(folder, names[0], text.data, text.length);
    cria_weights *weights;
    cria_error err = {0};
    if (cria_weights_open(folder, &weights, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_string_equal(cria_weights_format(weights), "gguf");
    assert_non_null(cria_weights_gguf(weights));
    assert_int_equal(cria_weights_count(weights), 2);
    const cria_weight_view *plain = cria_weights_find(weights, "plain");
    assert_true(plain->type == CRIA_F32 && plain->dims == 2 && plain->shape[0] == 2 && plain->shape[1] == 3);
    float last;
    memcpy(&last, (const uint8_t *)plain->data + 20, 4);
    assert_true(last == 6.0f && plain->bytes == 24);
    const cria_weight_view *packed = cria_weights_find(weights, "packed");
    assert_true(packed->type == CRIA_Q4_1 && packed->shape[0] == 2 && packed->shape[1] == 64 && packed->bytes == 80);
    assert_int_equal(((const uint8_t *)packed->data)[79], 79);
    const cria_gguf_tensor *same = cria_gguf_tensor_find(cria_weights_gguf(weights), "packed");
    assert_true(same && same->data == packed->data);
    cria_weights_close(weights);
    remove_folder(folder, names, 1);
    cria_text_deinit(&text);
}

static void every_prefix_of_a_file_is_refused(void **state) {
    (void)state;
    cria_text text = whole_file(3);
    for (size_t n = 0; n < text.length; n++) {
        cria_gguf *g;
        char *exact = malloc(n + 1); /* its own block, so that a sanitizer sees a read past the end */
        memcpy(exact, text.data, n);
        assert_int_not_equal(cria_gguf_parse("f.gguf", exact, n, &g, NULL), CRIA_OK);
        free(exact);
    }
    cria_text_deinit(&text);
}

/* Parses and expects a refusal whose message holds `fragment`; frees the text. */
static void refuse(cria_text *text, cria_status expected, const char *fragment) {
    cria_gguf *g;
    cria_error err = {0};
    cria_status status = cria_gguf_parse("folder/f.gguf", text->data, text->length, &g, &err);
    if (status != expected || !strstr(err.message, fragment) || strncmp(err.message, "f.gguf: ", 8) != 0) {
        fail_msg("%s \"%s\" instead of \"%s\"", cria_status_name(status), err.message, fragment);
    }
    cria_text_deinit(text);
}

/* A file of one or two F32 tensors of 8 elements at the offsets given, with 64 bytes of data. */
static cria_text two_tensors(const char *first, const char *second, uint64_t offset, uint32_t type) {
    cria_text out;
    put_header(&out, 3, 2, 0);
    put_tensor(&out, first, 1, (const uint64_t[]){8}, 0, 0);
    put_tensor(&out, second, 1, (const uint64_t[]){8}, type, offset);
    pad(&out, 32);
    for (int i = 0; i < 64; i++) put(&out, 0, 1);
    return out;
}

static void tensors_that_lie_are_named(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    cria_text text = two_tensors("a", "b", 0, 0);
    refuse(&text, no, "overlaps");
    text = two_tensors("a", "a", 32, 0);
    refuse(&text, no, "tensor a: stands twice");
    text = two_tensors("a", "b", 16, 0);
    refuse(&text, no, "tensor b: offset 16 is not aligned");
    text = two_tensors("a", "b", 64, 0);
    refuse(&text, no, "tensor b: lies outside");
    text = two_tensors("a", "b", UINT64_MAX - 31, 0);
    refuse(&text, no, "tensor b: lies outside");
    text = two_tensors("a", "b", 32, 12);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "tensor b: type Q4_K is not supported");
    text = two_tensors("a", "b", 32, 4);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "tensor b: type number 4");
    text = two_tensors("a", "b", 32, 4000000000u);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "tensor b: type number 4000000000");
    text = two_tensors("a", "b", 32, 8);
    refuse(&text, no, "tensor b: its shape does not fit type q8_0");
    text = two_tensors("a", "", 32, 0);
    refuse(&text, no, "name is empty");
    put_header(&text, 3, 1, 0);
    put_tensor(&text, "big", 3, (const uint64_t[]){1ull << 40, 1ull << 40, 2}, 0, 0);
    refuse(&text, no, "tensor big: its shape overflows");
    put_header(&text, 3, 1, 0);
    put_tensor(&text, "negative", 1, (const uint64_t[]){UINT64_MAX}, 0, 0);
    refuse(&text, no, "tensor negative: its shape overflows");
    put_header(&text, 3, 1, 0);
    put_tensor(&text, "deep", 5, (const uint64_t[]){1, 1, 1, 1, 1}, 0, 0);
    refuse(&text, no, "tensor deep: has 5 dims");
}

static void headers_and_keys_that_lie_are_named(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    cria_text text;
    put_header(&text, 1, 0, 0);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "version 1");
    put_header(&text, 3u << 24, 0, 0);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "big-endian");
    cria_text_init(&text);
    cria_text_puts(&text, "GGML0000");
    refuse(&text, no, "does not begin with GGUF");
    put_header(&text, 3, UINT64_MAX, 0);
    refuse(&text, no, "do not fit the file");
    put_header(&text, 3, 0, 1ull << 40);
    refuse(&text, no, "do not fit the file");
    put_header(&text, 3, 0, 2);
    put_key(&text, "k", CRIA_GGUF_U8), put(&text, 0, 1), put_key(&text, "k", CRIA_GGUF_U8), put(&text, 0, 1);
    refuse(&text, no, "key k: stands twice");
    put_header(&text, 3, 0, 1);
    put_key(&text, "odd", (cria_gguf_type)13), put(&text, 0, 8);
    refuse(&text, no, "key odd: has the unknown value type 13");
    put_header(&text, 3, 0, 1);
    put_key(&text, "long", CRIA_GGUF_STRING), put(&text, UINT64_MAX, 8);
    refuse(&text, no, "ends inside long");
    put_header(&text, 3, 0, 1);
    put_key(&text, "many", CRIA_GGUF_ARRAY), put(&text, CRIA_GGUF_F64, 4), put(&text, UINT64_MAX / 8 + 2, 8);
    refuse(&text, no, "ends inside many");
    /* 2^60 strings, none of them there: reading lengths past the end as 0 would go on for years. */
    put_header(&text, 3, 0, 1);
    put_key(&text, "nested", CRIA_GGUF_ARRAY), put(&text, CRIA_GGUF_ARRAY, 4), put(&text, 1, 8);
    put(&text, CRIA_GGUF_STRING, 4), put(&text, 1ull << 60, 8);
    refuse(&text, no, "ends inside nested");
    put_header(&text, 3, 0, 1);
    put_key(&text, "deep", CRIA_GGUF_ARRAY);
    for (int i = 0; i < 8; i++) put(&text, CRIA_GGUF_ARRAY, 4), put(&text, 1, 8);
    refuse(&text, no, "key deep: arrays nest too deep");
    put_header(&text, 3, 0, 1);
    put_key(&text, "general.alignment", CRIA_GGUF_U32), put(&text, 24, 4);
    refuse(&text, no, "general.alignment is 24");
    put_header(&text, 3, 0, 1);
    put_key(&text, "general.alignment", CRIA_GGUF_U32), put(&text, 0, 4);
    refuse(&text, no, "general.alignment");
    put_header(&text, 3, 0, 1);
    put_key(&text, "split.count", CRIA_GGUF_U16), put(&text, 4, 2);
    refuse(&text, CRIA_ERR_UNSUPPORTED, "split.count is 4");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(arrays_are_read_with_their_element_type),
        cmocka_unit_test(tensors_have_their_dims_turned_round),
        cmocka_unit_test(every_prefix_of_a_file_is_refused),
        cmocka_unit_test(tensors_that_lie_are_named),
        cmocka_unit_test(headers_and_keys_that_lie_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
