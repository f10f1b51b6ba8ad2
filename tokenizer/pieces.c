/* Lists of pieces, and the split behaviours. */
#include "tokenizer/pieces.h"

#include <stdlib.h>

void cria_pieces_deinit(cria_pieces *pieces) {
    free(pieces->items);
    *pieces = (cria_pieces){0};
}

void cria_pieces_clear(cria_pieces *pieces) {
    pieces->count = 0;
}

void cria_pieces_push(cria_pieces *pieces, cria_piece piece) {
    if (pieces->count == pieces->capacity) {
        size_t capacity = pieces->capacity ? pieces->capacity * 2 : 64;
        cria_piece *items = pieces->failed ? NULL : realloc(pieces->items, capacity * sizeof *items);
        if (!items) {
            pieces->failed = true;
            return;
        }
        pieces->items = items;
        pieces->capacity = capacity;
    }
    pieces->items[pieces->count++] = piece;
}

void cria_stretches_deinit(cria_stretches *stretches) {
    free(stretches->items);
    *stretches = (cria_stretches){0};
}

void cria_stretches_clear(cria_stretches *stretches) {
    stretches->count = 0;
}

void cria_stretches_push(cria_stretches *stretches, size_t start, size_t end, bool match) {
    if (stretches->count == stretches->capacity) {
        size_t capacity = stretches->capacity ? stretches->capacity * 2 : 64;
        cria_stretch *items = stretches->failed ? NULL : realloc(stretches->items, capacity * sizeof *items);
        if (!items) {
            stretches->failed = true;
            return;
        }
        stretches->items = items;
        stretches->capacity = capacity;
    }
    stretches->items[stretches->count++] = (cria_stretch){start, end, match};
}

/* Neighbours that are alike become one. */
static void join_contiguous(cria_stretches *s) {
    size_t kept = 0;
    bool previous = false;
    for (size_t i = 0; i < s->count; i++) {
        if (kept && s->items[i].match == previous) {
            s->items[kept - 1].end = s->items[i].end;
        } else {
            s->items[kept++] = s->items[i];
        }
        previous = s->items[i].match;
    }
    s->count = kept;
}

/* A match joins what stands before it, unless that is a match too. */
static void join_previous(cria_stretches *s) {
    size_t kept = 0;
    bool previous = false;
    for (size_t i = 0; i < s->count; i++) {
        bool match = s->items[i].match;
        if (match && !previous && kept) {
            s->items[kept - 1].end = s->items[i].end;
        } else {
            s->items[kept++] = s->items[i];
        }
        previous = match;
    }
    s->count = kept;
}

/* A match joins what stands after it, unless that is a match too: the same from the other end. */
static void join_next(cria_stretches *s) {
    size_t kept = s->count;
    bool previous = false;
    for (size_t i = s->count; i-- > 0;) {
        bool match = s->items[i].match;
        if (match && !previous && kept < s->count) {
            s->items[kept].start = s->items[i].start;
        } else {
            s->items[--kept] = s->items[i];
        }
        previous = match;
    }
    for (size_t i = kept; i < s->count; i++) s->items[i - kept] = s->items[i];
    s->count -= kept;
}

void cria_split_apply(cria_stretches *stretches, cria_split_behaviour behaviour, cria_piece whole, cria_pieces *out) {
    if (stretches->failed) out->failed = true;
    if (behaviour == CRIA_SPLIT_CONTIGUOUS) join_contiguous(stretches);
    if (behaviour == CRIA_SPLIT_MERGED_WITH_PREVIOUS) join_previous(stretches);
    if (behaviour == CRIA_SPLIT_MERGED_WITH_NEXT) join_next(stretches);
    for (size_t i = 0; i < stretches->count; i++) {
        cria_stretch s = stretches->items[i];
        if (s.start == s.end || (behaviour == CRIA_SPLIT_REMOVED && s.match)) continue;
        cria_piece piece = {whole.start + s.start, s.end - s.start, -1, whole.first && s.start == 0};
        cria_pieces_push(out, piece);
    }
}
