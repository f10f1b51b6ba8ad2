/* Log: levelled lines to one stream, with a time stamp. An object that main makes and hands down; any thread. */
#ifndef CRIA_BASE_LOG_H
#define CRIA_BASE_LOG_H

#include <stdio.h>

typedef enum { CRIA_LOG_DEBUG, CRIA_LOG_INFO, CRIA_LOG_WARNING, CRIA_LOG_ERROR, CRIA_LOG_OFF } cria_log_level;

typedef struct cria_log cria_log;

/* Lines below `level` are dropped. The stream is borrowed. NULL if memory is out; every call accepts a NULL log. */
cria_log *cria_log_create(FILE *stream, cria_log_level level);
void cria_log_destroy(cria_log *log);
void cria_log_write(cria_log *log, cria_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
