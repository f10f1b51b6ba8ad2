/* safetensors files: views into single and sharded checkpoints, and every way in which a header can lie. */
#include "models/weights/reader.h"
#include "tests/models/files.h"

/* A whole file from its JSON header and `data_bytes` bytes 0, 1, 2, ... of data. */
static cria_text file_of(const char *header, size_t data_bytes) {
    cria_text out;
    cria_text_init(&out);
    put(&out, strlen(header), 8);
    cria_text_puts(&out, header);
    for (size_t i = 0; i < data_bytes; i++) put(&out, i, 1);
    return out;
}

static cria_status read_bytes(const void *bytes, size_t size, cria_weights **out, cria_error *err) {
    uint32_t file;
    assert_int_equal(cria_weights_create("safetensors", out, err), CRIA_OK);
    assert_int_equal(cria_weights_lend(*out, "some/model.safetensors", bytes, size, &file, err), CRIA_OK);
    return cria_safetensors_read(*out, file, err);
}

static void refuse(const char *header, size_t data_bytes, cria_status expected, const char *fragment) {
    cria_text text = file_of(header, data_bytes);
    cria_weights *weights;
    cria_error err = {0};
    cria_status status = read_bytes(text.data, text.length, &weights, &err);
    if (status != expected || !strstr(err.message, fragment) || !strstr(err.message, "model.safetensors")) {
        fail_msg("%s gave %s \"%s\", not \"%s\"", header, cria_status_name(status), err.message, fragment);
    }
    cria_weights_close(weights);
    cria_text_deinit(&text);
}

static void tensors_are_views_with_type_shape_and_place(void **state) {
    (void)state;
    cria_text text = file_of("{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                             "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                             "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[16,16]},"
                             "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}   ",
                             24);
    cria_weights *weights;
    cria_error err = {0};
    assert_int_equal(read_bytes(text.data, text.length, &weights, &err), CRIA_OK);
    assert_int_equal(cria_weights_count(weights), 4);
    const uint8_t *data = (const uint8_t *)text.data + text.length - 24;
    const cria_weight_view *b = cria_weights_find(weights, "b");
    assert_non_null(b);
    assert_true(b->type == CRIA_BF16 && b->dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->bytes == 12);
    assert_ptr_equal(b->data, data + 4);
    const cria_weight_view *a = cria_weights_find(weights, "a.weight");
    assert_true(a && a->dims == 0 && a->bytes == 4 && a->data == data && a->type == CRIA_F32);
    assert_string_equal(a->name, "a.weight");
    assert_int_equal(cria_weights_find(weights, "empty")->bytes, 0);
    assert_int_equal(cria_weights_find(weights, "ids")->type, CRIA_I64);
    assert_null(cria_weights_find(weights, "c"));
    assert_null(cria_weights_gguf(weights));
    assert_string_equal(cria_weights_format(weights), "safetensors");
    cria_weights_close(weights);
    cria_text_deinit(&text);
}

#define F32_4 "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}"

static void headers_that_lie_are_named(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    refuse("{\"x\":" F32_4 "}", 15, no, "tensor x: ends at byte 16 of the data, which has 15");
    refuse("{\"x\":" F32_4 "}", 17, no, "the last 1 bytes belong to no tensor");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}", 16, no,
           "tensor x: its 16 bytes do not fit");
    refuse("{\"x\":" F32_4 ",\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20, no,
           "tensor y: overlaps tensor x");
    refuse("{\"x\":" F32_4 ",\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[18,20]}}", 20, no,
           "2 bytes before tensor y");
    refuse("{\"x\":" F32_4 ",\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]}}", 20, no,
           "tensor x: stands already in");
    refuse("{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, CRIA_ERR_UNSUPPORTED, "F8_E4M3");
    refuse("{\"x\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, no, "tensor x: has no dtype");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, no, "at most 4");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, no, "its shape");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, no, "its shape");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, no, "do not fit");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, no, "data_offsets");
    refuse("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, no, "data_offsets");
    refuse("{\"x\":7}", 4, no, "tensor x");
    refuse("{\"\":" F32_4 "}", 16, no, "name is empty");
    refuse("[1]", 0, no, "not a JSON object");
    refuse("{\"x\":", 0, no, "model.safetensors");
}

static void headers_longer_than_the_file_are_truncated_files(void **state) {
    (void)state;
    cria_weights *weights;
    cria_error err = {0};
    const uint64_t lengths[] = {0, 3, 1000, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        cria_text text;
        cria_text_init(&text);
        put(&text, lengths[i], 8);
        cria_text_puts(&text, "{}");
        assert_int_equal(read_bytes(text.data, text.length, &weights, &err), CRIA_ERR_FORMAT);
        cria_weights_close(weights);
        cria_text_deinit(&text);
    }
    assert_int_equal(read_bytes("1234567", 7, &weights, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "truncated"));
    cria_weights_close(weights);
    assert_int_equal(read_bytes(NULL, 0, &weights, &err), CRIA_ERR_FORMAT);
    cria_weights_close(weights);
}

static void every_prefix_of_a_file_is_refused(void **state) {
    (void)state;
    cria_text text = file_of("{\"x\":" F32_4 "}", 16);
    for (size_t n = 0; n <= text.length; n++) {
        cria_weights *weights;
        cria_status status = read_bytes(text.data, n, &weights, NULL);
        assert_true((status == CRIA_OK) == (n == text.length));
        cria_weights_close(weights);
    }
    cria_text_deinit(&text);
}

static void shards_are_followed_by_their_index(void **state) {
    (void)state;
    static const char *const names[] = {"model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"};
    char folder[64];
    make_folder(folder);
    cria_text one = file_of("{\"x\":" F32_4 "}", 16), two = file_of("{\"y\":" F32_4 "}", 16);
    write_bytes(folder, names[1], one.data, one.length);
    write_bytes(folder, names[2], two.data, two.length);
    cria_weights *weights;
    cria_error err = {0};
    assert_int_equal(cria_weights_open(folder, &weights, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "no index"));

    const char *index =
        "{\"metadata\":{},\"weight_map\":{\"x\":\"model-1.safetensors\",\"y\":\"model-2.safetensors\"}}";
    write_bytes(folder, names[0], index, strlen(index));
    assert_int_equal(cria_weights_open(folder, &weights, &err), CRIA_OK);
    assert_int_equal(cria_weights_count(weights), 2);
    const cria_weight_view *y = cria_weights_find(weights, "y");
    assert_true(y && y->bytes == 16 && ((const uint8_t *)y->data)[5] == 5);
    cria_weights_drop(weights, y);
    assert_int_equal(((const uint8_t *)y->data)[6], 6); /* read again from the file */
    cria_weights_close(weights);

    static const struct {
        const char *index;
        cria_status status;
        const char *fragment;
    } wrong[] = {
        {"{\"weight_map\":{\"x\":\"model-2.safetensors\"}}", CRIA_ERR_FORMAT, "tensor x: is not in model-2"},
        {"{\"weight_map\":{\"x\":\"../model-1.safetensors\"}}", CRIA_ERR_FORMAT, "tensor x: is not mapped"},
        {"{\"weight_map\":{\"x\":7}}", CRIA_ERR_FORMAT, "tensor x: is not mapped"},
        {"{\"weight_map\":{\"x\":\"model-3.safetensors\"}}", CRIA_ERR_NOT_FOUND, "model-3.safetensors"},
        {"{\"weight_map\":{}}", CRIA_ERR_FORMAT, "weight_map"},
        {"{}", CRIA_ERR_FORMAT, "weight_map"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_bytes(folder, names[0], wrong[i].index, strlen(wrong[i].index));
        assert_int_equal(cria_weights_open(folder, &weights, &err), wrong[i].status);
        assert_non_null(strstr(err.message, wrong[i].fragment));
        assert_null(weights);
    }
    /* The same tensor in both shards. */
    write_bytes(folder, names[2], one.data, one.length);
    write_bytes(folder, names[0], index, strlen(index));
    assert_int_equal(cria_weights_open(folder, &weights, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "stands already in model-1.safetensors"));
    remove_folder(folder, names, 3);
    cria_text_deinit(&one);
    cria_text_deinit(&two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_views_with_type_shape_and_place),
        cmocka_unit_test(headers_that_lie_are_named),
        cmocka_unit_test(headers_longer_than_the_file_are_truncated_files),
        cmocka_unit_test(every_prefix_of_a_file_is_refused),
        cmocka_unit_test(shards_are_followed_by_their_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
