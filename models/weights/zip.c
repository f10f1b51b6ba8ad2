/* Reading a zip archive's central directory (PKWARE's APPNOTE 6.3, sections 4.3 to 4.5). */
#include "models/weights/zip.h"

#include "models/weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    LOCAL_SIGNATURE = 0x04034b50,
    CENTRAL_SIGNATURE = 0x02014b50,
    END_SIGNATURE = 0x06054b50,
    END64_SIGNATURE = 0x06064b50,
    LOCATOR_SIGNATURE = 0x07064b50,
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    COMMENT_LIMIT = 65535,
    ZIP64_FIELD = 1
};

typedef struct {
    const char *name; /* of the archive */
    const uint8_t *data;
    size_t size;
    uint64_t directory, directory_size, count; /* the central directory */
} archive;

static cria_cursor at(const archive *a, uint64_t offset) {
    cria_cursor cursor = {a->data, a->size, 0, offset > a->size};
    cursor.at = cursor.bad ? a->size : (size_t)offset;
    return cursor;
}

static cria_status broken(const archive *a, cria_error *err, const char *what) {
    return cria_fail(err, CRIA_ERR_FORMAT, "%s: %s (truncated?)", a->name, what);
}

/* The end record is the last thing in the file but for a comment of unknown length. */
static bool find_end(const archive *a, size_t *end) {
    if (a->size < END_BYTES) return false;
    size_t first = a->size - END_BYTES, least = first > COMMENT_LIMIT ? first - COMMENT_LIMIT : 0;
    for (size_t i = first + 1; i-- > least;) {
        cria_cursor c = at(a, i);
        if (cria_cursor_uint(&c, 4) != END_SIGNATURE) continue;
        c.at = i + 20;
        if (i + END_BYTES + cria_cursor_uint(&c, 2) == a->size) {
            *end = i;
            return true;
        }
    }
    return false;
}

/* Fields that do not fit 32 bits stand in a second record, which a locator just before the end record points at. */
static cria_status read_end64(archive *a, size_t end, cria_error *err) {
    if (end < LOCATOR_BYTES) return broken(a, err, "has no zip64 locator");
    cria_cursor locator = at(a, end - LOCATOR_BYTES);
    if (cria_cursor_uint(&locator, 4) != LOCATOR_SIGNATURE) return broken(a, err, "has no zip64 locator");
    locator.at += 4; /* the number of the disk */
    cria_cursor c = at(a, cria_cursor_uint(&locator, 8));
    if (cria_cursor_uint(&c, 4) != END64_SIGNATURE) return broken(a, err, "has no zip64 end record");
    cria_cursor_take(&c, 8 + 2 + 2 + 4 + 4 + 8);
    a->count = cria_cursor_uint(&c, 8);
    a->directory_size = cria_cursor_uint(&c, 8);
    a->directory = cria_cursor_uint(&c, 8);
    return c.bad ? broken(a, err, "ends inside the zip64 end record") : CRIA_OK;
}

static cria_status read_end(archive *a, cria_error *err) {
    size_t end;
    if (!find_end(a, &end)) return broken(a, err, "is not a whole zip archive");
    cria_cursor c = at(a, end + 10);
    a->count = cria_cursor_uint(&c, 2);
    a->directory_size = cria_cursor_uint(&c, 4);
    a->directory = cria_cursor_uint(&c, 4);
    if (a->count == 0xffff || a->directory_size == 0xffffffff || a->directory == 0xffffffff) {
        CRIA_TRY(read_end64(a, end, err));
    }
    if (!cria_range_inside(a->directory, a->directory_size, a->size) || a->count > a->directory_size / CENTRAL_BYTES) {
        return broken(a, err, "has a directory that lies outside the file");
    }
    return CRIA_OK;
}

/* Replaces those of size, stored size and offset that stand as 0xffffffff by their zip64 values, in that order. */
static bool read_extra64(cria_cursor extra, uint64_t *size, uint64_t *stored, uint64_t *offset) {
    uint64_t *fields[] = {size, stored, offset};
    while (extra.at < extra.size) {
        uint64_t id = cria_cursor_uint(&extra, 2), length = cria_cursor_uint(&extra, 2);
        const uint8_t *bytes = cria_cursor_take(&extra, length);
        if (extra.bad) return false;
        if (id != ZIP64_FIELD) continue;
        cria_cursor field = {bytes, (size_t)length, 0, false};
        for (int i = 0; i < 3; i++) {
            if (*fields[i] == 0xffffffff) *fields[i] = cria_cursor_uint(&field, 8);
        }
        return !field.bad;
    }
    return true;
}

/* The local header repeats the name and has extra fields of its own length (torch pads with them). */
static cria_status place_entry(const archive *a, cria_zip_entry *entry, uint64_t offset, uint64_t size,
                               cria_error *err) {
    cria_cursor c = at(a, offset);
    int shown = entry->name_length < 100 ? (int)entry->name_length : 100;
    bool local = cria_cursor_uint(&c, 4) == LOCAL_SIGNATURE;
    cria_cursor_take(&c, 22);
    uint64_t name_length = cria_cursor_uint(&c, 2), extra_length = cria_cursor_uint(&c, 2);
    cria_cursor_take(&c, name_length);
    cria_cursor_take(&c, extra_length);
    const uint8_t *data = cria_cursor_take(&c, size);
    if (!local || c.bad || !data) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: entry %.*s: lies outside the file (truncated?)", a->name, shown,
                         entry->name);
    }
    entry->data = data;
    entry->size = (size_t)size;
    return CRIA_OK;
}

static cria_status read_entry(const archive *a, cria_cursor *c, cria_zip_entry *entry, cria_error *err) {
    bool central = cria_cursor_uint(c, 4) == CENTRAL_SIGNATURE;
    cria_cursor_take(c, 4); /* versions */
    uint64_t flags = cria_cursor_uint(c, 2), method = cria_cursor_uint(c, 2);
    cria_cursor_take(c, 8); /* time, checksum */
    uint64_t stored = cria_cursor_uint(c, 4), size = cria_cursor_uint(c, 4);
    uint64_t name_length = cria_cursor_uint(c, 2), extra_length = cria_cursor_uint(c, 2);
    uint64_t comment_length = cria_cursor_uint(c, 2);
    cria_cursor_take(c, 8); /* disk, attributes */
    uint64_t offset = cria_cursor_uint(c, 4);
    const uint8_t *name = cria_cursor_take(c, name_length), *extra = cria_cursor_take(c, extra_length);
    cria_cursor_take(c, comment_length);
    if (!central || c->bad || !name || !extra) return broken(a, err, "ends inside its directory");
    entry->name = (const char *)name;
    entry->name_length = (size_t)name_length;
    int shown = name_length < 100 ? (int)name_length : 100;
    if (!read_extra64((cria_cursor){extra, (size_t)extra_length, 0, false}, &size, &stored, &offset)) {
        return cria_fail(err, CRIA_ERR_FORMAT, "%s: entry %.*s: has a broken extra field", a->name, shown, entry->name);
    }
    if ((flags & 1) || method != 0 || size != stored) {
        return cria_fail(err, CRIA_ERR_UNSUPPORTED, "%s: entry %.*s: is %s, which is not supported", a->name, shown,
                         entry->name, flags & 1 ? "encrypted" : "compressed");
    }
    return place_entry(a, entry, offset, size, err);
}

static int by_data(const void *x, const void *y) {
    const cria_zip_entry *a = x, *b = y;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    return a->size < b->size ? -1 : a->size > b->size;
}

/* Puts the entries in the order of their data, on the way to which overlaps show, and then indexes their names. */
static cria_status index_entries(const archive *a, cria_zip *zip, cria_error *err) {
    if (zip->count) qsort(zip->entries, zip->count, sizeof *zip->entries, by_data);
    const cria_zip_entry *last = NULL;
    for (size_t i = 0; i < zip->count; i++) {
        const cria_zip_entry *entry = &zip->entries[i];
        int shown = entry->name_length < 100 ? (int)entry->name_length : 100;
        if (entry->size && last && entry->data < last->data + last->size) {
            return cria_fail(err, CRIA_ERR_FORMAT, "%s: entry %.*s: overlaps another", a->name, shown, entry->name);
        }
        if (entry->size) last = entry;
        switch (cria_names_add(&zip->names, entry->name, entry->name_length, (uint32_t)i)) {
        case CRIA_NAMES_ADDED:
            break;
        case CRIA_NAMES_TWICE:
            return cria_fail(err, CRIA_ERR_FORMAT, "%s: entry %.*s: stands twice", a->name, shown, entry->name);
        case CRIA_NAMES_NO_MEMORY:
            return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory for its directory", a->name);
        }
    }
    return CRIA_OK;
}

cria_status cria_zip_open(const char *name, const uint8_t *data, size_t size, cria_zip *out, cria_error *err) {
    *out = (cria_zip){0};
    archive a = {.name = name, .data = data, .size = size};
    CRIA_TRY(read_end(&a, err));
    if (a.count > UINT32_MAX) return broken(&a, err, "has too many entries");
    out->entries = calloc((size_t)a.count + 1, sizeof *out->entries);
    if (!out->entries) return cria_fail(err, CRIA_ERR_MEMORY, "%s: out of memory for its directory", name);
    cria_cursor cursor = at(&a, a.directory);
    cursor.size = (size_t)(a.directory + a.directory_size);
    cria_status status = CRIA_OK;
    for (; status == CRIA_OK && out->count < a.count; out->count++) {
        status = read_entry(&a, &cursor, &out->entries[out->count], err);
    }
    if (status == CRIA_OK) status = index_entries(&a, out, err);
    if (status != CRIA_OK) cria_zip_deinit(out);
    return status;
}

void cria_zip_deinit(cria_zip *zip) {
    free(zip->entries);
    cria_names_deinit(&zip->names);
    *zip = (cria_zip){0};
}

const cria_zip_entry *cria_zip_find(const cria_zip *zip, const char *name, size_t length) {
    uint32_t index;
    return cria_names_find(&zip->names, name, length, &index) ? &zip->entries[index] : NULL;
}
