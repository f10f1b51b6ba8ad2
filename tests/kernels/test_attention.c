/* Paged attention of every instruction set against the definition, and bit for bit against itself under every chunking,
 * batch and number of workers. Keys beyond a context are NaN, so that one that is read shows. */
#include "tests/kernels/row_case.h"

enum { MOST_SEQUENCES = 6 };

typedef struct {
    cria_type type;
    int64_t block_tokens, heads, kv_heads, head_dim;
    float query_scale;
    int sequences;
    int32_t queries[MOST_SEQUENCES], context[MOST_SEQUENCES];
} attention_case;

static const attention_case CASES[] = {
    {CRIA_F32, 16, 1, 1, 8, 1, 1, {1}, {1}},
    {CRIA_F32, 16, 2, 2, 64, 1, 3, {1, 1, 1}, {16, 17, 40}},
    {CRIA_F32, 32, 4, 2, 15, 1, 2, {5, 33}, {5, 70}},
    {CRIA_F32, 16, 6, 2, 20, 3, 3, {40, 1, 2}, {40, 100, 33}},
    {CRIA_F32, 32, 9, 3, 64, 1, 4, {1, 1, 50, 3}, {600, 31, 50, 1030}},
    {CRIA_F32, 16, 2, 1, 128, 1, 1, {1}, {1300}},
    {CRIA_F32, 32, 40, 1, 16, 1, 2, {3, 1}, {35, 64}},
    {CRIA_F32, 32, 2, 2, 80, 100, 2, {20, 1}, {90, 77}},
    {CRIA_BF16, 16, 1, 1, 15, 1, 2, {3, 1}, {19, 33}},
    {CRIA_BF16, 32, 9, 3, 64, 1, 4, {1, 1, 50, 3}, {600, 31, 50, 1030}},
    {CRIA_BF16, 16, 4, 4, 20, 2, 3, {40, 1, 2}, {40, 100, 33}},
    {CRIA_BF16, 32, 8, 2, 128, 1, 2, {37, 4}, {37, 700}},
    {CRIA_BF16, 16, 3, 1, 72, 1, 1, {48}, {560}},
    {CRIA_F32, 48, 2, 2, 24, 1, 2, {1, 20}, {130, 60}},
    {CRIA_BF16, 64, 8, 8, 64, 1, 5, {1, 1, 1, 1, 1}, {65, 600, 128, 1, 90}}, /* several KV heads in one item */
    {CRIA_BF16, 32, 14, 2, 32, 1, 3, {9, 1, 100}, {200, 40, 101}},           /* groups that end inside a query */
    {CRIA_I8, 16, 1, 1, 15, 1, 2, {3, 1}, {19, 33}},
    {CRIA_I8, 32, 9, 3, 64, 1, 4, {1, 1, 50, 3}, {600, 31, 50, 1030}},
    {CRIA_I8, 16, 4, 4, 20, 2, 3, {40, 1, 2}, {40, 100, 33}},
    {CRIA_I8, 32, 8, 2, 128, 1, 2, {37, 4}, {37, 700}},
    {CRIA_I8, 48, 2, 2, 24, 1, 2, {1, 20}, {130, 60}},
    {CRIA_I8, 64, 8, 8, 64, 1, 5, {1, 1, 1, 1, 1}, {65, 600, 128, 1, 90}},
};

/* Those of the row operators, and those that multiply bytes and pairs of bf16. */
enum { ATTENTION_TABLES = MOST_TABLES + 2 };
static int attention_tables(cria_kernels tables[ATTENTION_TABLES]) {
    int count = row_tables(tables);
    if (cria_isa_best() >= CRIA_ISA_AVX512_VNNI) cria_kernels_select(CRIA_ISA_AVX512_VNNI, &tables[count++]);
    if (cria_isa_best() >= CRIA_ISA_AVX512_BF16) cria_kernels_select(CRIA_ISA_AVX512_BF16, &tables[count++]);
    return count;
}

static bool multiplies_bf16(const cria_kernels *table, cria_type type) {
    return type == CRIA_BF16 && strcmp(table->name, "avx512bf16") == 0;
}
static bool multiplies_bytes(const cria_kernels *table, cria_type type) {
    return type == CRIA_I8 && (strcmp(table->name, "avx512vnni") == 0 || strcmp(table->name, "avx512bf16") == 0);
}

/* A filled cache and the queries of every position of every sequence. */
typedef struct {
    const attention_case *c;
    cria_kv_layer layer;
    int32_t *table;
    int64_t table_stride, width;
    float *q, *k, *v; /* [sequence][position][heads or kv_heads][head_dim] */
    int64_t first[MOST_SEQUENCES + 1];
} scene;

static void store_keys(scene *s, cria_pool *pool, const cria_kernels *ref) {
    const attention_case *c = s->c;
    for (int i = 0; i < c->sequences; i++) {
        for (int64_t p = 0; p < c->context[i]; p++) {
            int64_t at = (s->first[i] + p) * c->kv_heads * c->head_dim;
            int32_t slot =
                (int32_t)(s->table[i * s->table_stride + p / c->block_tokens] * c->block_tokens + p % c->block_tokens);
            cria_kv_store_args args = {
                .layer = &s->layer, .k = s->k + at, .v = s->v + at, .stride = 0, .tokens = 1, .slots = &slot};
            RUN_KERNEL(pool, ref->kv_store, &args);
        }
    }
}

/* What stands for `count` values in a cache of int8: multiples of a 127th of the largest. */
static void round_to_i8(float *x, int64_t count) {
    float most = 0;
    for (int64_t i = 0; i < count; i++) most = fmaxf(most, fabsf(x[i]));
    float scale = most / 127, inverse = 127 / most;
    for (int64_t i = 0; i < count; i++) x[i] = scale * rintf(x[i] * inverse);
}

/* Vectors of different sizes, so that a scale that is another token's shows. */
static void vary_sizes(float *x, int64_t dim, int64_t vectors) {
    for (int64_t i = 0; i < vectors; i++)
        for (int64_t d = 0; d < dim; d++) x[i * dim + d] *= 0.25f + 0.25f * (float)(i % 5);
}

static scene make_scene(const attention_case *c, cria_pool *pool, const cria_kernels *ref) {
    scene s = {.c = c, .width = c->heads * c->head_dim};
    uint64_t seed = 99;
    int64_t tokens = 0, blocks = 0;
    for (int i = 0; i < c->sequences; i++) {
        s.first[i] = tokens;
        tokens += c->context[i];
        int64_t needed = (c->context[i] + c->block_tokens - 1) / c->block_tokens;
        if (needed > s.table_stride) s.table_stride = needed;
    }
    s.first[c->sequences] = tokens;
    blocks = s.table_stride * c->sequences;
    s.table = malloc((size_t)blocks * sizeof *s.table);
    /* Every block once, in an order that is neither up nor down (37 and 41 share no factor with the counts used). */
    for (int64_t i = 0; i < blocks; i++) s.table[i] = (int32_t)(i * (blocks % 37 ? 37 : 41) % blocks);
    size_t bytes = cria_kv_block_bytes(c->type, c->block_tokens, c->kv_heads, c->head_dim);
    s.layer = (cria_kv_layer){
        aligned_garbage(bytes * (size_t)blocks), c->type, c->block_tokens, c->kv_heads, c->head_dim, (int64_t)bytes};
    s.q = random_rows(&seed, c->query_scale, tokens * s.width);
    s.k = random_rows(&seed, 2, tokens * c->kv_heads * c->head_dim);
    s.v = random_rows(&seed, 1, tokens * c->kv_heads * c->head_dim);
    if (c->type == CRIA_I8) vary_sizes(s.k, c->head_dim, tokens * c->kv_heads);
    if (c->type == CRIA_I8) vary_sizes(s.v, c->head_dim, tokens * c->kv_heads);
    store_keys(&s, pool, ref);
    for (int64_t i = 0; c->type == CRIA_I8 && i < tokens * c->kv_heads; i++) {
        round_to_i8(s.k + i * c->head_dim, c->head_dim);
        round_to_i8(s.v + i * c->head_dim, c->head_dim);
    }
    return s;
}

static void free_scene(scene *s) {
    free(s->layer.pages), free(s->table), free(s->q), free(s->k), free(s->v);
}

/* Queries begin .. end - 1 of sequences first .. last - 1, as one call; out is laid out as q. */
static void run(const scene *s, const cria_kernels *table, cria_pool *pool, int first, int last, const int64_t *begin,
                const int64_t *end, float *out) {
    const attention_case *c = s->c;
    int32_t query_begin[MOST_SEQUENCES + 1] = {0}, context[MOST_SEQUENCES] = {0};
    int64_t rows = 0, stride = s->width + 5, out_stride = s->width + 3;
    for (int i = first; i < last; i++) rows += end[i] - begin[i];
    float *q = aligned_garbage((size_t)(rows * stride) * 4), *got = aligned_garbage((size_t)(rows * out_stride) * 4);
    for (int i = first; i < last; i++) {
        int32_t row = query_begin[i - first];
        for (int64_t p = begin[i]; p < end[i]; p++) {
            memcpy(q + row++ * stride, s->q + (s->first[i] + p) * s->width, (size_t)s->width * 4);
        }
        query_begin[i - first + 1] = row;
        context[i - first] = (int32_t)end[i];
    }
    size_t scratch = cria_attention_scratch_bytes(c->heads, c->kv_heads, c->head_dim);
    cria_attention_args args = {.layer = &s->layer,
                                .sequences = last - first,
                                .query_begin = query_begin,
                                .context = context,
                                .block_table = s->table + first * s->table_stride,
                                .table_stride = s->table_stride,
                                .heads = c->heads,
                                .scale = 0.37f,
                                .q = q,
                                .q_stride = stride,
                                .out = got,
                                .out_stride = out_stride,
                                .scratch = aligned_garbage(scratch * (size_t)cria_pool_threads(pool))};
    RUN_KERNEL(pool, table->attention, &args);
    for (int i = first; i < last; i++) {
        int32_t row = query_begin[i - first];
        for (int64_t p = begin[i]; p < end[i]; p++, row++) {
            memcpy(out + (s->first[i] + p) * s->width, got + row * out_stride, (size_t)s->width * 4);
            assert_true(isnan(got[row * out_stride + s->width]));
        }
    }
    free(q), free(got), free(args.scratch);
}

static double stored(cria_type type, float value) {
    return type == CRIA_BF16 ? cria_bf16_to_f32(cria_f32_to_bf16(value)) : value;
}

/* `query_type`: what the query is rounded to. */
static void expect(const scene *s, cria_type query_type, int sequence, int64_t position, int64_t head, float *out) {
    const attention_case *c = s->c;
    int64_t dim = c->head_dim, kv_head = head / (c->heads / c->kv_heads), row = c->kv_heads * dim;
    const float *q = s->q + (s->first[sequence] + position) * s->width + head * dim;
    const float *k = s->k + s->first[sequence] * row + kv_head * dim, *v = s->v + (k - s->k);
    double *scores = malloc((size_t)(position + 1) * sizeof *scores), most = -INFINITY, sum = 0;
    for (int64_t key = 0; key <= position; key++) {
        scores[key] = 0;
        for (int64_t i = 0; i < dim; i++)
            scores[key] += stored(query_type, q[i]) * stored(c->type, k[key * row + i]) * 0.37f;
        most = fmax(most, scores[key]);
    }
    for (int64_t key = 0; key <= position; key++) sum += scores[key] = exp(scores[key] - most);
    for (int64_t i = 0; i < dim; i++) {
        double value = 0;
        for (int64_t key = 0; key <= position; key++) value += scores[key] * stored(c->type, v[key * row + i]) / sum;
        out[i] = (float)value;
    }
    free(scores);
}

static void check_values(const scene *s, const cria_kernels *table, cria_pool *pool) {
    const attention_case *c = s->c;
    int64_t begin[MOST_SEQUENCES], end[MOST_SEQUENCES];
    float *out = aligned_garbage((size_t)(s->first[c->sequences] * s->width) * 4);
    float *expected = malloc((size_t)c->head_dim * sizeof *expected);
    for (int i = 0; i < c->sequences; i++) {
        end[i] = c->context[i];
        begin[i] = end[i] - c->queries[i];
    }
    run(s, table, pool, 0, c->sequences, begin, end, out);
    /* A score of size x carries a rounding error of about x * 2^-24, which the softmax hands on. */
    double limit = 2e-6 * (1 + c->query_scale);
    /* Queries of 16 bits: a 256th of the error that keys of 8 bits bring with them. */
    if (multiplies_bytes(table, c->type)) limit = 1e-4 * (1 + c->query_scale);
    /* Weights of 8 bits, over values of at most 1. */
    if (multiplies_bf16(table, c->type)) limit = 1.5 / 512;
    for (int i = 0; i < c->sequences; i++) {
        for (int64_t p = begin[i]; p < end[i]; p++) {
            for (int64_t head = 0; head < c->heads; head++) {
                expect(s, multiplies_bf16(table, c->type) ? CRIA_BF16 : CRIA_F32, i, p, head, expected);
                assert_close(table->name, out + (s->first[i] + p) * s->width + head * c->head_dim, expected,
                             c->head_dim, 0, limit);
            }
        }
    }
    free(out), free(expected);
}

static void attention_matches_its_definition(void **state) {
    (void)state;
    cria_kernels tables[ATTENTION_TABLES];
    int count = attention_tables(tables);
    for (int threads = 1; threads <= 3; threads += 2) {
        cria_pool *pool = make_pool(threads);
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
            scene s = make_scene(&CASES[i], pool, &tables[0]);
            for (int t = 0; t < count; t++) check_values(&s, &tables[t], pool);
            free_scene(&s);
        }
        cria_pool_destroy(pool);
    }
}

/* However coarse the weights, they are divided by their own sum: values that are all the same come out as they are. */
static void weights_add_up_to_one(void **state) {
    (void)state;
    cria_kernels tables[ATTENTION_TABLES];
    int count = attention_tables(tables);
    cria_pool *pool = make_pool(1);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        scene s = make_scene(&CASES[i], pool, &tables[0]);
        int64_t begin[MOST_SEQUENCES], end[MOST_SEQUENCES], values = s.first[s.c->sequences] * s.width;
        float *out = malloc((size_t)values * sizeof *out), one = 1;
        for (int64_t v = 0; v < s.first[s.c->sequences] * s.c->kv_heads * s.c->head_dim; v++) s.v[v] = 1;
        store_keys(&s, pool, &tables[0]);
        for (int q = 0; q < s.c->sequences; q++) {
            end[q] = s.c->context[q];
            begin[q] = end[q] - s.c->queries[q];
        }
        for (int t = 0; t < count; t++) {
            double limit =
                multiplies_bytes(&tables[t], s.c->type) ? 1e-3 : 2e-6; /* those are divided by the true sum */
            for (int64_t v = 0; v < values; v++) out[v] = 1;           /* rows that are not asked for */
            run(&s, &tables[t], pool, 0, s.c->sequences, begin, end, out);
            for (int64_t v = 0; v < values; v++) assert_close(tables[t].name, out + v, &one, 1, 0, limit);
        }
        free(out);
        free_scene(&s);
    }
    cria_pool_destroy(pool);
}

/* A weight of e^-80 of the largest still counts where its value is e^80 times as large. */
static void small_weights_count_as_much_as_they_weigh(void **state) {
    (void)state;
    static const attention_case cases[] = {{CRIA_F32, 32, 1, 1, 16, 1, 1, {1}, {130}},
                                           {CRIA_BF16, 32, 1, 1, 16, 1, 1, {1}, {130}}};
    static const struct {
        int64_t key;
        float below;
    } keys[] = {{0, 3}, {63, 15}, {64, 40}, {100, 80}, {129, 60}};
    cria_kernels tables[ATTENTION_TABLES];
    int count = attention_tables(tables);
    cria_pool *pool = make_pool(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene s = make_scene(&cases[i], pool, &tables[0]);
        int64_t dim = cases[i].head_dim, begin = 129, end = 130;
        memset(s.v, 0, (size_t)(end * dim) * sizeof *s.v);
        for (int64_t k = 0; k < end; k++) s.k[k * dim] = -90 / 0.37f;
        s.k[20 * dim] = 0; /* the largest score */
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            s.k[keys[k].key * dim] = -keys[k].below / 0.37f;
            s.v[keys[k].key * dim + (int64_t)k] = expf(keys[k].below);
        }
        for (int64_t k = 0; k < end * dim; k++) s.k[k] = k % dim ? 0 : s.k[k];
        for (int64_t d = 0; d < dim; d++) s.q[begin * dim + d] = d == 0;
        store_keys(&s, pool, &tables[0]);
        float expected[16], *out = malloc((size_t)(end * dim) * sizeof *out);
        expect(&s, CRIA_F32, 0, begin, 0, expected);
        for (int t = 0; t < count; t++) {
            run(&s, &tables[t], pool, 0, 1, &begin, &end, out);
            double limit = multiplies_bf16(&tables[t], cases[i].type) ? 1.5 / 256 : 1e-4;
            assert_close(tables[t].name, out + begin * dim, expected, dim, 0, limit);
        }
        free(out);
        free_scene(&s);
    }
    cria_pool_destroy(pool);
}

/* All queries of all sequences, `chunk` at a time, each sequence alone or all in one batch. */
static void run_chunked(const scene *s, const cria_kernels *table, cria_pool *pool, int64_t chunk, bool alone,
                        float *out) {
    const attention_case *c = s->c;
    int64_t begin[MOST_SEQUENCES], end[MOST_SEQUENCES];
    int64_t longest = 0;
    for (int i = 0; i < c->sequences; i++) longest = c->context[i] > longest ? c->context[i] : longest;
    for (int64_t p = 0; p < longest; p += chunk) {
        for (int i = 0; i < c->sequences; i++) {
            begin[i] = p < c->context[i] ? p : c->context[i] - 1; /* a finished sequence repeats its last query */
            end[i] = p + chunk < c->context[i] ? p + chunk : c->context[i];
            if (alone) run(s, table, pool, i, i + 1, begin, end, out);
        }
        if (!alone) run(s, table, pool, 0, c->sequences, begin, end, out);
    }
}

static void results_are_bit_identical_for_every_chunking_batch_and_number_of_workers(void **state) {
    (void)state;
    static const attention_case cases[] = {
        {CRIA_F32, 16, 4, 2, 20, 1, 3, {0}, {61, 40, 33}},    {CRIA_BF16, 32, 3, 1, 64, 2, 3, {0}, {65, 1, 32}},
        {CRIA_F32, 32, 2, 2, 15, 1, 2, {0}, {90, 64}},        {CRIA_BF16, 16, 2, 2, 15, 1, 2, {0}, {50, 600}},
        {CRIA_BF16, 64, 14, 2, 32, 1, 3, {0}, {130, 70, 64}}, {CRIA_I8, 32, 3, 1, 64, 2, 3, {0}, {65, 1, 32}},
        {CRIA_I8, 16, 2, 2, 15, 1, 2, {0}, {50, 600}},        {CRIA_I8, 64, 14, 2, 32, 1, 3, {0}, {130, 70, 64}},
    };
    static const int64_t chunks[] = {1, 7, 16, 33, 1000};
    cria_kernels tables[ATTENTION_TABLES];
    int count = attention_tables(tables);
    cria_pool *pools[2] = {make_pool(1), make_pool(3)};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene s = make_scene(&cases[i], pools[0], &tables[0]);
        int64_t values = s.first[cases[i].sequences] * s.width;
        float *all = aligned_garbage((size_t)values * 4), *parts = aligned_garbage((size_t)values * 4);
        for (int t = 0; t < count; t++) {
            run_chunked(&s, &tables[t], pools[0], 1000, true, all);
            for (size_t n = 0; n < sizeof chunks / sizeof *chunks; n++) {
                memset(parts, 0xff, (size_t)values * 4);
                run_chunked(&s, &tables[t], pools[(n + 1) % 2], chunks[n], n == 0, parts);
                if (memcmp(all, parts, (size_t)values * 4) != 0) {
                    fail_msg("%s: case %zu differs in chunks of %lld", tables[t].name, i, (long long)chunks[n]);
                }
            }
        }
        free(all), free(parts);
        free_scene(&s);
    }
    cria_pool_destroy(pools[0]);
    cria_pool_destroy(pools[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_matches_its_definition),
        cmocka_unit_test(weights_add_up_to_one),
        cmocka_unit_test(small_weights_count_as_much_as_they_weigh),
        cmocka_unit_test(results_are_bit_identical_for_every_chunking_batch_and_number_of_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
