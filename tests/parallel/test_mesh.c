/* Collectives cost what Alpa's formulas say, and extents are cut without gap, overlap or unfairness. */
#include "parallel/plan/mesh.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void collectives_cost_what_the_formulas_say(void **state) {
    (void)state;
    cria_mesh mesh = {.size = {4, 8}, .alpha = {1, 2}, .beta = {1, 0.01}, .tie = 1};
    assert_true(fabs(cria_mesh_all_gather(&mesh, 0, 1000) - (1 + 0.75 * 1000 + 0.1)) < 1e-9);
    assert_true(fabs(cria_mesh_all_reduce(&mesh, 1, 1000) - (2 + 0.01 * 2 * 7 / 8 * 1000 + 0.01)) < 1e-9);
    assert_true(fabs(cria_mesh_reduce_scatter(&mesh, 1, 1000) - (2 + 0.01 * 7 / 8 * 1000 + 0.001)) < 1e-9);
    assert_true(fabs(cria_mesh_all_to_all(&mesh, 1, 1000) - (2 + 0.01 * 7 / 64 * 1000 * 4 + 0.001)) < 1e-9);
    mesh.tie = 0;
    assert_true(fabs(cria_mesh_all_gather(&mesh, 0, 1000) - 751) < 1e-9);
    mesh.size[0] = 1;
    assert_true(cria_mesh_all_gather(&mesh, 0, 1000) == 0 && cria_mesh_all_reduce(&mesh, 0, 1000) == 0 &&
                cria_mesh_reduce_scatter(&mesh, 0, 1000) == 0 && cria_mesh_all_to_all(&mesh, 0, 1000) == 0);
}

/* Parts lie one after the other, cover the extent, begin at multiples of the unit, and differ by at most one unit (the
 * last may lack what the extent lacks). */
static void equal_parts_cover_an_extent_and_differ_by_at_most_one_unit(void **state) {
    (void)state;
    for (int64_t extent = 0; extent < 70; extent++)
        for (int64_t unit = 1; unit < 6; unit++)
            for (int parts = 1; parts < 9; parts++) {
                int64_t longest = 0, shortest = extent;
                assert_int_equal(cria_cut(extent, unit, parts, NULL, 0), 0);
                assert_int_equal(cria_cut(extent, unit, parts, NULL, parts), extent);
                for (int i = 0; i < parts; i++) {
                    int64_t begin = cria_cut(extent, unit, parts, NULL, i);
                    int64_t end = cria_cut(extent, unit, parts, NULL, i + 1);
                    assert_true(begin <= end);
                    assert_true(begin % unit == 0 || begin == extent);
                    if (end - begin > longest) longest = end - begin;
                    if (end - begin < shortest) shortest = end - begin;
                }
                assert_true(longest - shortest < 2 * unit);
                if (extent % unit == 0) assert_true(longest - shortest <= unit);
                assert_int_equal(cria_cut_longest(extent, unit, parts, NULL), longest);
            }
}

static void unequal_shares_get_parts_in_proportion(void **state) {
    (void)state;
    const double share[4] = {2, 2, 1, 1};
    const int64_t expected[5] = {0, 4, 8, 10, 12};
    for (int i = 0; i <= 4; i++) assert_int_equal(cria_cut(12, 1, 4, share, i), expected[i]);
    assert_int_equal(cria_cut_longest(12, 1, 4, share), 4);
    /* Within half a unit of what each should get, at both of its ends. */
    for (int64_t extent = 1; extent < 200; extent++)
        for (int i = 0; i <= 4; i++) {
            double ideal = (double)extent * (i < 3 ? 2.0 * i : 4.0 + (i - 2)) / 6;
            assert_true(fabs((double)cria_cut(extent, 1, 4, share, i) - ideal) <= 0.5 + 1e-9);
        }
    const double idle[3] = {1, 0, 1};
    assert_int_equal(cria_cut(10, 1, 3, idle, 1), cria_cut(10, 1, 3, idle, 2));
}

static void extents_near_the_largest_are_cut_without_overflow(void **state) {
    (void)state;
    int64_t extent = INT64_MAX / 2, before = 0;
    for (int i = 1; i <= 1024; i++) {
        int64_t at = cria_cut(extent, 1, 1024, NULL, i);
        assert_true(at > before && at - before <= extent / 1024 + 1);
        before = at;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(collectives_cost_what_the_formulas_say),
        cmocka_unit_test(equal_parts_cover_an_extent_and_differ_by_at_most_one_unit),
        cmocka_unit_test(unequal_shares_get_parts_in_proportion),
        cmocka_unit_test(extents_near_the_largest_are_cut_without_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
