/* Inbox: the one place where other threads meet the engine's: requests on their way in, cancellations, pauses, and the
 * figures that anybody may ask for.
 *
 * Bounded for requests. Cancellations and pauses are flags of the sequence they concern, found by its id, so that they
 * need no room and are never refused, which a queue of messages could not promise. One lock, held for a few
 * instructions only. */
#ifndef CRIA_SERVER_ENGINE_INBOX_H
#define CRIA_SERVER_ENGINE_INBOX_H

#include "server/engine/sequence.h"

typedef struct cria_inbox cria_inbox;

cria_status cria_inbox_create(const cria_engine_config *config, cria_inbox **out, cria_error *err);
void cria_inbox_destroy(cria_inbox *inbox);

/* Any thread. */
cria_status cria_inbox_submit(cria_inbox *inbox, cria_sequence *sequence, uint64_t *id, cria_error *err);
cria_status cria_inbox_has_room(cria_inbox *inbox, int64_t ahead, int64_t ahead_tokens, int64_t prompt_tokens,
                                cria_error *err);
void cria_inbox_cancel(cria_inbox *inbox, uint64_t id);
void cria_inbox_pause(cria_inbox *inbox, uint64_t id, bool paused);
void cria_inbox_drain(cria_inbox *inbox);
/* Ends the engine's thread: take gives no more work after this. */
void cria_inbox_close(cria_inbox *inbox);
void cria_inbox_stats(cria_inbox *inbox, cria_engine_stats *out);

/* ---- engine thread only ---- */

/* Everything that came since the last call: `submitted` is a list along inbox_next, in order of arrival; `cancelled`
 * one along cancelled_next. Both wishes are written into the sequences. Waits for something to come if `wait`. False
 * once closed. */
bool cria_inbox_take(cria_inbox *inbox, bool wait, cria_sequence **submitted, cria_sequence **cancelled);
/* Whether take would give something. */
bool cria_inbox_has_news(cria_inbox *inbox);
/* The sequence has ended: its id is unknown from now on. */
void cria_inbox_forget(cria_inbox *inbox, cria_sequence *sequence);
/* From now on everything is refused; `why` is copied. What was submitted until now comes with the next take. */
void cria_inbox_fail(cria_inbox *inbox, const char *why);
/* CRIA_OK, or why it has failed. */
cria_status cria_inbox_check(cria_inbox *inbox, cria_error *err);
/* Replaces the figures; the inbox adds what it knows itself. `stepped`: a step has just ended. */
void cria_inbox_publish(cria_inbox *inbox, const cria_engine_stats *stats, bool stepped);

#endif
