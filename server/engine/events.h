/* Events: makes what the engine tells out of a step's results. Engine thread only. */
#ifndef CRIA_SERVER_ENGINE_EVENTS_H
#define CRIA_SERVER_ENGINE_EVENTS_H

#include "server/engine/scheduler.h"

/* Each is one allocation of exactly the size it needs; NULL if memory is out. */
cria_event *cria_event_prompt(const cria_work *work, const cria_batch_result *result, int64_t stride, uint64_t now_ns);
/* For the token in the work's sampling row. */
cria_event *cria_event_token(const cria_work *work, const cria_batch_result *result, int64_t stride, uint64_t now_ns);

/* The last event of a sequence of `user`, to be filled in when it ends: made at submission, on any thread. */
cria_event *cria_event_reserve_finish(void *user);
/* The sequence's last event, which leaves it. `error` may be NULL. */
cria_event *cria_event_finish(cria_sequence *sequence, cria_finish finish, int32_t token, const char *error,
                              uint64_t now_ns);

#endif
