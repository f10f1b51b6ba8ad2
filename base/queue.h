/* Queue: bounded, of fixed-size messages, many senders and one or many receivers; the only place where threads meet.
 * Any thread. */
#ifndef CRIA_BASE_QUEUE_H
#define CRIA_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cria_queue cria_queue;

/* NULL if memory is out. Messages are copied, `message_bytes` each. */
cria_queue *cria_queue_create(size_t message_bytes, size_t capacity);
void cria_queue_destroy(cria_queue *queue);
/* False when full or closed. */
bool cria_queue_try_push(cria_queue *queue, const void *message);
/* Waits for room; false only when closed. */
bool cria_queue_push(cria_queue *queue, const void *message);
bool cria_queue_try_pop(cria_queue *queue, void *message);
/* Waits up to timeout_ms (-1: for ever) for a message; false on time-out, or when closed and empty. */
bool cria_queue_pop(cria_queue *queue, void *message, int timeout_ms);
/* No more pushes; waiters wake up. What is inside can still be popped. */
void cria_queue_close(cria_queue *queue);
size_t cria_queue_length(const cria_queue *queue);

#endif
