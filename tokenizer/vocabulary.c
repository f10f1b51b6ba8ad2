/* Vocabulary: entries in an arena, a table by id, and an open-addressing hash table by text. */
#include "tokenizer/vocabulary.h"

#include "base/arena.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text; /* NULL: the id has no entry */
    uint32_t length;
} entry;

typedef struct {
    const char *text; /* NULL: free */
    uint32_t length;
    int32_t id;
} slot;

struct cria_vocabulary {
    cria_arena *arena;
    entry *entries; /* by id */
    size_t size, capacity;
    slot *slots; /* a power of two, at most half full */
    size_t slot_count, used;
    size_t longest;
};

/* FNV-1a with a final mix; entries are short. */
static uint64_t hash_bytes(const char *text, size_t length) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return h ^ (h >> 32);
}

cria_vocabulary *cria_vocabulary_create(void) {
    cria_vocabulary *vocabulary = calloc(1, sizeof *vocabulary);
    if (!vocabulary) return NULL;
    vocabulary->arena = cria_arena_create(1 << 16, 0);
    vocabulary->slot_count = 1024;
    vocabulary->slots = calloc(vocabulary->slot_count, sizeof *vocabulary->slots);
    if (!vocabulary->arena || !vocabulary->slots) {
        cria_vocabulary_destroy(vocabulary);
        return NULL;
    }
    return vocabulary;
}

void cria_vocabulary_destroy(cria_vocabulary *vocabulary) {
    if (!vocabulary) return;
    cria_arena_destroy(vocabulary->arena);
    free(vocabulary->entries);
    free(vocabulary->slots);
    free(vocabulary);
}

static slot *find_slot(const cria_vocabulary *vocabulary, const char *text, size_t length) {
    size_t mask = vocabulary->slot_count - 1;
    for (size_t i = hash_bytes(text, length) & mask;; i = (i + 1) & mask) {
        slot *s = &vocabulary->slots[i];
        if (!s->text || (s->length == length && memcmp(s->text, text, length) == 0)) return s;
    }
}

static bool grow_slots(cria_vocabulary *vocabulary) {
    size_t old_count = vocabulary->slot_count;
    slot *old = vocabulary->slots;
    slot *slots = calloc(old_count * 2, sizeof *slots);
    if (!slots) return false;
    vocabulary->slots = slots;
    vocabulary->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].text) *find_slot(vocabulary, old[i].text, old[i].length) = old[i];
    }
    free(old);
    return true;
}

static bool grow_entries(cria_vocabulary *vocabulary, size_t needed) {
    size_t capacity = vocabulary->capacity ? vocabulary->capacity : 1024;
    while (capacity < needed) capacity *= 2;
    entry *entries = realloc(vocabulary->entries, capacity * sizeof *entries);
    if (!entries) return false;
    memset(entries + vocabulary->capacity, 0, (capacity - vocabulary->capacity) * sizeof *entries);
    vocabulary->entries = entries;
    vocabulary->capacity = capacity;
    return true;
}

cria_status cria_vocabulary_add(cria_vocabulary *vocabulary, int32_t id, const char *text, size_t length,
                                cria_error *err) {
    if (id < 0 || id > CRIA_MAX_TOKEN_ID) {
        return cria_fail(err, CRIA_ERR_FORMAT, "token id %d is outside 0..%d", id, CRIA_MAX_TOKEN_ID);
    }
    if (!cria_utf8_valid(text, length)) return cria_fail(err, CRIA_ERR_FORMAT, "token %d is not valid UTF-8", id);
    if (length > UINT32_MAX / 2) return cria_fail(err, CRIA_ERR_FORMAT, "a token of %zu bytes is too long", length);
    if (vocabulary->used * 2 >= vocabulary->slot_count && !grow_slots(vocabulary)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the vocabulary's hash table");
    }
    if ((size_t)id >= vocabulary->capacity && !grow_entries(vocabulary, (size_t)id + 1)) {
        return cria_fail(err, CRIA_ERR_MEMORY, "no memory for %d token entries", id + 1);
    }
    slot *s = find_slot(vocabulary, text, length);
    if (!s->text) {
        char *copy = cria_arena_copy(vocabulary->arena, text, length);
        if (!copy) return cria_fail(err, CRIA_ERR_MEMORY, "no memory for the vocabulary's texts");
        *s = (slot){.text = copy, .length = (uint32_t)length};
        vocabulary->used++;
    }
    s->id = id;
    vocabulary->entries[id] = (entry){s->text, s->length};
    if ((size_t)id >= vocabulary->size) vocabulary->size = (size_t)id + 1;
    if (length > vocabulary->longest) vocabulary->longest = length;
    return CRIA_OK;
}

int32_t cria_vocabulary_find(const cria_vocabulary *vocabulary, const char *text, size_t length) {
    if (length > vocabulary->longest) return -1;
    const slot *s = find_slot(vocabulary, text, length);
    return s->text ? s->id : -1;
}

const char *cria_vocabulary_entry(const cria_vocabulary *vocabulary, int32_t id, size_t *length) {
    if (id < 0 || (size_t)id >= vocabulary->size) return NULL;
    if (length) *length = vocabulary->entries[id].length;
    return vocabulary->entries[id].text;
}

size_t cria_vocabulary_size(const cria_vocabulary *vocabulary) {
    return vocabulary->size;
}

size_t cria_vocabulary_count(const cria_vocabulary *vocabulary) {
    return vocabulary->used;
}

size_t cria_vocabulary_longest(const cria_vocabulary *vocabulary) {
    return vocabulary->longest;
}
