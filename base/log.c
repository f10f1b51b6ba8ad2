/* Log lines: one write each, and nothing inside a message can start a line or move a terminal's cursor. */
#include "base/log.h"

#include "base/text.h"
#include "base/utf8.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

/* A message is cut here: what comes from outside may be of any length. */
enum { MESSAGE_BYTES = 4096 };

struct cria_log {
    FILE *stream;
    cria_log_level level;
    pthread_mutex_t writing;
};

cria_log *cria_log_create(FILE *stream, cria_log_level level) {
    cria_log *log = calloc(1, sizeof *log);
    if (!log || pthread_mutex_init(&log->writing, NULL) != 0) {
        free(log);
        return NULL;
    }
    log->stream = stream;
    log->level = level;
    return log;
}

void cria_log_destroy(cria_log *log) {
    if (!log) return;
    pthread_mutex_destroy(&log->writing);
    free(log);
}

static const char *level_name(cria_log_level level) {
    switch (level) {
    case CRIA_LOG_DEBUG:
        return "debug";
    case CRIA_LOG_INFO:
        return "info";
    case CRIA_LOG_WARNING:
        return "warning";
    case CRIA_LOG_ERROR:
        return "error";
    case CRIA_LOG_OFF:
        break;
    }
    return "log";
}

/* "2024-05-01T12:00:00.123Z info " */
static void append_head(cria_text *line, cria_log_level level) {
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    cria_text_printf(line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000, level_name(level));
}

/* Appends valid UTF-8 with control characters (C0, DEL and C1) escaped. */
static void append_escaped(cria_text *line, const char *bytes, size_t length) {
    for (size_t i = 0; i < length;) {
        uint32_t cp = 0;
        int n = cria_utf8_decode(bytes + i, length - i, &cp);
        if (cp == '\n') {
            cria_text_puts(line, "\\n");
        } else if ((cp < 0x20 && cp != '\t') || (cp >= 0x7F && cp < 0xA0)) {
            cria_text_printf(line, "\\x%02x", (unsigned)cp);
        } else {
            cria_text_append(line, bytes + i, (size_t)n);
        }
        i += (size_t)n;
    }
}

void cria_log_write(cria_log *log, cria_log_level level, const char *format, ...) {
    if (!log || level < log->level || level >= CRIA_LOG_OFF) return;
    char message[MESSAGE_BYTES], valid[3 * MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (wanted < 0) return;
    bool cut = (size_t)wanted >= sizeof message;
    size_t length = cut ? cria_utf8_complete_prefix(message, sizeof message - 1) : (size_t)wanted;
    length = cria_utf8_replace(message, length, valid);

    cria_text line;
    cria_text_init(&line);
    append_head(&line, level);
    append_escaped(&line, valid, length);
    cria_text_puts(&line, cut ? " ...\n" : "\n");
    if (!line.failed) {
        pthread_mutex_lock(&log->writing);
        fwrite(line.data, 1, line.length, log->stream);
        fflush(log->stream);
        pthread_mutex_unlock(&log->writing);
    }
    cria_text_deinit(&line);
}
