/* A byte trie with sibling lists; the first level is a table, because most bytes of a text begin no string. */
#include "tokenizer/trie.h"

#include <stdlib.h>

typedef struct {
    int32_t child, sibling; /* indices; 0: none (node 0 is the root) */
    int32_t value;          /* -1: no string ends here */
    uint8_t byte;
} node;

struct cria_trie {
    node *nodes;
    size_t count, capacity;
    int32_t first[256]; /* the root's children */
};

cria_trie *cria_trie_create(void) {
    cria_trie *trie = calloc(1, sizeof *trie);
    if (!trie) return NULL;
    trie->capacity = 64;
    trie->nodes = calloc(trie->capacity, sizeof *trie->nodes);
    if (!trie->nodes) {
        free(trie);
        return NULL;
    }
    trie->count = 1;
    return trie;
}

void cria_trie_destroy(cria_trie *trie) {
    if (!trie) return;
    free(trie->nodes);
    free(trie);
}

static int32_t child_of(const cria_trie *trie, int32_t parent, uint8_t byte) {
    if (parent == 0) return trie->first[byte];
    int32_t child = trie->nodes[parent].child;
    while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].sibling;
    return child;
}

static int32_t add_child(cria_trie *trie, int32_t parent, uint8_t byte) {
    if (trie->count == trie->capacity) {
        if (trie->capacity > INT32_MAX / 2) return 0;
        node *nodes = realloc(trie->nodes, trie->capacity * 2 * sizeof *nodes);
        if (!nodes) return 0;
        trie->nodes = nodes;
        trie->capacity *= 2;
    }
    int32_t made = (int32_t)trie->count++;
    trie->nodes[made] = (node){.value = -1, .byte = byte};
    if (parent == 0) {
        trie->first[byte] = made;
    } else {
        trie->nodes[made].sibling = trie->nodes[parent].child;
        trie->nodes[parent].child = made;
    }
    return made;
}

bool cria_trie_add(cria_trie *trie, const char *string, size_t length, int32_t value) {
    if (length == 0) return true;
    int32_t at = 0;
    for (size_t i = 0; i < length; i++) {
        int32_t next = child_of(trie, at, (uint8_t)string[i]);
        if (!next) next = add_child(trie, at, (uint8_t)string[i]);
        if (!next) return false;
        at = next;
    }
    if (trie->nodes[at].value < 0) trie->nodes[at].value = value;
    return true;
}

bool cria_trie_find(const cria_trie *trie, const char *text, size_t length, size_t from, size_t *start, size_t *end,
                    int32_t *value) {
    for (size_t i = from; i < length; i++) {
        int32_t at = trie->first[(uint8_t)text[i]];
        bool found = false;
        for (size_t k = i + 1; at; k++) {
            if (trie->nodes[at].value >= 0) {
                found = true;
                *end = k;
                *value = trie->nodes[at].value;
            }
            at = k < length ? child_of(trie, at, (uint8_t)text[k]) : 0;
        }
        if (found) {
            *start = i;
            return true;
        }
    }
    return false;
}
