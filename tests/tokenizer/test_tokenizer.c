/* The public interface: folders, special tokens, limits, errors, and detokenizing in a stream. */
#include "tokenizer/tokenizer.h"

#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DATA CRIA_SOURCE_DIR "/tests/tokenizer/data/"

static const cria_encode_options everything = {.add_special = true, .parse_special = true};
static const cria_encode_options nothing = {0};

static cria_tokenizer *open_folder(const char *folder) {
    cria_tokenizer *t = NULL;
    cria_error err = {0};
    if (cria_tokenizer_open(folder, &t, &err) != CRIA_OK) fail_msg("%s", err.message);
    return t;
}

/* A folder of its own for a test. */
static void make_folder(char folder[64]) {
    snprintf(folder, 64, "/tmp/cria-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void remove_folder(const char *folder) {
    static const char *const names[] = {"tokenizer.json",          "vocab.json",          "merges.txt",
                                        "tokenizer_config.json",   "config.json",         "added_tokens.json",
                                        "special_tokens_map.json", "chat_template.jinja", "tokenizer.model"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void expect_ids(const cria_tokenizer *t, const char *text, cria_encode_options options, const int32_t *ids,
                       size_t count) {
    cria_ids out = {0};
    cria_error err = {0};
    if (cria_tokenizer_encode(t, text, strlen(text), options, 0, &out, &err) != CRIA_OK) fail_msg("%s", err.message);
    assert_int_equal(out.count, count);
    if (count) assert_memory_equal(out.ids, ids, count * sizeof *ids);
    cria_ids_deinit(&out);
}
#define EXPECT(t, text, options, ...)                                                                                  \
    expect_ids(t, text, options, (const int32_t[]){__VA_ARGS__},                                                       \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* A byte-level vocabulary of few letters, as files. */
static const char vocabulary[] = "{\"</s>\":2,\"<pad>\":1,\"<s>\":0,\"a\":3,\"b\":4,\"ab\":5,\"<\":6,\"/\":7,\"s\":8,"
                                 "\">\":9,\"\u0120\":10,\"\u0120ab\":11,\"\u00c3\":12,\"\u00a9\":13}";
static const char merges[] = "#version: 0.2\r\na b\r\n\u0120 ab\r\n\r\n";

static void write_bpe(char folder[64]) {
    make_folder(folder);
    write_file(folder, "vocab.json", vocabulary);
    write_file(folder, "merges.txt", merges);
}

static void opt_gets_its_bos_exactly_once(void **context) {
    (void)context;
    cria_tokenizer *t = open_folder(DATA "opt");
    cria_ids ids = {0};
    assert_int_equal(cria_tokenizer_bos(t), 2);
    assert_int_equal(cria_tokenizer_eos(t), 2);
    for (int i = 0; i < 2; i++) {
        ids.count = 0;
        assert_int_equal(cria_tokenizer_encode(t, "Hello", 5, everything, 0, &ids, NULL), CRIA_OK);
        assert_true(ids.count > 1 && ids.ids[0] == 2 && ids.ids[1] != 2);
    }
    ids.count = 0;
    assert_int_equal(cria_tokenizer_encode(t, "Hello", 5, nothing, 0, &ids, NULL), CRIA_OK);
    assert_int_not_equal(ids.ids[0], 2);
    cria_ids_deinit(&ids);
    EXPECT(t, "", everything, 2);
    expect_ids(t, "", nothing, NULL, 0);
    cria_tokenizer_destroy(t);
}

static void an_opt_folder_without_any_word_on_special_tokens_has_opts_own(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    write_file(folder, "config.json", "{\"model_type\":\"opt\"}");
    cria_tokenizer *t = open_folder(folder);
    EXPECT(t, "ab ab", everything, 2, 5, 11);
    EXPECT(t, "a</s>", everything, 2, 3, 2);
    EXPECT(t, "a</s>", nothing, 3, 6, 7, 8, 9);
    assert_true(cria_tokenizer_is_special(t, 2) && cria_tokenizer_is_special(t, 1) && !cria_tokenizer_is_special(t, 0));
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void another_folder_without_any_word_has_no_special_tokens(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    cria_tokenizer *t = open_folder(folder);
    EXPECT(t, "ab", everything, 5);
    assert_int_equal(cria_tokenizer_bos(t), -1);
    assert_null(cria_tokenizer_chat_template(t));
    assert_null(cria_tokenizer_config_json(t));
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void special_tokens_come_from_the_files_beside_the_vocabulary(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    write_file(
        folder, "tokenizer_config.json",
        "{\"bos_token\":\"<s>\",\"add_bos_token\":true,\"add_eos_token\":true,\"eos_token\":{\"content\":\"b\"}}");
    write_file(folder, "special_tokens_map.json", "{\"eos_token\":{\"content\":\"</s>\",\"lstrip\":true}}");
    write_file(folder, "added_tokens.json", "{\"<new>\":20,\"<pad>\":1}");
    cria_tokenizer *t = open_folder(folder);
    EXPECT(t, "ab</s>", everything, 0, 5, 2, 2);
    EXPECT(t, "ab  </s>", everything, 0, 5, 2, 2);
    EXPECT(t, "a<new>", nothing, 3, 20);
    assert_int_equal(cria_tokenizer_size(t), 21);
    assert_null(cria_tokenizer_entry(t, 15, NULL));
    assert_int_equal(cria_tokenizer_find(t, "<new>", 5), 20);
    assert_false(cria_tokenizer_is_special(t, 20));
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void added_tokens_decoder_outranks_the_older_files(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    write_file(folder, "tokenizer_config.json",
               "{\"eos_token\":\"</s>\",\"added_tokens_decoder\":{\"14\":{\"content\":\"<x>\",\"special\":true},"
               "\"2\":{\"content\":\"</s>\",\"special\":true,\"rstrip\":true}}}");
    write_file(folder, "special_tokens_map.json", "{\"eos_token\":\"b\"}");
    cria_tokenizer *t = open_folder(folder);
    assert_int_equal(cria_tokenizer_eos(t), 2);
    EXPECT(t, "<x></s>  b", everything, 14, 2, 4);
    assert_int_equal(cria_tokenizer_find(t, "<x>", 3), 14);
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void the_chat_template_is_found_wherever_it_stands(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    write_file(folder, "tokenizer_config.json", "{\"chat_template\":\"one\"}");
    cria_tokenizer *t = open_folder(folder);
    assert_string_equal(cria_tokenizer_chat_template(t), "one");
    assert_string_equal(cria_tokenizer_config_json(t), "{\"chat_template\":\"one\"}");
    cria_tokenizer_destroy(t);
    write_file(folder, "tokenizer_config.json",
               "{\"chat_template\":[{\"name\":\"tools\",\"template\":\"two\"},{\"name\":\"default\",\"template\":"
               "\"three\"}]}");
    t = open_folder(folder);
    assert_string_equal(cria_tokenizer_chat_template(t), "three");
    cria_tokenizer_destroy(t);
    write_file(folder, "chat_template.jinja", "four\n");
    t = open_folder(folder);
    assert_string_equal(cria_tokenizer_chat_template(t), "four\n");
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}"
#define TEN_A "aaaaaaaaaa"
/* A hundred a instead of the pattern. */
#define GROW(pattern)                                                                                                  \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":" pattern                                                           \
    "},\"content\":\"" TEN_A TEN_A TEN_A TEN_A TEN_A TEN_A TEN_A TEN_A TEN_A TEN_A "\"}"

static void an_open_that_fails_says_what_and_why(void **context) {
    (void)context;
    static const struct {
        const char *json, *part;
        cria_status status;
    } cases[] = {
        {"[]", "not an object", CRIA_ERR_FORMAT},
        {"{}", "no model", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"WordPiece\"}}", "WordPiece", CRIA_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1}}}", "\"a\"", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999}}}", "\"a\"", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", "vocabulary", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "\"a\" + \"b\"", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", "\"ab\"", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "pair", CRIA_ERR_FORMAT},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"dropout\":0.1}}", "dropout", CRIA_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix",
         CRIA_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"unk_token\":\"u\"}}", "\"u\"", CRIA_ERR_FORMAT},
        {"{" MODEL ",\"normalizer\":{\"type\":\"NFKC\"}}", "normalizer NFKC", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"normalizer\":{}}", "no type", CRIA_ERR_FORMAT},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Nonsense\"}}", "pre_tokenizer Nonsense", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"}}}", "set operation",
         CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Eaten\"}}",
         "Eaten", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"post_processor\":{\"type\":\"Poster\"}}", "post_processor Poster", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL
         ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}}",
         "special token x", CRIA_ERR_FORMAT},
        {"{" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"c\",0],\"sep\":[\"s\",99]}}",
         "id 99 is outside the vocabulary", CRIA_ERR_FORMAT},
        {"{" MODEL ",\"decoder\":{\"type\":\"CTC\"}}", "decoder CTC", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" GROW("\"a\"") "," GROW("\"a\"") "]}}",
         "more than 4096 times", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},"
         "{\"type\":\"ByteLevel\"}]}}",
         "ByteLevel twice", CRIA_ERR_UNSUPPORTED},
        {"{" MODEL ",\"added_tokens\":[{\"id\":1}]}", "added token", CRIA_ERR_FORMAT},
        {"{" MODEL "} x", "tokenizer.json", CRIA_ERR_FORMAT},
    };
    char folder[64];
    make_folder(folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cria_tokenizer *t = NULL;
        cria_error err = {0};
        write_file(folder, "tokenizer.json", cases[i].json);
        assert_int_equal(cria_tokenizer_open(folder, &t, &err), cases[i].status);
        assert_null(t);
        if (!strstr(err.message, cases[i].part)) fail_msg("\"%s\" does not say \"%s\"", err.message, cases[i].part);
    }
    remove_folder(folder);
}

/* Found by fuzzing: each replacement puts in a hundred of what the next one looks for. */
static void normalizers_that_make_each_other_grow_are_an_error(void **context) {
    (void)context;
    char folder[64];
    make_folder(folder);
    write_file(folder, "tokenizer.json",
               "{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" GROW("\"a\"") "," GROW(
                   "\"a\"") "," GROW("\"a\"") "," GROW("\"a\"") "," GROW("\"a\"") "," GROW("\"a\"") "]}}");
    cria_tokenizer *t = open_folder(folder);
    cria_ids ids = {0};
    cria_error err = {0};
    assert_int_equal(cria_tokenizer_encode(t, "a", 1, (cria_encode_options){0}, 0, &ids, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the normalizer makes more than 65568 bytes"));
    cria_ids_deinit(&ids);
    cria_tokenizer_destroy(t);
    /* One alone is no more than it was. */
    write_file(folder, "tokenizer.json", "{" MODEL ",\"normalizer\":" GROW("\"a\"") "}");
    t = open_folder(folder);
    assert_int_equal(cria_tokenizer_encode(t, "a", 1, (cria_encode_options){0}, 0, &ids, &err), CRIA_OK);
    assert_int_equal(ids.count, 100);
    cria_ids_deinit(&ids);
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void a_folder_without_a_tokenizer_is_not_found(void **context) {
    (void)context;
    char folder[64];
    cria_tokenizer *t = NULL;
    cria_error err = {0};
    make_folder(folder);
    assert_int_equal(cria_tokenizer_open(folder, &t, &err), CRIA_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "tokenizer.json"));
    write_file(folder, "tokenizer.model", "not a model");
    assert_int_equal(cria_tokenizer_open(folder, &t, &err), CRIA_ERR_FORMAT);
    remove_folder(folder);
    assert_int_equal(cria_tokenizer_open(folder, &t, &err), CRIA_ERR_NOT_FOUND);
}

static void invalid_utf8_is_an_error_with_its_place_and_nul_is_a_character(void **context) {
    (void)context;
    cria_tokenizer *t = open_folder(DATA "smollm");
    cria_error err = {0};
    cria_ids ids = {0};
    cria_text text = {0};
    assert_int_equal(cria_tokenizer_encode(t, "abc\xFF", 4, everything, 0, &ids, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "byte 3"));
    assert_int_equal(cria_tokenizer_encode(t, "\xC3", 1, everything, 0, &ids, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(cria_tokenizer_encode(t, "\xED\xA0\x80", 3, everything, 0, &ids, &err), CRIA_ERR_ARGUMENT);
    assert_int_equal(ids.count, 0);
    assert_int_equal(cria_tokenizer_encode(t, "a\0b", 3, everything, 0, &ids, &err), CRIA_OK);
    assert_int_equal(ids.count, 3);
    assert_int_equal(cria_tokenizer_decode(t, ids.ids, ids.count, true, &text, &err), CRIA_OK);
    assert_int_equal(text.length, 3);
    assert_memory_equal(text.data, "a\0b", 3);
    cria_text_deinit(&text);
    cria_ids_deinit(&ids);
    cria_tokenizer_destroy(t);
}

static void a_limit_on_the_ids_is_kept_and_what_was_there_stays(void **context) {
    (void)context;
    char folder[64];
    write_bpe(folder);
    cria_tokenizer *t = open_folder(folder);
    cria_error err = {0};
    cria_ids ids = {0};
    assert_int_equal(cria_tokenizer_encode(t, "a a", 3, nothing, 3, &ids, &err), CRIA_OK);
    assert_int_equal(ids.count, 3);
    assert_int_equal(cria_tokenizer_encode(t, "a a", 3, nothing, 2, &ids, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "2 tokens"));
    assert_int_equal(ids.count, 3);
    assert_int_equal(cria_tokenizer_encode(t, "b", 1, nothing, 2, &ids, &err), CRIA_OK);
    assert_int_equal(ids.count, 4);
    assert_int_equal(ids.ids[3], 4);
    cria_ids_deinit(&ids);
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void decoding_an_id_outside_the_vocabulary_is_an_error(void **context) {
    (void)context;
    cria_tokenizer *t = open_folder(DATA "opt");
    cria_error err = {0};
    cria_text text = {0};
    int32_t size = (int32_t)cria_tokenizer_size(t);
    const int32_t outside[][2] = {{5, -1}, {5, size}, {5, INT32_MAX}};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(cria_tokenizer_decode(t, outside[i], 2, false, &text, &err), CRIA_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "position 1"));
    }
    assert_int_equal(text.length, 0);
    assert_null(cria_tokenizer_entry(t, -1, NULL));
    assert_null(cria_tokenizer_entry(t, size, NULL));
    assert_false(cria_tokenizer_is_special(t, INT32_MAX));
    cria_text_deinit(&text);
    cria_tokenizer_destroy(t);
}

static void token_bytes_are_those_of_the_token_alone(void **context) {
    (void)context;
    char folder[64];
    cria_text text = {0};
    write_bpe(folder);
    cria_tokenizer *t = open_folder(folder);
    cria_tokenizer_token_bytes(t, 11, &text);
    cria_tokenizer_token_bytes(t, 12, &text);
    cria_tokenizer_token_bytes(t, 2, &text);
    cria_tokenizer_token_bytes(t, 999, &text);
    assert_string_equal(text.data, " ab\xC3</s>");
    cria_tokenizer_destroy(t);
    remove_folder(folder);
    t = open_folder(DATA "llama2");
    cria_text_clear(&text);
    cria_tokenizer_token_bytes(t, 3 + 0xE2, &text);
    cria_tokenizer_token_bytes(t, cria_tokenizer_find(t, "\xE2\x96\x81t", 4), &text);
    assert_string_equal(text.data, "\xE2 t");
    cria_text_deinit(&text);
    cria_tokenizer_destroy(t);
}

/* A small generator, so that the ids are the same everywhere. */
static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static void check_random_streams(const char *folder) {
    cria_tokenizer *t = open_folder(folder);
    uint64_t seed = 7;
    uint32_t size = (uint32_t)cria_tokenizer_size(t);
    for (int round = 0; round < 400; round++) {
        cria_text whole = {0}, pieces = {0};
        int32_t ids[64];
        size_t count = next_random(&seed) % 64;
        /* Half of the rounds stay among the first ids, where the bytes are. */
        for (size_t i = 0; i < count; i++) ids[i] = (int32_t)(next_random(&seed) % (round % 2 ? size : 270));
        bool skip = round % 3 == 0;
        assert_int_equal(cria_tokenizer_decode(t, ids, count, skip, &whole, NULL), CRIA_OK);
        cria_detokenizer *stream = cria_detokenizer_create(t, skip, NULL, 0);
        assert_non_null(stream);
        for (size_t i = 0; i < count; i++) {
            size_t before = pieces.length;
            assert_int_equal(cria_detokenizer_push(stream, ids[i], &pieces, NULL), CRIA_OK);
            if (pieces.length) assert_true(cria_utf8_valid(pieces.data + before, pieces.length - before));
        }
        cria_detokenizer_finish(stream, &pieces);
        assert_int_equal(pieces.length, whole.length);
        if (whole.length) assert_memory_equal(pieces.data, whole.data, whole.length);
        cria_detokenizer_destroy(stream);
        cria_text_deinit(&whole);
        cria_text_deinit(&pieces);
    }
    cria_tokenizer_destroy(t);
}

static void random_ids_in_a_stream_give_what_decoding_them_at_once_gives(void **context) {
    (void)context;
    static const char *const folders[] = {DATA "opt",    DATA "llama3",  DATA "smollm",
                                          DATA "llama2", DATA "unigram", DATA "scored"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) check_random_streams(folders[i]);
}

static void a_stream_waits_for_whole_code_points(void **context) {
    (void)context;
    char folder[64];
    cria_text out = {0};
    write_bpe(folder);
    cria_tokenizer *t = open_folder(folder);
    cria_detokenizer *stream = cria_detokenizer_create(t, false, NULL, 0);
    assert_int_equal(cria_detokenizer_push(stream, 12, &out, NULL), CRIA_OK);
    assert_int_equal(out.length, 0);
    assert_int_equal(cria_detokenizer_push(stream, 13, &out, NULL), CRIA_OK);
    assert_string_equal(out.data, "\xC3\xA9");
    assert_int_equal(cria_detokenizer_push(stream, 99999, &out, NULL), CRIA_OK); /* a row without an entry */
    assert_int_equal(cria_detokenizer_push(stream, 12, &out, NULL), CRIA_OK);
    cria_detokenizer_finish(stream, &out);
    assert_string_equal(out.data, "\xC3\xA9\xEF\xBF\xBD");
    cria_detokenizer_destroy(stream);
    /* the first half in the prompt, the second generated */
    const int32_t prompt[] = {3, 12};
    cria_text_clear(&out);
    stream = cria_detokenizer_create(t, false, prompt, 2);
    assert_int_equal(cria_detokenizer_push(stream, 13, &out, NULL), CRIA_OK);
    cria_detokenizer_finish(stream, &out);
    assert_string_equal(out.data, "\xC3\xA9");
    cria_detokenizer_destroy(stream);
    cria_text_deinit(&out);
    cria_tokenizer_destroy(t);
    remove_folder(folder);
}

static void what_a_prompt_says_decides_the_first_space_and_is_not_said_again(void **context) {
    (void)context;
    cria_tokenizer *t = open_folder(DATA "llama2");
    cria_text out = {0};
    int32_t word = cria_tokenizer_find(t, "\xE2\x96\x81t", 4), e = cria_tokenizer_find(t, "e", 1);
    const int32_t alone[] = {1}, prompt[] = {1, e}, bytes[] = {1, e, 3 + 0xC3, 3 + 0xA9};
    const struct {
        const int32_t *ids;
        size_t count;
        const char *text;
    } cases[] = {{NULL, 0, "t"}, {alone, 1, "t"}, {prompt, 2, " t"}, {bytes, 4, " t"}};
    assert_true(word >= 0 && e >= 0);
    for (size_t i = 0; i < 4; i++) {
        cria_text_clear(&out);
        cria_detokenizer *stream = cria_detokenizer_create(t, true, cases[i].ids, cases[i].count);
        assert_int_equal(cria_detokenizer_push(stream, word, &out, NULL), CRIA_OK);
        cria_detokenizer_finish(stream, &out);
        assert_string_equal(out.data, cases[i].text);
        cria_detokenizer_destroy(stream);
    }
    cria_text_deinit(&out);
    cria_tokenizer_destroy(t);
}

static void destroying_nothing_is_legal(void **context) {
    (void)context;
    cria_tokenizer_destroy(NULL);
    cria_detokenizer_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt_gets_its_bos_exactly_once),
        cmocka_unit_test(an_opt_folder_without_any_word_on_special_tokens_has_opts_own),
        cmocka_unit_test(another_folder_without_any_word_has_no_special_tokens),
        cmocka_unit_test(special_tokens_come_from_the_files_beside_the_vocabulary),
        cmocka_unit_test(added_tokens_decoder_outranks_the_older_files),
        cmocka_unit_test(the_chat_template_is_found_wherever_it_stands),
        cmocka_unit_test(an_open_that_fails_says_what_and_why),
        cmocka_unit_test(normalizers_that_make_each_other_grow_are_an_error),
        cmocka_unit_test(a_folder_without_a_tokenizer_is_not_found),
        cmocka_unit_test(invalid_utf8_is_an_error_with_its_place_and_nul_is_a_character),
        cmocka_unit_test(a_limit_on_the_ids_is_kept_and_what_was_there_stays),
        cmocka_unit_test(decoding_an_id_outside_the_vocabulary_is_an_error),
        cmocka_unit_test(token_bytes_are_those_of_the_token_alone),
        cmocka_unit_test(random_ids_in_a_stream_give_what_decoding_them_at_once_gives),
        cmocka_unit_test(a_stream_waits_for_whole_code_points),
        cmocka_unit_test(what_a_prompt_says_decides_the_first_space_and_is_not_said_again),
        cmocka_unit_test(destroying_nothing_is_legal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
