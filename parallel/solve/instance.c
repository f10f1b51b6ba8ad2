/* Reading contest instances: one pass over the text, inflated piece by piece, into ragged arrays of whole numbers. */
#include "parallel/solve/instance.h"

#include "base/checked.h"
#include "base/file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { CHUNK = 1 << 18, MOST_NESTING = 64, KEY_BYTES = 32 };
#define MOST_TEXT (UINT64_C(1) << 31)
#define MOST_NUMBERS ((size_t)1 << 28)

/* The text: `next` to `end` is at hand, more comes from refill. */
typedef struct {
    const uint8_t *next, *end, *start;
    uint64_t before; /* bytes of the text before `start` */
    z_stream zip;
    bool compressed, inflated;
    uint8_t *chunk;
    size_t numbers; /* that there is room for in the tables */
    const cria_until *until;
    cria_error *err;
} reader;

/* Rows of whole numbers: row i is values[offset[i]..offset[i + 1]). */
typedef struct {
    const char *name; /* "node", "edge": what a row belongs to */
    const char *what; /* "costs" */
    int64_t *values;
    size_t *offset;
    size_t used, room, rows, rows_room;
    bool present;
} table;

typedef struct {
    table intervals, costs, usages, ends, edge_costs;
    int64_t limit;
    bool has_limit;
} instance;

static cria_status check_time(const reader *in) {
    if (!cria_until_over(in->until)) return CRIA_OK;
    return cria_fail(in->err, CRIA_ERR_CLOSED, "the time was over after %llu bytes of text",
                     (unsigned long long)(in->before + (uint64_t)(in->next - in->start)));
}

static cria_status refill(reader *in, bool *more) {
    *more = false;
    if (!in->compressed || in->inflated) return CRIA_OK;
    in->before += (uint64_t)(in->end - in->start);
    in->zip.next_out = in->chunk;
    in->zip.avail_out = CHUNK;
    while (in->zip.avail_out == CHUNK && !in->inflated) {
        int status = inflate(&in->zip, Z_NO_FLUSH);
        if (status == Z_STREAM_END) {
            /* gzip files may be several members one after the other */
            if (in->zip.avail_in == 0)
                in->inflated = true;
            else if (inflateReset(&in->zip) != Z_OK)
                return cria_fail(in->err, CRIA_ERR_FORMAT, "cannot go on after a gzip member");
        } else if (status != Z_OK) {
            return cria_fail(in->err, CRIA_ERR_FORMAT, "gzip data is damaged or cut off after %llu bytes of text",
                             (unsigned long long)in->before);
        }
    }
    in->start = in->next = in->chunk;
    in->end = in->chunk + (CHUNK - in->zip.avail_out);
    if (in->before > MOST_TEXT)
        return cria_fail(in->err, CRIA_ERR_UNSUPPORTED, "the inflated text has over %llu bytes",
                         (unsigned long long)MOST_TEXT);
    CRIA_TRY(check_time(in));
    *more = in->end > in->next;
    return CRIA_OK;
}

/* The next byte without taking it; 0 at the end of the text (a NUL inside it is not JSON anyway). */
static inline cria_status peek(reader *in, int *byte) {
    if (in->next == in->end) {
        bool more;
        CRIA_TRY(refill(in, &more));
        if (!more) {
            *byte = 0;
            return CRIA_OK;
        }
    }
    *byte = *in->next;
    return CRIA_OK;
}

static inline bool is_space(int byte) {
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

static inline cria_status peek_token(reader *in, int *byte) {
    do {
        while (in->next < in->end && is_space(*in->next)) in->next++;
        CRIA_TRY(peek(in, byte));
    } while (is_space(*byte));
    return CRIA_OK;
}

static cria_status unexpected(reader *in, int byte, const char *wanted) {
    unsigned long long at = in->before + (uint64_t)(in->next - in->start);
    if (byte == 0 && in->next == in->end)
        return cria_fail(in->err, CRIA_ERR_FORMAT, "ends at byte %llu where %s was expected", at, wanted);
    return cria_fail(in->err, CRIA_ERR_FORMAT, "byte %llu is 0x%02x where %s was expected", at, (unsigned)byte, wanted);
}

static cria_status expect(reader *in, char byte, const char *wanted) {
    int found;
    CRIA_TRY(peek_token(in, &found));
    if (found != byte) return unexpected(in, found, wanted);
    in->next++;
    return CRIA_OK;
}

/* After an element: takes ',' (more) or `close` (done). */
static inline cria_status more_elements(reader *in, char close, bool *more) {
    int byte;
    CRIA_TRY(peek_token(in, &byte));
    if (byte != ',' && byte != close) return unexpected(in, byte, close == ']' ? "',' or ']'" : "',' or '}'");
    in->next++;
    *more = byte == ',';
    return CRIA_OK;
}

/* A string into key[KEY_BYTES] (cut; escapes are kept as they are, no known key has any). NULL: only skipped. */
static cria_status read_string(reader *in, char *key) {
    size_t length = 0;
    CRIA_TRY(expect(in, '"', "'\"'"));
    for (bool escaped = false;;) {
        int byte;
        CRIA_TRY(peek(in, &byte));
        if (byte < 0x20) return unexpected(in, byte, "a character of a string");
        in->next++;
        if (byte == '"' && !escaped) break;
        escaped = byte == '\\' && !escaped;
        if (key && length < KEY_BYTES - 1) key[length++] = (char)byte;
    }
    if (key) key[length] = 0;
    return CRIA_OK;
}

/* Any value of a key that is not known. Brackets are matched by kind through a stack of MOST_NESTING. */
static cria_status skip_value(reader *in, int depth) {
    int byte;
    if (depth <= 1) CRIA_TRY(check_time(in));
    CRIA_TRY(peek_token(in, &byte));
    if (byte == '"') return read_string(in, NULL);
    if (byte == '[' || byte == '{') {
        if (depth == MOST_NESTING)
            return cria_fail(in->err, CRIA_ERR_FORMAT, "values are nested deeper than %d", MOST_NESTING);
        char close = byte == '[' ? ']' : '}';
        in->next++;
        CRIA_TRY(peek_token(in, &byte));
        if (byte == close) {
            in->next++;
            return CRIA_OK;
        }
        for (bool more = true; more;) {
            if (close == '}') {
                CRIA_TRY(read_string(in, NULL));
                CRIA_TRY(expect(in, ':', "':'"));
            }
            CRIA_TRY(skip_value(in, depth + 1));
            CRIA_TRY(more_elements(in, close, &more));
        }
        return CRIA_OK;
    }
    int taken = 0;
    while ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || byte == '-' || byte == '+' || byte == '.' ||
           byte == 'E') {
        in->next++;
        taken++;
        CRIA_TRY(peek(in, &byte));
    }
    return taken ? CRIA_OK : unexpected(in, byte, "a value");
}

/* One whole number; 10^18 and more read as CRIA_COST_FORBIDDEN only in costs, so that the range is checked later. */
static inline cria_status read_number(reader *in, int64_t *out) {
    int byte;
    CRIA_TRY(peek_token(in, &byte));
    bool negative = byte == '-';
    if (negative) {
        in->next++;
        CRIA_TRY(peek(in, &byte));
    }
    if (byte < '0' || byte > '9') return unexpected(in, byte, "a whole number");
    uint64_t value = 0;
    int digits = 0;
    while (byte >= '0' && byte <= '9') {
        value = value * 10 + (uint64_t)(byte - '0');
        if (++digits > 19 || value > INT64_MAX)
            return cria_fail(in->err, CRIA_ERR_ARGUMENT, "a number before byte %llu is over %lld",
                             (unsigned long long)(in->before + (uint64_t)(in->next - in->start)), (long long)INT64_MAX);
        in->next++;
        if (in->next < in->end)
            byte = *in->next;
        else
            CRIA_TRY(peek(in, &byte));
    }
    if (byte == '.' || byte == 'e' || byte == 'E') return unexpected(in, byte, "the end of a whole number");
    *out = negative ? -(int64_t)value : (int64_t)value;
    return CRIA_OK;
}

static cria_status make_room(reader *in, table *t) {
    if (t->used == t->room) {
        size_t room = t->room ? t->room * 2 : 1024, bytes;
        in->numbers += room - t->room;
        if (in->numbers > MOST_NUMBERS)
            return cria_fail(in->err, CRIA_ERR_UNSUPPORTED, "%s %zu: its %s make more than %zu numbers", t->name,
                             t->rows, t->what, MOST_NUMBERS);
        int64_t *bigger = cria_mul_size(room, sizeof *bigger, &bytes) ? realloc(t->values, bytes) : NULL;
        if (!bigger)
            return cria_fail(in->err, CRIA_ERR_MEMORY, "%s %zu: no memory for its %s", t->name, t->rows, t->what);
        t->values = bigger;
        t->room = room;
    }
    return CRIA_OK;
}

static cria_status begin_row(reader *in, table *t) {
    if (t->rows + 2 > t->rows_room) {
        size_t room = t->rows_room ? t->rows_room * 2 : 256, bytes;
        size_t *bigger = cria_mul_size(room, sizeof *bigger, &bytes) ? realloc(t->offset, bytes) : NULL;
        if (!bigger)
            return cria_fail(in->err, CRIA_ERR_MEMORY, "%s %zu: no memory for its %s", t->name, t->rows, t->what);
        t->offset = bigger;
        t->rows_room = room;
    }
    if (t->rows > INT_MAX / 8)
        return cria_fail(in->err, CRIA_ERR_ARGUMENT, "more than %d rows of %s", INT_MAX / 8, t->what);
    t->offset[t->rows] = t->used;
    return CRIA_OK;
}

static cria_status read_row(reader *in, table *t) {
    int byte;
    CRIA_TRY(begin_row(in, t));
    CRIA_TRY(expect(in, '[', "'['"));
    CRIA_TRY(peek_token(in, &byte));
    if (byte == ']') {
        in->next++;
    } else {
        for (bool more = true; more;) {
            CRIA_TRY(make_room(in, t));
            CRIA_TRY(read_number(in, &t->values[t->used]));
            t->used++;
            CRIA_TRY(more_elements(in, ']', &more));
        }
    }
    t->rows++;
    t->offset[t->rows] = t->used;
    return CRIA_OK;
}

/* [[1, 2], [3], ...]; an error inside a row names the node or edge. */
static cria_status read_table(reader *in, table *t) {
    int byte;
    if (t->present) return cria_fail(in->err, CRIA_ERR_FORMAT, "%ss have two arrays of %s", t->name, t->what);
    t->present = true;
    CRIA_TRY(expect(in, '[', "'['"));
    CRIA_TRY(peek_token(in, &byte));
    if (byte == ']') {
        in->next++;
        return CRIA_OK;
    }
    for (bool more = true; more;) {
        if (t->rows % 64 == 63) CRIA_TRY(check_time(in));
        cria_status status = read_row(in, t);
        if (status != CRIA_OK) {
            if (status == CRIA_ERR_CLOSED) return status;
            char prefix[64];
            snprintf(prefix, sizeof prefix, "%s %zu: %s", t->name, t->rows, t->what);
            return cria_fail_within(in->err, prefix);
        }
        CRIA_TRY(more_elements(in, ']', &more));
    }
    return CRIA_OK;
}

/* {"key": value, ...}: every value is read by take(in, key, context) or skipped where that says so. */
static cria_status read_object(reader *in, cria_status (*take)(reader *, const char *, instance *, bool *),
                               instance *to) {
    int byte;
    CRIA_TRY(expect(in, '{', "'{'"));
    CRIA_TRY(peek_token(in, &byte));
    if (byte == '}') {
        in->next++;
        return CRIA_OK;
    }
    for (bool more = true; more;) {
        char key[KEY_BYTES];
        bool known = false;
        CRIA_TRY(read_string(in, key));
        CRIA_TRY(expect(in, ':', "':'"));
        CRIA_TRY(take(in, key, to, &known));
        if (!known) CRIA_TRY(skip_value(in, 0));
        CRIA_TRY(more_elements(in, '}', &more));
    }
    return CRIA_OK;
}

static cria_status take_nodes(reader *in, const char *key, instance *to, bool *known) {
    *known = true;
    if (strcmp(key, "intervals") == 0) return read_table(in, &to->intervals);
    if (strcmp(key, "costs") == 0) return read_table(in, &to->costs);
    if (strcmp(key, "usages") == 0) return read_table(in, &to->usages);
    *known = false;
    return CRIA_OK;
}

static cria_status take_edges(reader *in, const char *key, instance *to, bool *known) {
    *known = true;
    if (strcmp(key, "nodes") == 0) return read_table(in, &to->ends);
    if (strcmp(key, "costs") == 0) return read_table(in, &to->edge_costs);
    *known = false;
    return CRIA_OK;
}

static cria_status take_problem(reader *in, const char *key, instance *to, bool *known) {
    *known = true;
    if (strcmp(key, "nodes") == 0) return read_object(in, take_nodes, to);
    if (strcmp(key, "edges") == 0) return read_object(in, take_edges, to);
    if (strcmp(key, "usage_limit") == 0) {
        to->has_limit = true;
        return read_number(in, &to->limit);
    }
    *known = false;
    return CRIA_OK;
}

static cria_status take_file(reader *in, const char *key, instance *to, bool *known) {
    *known = strcmp(key, "problem") == 0;
    return *known ? read_object(in, take_problem, to) : CRIA_OK;
}

static size_t row_length(const table *t, size_t row) {
    return t->offset[row + 1] - t->offset[row];
}

static cria_status check_rows(const table *t, size_t rows, cria_error *err) {
    if (!t->present) return cria_fail(err, CRIA_ERR_FORMAT, "%ss have no %s", t->name, t->what);
    if (t->rows != rows)
        return cria_fail(err, CRIA_ERR_FORMAT, "%s %zu: there are %zu rows of %s for %zu %ss", t->name,
                         t->rows < rows ? t->rows : rows, t->rows, t->what, rows, t->name);
    return CRIA_OK;
}

static cria_status build_nodes(const instance *from, cria_problem *problem, cria_error *err) {
    size_t count = from->costs.rows;
    for (size_t v = 0; v < count; v++) {
        size_t strategies = row_length(&from->costs, v);
        if (row_length(&from->intervals, v) != 2)
            return cria_fail(err, CRIA_ERR_FORMAT, "node %zu: its interval has %zu numbers, not 2", v,
                             row_length(&from->intervals, v));
        if (row_length(&from->usages, v) != strategies)
            return cria_fail(err, CRIA_ERR_FORMAT, "node %zu: has %zu costs, but %zu usages", v, strategies,
                             row_length(&from->usages, v));
        if (strategies > INT_MAX)
            return cria_fail(err, CRIA_ERR_ARGUMENT, "node %zu: has %zu strategies", v, strategies);
        const int64_t *interval = from->intervals.values + from->intervals.offset[v];
        if (cria_problem_node(problem, (int)strategies, from->costs.values + from->costs.offset[v],
                              from->usages.values + from->usages.offset[v], interval[0], interval[1], err) < 0)
            return err ? err->status : CRIA_ERR_ARGUMENT;
    }
    return CRIA_OK;
}

static cria_status build_edges(const instance *from, cria_problem *problem, cria_error *err) {
    for (size_t e = 0; e < from->ends.rows; e++) {
        if (row_length(&from->ends, e) != 2)
            return cria_fail(err, CRIA_ERR_FORMAT, "edge %zu: joins %zu nodes, not 2", e, row_length(&from->ends, e));
        const int64_t *ends = from->ends.values + from->ends.offset[e];
        int64_t nodes = cria_problem_nodes(problem);
        for (int k = 0; k < 2; k++)
            if (ends[k] < 0 || ends[k] >= nodes)
                return cria_fail(err, CRIA_ERR_FORMAT, "edge %zu: names node %lld, but there are %lld nodes", e,
                                 (long long)ends[k], (long long)nodes);
        int a = (int)ends[0], b = (int)ends[1];
        size_t wanted = (size_t)cria_problem_strategies(problem, a) * (size_t)cria_problem_strategies(problem, b);
        if (row_length(&from->edge_costs, e) != wanted)
            return cria_fail(err, CRIA_ERR_FORMAT, "edge %zu: has %zu costs for %d x %d strategies", e,
                             row_length(&from->edge_costs, e), cria_problem_strategies(problem, a),
                             cria_problem_strategies(problem, b));
        CRIA_TRY(cria_problem_edge(problem, a, b, from->edge_costs.values + from->edge_costs.offset[e], err));
    }
    return CRIA_OK;
}

static cria_status build(const instance *from, cria_problem **out, cria_error *err) {
    if (!from->costs.present) return cria_fail(err, CRIA_ERR_FORMAT, "nodes have no costs");
    if (!from->has_limit) return cria_fail(err, CRIA_ERR_FORMAT, "has no usage_limit");
    if (from->limit < 0)
        return cria_fail(err, CRIA_ERR_ARGUMENT, "usage_limit is %lld, below 0", (long long)from->limit);
    CRIA_TRY(check_rows(&from->intervals, from->costs.rows, err));
    CRIA_TRY(check_rows(&from->usages, from->costs.rows, err));
    if (from->ends.present || from->edge_costs.present) {
        CRIA_TRY(check_rows(&from->ends, from->ends.rows, err));
        CRIA_TRY(check_rows(&from->edge_costs, from->ends.rows, err));
    }
    cria_problem *problem;
    CRIA_TRY(cria_problem_create(from->limit, &problem, err));
    cria_status status = build_nodes(from, problem, err);
    if (status == CRIA_OK) status = build_edges(from, problem, err);
    if (status != CRIA_OK) cria_problem_destroy(problem);
    if (status == CRIA_OK) *out = problem;
    return status;
}

static cria_status read_all(reader *in, instance *to) {
    int byte;
    CRIA_TRY(read_object(in, take_file, to));
    CRIA_TRY(peek_token(in, &byte));
    if (byte != 0 || in->next != in->end) return unexpected(in, byte, "the end");
    return CRIA_OK;
}

static cria_status open_reader(reader *in, const uint8_t *bytes, size_t size) {
    in->start = in->next = in->end = bytes;
    in->compressed = size >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
    if (!in->compressed) {
        if (size) in->end = bytes + size;
        return CRIA_OK;
    }
    if (size > UINT_MAX)
        return cria_fail(in->err, CRIA_ERR_UNSUPPORTED, "compressed data of %zu bytes is too long", size);
    in->zip.next_in = (Bytef *)(uintptr_t)bytes;
    in->zip.avail_in = (uInt)size;
    in->chunk = malloc(CHUNK);
    /* 15 + 16: the largest window, with a gzip header */
    if (!in->chunk || inflateInit2(&in->zip, 15 + 16) != Z_OK)
        return cria_fail(in->err, CRIA_ERR_MEMORY, "no memory to inflate %zu bytes", size);
    return CRIA_OK;
}

cria_status cria_instance_read(const uint8_t *bytes, size_t size, const cria_until *until, cria_problem **out,
                               cria_error *err) {
    cria_error local = {0};
    reader in = {.err = err ? err : &local, .until = until};
    instance from = {.intervals = {.name = "node", .what = "intervals"},
                     .costs = {.name = "node", .what = "costs"},
                     .usages = {.name = "node", .what = "usages"},
                     .ends = {.name = "edge", .what = "nodes"},
                     .edge_costs = {.name = "edge", .what = "costs"}};
    cria_status status = open_reader(&in, bytes, size);
    if (status == CRIA_OK) status = read_all(&in, &from);
    if (in.compressed) inflateEnd(&in.zip);
    free(in.chunk);
    if (status == CRIA_OK) status = check_time(&in);
    if (status == CRIA_OK) status = build(&from, out, in.err);
    table *tables[] = {&from.intervals, &from.costs, &from.usages, &from.ends, &from.edge_costs};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        free(tables[i]->values);
        free(tables[i]->offset);
    }
    return status;
}

cria_status cria_instance_open(const char *path, const cria_until *until, cria_problem **out, cria_error *err) {
    cria_mapping mapping;
    CRIA_TRY(cria_mapping_open(path, &mapping, err));
    cria_status status = cria_instance_read(mapping.data, mapping.size, until, out, err);
    cria_mapping_close(&mapping);
    return status == CRIA_OK ? CRIA_OK : cria_fail_within(err, path);
}
