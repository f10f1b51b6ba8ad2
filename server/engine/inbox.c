/* Inbox: a mutex, a condition, a hash table of open sequences, two lists. */
#include "server/engine/inbox.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct cria_inbox {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t max_waiting, max_waiting_prompt_tokens;
    uint64_t last_id;
    size_t mask;
    cria_sequence **buckets; /* open sequences by id, chained along same_bucket */
    cria_sequence *first_submitted, *last_submitted;
    int64_t submitted_count, submitted_prompt_tokens;
    cria_sequence *signals; /* sequences with changed wishes, along signal_next */
    bool closed, draining, failed, busy;
    bool unseen;               /* the engine thread has not looked since it failed */
    char why[256];             /* it failed */
    uint64_t progress_ns;      /* while busy: when the last step ended, or when the work came */
    cria_engine_stats figures; /* as last published */
};

cria_status cria_inbox_create(const cria_engine_config *config, cria_inbox **out, cria_error *err) {
    *out = NULL;
    if (config->max_waiting < 1) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "max_waiting is %lld, must be at least 1",
                         (long long)config->max_waiting);
    }
    size_t buckets = 64;
    while (buckets < (size_t)config->max_waiting * 2 && buckets < (size_t)1 << 20) buckets *= 2;
    cria_inbox *inbox = calloc(1, sizeof *inbox);
    if (inbox) inbox->buckets = calloc(buckets, sizeof(cria_sequence *));
    if (!inbox || !inbox->buckets) {
        free(inbox);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the engine's inbox");
    }
    inbox->mask = buckets - 1;
    inbox->max_waiting = config->max_waiting;
    inbox->max_waiting_prompt_tokens = config->max_waiting_prompt_tokens;
    inbox->figures.blocks_total = inbox->figures.blocks_free = config->blocks;
    pthread_mutex_init(&inbox->lock, NULL);
    pthread_cond_init(&inbox->changed, NULL);
    *out = inbox;
    return CRIA_OK;
}

void cria_inbox_destroy(cria_inbox *inbox) {
    if (!inbox) return;
    pthread_cond_destroy(&inbox->changed);
    pthread_mutex_destroy(&inbox->lock);
    free(inbox->buckets);
    free(inbox);
}

/* ---- under the lock ---- */

static cria_sequence **bucket_of(cria_inbox *inbox, uint64_t id) {
    return &inbox->buckets[(size_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & inbox->mask];
}

static cria_sequence *find(cria_inbox *inbox, uint64_t id) {
    cria_sequence *sequence = *bucket_of(inbox, id);
    while (sequence && sequence->id != id) sequence = sequence->same_bucket;
    return sequence;
}

static void signal_change(cria_inbox *inbox, cria_sequence *sequence) {
    if (!sequence->signalled) {
        sequence->signalled = true;
        sequence->signal_previous = NULL;
        sequence->signal_next = inbox->signals;
        if (inbox->signals) inbox->signals->signal_previous = sequence;
        inbox->signals = sequence;
    }
    pthread_cond_signal(&inbox->changed);
}

static void unsignal(cria_inbox *inbox, cria_sequence *sequence) {
    if (!sequence->signalled) return;
    sequence->signalled = false;
    cria_sequence **link = sequence->signal_previous ? &sequence->signal_previous->signal_next : &inbox->signals;
    *link = sequence->signal_next;
    if (sequence->signal_next) sequence->signal_next->signal_previous = sequence->signal_previous;
}

static cria_status check_open(const cria_inbox *inbox, cria_error *err) {
    if (inbox->failed) return cria_fail(err, CRIA_ERR_CLOSED, "the engine has failed: %s", inbox->why);
    if (inbox->closed || inbox->draining) return cria_fail(err, CRIA_ERR_CLOSED, "the engine is shutting down");
    return CRIA_OK;
}

static cria_status check_room(const cria_inbox *inbox, int64_t ahead, int64_t ahead_tokens, int64_t prompt_tokens,
                              cria_error *err) {
    int64_t waiting = inbox->figures.waiting + inbox->submitted_count + ahead;
    int64_t tokens = inbox->figures.waiting_prompt_tokens + inbox->submitted_prompt_tokens + ahead_tokens;
    if (waiting >= inbox->max_waiting) {
        return cria_fail(err, CRIA_ERR_FULL, "%lld requests are waiting, the limit is %lld", (long long)waiting,
                         (long long)inbox->max_waiting);
    }
    /* A long prompt alone may pass the limit, or it could never be served. */
    if (waiting > 0 && tokens + prompt_tokens > inbox->max_waiting_prompt_tokens) {
        return cria_fail(err, CRIA_ERR_FULL, "%lld prompt tokens are waiting, the limit is %lld", (long long)tokens,
                         (long long)inbox->max_waiting_prompt_tokens);
    }
    return CRIA_OK;
}

static cria_status submit_locked(cria_inbox *inbox, cria_sequence *sequence, cria_error *err) {
    CRIA_TRY(check_open(inbox, err));
    CRIA_TRY(check_room(inbox, 0, 0, sequence->prompt_count, err));
    uint64_t id = sequence->request->id;
    if (id && find(inbox, id)) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "request id %llu is in use", (unsigned long long)id);
    }
    while (!id || find(inbox, id)) id = ++inbox->last_id;
    sequence->id = sequence->request->id = sequence->finish_event->id = id;
    cria_sequence **bucket = bucket_of(inbox, id);
    sequence->same_bucket = *bucket;
    *bucket = sequence;
    *(inbox->last_submitted ? &inbox->last_submitted->inbox_next : &inbox->first_submitted) = sequence;
    inbox->last_submitted = sequence;
    inbox->submitted_count++;
    inbox->submitted_prompt_tokens += sequence->prompt_count;
    pthread_cond_signal(&inbox->changed);
    return CRIA_OK;
}

/* ---- any thread ---- */

cria_status cria_inbox_submit(cria_inbox *inbox, cria_sequence *sequence, uint64_t *id, cria_error *err) {
    pthread_mutex_lock(&inbox->lock);
    cria_status status = submit_locked(inbox, sequence, err);
    /* Read under the lock: after it the sequence may be gone already. */
    if (status == CRIA_OK && id) *id = sequence->id;
    pthread_mutex_unlock(&inbox->lock);
    return status;
}

cria_status cria_inbox_has_room(cria_inbox *inbox, int64_t ahead, int64_t ahead_tokens, int64_t prompt_tokens,
                                cria_error *err) {
    pthread_mutex_lock(&inbox->lock);
    cria_status status = check_open(inbox, err);
    if (status == CRIA_OK) status = check_room(inbox, ahead, ahead_tokens, prompt_tokens, err);
    pthread_mutex_unlock(&inbox->lock);
    return status;
}

void cria_inbox_cancel(cria_inbox *inbox, uint64_t id) {
    pthread_mutex_lock(&inbox->lock);
    cria_sequence *sequence = find(inbox, id);
    if (sequence) {
        sequence->cancel_wanted = true;
        signal_change(inbox, sequence);
    }
    pthread_mutex_unlock(&inbox->lock);
}

void cria_inbox_pause(cria_inbox *inbox, uint64_t id, bool paused) {
    pthread_mutex_lock(&inbox->lock);
    cria_sequence *sequence = find(inbox, id);
    if (sequence && sequence->pause_wanted != paused) {
        sequence->pause_wanted = paused;
        signal_change(inbox, sequence);
    }
    pthread_mutex_unlock(&inbox->lock);
}

void cria_inbox_drain(cria_inbox *inbox) {
    pthread_mutex_lock(&inbox->lock);
    inbox->draining = true;
    pthread_mutex_unlock(&inbox->lock);
}

void cria_inbox_close(cria_inbox *inbox) {
    pthread_mutex_lock(&inbox->lock);
    inbox->closed = true;
    pthread_cond_signal(&inbox->changed);
    pthread_mutex_unlock(&inbox->lock);
}

void cria_inbox_stats(cria_inbox *inbox, cria_engine_stats *out) {
    pthread_mutex_lock(&inbox->lock);
    *out = inbox->figures;
    out->waiting += inbox->submitted_count;
    out->waiting_prompt_tokens += inbox->submitted_prompt_tokens;
    out->failed = inbox->failed;
    memcpy(out->why, inbox->why, sizeof out->why - 1);
    out->draining = inbox->draining;
    out->seconds_since_step = inbox->busy ? cria_seconds_between(inbox->progress_ns, cria_clock_ns()) : 0.0;
    pthread_mutex_unlock(&inbox->lock);
}

/* ---- engine thread ---- */

static bool has_news(const cria_inbox *inbox) {
    return inbox->closed || inbox->first_submitted || inbox->signals || inbox->unseen;
}

bool cria_inbox_has_news(cria_inbox *inbox) {
    pthread_mutex_lock(&inbox->lock);
    bool news = has_news(inbox);
    pthread_mutex_unlock(&inbox->lock);
    return news;
}

bool cria_inbox_take(cria_inbox *inbox, bool wait, cria_sequence **submitted, cria_sequence **cancelled) {
    *cancelled = NULL;
    pthread_mutex_lock(&inbox->lock);
    if (wait) inbox->busy = false;
    while (wait && !has_news(inbox)) pthread_cond_wait(&inbox->changed, &inbox->lock);
    inbox->unseen = false;
    if (!inbox->busy) {
        inbox->busy = true;
        inbox->progress_ns = cria_clock_ns();
    }
    while (inbox->signals) {
        cria_sequence *sequence = inbox->signals;
        unsignal(inbox, sequence);
        sequence->paused = sequence->pause_wanted;
        sequence->cancelled = sequence->cancel_wanted;
        if (!sequence->cancelled) continue;
        /* Not signal_next: others may signal it again while the list is walked. */
        sequence->cancelled_next = *cancelled;
        *cancelled = sequence;
    }
    *submitted = inbox->first_submitted;
    inbox->first_submitted = inbox->last_submitted = NULL;
    /* Still counted: they wait, in the scheduler from now on, which will publish its own figures. */
    inbox->figures.waiting += inbox->submitted_count;
    inbox->figures.waiting_prompt_tokens += inbox->submitted_prompt_tokens;
    inbox->submitted_count = inbox->submitted_prompt_tokens = 0;
    bool open = !inbox->closed;
    pthread_mutex_unlock(&inbox->lock);
    return open;
}

void cria_inbox_forget(cria_inbox *inbox, cria_sequence *sequence) {
    pthread_mutex_lock(&inbox->lock);
    cria_sequence **link = bucket_of(inbox, sequence->id);
    while (*link != sequence) link = &(*link)->same_bucket;
    *link = sequence->same_bucket;
    unsignal(inbox, sequence);
    pthread_mutex_unlock(&inbox->lock);
}

void cria_inbox_fail(cria_inbox *inbox, const char *why) {
    pthread_mutex_lock(&inbox->lock);
    if (!inbox->failed) {
        inbox->failed = inbox->unseen = true;
        strncpy(inbox->why, why, sizeof inbox->why - 1);
        pthread_cond_signal(&inbox->changed);
    }
    pthread_mutex_unlock(&inbox->lock);
}

cria_status cria_inbox_check(cria_inbox *inbox, cria_error *err) {
    pthread_mutex_lock(&inbox->lock);
    cria_status status = inbox->failed ? cria_fail(err, CRIA_ERR_CLOSED, "%s", inbox->why) : CRIA_OK;
    pthread_mutex_unlock(&inbox->lock);
    return status;
}

void cria_inbox_publish(cria_inbox *inbox, const cria_engine_stats *stats, bool stepped) {
    pthread_mutex_lock(&inbox->lock);
    inbox->figures = *stats;
    if (stepped) inbox->progress_ns = cria_clock_ns();
    pthread_mutex_unlock(&inbox->lock);
}
