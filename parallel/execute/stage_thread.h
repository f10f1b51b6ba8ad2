/* Stage thread: runs the executor's steps beside the thread that gives them out, which has other replicas to look
 * after. One thread gives steps and takes results. */
#ifndef CRIA_PARALLEL_EXECUTE_STAGE_THREAD_H
#define CRIA_PARALLEL_EXECUTE_STAGE_THREAD_H

#include "parallel/execute/executor.h"

typedef struct cria_stage_thread cria_stage_thread;

/* Up to `most` steps may be given before the oldest is taken. The executor is borrowed. */
cria_status cria_stage_thread_create(cria_executor *executor, const cria_batch_limits *limits, int most,
                                     cria_stage_thread **out, cria_error *err);
/* Waits for the step that it is at. */
void cria_stage_thread_destroy(cria_stage_thread *thread);

/* The batch must stay as it is until its results are taken. */
void cria_stage_thread_give(cria_stage_thread *thread, const cria_batch *batch);
/* Whether the oldest step that was given is done. */
bool cria_stage_thread_done(cria_stage_thread *thread);
/* Waits for the oldest step: its results, valid until the next call, and what was done in it. */
cria_status cria_stage_thread_take(cria_stage_thread *thread, const cria_batch_result **result,
                                   cria_step_report *report, cria_error *err);

#endif
