/* Batches and results as bytes: what comes out is what went in, and bytes that contradict themselves are refused. */
#include "parallel/execute/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 4 };

static const cria_batch_limits limits = {.tokens = 12,
                                         .sequences = 3,
                                         .rows = 6,
                                         .blocks_per_sequence = 4,
                                         .history = 8,
                                         .biases = 8,
                                         .allowed = 8,
                                         .top_logprobs = 5};

static cria_batch *make(void) {
    cria_batch *b;
    assert_int_equal(cria_batch_create(&limits, &b, NULL), CRIA_OK);
    cria_batch_clear(b);
    return b;
}

static cria_batch *example(void) {
    cria_batch *b = make();
    const int32_t counts[2] = {5, 2}, context[2] = {9, 2};
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < counts[s]; i++) {
            b->token_ids[b->tokens] = 100 + b->tokens;
            b->positions[b->tokens] = context[s] - counts[s] + i;
            b->slots[b->tokens++] = 3 * s + i;
        }
        b->query_begin[++b->sequences] = b->tokens;
        b->context[s] = context[s];
        for (int i = 0; i < 4; i++) b->block_table[s * 4 + i] = 10 * s + i;
    }
    for (int r = 0; r < 3; r++) {
        b->row_token[r] = 2 * r;
        b->row[r] = (cria_row){.sample = 1, .target = r, .top_logprobs = 2 * r, .temperature = 0.5f, .seed = 77};
    }
    b->rows = 3;
    b->history[b->history_count++] = (cria_history){4, 5};
    b->biases[b->bias_count++] = (cria_bias){6, 0.25f};
    b->allowed[b->allowed_count++] = 9;
    return b;
}

static void a_batch_comes_out_as_it_went_in(void **state) {
    (void)state;
    cria_batch *in = example(), *out = make();
    size_t capacity = cria_pack_most_bytes(&limits);
    uint8_t *bytes = malloc(capacity);
    cria_batch_header h = {0};
    assert_true(cria_pack_batch(in, BLOCK, &h, bytes, capacity));
    assert_true(cria_pack_fits(&h, &limits, capacity));
    assert_true(cria_unpack_batch(out, BLOCK, &h, bytes));
    assert_int_equal(out->tokens, in->tokens);
    assert_int_equal(out->sequences, in->sequences);
    assert_int_equal(out->rows, in->rows);
    assert_memory_equal(out->token_ids, in->token_ids, 7 * sizeof(int32_t));
    assert_memory_equal(out->positions, in->positions, 7 * sizeof(int32_t));
    assert_memory_equal(out->slots, in->slots, 7 * sizeof(int32_t));
    assert_memory_equal(out->query_begin, in->query_begin, 3 * sizeof(int32_t));
    assert_memory_equal(out->context, in->context, 2 * sizeof(int32_t));
    assert_memory_equal(out->block_table, in->block_table, 3 * sizeof(int32_t)); /* nine keys: three blocks */
    assert_int_equal(out->block_table[4], in->block_table[4]);
    assert_memory_equal(out->row_token, in->row_token, 3 * sizeof(int32_t));
    assert_memory_equal(out->row, in->row, 3 * sizeof(cria_row));
    assert_int_equal(out->history[0].output_count, 5);
    assert_true(out->biases[0].bias == 0.25f && out->allowed[0] == 9);
    free(bytes);
    cria_batch_destroy(in);
    cria_batch_destroy(out);
}

static void results_carry_as_many_top_entries_as_each_row_asked_for(void **state) {
    (void)state;
    cria_batch *batch = example();
    cria_batch_result *in, *out;
    assert_int_equal(cria_batch_result_create(&limits, &in, NULL), CRIA_OK);
    assert_int_equal(cria_batch_result_create(&limits, &out, NULL), CRIA_OK);
    for (int r = 0; r < 3; r++) {
        in->result[r] = (cria_row_result){.token = r, .rank = 2 * r, .logprob = -1.5f, .top_count = 2 * r};
        for (int k = 0; k < 5; k++) {
            in->top_ids[r * 5 + k] = 10 * r + k + 1;
            in->top_logprobs[r * 5 + k] = (float)k + 0.5f;
        }
    }
    assert_int_equal(cria_result_bytes(batch), 3 * (int)sizeof(cria_row_result) + (0 + 2 + 4) * 8);
    uint8_t *bytes = malloc((size_t)cria_result_bytes(batch));
    memset(out->top_ids, 0, 15 * sizeof *out->top_ids);
    cria_pack_result(batch, in, bytes);
    cria_unpack_result(batch, out, bytes);
    assert_memory_equal(out->result, in->result, 3 * sizeof *in->result);
    for (int r = 0; r < 3; r++)
        for (int k = 0; k < 5; k++) assert_int_equal(out->top_ids[r * 5 + k], k < 2 * r ? 10 * r + k + 1 : 0);
    batch->row[1].top_logprobs = 1000; /* more than there is room for */
    assert_int_equal(cria_result_bytes(batch), 3 * (int)sizeof(cria_row_result) + (0 + 5 + 4) * 8);
    free(bytes);
    cria_batch_result_destroy(in);
    cria_batch_result_destroy(out);
    cria_batch_destroy(batch);
}

static void headers_over_the_limits_and_arrays_cut_short_are_refused(void **state) {
    (void)state;
    cria_batch *in = example(), *out = make();
    size_t capacity = cria_pack_most_bytes(&limits);
    uint8_t *bytes = malloc(capacity);
    cria_batch_header h = {0};
    assert_false(cria_pack_batch(in, BLOCK, &h, bytes, 50));
    assert_true(cria_pack_batch(in, BLOCK, &h, bytes, capacity));
    for (int64_t cut = 0; cut < h.bytes; cut++) {
        cria_batch_header shorter = h;
        shorter.bytes = cut;
        assert_false(cria_unpack_batch(out, BLOCK, &shorter, bytes));
    }
    int32_t *counts[] = {&h.tokens, &h.sequences, &h.rows, &h.history, &h.biases, &h.allowed};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int32_t right = *counts[i];
        *counts[i] = 1000;
        assert_false(cria_pack_fits(&h, &limits, capacity));
        *counts[i] = -1;
        assert_false(cria_pack_fits(&h, &limits, capacity));
        *counts[i] = right;
    }
    h.bytes = (int64_t)capacity + 1;
    assert_false(cria_pack_fits(&h, &limits, capacity));
    in->context[0] = 1000; /* more blocks than a table has */
    assert_false(cria_pack_batch(in, BLOCK, &h, bytes, capacity));
    in->context[0] = -1000;
    assert_false(cria_pack_batch(in, BLOCK, &h, bytes, capacity));
    free(bytes);
    cria_batch_destroy(in);
    cria_batch_destroy(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_comes_out_as_it_went_in),
        cmocka_unit_test(results_carry_as_many_top_entries_as_each_row_asked_for),
        cmocka_unit_test(headers_over_the_limits_and_arrays_cut_short_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
