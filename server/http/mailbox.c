/* Two arrays under a mutex, swapped when taken, and an eventfd. The engine is bounded, and so is what it can put. */
#include "server/http/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    cria_event **items;
    size_t count, capacity;
} list;

struct cria_mailbox {
    pthread_mutex_t lock;
    pthread_cond_t taken;
    list in, out;
    bool lost, closed;
    int fd;
};

cria_status cria_mailbox_create(cria_mailbox **out, cria_error *err) {
    cria_mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (!mailbox) return cria_fail(err, CRIA_ERR_MEMORY, "mailbox: out of memory");
    mailbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->fd < 0) {
        free(mailbox);
        return cria_fail(err, CRIA_ERR_IO, "eventfd: %s", strerror(errno));
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    pthread_cond_init(&mailbox->taken, NULL);
    *out = mailbox;
    return CRIA_OK;
}

void cria_mailbox_destroy(cria_mailbox *mailbox) {
    if (!mailbox) return;
    for (size_t i = 0; i < mailbox->in.count; ++i) cria_event_destroy(mailbox->in.items[i]);
    free(mailbox->in.items);
    free(mailbox->out.items);
    close(mailbox->fd);
    pthread_cond_destroy(&mailbox->taken);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

void cria_mailbox_close(cria_mailbox *mailbox) {
    pthread_mutex_lock(&mailbox->lock);
    mailbox->closed = true;
    pthread_cond_broadcast(&mailbox->taken);
    pthread_mutex_unlock(&mailbox->lock);
}

void cria_mailbox_wake(cria_mailbox *mailbox) {
    uint64_t one = 1;
    /* Full (EAGAIN) means readable, which is all that is wanted. */
    if (write(mailbox->fd, &one, sizeof one) < 0) return;
}

void cria_mailbox_put(cria_mailbox *mailbox, cria_event *event) {
    pthread_mutex_lock(&mailbox->lock);
    list *in = &mailbox->in;
    while (in->count >= CRIA_MAILBOX_EVENTS && !mailbox->closed) pthread_cond_wait(&mailbox->taken, &mailbox->lock);
    if (in->count == in->capacity) {
        size_t capacity = in->capacity ? 2 * in->capacity : 64;
        cria_event **items = realloc(in->items, capacity * sizeof *items);
        if (items) {
            in->items = items;
            in->capacity = capacity;
        }
    }
    bool kept = in->count < in->capacity, first = in->count == 0;
    if (kept) {
        in->items[in->count++] = event;
    } else {
        mailbox->lost = true;
    }
    pthread_mutex_unlock(&mailbox->lock);
    if (!kept) cria_event_destroy(event);
    if (first || !kept) cria_mailbox_wake(mailbox);
}

int cria_mailbox_fd(const cria_mailbox *mailbox) {
    return mailbox->fd;
}

cria_event **cria_mailbox_take(cria_mailbox *mailbox, size_t *count, bool *lost) {
    uint64_t wakes;
    if (read(mailbox->fd, &wakes, sizeof wakes) < 0) wakes = 0; /* nothing was signalled; there may be events still */
    pthread_mutex_lock(&mailbox->lock);
    list taken = mailbox->in;
    mailbox->in = mailbox->out;
    mailbox->in.count = 0;
    mailbox->out = taken;
    *lost = mailbox->lost;
    mailbox->lost = false;
    pthread_cond_broadcast(&mailbox->taken);
    pthread_mutex_unlock(&mailbox->lock);
    *count = taken.count;
    return taken.items;
}
