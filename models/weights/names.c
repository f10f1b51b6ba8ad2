/* A hash table with open addressing over borrowed names. */
#include "models/weights/names.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a with a final mix. A checkpoint made to collide wastes the time of whoever chose to load it and of nobody else,
 * so there is no secret seed. */
static uint32_t hash_of(const char *name, size_t length) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) h = (h ^ (uint8_t)name[i]) * 1099511628211u;
    h ^= h >> 32;
    return (uint32_t)(h * 0x9e3779b97f4a7c15u >> 32);
}

static cria_name *slot_of(const cria_names *names, const char *name, size_t length, uint32_t hash) {
    size_t mask = names->slot_count - 1, i = hash & mask;
    for (;; i = (i + 1) & mask) {
        cria_name *slot = &names->slots[i];
        if (!slot->name) return slot;
        if (slot->hash == hash && slot->length == length && memcmp(slot->name, name, length) == 0) return slot;
    }
}

static bool grow(cria_names *names) {
    cria_names bigger = {.slot_count = names->slot_count ? names->slot_count * 2 : 64, .count = names->count};
    bigger.slots = calloc(bigger.slot_count, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    for (size_t i = 0; i < names->slot_count; i++) {
        const cria_name *old = &names->slots[i];
        if (old->name) *slot_of(&bigger, old->name, old->length, old->hash) = *old;
    }
    free(names->slots);
    *names = bigger;
    return true;
}

cria_names_result cria_names_add(cria_names *names, const char *name, size_t length, uint32_t value) {
    if (names->count * 2 >= names->slot_count && !grow(names)) return CRIA_NAMES_NO_MEMORY;
    uint32_t hash = hash_of(name, length);
    cria_name *slot = slot_of(names, name, length, hash);
    if (slot->name) return CRIA_NAMES_TWICE;
    *slot = (cria_name){name, length, hash, value};
    names->count++;
    return CRIA_NAMES_ADDED;
}

bool cria_names_find(const cria_names *names, const char *name, size_t length, uint32_t *value) {
    if (!names->slot_count) return false;
    const cria_name *slot = slot_of(names, name, length, hash_of(name, length));
    if (!slot->name) return false;
    *value = slot->value;
    return true;
}

void cria_names_deinit(cria_names *names) {
    free(names->slots);
    *names = (cria_names){0};
}
