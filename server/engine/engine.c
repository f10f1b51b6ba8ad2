/* The engine's thread: takes what came in, starts steps, tells what they gave. */
#include "server/engine/engine.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "server/engine/events.h"
#include "server/engine/inbox.h"
#include "server/engine/lane.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct cria_engine {
    cria_engine_config config;
    cria_deliver *deliver;
    void *deliver_context;
    cria_log *log;
    cria_inbox *inbox;
    cria_lane **lanes; /* [lane_count], one for each replica of the model */
    int lane_count;
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
    for (int i = 0; i < engine->lane_count; i++) cria_lane_destroy(engine->lanes[i]);
    free(engine->lanes);
    cria_inbox_destroy(engine->inbox);
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

static cria_status start(cria_engine *engine, const cria_runner *runners, int count, cria_error *err) {
    engine->lanes = calloc((size_t)count, sizeof(cria_lane *));
    if (!engine->lanes) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d replicas", count);
    for (; engine->lane_count < count; engine->lane_count++)
        CRIA_TRY(
            cria_lane_create(&engine->config, runners[engine->lane_count], &engine->lanes[engine->lane_count], err));
    CRIA_TRY(cria_inbox_create(&engine->config, &engine->inbox, err));
    if (!start_thread(engine)) return cria_fail(err, CRIA_ERR_MEMORY, "cannot start the engine's thread");
    return CRIA_OK;
}

cria_status cria_engine_create_replicas(const cria_engine_config *config, const cria_runner *runners, int count,
                                        cria_deliver *deliver, void *deliver_context, cria_log *log, cria_engine **out,
                                        cria_error *err) {
    *out = NULL;
    CRIA_TRY(check_config(config, err));
    cria_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the engine");
    engine->config = *config;
    engine->deliver = deliver;
    engine->deliver_context = deliver_context;
    engine->log = log;
    cria_status status = start(engine, runners, count, err);
    if (status != CRIA_OK) {
        free_engine(engine);
        return status;
    }
    *out = engine;
    return CRIA_OK;
}

cria_status cria_engine_create(const cria_engine_config *config, cria_runner runner, cria_deliver *deliver,
                               void *deliver_context, cria_log *log, cria_engine **out, cria_error *err) {
    return cria_engine_create_replicas(config, &runner, 1, deliver, deliver_context, log, out, err);
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

int cria_engine_stages(cria_engine *engine, cria_stage_figures *out, int most) {
    int count = 0;
    memset(out, 0, (size_t)most * sizeof *out);
    for (int i = 0; i < engine->lane_count; i++) count = cria_lane_stages(engine->lanes[i], out, most);
    return count;
}

/* ---- engine thread ---- */

static void publish(cria_engine *engine, bool stepped) {
    cria_engine_stats *stats = &engine->stats;
    cria_scheduler_stats sum = {0};
    for (int i = 0; i < engine->lane_count; i++) cria_scheduler_stats_add(cria_lane_scheduler(engine->lanes[i]), &sum);
    stats->running = sum.running;
    stats->waiting = sum.waiting;
    stats->waiting_prompt_tokens = sum.waiting_prompt_tokens;
    stats->blocks_total = engine->config.blocks * engine->lane_count;
    stats->blocks_free = sum.blocks_free;
    stats->preemptions = sum.preemptions;
    stats->prefix_queries = sum.prefix_queries;
    stats->prefix_hits = sum.prefix_hits;
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
    cria_lane_forget(engine->lanes[sequence->lane], sequence);
    cria_scheduler_remove(cria_lane_scheduler(engine->lanes[sequence->lane]), sequence);
    cria_sequence_destroy(sequence);
    engine->stats.finished[how]++;
    publish(engine, false);
    deliver(engine, event);
}

static void finish_all(cria_engine *engine, cria_finish how, const char *error) {
    cria_sequence *sequence;
    for (int i = 0; i < engine->lane_count; i++)
        while ((sequence = cria_scheduler_any(cria_lane_scheduler(engine->lanes[i]))) != NULL)
            finish(engine, sequence, how, -1, error);
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

/* The replica that has least to do: fewest sequences, then fewest blocks in use. */
static int least_loaded(const cria_engine *engine) {
    int best = 0;
    cria_scheduler_stats least = {0};
    for (int i = 0; i < engine->lane_count && engine->lane_count > 1; i++) {
        cria_scheduler_stats s = {0};
        cria_scheduler_stats_add(cria_lane_scheduler(engine->lanes[i]), &s);
        int64_t more = s.running + s.waiting - (least.running + least.waiting);
        if (i > 0 && (more > 0 || (more == 0 && s.blocks_free <= least.blocks_free))) continue;
        best = i;
        least = s;
    }
    return best;
}

static bool take_inbox(cria_engine *engine, bool wait) {
    cria_sequence *submitted, *cancelled, *next;
    bool open = cria_inbox_take(engine->inbox, wait, &submitted, &cancelled);
    for (; submitted; submitted = next) {
        next = submitted->inbox_next;
        submitted->lane = least_loaded(engine);
        cria_scheduler_add(cria_lane_scheduler(engine->lanes[submitted->lane]), submitted);
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
static void absorb_token(cria_engine *engine, const cria_work *work, const cria_batch_result *result, uint64_t now_ns) {
    cria_sequence *sequence = work->sequence;
    int32_t token = result->result[work->first_row + work->prompt_rows].token;
    cria_event *event = cria_event_token(work, result, engine->config.limits.top_logprobs, now_ns);
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

static void absorb(cria_engine *engine, const cria_work *work, const cria_batch_result *result, uint64_t now_ns) {
    cria_sequence *sequence = work->sequence;
    if (!sequence) return; /* it has ended while the step was under way */
    if (work->prompt_rows) {
        cria_event *event = cria_event_prompt(work, result, engine->config.limits.top_logprobs, now_ns);
        if (!event) {
            finish(engine, sequence, CRIA_FINISH_ERROR, -1, no_memory);
            return;
        }
        deliver(engine, event);
    }
    if (work->samples) {
        absorb_token(engine, work, result, now_ns);
    } else if (is_empty(sequence) && !sequence->under_way) {
        count_prompt(engine, sequence);
        finish(engine, sequence, CRIA_FINISH_LENGTH, -1, NULL);
    }
}

static void count_step(cria_engine *engine, int32_t tokens) {
    int bucket = 0;
    while (bucket < 15 && tokens > 1 << bucket) bucket++;
    engine->stats.steps++;
    engine->stats.step_tokens_histogram[bucket]++;
    engine->stats.step_tokens_sum += (uint64_t)tokens;
}

/* A chosen token outside the vocabulary would be an index out of range in the next step. */
static cria_status check_result(const cria_engine *engine, const cria_step_done *done, cria_error *err) {
    for (int32_t i = 0; i < done->count; i++) {
        const cria_work *work = &done->work[i];
        if (!work->samples) continue;
        int32_t token = done->result->result[work->first_row + work->prompt_rows].token;
        if (token >= 0 && token < engine->config.vocab) continue;
        return cria_fail(err, CRIA_ERR_INTERNAL, "the model chose token %d of %" PRId64, token, engine->config.vocab);
    }
    return CRIA_OK;
}

static cria_status finish_step(cria_engine *engine, cria_lane *lane, cria_error *err) {
    cria_step_done done;
    CRIA_TRY(cria_lane_finish(lane, &done, err));
    CRIA_TRY(check_result(engine, &done, err));
    count_step(engine, done.tokens);
    uint64_t now = cria_clock_ns();
    for (int32_t i = 0; i < done.count; i++) absorb(engine, &done.work[i], done.result, now);
    publish(engine, true);
    return CRIA_OK;
}

static cria_status start_step(cria_engine *engine, cria_lane *lane, bool *started, cria_error *err) {
    cria_sequence *broken;
    for (;;) {
        CRIA_TRY(cria_lane_start(lane, cria_clock_ns(), started, &broken, err));
        if (!broken) return CRIA_OK;
        finish(engine, broken, CRIA_FINISH_ERROR, -1, no_memory);
    }
}

/* Until a step's results are there or something comes in. */
static void wait_for_steps(cria_engine *engine) {
    cria_backoff backoff = {0};
    while (!cria_inbox_has_news(engine->inbox)) {
        for (int i = 0; i < engine->lane_count; i++)
            if (cria_lane_ready(engine->lanes[i])) return;
        cria_backoff_wait(&backoff);
    }
}

/* Starts at most one step a replica and looks at the results of at most one, so that what comes in meanwhile is soon
 * heard of. *idle: there is nothing to do until something comes in. */
static cria_status turn(cria_engine *engine, bool *idle, cria_error *err) {
    bool busy = false, under_way = false;
    for (int i = 0; i < engine->lane_count; i++) {
        bool started;
        CRIA_TRY(start_step(engine, engine->lanes[i], &started, err));
        busy = busy || started;
    }
    if (busy) publish(engine, false); /* what has been admitted no longer waits */
    for (int i = 0; i < engine->lane_count; i++) {
        if (cria_lane_ready(engine->lanes[i])) {
            CRIA_TRY(finish_step(engine, engine->lanes[i], err));
            busy = true;
        }
        under_way = under_way || cria_lane_under_way(engine->lanes[i]) > 0;
    }
    *idle = !busy && !under_way;
    if (*idle) publish(engine, false);
    if (!busy && under_way) wait_for_steps(engine);
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
        } else if (turn(engine, &idle, &err) != CRIA_OK) {
            fail(engine, &err);
            failed = true;
            idle = false; /* what came meanwhile is to be told too */
        }
    }
    for (int i = 0; i < engine->lane_count; i++) cria_lane_drain(engine->lanes[i]);
    finish_all(engine, failed ? CRIA_FINISH_ERROR : CRIA_FINISH_ABORT, failed ? err.message : NULL);
    return NULL;
}
