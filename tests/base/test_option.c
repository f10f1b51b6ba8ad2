/* Options: parsing, errors that name the option, help and Markdown. */
#include "base/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    bool color, quiet;
    int64_t length, workers;
    double heat;
    const char *path, *type, *cores;
} options;

enum { SERVE = 1, PLAN = 2 };

static const cria_option table[] = {
    {"color", CRIA_OPTION_FLAG, offsetof(options, color), "true", 0, 0, NULL, NULL, "Color the output", SERVE},
    {"quiet", CRIA_OPTION_FLAG, offsetof(options, quiet), NULL, 0, 0, NULL, NULL, "Say nothing", SERVE | PLAN},
    {"max-model-len", CRIA_OPTION_INT, offsetof(options, length), "4096", 1, 16777216, NULL, NULL,
     "The most tokens that a sequence may have with everything that belongs to it counted", SERVE},
    {"workers", CRIA_OPTION_INT, offsetof(options, workers), NULL, -8, 64, NULL, "COUNT", "Worker threads", SERVE},
    {"heat", CRIA_OPTION_DOUBLE, offsetof(options, heat), "0.5", 0, 2, NULL, NULL, "Heat", SERVE},
    {"path", CRIA_OPTION_STRING, offsetof(options, path), NULL, 0, 0, NULL, "PATH", "Where it is", SERVE | PLAN},
    {"dtype", CRIA_OPTION_CHOICE, offsetof(options, type), "auto", 0, 0, "auto|f32|bf16", NULL, "Type", SERVE},
    {"cores", CRIA_OPTION_LIST, offsetof(options, cores), NULL, 0, 255, NULL, NULL, "Processors", PLAN},
};
enum { ROWS = sizeof table / sizeof *table };

/* Parses the words of `line` (split at spaces) after the defaults. */
static cria_status parse(unsigned command, const char *line, options *out, const char **positional, size_t *count,
                         cria_error *err) {
    static char copy[256];
    char *argv[32];
    int argc = 0;
    assert_int_equal(cria_options_defaults(table, ROWS, out, err), CRIA_OK);
    strcpy(copy, line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    return cria_options_parse(table, ROWS, command, argc, argv, out, positional, 2, count, err);
}

static options parsed(unsigned command, const char *line) {
    options got;
    const char *positional[2];
    size_t count;
    cria_error err;
    if (parse(command, line, &got, positional, &count, &err) != CRIA_OK) fail_msg("%s: %s", line, err.message);
    return got;
}

static void assert_error(unsigned command, const char *line, const char *message) {
    options got;
    const char *positional[2];
    size_t count;
    cria_error err;
    assert_int_equal(parse(command, line, &got, positional, &count, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, message);
}

static void defaults_fill_every_member(void **state) {
    (void)state;
    options got;
    memset(&got, 0xAA, sizeof got);
    got = parsed(SERVE, "");
    assert_true(got.color);
    assert_false(got.quiet);
    assert_int_equal(got.length, 4096);
    assert_int_equal(got.workers, 0);
    assert_true(got.heat == 0.5);
    assert_null(got.path);
    assert_string_equal(got.type, "auto");
    assert_null(got.cores);
}

static void values_follow_or_are_joined_by_an_equals_sign(void **state) {
    (void)state;
    options got =
        parsed(SERVE, "--max-model-len 12 --heat=1e-2 --no-color --quiet --path=a=b --dtype bf16 --workers -3");
    assert_int_equal(got.length, 12);
    assert_true(got.heat == 0.01);
    assert_false(got.color);
    assert_true(got.quiet);
    assert_string_equal(got.path, "a=b");
    assert_string_equal(got.type, "bf16");
    assert_int_equal(got.workers, -3);
    assert_false(parsed(SERVE, "--quiet --no-quiet").quiet);
    assert_int_equal(parsed(SERVE, "--workers 1 --workers 2").workers, 2);
    assert_string_equal(parsed(SERVE, "--path=--x").path, "--x");
    assert_string_equal(parsed(SERVE, "--path=").path, "");
}

static void suffixes_multiply_where_the_range_is_wide(void **state) {
    (void)state;
    assert_int_equal(parsed(SERVE, "--max-model-len 8k").length, 8192);
    assert_int_equal(parsed(SERVE, "--max-model-len=16M").length, 16777216);
    assert_error(SERVE, "--max-model-len 1g", "--max-model-len must be an integer, from 1 to 16m, but is '1g'");
    assert_error(SERVE, "--max-model-len 9223372036854775807g",
                 "--max-model-len must be an integer, from 1 to 16m, but is '9223372036854775807g'");
    assert_error(SERVE, "--workers 1k", "--workers must be an integer, from -8 to 64, but is '1k'");
}

static void lists_are_checked_item_by_item(void **state) {
    (void)state;
    assert_string_equal(parsed(PLAN, "--cores 0,7,255").cores, "0,7,255");
    const char *const wrong[] = {"0,256", "1,", ",1", "1;2", "1,,2", "a"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char line[40] = "--cores ", message[120];
        snprintf(message, sizeof message, "--cores must be integers separated by commas, from 0 to 255, but is '%s'",
                 wrong[i]);
        assert_error(PLAN, strcat(line, wrong[i]), message);
    }
}

static void positional_words_are_kept_in_order(void **state) {
    (void)state;
    options got;
    const char *positional[2];
    size_t count;
    cria_error err;
    assert_int_equal(parse(SERVE, "one --quiet two", &got, positional, &count, &err), CRIA_OK);
    assert_int_equal(count, 2);
    assert_string_equal(positional[0], "one");
    assert_string_equal(positional[1], "two");
    assert_int_equal(parse(SERVE, "-- --quiet", &got, positional, &count, &err), CRIA_OK);
    assert_int_equal(count, 1);
    assert_string_equal(positional[0], "--quiet");
    assert_false(got.quiet);
    assert_error(SERVE, "a b c", "unexpected argument 'c'");
}

static void wrong_values_name_the_option_and_its_range(void **state) {
    (void)state;
    assert_error(SERVE, "--workers 65", "--workers must be an integer, from -8 to 64, but is '65'");
    assert_error(SERVE, "--workers 1.5", "--workers must be an integer, from -8 to 64, but is '1.5'");
    assert_error(SERVE, "--workers=", "--workers must be an integer, from -8 to 64, but is ''");
    assert_error(SERVE, "--heat 2.01", "--heat must be a number, from 0 to 2, but is '2.01'");
    assert_error(SERVE, "--heat nan", "--heat must be a number, from 0 to 2, but is 'nan'");
    assert_error(SERVE, "--heat 1x", "--heat must be a number, from 0 to 2, but is '1x'");
    assert_error(SERVE, "--dtype f3", "--dtype must be one of auto|f32|bf16, but is 'f3'");
    assert_error(SERVE, "--quiet=yes", "--quiet takes no value");
    assert_error(SERVE, "--path", "--path needs a value");
    assert_error(SERVE, "--path --quiet", "--path needs a value");
}

static void unknown_options_are_refused_with_the_nearest_name(void **state) {
    (void)state;
    assert_error(SERVE, "--max-model-length 3", "unknown option --max-model-length (did you mean --max-model-len?)");
    assert_error(SERVE, "--collor", "unknown option --collor (did you mean --color?)");
    assert_error(SERVE, "--zzzzzzzz=1", "unknown option --zzzzzzzz");
    assert_error(SERVE, "--cores 1", "--cores is not an option of this command");
    assert_error(PLAN, "--no-color", "unknown option --no-color");
    assert_error(SERVE, "--no-path", "unknown option --no-path");
    assert_error(SERVE, "--quie", "unknown option --quie (did you mean --quiet?)");
}

static void a_default_that_breaks_its_own_rule_is_noticed(void **state) {
    (void)state;
    const cria_option row = {"n", CRIA_OPTION_INT, 0, "9", 0, 8, NULL, NULL, "N", 1};
    int64_t n;
    cria_error err;
    assert_int_equal(cria_options_defaults(&row, 1, &n, &err), CRIA_ERR_ARGUMENT);
    assert_string_equal(err.message, "--n must be an integer, from 0 to 8, but is '9'");
}

static void help_is_aligned_and_wrapped(void **state) {
    (void)state;
    cria_text text;
    cria_text_init(&text);
    cria_options_help(table, ROWS, SERVE, &text);
    assert_string_equal(text.data, "  --[no-]color                Color the output\n"
                                   "  --quiet                     Say nothing\n"
                                   "  --max-model-len N           The most tokens that a sequence may have with\n"
                                   "                              everything that belongs to it counted (from 1 to\n"
                                   "                              16m; default 4096)\n"
                                   "  --workers COUNT             Worker threads (from -8 to 64)\n"
                                   "  --heat X                    Heat (from 0 to 2; default 0.5)\n"
                                   "  --path PATH                 Where it is\n"
                                   "  --dtype auto|f32|bf16       Type (default auto)\n");
    cria_text_deinit(&text);
}

static void markdown_rows_escape_what_would_end_a_cell(void **state) {
    (void)state;
    cria_text text;
    cria_text_init(&text);
    cria_options_markdown(table, ROWS, SERVE, &text);
    assert_non_null(strstr(text.data, "| `--[no-]color` |  | true |  | Color the output |\n"));
    assert_non_null(strstr(text.data, "| `--heat` | X | 0.5 | from 0 to 2 | Heat |\n"));
    assert_non_null(strstr(text.data, "| `--dtype` | auto\\|f32\\|bf16 | auto | auto\\|f32\\|bf16 | Type |\n"));
    assert_null(strstr(text.data, "cores"));
    cria_text_deinit(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_member),
        cmocka_unit_test(values_follow_or_are_joined_by_an_equals_sign),
        cmocka_unit_test(suffixes_multiply_where_the_range_is_wide),
        cmocka_unit_test(lists_are_checked_item_by_item),
        cmocka_unit_test(positional_words_are_kept_in_order),
        cmocka_unit_test(wrong_values_name_the_option_and_its_range),
        cmocka_unit_test(unknown_options_are_refused_with_the_nearest_name),
        cmocka_unit_test(a_default_that_breaks_its_own_rule_is_noticed),
        cmocka_unit_test(help_is_aligned_and_wrapped),
        cmocka_unit_test(markdown_rows_escape_what_would_end_a_cell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
