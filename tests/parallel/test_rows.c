/* Which instructions are joined to be run row by row: never two of which one overwrites what other rows of the other
 * need. */
#include "parallel/lower/rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { TOKENS = 100, WIDTH = 16 };

static cria_operand work(int64_t offset, int64_t stride) {
    return (cria_operand){.space = CRIA_SPACE_WORK, .offset = offset, .stride = stride};
}

static cria_instruction norm(cria_operand in, cria_operand out) {
    return (cria_instruction){.kernel = CRIA_KERNEL_norm, .width = WIDTH, .operand = {in, {0}, {0}, out}};
}

static cria_instruction prepare(cria_operand in, int64_t offset) {
    return (cria_instruction){
        .kernel = CRIA_KERNEL_prepare, .panel = CRIA_PANEL_F32, .width = WIDTH, .operand = {in, work(offset, 0)}};
}

static cria_instruction gather(cria_operand in, cria_operand out) {
    return (cria_instruction){.kernel = CRIA_KERNEL_gather, .width = WIDTH, .operand = {in, out}};
}

static cria_instruction linear(int64_t in, cria_operand out) {
    return (cria_instruction){.kernel = CRIA_KERNEL_linear, .operand = {work(in, 0), {0}, {0}, {0}, out}};
}

/* A letter for each instruction: n(ew run), j(oins), - (not by row). */
static void expect(cria_instruction *all, int count, const char *wanted) {
    cria_program program = {.instructions = all, .instruction_count = count, .max_tokens = TOKENS, .head_rows = 64};
    cria_join_rows(&program);
    for (int i = 0; i < count; i++) {
        char found = all[i].joins ? 'j' : all[i].by_row ? 'n' : '-';
        if (found != wanted[i]) fail_msg("instruction %d is %c, expected %s", i, found, wanted);
        assert_true(all[i].by_row || !all[i].joins);
    }
}

static const int64_t PART = TOKENS * WIDTH * (int64_t)sizeof(float);

static void a_norm_and_the_preparation_of_its_rows_are_joined(void **state) {
    (void)state;
    cria_instruction all[] = {norm(work(0, WIDTH), work(PART, WIDTH)), prepare(work(PART, WIDTH), 2 * PART),
                              linear(2 * PART, work(0, WIDTH)), norm(work(0, WIDTH), work(PART, WIDTH))};
    expect(all, 4, "nj-n");
}

static void a_row_may_be_worked_on_in_place(void **state) {
    (void)state;
    cria_instruction all[] = {norm(work(0, WIDTH), work(0, WIDTH)), norm(work(0, WIDTH), work(0, WIDTH))};
    expect(all, 2, "nj");
}

static void parts_of_one_row_do_not_clash(void **state) {
    (void)state;
    /* Two halves of rows of 2 * WIDTH, one beside the other. */
    cria_operand left = work(0, 2 * WIDTH), right = work(WIDTH * sizeof(float), 2 * WIDTH);
    cria_instruction all[] = {norm(left, left), norm(right, right)};
    expect(all, 2, "nj");
}

static void what_other_rows_still_read_is_not_overwritten(void **state) {
    (void)state;
    /* The second writes over the input of the first, in rows of another length. */
    cria_instruction all[] = {norm(work(0, 2 * WIDTH), work(2 * PART, WIDTH)), prepare(work(2 * PART, WIDTH), PART)};
    expect(all, 2, "nn");
    /* The same places further apart than a row, in rows of the same length. */
    cria_instruction shifted[] = {norm(work(0, WIDTH), work(2 * PART, WIDTH)),
                                  norm(work(2 * PART, WIDTH), work(WIDTH * 4 * sizeof(float), WIDTH))};
    expect(shifted, 2, "nn");
    /* What was written before is read by other rows. */
    cria_instruction read[] = {norm(work(0, WIDTH), work(PART, WIDTH)),
                               norm(work(PART + PART / 2, WIDTH), work(4 * PART, WIDTH))};
    expect(read, 2, "nn");
}

static void the_third_is_checked_against_the_first_too(void **state) {
    (void)state;
    cria_instruction all[] = {norm(work(0, 2 * WIDTH), work(2 * PART, WIDTH)),
                              norm(work(2 * PART, WIDTH), work(3 * PART, WIDTH)),
                              norm(work(3 * PART, WIDTH), work(PART, WIDTH))};
    expect(all, 3, "njn");
}

static void a_gather_begins_a_run_and_its_source_is_not_touched_in_it(void **state) {
    (void)state;
    cria_instruction all[] = {norm(work(0, WIDTH), work(PART, WIDTH)), gather(work(PART, WIDTH), work(2 * PART, WIDTH)),
                              norm(work(2 * PART, WIDTH), work(3 * PART, WIDTH)),
                              norm(work(3 * PART, WIDTH), work(PART, WIDTH))};
    expect(all, 4, "nnjn");
}

static void the_head_is_no_part_of_the_body(void **state) {
    (void)state;
    cria_instruction all[] = {norm(work(0, WIDTH), work(PART, WIDTH)), norm(work(PART, WIDTH), work(2 * PART, WIDTH))};
    all[1].phase = CRIA_PHASE_HEAD;
    expect(all, 2, "nn");
}

static void a_run_ends_at_its_greatest_length(void **state) {
    (void)state;
    cria_instruction all[CRIA_LONGEST_RUN + 1];
    for (int i = 0; i <= CRIA_LONGEST_RUN; i++) all[i] = norm(work(0, WIDTH), work(0, WIDTH));
    char wanted[CRIA_LONGEST_RUN + 2] = "n";
    for (int i = 1; i < CRIA_LONGEST_RUN; i++) wanted[i] = 'j';
    wanted[CRIA_LONGEST_RUN] = 'n';
    expect(all, CRIA_LONGEST_RUN + 1, wanted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_norm_and_the_preparation_of_its_rows_are_joined),
        cmocka_unit_test(a_row_may_be_worked_on_in_place),
        cmocka_unit_test(parts_of_one_row_do_not_clash),
        cmocka_unit_test(what_other_rows_still_read_is_not_overwritten),
        cmocka_unit_test(the_third_is_checked_against_the_first_too),
        cmocka_unit_test(a_gather_begins_a_run_and_its_source_is_not_touched_in_it),
        cmocka_unit_test(the_head_is_no_part_of_the_body),
        cmocka_unit_test(a_run_ends_at_its_greatest_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
