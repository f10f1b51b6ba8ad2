/* PyTorch's .bin files: those that torch itself wrote, and archives and pickles that lie or want to run something. */
#include "models/weights/pickle.h"
#include "models/weights/reader.h"
#include "tests/models/zip_file.h"

#include <sys/stat.h>

#define DATA CRIA_SOURCE_DIR "/tests/models/data/"

static float value_of(const cria_weights *weights, const char *name, int64_t index) {
    const cria_weight_view *view = cria_weights_find(weights, name);
    float out;
    if (!view) fail_msg("no tensor %s", name);
    cria_to_f32(view->type, view->data, index, 1, &out);
    return out;
}

static void check_view(const cria_weights *weights, const char *name, cria_type type, int dims, int64_t a, int64_t b) {
    const cria_weight_view *view = cria_weights_find(weights, name);
    if (!view) fail_msg("no tensor %s", name);
    bool fits = view->type == type && view->dims == dims && (dims < 1 || view->shape[0] == a) &&
                (dims < 2 || view->shape[1] == b);
    if (!fits) fail_msg("%s is %s with %d dims", name, cria_type_name(view->type), view->dims);
}

static void files_of_torch_are_read_in_every_protocol(void **state) {
    (void)state;
    for (int protocol = 2; protocol <= 5; protocol++) {
        char path[512];
        snprintf(path, sizeof path, DATA "protocol%d.bin", protocol);
        cria_weights *w;
        cria_error err = {0};
        if (cria_weights_open(path, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
        assert_string_equal(cria_weights_format(w), "pytorch");
        assert_int_equal(cria_weights_count(w), 18);
        check_view(w, "linear.weight", CRIA_F32, 2, 2, 3);
        assert_true(value_of(w, "linear.weight", 5) == 2.5f && value_of(w, "linear.bias", 1) == -1.0f);
        check_view(w, "whole", CRIA_F32, 2, 6, 4);
        check_view(w, "rows", CRIA_F32, 2, 2, 4);
        assert_true(value_of(w, "whole", 23) == 23.0f && value_of(w, "rows", 0) == 8.0f);
        assert_ptr_equal(cria_weights_find(w, "tied")->data, cria_weights_find(w, "whole")->data);
        check_view(w, "parameter", CRIA_F32, 2, 2, 2);
        assert_true(value_of(w, "parameter", 3) == 7.0f);
        check_view(w, "half", CRIA_F16, 1, 2, 0);
        assert_true(value_of(w, "half", 1) == -2.0f);
        check_view(w, "brain", CRIA_BF16, 2, 1, 2);
        assert_true(value_of(w, "brain", 1) == -0.5f);
        check_view(w, "double", CRIA_F64, 1, 1, 0);
        assert_true(value_of(w, "double", 0) == 0.1f);
        check_view(w, "ids", CRIA_I64, 2, 2, 1);
        assert_true(value_of(w, "ids", 1) == -1.0f && value_of(w, "ints", 0) == 70000.0f);
        assert_true(value_of(w, "shorts", 0) == -300.0f && value_of(w, "chars", 0) == -3.0f);
        assert_true(value_of(w, "bytes", 0) == 200.0f && value_of(w, "mask", 0) == 1.0f &&
                    value_of(w, "mask", 1) == 0.0f);
        check_view(w, "scalar", CRIA_F32, 0, 0, 0);
        assert_true(value_of(w, "scalar", 0) == 2.5f);
        check_view(w, "empty", CRIA_F32, 2, 0, 3);
        check_view(w, "column", CRIA_F32, 2, 3, 1);
        assert_true(value_of(w, "column", 2) == 2.0f);
        cria_weights_close(w);
    }
}

static void refuse_path(const char *path, cria_status expected, const char *fragment) {
    cria_weights *w;
    cria_error err = {0};
    cria_status status = cria_weights_open(path, &w, &err);
    if (status != expected || !strstr(err.message, fragment)) {
        fail_msg("%s: %s \"%s\" instead of \"%s\"", path, cria_status_name(status), err.message, fragment);
    }
    assert_null(w);
}

static void files_that_cannot_be_read_say_why(void **state) {
    (void)state;
    refuse_path(DATA "transposed.bin", CRIA_ERR_UNSUPPORTED, "transposed.bin: tensor turned: is not contiguous");
    refuse_path(DATA "shell.bin", CRIA_ERR_UNSUPPORTED, "shell.bin: its pickle asks for posix.system");
    refuse_path(DATA "legacy.bin", CRIA_ERR_UNSUPPORTED, "legacy.bin: is of the format of torch before 1.6");
}

static void shards_are_followed_by_their_index(void **state) {
    (void)state;
    static const char *const names[] = {"pytorch_model.bin.index.json", "pytorch_model-1.bin", "pytorch_model-2.bin"};
    static const char *const sources[] = {DATA "protocol2.bin", DATA "other.bin"};
    char folder[64];
    make_folder(folder);
    for (int i = 0; i < 2; i++) {
        cria_mapping source;
        assert_int_equal(cria_mapping_open(sources[i], &source, NULL), CRIA_OK);
        write_bytes(folder, names[i + 1], source.data, source.size);
        cria_mapping_close(&source);
    }
    const char *index = "{\"weight_map\":{\"whole\":\"pytorch_model-1.bin\",\"other\":\"pytorch_model-2.bin\"}}";
    write_bytes(folder, names[0], index, strlen(index));
    cria_weights *w;
    cria_error err = {0};
    if (cria_weights_open(folder, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_true(cria_weights_count(w) == 19 && value_of(w, "other", 2) == 1.0f && value_of(w, "whole", 1) == 1.0f);
    cria_weights_close(w);
    index = "{\"weight_map\":{\"whole\":\"pytorch_model-2.bin\"}}";
    write_bytes(folder, names[0], index, strlen(index));
    refuse_path(folder, CRIA_ERR_FORMAT, "tensor whole: is not in pytorch_model-2.bin");
    remove_folder(folder, names, 3);
}

/* --- archives by hand ------------------------------------------------------------------------------------------ */

static cria_status read_bytes(const void *bytes, size_t size, cria_weights **out, cria_error *err) {
    uint32_t file;
    assert_int_equal(cria_weights_create("pytorch", out, err), CRIA_OK);
    assert_int_equal(cria_weights_lend(*out, "m.bin", bytes, size, &file, err), CRIA_OK);
    return cria_pytorch_read(*out, file, err);
}

static void refuse_bytes(const void *bytes, size_t size, cria_status expected, const char *fragment) {
    cria_weights *w;
    cria_error err = {0};
    cria_status status = read_bytes(bytes, size, &w, &err);
    if (status != expected || !strstr(err.message, fragment) || strncmp(err.message, "m.bin: ", 7) != 0) {
        fail_msg("%s \"%s\" instead of \"%s\"", cria_status_name(status), err.message, fragment);
    }
    cria_weights_close(w);
}

/* {"w": tensor of storage '0' with 4 floats}: shape and strides, offset and storage size as single bytes to change. */
#define TENSOR_HEAD "\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
#define TENSOR(key, elements, offset, shape, strides)                                                                  \
    TENSOR_HEAD "X\x01\0\0\0" key "X\x03\0\0\0cpuK" elements "tQK" offset "(" shape "t(" strides "t\x89}tRs."

typedef struct {
    const char *bytes;
    size_t size;
} literal;
#define LITERAL(text) ((literal){text, sizeof(text) - 1})

static cria_text archive_of(literal pickle, const char *storage, zip_options options) {
    zip_item items[] = {{"a/data.pkl", pickle.bytes, pickle.size, 0},
                        {storage, "\0\0\x80?\0\0\0@\0\0@@\0\0\x80@", 16, 0}};
    return zip_of(items, 2, options);
}

static const literal GOOD = LITERAL(TENSOR("0", "\4", "\0", "K\2K\2", "K\2K\1"));

static void archives_are_read_with_zip64_and_a_comment(void **state) {
    (void)state;
    const zip_options options[] = {{0}, {.zip64 = true}, {.comment = "PK\5\6 a comment"}, {.flags = 8}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        cria_text text = archive_of(GOOD, "a/data/0", options[i]);
        cria_weights *w;
        cria_error err = {0};
        if (read_bytes(text.data, text.length, &w, &err) != CRIA_OK) fail_msg("%s", err.message);
        check_view(w, "w", CRIA_F32, 2, 2, 2);
        assert_true(value_of(w, "w", 0) == 1.0f && value_of(w, "w", 3) == 4.0f);
        cria_weights_close(w);
        cria_text_deinit(&text);
    }
}

static void every_prefix_of_an_archive_is_refused(void **state) {
    (void)state;
    for (int zip64 = 0; zip64 < 2; zip64++) {
        cria_text text = archive_of(GOOD, "a/data/0", (zip_options){.zip64 = zip64});
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
}

static void archives_that_lie_are_named(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    cria_text text = archive_of(GOOD, "a/data/0", (zip_options){.method = 8});
    refuse_bytes(text.data, text.length, CRIA_ERR_UNSUPPORTED, "entry a/data.pkl: is compressed");
    cria_text_deinit(&text);
    text = archive_of(GOOD, "a/data/0", (zip_options){.flags = 1});
    refuse_bytes(text.data, text.length, CRIA_ERR_UNSUPPORTED, "entry a/data.pkl: is encrypted");
    cria_text_deinit(&text);
    text = archive_of(GOOD, "b/data/0", (zip_options){0});
    refuse_bytes(text.data, text.length, no, "tensor w: its storage 0 is not in the archive");
    cria_text_deinit(&text);
    text = archive_of(GOOD, "a/data.pkl", (zip_options){0});
    refuse_bytes(text.data, text.length, no, "entry a/data.pkl: stands twice");
    cria_text_deinit(&text);
    zip_item big[] = {{"a/data.pkl", GOOD.bytes, GOOD.size, 0},
                      {"a/data/0", "\0\0\x80?\0\0\0@\0\0@@\0\0\x80@", 16, 0},
                      {"a/byteorder", "big", 3, 0}};
    text = zip_of(big, 3, (zip_options){0});
    refuse_bytes(text.data, text.length, CRIA_ERR_UNSUPPORTED, "byteorder is not little");
    cria_text_deinit(&text);
    zip_item none[] = {{"a/other.pkl", GOOD.bytes, GOOD.size, 0}};
    text = zip_of(none, 1, (zip_options){0});
    refuse_bytes(text.data, text.length, no, "has no data.pkl");
    cria_text_deinit(&text);
    /* Both directory entries at the first one's place. */
    zip_item same[] = {{"a/1", "xy", 2, 0}, {"a/2", "zw", 2, 0}};
    text = zip_of(same, 2, (zip_options){0});
    text.data[text.length - 22 - 3 - 4] = 0;
    refuse_bytes(text.data, text.length, no, "overlaps another");
    cria_text_deinit(&text);
    refuse_bytes("PK\5\6", 4, no, "is not a whole zip archive");
}

static void refuse_pickle(literal pickle, cria_status expected, const char *fragment) {
    cria_text text = archive_of(pickle, "a/data/0", (zip_options){0});
    refuse_bytes(text.data, text.length, expected, fragment);
    cria_text_deinit(&text);
}

static void tensors_that_lie_are_named(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "K\2K\3", "K\3K\1")), no,
                  "tensor w: reaches beyond its storage of 4");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\1", "K\2K\2", "K\2K\1")), no, "tensor w: reaches beyond");
    refuse_pickle(LITERAL(TENSOR("0", "\5", "\0", "K\2K\2", "K\2K\1")), no, "its storage has 16 bytes, not 5 elements");
    refuse_pickle(LITERAL(TENSOR("9", "\4", "\0", "K\2K\2", "K\2K\1")), no, "its storage 9 is not in the archive");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "K\2K\2", "K\1K\2")), CRIA_ERR_UNSUPPORTED, "w: is not contiguous");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "K\2K\2", "K\0K\0")), CRIA_ERR_UNSUPPORTED, "w: is not contiguous");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "K\2K\2", "K\1")), no, "size and stride");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "J\xff\xff\xff\xffK\2", "K\2K\1")), no, "size and stride");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "\x8a\x08\0\0\0\0\0\0\0@\x8a\x08\0\0\0\0\0\0\0@", "K\2K\1")), no,
                  "reaches beyond");
    refuse_pickle(LITERAL(TENSOR("0", "\4", "\0", "K\1K\1K\1K\1K\1", "K\1K\1K\1K\1K\1")), CRIA_ERR_UNSUPPORTED,
                  "5 dims");
}

static void pickles_can_build_nothing_but_state_dicts(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT, never = CRIA_ERR_UNSUPPORTED;
    refuse_pickle(LITERAL("\x80\x02"
                          "cos\nsystem\nX\x04\0\0\0trueR."),
                  never, "asks for os.system");
    refuse_pickle(LITERAL("\x80\x04\x8c\x08"
                          "builtins\x8c\x04"
                          "eval\x93."),
                  never, "asks for builtins.eval");
    refuse_pickle(LITERAL("\x80\x02"
                          "ctorch\nload\n."),
                  never, "asks for torch.load");
    refuse_pickle(LITERAL("\x80\x02"
                          "ccollections\nOrderedDict\n)\x81."),
                  never, "opcode 0x81");
    refuse_pickle(LITERAL("\x80\x01}."), never, "protocol 1");
    refuse_pickle(LITERAL("\x80\x02}X\x01\0\0\0wK\1s."), never, "has \"w\", which is no tensor");
    refuse_pickle(LITERAL("\x80\x02K\1."), no, "holds no state dict");
    refuse_pickle(LITERAL("\x80\x02."), no, "nothing on the stack");
    refuse_pickle(LITERAL("\x80\x02}"), no, "ends before its STOP");
    refuse_pickle(LITERAL("\x80\x02J\1\2"), no, "ends inside an opcode");
    refuse_pickle(LITERAL("\x80\x02X\xff\xff\xff\xffw."), no, "ends inside a string");
    refuse_pickle(LITERAL("\x80\x02h\5."), no, "a memo entry that was never put");
    refuse_pickle(LITERAL("\x80\x02}r\xff\xff\xff\xff."), no, "a memo index out of range");
    refuse_pickle(LITERAL("\x80\x02(q\0."), no, "nothing to remember");
    refuse_pickle(LITERAL("\x80\x02}K\1u."), no, "no mark");
    refuse_pickle(LITERAL("\x80\x02}(K\1u."), no, "items for what is no dict");
    refuse_pickle(LITERAL("\x80\x02]K\1a}K\1a."), no, "items for what is no list");
    refuse_pickle(LITERAL("\x80\x02K\1Q."), no, "not the id of a storage");
    refuse_pickle(LITERAL("\x80\x02"
                          "ctorch\nFloatStorage\n)R."),
                  no, "a storage that is called");
    refuse_pickle(LITERAL("\x80\x02K\1)R."), no, "REDUCE without a function");
    refuse_pickle(LITERAL("\x80\x02K\1}b."), no, "BUILD");
    refuse_pickle(LITERAL("\x80\x02(((0\x85."), no, "the stack is empty");
    refuse_pickle(LITERAL("\x80\x02"
                          "ctorch"),
                  no, "ends inside a global's name");
}

static void numbers_of_every_opcode_have_their_value(void **state) {
    (void)state;
    static const literal pickle = {"\x80\x02(J\xfe\xff\xff\xffM\x34\x12\x8a\x02\x00\x80\x8a\x00"
                                   "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fG\xbf\xf8\0\0\0\0\0\0\x88Nt.",
                                   44};
    cria_arena *arena = cria_arena_create(4096, 0);
    const cria_pickle_value *v;
    cria_error err = {0};
    if (cria_pickle_load("p", (const uint8_t *)pickle.bytes, pickle.size, arena, &v, &err) != CRIA_OK) {
        fail_msg("%s", err.message);
    }
    assert_true(v->kind == CRIA_PICKLE_TUPLE && v->as.items.count == 8);
    const int64_t ints[] = {-2, 0x1234, -32768, 0, INT64_MAX};
    for (int i = 0; i < 5; i++) assert_true(v->as.items.items[i]->as.integer == ints[i]);
    assert_true(v->as.items.items[5]->as.number == -1.5);
    assert_true(v->as.items.items[6]->as.boolean);
    assert_int_equal(v->as.items.items[7]->kind, CRIA_PICKLE_NONE);
    cria_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_torch_are_read_in_every_protocol),
        cmocka_unit_test(files_that_cannot_be_read_say_why),
        cmocka_unit_test(shards_are_followed_by_their_index),
        cmocka_unit_test(archives_are_read_with_zip64_and_a_comment),
        cmocka_unit_test(every_prefix_of_an_archive_is_refused),
        cmocka_unit_test(archives_that_lie_are_named),
        cmocka_unit_test(tensors_that_lie_are_named),
        cmocka_unit_test(pickles_can_build_nothing_but_state_dicts),
        cmocka_unit_test(numbers_of_every_opcode_have_their_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
