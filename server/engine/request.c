/* Requests and events: plain data with one owner at a time. */
#include "server/engine/request.h"

#include <stdlib.h>

cria_request *cria_request_create(void) {
    cria_request *request = calloc(1, sizeof *request);
    if (!request) return NULL;
    request->sampling = (cria_sampling){
        .temperature = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
        .max_tokens = 16,
        .logprobs = -1,
        .prompt_logprobs = -1,
    };
    return request;
}

void cria_request_destroy(cria_request *request) {
    if (!request) return;
    free(request->prompt);
    free(request->stop_ids);
    free(request->biases);
    free(request->allowed);
    free(request->bad_words);
    free(request->bad_lengths);
    free(request);
}

void cria_event_destroy(cria_event *event) {
    free(event); /* its arrays lie behind it in the same allocation */
}
