/* Arenas: zeroed aligned memory, limits, reuse. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void allocations_are_zeroed_aligned_and_apart(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(100, 0);
    unsigned char *pieces[200];
    for (size_t i = 0; i < 200; i++) {
        size_t bytes = i * 7 % 300;
        pieces[i] = cria_arena_alloc(arena, bytes);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t k = 0; k < bytes; k++) assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)i, bytes);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 7 % 300; k++) assert_int_equal(pieces[i][k], (unsigned char)i);
    }
    cria_arena_destroy(arena);
}

static void memory_after_a_reset_is_the_same_and_zeroed_again(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(64, 0);
    void *first[3] = {0};
    for (int round = 0; round < 3; round++) {
        const size_t sizes[3] = {50, 500, 5000};
        for (int i = 0; i < 3; i++) {
            unsigned char *p = cria_arena_alloc(arena, sizes[i]);
            if (round == 0) first[i] = p;
            assert_ptr_equal(p, first[i]);
            for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(p[k], 0);
            memset(p, 0xEE, sizes[i]);
        }
        assert_in_range(cria_arena_used(arena), 5550, 5600);
        cria_arena_reset(arena);
        assert_int_equal(cria_arena_used(arena), 0);
    }
    cria_arena_destroy(arena);
}

static void a_large_allocation_fits_between_kept_blocks(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(64, 0);
    for (int i = 0; i < 10; i++) assert_non_null(cria_arena_alloc(arena, 64));
    cria_arena_reset(arena);
    unsigned char *large = cria_arena_alloc(arena, 100000);
    memset(large, 1, 100000);
    for (int i = 0; i < 10; i++) memset(cria_arena_alloc(arena, 64), 2, 64);
    for (size_t i = 0; i < 100000; i++) assert_int_equal(large[i], 1);
    cria_arena_destroy(arena);
}

static void the_limit_holds_to_the_byte(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(4096, 1000);
    assert_null(cria_arena_alloc(arena, 1001));
    assert_non_null(cria_arena_alloc(arena, 992));
    assert_null(cria_arena_alloc(arena, 9));
    assert_non_null(cria_arena_alloc(arena, 8));
    assert_null(cria_arena_alloc(arena, 1));
    cria_arena_reset(arena);
    assert_non_null(cria_arena_alloc(arena, 1000));
    cria_arena_destroy(arena);
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(64, 0);
    assert_null(cria_arena_alloc(arena, SIZE_MAX));
    assert_null(cria_arena_alloc(arena, SIZE_MAX - 15));
    assert_null(cria_arena_alloc_array(arena, SIZE_MAX / 4 + 1, 4));
    assert_null(cria_arena_copy(arena, "", SIZE_MAX));
    assert_non_null(cria_arena_alloc_array(arena, 10, 4));
    cria_arena_destroy(arena);
    cria_arena_destroy(NULL);
}

static void a_copy_ends_with_nul(void **state) {
    (void)state;
    cria_arena *arena = cria_arena_create(64, 0);
    char *copy = cria_arena_copy(arena, "alpaca", 3);
    assert_string_equal(copy, "alp");
    assert_string_equal(cria_arena_copy(arena, NULL, 0), "");
    cria_arena_destroy(arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_zeroed_aligned_and_apart),
        cmocka_unit_test(memory_after_a_reset_is_the_same_and_zeroed_again),
        cmocka_unit_test(a_large_allocation_fits_between_kept_blocks),
        cmocka_unit_test(the_limit_holds_to_the_byte),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(a_copy_ends_with_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
