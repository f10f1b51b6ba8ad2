/* The page at "/": one HTML file without outside resources, built into the binary. Any thread. */
#ifndef CRIA_SERVER_PAGE_PAGE_H
#define CRIA_SERVER_PAGE_PAGE_H

#include <stddef.h>

const char *cria_page_html(size_t *length);

#endif
