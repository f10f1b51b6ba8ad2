/* Progress on a terminal (one line drawn over) or in a log (a line after 1, 2, 4 ... seconds, then twice a minute). */
#include "base/progress.h"

#include "base/clock.h"
#include "base/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)
#define QUIET (SECOND * 3 / 10) /* work shorter than this prints nothing */
#define REDRAW (SECOND / 10)    /* between two states on a terminal */
#define LINE_FIRST SECOND       /* until the first line in a log */
#define LINE_LONGEST (30 * SECOND)

enum { BAR_CELLS = 24 };

struct cria_progress {
    FILE *stream;
    char *title, *unit;
    uint64_t total;
    uint64_t start_ns;
    bool terminal;
    atomic_uint_fast64_t done;
    atomic_uint_fast64_t next_ns; /* when to print next */
    pthread_mutex_t printing; /* guards the line, which is kept so that printing allocates nothing after the first */
    cria_text line;
};

cria_progress *cria_progress_create(FILE *stream, const char *title, const char *unit, uint64_t total) {
    if (!stream) return NULL;
    cria_progress *progress = calloc(1, sizeof *progress);
    if (!progress) return NULL;
    progress->title = strdup(title);
    progress->unit = strdup(unit);
    if (!progress->title || !progress->unit || pthread_mutex_init(&progress->printing, NULL) != 0) {
        free(progress->title);
        free(progress->unit);
        free(progress);
        return NULL;
    }
    progress->stream = stream;
    progress->total = total;
    progress->terminal = fileno(stream) >= 0 && isatty(fileno(stream));
    progress->start_ns = cria_clock_ns();
    atomic_init(&progress->next_ns, progress->start_ns + (progress->terminal ? QUIET : LINE_FIRST));
    cria_text_init(&progress->line);
    return progress;
}

/* "1.23 GB", or "12 layers". Powers of 1000, as disks and networks are sold. */
static void append_amount(cria_text *line, double amount, const char *unit) {
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};
    if (strcmp(unit, "B") != 0) {
        cria_text_printf(line, amount < 10 && amount != (double)(uint64_t)amount ? "%.1f %s" : "%.0f %s", amount, unit);
        return;
    }
    size_t step = 0;
    while (amount >= 999.5 && step + 1 < sizeof prefixes / sizeof *prefixes) {
        amount /= 1000;
        step++;
    }
    cria_text_printf(line, step && amount < 99.95 ? "%.1f %sB" : "%.0f %sB", amount, prefixes[step]);
}

static void append_duration(cria_text *line, double seconds) {
    if (seconds < 59.5) {
        cria_text_printf(line, "%.0f s", seconds);
    } else if (seconds < 3600) {
        cria_text_printf(line, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    } else if (seconds < 360000) {
        cria_text_printf(line, "%d h %02d min", (int)seconds / 3600, (int)seconds / 60 % 60);
    } else {
        cria_text_puts(line, "days");
    }
}

/* Builds the state into progress->line and writes it. `last`: the work is over. */
static void print_state(cria_progress *progress, uint64_t now_ns, bool last) {
    cria_text *line = &progress->line;
    uint64_t done = atomic_load_explicit(&progress->done, memory_order_relaxed);
    double seconds = cria_seconds_between(progress->start_ns, now_ns);
    double rate = seconds > 0 ? (double)done / seconds : 0;
    double part = progress->total ? (double)done / (double)progress->total : 0;
    if (part > 1) part = 1;
    cria_text_clear(line);
    if (progress->terminal) cria_text_puts(line, "\r");
    cria_text_printf(line, "%s: ", progress->title);
    if (progress->total) {
        if (progress->terminal) {
            int cells = (int)(part * BAR_CELLS);
            cria_text_printf(line, "[%.*s%.*s] ", cells, "########################", BAR_CELLS - cells,
                             "........................");
        }
        cria_text_printf(line, "%d%%, ", (int)(part * 100));
    }
    append_amount(line, (double)done, progress->unit);
    if (progress->total) {
        cria_text_puts(line, " of ");
        append_amount(line, (double)progress->total, progress->unit);
    }
    cria_text_puts(line, ", ");
    append_amount(line, rate, progress->unit);
    cria_text_puts(line, "/s, ");
    if (last) {
        append_duration(line, seconds);
    } else if (rate > 0 && progress->total > done) {
        append_duration(line, (double)(progress->total - done) / rate);
        cria_text_puts(line, " left");
    } else {
        append_duration(line, seconds);
        cria_text_puts(line, " so far");
    }
    if (progress->terminal) cria_text_puts(line, "\033[K"); /* the state before may have been longer */
    if (last || !progress->terminal) cria_text_puts(line, "\n");
    if (line->failed) return;
    fwrite(line->data, 1, line->length, progress->stream);
    fflush(progress->stream);
}

void cria_progress_advance(cria_progress *progress, uint64_t amount) {
    if (!progress) return;
    atomic_fetch_add_explicit(&progress->done, amount, memory_order_relaxed);
    uint64_t now = cria_clock_ns();
    uint_fast64_t due = atomic_load_explicit(&progress->next_ns, memory_order_relaxed);
    if (now < due) return;
    uint64_t pause = REDRAW;
    if (!progress->terminal) {
        pause = now - progress->start_ns; /* doubles the time since the start */
        if (pause > LINE_LONGEST) pause = LINE_LONGEST;
    }
    /* One of the threads that come here prints; the others go on with their work. */
    if (!atomic_compare_exchange_strong(&progress->next_ns, &due, now + pause)) return;
    if (pthread_mutex_trylock(&progress->printing) != 0) return;
    print_state(progress, now, false);
    pthread_mutex_unlock(&progress->printing);
}

void cria_progress_destroy(cria_progress *progress) {
    if (!progress) return;
    uint64_t now = cria_clock_ns();
    if (now - progress->start_ns >= QUIET) print_state(progress, now, true);
    pthread_mutex_destroy(&progress->printing);
    cria_text_deinit(&progress->line);
    free(progress->title);
    free(progress->unit);
    free(progress);
}
