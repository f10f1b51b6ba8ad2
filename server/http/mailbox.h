/* Mailbox: engine events on their way to the HTTP thread. Any thread puts, one takes.
 *
 * It is bounded: where the taker is behind by so much, putting waits for it, and so the engine makes no tokens faster
 * than the HTTP thread sends them on. */
#ifndef CRIA_SERVER_HTTP_MAILBOX_H
#define CRIA_SERVER_HTTP_MAILBOX_H

#include "base/error.h"
#include "server/engine/request.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cria_mailbox cria_mailbox;

enum { CRIA_MAILBOX_EVENTS = 4096 };

cria_status cria_mailbox_create(cria_mailbox **out, cria_error *err);
/* Frees the events that nobody took. */
void cria_mailbox_destroy(cria_mailbox *mailbox);
/* Takes ownership. Waits while CRIA_MAILBOX_EVENTS events are there; never on the taker's own thread, please, and not
 * once the mailbox is closed. */
void cria_mailbox_put(cria_mailbox *mailbox, cria_event *event);
/* Nobody takes on time any more: from now on putting does not wait. Any thread. */
void cria_mailbox_close(cria_mailbox *mailbox);
/* Wakes the taker without an event. Also from signal handlers. */
void cria_mailbox_wake(cria_mailbox *mailbox);
/* Readable while there is something to take. */
int cria_mailbox_fd(const cria_mailbox *mailbox);
/* All events so far, in order; the array is the mailbox's and is good until the next take, the events become the
 * caller's. *lost: memory ran out for at least one event since the last take. */
cria_event **cria_mailbox_take(cria_mailbox *mailbox, size_t *count, bool *lost);

#endif
