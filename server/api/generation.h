/* Generation: one HTTP request that makes the model write, from its body to its last byte of output. Knows nothing of
 * sockets: it reads JSON, makes the engine's requests, takes in events and appends output. Only the HTTP thread. */
#ifndef CRIA_SERVER_API_GENERATION_H
#define CRIA_SERVER_API_GENERATION_H

#include "server/api/choice.h"
#include "server/api/error.h"

typedef enum { CRIA_API_COMPLETION, CRIA_API_CHAT, CRIA_API_NEXT } cria_api_kind; /* NEXT: Alpa's /logprobs */

typedef struct {
    const cria_api *api;
    cria_api_kind kind;
    cria_params params;
    cria_prompts prompts;
    char id[96];       /* "cmpl-..." as shown; the engine has ids of its own */
    char cache_id[40]; /* NEXT */
    int64_t created;
    cria_choice *choices; /* [choice_count], prompt by prompt, best_of each */
    size_t choice_count, done_count;
    char role[16];    /* chat: of the message that is written */
    cria_text prefix; /* chat with echo: what stands before it */
    bool begun;       /* the chat stream's role chunks are out */
    bool failed;      /* the engine gave up: `error` says why */
    cria_api_error error;
} cria_generation;

/* Reads and checks everything; nothing has gone to the engine yet. `label`: a client's name for the request, part of
 * the id shown; may be NULL. */
cria_status cria_generation_create(const cria_api *api, cria_api_kind kind, const char *body, size_t length,
                                   const char *label, cria_generation **out, cria_api_error *err);
void cria_generation_destroy(cria_generation *generation);

/* What choice `i` asks of the engine; its `user` is the choice. NULL if memory is out. */
cria_request *cria_generation_request(cria_generation *generation, size_t i);

/* Takes in an event of choice `i` and, when streaming, appends the chunks that follow from it. True if the sequence is
 * to be cancelled because its text has ended. The event stays the caller's. */
bool cria_generation_event(cria_generation *generation, size_t i, const cria_event *event, cria_text *out);
/* Every choice has ended, or the engine failed. */
bool cria_generation_done(const cria_generation *generation);
/* Once done: the whole body, or the last chunks of a stream with its [DONE]. A failed one gets its error: as a chunk
 * when streaming, else as a body for error.status. */
void cria_generation_end(cria_generation *generation, cria_text *out);
/* Ends a generation for a reason of the server's own. */
void cria_generation_fail(cria_generation *generation, const cria_api_error *error);

#endif
