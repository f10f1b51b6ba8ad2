/* The engine's thread: takes what came in, plans a step, runs it, tells what it gave. */
#include "server/engine/engine.h"

#include "base/clock.h"
#include "server/engine/compose.h"
#include "server/engine/events.h"
#include "server/engine/inbox.h"
#include "server/engine/scheduler.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct cria_engine {
    cria_engine_config config;
    cria_runner runner;
    cria_deliver *deliver;
    void *deliver_context;
    cria_log *log;
    cria_inbox *inbox;
    cria_scheduler *scheduler;
    cria_batch *batch;
    cria_batch_result *result;
    pthread_t thread;
    cria_engine_stats stats; /* engine thread only; what others see is published */
};

/* ---- creation ---- */

static cria_status check_config(const cria_engine_config *config, cria_error *err) {
    const struct {
        const char *name;
        int64_t value, most;
    } checks[] = {
        {"max_model_len", config->max_model_len, INT32_MAX / 2},
        {"block_tokens", config->block_tokens, 1 << 20},
        {"blocks", config->blocks, INT32_MAX - 1},
        {"vocab", config->vocab, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        if (checks[i].value >= 1 && checks[i].value <= checks[i].most) continue;
        return cria_fail(err, CRIA_ERR_ARGUMENT, "engine: %s is %" PRId64 ", must be 1 .. %" PRId64, checks[i].name,
                         checks[i].value, checks[i].most);
    }
    if (config->blocks > INT32_MAX / config->block_tokens) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "engine: %" PRId64 " blocks of %" PRId64 " tokens are too many slots",
                         config->blocks, config->block_tokens);
    }
    if (config->eos_count < 0 || (size_t)config->eos_count > sizeof config->eos / sizeof *config->eos) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "engine: %d EOS ids", config->eos_count);
    }
    return CRIA_OK;
}

static void free_engine(cria_engine *engine) {
    cria_scheduler_destroy(engine->scheduler);
    cria_inbox_destroy(engine->inbox);
    cria_batch_destroy(engine->batch);
    cria_batch_result_destroy(engine->result);
    free(engine);
}

static void *engine_main(void *argument);

/* Signals are the main thread's: none may interrupt a step. */
static bool start_thread(cria_engine *engine) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&engine->thread, NULL, engine_main, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

static cria_status start(cria_engine *engine, cria_error *err) {
    CRIA_TRY(cria_batch_create(&engine->config.limits, &engine->batch, err));
    CRIA_TRY(cria_batch_result_create(&engine->config.limits, &engine->result, err));
    CRIA_TRY(cria_scheduler_create(&engine->config, &engine->scheduler, err));
    CRIA_TRY(cria_inbox_create(&engine->config, &engine->inbox, err));
    if (!start_thread(engine)) return cria_fail(err, CRIA_ERR_MEMORY, "cannot start the engine's thread");
    return CRIA_OK;
}

cria_status cria_engine_create(const cria_engine_config *config, cria_runner runner, cria_deliver *deliver,
                               void *deliver_context, cria_log *log, cria_engine **out, cria_error *err) {
    *out = NULL;
    CRIA_TRY(check_config(config, err));
    cria_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the engine");
    engine->config = *config;
    engine->runner = runner;
    engine->deliver = deliver;
    engine->deliver_context = deliver_context;
    engine->log = log;
    cria_status status = start(engine, err);
    if (status != CRIA_OK) {
        free_engine(engine);
        return status;
    }
    *out = engine;
    return CRIA_OK;
}

void cria_engine_destroy(cria_engine *engine) {
    if (!engine) return;
    cria_inbox_close(engine->inbox);
    pthread_join(engine->thread, NULL);
    free_engine(engine);
}

/* ---- any thread ---- */

cria_status cria_engine_submit(cria_engine *engine, cria_request *request, uint64_t *id, cria_error *err) {
    cria_sequence *sequence;
    CRIA_TRY(cria_sequence_create(&engine->config, request, &sequence, err));
    cria_status status = cria_inbox_submit(engine->inbox, sequence, id, err);
    if (status != CRIA_OK) {
        sequence->request = NULL; /* it stays the caller's */
        cria_sequence_destroy(sequence);
    }
    return status;
}

cria_status cria_engine_has_room(cria_engine *engine, int64_t ahead, int64_t ahead_tokens, int64_t prompt_tokens,
                                 cria_error *err) {
    return cria_inbox_has_room(engine->inbox, ahead, ahead_tokens, prompt_tokens, err);
}

void cria_engine_cancel(cria_engine *engine, uint64_t id) {
    cria_inbox_cancel(engine->inbox, id);
}

void cria_engine_pause(cria_engine *engine, uint64_t id, bool paused) {
    cria_inbox_pause(engine->inbox, id, paused);
}

void cria_engine_drain(cria_engine *engine) {
    cria_inbox_drain(engine->inbox);
}

void cria_engine_fail(cria_engine *engine, const char *why) {
    cria_inbox_fail(engine->inbox, why);
}

void cria_engine_stats_get(cria_engine *engine, cria_engine_stats *out) {
    cria_inbox_stats(engine->inbox, out);
}

/* ---- engine thread ---- */

static void publish(cria_engine *engine, bool stepped) {
    cria_scheduler_stats scheduler;
    cria_scheduler_stats_get(engine->scheduler, &scheduler);
    cria_engine_stats *stats = &engine->stats;
    stats->running = scheduler.running;
    stats->waiting = scheduler.waiting;
    stats->waiting_prompt_tokens = scheduler.waiting_prompt_tokens;
    stats->blocks_total = engine->config.blocks;
    stats->blocks_free = scheduler.blocks_free;
    stats->preemptions = scheduler.preemptions;
    stats->prefix_queries = scheduler.prefix_queries;
    stats->prefix_hits = scheduler.prefix_hits;
    cria_inbox_publish(engine->inbox, stats, stepped);
}

static void deliver(cria_engine *engine, cria_event *event) {
    engine->deliver(engine->deliver_context, event);
}

/* The one way out for every sequence. The figures are published first: whoever hears of the end sees its blocks
 * free. */
static void finish(cria_engine *engine, cria_sequence *sequence, cria_finish how, int32_t token, const char *error) {
    cria_event *event = cria_event_finish(sequence, how, token, error, cria_clock_ns());
    cria_inbox_forget(engine->inbox, sequence);
    cria_scheduler_remove(engine->scheduler, sequence);
    cria_sequence_destroy(sequence);
    engine->stats.finished[how]++;
    publish(engine, false);
    deliver(engine, event);
}

static void finish_all(cria_engine *engine, cria_finish how, const char *error) {
    cria_sequence *sequence;
    while ((sequence = cria_scheduler_any(engine->scheduler)) != NULL) finish(engine, sequence, how, -1, error);
}

static void count_prompt(cria_engine *engine, cria_sequence *sequence) {
    if (sequence->prompt_counted) return;
    sequence->prompt_counted = true;
    engine->stats.prompt_tokens += (uint64_t)sequence->prompt_count;
}

/* Nothing to generate and no prompt rows to tell. */
static bool is_empty(const cria_sequence *sequence) {
    return sequence->max_count == sequence->prompt_count && !cria_sequence_wants_prompt_rows(sequence);
}

static bool take_inbox(cria_engine *engine, bool wait) {
    cria_sequence *submitted, *cancelled, *next;
    bool open = cria_inbox_take(engine->inbox, wait, &submitted, &cancelled);
    for (; submitted; submitted = next) {
        next = submitted->inbox_next;
        cria_scheduler_add(engine->scheduler, submitted);
        if (is_empty(submitted) && !submitted->cancelled) {
            count_prompt(engine, submitted);
            finish(engine, submitted, CRIA_FINISH_LENGTH, -1, NULL);
        }
    }
    for (; cancelled; cancelled = next) {
        next = cancelled->cancelled_next;
        finish(engine, cancelled, CRIA_FINISH_ABORT, -1, NULL);
    }
    return open;
}

static bool is_end(const cria_engine *engine, const cria_sequence *sequence, int32_t token) {
    const cria_request *request = sequence->request;
    for (int i = 0; i < engine->config.eos_count && !request->sampling.ignore_eos; i++) {
        if (engine->config.eos[i] == token) return true;
    }
    for (size_t i = 0; i < request->stop_count; i++) {
        if (request->stop_ids[i] == token) return true;
    }
    return false;
}

static const char *const no_memory = "out of memory";

/* Tells the chosen token and ends the sequence where it is to end. */
static void absorb_token(cria_engine *engine, const cria_work *work, uint64_t now_ns) {
    cria_sequence *sequence = work->sequence;
    int32_t token = engine->result->result[work->first_row + work->prompt_rows].token;
    cria_event *event = cria_event_token(work, engine->result, engine->config.limits.top_logprobs, now_ns);
    if (!event) {
        finish(engine, sequence, CRIA_FINISH_ERROR, -1, no_memory);
        return;
    }
    count_prompt(engine, sequence);
    engine->stats.generation_tokens++;
    if (!sequence->first_token_ns) sequence->first_token_ns = now_ns;
    cria_sequence_append(sequence, token);
    deliver(engine, event);
    if (is_end(engine, sequence, token)) {
        finish(engine, sequence, CRIA_FINISH_STOP, token, NULL);
    } else if (sequence->count == sequence->max_count) {
        finish(engine, sequence, CRIA_FINISH_LENGTH, -1, NULL);
    }
}

static void absorb(cria_engine *engine, const cria_work *work, uint64_t now_ns) {
    cria_sequence *sequence = work->sequence;
    cria_scheduler_done(engine->scheduler, work);
    if (work->prompt_rows) {
        cria_event *event = cria_event_prompt(work, engine->result, engine->config.limits.top_logprobs, now_ns);
        if (!event) {
            finish(engine, sequence, CRIA_FINISH_ERROR, -1, no_memory);
            return;
        }
        deliver(engine, event);
    }
    if (work->samples) {
        absorb_token(engine, work, now_ns);
    } else if (is_empty(sequence)) {
        count_prompt(engine, sequence);
        finish(engine, sequence, CRIA_FINISH_LENGTH, -1, NULL);
    }
}

static void count_step(cria_engine *engine) {
    int bucket = 0;
    while (bucket < 15 && engine->batch->tokens > 1 << bucket) bucket++;
    engine->stats.steps++;
    engine->stats.step_tokens_histogram[bucket]++;
    engine->stats.step_tokens_sum += (uint64_t)engine->batch->tokens;
}

/* A chosen token outside the vocabulary would be an index out of range in the next step. */
static cria_status check_result(const cria_engine *engine, const cria_work *work, int32_t count, cria_error *err) {
    for (int32_t i = 0; i < count; i++) {
        if (!work[i].samples) continue;
        int32_t token = engine->result->result[work[i].first_row + work[i].prompt_rows].token;
        if (token >= 0 && token < engine->config.vocab) continue;
        return cria_fail(err, CRIA_ERR_INTERNAL, "the model chose token %d of %" PRId64, token, engine->config.vocab);
    }
    return CRIA_OK;
}

static cria_status run_step(cria_engine *engine, cria_work *work, int32_t count, cria_error *err) {
    cria_batch_clear(engine->batch);
    cria_compose(&engine->config, work, count, engine->batch);
    publish(engine, false); /* what has been admitted no longer waits */
    CRIA_TRY(engine->runner.step(engine->runner.self, engine->batch, engine->result, err));
    CRIA_TRY(check_result(engine, work, count, err));
    count_step(engine);
    uint64_t now = cria_clock_ns();
    for (int32_t i = 0; i < count; i++) absorb(engine, &work[i], now);
    publish(engine, true);
    return CRIA_OK;
}

/* Plans and runs one step. *idle: there is nothing to do until something comes in. */
static cria_status step(cria_engine *engine, bool *idle, cria_error *err) {
    cria_work *work;
    cria_sequence *broken;
    int32_t count;
    while ((count = cria_scheduler_next(engine->scheduler, cria_clock_ns(), &work, &broken)) == 0 && broken) {
        finish(engine, broken, CRIA_FINISH_ERROR, -1, no_memory);
    }
    *idle = count == 0;
    if (count) return run_step(engine, work, count, err);
    publish(engine, false);
    return CRIA_OK;
}

static void fail(cria_engine *engine, const cria_error *err) {
    cria_log_write(engine->log, CRIA_LOG_ERROR, "engine: a step failed, no more requests are taken: %s", err->message);
    cria_inbox_fail(engine->inbox, err->message);
}

static void *engine_main(void *argument) {
    cria_engine *engine = argument;
    cria_error err = {0};
    bool idle = true, failed = false;
    while (take_inbox(engine, idle)) {
        if (!failed) failed = cria_inbox_check(engine->inbox, &err) != CRIA_OK;
        if (failed) {
            finish_all(engine, CRIA_FINISH_ERROR, err.message);
            idle = true;
        } else if (step(engine, &idle, &err) != CRIA_OK) {
            fail(engine, &err);
            failed = true;
            idle = false; /* what came meanwhile is to be told too */
        }
    }
    finish_all(engine, failed ? CRIA_FINISH_ERROR : CRIA_FINISH_ABORT, failed ? err.message : NULL);
    return NULL;
}
