/* Sampling of every instruction set against an oracle that sorts everything in double, and against exact
 * distributions. All seeds are fixed, so that the statistical tests give one answer. */
#include "base/random.h"
#include "tests/kernels/row_case.h"

#include <float.h>

static const cria_row PLAIN = {
    .sample = 1, .target = -1, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 12345};

typedef struct {
    float logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* One row of logits and all that its sampling depends on. */
typedef struct {
    int64_t vocab;
    const float *logits;
    cria_row row;
    const cria_history *history;
    const cria_bias *biases;
    const int32_t *allowed;
} row_input;

static void edit(const row_input *in, float *out) {
    memcpy(out, in->logits, (size_t)in->vocab * sizeof *out);
    for (int64_t i = 0; i < in->vocab && in->row.allowed.count; i++) {
        bool found = false;
        for (int32_t j = 0; j < in->row.allowed.count; j++) found |= in->allowed[in->row.allowed.begin + j] == i;
        if (!found) out[i] = -INFINITY;
    }
    for (int32_t j = 0; j < in->row.biases.count; j++) {
        out[in->biases[in->row.biases.begin + j].token] += in->biases[in->row.biases.begin + j].bias;
    }
    for (int32_t j = 0; j < in->row.history.count; j++) {
        cria_history h = in->history[in->row.history.begin + j];
        float *x = &out[h.token];
        *x = *x > 0 ? *x / in->row.repetition_penalty : *x * in->row.repetition_penalty;
        if (h.output_count > 0) *x -= in->row.frequency_penalty * (float)h.output_count;
        if (h.output_count > 0) *x -= in->row.presence_penalty;
    }
}

/* The tokens that may be chosen, most likely first, with their probabilities; returns how many. */
static int64_t oracle_support(const row_input *in, candidate *sorted, double *probability) {
    float *logits = malloc((size_t)in->vocab * sizeof *logits);
    edit(in, logits);
    for (int32_t i = 0; i < in->vocab; i++) sorted[i] = (candidate){logits[i], i};
    free(logits);
    qsort(sorted, (size_t)in->vocab, sizeof *sorted, by_logit);
    int64_t count = in->vocab;
    while (count > 0 && isinf(sorted[count - 1].logit)) count--;
    double temperature = in->row.temperature;
    for (int64_t i = 0; i < count; i++) probability[i] = exp(((double)sorted[i].logit - sorted[0].logit) / temperature);
    int64_t kept = 0;
    while (kept < count && probability[kept] >= in->row.min_p) kept++;
    if (in->row.top_k > 0 && in->row.top_k < kept) {
        int64_t k = in->row.top_k;
        while (k < kept && sorted[k].logit == sorted[k - 1].logit) k++;
        kept = k;
    }
    double total = 0, before = 0;
    for (int64_t i = 0; i < kept; i++) total += probability[i];
    if (in->row.top_p < 1) {
        int64_t i = 0;
        for (; i < kept && (i == 0 || before < (double)in->row.top_p * total); i++) before += probability[i];
        kept = i;
        total = before;
    }
    for (int64_t i = 0; i < kept; i++) probability[i] /= total;
    return kept;
}

static double gumbel(const cria_row *row, int32_t id) {
    uint32_t words[4];
    cria_philox(row->seed, row->counter, (uint64_t)id / 4, words);
    return -log(-log1p(-(words[id % 4] + 0.5) * 0x1p-32));
}

/* The token that must be chosen of the first `kept` ones, and by how much its score leads. */
static int32_t oracle_token(const row_input *in, int64_t kept, const candidate *sorted, const double *probability,
                            double *lead) {
    double best = -INFINITY, second = -INFINITY;
    int32_t token = -1;
    for (int64_t i = 0; i < kept; i++) {
        double score = log(probability[i]) + gumbel(&in->row, sorted[i].id);
        if (score > best) {
            second = best;
            best = score;
            token = sorted[i].id;
        } else if (score > second) {
            second = score;
        }
    }
    *lead = best - second;
    return token;
}

enum { ROWS = 6, TOP = 1024 };

/* What one call returned for its rows. */
typedef struct {
    cria_row_result result[ROWS];
    int32_t top_ids[ROWS * TOP];
    float top_logprobs[ROWS * TOP];
} output;

/* Samples one input in all rows at once; the counters of the rows are counter, counter + 1, .... */
static void sample_rows(const cria_kernels *table, cria_pool *pool, const row_input *in, int rows, output *out) {
    int64_t stride = in->vocab + 3;
    float *logits = aligned_garbage((size_t)(rows * stride) * sizeof *logits);
    cria_row row[ROWS];
    for (int r = 0; r < rows; r++) {
        memcpy(logits + r * stride, in->logits, (size_t)in->vocab * sizeof *logits);
        row[r] = in->row;
        row[r].counter += (uint64_t)r;
    }
    size_t scratch = cria_sample_scratch_bytes(in->vocab);
    cria_sample_args args = {.logits = logits,
                             .rows = rows,
                             .vocab = in->vocab,
                             .stride = stride,
                             .row = row,
                             .history = in->history,
                             .biases = in->biases,
                             .allowed = in->allowed,
                             .result = out->result,
                             .top_ids = out->top_ids,
                             .top_logprobs = out->top_logprobs,
                             .top_stride = TOP,
                             .scratch = aligned_garbage(scratch * (size_t)cria_pool_threads(pool))};
    memset(out, 0xff, sizeof *out);
    RUN_KERNEL(pool, table->sample, &args);
    free(logits), free(args.scratch);
}

static void check_report(const char *name, const row_input *in, int32_t id, const cria_row_result *result) {
    double most = -INFINITY, sum = 0;
    int32_t rank = 1;
    for (int64_t i = 0; i < in->vocab; i++) most = fmax(most, in->logits[i]);
    for (int64_t i = 0; i < in->vocab; i++) sum += exp(in->logits[i] - most);
    for (int64_t i = 0; i < in->vocab; i++) rank += in->logits[i] > in->logits[id];
    double expected = fmax(in->logits[id] - most - log(sum), -9999);
    if (result->rank != rank || fabs(result->logprob - expected) > 2e-6 * fmax(1, fabs(expected))) {
        fail_msg("%s: token %d has logprob %.9g rank %d, expected %.9g %d", name, id, result->logprob, result->rank,
                 expected, rank);
    }
}

static void check_top(const char *name, const row_input *in, const output *out, int r) {
    candidate *sorted = malloc((size_t)in->vocab * sizeof *sorted);
    for (int32_t i = 0; i < in->vocab; i++) sorted[i] = (candidate){in->logits[i], i};
    qsort(sorted, (size_t)in->vocab, sizeof *sorted, by_logit);
    int64_t count = in->row.top_logprobs < in->vocab ? in->row.top_logprobs : in->vocab;
    assert_int_equal(out->result[r].top_count, count);
    for (int64_t i = 0; i < count; i++) {
        if (out->top_ids[r * TOP + i] != sorted[i].id) fail_msg("%s: top %lld is wrong", name, (long long)i);
        cria_row_result one = {.rank = 1, .logprob = out->top_logprobs[r * TOP + i]};
        for (int64_t j = 0; j < i; j++) one.rank += sorted[j].logit > sorted[i].logit;
        if (i < 3 || i == count - 1) check_report(name, in, sorted[i].id, &one);
    }
    free(sorted);
}

static void check_row(const cria_kernels *table, cria_pool *pool, const row_input *in) {
    static output out;
    candidate *sorted = malloc((size_t)in->vocab * sizeof *sorted);
    double *probability = malloc((size_t)in->vocab * sizeof *probability);
    int64_t kept = oracle_support(in, sorted, probability);
    sample_rows(table, pool, in, ROWS, &out);
    for (int r = 0; r < ROWS; r++) {
        row_input one = *in;
        one.row.counter += (uint64_t)r;
        double lead = 0;
        int32_t token = sorted[0].id;
        if (in->row.temperature >= 1e-5f) token = oracle_token(&one, kept, sorted, probability, &lead);
        if (out.result[r].token != token && (lead > 1e-4 || in->row.temperature < 1e-5f)) {
            fail_msg("%s: chose %d, expected %d (lead %g, T %g top_k %d top_p %g min_p %g)", table->name,
                     out.result[r].token, token, lead, in->row.temperature, in->row.top_k, in->row.top_p,
                     in->row.min_p);
        }
        int32_t reported = in->row.target >= 0 ? in->row.target : out.result[r].token;
        if (r < 2) check_report(table->name, in, reported, &out.result[r]);
        if (r == 0) check_top(table->name, in, &out, r);
    }
    free(sorted), free(probability);
}

static void for_each_table(int threads, void (*test)(const cria_kernels *table, cria_pool *pool)) {
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(threads);
    for (int t = 0; t < count; t++) test(&tables[t], pool);
    cria_pool_destroy(pool);
}

/* flat: all alike, as random weights give; peaked: as a trained model gives; tied: few distinct values. */
typedef enum { FLAT, PEAKED, TIED } shape;

static float *make_logits(shape kind, int64_t vocab, uint64_t seed) {
    float *logits = malloc((size_t)vocab * sizeof *logits);
    for (int64_t i = 0; i < vocab; i++) {
        float unit = random_unit(&seed);
        if (kind == FLAT) logits[i] = unit;
        if (kind == PEAKED) logits[i] = -4 * log1pf(-fabsf(unit) + 1e-6f) + 2 * random_unit(&seed);
        if (kind == TIED) logits[i] = floorf(4 * unit) / 2;
    }
    return logits;
}

static void check_settings(const cria_kernels *table, cria_pool *pool) {
    static const struct {
        float temperature;
        int32_t top_k;
        float top_p, min_p;
    } settings[] = {
        {0, 0, 1, 0},     {1, 0, 1, 0},       {0.7f, 0, 0.9f, 0},    {1, 1, 1, 0},          {1, 50, 1, 0},
        {1.3f, 5, 1, 0},  {1, 50, 0.8f, 0},   {0.5f, 0, 0.3f, 0},    {1, 0, 1, 0.1f},       {2, 40, 0.95f, 0.02f},
        {1, 2000, 1, 0},  {1, 0, 0.999f, 0},  {1, 0, 1e-9f, 0},      {1, 0, 1, 1},          {1, 1500, 0.5f, 0},
        {0.01f, 0, 1, 0}, {100, 0, 0.99f, 0}, {1, 1 << 30, 0.7f, 0}, {1, 0, 0.9999999f, 0}, {1e-5f, 3, 0.5f, 0},
    };
    static const int64_t vocabs[] = {1, 3, 17, 64, 300, 2503};
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        if (vocabs[v] > 500 && strcmp(table->name, "ref") == 0) continue; /* slow by intent */
        for (int kind = FLAT; kind <= TIED; kind++) {
            float *logits = make_logits((shape)kind, vocabs[v], v + 1);
            for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
                row_input in = {.vocab = vocabs[v], .logits = logits, .row = PLAIN};
                in.row.temperature = settings[i].temperature;
                in.row.top_k = settings[i].top_k;
                in.row.top_p = settings[i].top_p;
                in.row.min_p = settings[i].min_p;
                in.row.seed = i * 1000003 + v;
                in.row.counter = UINT64_C(1) << 40;
                in.row.top_logprobs = (int32_t)(i == 3 ? TOP : i);
                check_row(table, pool, &in);
            }
            free(logits);
        }
    }
}

static void tokens_are_those_of_the_oracle(void **state) {
    (void)state;
    for_each_table(1, check_settings);
}

static void check_large(const cria_kernels *table, cria_pool *pool) {
    if (strcmp(table->name, "ref") == 0) return; /* slow by intent */
    for (int kind = FLAT; kind <= TIED; kind++) {
        float *logits = make_logits((shape)kind, 151936, 5);
        static const float top_p[] = {1, 0.9f, 0.5f, 0.9999f};
        for (size_t i = 0; i < 4; i++) {
            row_input in = {.vocab = 151936, .logits = logits, .row = PLAIN};
            in.row.top_p = top_p[i];
            in.row.top_k = i == 2 ? 3000 : 0;
            in.row.top_logprobs = i == 1 ? TOP : 5;
            check_row(table, pool, &in);
        }
        free(logits);
    }
}

static void large_vocabularies_agree_too(void **state) {
    (void)state;
    for_each_table(2, check_large);
}

static void check_edits(const cria_kernels *table, cria_pool *pool) {
    static const cria_history history[] = {{0, 0}, {3, 2}, {9, 1}, {77, 0}, {42, 7}, {99, 1}, {12, 3}};
    static const cria_bias biases[] = {{1, 0.1f}, {42, 3}, {7, -INFINITY}, {99, 2.5f}, {0, -1}};
    static const int32_t allowed[] = {99, 3, 7, 42, 12, 3, 50};
    float *logits = make_logits(FLAT, 100, 3);
    for (int i = 0; i < 48; i++) {
        row_input in = {
            .vocab = 100, .logits = logits, .row = PLAIN, .history = history, .biases = biases, .allowed = allowed};
        in.row.seed = (uint64_t)i;
        in.row.temperature = i % 2 ? 0.8f : 0;
        in.row.top_k = i % 5 == 0 ? 4 : 0;
        in.row.top_p = i % 7 == 0 ? 0.7f : 1;
        if (i & 2) in.row.history = (cria_span){1, 6};
        if (i & 4) in.row.biases = (cria_span){1, 4};
        if (i & 8) in.row.allowed = (cria_span){0, 7};
        if (i & 16) in.row.target = 9;
        if (i & 2) {
            in.row.repetition_penalty = 1.3f;
            in.row.presence_penalty = 0.3f;
            in.row.frequency_penalty = 0.2f;
        }
        in.row.top_logprobs = 10;
        check_row(table, pool, &in);
    }
    free(logits);
}

static void penalties_biases_and_allowed_ids_come_in_order_and_leave_raw_logprobs(void **state) {
    (void)state;
    for_each_table(2, check_edits);
}

static void check_distribution(const cria_kernels *table, cria_pool *pool) {
    enum { VOCAB = 40, DRAWS = 24000 };
    float *logits = make_logits(FLAT, VOCAB, 21);
    static output out;
    for (int setting = 0; setting < 4; setting++) {
        row_input in = {.vocab = VOCAB, .logits = logits, .row = PLAIN};
        in.row.temperature = setting == 1 ? 0.5f : 1;
        in.row.top_k = setting == 2 ? 12 : 0;
        in.row.top_p = setting == 3 ? 0.75f : 1;
        candidate sorted[VOCAB];
        double probability[VOCAB], square = 0;
        int64_t kept = oracle_support(&in, sorted, probability);
        int drawn[VOCAB] = {0};
        for (int i = 0; i < DRAWS; i += ROWS) {
            in.row.counter = (uint64_t)i;
            sample_rows(table, pool, &in, ROWS, &out);
            for (int r = 0; r < ROWS; r++) drawn[out.result[r].token]++;
        }
        int seen = 0;
        for (int64_t i = 0; i < kept; i++) {
            double wanted = probability[i] * DRAWS, difference = drawn[sorted[i].id] - wanted;
            square += difference * difference / wanted;
            seen += drawn[sorted[i].id];
        }
        assert_int_equal(seen, DRAWS); /* nothing outside the support */
        /* Chi-square with kept - 1 degrees of freedom: mean kept - 1, deviation sqrt(2 (kept - 1)). */
        double freedom = (double)kept - 1;
        if (square > freedom + 4 * sqrt(2 * freedom)) fail_msg("%s: chi-square %g of %g", table->name, square, freedom);
        for (int64_t i = 0; i < kept; i++) assert_true(drawn[sorted[i].id] > 0); /* all of the support */
    }
    free(logits);
}

static void draws_follow_the_exact_distribution_and_its_support(void **state) {
    (void)state;
    for_each_table(1, check_distribution);
}

/* The first counter at which token number `at` of the sorted ones wins against all before it. */
static uint64_t counter_of_winner(const row_input *in, int64_t at, const candidate *sorted, double temperature) {
    row_input one = *in;
    for (one.row.counter = 0;; one.row.counter++) {
        double score = sorted[at].logit / temperature + gumbel(&one.row, sorted[at].id);
        int64_t i = 0;
        while (i < at && sorted[i].logit / temperature + gumbel(&one.row, sorted[i].id) < score - 1e-4) i++;
        if (i == at) return one.row.counter;
    }
}

static void the_last_token_inside_can_be_chosen_and_the_first_outside_cannot(void **state) {
    (void)state;
    enum { VOCAB = 2000 };
    static const struct {
        shape kind;
        int32_t top_k;
        float top_p, min_p;
    } settings[] = {{FLAT, 7, 1, 0},      {FLAT, 1500, 1, 0},  {FLAT, 0, 0.4f, 0},      {TIED, 0, 0.7f, 0},
                    {FLAT, 300, 0.5f, 0}, {FLAT, 0, 1, 0.99f}, {TIED, 900, 0.9f, 0.1f}, {PEAKED, 0, 0.8f, 0}};
    cria_kernels tables[MOST_TABLES];
    int count = row_tables(tables);
    cria_pool *pool = make_pool(1);
    static output out;
    static candidate sorted[VOCAB];
    static double probability[VOCAB];
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        float *logits = make_logits(settings[i].kind, VOCAB, 77 + i);
        /* Nearly alike, so that the least likely token wins soon; the peaked ones as they are. */
        for (int j = 0; j < VOCAB && settings[i].kind != PEAKED; j++) logits[j] *= 0.01f;
        row_input in = {.vocab = VOCAB, .logits = logits, .row = PLAIN};
        in.row.temperature = settings[i].kind == PEAKED ? 2.5f : 1;
        in.row.top_k = settings[i].top_k;
        in.row.top_p = settings[i].top_p;
        in.row.min_p = settings[i].min_p;
        int64_t kept = oracle_support(&in, sorted, probability);
        assert_true(kept > 1 && kept < VOCAB);
        uint64_t inside = counter_of_winner(&in, kept - 1, sorted, in.row.temperature);
        uint64_t outside = counter_of_winner(&in, kept, sorted, in.row.temperature);
        for (int t = 0; t < count; t++) {
            in.row.counter = inside;
            sample_rows(&tables[t], pool, &in, 1, &out);
            if (out.result[0].token != sorted[kept - 1].id) fail_msg("%s: setting %zu loses one", tables[t].name, i);
            in.row.counter = outside;
            sample_rows(&tables[t], pool, &in, 1, &out);
            if (out.result[0].token == sorted[kept].id) fail_msg("%s: setting %zu keeps one more", tables[t].name, i);
        }
        free(logits);
    }
    cria_pool_destroy(pool);
}

static void check_reproducible(const cria_kernels *table, cria_pool *pool) {
    float *logits = make_logits(FLAT, 1000, 8);
    static output first, second;
    row_input in = {.vocab = 1000, .logits = logits, .row = PLAIN};
    sample_rows(table, pool, &in, ROWS, &first);
    for (int r = 0; r < ROWS; r++) {
        in.row.counter = (uint64_t)r;
        sample_rows(table, pool, &in, 1, &second);
        assert_int_equal(first.result[r].token, second.result[0].token);
        assert_memory_equal(&first.result[r].logprob, &second.result[0].logprob, sizeof(float));
    }
    int same = 0;
    for (int r = 1; r < ROWS; r++) same += first.result[r].token == first.result[0].token;
    assert_true(same < ROWS - 1);
    in.row.counter = 0;
    in.row.seed ^= UINT64_C(1) << 60;
    sample_rows(table, pool, &in, ROWS, &second);
    same = 0;
    for (int r = 0; r < ROWS; r++) same += first.result[r].token == second.result[r].token;
    assert_true(same < ROWS);
    free(logits);
}

static void a_seed_gives_the_same_token_in_every_row_and_batch(void **state) {
    (void)state;
    for_each_table(2, check_reproducible);
}

static void check_broken(const cria_kernels *table, cria_pool *pool) {
    float logits[100];
    static output out;
    for (int kind = 0; kind < 4; kind++) {
        for (int at = 0; at < 100; at += 33) {
            for (int i = 0; i < 100; i++) logits[i] = kind == 1 ? -INFINITY : (float)i / 50;
            if (kind == 0) logits[at] = NAN;
            if (kind == 2) logits[at] = INFINITY;
            if (kind == 3) logits[at] = -INFINITY;
            row_input in = {.vocab = 100, .logits = logits, .row = PLAIN};
            in.row.top_logprobs = 3;
            in.row.temperature = at == 33 ? 0 : 1;
            in.row.target = kind == 3 ? at : -1;
            sample_rows(table, pool, &in, 2, &out);
            cria_row_result *r = &out.result[1];
            assert_int_equal(r->top_count, 3);
            if (kind < 2) {
                assert_int_equal(r->token, 0);
                assert_true(r->logprob == -9999 && out.top_logprobs[TOP + 2] == -9999);
            } else if (kind == 2) {
                assert_int_equal(r->token, at);
                assert_int_equal(out.top_ids[TOP], at);
                assert_true(r->logprob == 0 && r->rank == 1);
            } else {
                assert_true(r->token != at && r->logprob == -9999 && r->rank == 100);
            }
        }
    }
}

static void rows_with_nan_or_infinity_have_a_result(void **state) {
    (void)state;
    for_each_table(2, check_broken);
}

static void check_bans(const cria_kernels *table, cria_pool *pool) {
    static output out;
    float logits[40] = {0};
    cria_bias biases[41];
    int32_t allowed[] = {7, 1000, -4};
    for (int i = 0; i < 40; i++) biases[i] = (cria_bias){i, -INFINITY};
    biases[40] = (cria_bias){5, INFINITY};
    for (int greedy = 0; greedy < 2; greedy++) {
        row_input in = {.vocab = 40, .logits = logits, .row = PLAIN, .biases = biases, .allowed = allowed};
        in.row.temperature = greedy ? 0 : 1;
        in.row.biases = (cria_span){0, 40};
        sample_rows(table, pool, &in, 1, &out);
        assert_int_equal(out.result[0].token, 0);
        in.row.allowed = (cria_span){0, 3};
        sample_rows(table, pool, &in, 1, &out);
        assert_int_equal(out.result[0].token, 7);
        in.row.biases = (cria_span){0, 0};
        sample_rows(table, pool, &in, 1, &out);
        assert_int_equal(out.result[0].token, 7);
        in.row.allowed = (cria_span){0, 0};
        in.row.biases = (cria_span){40, 1};
        sample_rows(table, pool, &in, 1, &out);
        assert_int_equal(out.result[0].token, 5);
        assert_float_equal(out.result[0].logprob, -logf(40), 1e-5);
    }
}

static void a_row_with_everything_banned_has_a_defined_token(void **state) {
    (void)state;
    for_each_table(2, check_bans);
}

static void check_report_only(const cria_kernels *table, cria_pool *pool) {
    static output out;
    float *logits = make_logits(PEAKED, 300, 4);
    row_input in = {.vocab = 300, .logits = logits, .row = PLAIN};
    in.row.sample = 0;
    in.row.target = 123;
    sample_rows(table, pool, &in, 2, &out);
    assert_int_equal(out.result[1].token, -1);
    assert_int_equal(out.result[1].top_count, 0);
    check_report(table->name, &in, 123, &out.result[1]);
    free(logits);
}

static void a_row_may_ask_for_a_logprob_only(void **state) {
    (void)state;
    for_each_table(2, check_report_only);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_the_oracle),
        cmocka_unit_test(large_vocabularies_agree_too),
        cmocka_unit_test(penalties_biases_and_allowed_ids_come_in_order_and_leave_raw_logprobs),
        cmocka_unit_test(draws_follow_the_exact_distribution_and_its_support),
        cmocka_unit_test(the_last_token_inside_can_be_chosen_and_the_first_outside_cannot),
        cmocka_unit_test(a_seed_gives_the_same_token_in_every_row_and_batch),
        cmocka_unit_test(rows_with_nan_or_infinity_have_a_result),
        cmocka_unit_test(a_row_with_everything_banned_has_a_defined_token),
        cmocka_unit_test(a_row_may_ask_for_a_logprob_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
