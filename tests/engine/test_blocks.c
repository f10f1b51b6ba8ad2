/* KV blocks, the prefix cache over them, and batch memory. */
#include "parallel/execute/batch.h"
#include "server/engine/blocks.h"
#include "server/engine/prefix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void a_pool_gives_every_block_once_and_then_none(void **state) {
    (void)state;
    cria_blocks *blocks;
    assert_int_equal(cria_blocks_create(3, NULL, &blocks, NULL), CRIA_OK);
    bool seen[3] = {false};
    for (int i = 0; i < 3; i++) {
        int32_t block = cria_blocks_take(blocks);
        assert_in_range(block, 0, 2);
        assert_false(seen[block]);
        seen[block] = true;
    }
    assert_int_equal(cria_blocks_take(blocks), -1);
    assert_int_equal(cria_blocks_free(blocks), 0);
    cria_blocks_release(blocks, 1);
    assert_int_equal(cria_blocks_take(blocks), 1);
    cria_blocks_destroy(blocks);
}

static void a_shared_block_is_free_after_its_last_release(void **state) {
    (void)state;
    cria_blocks *blocks;
    assert_int_equal(cria_blocks_create(2, NULL, &blocks, NULL), CRIA_OK);
    int32_t block = cria_blocks_take(blocks);
    cria_blocks_share(blocks, block);
    assert_int_equal(cria_blocks_references(blocks, block), 2);
    cria_blocks_release(blocks, block);
    assert_int_equal(cria_blocks_free(blocks), 1);
    cria_blocks_release(blocks, block);
    assert_int_equal(cria_blocks_free(blocks), 2);
    cria_blocks_destroy(blocks);
}

static void a_pool_of_no_blocks_is_refused(void **state) {
    (void)state;
    cria_blocks *blocks;
    cria_error err;
    assert_int_equal(cria_blocks_create(0, NULL, &blocks, &err), CRIA_ERR_ARGUMENT);
    assert_null(blocks);
    cria_blocks_destroy(NULL);
}

static void an_entry_is_found_by_salt_parent_and_ids_only(void **state) {
    (void)state;
    cria_prefix *prefix;
    int32_t a[2] = {1, 2}, b[2] = {1, 3}, block = -1;
    assert_int_equal(cria_prefix_create(4, 2, &prefix, NULL), CRIA_OK);
    uint64_t first = cria_prefix_insert(prefix, 7, 0, a, 2);
    uint64_t second = cria_prefix_insert(prefix, 7, first, a, 3);
    assert_true(first && second && first != second);
    assert_true(cria_prefix_find(prefix, 7, 0, a, &block) == first);
    assert_int_equal(block, 2);
    assert_true(cria_prefix_find(prefix, 7, first, a, &block) == second);
    assert_int_equal(block, 3);
    assert_true(cria_prefix_find(prefix, 8, 0, a, &block) == 0);
    assert_true(cria_prefix_find(prefix, 7, 0, b, &block) == 0);
    assert_true(cria_prefix_find(prefix, 7, second, a, &block) == 0);
    for (uint64_t salt = 8; salt < 500; salt++) { /* whatever bucket they come to */
        assert_true(cria_prefix_find(prefix, salt, 0, a, &block) == 0);
        assert_true(cria_prefix_find(prefix, 7, second + salt, a, &block) == 0);
    }
    cria_prefix_destroy(prefix);
}

static void an_equal_block_joins_the_chain_that_stands(void **state) {
    (void)state;
    cria_prefix *prefix;
    int32_t ids[1] = {9};
    assert_int_equal(cria_prefix_create(4, 1, &prefix, NULL), CRIA_OK);
    uint64_t serial = cria_prefix_insert(prefix, 0, 0, ids, 0);
    assert_true(cria_prefix_insert(prefix, 0, 0, ids, 1) == serial);
    assert_false(cria_prefix_holds(prefix, 1));
    cria_prefix_destroy(prefix);
}

static void what_follows_a_forgotten_block_is_not_found_after_an_equal_new_one(void **state) {
    (void)state;
    cria_prefix *prefix;
    int32_t ids[1] = {9}, block;
    assert_int_equal(cria_prefix_create(4, 1, &prefix, NULL), CRIA_OK);
    uint64_t old = cria_prefix_insert(prefix, 0, 0, ids, 0);
    cria_prefix_insert(prefix, 0, old, ids, 1);
    cria_prefix_forget(prefix, 0);
    cria_prefix_forget(prefix, 0);
    assert_true(cria_prefix_find(prefix, 0, 0, ids, &block) == 0);
    uint64_t new = cria_prefix_insert(prefix, 0, 0, ids, 2);
    assert_true(new != old);
    assert_true(cria_prefix_find(prefix, 0, new, ids, &block) == 0);
    cria_prefix_destroy(prefix);
}

static void a_full_table_finds_and_forgets_every_entry(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    cria_prefix *prefix;
    int32_t block;
    assert_int_equal(cria_prefix_create(COUNT, 1, &prefix, NULL), CRIA_OK);
    for (int32_t i = 0; i < COUNT; i++) cria_prefix_insert(prefix, 0, 0, &i, i);
    for (int32_t i = 0; i < COUNT; i += 2) cria_prefix_forget(prefix, i);
    for (int32_t i = 0; i < COUNT; i++) {
        assert_int_equal(cria_prefix_find(prefix, 0, 0, &i, &block) != 0, i % 2);
        if (i % 2) assert_int_equal(block, i);
    }
    cria_prefix_destroy(prefix);
}

static void blocks_nobody_can_find_are_reused_before_cached_ones_and_those_oldest_first(void **state) {
    (void)state;
    cria_prefix *prefix;
    cria_blocks *blocks;
    assert_int_equal(cria_prefix_create(3, 1, &prefix, NULL), CRIA_OK);
    assert_int_equal(cria_blocks_create(3, prefix, &blocks, NULL), CRIA_OK);
    int32_t ids[3] = {0, 1, 2}, taken[3], block;
    for (int i = 0; i < 3; i++) taken[i] = cria_blocks_take(blocks);
    cria_prefix_insert(prefix, 0, 0, &ids[0], taken[0]);
    cria_prefix_insert(prefix, 0, 0, &ids[1], taken[1]);
    cria_blocks_release(blocks, taken[1]);
    cria_blocks_release(blocks, taken[0]);
    cria_blocks_release(blocks, taken[2]);
    assert_int_equal(cria_blocks_take(blocks), taken[2]);
    assert_int_equal(cria_blocks_take(blocks), taken[1]);
    assert_true(cria_prefix_find(prefix, 0, 0, &ids[1], &block) == 0);
    /* The last cached one comes back into use with what it holds. */
    assert_true(cria_prefix_find(prefix, 0, 0, &ids[0], &block) != 0);
    cria_blocks_share(blocks, block);
    assert_int_equal(cria_blocks_take(blocks), -1);
    assert_true(cria_prefix_find(prefix, 0, 0, &ids[0], &block) != 0);
    cria_blocks_destroy(blocks);
    cria_prefix_destroy(prefix);
}

static void every_entry_of_a_batch_can_be_written_and_arrays_do_not_overlap(void **state) {
    (void)state;
    cria_batch_limits limits = {.tokens = 7,
                                .sequences = 3,
                                .rows = 5,
                                .blocks_per_sequence = 9,
                                .history = 11,
                                .biases = 1,
                                .allowed = 2,
                                .top_logprobs = 3};
    cria_batch *batch;
    assert_int_equal(cria_batch_create(&limits, &batch, NULL), CRIA_OK);
    memset(batch->token_ids, 1, 7 * sizeof(int32_t));
    memset(batch->positions, 2, 7 * sizeof(int32_t));
    memset(batch->slots, 3, 7 * sizeof(int32_t));
    memset(batch->query_begin, 4, 4 * sizeof(int32_t));
    memset(batch->context, 5, 3 * sizeof(int32_t));
    memset(batch->block_table, 6, 27 * sizeof(int32_t));
    memset(batch->row_token, 7, 5 * sizeof(int32_t));
    memset(batch->row, 8, 5 * sizeof(cria_row));
    memset(batch->history, 9, 11 * sizeof(cria_history));
    memset(batch->biases, 10, sizeof(cria_bias));
    memset(batch->allowed, 11, 2 * sizeof(int32_t));
    assert_int_equal(batch->token_ids[6], 0x01010101);
    assert_int_equal(batch->slots[6], 0x03030303);
    assert_int_equal(batch->query_begin[3], 0x04040404);
    assert_int_equal(batch->context[2], 0x05050505);
    assert_int_equal(batch->block_table[26], 0x06060606);
    assert_int_equal(batch->row_token[4], 0x07070707);
    assert_int_equal(batch->row[4].sample, 0x08080808);
    assert_int_equal(batch->history[10].token, 0x09090909);
    assert_int_equal(batch->allowed[1], 0x0b0b0b0b);
    batch->rows = 3;
    cria_batch_clear(batch);
    assert_int_equal(batch->rows, 0);
    assert_int_equal(batch->query_begin[0], 0);
    cria_batch_destroy(batch);
    cria_batch_result *result;
    assert_int_equal(cria_batch_result_create(&limits, &result, NULL), CRIA_OK);
    memset(result->result, 1, 5 * sizeof(cria_row_result));
    memset(result->top_ids, 2, 15 * sizeof(int32_t));
    memset(result->top_logprobs, 3, 15 * sizeof(float));
    assert_int_equal(result->result[4].token, 0x01010101);
    assert_int_equal(result->top_ids[14], 0x02020202);
    cria_batch_result_destroy(result);
}

static void limits_out_of_range_name_themselves(void **state) {
    (void)state;
    cria_batch_limits limits = {.tokens = 1, .sequences = 1, .rows = 0, .blocks_per_sequence = 1};
    cria_batch *batch;
    cria_batch_result *result;
    cria_error err;
    assert_int_equal(cria_batch_create(&limits, &batch, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "rows"));
    assert_null(batch);
    limits.rows = 1;
    limits.history = (int64_t)1 << 40;
    assert_int_equal(cria_batch_create(&limits, &batch, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "history"));
    limits.history = 0;
    limits.top_logprobs = -1;
    assert_int_equal(cria_batch_result_create(&limits, &result, &err), CRIA_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "top_logprobs"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_gives_every_block_once_and_then_none),
        cmocka_unit_test(a_shared_block_is_free_after_its_last_release),
        cmocka_unit_test(a_pool_of_no_blocks_is_refused),
        cmocka_unit_test(an_entry_is_found_by_salt_parent_and_ids_only),
        cmocka_unit_test(an_equal_block_joins_the_chain_that_stands),
        cmocka_unit_test(what_follows_a_forgotten_block_is_not_found_after_an_equal_new_one),
        cmocka_unit_test(a_full_table_finds_and_forgets_every_entry),
        cmocka_unit_test(blocks_nobody_can_find_are_reused_before_cached_ones_and_those_oldest_first),
        cmocka_unit_test(every_entry_of_a_batch_can_be_written_and_arrays_do_not_overlap),
        cmocka_unit_test(limits_out_of_range_name_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
