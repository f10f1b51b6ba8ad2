/* kernels/cuda/device.h over memory of the host: a stream is a thread that does what it was given in its order, a
 * moment later, so that whoever does not wait for it finds old values. */
#include "kernels/cuda/device.h"

#include "tests/fake_gpu/fake.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_BLOCKS = 64, LATENCY_US = 20 };

typedef struct task {
    void (*run)(void *context);
    void *context;
    struct task *next;
} task;

struct fake_stream {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    task *first, **last;
    bool busy, ends;
};

struct cria_cuda {
    int device;
    fake_stream stream;
};

typedef struct {
    const char *at;
    size_t bytes;
} block;

static struct {
    pthread_mutex_t mutex;
    block blocks[MOST_BLOCKS];
} memory = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int in_use = -1;

void fake_require(bool condition, const char *text, const char *where) {
    if (condition) return;
    fprintf(stderr, "fake GPU: %s: %s does not hold\n", where, text);
    abort();
}

int fake_device_in_use(void) {
    return in_use;
}

static void *work(void *context) {
    fake_stream *s = context;
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->first && !s->ends) pthread_cond_wait(&s->changed, &s->mutex);
        task *t = s->first;
        if (!t) break;
        s->first = t->next;
        if (!s->first) s->last = &s->first;
        s->busy = true;
        pthread_mutex_unlock(&s->mutex);
        usleep(LATENCY_US);
        t->run(t->context);
        free(t);
        pthread_mutex_lock(&s->mutex);
        s->busy = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

void fake_stream_add(fake_stream *s, void (*run)(void *context), void *context) {
    task *t = malloc(sizeof *t);
    FAKE_REQUIRE(t != NULL);
    *t = (task){.run = run, .context = context};
    pthread_mutex_lock(&s->mutex);
    *s->last = t;
    s->last = &t->next;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

int cria_cuda_devices(void) {
    const char *text = getenv("CRIA_FAKE_GPUS");
    return text ? atoi(text) : 8;
}

cria_status cria_cuda_open(int device, cria_cuda **out, cria_error *err) {
    int count = cria_cuda_devices();
    *out = NULL;
    if (device < 0 || device >= count)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "CUDA device %d, there are %d", device, count);
    cria_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for CUDA device %d", device);
    fake_stream *s = &cuda->stream;
    cuda->device = in_use = device;
    s->last = &s->first;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    FAKE_REQUIRE(pthread_create(&s->thread, NULL, work, s) == 0);
    *out = cuda;
    return CRIA_OK;
}

void cria_cuda_close(cria_cuda *cuda) {
    if (!cuda) return;
    pthread_mutex_lock(&cuda->stream.mutex);
    cuda->stream.ends = true;
    pthread_cond_broadcast(&cuda->stream.changed);
    pthread_mutex_unlock(&cuda->stream.mutex);
    pthread_join(cuda->stream.thread, NULL);
    pthread_cond_destroy(&cuda->stream.changed);
    pthread_mutex_destroy(&cuda->stream.mutex);
    free(cuda);
}

cria_status cria_cuda_use(const cria_cuda *cuda, cria_error *err) {
    (void)err;
    in_use = cuda->device;
    return CRIA_OK;
}

void *cria_cuda_stream(const cria_cuda *cuda) {
    return (void *)(uintptr_t)&cuda->stream;
}

cria_status cria_cuda_allocate(cria_cuda *cuda, size_t bytes, void **out, cria_error *err) {
    in_use = cuda->device;
    char *at = malloc(bytes);
    *out = at;
    if (!at) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %zu bytes of a device", bytes);
    memset(at, 0xab, bytes); /* as whoever had it before left it */
    pthread_mutex_lock(&memory.mutex);
    int i = 0;
    while (i < MOST_BLOCKS && memory.blocks[i].at) i++;
    FAKE_REQUIRE(i < MOST_BLOCKS);
    memory.blocks[i] = (block){at, bytes};
    pthread_mutex_unlock(&memory.mutex);
    return CRIA_OK;
}

void cria_cuda_free(cria_cuda *cuda, void *at) {
    if (!at) return;
    in_use = cuda->device;
    pthread_mutex_lock(&memory.mutex);
    int i = 0;
    while (i < MOST_BLOCKS && memory.blocks[i].at != at) i++;
    FAKE_REQUIRE(i < MOST_BLOCKS);
    memory.blocks[i].at = NULL;
    pthread_mutex_unlock(&memory.mutex);
    free(at);
}

bool fake_is_device_memory(const void *at, size_t bytes) {
    bool found = false;
    pthread_mutex_lock(&memory.mutex);
    for (int i = 0; i < MOST_BLOCKS && !found; i++) {
        const block *b = &memory.blocks[i];
        found = b->at && b->at <= (const char *)at && (const char *)at + bytes <= b->at + b->bytes;
    }
    pthread_mutex_unlock(&memory.mutex);
    return found;
}

static void wait_until_done(fake_stream *s) {
    pthread_mutex_lock(&s->mutex);
    while (s->first || s->busy) pthread_cond_wait(&s->changed, &s->mutex);
    pthread_mutex_unlock(&s->mutex);
}

cria_status cria_cuda_is_done(cria_cuda *cuda, bool *done, cria_error *err) {
    (void)err;
    FAKE_REQUIRE(in_use == cuda->device);
    pthread_mutex_lock(&cuda->stream.mutex);
    *done = !cuda->stream.first && !cuda->stream.busy;
    pthread_mutex_unlock(&cuda->stream.mutex);
    return CRIA_OK;
}

typedef struct {
    void *to;
    const void *from;
    size_t bytes;
} copy;

static void run_copy(void *context) {
    copy *c = context;
    if (c->bytes) memmove(c->to, c->from, c->bytes);
    free(c);
}

cria_status cria_cuda_copy(cria_cuda *cuda, void *to, const void *from, size_t bytes, cria_error *err) {
    FAKE_REQUIRE(in_use == cuda->device);
    copy *c = malloc(sizeof *c);
    if (!c) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a copy");
    *c = (copy){to, from, bytes};
    fake_stream_add(&cuda->stream, run_copy, c);
    if (bytes && !fake_is_device_memory(to, bytes)) wait_until_done(&cuda->stream);
    return CRIA_OK;
}

typedef struct {
    const float *parts;
    int part_count;
    int64_t count;
    float *out;
} sum;

static void run_sum(void *context) {
    sum *s = context;
    for (int64_t i = 0; i < s->count; i++) {
        float all = s->parts[i];
        for (int p = 1; p < s->part_count; p++) all += s->parts[p * s->count + i];
        s->out[i] = all;
    }
    free(s);
}

cria_status cria_cuda_sum(cria_cuda *cuda, const float *parts, int part_count, int64_t count, float *out,
                          cria_error *err) {
    size_t bytes = (size_t)count * sizeof *parts;
    FAKE_REQUIRE(in_use == cuda->device);
    FAKE_REQUIRE(!count || fake_is_device_memory(parts, (size_t)part_count * bytes));
    FAKE_REQUIRE(!count || fake_is_device_memory(out, bytes));
    FAKE_REQUIRE(out + count <= parts || parts + part_count * count <= out);
    sum *s = malloc(sizeof *s);
    if (!s) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a sum");
    *s = (sum){parts, part_count, count, out};
    fake_stream_add(&cuda->stream, run_sum, s);
    return CRIA_OK;
}
