/* A bounded ring of messages behind one mutex and two condition variables. */
#include "base/queue.h"

#include "base/checked.h"
#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct cria_queue {
    pthread_mutex_t mutex;
    pthread_cond_t not_empty, not_full;
    unsigned char *slots;
    size_t message_bytes, capacity;
    size_t head, length; /* the oldest message, and how many there are */
    bool closed;
};

/* Condition variables that time out by the monotonic clock: setting the wall clock must not stretch a wait. */
static bool init_locks(cria_queue *queue) {
    pthread_condattr_t monotonic;
    if (pthread_condattr_init(&monotonic) != 0) return false;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    bool done = false;
    if (pthread_mutex_init(&queue->mutex, NULL) == 0) {
        if (pthread_cond_init(&queue->not_empty, &monotonic) == 0) {
            done = pthread_cond_init(&queue->not_full, &monotonic) == 0;
            if (!done) pthread_cond_destroy(&queue->not_empty);
        }
        if (!done) pthread_mutex_destroy(&queue->mutex);
    }
    pthread_condattr_destroy(&monotonic);
    return done;
}

cria_queue *cria_queue_create(size_t message_bytes, size_t capacity) {
    size_t bytes;
    if (!message_bytes || !capacity || !cria_mul_size(message_bytes, capacity, &bytes)) return NULL;
    cria_queue *queue = calloc(1, sizeof *queue);
    if (!queue) return NULL;
    queue->slots = malloc(bytes);
    if (!queue->slots || !init_locks(queue)) {
        free(queue->slots);
        free(queue);
        return NULL;
    }
    queue->message_bytes = message_bytes;
    queue->capacity = capacity;
    return queue;
}

void cria_queue_destroy(cria_queue *queue) {
    if (!queue) return;
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->mutex);
    free(queue->slots);
    free(queue);
}

/* With the mutex held and room inside. */
static void put(cria_queue *queue, const void *message) {
    size_t room = queue->capacity - queue->head;
    size_t slot = queue->length < room ? queue->head + queue->length : queue->length - room;
    memcpy(queue->slots + slot * queue->message_bytes, message, queue->message_bytes);
    queue->length++;
    pthread_cond_signal(&queue->not_empty);
}

/* With the mutex held and a message inside. */
static void take(cria_queue *queue, void *message) {
    memcpy(message, queue->slots + queue->head * queue->message_bytes, queue->message_bytes);
    queue->head = queue->head + 1 == queue->capacity ? 0 : queue->head + 1;
    queue->length--;
    pthread_cond_signal(&queue->not_full);
}

bool cria_queue_try_push(cria_queue *queue, const void *message) {
    pthread_mutex_lock(&queue->mutex);
    bool room = !queue->closed && queue->length < queue->capacity;
    if (room) put(queue, message);
    pthread_mutex_unlock(&queue->mutex);
    return room;
}

bool cria_queue_push(cria_queue *queue, const void *message) {
    pthread_mutex_lock(&queue->mutex);
    while (!queue->closed && queue->length == queue->capacity) pthread_cond_wait(&queue->not_full, &queue->mutex);
    bool open = !queue->closed;
    if (open) put(queue, message);
    pthread_mutex_unlock(&queue->mutex);
    return open;
}

bool cria_queue_try_pop(cria_queue *queue, void *message) {
    return cria_queue_pop(queue, message, 0);
}

bool cria_queue_pop(cria_queue *queue, void *message, int timeout_ms) {
    struct timespec deadline = {0};
    if (timeout_ms > 0) {
        uint64_t at = cria_clock_ns() + (uint64_t)timeout_ms * 1000000u;
        deadline.tv_sec = (time_t)(at / 1000000000u);
        deadline.tv_nsec = (long)(at % 1000000000u);
    }
    pthread_mutex_lock(&queue->mutex);
    bool waiting = timeout_ms != 0;
    while (waiting && !queue->closed && queue->length == 0) {
        if (timeout_ms < 0) {
            pthread_cond_wait(&queue->not_empty, &queue->mutex);
        } else {
            waiting = pthread_cond_timedwait(&queue->not_empty, &queue->mutex, &deadline) == 0;
        }
    }
    bool found = queue->length > 0;
    if (found) take(queue, message);
    pthread_mutex_unlock(&queue->mutex);
    return found;
}

void cria_queue_close(cria_queue *queue) {
    pthread_mutex_lock(&queue->mutex);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->mutex);
}

size_t cria_queue_length(const cria_queue *queue) {
    /* Locking changes nothing that a caller can see. */
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&queue->mutex;
    pthread_mutex_lock(mutex);
    size_t length = queue->length;
    pthread_mutex_unlock(mutex);
    return length;
}
