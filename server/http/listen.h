/* The listening socket. */
#ifndef CRIA_SERVER_HTTP_LISTEN_H
#define CRIA_SERVER_HTTP_LISTEN_H

#include "base/error.h"

/* Binds and listens; port 0 lets the system choose, *actual tells. Non-blocking. */
cria_status cria_listen(const char *host, int port, int *fd, int *actual, cria_error *err);

#endif
