/* Engine: turns requests into steps. Continuous batching, chunked prefill, paged KV blocks, preemption, prefix cache.
 *
 * One thread of its own owns scheduler, sequences and blocks. Others only use the functions below, each safe from any
 * thread: a bounded inbox on one side, events through `deliver` on the other. */
#ifndef CRIA_SERVER_ENGINE_ENGINE_H
#define CRIA_SERVER_ENGINE_ENGINE_H

#include "base/error.h"
#include "base/log.h"
#include "parallel/execute/batch.h"
#include "server/engine/request.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t max_model_len, block_tokens, blocks; /* KV blocks in the pool */
    int64_t vocab;
    int32_t eos[8];
    int eos_count;
    bool prefix_cache;
    int64_t max_waiting;               /* requests that may wait; more is CRIA_ERR_FULL */
    int64_t max_waiting_prompt_tokens; /* and their prompt tokens together */
    cria_batch_limits limits; /* of a step; no more sequences run together than limits.tokens and limits.rows allow */
} cria_engine_config;

/* Called on the engine thread for every event. Ownership of the event moves. It may hold the engine back while whoever
 * receives is behind, but must not wait for the engine. */
typedef void cria_deliver(void *context, cria_event *event);

typedef struct cria_engine cria_engine;

/* Starts the engine's thread. `runner` and `log` are borrowed until destroy. */
cria_status cria_engine_create(const cria_engine_config *config, cria_runner runner, cria_deliver *deliver,
                               void *deliver_context, cria_log *log, cria_engine **out, cria_error *err);
/* The same over several replicas of the model, each with `config`'s blocks: a request goes to the one that has least to
 * do. `runners`: [count], copied. */
cria_status cria_engine_create_replicas(const cria_engine_config *config, const cria_runner *runners, int count,
                                        cria_deliver *deliver, void *deliver_context, cria_log *log, cria_engine **out,
                                        cria_error *err);
/* Cancels what is open (each gets its FINISH), waits for steps under way, joins the thread, frees. */
void cria_engine_destroy(cria_engine *engine);

/* Checks that the request can ever fit (prompt + 1 <= max_model_len, blocks, ids < vocab, side arrays within limits:
 * else CRIA_ERR_ARGUMENT naming the limit and the value) and queues it; CRIA_ERR_FULL when the inbox is full,
 * CRIA_ERR_CLOSED when draining. Takes ownership only on CRIA_OK. max_tokens is cut to what max_model_len leaves. */
cria_status cria_engine_submit(cria_engine *engine, cria_request *request, uint64_t *id, cria_error *err);
/* Would a request with so many prompt tokens be taken now, if `ahead` others with `ahead_tokens` came before it?
 * CRIA_OK, CRIA_ERR_FULL or CRIA_ERR_CLOSED. For refusing before work is spent on a request: cria_engine_submit decides
 * anew. */
cria_status cria_engine_has_room(cria_engine *engine, int64_t ahead, int64_t ahead_tokens, int64_t prompt_tokens,
                                 cria_error *err);
/* The sequence ends at the next step with CRIA_FINISH_ABORT; an unknown or finished id is ignored. Never refused. */
void cria_engine_cancel(cria_engine *engine, uint64_t id);
/* A slow client: the sequence keeps its place but is not scheduled until resumed. */
void cria_engine_pause(cria_engine *engine, uint64_t id, bool paused);
/* No new requests from now on; running ones go on. */
void cria_engine_drain(cria_engine *engine);

/* Ends every open request with CRIA_FINISH_ERROR and takes no more: something outside has failed that steps need. */
void cria_engine_fail(cria_engine *engine, const char *why);

/* Figures computed when asked for. */
typedef struct {
    int64_t running, waiting, waiting_prompt_tokens;
    int64_t blocks_total, blocks_free; /* of all replicas; free includes cached blocks that nobody uses */
    uint64_t prompt_tokens, generation_tokens, preemptions, prefix_queries, prefix_hits, steps;
    uint64_t finished[5];      /* by cria_finish */
    double seconds_since_step; /* since a step last ended while work is pending; 0 when idle: a health check */
    bool failed, draining;
    char why[200];                      /* it has failed */
    uint64_t step_tokens_histogram[16]; /* steps with up to 2^i tokens, i = 0 .. 15; the last holds all larger */
    uint64_t step_tokens_sum;
} cria_engine_stats;
void cria_engine_stats_get(cria_engine *engine, cria_engine_stats *out);
/* What the plan's stages have done so far, over all replicas: fills out[most]; gives how many stages there are. */
int cria_engine_stages(cria_engine *engine, cria_stage_figures *out, int most);

#endif
