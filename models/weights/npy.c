/* NPY: one array per file, as Alpa's weight folders hold them (numpy's format versions 1 to 3). */
#include "models/weights/reader.h"

#include <ctype.h>

enum { HEADER_LIMIT = 64 << 10 };

/* A cursor over the header, a Python dict literal. */
typedef struct {
    const char *at, *end;
} npy_text;

static void skip_space(npy_text *t) {
    while (t->at < t->end && isspace((unsigned char)*t->at)) t->at++;
}

static bool take_char(npy_text *t, char c) {
    skip_space(t);
    if (t->at == t->end || *t->at != c) return false;
    t->at++;
    return true;
}

/* A quoted string without escapes, cut to the room there is. */
static bool take_quoted(npy_text *t, char *out, size_t size) {
    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) return false;
    char quote = *t->at++;
    size_t n = 0;
    while (t->at < t->end && *t->at != quote) {
        if (*t->at == '\\' || n + 1 == size) return false;
        out[n++] = *t->at++;
    }
    out[n] = 0;
    return take_char(t, quote);
}

static bool take_bool(npy_text *t, bool *out) {
    skip_space(t);
    size_t left = (size_t)(t->end - t->at);
    *out = left >= 4 && memcmp(t->at, "True", 4) == 0;
    if (!*out && !(left >= 5 && memcmp(t->at, "False", 5) == 0)) return false;
    t->at += *out ? 4 : 5;
    return true;
}

static bool take_number(npy_text *t, int64_t *out) {
    skip_space(t);
    const char *begin = t->at;
    *out = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, *t->at - '0', out)) return false;
    }
    return t->at > begin;
}

/* "(3, 4)", "(3,)" or "()". */
static bool take_shape(npy_text *t, cria_weight_view *view) {
    view->dims = 0;
    if (!take_char(t, '(')) return false;
    while (!take_char(t, ')')) {
        if (view->dims == CRIA_WEIGHT_MAX_DIMS || !take_number(t, &view->shape[view->dims])) return false;
        view->dims++;
        if (take_char(t, ',')) continue;
        return view->dims > 1 && take_char(t, ')');
    }
    return true;
}

/* The three keys in any order. */
static bool parse_header(npy_text *t, char *descr, size_t descr_size, bool *fortran, cria_weight_view *view) {
    unsigned seen = 0;
    if (!take_char(t, '{')) return false;
    while (!take_char(t, '}')) {
        char key[32];
        unsigned bit;
        if (!take_quoted(t, key, sizeof key) || !take_char(t, ':')) return false;
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            if (!take_quoted(t, descr, descr_size)) return false;
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 2;
            if (!take_bool(t, fortran)) return false;
        } else if (strcmp(key, "shape") == 0) {
            bit = 4;
            if (!take_shape(t, view)) return false;
        } else {
            return false;
        }
        if (seen & bit) return false;
        seen |= bit;
        if (take_char(t, ',')) continue;
        if (!take_char(t, '}')) return false;
        break;
    }
    skip_space(t);
    return seen == 7 && t->at == t->end;
}

static bool type_of(const char *descr, cria_type *out) {
    static const struct {
        const char *descr;
        cria_type type;
    } types[] = {{"<f2", CRIA_F16}, {"<f4", CRIA_F32}, {"<f8", CRIA_F64}, {"|i1", CRIA_I8},  {"|u1", CRIA_U8},
                 {"<i2", CRIA_I16}, {"<i4", CRIA_I32}, {"<i8", CRIA_I64}, {"|b1", CRIA_BOOL}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].descr, descr) == 0) {
            *out = types[i].type;
            return true;
        }
    }
    return false;
}

cria_status cria_npy_read(cria_weights *weights, uint32_t file, const char *name, cria_error *err) {
    const cria_weight_file *source = &weights->files[file];
    cria_cursor cursor = {source->mapping.data, source->mapping.size, 0, false};
    const uint8_t *magic = cria_cursor_take(&cursor, 6);
    if (!magic || memcmp(magic, "\x93NUMPY", 6) != 0) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: is not an NPY file", source->name);
    }
    uint64_t major = cria_cursor_uint(&cursor, 1);
    cria_cursor_uint(&cursor, 1); /* the minor version */
    if (cursor.bad || major < 1 || major > 3) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: NPY version %d is not known (1 to 3 are)", source->name,
                         (int)major);
    }
    uint64_t length = cria_cursor_uint(&cursor, major == 1 ? 2 : 4);
    const uint8_t *header = length <= HEADER_LIMIT ? cria_cursor_take(&cursor, length) : NULL;
    if (cursor.bad || !header) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: its header does not fit the file (truncated?)", source->name);
    }
    npy_text text = {(const char *)header, (const char *)header + length};
    char descr[32];
    bool fortran;
    cria_weight_view view = {.file = file};
    if (!parse_header(&text, descr, sizeof descr, &fortran, &view)) {
        return cria_fail(err, CRIA_ERR_FORMAT,
                         "%s: its header is not a dict of a plain descr, fortran_order and a shape of at most %d dims",
                         source->name, CRIA_WEIGHT_MAX_DIMS);
    }
    if (!type_of(descr, &view.type)) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: type %s is not supported", source->name, descr);
    }
    if (fortran && view.dims > 1) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: fortran_order is True, which is not supported", source->name);
    }
    view.data = cursor.data + cursor.at;
    view.bytes = cursor.size - cursor.at; /* cria_weights_add refuses what is not exactly the shape's bytes */
    return cria_weights_add(weights, name, strlen(name), &view, err);
}
