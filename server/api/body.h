/* Request bodies: JSON objects of bounded size. */
#ifndef CRIA_SERVER_API_BODY_H
#define CRIA_SERVER_API_BODY_H

#include "base/json.h"
#include "server/api/error.h"

/* CRIA_OK only for an object; destroy *out. */
cria_status cria_body_parse(const char *body, size_t length, cria_json **out, cria_api_error *err);

#endif
