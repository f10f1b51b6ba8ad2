/* API context: what every request is checked against. Plain data, made once by the server; read by its thread. */
#ifndef CRIA_SERVER_API_API_H
#define CRIA_SERVER_API_API_H

#include "server/http/server.h"

typedef struct cria_chat_template cria_chat_template;

typedef struct {
    const cria_server_config *config; /* with every default filled in */
    const cria_server_model *model;   /* NULL while loading */
    int64_t vocab;
    size_t longest_token;     /* bytes of the longest vocabulary entry: bounds a prompt's ids from below */
    cria_chat_template *chat; /* NULL: the chat route is an error that says chat_error */
    char chat_error[256];
    /* Asked before the first prompt of a request is tokenized, with the fewest ids it can have: CRIA_OK, or why the
     * request is refused. NULL: nothing is. */
    cria_status (*admit)(void *context, int64_t prompt_tokens, cria_error *err);
    void *admit_context;
    char fingerprint[64]; /* system_fingerprint */
    int64_t started;      /* Unix seconds */
} cria_api;

/* Fills in what follows from the model; an unknown --chat-template is CRIA_ERR_ARGUMENT. */
cria_status cria_api_set_model(cria_api *api, const cria_server_model *model, cria_error *err);
void cria_api_deinit(cria_api *api);

#endif
