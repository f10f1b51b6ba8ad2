/* Scheduler: chooses each step's work, and owns running and waiting sequences and their KV blocks.
 *
 * Iteration-level scheduling (Orca, OSDI'22) over paged blocks (vLLM, SOSP'23) with chunked prefill (Sarathi-Serve,
 * OSDI'24): every running sequence that decodes gets its one token first, what remains of the token budget goes to
 * prefill chunks. Order is (priority, arrival) everywhere. A sequence is admitted when blocks for all its known tokens
 * are free; when blocks run out later, paused sequences and then the newest give theirs up and are computed again
 * later. Engine thread only. */
#ifndef CRIA_SERVER_ENGINE_SCHEDULER_H
#define CRIA_SERVER_ENGINE_SCHEDULER_H

#include "server/engine/sequence.h"

/* A sequence's part of one step. */
typedef struct {
    cria_sequence *sequence;
    int32_t begin, count; /* tokens, into the sequence; begin == sequence->computed */
    int32_t prompt_first; /* first prompt position with a log-probability row */
    int32_t prompt_rows;  /* and how many follow each other */
    bool samples;         /* the last token's row chooses the next token */
    int32_t first_row;    /* in the batch: prompt rows, then the sampling row; set by cria_compose */
} cria_work;

typedef struct {
    int64_t running, waiting, waiting_prompt_tokens, blocks_free;
    uint64_t preemptions, prefix_queries, prefix_hits; /* the last two in tokens */
} cria_scheduler_stats;

typedef struct cria_scheduler cria_scheduler;

/* `ways` >= 1: how many steps may be under way at once. */
cria_status cria_scheduler_create(const cria_engine_config *config, int ways, cria_scheduler **out, cria_error *err);
/* Sequences must have been removed. */
void cria_scheduler_destroy(cria_scheduler *scheduler);

/* The sequence waits from now on. */
void cria_scheduler_add(cria_scheduler *scheduler, cria_sequence *sequence);
/* Takes the sequence out and releases its blocks; it stays the caller's. */
void cria_scheduler_remove(cria_scheduler *scheduler, cria_sequence *sequence);
/* Any one of its sequences; NULL: none is left. */
cria_sequence *cria_scheduler_any(const cria_scheduler *scheduler);

/* The most sequences that a step may have work of. */
int64_t cria_scheduler_most_running(const cria_scheduler *scheduler);
/* The next step's work, valid until the next call; 0: nothing can be done until a step ends or something changes from
 * outside. `under_way`: tokens of the steps under way. Sets *broken to a sequence (or NULL) for which memory is out:
 * remove it and call again; no work is given then. */
int32_t cria_scheduler_next(cria_scheduler *scheduler, uint64_t now_ns, int64_t under_way, cria_work **out,
                            cria_sequence **broken);
/* The work goes to a step that runs before any later one: its tokens count as computed, full blocks can be found by
 * others. */
void cria_scheduler_given(cria_scheduler *scheduler, const cria_work *work);

/* Adds its figures to *sum. */
void cria_scheduler_stats_add(const cria_scheduler *scheduler, cria_scheduler_stats *sum);

#endif
