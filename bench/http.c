/* What the server itself costs, without a model: cria_bench_http [STREAMS [TOKENS [STEP_MS]]].
 *
 * A model that samples by heart stands in for the real one and notes when it sampled each token. A client in a process
 * of its own keeps STREAMS streams open and notes when each token came out of its socket. Printed as JSON: time from
 * sampling to the client, CPU time of engine, HTTP and kernel per token, and resident memory per open stream. */
#include "base/clock.h"
#include "server/http/server.h"
#include "tests/http/toy_model.h"
#include "tests/http/toy_tokenizer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_STREAMS = 4096, MOST_TOKENS = 1024, BLOCK = 16, PROMPT = 1, BUFFER = 65536 };

/* Seen by both processes. Times are of CLOCK_MONOTONIC, 0 where nothing came. */
typedef struct {
    uint64_t sampled[MOST_STREAMS][MOST_TOKENS], came[MOST_STREAMS][MOST_TOKENS];
    atomic_int open, failed; /* streams whose first token has come; streams that ended early */
} shared;

typedef struct {
    toy_model toy;
    shared *seen;
} stamping_model;

static void die(const char *what) {
    fprintf(stderr, "cria_bench_http: %s\n", what);
    exit(1);
}

/* A stream's number travels as its seed. */
static cria_status stamping_step(void *self, const cria_batch *batch, cria_batch_result *result, cria_error *err) {
    stamping_model *model = self;
    CRIA_TRY(toy_step(&model->toy, batch, result, err));
    uint64_t now = cria_clock_ns();
    for (int32_t r = 0; r < batch->rows; r++) {
        uint64_t stream = batch->row[r].seed;
        int32_t token = batch->positions[batch->row_token[r]] - (PROMPT - 1);
        if (stream < MOST_STREAMS && token >= 0 && token < MOST_TOKENS) model->seen->sampled[stream][token] = now;
    }
    return CRIA_OK;
}

/* ---- the client ---- */

typedef struct {
    int fd, number, tokens;
    size_t matched; /* of EVENT, at the end of what has been read */
} stream;

static const char EVENT[] = "data: {";

static bool stream_open(stream *s, int number, int port, int tokens) {
    *s = (stream){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .number = number};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) != 0) return false;
    char body[256], request[512];
    int length = snprintf(body, sizeof body,
                          "{\"model\":\"toy\",\"prompt\":[97],\"temperature\":0,\"stream\":true,\"max_tokens\":%d,"
                          "\"seed\":%d}",
                          tokens, number);
    int n = snprintf(request, sizeof request,
                     "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\n\r\n%s",
                     length, body);
    return send(s->fd, request, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Every event is a token: EVENT shows in nothing else that the toy says. */
static void stream_take(stream *s, const char *data, ssize_t length, shared *seen) {
    uint64_t now = cria_clock_ns();
    for (ssize_t i = 0; i < length; i++) {
        s->matched = data[i] == EVENT[s->matched] ? s->matched + 1 : data[i] == EVENT[0];
        if (s->matched < sizeof EVENT - 1) continue;
        s->matched = 0;
        if (s->tokens < MOST_TOKENS) seen->came[s->number][s->tokens] = now;
        if (s->tokens++ == 0) atomic_fetch_add(&seen->open, 1);
    }
}

static int client(int port, int count, int tokens, shared *seen) {
    static stream streams[MOST_STREAMS];
    static char buffer[BUFFER];
    int epoll = epoll_create1(EPOLL_CLOEXEC), left = count;
    for (int i = 0; i < count; i++) {
        if (!stream_open(&streams[i], i, port, tokens)) return 1;
        struct epoll_event want = {.events = EPOLLIN, .data.ptr = &streams[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, streams[i].fd, &want);
    }
    while (left > 0) {
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, 30000);
        if (n <= 0) return 1;
        for (int i = 0; i < n; i++) {
            stream *s = events[i].data.ptr;
            ssize_t length = recv(s->fd, buffer, sizeof buffer, 0);
            if (length > 0) stream_take(s, buffer, length, seen);
            if (length > 0 && s->tokens < tokens) continue;
            if (s->tokens < tokens) atomic_fetch_add(&seen->failed, 1);
            close(s->fd);
            left--;
        }
    }
    return 0;
}

/* ---- the server ---- */

typedef struct {
    cria_server *server;
    cria_error error;
} serving;

static void *serve(void *argument) {
    serving *s = argument;
    if (cria_server_run(s->server, -1, &s->error) != CRIA_OK) die(s->error.message);
    return NULL;
}

/* Without what is shared with the client. */
static double resident_mb(void) {
    char line[256];
    double kb = -1;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file) die("/proc/self/status cannot be read");
    while (kb < 0 && fgets(line, sizeof line, file)) sscanf(line, "RssAnon: %lf", &kb);
    fclose(file);
    return kb / 1e3;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Percentiles of the time from sampling to the client, in ms; the first token of a stream apart, for it has to open. */
static void print_latency(const shared *seen, int count, int tokens) {
    double *all = malloc((size_t)count * (size_t)tokens * sizeof *all);
    size_t n = 0;
    if (!all) die("no memory");
    for (int s = 0; s < count; s++)
        for (int t = 1; t < tokens; t++)
            if (seen->came[s][t] && seen->sampled[s][t])
                all[n++] = 1e-6 * ((double)seen->came[s][t] - (double)seen->sampled[s][t]);
    if (n == 0) die("no token came");
    qsort(all, n, sizeof *all, compare);
    printf("\"tokens\":%zu,\"to_client_ms\":{\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"max\":%.3f}", n, all[n / 2],
           all[n * 9 / 10], all[n * 99 / 100], all[n - 1]);
    free(all);
}

/* Waits for the client while memory and CPU time are read: once all streams are open, and at the end. */
static void measure(pid_t child, const shared *seen, int count, int tokens, double step_ms, double idle_mb) {
    double open_mb = 0, cpu = cpu_seconds(), most = idle_mb;
    int status = 0;
    uint64_t start = cria_clock_ns();
    while (waitpid(child, &status, WNOHANG) == 0) {
        double now = resident_mb();
        if (now > most) most = now;
        if (open_mb == 0 && atomic_load(&seen->open) == count) open_mb = now;
        usleep(20000);
    }
    double seconds = cria_seconds_between(start, cria_clock_ns());
    cpu = cpu_seconds() - cpu;
    if (status != 0 || atomic_load(&seen->failed) > 0) die("the client failed or streams ended early");
    printf("{\"streams\":%d,\"tokens_each\":%d,\"step_ms\":%g,", count, tokens, step_ms);
    print_latency(seen, count, tokens);
    printf(",\"seconds\":%.3f,\"cpu_us_per_token\":%.3f", seconds, 1e6 * cpu / ((double)count * tokens));
    printf(",\"idle_mb\":%.2f,\"all_open_mb\":%.2f,\"most_mb\":%.2f,\"kb_per_stream\":%.2f}\n", idle_mb, open_mb, most,
           1e3 * (most - idle_mb) / count);
}

static cria_engine_config engine_config(int count) {
    return (cria_engine_config){
        .max_model_len = MOST_TOKENS + BLOCK,
        .block_tokens = BLOCK,
        .blocks = (int64_t)count * (MOST_TOKENS / BLOCK + 1),
        .vocab = TOY_VOCAB,
        .eos = {TOY_EOS},
        .eos_count = 1,
        .prefix_cache = true,
        .max_waiting = count,
        .max_waiting_prompt_tokens = 1 << 20,
        .limits = {.tokens = count > 512 ? count : 512,
                   .sequences = count,
                   .rows = count,
                   .blocks_per_sequence = MOST_TOKENS / BLOCK + 1,
                   .history = 65536,
                   .biases = 8192,
                   .allowed = 8192,
                   .top_logprobs = 100},
    };
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 64, tokens = argc > 2 ? atoi(argv[2]) : 256;
    double step_ms = argc > 3 ? atof(argv[3]) : 5;
    if (count < 1 || count > MOST_STREAMS || tokens < 2 || tokens > MOST_TOKENS || step_ms < 0)
        die("cria_bench_http [STREAMS <= 4096 [TOKENS 2..1024 [STEP_MS]]]");
    struct rlimit files = {3 * MOST_STREAMS, 3 * MOST_STREAMS};
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) die("the limit of open files cannot be raised");
    shared *seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED) die("no memory");
    const char *names[] = {"toy"};
    cria_server_config config = {.model_names = names, .model_name_count = 1, .max_connections = MOST_STREAMS + 16};
    cria_engine_config engine_limits = engine_config(count);
    cria_tokenizer tokenizer = {0};
    stamping_model model = {.toy = {.eos = TOY_EOS, .vocab = TOY_VOCAB}, .seen = seen};
    atomic_store(&model.toy.delay_us, (int)(1000 * step_ms));
    serving s = {0};
    cria_engine *engine;
    if (cria_server_create(&config, NULL, &s.server, &s.error) != CRIA_OK) die(s.error.message);
    pid_t child = fork(); /* before there are threads */
    if (child < 0) die("fork failed");
    if (child == 0) {
        usleep(300000);
        _exit(client(cria_server_port(s.server), count, tokens, seen));
    }
    cria_runner runner = {.self = &model, .step = stamping_step};
    if (cria_engine_create(&engine_limits, runner, cria_server_deliver, s.server, NULL, &engine, &s.error) != CRIA_OK)
        die(s.error.message);
    cria_server_model served = {.engine = engine,
                                .tokenizer = &tokenizer,
                                .max_model_len = engine_limits.max_model_len,
                                .vocab = TOY_VOCAB,
                                .eos = {TOY_EOS},
                                .eos_count = 1};
    if (cria_server_set_model(s.server, &served, &s.error) != CRIA_OK) die(s.error.message);
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, &s) != 0) die("no thread");
    usleep(100000);
    measure(child, seen, count, tokens, step_ms, resident_mb());
    cria_server_stop(s.server);
    cria_server_stop(s.server);
    pthread_join(thread, NULL);
    cria_engine_destroy(engine);
    cria_server_destroy(s.server);
    return 0;
}
