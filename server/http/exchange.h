/* Exchanges: one HTTP request and its answer, and the connection that they travel on. Private to http/; HTTP thread. */
#ifndef CRIA_SERVER_HTTP_EXCHANGE_H
#define CRIA_SERVER_HTTP_EXCHANGE_H

#include "base/text.h"
#include "server/api/generation.h"
#include "server/http/mailbox.h"
#include "server/http/server.h"
#include "server/metrics/metrics.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct cria_exchange cria_exchange;
typedef struct cria_socket cria_socket;
typedef struct cria_route cria_route;

/* A TCP connection, from accept to close. */
struct cria_socket {
    cria_server *server;
    struct MHD_Connection *connection;
    int fd;
    bool half_closed;        /* the client sends no more */
    bool hung_up;            /* and it does not read any more either, or is taken to have left */
    uint64_t quiet_ns;       /* since when there is no whole request: for slow senders */
    cria_exchange *exchange; /* the current one; NULL between requests */
    cria_socket *next, *previous;
};

typedef enum {
    CRIA_BODY,    /* headers are in, the body is coming */
    CRIA_WAITING, /* the engine works; the connection is suspended until there is something to say */
    CRIA_READY,   /* `status` and `out` are the whole answer */
    CRIA_STREAM,  /* events go out as they come */
    CRIA_SENT
} cria_exchange_state;

struct cria_exchange {
    cria_server *server;
    cria_socket *socket; /* NULL once MHD is done with the request; the engine may still owe events */
    const cria_route *route;
    cria_exchange_state state;
    const char *method, *url; /* MHD's, while `socket` is there */
    char request_id[72];
    bool named; /* request_id is the client's */
    cria_text body;
    bool misframed; /* where the request ends is in doubt: it is answered at once and the connection closed */
    bool receiving; /* the body is not all here */
    bool suspended; /* in MHD */
    uint64_t start_ns, body_deadline_ns;
    uint64_t complete_ns; /* when the last byte of the request was here */

    int status;
    const char *content_type;
    const char *allow; /* for 405 */
    int retry_after;
    bool challenge; /* WWW-Authenticate */
    bool preflight; /* it asks for the answer's CORS headers alone */
    cria_text out;  /* the answer, or the events not yet handed to MHD from out_position on */
    size_t out_position;
    bool ended; /* nothing more will be appended to `out` */

    cria_generation *generation;
    size_t submitted, open; /* sequences handed to the engine; those whose FINISH is not here yet */
    bool paused;            /* a slow reader: its sequences wait */
    bool counted;           /* in server->generations */
    cria_exchange *next, *previous;
};

struct cria_route {
    const char *method, *path; /* of several rows with the same path, each is one method */
    void (*handle)(cria_exchange *exchange);
    bool open; /* needs no API key */
    bool needs_model;
    bool queues; /* the engine's queue decides whether it is taken at all */
};

struct cria_server {
    cria_server_config config;
    cria_log *log;
    cria_api api;
    cria_mailbox *mailbox;
    cria_metrics *metrics;
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd, port;
    cria_socket *sockets;
    size_t socket_count, most_sockets; /* connections; MHD accepts no more */
    size_t busy_count, most_busy;      /* those with a request; one more is told so */
    cria_exchange *exchanges;
    size_t generations;     /* exchanges that generate and are not answered */
    size_t backlog;         /* sequences that wait for room in the engine */
    int64_t backlog_tokens; /* and their prompt tokens */
    bool draining, closing;
    uint64_t drain_deadline_ns, last_words_ns, checked_ns;

    pthread_mutex_t lock; /* over what other threads write: */
    cria_server_model incoming;
    cria_api incoming_api;
    bool has_incoming;
    char progress[128];
    atomic_int stops;
    cria_server_model model;
};

/* ---- exchange.c: life and MHD's callbacks ---- */
enum MHD_Result cria_exchange_handle(void *server, struct MHD_Connection *connection, const char *url,
                                     const char *method, const char *version, const char *upload_data,
                                     size_t *upload_data_size, void **context);
void cria_exchange_completed(void *server, struct MHD_Connection *connection, void **context,
                             enum MHD_RequestTerminationCode code);
void cria_socket_notify(void *server, struct MHD_Connection *connection, void **socket_context,
                        enum MHD_ConnectionNotificationCode code);
/* Answers a request whose body is not all here, on the bare socket: 400 where no more can come, else 408. */
void cria_socket_give_up(const cria_socket *socket, bool cut_off);
/* The kernel tells of the connection's end: EPOLLRDHUP, EPOLLHUP, EPOLLERR. */
void cria_socket_ends(cria_socket *socket, uint32_t events);
/* Makes MHD ask again: for the answer, or for the stream's next bytes. */
void cria_exchange_resume(cria_exchange *exchange);
/* Frees what neither MHD nor the engine knows of any more. */
void cria_exchange_release(cria_exchange *exchange);

/* ---- reply.c ---- */
/* The answer is this error. */
void cria_reply_error(cria_exchange *exchange, const cria_api_error *error);
void cria_reply_fail(cria_exchange *exchange, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The answer is what stands in `out`. */
void cria_reply_ready(cria_exchange *exchange, int status, const char *content_type);
/* Hands the answer, or the stream, to MHD. */
enum MHD_Result cria_reply_queue(cria_exchange *exchange);

/* ---- generate.c ---- */
void cria_generate_completion(cria_exchange *exchange);
void cria_generate_chat(cria_exchange *exchange);
void cria_generate_next(cria_exchange *exchange);
/* CRIA_OK, or why a request with so many prompt tokens would not be taken now: CRIA_ERR_FULL, CRIA_ERR_CLOSED. */
cria_status cria_generate_admit(void *server, int64_t prompt_tokens, cria_error *err);
/* The same for a request of which nothing is known yet; its answer then stands. False: refused. */
bool cria_generate_has_room(cria_exchange *exchange);
/* Takes everything out of the mailbox. */
void cria_generate_deliver(cria_server *server);
/* Submits sequences that waited for room. */
void cria_generate_pump(cria_server *server);
/* Pauses or resumes the exchange's sequences by how much its reader leaves unread. */
void cria_generate_balance(cria_exchange *exchange);
/* Tells the engine to stop all of its sequences. */
void cria_generate_cancel(cria_exchange *exchange);
/* Ends every open generation with 503. */
void cria_generate_close_all(cria_server *server);

/* ---- cors.c ---- */
/* A browser asks what a page of another origin may send. True: the answer stands. */
bool cria_cors_preflight(cria_exchange *exchange);
/* Lets that page read the answer, where its origin is allowed. */
void cria_cors_headers(const cria_exchange *exchange, struct MHD_Response *response);

/* ---- routes.c, auth.c ---- */
/* The route of a path and method; else NULL, and *allow names the path's methods (NULL: no such path). */
const cria_route *cria_route_find(const char *method, const char *url, const char **allow);
/* The Authorization header carries the server's key: "Bearer KEY", or "Basic" with KEY as the password. Takes the same
 * time for every wrong key of a length. */
bool cria_authorized(const char *api_key, const char *header);

#endif
