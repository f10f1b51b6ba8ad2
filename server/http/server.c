/* The server: creation, the event loop, the end. */
#include "server/http/exchange.h"

#include "base/clock.h"
#include "server/http/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTION_BYTES = 32 * 1024, /* headers have to fit; half of it is touched by every connection */
    TICK_MS = 500,
    BACKLOG_TICK_MS = 5,
    IDLE_NS = 1000000000, /* how long a connection is idle before it may have to make room */
    SPARE = 64,           /* connections beyond the limit, on which that can be said */
    OTHER_FILES = 24      /* descriptors left for everything that is no connection */
};

/* ---- creation ---- */

static void fill_defaults(cria_server_config *c) {
    const struct {
        int64_t *value, fallback;
    } counts[] = {{&c->max_connections, 4096},  {&c->max_body_bytes, 16 << 20},
                  {&c->max_logprobs, 20},       {&c->max_n, 1024},
                  {&c->max_prompts, 1024},      {&c->max_sequences, 1024},
                  {&c->max_stop_strings, 16},   {&c->max_stop_bytes, 4096},
                  {&c->max_next_logprobs, 100}, {&c->stream_buffer_bytes, 64 << 10}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i) {
        if (*counts[i].value == 0) *counts[i].value = counts[i].fallback;
    }
    const struct {
        double *value, fallback;
    } times[] = {{&c->idle_seconds, 75},
                 {&c->request_seconds, 30},
                 {&c->write_seconds, 120},
                 {&c->drain_seconds, 30},
                 {&c->stall_seconds, 60}};
    for (size_t i = 0; i < sizeof times / sizeof *times; ++i) {
        if (*times[i].value == 0) *times[i].value = times[i].fallback;
    }
    if (!c->host) c->host = "127.0.0.1";
    if (!c->version) c->version = "0";
}

static cria_status check_config(const cria_server_config *c, cria_error *err) {
    if (!c->model_name_count || !c->model_names || !c->model_names[0]) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "the server needs at least one model name");
    }
    if (c->port < 0 || c->port > 65535) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "port %d is outside 0 .. 65535", c->port);
    }
    if (c->api_key && !c->api_key[0]) return cria_fail(err, CRIA_ERR_ARGUMENT, "the API key is empty");
    return CRIA_OK;
}

static void log_daemon(void *log, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

static void log_daemon(void *log, const char *format, va_list args) {
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = 0;
    cria_log_write(log, CRIA_LOG_DEBUG, "http: %s", text);
}

/* As many connections as were asked for, or as the process may have open files. */
static void limit_connections(cria_server *server) {
    struct rlimit files;
    size_t wanted = (size_t)server->config.max_connections, most = wanted + SPARE;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY) {
        size_t room = files.rlim_cur > 2 * OTHER_FILES ? (size_t)files.rlim_cur - OTHER_FILES : OTHER_FILES;
        if (room < most) most = room;
    }
    size_t spare = most / 8 < SPARE ? most / 8 : SPARE;
    server->most_sockets = most;
    server->most_busy = wanted < most - spare ? wanted : most - spare;
}

size_t cria_server_files(int64_t connections) {
    return (size_t)connections + SPARE + OTHER_FILES;
}

static cria_status start_daemon(cria_server *server, cria_error *err) {
    limit_connections(server);
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    const cria_server_config *c = &server->config;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, cria_exchange_handle, server, MHD_OPTION_EXTERNAL_LOGGER, log_daemon, server->log,
        MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_NOTIFY_COMPLETED, cria_exchange_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, cria_socket_notify, server, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)server->most_sockets, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(c->idle_seconds + 0.999),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
    if (!server->daemon) return cria_fail(err, CRIA_ERR_IO, "libmicrohttpd does not start");
    server->listen_fd = -1; /* the daemon's now */
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || info->epoll_fd < 0) return cria_fail(err, CRIA_ERR_IO, "libmicrohttpd has no epoll");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, info->epoll_fd, &event) < 0) {
        return cria_fail(err, CRIA_ERR_IO, "epoll_ctl: %s", strerror(errno));
    }
    return CRIA_OK;
}

static cria_status start(cria_server *server, cria_error *err) {
    CRIA_TRY(cria_mailbox_create(&server->mailbox, err));
    CRIA_TRY(cria_metrics_create(&server->metrics, err));
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll_fd < 0) return cria_fail(err, CRIA_ERR_IO, "epoll: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, cria_mailbox_fd(server->mailbox), &event) < 0) {
        return cria_fail(err, CRIA_ERR_IO, "epoll_ctl: %s", strerror(errno));
    }
    CRIA_TRY(cria_listen(server->config.host, server->config.port, &server->listen_fd, &server->port, err));
    return start_daemon(server, err);
}

cria_status cria_server_create(const cria_server_config *config, cria_log *log, cria_server **out, cria_error *err) {
    CRIA_TRY(check_config(config, err));
    cria_server *server = calloc(1, sizeof *server);
    if (!server) return cria_fail(err, CRIA_ERR_MEMORY, "server: out of memory");
    server->config = *config;
    fill_defaults(&server->config);
    server->log = log;
    server->listen_fd = server->epoll_fd = -1;
    server->api.config = &server->config;
    server->api.admit = cria_generate_admit;
    server->api.admit_context = server;
    server->api.started = (int64_t)time(NULL);
    snprintf(server->api.fingerprint, sizeof server->api.fingerprint, "cria-%.40s", server->config.version);
    pthread_mutex_init(&server->lock, NULL);
    cria_status status = start(server, err);
    if (status != CRIA_OK) {
        cria_server_destroy(server);
        return status;
    }
    *out = server;
    return CRIA_OK;
}

int cria_server_port(const cria_server *server) {
    return server->port;
}

/* ---- from other threads ---- */

cria_status cria_server_set_model(cria_server *server, const cria_server_model *model, cria_error *err) {
    cria_api trial = server->api; /* config and constants only: safe to read here */
    trial.model = NULL;
    trial.chat = NULL;
    CRIA_TRY(cria_api_set_model(&trial, model, err));
    pthread_mutex_lock(&server->lock);
    server->incoming = *model;
    server->incoming_api = trial;
    server->has_incoming = true;
    pthread_mutex_unlock(&server->lock);
    cria_mailbox_wake(server->mailbox);
    return CRIA_OK;
}

void cria_server_set_progress(cria_server *server, const char *text) {
    pthread_mutex_lock(&server->lock);
    snprintf(server->progress, sizeof server->progress, "%s", text);
    pthread_mutex_unlock(&server->lock);
}

void cria_server_deliver(void *server, cria_event *event) {
    cria_mailbox_put(((cria_server *)server)->mailbox, event);
}

void cria_server_stop(cria_server *server) {
    atomic_fetch_add(&server->stops, 1);
    cria_mailbox_wake(server->mailbox);
}

/* ---- the loop ---- */

static void take_model(cria_server *server) {
    pthread_mutex_lock(&server->lock);
    if (server->has_incoming) {
        server->model = server->incoming;
        server->api = server->incoming_api;
        server->api.model = &server->model;
        server->has_incoming = false;
    }
    pthread_mutex_unlock(&server->lock);
}

/* Senders that trickle: MHD's own time-out starts anew with every byte. */
static void check_slow_senders(cria_server *server, uint64_t now_ns) {
    uint64_t head_ns = (uint64_t)((server->config.idle_seconds + server->config.request_seconds) * 1e9);
    for (cria_socket *socket = server->sockets; socket; socket = socket->next) {
        const cria_exchange *exchange = socket->exchange;
        if (!exchange) {
            if (now_ns - socket->quiet_ns > head_ns) shutdown(socket->fd, SHUT_RDWR);
        } else if (exchange->receiving && now_ns > exchange->body_deadline_ns) {
            cria_socket_give_up(socket, socket->half_closed);
            shutdown(socket->fd, SHUT_RDWR);
        }
    }
}

/* At the limit nobody new is heard: those who have asked for nothing for the longest time make room. */
static void close_idle_sockets(cria_server *server, uint64_t now_ns) {
    if (server->socket_count < server->most_sockets) return;
    for (size_t left = server->most_sockets / 4 + 1; left; --left) {
        cria_socket *idlest = NULL;
        for (cria_socket *socket = server->sockets; socket; socket = socket->next) {
            if (socket->exchange || socket->hung_up || now_ns - socket->quiet_ns < IDLE_NS) continue;
            if (!idlest || socket->quiet_ns < idlest->quiet_ns) idlest = socket;
        }
        if (!idlest) return;
        idlest->hung_up = true;
        shutdown(idlest->fd, SHUT_RDWR);
    }
}

static bool drain_is_over(cria_server *server, uint64_t now_ns, bool hurry) {
    if (server->generations == 0) return true;
    if (!hurry && now_ns < server->drain_deadline_ns) return false;
    if (server->drain_deadline_ns != UINT64_MAX) {
        cria_generate_close_all(server);
        server->drain_deadline_ns = UINT64_MAX;
        server->last_words_ns = now_ns + 1000000000;
    }
    return now_ns > server->last_words_ns;
}

static void start_drain(cria_server *server, uint64_t now_ns) {
    server->draining = true;
    server->drain_deadline_ns = now_ns + (uint64_t)(server->config.drain_seconds * 1e9);
    if (!server->api.model) return; /* stopped while loading, or because that failed */
    cria_log_write(server->log, CRIA_LOG_INFO, "stopping: %zu requests are open, they have %.0f s", server->generations,
                   server->config.drain_seconds);
    cria_engine_drain(server->api.model->engine);
}

static int wait_ms(cria_server *server) {
    MHD_UNSIGNED_LONG_LONG timeout;
    int most = server->backlog ? BACKLOG_TICK_MS : TICK_MS;
    if (server->draining && most > 50) most = 50;
    if (server->socket_count >= server->most_sockets && most > 100) most = 100;
    if (MHD_get_timeout(server->daemon, &timeout) == MHD_YES && timeout < (unsigned)most) return (int)timeout;
    return most;
}

/* One round. *stop_ready: the caller's descriptor has something to read. */
static cria_status turn(cria_server *server, bool *stop_ready, cria_error *err) {
    struct epoll_event events[64];
    int count = epoll_wait(server->epoll_fd, events, 64, wait_ms(server));
    if (count < 0 && errno != EINTR) return cria_fail(err, CRIA_ERR_IO, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; ++i) {
        if (events[i].data.ptr == server) {
            *stop_ready = true;
        } else if (events[i].data.ptr) {
            /* Nothing before MHD_run frees a connection: the pointers of this round are good. */
            cria_socket_ends(events[i].data.ptr, events[i].events);
        }
    }
    take_model(server);
    cria_generate_deliver(server);
    cria_generate_pump(server);
    MHD_run(server->daemon);
    uint64_t now_ns = cria_clock_ns();
    if (now_ns - server->checked_ns > 200000000) {
        server->checked_ns = now_ns;
        check_slow_senders(server, now_ns);
        close_idle_sockets(server, now_ns);
    }
    return CRIA_OK;
}

/* Every suspended connection has to be resumed before the daemon may stop. */
static void stop_daemon(cria_server *server) {
    if (!server->daemon) return;
    server->closing = true;
    for (cria_exchange *exchange = server->exchanges; exchange; exchange = exchange->next) {
        if (!exchange->socket) continue;
        cria_generate_cancel(exchange);
        cria_exchange_resume(exchange);
    }
    MHD_run(server->daemon);
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
}

/* Takes one stop signal off the descriptor. */
static void read_stop(int stop_fd) {
    char bytes[256];
    if (read(stop_fd, bytes, sizeof bytes) < 0) return;
}

static cria_status loop(cria_server *server, int stop_fd, cria_error *err) {
    for (;;) {
        bool stop_ready = false;
        CRIA_TRY(turn(server, &stop_ready, err));
        uint64_t now_ns = cria_clock_ns();
        int stops = atomic_load(&server->stops);
        if (stop_ready) {
            read_stop(stop_fd);
            stops = atomic_fetch_add(&server->stops, 1) + 1;
        }
        if (stops && !server->draining) start_drain(server, now_ns);
        if (server->draining && drain_is_over(server, now_ns, stops > 1)) return CRIA_OK;
    }
}

cria_status cria_server_run(cria_server *server, int stop_fd, cria_error *err) {
    if (stop_fd >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = server};
        if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, stop_fd, &event) < 0) {
            return cria_fail(err, CRIA_ERR_IO, "epoll_ctl: %s", strerror(errno));
        }
    }
    cria_status status = loop(server, stop_fd, err);
    cria_mailbox_close(server->mailbox);
    if (stop_fd >= 0) epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, stop_fd, NULL);
    stop_daemon(server);
    return status;
}

void cria_server_destroy(cria_server *server) {
    if (!server) return;
    stop_daemon(server);
    if (server->mailbox) {
        /* What the engine said while it was destroyed: the last FINISH of every sequence. */
        cria_generate_deliver(server);
    }
    while (server->exchanges) {
        server->exchanges->open = 0;
        cria_exchange_release(server->exchanges);
    }
    cria_mailbox_destroy(server->mailbox);
    cria_metrics_destroy(server->metrics);
    if (server->has_incoming) cria_api_deinit(&server->incoming_api);
    cria_api_deinit(&server->api);
    if (server->listen_fd >= 0) close(server->listen_fd);
    if (server->epoll_fd >= 0) close(server->epoll_fd);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
