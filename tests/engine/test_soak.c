/* Soak: thousands of random requests with cancels and pauses over small pools; each gives what it gives alone. */
#include "tests/engine/arithmetic.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

enum { ROUNDS = 24, REQUESTS = 150, SENDERS = 2, FAMILIES = 5, MOST_REPLICAS = 3 };

typedef struct {
    uint64_t state;
} dice;

static uint64_t roll(dice *d, uint64_t sides) {
    d->state = mix(d->state, 1);
    return d->state % sides;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static cria_engine_config random_config(dice *d) {
    static const int64_t block_sizes[] = {1, 2, 4, 8, 16};
    cria_engine_config config = {.vocab = VOCAB, .eos = {0, 5}, .eos_count = 2, .max_waiting = 20};
    config.block_tokens = block_sizes[roll(d, 5)];
    config.max_model_len = 40 + (int64_t)roll(d, 40);
    int64_t longest = (config.max_model_len + config.block_tokens - 1) / config.block_tokens;
    config.blocks = longest + (int64_t)roll(d, (uint64_t)longest * 3);
    if (roll(d, 4) == 0) config.blocks = (longest + 1) / 2; /* even one full-length sequence has no room */
    config.prefix_cache = roll(d, 4) != 0;
    config.max_waiting_prompt_tokens = 400;
    config.limits = (cria_batch_limits){.tokens = 1 + (int64_t)roll(d, 40),
                                        .sequences = 1 + (int64_t)roll(d, 12),
                                        .blocks_per_sequence = longest,
                                        .history = VOCAB + (int64_t)roll(d, 200),
                                        .biases = 200 + (int64_t)roll(d, 200),
                                        .allowed = 20,
                                        .top_logprobs = MOST_TOP};
    config.limits.rows = 1 + (int64_t)roll(d, (uint64_t)config.limits.tokens);
    return config;
}

static int32_t *random_ids(dice *d, size_t count) {
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)roll(d, VOCAB);
    return ids;
}

/* Prompts of few families share prefixes. */
static void random_prompt(dice *d, cria_request *r, int64_t room) {
    uint64_t family = roll(d, FAMILIES);
    r->prompt_count = 1 + (size_t)roll(d, (uint64_t)least(room - 1, 50));
    r->prompt = random_ids(d, r->prompt_count);
    for (size_t i = 0; i < r->prompt_count * 3 / 4; i++) r->prompt[i] = (int32_t)(mix(family, i) % VOCAB);
    if (roll(d, 3) == 0) {
        for (size_t i = 0; i < r->prompt_count; i++) r->prompt[i] = (int32_t)(mix(family, i) % VOCAB);
    }
    r->cache_salt = roll(d, 5) == 0;
}

static void random_side_arrays(dice *d, cria_request *r) {
    if (roll(d, 4) == 0) {
        r->bias_count = 1 + roll(d, 5);
        r->biases = malloc(r->bias_count * sizeof *r->biases);
        for (size_t i = 0; i < r->bias_count; i++) {
            r->biases[i] = (cria_bias){(int32_t)roll(d, VOCAB), (float)roll(d, 9) - 4.0f};
        }
    }
    if (roll(d, 4) == 0) r->allowed = random_ids(d, r->allowed_count = 5 + roll(d, 15));
    if (roll(d, 4) == 0) {
        r->bad_count = 6;
        r->bad_words = random_ids(d, 10);
        r->bad_lengths = malloc(6 * sizeof *r->bad_lengths);
        for (int i = 0; i < 6; i++) r->bad_lengths[i] = 1 + (i >= 4) * 2;
    }
    if (roll(d, 3) == 0) r->stop_ids = random_ids(d, r->stop_count = 1 + roll(d, 3));
}

static cria_request *random_request(dice *d, int64_t room) {
    cria_request *r = cria_request_create();
    random_prompt(d, r, room);
    random_side_arrays(d, r);
    cria_sampling *s = &r->sampling;
    s->temperature = roll(d, 2) ? 0.0f : 1.0f;
    s->seed = roll(d, 1000);
    s->max_tokens = (int32_t)roll(d, 30);
    s->min_tokens = roll(d, 3) ? 0 : (int32_t)roll(d, 10);
    s->ignore_eos = roll(d, 3) == 0;
    s->logprobs = (int32_t)roll(d, MOST_TOP + 2) - 1;
    s->prompt_logprobs = roll(d, 4) ? -1 : (int32_t)roll(d, MOST_TOP + 1);
    if (roll(d, 3) == 0) s->repetition_penalty = 1.3f;
    if (roll(d, 4) == 0) s->presence_penalty = 0.7f;
    if (roll(d, 4) == 0) s->frequency_penalty = 0.3f;
    if (roll(d, 4) == 0) s->no_repeat_ngram_size = 1 + (int32_t)roll(d, 3);
    r->priority = roll(d, 5) ? 0 : (int32_t)roll(d, 5) - 2;
    return r;
}

typedef struct {
    cria_engine *engine;
    cria_engine_config config;
    int64_t room;
    dice d;
    answer *got, *want; /* [REQUESTS] */
    uint64_t ids[REQUESTS];
    bool cancelled[REQUESTS];
    int refused;
} sender;

static void meddle(sender *s, int sent) {
    int i = (int)roll(&s->d, (uint64_t)sent);
    uint64_t what = roll(&s->d, 12);
    if (what == 0) {
        s->cancelled[i] = true;
        cria_engine_cancel(s->engine, s->ids[i]);
    }
    if (what >= 1 && what <= 3) cria_engine_pause(s->engine, s->ids[i], true);
    if (what >= 4 && what <= 7) cria_engine_pause(s->engine, s->ids[i], false);
    if (what == 8) usleep((useconds_t)roll(&s->d, 300));
    if (what == 9) cria_engine_cancel(s->engine, UINT64_MAX);
}

static void *send_all(void *argument) {
    sender *s = argument;
    for (int i = 0; i < REQUESTS; i++) {
        cria_request *r = random_request(&s->d, s->room);
        r->user = &s->got[i];
        alone(&s->config, r, s->room, &s->want[i]);
        cria_status status;
        while ((status = cria_engine_submit(s->engine, r, &s->ids[i], NULL)) == CRIA_ERR_FULL) {
            for (int k = 0; k < i; k++) cria_engine_pause(s->engine, s->ids[k], false);
            usleep(50);
        }
        if (status != CRIA_OK) {
            s->refused++;
            s->got[i].finished = 1;
            s->cancelled[i] = true;
            s->ids[i] = UINT64_MAX;
            cria_request_destroy(r);
        }
        for (int k = 0; k < 3; k++) meddle(s, i + 1);
    }
    for (int i = 0; i < REQUESTS; i++) cria_engine_pause(s->engine, s->ids[i], false);
    return NULL;
}

static void wait_for(const sender *s) {
    for (int i = 0; i < REQUESTS; i++) {
        for (int ms = 0; !s->got[i].finished; ms++) {
            assert_true(ms < 60000);
            usleep(1000);
        }
    }
}

static void compare(const sender *s) {
    for (int i = 0; i < REQUESTS; i++) {
        const answer *got = &s->got[i], *want = &s->want[i];
        assert_int_equal(got->faults, 0);
        assert_int_equal(got->finished, 1);
        assert_true(got->count <= want->count);
        assert_memory_equal(got->tokens, want->tokens, (size_t)got->count * sizeof *got->tokens);
        assert_memory_equal(got->logprobs, want->logprobs, (size_t)got->count * sizeof *got->logprobs);
        assert_true(got->prompt_told <= want->prompt_told);
        if (s->cancelled[i] && got->finish != want->finish) continue;
        assert_int_equal(got->count, want->count);
        assert_int_equal(got->finish, want->finish);
        assert_int_equal(got->finish_token, want->finish_token);
        assert_int_equal(got->prompt_told, want->prompt_told);
        assert_memory_equal(got->prompt_logprobs, want->prompt_logprobs, sizeof got->prompt_logprobs);
        assert_true(got->tops == want->tops && got->prompt_tops == want->prompt_tops);
    }
}

/* Gives how many steps were under way at once. */
static int play_round(uint64_t seed, cria_engine_stats *total) {
    dice d = {seed};
    int deepest = 0;
    cria_engine_config config = random_config(&d);
    model models[MOST_REPLICAS];
    cria_runner runners[MOST_REPLICAS];
    int replicas = seed % 4 == 0 ? 1 + (int)roll(&d, MOST_REPLICAS) : 1;
    int depth = seed % 2 ? 1 : 1 + (int)roll(&d, MOST_DEPTH);
    for (int i = 0; i < replicas; i++) {
        model_init(&models[i], &config);
        runners[i] = model_runner(&models[i], depth);
    }
    cria_engine *engine;
    cria_error err;
    assert_int_equal(cria_engine_create_replicas(&config, runners, replicas, hear, NULL, NULL, &engine, &err), CRIA_OK);
    sender *senders = calloc(SENDERS, sizeof *senders);
    pthread_t threads[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        senders[i].engine = engine;
        senders[i].config = config;
        senders[i].room = least(config.max_model_len, config.blocks * config.block_tokens);
        senders[i].d.state = mix(seed, (uint64_t)i + 100);
        senders[i].got = calloc(REQUESTS, sizeof(answer));
        senders[i].want = calloc(REQUESTS, sizeof(answer));
        pthread_create(&threads[i], NULL, send_all, &senders[i]);
    }
    for (int i = 0; i < SENDERS; i++) pthread_join(threads[i], NULL);
    cria_engine_stats stats;
    for (int i = 0; i < SENDERS; i++) wait_for(&senders[i]);
    cria_engine_stats_get(engine, &stats);
    assert_int_equal(stats.blocks_free, config.blocks * replicas);
    assert_int_equal(stats.blocks_total, config.blocks * replicas);
    assert_int_equal(stats.running, 0);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.waiting_prompt_tokens, 0);
    assert_false(stats.failed);
    cria_engine_destroy(engine);
    for (int i = 0; i < replicas; i++) {
        assert_int_equal(models[i].faults, 0);
        assert_true(models[i].computed > 0);
        if (models[i].most_under_way > deepest) deepest = models[i].most_under_way;
        free(models[i].cells);
    }
    for (int i = 0; i < SENDERS; i++) {
        compare(&senders[i]);
        total->waiting += senders[i].refused;
        free(senders[i].got);
        free(senders[i].want);
    }
    for (int i = 0; i < 5; i++) total->finished[i] += stats.finished[i];
    total->preemptions += stats.preemptions;
    total->prefix_hits += stats.prefix_hits;
    total->steps += stats.steps;
    free(senders);
    return deepest;
}

static void every_answer_is_that_of_the_request_alone_and_no_block_is_lost(void **state) {
    (void)state;
    cria_engine_stats total = {0};
    int deepest = 0;
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        int depth = play_round(seed, &total);
        if (depth > deepest) deepest = depth;
    }
    printf(
        "stopped %d, by length %d, aborted %d, refused %d, steps %d, preemptions %d, tokens from the prefix cache %d\n",
        (int)total.finished[CRIA_FINISH_STOP], (int)total.finished[CRIA_FINISH_LENGTH],
        (int)total.finished[CRIA_FINISH_ABORT], (int)total.waiting, (int)total.steps, (int)total.preemptions,
        (int)total.prefix_hits);
    /* The soak must have met what it is there for. */
    assert_true(total.finished[CRIA_FINISH_STOP] > 300 && total.finished[CRIA_FINISH_LENGTH] > 300);
    assert_true(total.finished[CRIA_FINISH_ABORT] > 20);
    assert_true(total.finished[CRIA_FINISH_ERROR] == 0);
    assert_int_equal(deepest, MOST_DEPTH);
    assert_true(total.preemptions > 50 && total.prefix_hits > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_answer_is_that_of_the_request_alone_and_no_block_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
