/* Byte-pair encoding with a heap of candidate merges over a linked list of symbols. */
#include "tokenizer/bpe.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX
#define NO_PAIR UINT64_MAX
enum { DIRECT_CODE_POINTS = 0x180 }; /* covers the byte-level alphabet */

typedef struct {
    uint64_t pair; /* left id << 32 | right id; NO_PAIR: free */
    uint32_t rank;
} pair_slot;

struct cria_bpe {
    const cria_vocabulary *vocabulary;
    cria_bpe_options options;
    int32_t direct[DIRECT_CODE_POINTS]; /* ids of the entries of one low code point */
    int32_t fallback[256];              /* ids of "<0x00>".."<0xFF>" */

    pair_slot *pairs; /* a power of two, at most half full */
    size_t pair_count, pair_used;
    int32_t *merged; /* by rank: what a merge makes */
    size_t merge_count, merge_capacity;

    bool by_score;
    uint32_t *score_ranks; /* by id; equal scores share a rank; NO_RANK: never made by a merge */
    size_t longest;
};

/* A run of text; merged-away symbols have length 0. Kept in text order by `next` and `previous` (-1 at the ends). */
typedef struct cria_bpe_symbol {
    int32_t id;
    uint32_t start, length;
    int32_t previous, next;
} symbol;

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t hash_pair(uint64_t pair, size_t mask) {
    pair *= 0x9E3779B97F4A7C15u;
    return (size_t)(pair ^ (pair >> 29)) & mask;
}

cria_bpe *cria_bpe_create(const cria_vocabulary *vocabulary, cria_bpe_options options) {
    cria_bpe *bpe = calloc(1, sizeof *bpe);
    if (!bpe) return NULL;
    bpe->vocabulary = vocabulary;
    bpe->options = options;
    bpe->longest = cria_vocabulary_longest(vocabulary);
    for (uint32_t cp = 0; cp < DIRECT_CODE_POINTS; cp++) {
        char text[4];
        bpe->direct[cp] = cria_vocabulary_find(vocabulary, text, (size_t)cria_utf8_encode(cp, text));
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        bpe->fallback[byte] = cria_vocabulary_find(vocabulary, text, 6);
    }
    return bpe;
}

void cria_bpe_destroy(cria_bpe *bpe) {
    if (!bpe) return;
    free(bpe->pairs);
    free(bpe->merged);
    free(bpe->score_ranks);
    free(bpe);
}

static pair_slot *find_pair(const cria_bpe *bpe, uint64_t pair) {
    size_t mask = bpe->pair_count - 1;
    for (size_t i = hash_pair(pair, mask);; i = (i + 1) & mask) {
        if (bpe->pairs[i].pair == pair || bpe->pairs[i].pair == NO_PAIR) return &bpe->pairs[i];
    }
}

static bool grow_pairs(cria_bpe *bpe) {
    size_t old_count = bpe->pair_count, count = old_count ? old_count * 2 : 1024;
    pair_slot *old = bpe->pairs, *pairs = malloc(count * sizeof *pairs);
    if (!pairs) return false;
    memset(pairs, 0xFF, count * sizeof *pairs);
    bpe->pairs = pairs;
    bpe->pair_count = count;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].pair != NO_PAIR) *find_pair(bpe, old[i].pair) = old[i];
    }
    free(old);
    return true;
}

static bool push_merged(cria_bpe *bpe, int32_t id) {
    if (bpe->merge_count == bpe->merge_capacity) {
        size_t capacity = bpe->merge_capacity ? bpe->merge_capacity * 2 : 1024;
        int32_t *merged = realloc(bpe->merged, capacity * sizeof *merged);
        if (!merged) return false;
        bpe->merged = merged;
        bpe->merge_capacity = capacity;
    }
    bpe->merged[bpe->merge_count++] = id;
    return true;
}

/* The id of left + right, -1 if there is none. */
static cria_status find_joined(const cria_bpe *bpe, const char *left, size_t left_length, const char *right,
                               size_t right_length, int32_t *id, cria_error *err) {
    char buffer[256];
    *id = -1;
    if (left_length > bpe->longest || right_length > bpe->longest - left_length) return CRIA_OK;
    size_t length = left_length + right_length;
    char *joined = length <= sizeof buffer ? buffer : malloc(length);
    if (!joined) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for a merge of %zu bytes", length);
    memcpy(joined, left, left_length);
    memcpy(joined + left_length, right, right_length);
    *id = cria_vocabulary_find(bpe->vocabulary, joined, length);
    if (joined != buffer) free(joined);
    return CRIA_OK;
}

cria_status cria_bpe_add_merge(cria_bpe *bpe, const char *left, size_t left_length, const char *right,
                               size_t right_length, cria_error *err) {
    int32_t joined = -1;
    int32_t a = cria_vocabulary_find(bpe->vocabulary, left, left_length);
    int32_t b = cria_vocabulary_find(bpe->vocabulary, right, right_length);
    CRIA_TRY(find_joined(bpe, left, left_length, right, right_length, &joined, err));
    if (a < 0 || b < 0 || joined < 0) {
        int la = left_length > 80 ? 80 : (int)left_length, lb = right_length > 80 ? 80 : (int)right_length;
        return cria_fail(err, CRIA_ERR_FORMAT, "merge %zu: \"%.*s\" + \"%.*s\" is not in the vocabulary",
                         bpe->merge_count, la, left, lb, right);
    }
    bool room = bpe->pair_used * 2 < bpe->pair_count || grow_pairs(bpe);
    if (!room || bpe->merge_count >= NO_RANK || !push_merged(bpe, joined)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for merge %zu", bpe->merge_count);
    }
    pair_slot *slot = find_pair(bpe, pair_of(a, b));
    if (slot->pair == NO_PAIR) bpe->pair_used++;
    *slot = (pair_slot){pair_of(a, b), (uint32_t)(bpe->merge_count - 1)};
    return CRIA_OK;
}

typedef struct {
    float score;
    int32_t id;
} scored;

static int higher_score_first(const void *a, const void *b) {
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y);
}

cria_status cria_bpe_use_scores(cria_bpe *bpe, const float *scores, const bool *mergeable, cria_error *err) {
    size_t size = cria_vocabulary_size(bpe->vocabulary), count = 0;
    scored *order = malloc((size ? size : 1) * sizeof *order);
    bpe->score_ranks = malloc((size ? size : 1) * sizeof *bpe->score_ranks);
    if (!order || !bpe->score_ranks) {
        free(order);
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the scores of %zu tokens", size);
    }
    for (size_t i = 0; i < size; i++) {
        bpe->score_ranks[i] = NO_RANK;
        if (!mergeable[i]) continue;
        if (scores[i] != scores[i]) {
            free(order);
            return cria_fail(err, CRIA_ERR_FORMAT, "the score of token %zu is not a number", i);
        }
        order[count++] = (scored){scores[i], (int32_t)i};
    }
    qsort(order, count, sizeof *order, higher_score_first);
    uint32_t rank = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && order[i].score < order[i - 1].score) rank++;
        bpe->score_ranks[order[i].id] = rank;
    }
    free(order);
    bpe->by_score = true;
    return CRIA_OK;
}

void cria_bpe_workspace_deinit(cria_bpe_workspace *workspace) {
    free(workspace->symbols);
    free(workspace->heap);
    *workspace = (cria_bpe_workspace){0};
}

/* The rank of merging a symbol with the one after it, NO_RANK if they do not merge. */
static uint32_t rank_of(const cria_bpe *bpe, const char *text, const symbol *left, const symbol *right) {
    if (bpe->by_score) {
        size_t length = (size_t)left->length + right->length;
        if (length > bpe->longest) return NO_RANK;
        int32_t id = cria_vocabulary_find(bpe->vocabulary, text + left->start, length);
        return id < 0 ? NO_RANK : bpe->score_ranks[id];
    }
    if (left->id < 0 || right->id < 0 || !bpe->pair_count) return NO_RANK;
    const pair_slot *slot = find_pair(bpe, pair_of(left->id, right->id));
    return slot->pair == NO_PAIR ? NO_RANK : slot->rank;
}

/* The heap holds rank << 32 | position, so that the smallest is the best rank, leftmost first. A candidate whose
 * symbols have changed since is noticed when it comes up. */
static void sift_down(uint64_t *heap, size_t count, size_t i) {
    uint64_t value = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count) break;
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = value;
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t value) {
    size_t i = (*count)++;
    while (i > 0 && heap[(i - 1) / 2] > value) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = value;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count) {
    uint64_t top = heap[0];
    heap[0] = heap[--*count];
    if (*count > 1) sift_down(heap, *count, 0);
    return top;
}

static void merge_symbols(const cria_bpe *bpe, const char *text, symbol *symbols, size_t count, uint64_t *heap) {
    size_t candidates = 0;
    for (size_t i = 0; i + 1 < count; i++) {
        uint32_t rank = rank_of(bpe, text, &symbols[i], &symbols[i + 1]);
        if (rank != NO_RANK) heap[candidates++] = (uint64_t)rank << 32 | i;
    }
    for (size_t i = candidates / 2; i-- > 0;) sift_down(heap, candidates, i);

    while (candidates) {
        uint64_t top = heap_pop(heap, &candidates);
        uint32_t rank = (uint32_t)(top >> 32);
        int32_t at = (int32_t)(top & 0xFFFFFFFFu);
        symbol *left = &symbols[at];
        if (left->length == 0 || left->next < 0) continue;
        symbol *right = &symbols[left->next];
        uint32_t now = rank_of(bpe, text, left, right);
        if (now == NO_RANK) continue;
        /* As Hugging Face does it: a candidate is stale unless it still makes the same token. */
        if (bpe->by_score ? now != rank : bpe->merged[now] != bpe->merged[rank]) continue;
        if (!bpe->by_score) left->id = bpe->merged[rank];
        left->length += right->length;
        right->length = 0;
        left->next = right->next;
        if (left->next >= 0) symbols[left->next].previous = at;

        /* Every merge takes one candidate out and puts at most two in, so the heap never holds more than 2 * count. */
        if (left->previous >= 0) {
            uint32_t r = rank_of(bpe, text, &symbols[left->previous], left);
            if (r != NO_RANK) heap_push(heap, &candidates, (uint64_t)r << 32 | (uint32_t)left->previous);
        }
        if (left->next >= 0) {
            uint32_t r = rank_of(bpe, text, left, &symbols[left->next]);
            if (r != NO_RANK) heap_push(heap, &candidates, (uint64_t)r << 32 | (uint32_t)at);
        }
    }
}

static int32_t find_character(const cria_bpe *bpe, const char *text, size_t length, uint32_t cp) {
    return cp < DIRECT_CODE_POINTS ? bpe->direct[cp] : cria_vocabulary_find(bpe->vocabulary, text, length);
}

static bool has_fallback(const cria_bpe *bpe, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (bpe->fallback[(uint8_t)text[i]] < 0) return false;
    }
    return true;
}

/* The first symbols of a piece. Unknown characters wait in `unknown` until the next known one, as in Hugging Face,
 * where byte-fallback tokens do not flush them. */
static size_t first_symbols(const cria_bpe *bpe, const char *text, size_t length, symbol *symbols) {
    size_t count = 0;
    symbol unknown = {.id = bpe->options.unknown, .length = 0};
    for (size_t i = 0; i < length;) {
        uint32_t cp = 0;
        int decoded = cria_utf8_decode(text + i, length - i, &cp);
        uint32_t n = decoded > 0 ? (uint32_t)decoded : 1;
        int32_t id = find_character(bpe, text + i, n, cp);
        if (id >= 0 || bpe->by_score) {
            if (unknown.length) symbols[count++] = unknown;
            unknown.length = 0;
            symbols[count++] = (symbol){.id = id, .start = (uint32_t)i, .length = n};
        } else if (bpe->options.byte_fallback && has_fallback(bpe, text + i, n)) {
            for (uint32_t k = 0; k < n; k++) {
                int32_t byte = bpe->fallback[(uint8_t)text[i + k]];
                symbols[count++] = (symbol){.id = byte, .start = (uint32_t)i + k, .length = 1};
            }
        } else if (bpe->options.unknown >= 0) {
            if (unknown.length && !bpe->options.fuse_unknown) {
                symbols[count++] = unknown;
                unknown.length = 0;
            }
            if (!unknown.length) unknown.start = (uint32_t)i;
            unknown.length += n;
        }
        i += n;
    }
    if (unknown.length) symbols[count++] = unknown;
    for (size_t i = 0; i < count; i++) {
        symbols[i].previous = (int32_t)i - 1;
        symbols[i].next = i + 1 < count ? (int32_t)i + 1 : -1;
    }
    return count;
}

/* Score order keeps texts, not ids, while merging; a character that stayed alone and has no entry falls back to bytes.
 */
static bool push_scored(const cria_bpe *bpe, const char *text, const symbol *s, bool *after_unknown, cria_ids *out) {
    int32_t id = cria_vocabulary_find(bpe->vocabulary, text + s->start, s->length);
    if (id >= 0 && bpe->score_ranks[id] != NO_RANK) {
        *after_unknown = false;
        return cria_ids_push(out, id);
    }
    if (bpe->options.byte_fallback && has_fallback(bpe, text + s->start, s->length)) {
        *after_unknown = false;
        for (uint32_t k = 0; k < s->length; k++) {
            if (!cria_ids_push(out, bpe->fallback[(uint8_t)text[s->start + k]])) return false;
        }
        return true;
    }
    if (bpe->options.unknown < 0 || (*after_unknown && bpe->options.fuse_unknown)) return true;
    *after_unknown = true;
    return cria_ids_push(out, bpe->options.unknown);
}

static bool reserve(cria_bpe_workspace *workspace, size_t symbols) {
    if (symbols > workspace->symbol_capacity) {
        symbol *grown = realloc(workspace->symbols, symbols * sizeof *grown);
        if (!grown) return false;
        workspace->symbols = grown;
        workspace->symbol_capacity = symbols;
    }
    if (symbols * 2 > workspace->heap_capacity) {
        uint64_t *grown = realloc(workspace->heap, symbols * 2 * sizeof *grown);
        if (!grown) return false;
        workspace->heap = grown;
        workspace->heap_capacity = symbols * 2;
    }
    return true;
}

cria_status cria_bpe_encode(const cria_bpe *bpe, cria_bpe_workspace *workspace, const char *text, size_t length,
                            cria_ids *out, cria_error *err) {
    if (length == 0) return CRIA_OK;
    if (length > INT32_MAX / 2) return cria_fail(err, CRIA_ERR_ARGUMENT, "a piece of %zu bytes is too long", length);
    if (bpe->options.ignore_merges) {
        int32_t whole = cria_vocabulary_find(bpe->vocabulary, text, length);
        if (whole >= 0) {
            if (cria_ids_push(out, whole)) return CRIA_OK;
            return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the ids");
        }
    }
    size_t room = length < 64 ? 64 : length;
    if (!reserve(workspace, room)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory to tokenize a piece of %zu bytes", length);
    }
    symbol *symbols = workspace->symbols;
    size_t count = first_symbols(bpe, text, length, symbols);
    if (count > 1) merge_symbols(bpe, text, symbols, count, workspace->heap);
    bool ok = true, after_unknown = false;
    for (int32_t i = count ? 0 : -1; i >= 0 && ok; i = symbols[i].next) {
        ok = bpe->by_score ? push_scored(bpe, text, &symbols[i], &after_unknown, out)
                           : cria_ids_push(out, symbols[i].id);
    }
    return ok ? CRIA_OK : cria_fail(err, CRIA_ERR_MEMORY, "no memory for the ids");
}
