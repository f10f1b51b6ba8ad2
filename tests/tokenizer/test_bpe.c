/* Merging: the order of merges, unknown characters, and time that grows no faster than n log n. */
#include "tokenizer/bpe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

typedef struct {
    cria_vocabulary *vocabulary;
    cria_bpe *bpe;
    cria_bpe_workspace workspace;
} model;

/* The entries get the ids 0, 1, ... */
static void make_model(model *m, const char *const *entries, size_t count, cria_bpe_options options) {
    *m = (model){.vocabulary = cria_vocabulary_create()};
    assert_non_null(m->vocabulary);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(cria_vocabulary_add(m->vocabulary, (int32_t)i, entries[i], strlen(entries[i]), NULL), CRIA_OK);
    }
    m->bpe = cria_bpe_create(m->vocabulary, options);
    assert_non_null(m->bpe);
}

static void free_model(model *m) {
    cria_bpe_workspace_deinit(&m->workspace);
    cria_bpe_destroy(m->bpe);
    cria_vocabulary_destroy(m->vocabulary);
}

static void add_merge(model *m, const char *left, const char *right) {
    assert_int_equal(cria_bpe_add_merge(m->bpe, left, strlen(left), right, strlen(right), NULL), CRIA_OK);
}

static void expect(model *m, const char *text, const int32_t *ids, size_t count) {
    cria_ids out = {0};
    assert_int_equal(cria_bpe_encode(m->bpe, &m->workspace, text, strlen(text), &out, NULL), CRIA_OK);
    assert_int_equal(out.count, count);
    if (count) assert_memory_equal(out.ids, ids, count * sizeof *ids);
    cria_ids_deinit(&out);
}
#define EXPECT(m, text, ...)                                                                                           \
    expect(m, text, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void the_best_rank_merges_first_and_the_leftmost_of_equals(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b", "c", "ab", "bc", "aa", "abc"};
    model m;
    make_model(&m, entries, 7, (cria_bpe_options){.unknown = -1});
    add_merge(&m, "b", "c");
    add_merge(&m, "a", "b");
    add_merge(&m, "a", "a");
    add_merge(&m, "a", "bc");
    EXPECT(&m, "abc", 6);
    EXPECT(&m, "ab", 3);
    EXPECT(&m, "aaa", 5, 0);
    EXPECT(&m, "aabc", 5, 4);
    free_model(&m);
}

static void a_later_one_of_two_equal_merges_counts(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b", "c", "ab", "bc"};
    model m;
    make_model(&m, entries, 5, (cria_bpe_options){.unknown = -1});
    add_merge(&m, "a", "b");
    add_merge(&m, "b", "c");
    add_merge(&m, "a", "b");
    EXPECT(&m, "abc", 0, 4);
    free_model(&m);
}

static void unknown_characters_are_dropped_replaced_fused_or_spelled_in_bytes(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "<unk>", "<0xC3>", "<0xA9>"};
    model m;
    make_model(&m, entries, 2, (cria_bpe_options){.unknown = -1});
    EXPECT(&m,
           "a\xC3\xA9\xC3\xA9"
           "a",
           0, 0);
    free_model(&m);
    make_model(&m, entries, 2, (cria_bpe_options){.unknown = 1});
    EXPECT(&m,
           "a\xC3\xA9\xC3\xA9"
           "a",
           0, 1, 1, 0);
    free_model(&m);
    make_model(&m, entries, 2, (cria_bpe_options){.unknown = 1, .fuse_unknown = true});
    EXPECT(&m,
           "a\xC3\xA9\xC3\xA9"
           "a",
           0, 1, 0);
    free_model(&m);
    make_model(&m, entries, 4, (cria_bpe_options){.unknown = 1, .byte_fallback = true});
    EXPECT(&m, "a\xC3\xA9\xC3\xBC", 0, 2, 3, 1);
    free_model(&m);
}

static void a_whole_entry_wins_only_with_ignore_merges(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b", "ab"};
    model m;
    make_model(&m, entries, 3, (cria_bpe_options){.unknown = -1});
    EXPECT(&m, "ab", 0, 1);
    free_model(&m);
    make_model(&m, entries, 3, (cria_bpe_options){.unknown = -1, .ignore_merges = true});
    EXPECT(&m, "ab", 2);
    EXPECT(&m, "aba", 0, 1, 0);
    free_model(&m);
}

static void scores_merge_the_highest_first_and_never_into_control_entries(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b", "ab", "ba", "abb", "<0x62>"};
    static const float scores[] = {-9, -9, -2, -1, 5, 0};
    bool mergeable[] = {true, true, true, true, false, false};
    model m;
    make_model(&m, entries, 6, (cria_bpe_options){.unknown = -1, .byte_fallback = true});
    assert_int_equal(cria_bpe_use_scores(m.bpe, scores, mergeable, NULL), CRIA_OK);
    EXPECT(&m, "aba", 0, 3);
    EXPECT(&m, "abb", 2, 1);
    EXPECT(&m, "abab", 0, 3, 1);
    free_model(&m);
    mergeable[4] = true;
    make_model(&m, entries, 6, (cria_bpe_options){.unknown = -1, .byte_fallback = true});
    assert_int_equal(cria_bpe_use_scores(m.bpe, scores, mergeable, NULL), CRIA_OK);
    EXPECT(&m, "abb", 4);
    free_model(&m);
}

static void a_score_that_is_no_number_is_an_error(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b"};
    const float scores[] = {0, 0.0f / 0.0f};
    const bool mergeable[] = {true, true};
    cria_error err = {0};
    model m;
    make_model(&m, entries, 2, (cria_bpe_options){.unknown = -1});
    assert_int_equal(cria_bpe_use_scores(m.bpe, scores, mergeable, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "token 1"));
    free_model(&m);
}

static void a_merge_of_what_the_vocabulary_lacks_is_an_error_that_shows_it(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "b", "ab"};
    cria_error err = {0};
    model m;
    make_model(&m, entries, 3, (cria_bpe_options){.unknown = -1});
    assert_int_equal(cria_bpe_add_merge(m.bpe, "b", 1, "a", 1, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "\"b\" + \"a\""));
    assert_int_equal(cria_bpe_add_merge(m.bpe, "c", 1, "a", 1, &err), CRIA_ERR_FORMAT);
    free_model(&m);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The least of a few runs, of `n` times one character. */
static double time_run(model *m, size_t n, size_t expected_ids) {
    char *text = malloc(n);
    double best = 1e9;
    assert_non_null(text);
    memset(text, 'a', n);
    for (int i = 0; i < 2; i++) {
        cria_ids out = {0};
        double start = seconds();
        assert_int_equal(cria_bpe_encode(m->bpe, &m->workspace, text, n, &out, NULL), CRIA_OK);
        double taken = seconds() - start;
        if (taken < best) best = taken;
        assert_int_equal(out.count, expected_ids);
        cria_ids_deinit(&out);
    }
    free(text);
    return best;
}

static void check_growth(model *m) {
    double small = time_run(m, 1 << 16, 1 << 12), large = time_run(m, 1 << 20, 1 << 16);
    print_message("64 KB in %.4f s, 1 MB in %.4f s\n", small, large);
    /* 16 times the text; a quadratic loop would take 256 times as long. */
    assert_true(large < 0.05 || large < small * 80);
    assert_true(large < 10); /* sanitizers and busy machines included */
}

static void a_megabyte_of_one_character_takes_n_log_n_time(void **context) {
    (void)context;
    static const char *const entries[] = {"a", "aa", "aaaa", "aaaaaaaa", "aaaaaaaaaaaaaaaa"};
    static const float scores[] = {0, 1, 2, 3, 4};
    static const bool mergeable[] = {true, true, true, true, true};
    model m;
    make_model(&m, entries, 5, (cria_bpe_options){.unknown = -1});
    for (int i = 0; i < 4; i++) add_merge(&m, entries[i], entries[i]);
    check_growth(&m);
    free_model(&m);
    make_model(&m, entries, 5, (cria_bpe_options){.unknown = -1});
    assert_int_equal(cria_bpe_use_scores(m.bpe, scores, mergeable, NULL), CRIA_OK);
    check_growth(&m);
    free_model(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_rank_merges_first_and_the_leftmost_of_equals),
        cmocka_unit_test(a_later_one_of_two_equal_merges_counts),
        cmocka_unit_test(unknown_characters_are_dropped_replaced_fused_or_spelled_in_bytes),
        cmocka_unit_test(a_whole_entry_wins_only_with_ignore_merges),
        cmocka_unit_test(scores_merge_the_highest_first_and_never_into_control_entries),
        cmocka_unit_test(a_score_that_is_no_number_is_an_error),
        cmocka_unit_test(a_merge_of_what_the_vocabulary_lacks_is_an_error_that_shows_it),
        cmocka_unit_test(a_megabyte_of_one_character_takes_n_log_n_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
