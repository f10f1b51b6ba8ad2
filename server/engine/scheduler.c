/* Scheduling of one step: decodes, prefill chunks, admission, preemption. */
#include "server/engine/scheduler.h"

#include "server/engine/blocks.h"
#include "server/engine/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_HELD_BACK = 32, /* waiting sequences looked past in one step because others compute their prefix */
    FEWEST_TOKENS = 32   /* a prompt is not cut into smaller chunks just to give every stage one */
};

struct cria_scheduler {
    cria_engine_config config;
    int ways;            /* steps that may be under way at once */
    cria_prefix *prefix; /* NULL: off */
    cria_blocks *blocks;
    cria_sequence_list running, waiting;
    int64_t most_running;
    int64_t history, biases, allowed; /* the most side-array entries that the running ones may need */
    uint64_t arrivals;
    cria_scheduler_stats stats;
    cria_work *work; /* [most_running] */
    int32_t work_count;
    int64_t tokens_left, rows_left, decodes_left; /* of the step being planned */
};

/* ---- creation ---- */

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

cria_status cria_scheduler_create(const cria_engine_config *config, int ways, cria_scheduler **out, cria_error *err) {
    *out = NULL;
    cria_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the scheduler");
    scheduler->config = *config;
    scheduler->ways = ways;
    /* With no more running sequences than tokens and rows of a step, every decode has its place in every step and at
     * least one token and row are left for whoever prefills: nobody starves. */
    const cria_batch_limits *limits = &config->limits;
    scheduler->most_running = min64(limits->sequences, min64(limits->tokens, limits->rows));
    scheduler->work = calloc((size_t)scheduler->most_running, sizeof *scheduler->work);
    cria_status status = CRIA_OK;
    if (!scheduler->work) status = cria_fail(err, CRIA_ERR_MEMORY, "no memory for the scheduler");
    if (status == CRIA_OK && config->prefix_cache) {
        status = cria_prefix_create(config->blocks, config->block_tokens, &scheduler->prefix, err);
    }
    if (status == CRIA_OK) {
        status = cria_blocks_create(config->blocks, scheduler->prefix, &scheduler->blocks, err);
    }
    if (status != CRIA_OK) {
        cria_scheduler_destroy(scheduler);
        return status;
    }
    *out = scheduler;
    return CRIA_OK;
}

void cria_scheduler_destroy(cria_scheduler *scheduler) {
    if (!scheduler) return;
    assert(!scheduler->running.count && !scheduler->waiting.count);
    cria_blocks_destroy(scheduler->blocks);
    cria_prefix_destroy(scheduler->prefix);
    free(scheduler->work);
    free(scheduler);
}

int64_t cria_scheduler_most_running(const cria_scheduler *scheduler) {
    return scheduler->most_running;
}

/* ---- lists and blocks ---- */

void cria_scheduler_add(cria_scheduler *scheduler, cria_sequence *sequence) {
    sequence->arrival = ++scheduler->arrivals;
    sequence->queued = true;
    cria_sequence_list_insert(&scheduler->waiting, sequence);
}

static void release_blocks(cria_scheduler *scheduler, cria_sequence *sequence) {
    while (sequence->block_count > 0) {
        cria_blocks_release(scheduler->blocks, sequence->blocks[--sequence->block_count]);
    }
    sequence->computed = 0;
    sequence->chained = 0;
    sequence->chain = 0;
}

/* Takes a running sequence off the list, with all that it holds. */
static void stop_running(cria_scheduler *scheduler, cria_sequence *sequence) {
    cria_sequence_list_remove(&scheduler->running, sequence);
    sequence->running = false;
    scheduler->history -= sequence->history_most;
    scheduler->biases -= sequence->biases_most;
    scheduler->allowed -= (int64_t)sequence->request->allowed_count;
    release_blocks(scheduler, sequence);
}

void cria_scheduler_remove(cria_scheduler *scheduler, cria_sequence *sequence) {
    if (sequence->running) stop_running(scheduler, sequence);
    if (sequence->queued) cria_sequence_list_remove(&scheduler->waiting, sequence);
    sequence->queued = false;
}

cria_sequence *cria_scheduler_any(const cria_scheduler *scheduler) {
    return scheduler->running.first ? scheduler->running.first : scheduler->waiting.first;
}

static void preempt(cria_scheduler *scheduler, cria_sequence *sequence) {
    stop_running(scheduler, sequence);
    sequence->queued = true;
    cria_sequence_list_insert(&scheduler->waiting, sequence);
    scheduler->stats.preemptions++;
}

static cria_sequence *newest_paused(const cria_scheduler *scheduler) {
    cria_sequence *sequence = scheduler->running.last;
    while (sequence && !sequence->paused) sequence = sequence->previous;
    return sequence;
}

/* Appends `count` new blocks; all or none. */
static bool extend(cria_scheduler *scheduler, cria_sequence *sequence, int64_t count) {
    if (cria_blocks_free(scheduler->blocks) < count) return false;
    for (int64_t i = 0; i < count; i++) {
        sequence->blocks[sequence->block_count++] = cria_blocks_take(scheduler->blocks);
    }
    return true;
}

/* ---- running sequences ---- */

static bool decodes(const cria_sequence *sequence) {
    return cria_sequence_wanted(sequence) - sequence->computed == 1 && !cria_sequence_wants_prompt_rows(sequence);
}

/* How many rows the next `count` tokens need; fills the work's row fields. */
static int32_t find_rows(cria_work *work, int32_t count) {
    const cria_sequence *sequence = work->sequence;
    work->count = count;
    work->prompt_first = work->prompt_rows = 0;
    if (cria_sequence_wants_prompt_rows(sequence)) {
        int32_t first = work->begin > sequence->rows_done ? work->begin : sequence->rows_done;
        int32_t end = work->begin + count;
        if (end > sequence->prompt_count - 1) end = sequence->prompt_count - 1;
        if (end > first) {
            work->prompt_first = first;
            work->prompt_rows = end - first;
        }
    }
    work->samples = sequence->max_count > sequence->prompt_count && work->begin + count == sequence->count;
    return work->prompt_rows + work->samples;
}

/* Puts the sequence's next chunk into the step, as large as tokens and rows allow. */
static void schedule_chunk(cria_scheduler *scheduler, cria_sequence *sequence) {
    cria_work *work = &scheduler->work[scheduler->work_count];
    work->sequence = sequence;
    work->begin = sequence->computed;
    int32_t count = (int32_t)min64(cria_sequence_wanted(sequence) - sequence->computed, scheduler->tokens_left);
    int32_t rows = 0;
    /* A token has at most one row, so that dropping as many tokens as there are rows too many never drops too much. */
    while (count > 0 && (rows = find_rows(work, count)) > scheduler->rows_left) {
        count -= rows - (int32_t)scheduler->rows_left;
    }
    if (count <= 0) return;
    scheduler->work_count++;
    scheduler->tokens_left -= count;
    scheduler->rows_left -= rows;
}

/* Makes room for the decode's one token, at the cost of paused sequences and of the newest ones; false if the sequence
 * itself had to go. Whoever is after it in the order is not in this step yet, and paused ones never are. */
static bool make_room(cria_scheduler *scheduler, cria_sequence *sequence) {
    if ((int64_t)sequence->block_count * scheduler->config.block_tokens > sequence->computed) return true;
    while (!extend(scheduler, sequence, 1)) {
        cria_sequence *victim = newest_paused(scheduler);
        if (!victim) victim = scheduler->running.last;
        preempt(scheduler, victim);
        if (victim == sequence) return false;
    }
    return true;
}

static void schedule_decodes(cria_scheduler *scheduler) {
    for (cria_sequence *s = scheduler->running.first, *next; s && scheduler->decodes_left > 0; s = next) {
        if (!s->paused && decodes(s) && make_room(scheduler, s)) {
            schedule_chunk(scheduler, s);
            scheduler->decodes_left--;
        }
        next = s->running ? s->next : NULL; /* preempted itself: it was the last */
    }
}

static void schedule_prefills(cria_scheduler *scheduler) {
    for (cria_sequence *s = scheduler->running.first; s && scheduler->tokens_left > 0; s = s->next) {
        if (!s->paused && !decodes(s)) schedule_chunk(scheduler, s);
    }
}

/* ---- admission ---- */

/* How many tokens of the sequence may come from the prefix cache: at least one must be computed, and so must every
 * prompt position whose log-probability row is still wanted. */
static int32_t cacheable(const cria_scheduler *scheduler, const cria_sequence *sequence) {
    if (!scheduler->prefix) return 0;
    int32_t most = cria_sequence_wanted(sequence) - 1;
    if (cria_sequence_wants_prompt_rows(sequence) && sequence->rows_done < most) most = sequence->rows_done;
    return most;
}

/* Walks along the cached prefix; with `take` the blocks become the sequence's. Gives its length in tokens. */
static int32_t walk_cache(cria_scheduler *scheduler, cria_sequence *sequence, bool take) {
    int32_t block_tokens = (int32_t)scheduler->config.block_tokens, most = cacheable(scheduler, sequence), length = 0;
    uint64_t parent = 0;
    while (length + block_tokens <= most) {
        int32_t block;
        uint64_t serial = cria_prefix_find(scheduler->prefix, sequence->request->cache_salt, parent,
                                           cria_sequence_tokens(sequence) + length, &block);
        if (!serial) break;
        parent = serial;
        length += block_tokens;
        if (!take) continue;
        cria_blocks_share(scheduler->blocks, block);
        sequence->blocks[sequence->block_count++] = block;
        sequence->chained++;
        sequence->chain = serial;
    }
    if (take) sequence->computed = length;
    return length;
}

static int32_t common_prefix(const cria_sequence *a, const cria_sequence *b) {
    const int32_t *x = cria_sequence_tokens(a), *y = cria_sequence_tokens(b);
    int32_t least = a->count < b->count ? a->count : b->count, n = 0;
    while (n < least && x[n] == y[n]) n++;
    return n;
}

/* True if a running sequence is just computing at least half of what this one would have to compute: waiting for it
 * costs nothing and saves that work (the n choices of one request). */
static bool better_held_back(cria_scheduler *scheduler, cria_sequence *sequence) {
    int32_t block_tokens = (int32_t)scheduler->config.block_tokens, most = cacheable(scheduler, sequence);
    int32_t known = -1;
    for (cria_sequence *s = scheduler->running.first; s; s = s->next) {
        if (s->paused || decodes(s) || s->request->cache_salt != sequence->request->cache_salt) continue;
        int32_t common = common_prefix(s, sequence);
        if (common > most) common = most;
        common -= common % block_tokens;
        if (common <= s->computed) continue;
        if (known < 0) known = walk_cache(scheduler, sequence, false);
        if (common - known > 0 && (common - known) * 2 >= cria_sequence_wanted(sequence) - known) return true;
    }
    return false;
}

static bool side_arrays_fit(const cria_scheduler *scheduler, const cria_sequence *sequence) {
    const cria_batch_limits *limits = &scheduler->config.limits;
    return scheduler->history + sequence->history_most <= limits->history &&
           scheduler->biases + sequence->biases_most <= limits->biases &&
           scheduler->allowed + (int64_t)sequence->request->allowed_count <= limits->allowed;
}

/* Gets blocks for all known tokens, cached ones first. Beside others a few blocks are left for them to grow into, or
 * the newcomer would be preempted at once. */
static bool take_blocks(cria_scheduler *scheduler, cria_sequence *sequence) {
    int64_t block_tokens = scheduler->config.block_tokens;
    int64_t needed = (cria_sequence_wanted(sequence) + block_tokens - 1) / block_tokens;
    int64_t spare = scheduler->running.count ? 1 + scheduler->config.blocks / 128 : 0;
    walk_cache(scheduler, sequence, true);
    needed -= sequence->block_count;
    if (cria_blocks_free(scheduler->blocks) >= needed + spare && extend(scheduler, sequence, needed)) return true;
    release_blocks(scheduler, sequence);
    return false;
}

/* Sequences whose clients are slow must not keep others out. */
static bool admit(cria_scheduler *scheduler, cria_sequence *sequence) {
    for (;;) {
        if (scheduler->running.count < scheduler->most_running && side_arrays_fit(scheduler, sequence) &&
            take_blocks(scheduler, sequence)) {
            break;
        }
        cria_sequence *paused = newest_paused(scheduler);
        if (!paused) return false;
        preempt(scheduler, paused);
    }
    cria_sequence_list_remove(&scheduler->waiting, sequence);
    cria_sequence_list_insert(&scheduler->running, sequence);
    sequence->queued = false;
    sequence->running = true;
    scheduler->history += sequence->history_most;
    scheduler->biases += sequence->biases_most;
    scheduler->allowed += (int64_t)sequence->request->allowed_count;
    return true;
}

static void count_first_admission(cria_scheduler *scheduler, cria_sequence *sequence, uint64_t now_ns) {
    if (sequence->admitted_once) return;
    sequence->admitted_once = true;
    sequence->start_ns = now_ns;
    sequence->cached_tokens = sequence->computed;
    if (!scheduler->prefix || cria_sequence_wants_prompt_rows(sequence)) return;
    scheduler->stats.prefix_queries += (uint64_t)sequence->prompt_count;
    scheduler->stats.prefix_hits += (uint64_t)sequence->cached_tokens;
}

/* Admits waiting sequences while the step has room; gives one for which memory is out, or NULL. */
static cria_sequence *schedule_waiting(cria_scheduler *scheduler, uint64_t now_ns) {
    int held = 0;
    for (cria_sequence *s = scheduler->waiting.first, *next; s; s = next) {
        next = s->next;
        if (scheduler->tokens_left <= 0 || scheduler->rows_left <= 0 || held >= MOST_HELD_BACK) break;
        if (s->paused) continue;
        if (s->under_way) break; /* preempted just now: its last step may still give it a token */
        if (scheduler->prefix && better_held_back(scheduler, s)) {
            held++;
            continue;
        }
        if (!s->blocks && !cria_sequence_prepare(s, scheduler->config.block_tokens)) return s;
        if (!admit(scheduler, s)) break;
        count_first_admission(scheduler, s, now_ns);
        schedule_chunk(scheduler, s);
    }
    return NULL;
}

/* ---- a step ---- */

static int64_t shared(int64_t amount, int64_t ways) {
    return (amount + ways - 1) / ways;
}

/* Where several steps may be under way, each gets an equal share of all decodes, and of all tokens that are known to be
 * wanted: one step with everything would leave all stages but one without work. */
static void size_step(cria_scheduler *scheduler, int64_t under_way) {
    const cria_batch_limits *limits = &scheduler->config.limits;
    scheduler->tokens_left = limits->tokens;
    scheduler->rows_left = limits->rows;
    scheduler->decodes_left = scheduler->most_running;
    if (scheduler->ways == 1) return;
    int64_t tokens = under_way + scheduler->waiting.prompt_tokens, decoding = 0;
    for (const cria_sequence *s = scheduler->running.first; s; s = s->next) {
        int64_t left = cria_sequence_wanted(s) - s->computed;
        if (s->paused) continue;
        tokens += left;
        decoding += left == 0 || decodes(s); /* 0: its next token is under way */
    }
    int64_t share = shared(tokens, scheduler->ways);
    if (share < FEWEST_TOKENS) share = FEWEST_TOKENS;
    scheduler->tokens_left = min64(share, limits->tokens);
    scheduler->decodes_left = shared(decoding, scheduler->ways);
}

int32_t cria_scheduler_next(cria_scheduler *scheduler, uint64_t now_ns, int64_t under_way, cria_work **out,
                            cria_sequence **broken) {
    *broken = NULL;
    *out = scheduler->work;
    scheduler->work_count = 0;
    size_step(scheduler, under_way);
    schedule_decodes(scheduler);
    schedule_prefills(scheduler);
    /* Whoever was just preempted does not come back here: of what it gave up, at least one block is taken. */
    *broken = schedule_waiting(scheduler, now_ns);
    return *broken ? 0 : scheduler->work_count;
}

void cria_scheduler_given(cria_scheduler *scheduler, const cria_work *work) {
    cria_sequence *sequence = work->sequence;
    int64_t block_tokens = scheduler->config.block_tokens;
    sequence->under_way++;
    sequence->computed += work->count;
    if (work->prompt_rows) sequence->rows_done = work->prompt_first + work->prompt_rows;
    if (!scheduler->prefix) return;
    while ((sequence->chained + 1) * block_tokens <= sequence->computed) {
        const int32_t *ids = cria_sequence_tokens(sequence) + sequence->chained * block_tokens;
        sequence->chain = cria_prefix_insert(scheduler->prefix, sequence->request->cache_salt, sequence->chain, ids,
                                             sequence->blocks[sequence->chained]);
        sequence->chained++;
    }
}

void cria_scheduler_stats_add(const cria_scheduler *scheduler, cria_scheduler_stats *sum) {
    sum->running += scheduler->running.count;
    sum->waiting += scheduler->waiting.count;
    sum->waiting_prompt_tokens += scheduler->waiting.prompt_tokens;
    sum->blocks_free += cria_blocks_free(scheduler->blocks);
    sum->preemptions += scheduler->stats.preemptions;
    sum->prefix_queries += scheduler->stats.prefix_queries;
    sum->prefix_hits += scheduler->stats.prefix_hits;
}
