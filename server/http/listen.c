/* Binding a host name and port. */
#include "server/http/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int try_address(const struct addrinfo *address) {
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    if (fd < 0) return -1;
    int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

cria_status cria_listen(const char *host, int port, int *fd, int *actual, cria_error *err) {
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *list;
    int failure = getaddrinfo(host, service, &hints, &list);
    if (failure) return cria_fail(err, CRIA_ERR_IO, "host '%s' port %d: %s", host, port, gai_strerror(failure));
    *fd = -1;
    for (struct addrinfo *address = list; address && *fd < 0; address = address->ai_next) *fd = try_address(address);
    int saved = errno;
    freeaddrinfo(list);
    if (*fd < 0) return cria_fail(err, CRIA_ERR_IO, "cannot listen on %s port %d: %s", host, port, strerror(saved));
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    *actual = port;
    if (getsockname(*fd, (struct sockaddr *)&name, &length) == 0) {
        *actual = ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                                   : ((struct sockaddr_in *)&name)->sin_port);
    }
    return CRIA_OK;
}
