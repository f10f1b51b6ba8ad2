/* Aho-Corasick over a trie with sibling lists: a node takes 24 bytes however many bytes may follow it. */
#include "server/api/stop.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t child, sibling; /* -1: none */
    int32_t fail;           /* where the longest proper suffix that is in the trie ends */
    int32_t match;          /* the longest string that ends here, -1: none */
    int32_t depth;
    uint8_t byte;
} node;

struct cria_stops {
    node *nodes;
    int32_t count;
    size_t strings;
    size_t *offsets; /* [strings + 1] into bytes */
    char *bytes;
};

static int32_t find_child(const cria_stops *stops, int32_t parent, uint8_t byte) {
    for (int32_t n = stops->nodes[parent].child; n >= 0; n = stops->nodes[n].sibling) {
        if (stops->nodes[n].byte == byte) return n;
    }
    return -1;
}

static int32_t add_node(cria_stops *stops, int32_t parent, uint8_t byte) {
    int32_t n = stops->count++;
    stops->nodes[n] = (node){.child = -1, .match = -1, .byte = byte};
    if (parent < 0) {
        stops->nodes[n].sibling = -1;
        return n;
    }
    stops->nodes[n].depth = stops->nodes[parent].depth + 1;
    stops->nodes[n].sibling = stops->nodes[parent].child;
    stops->nodes[parent].child = n;
    return n;
}

static int32_t step(const cria_stops *stops, int32_t state, uint8_t byte) {
    for (;;) {
        int32_t next = find_child(stops, state, byte);
        if (next >= 0) return next;
        if (state == 0) return 0;
        state = stops->nodes[state].fail;
    }
}

/* Breadth first, so that a node's fail link is there before its children need it. */
static bool link_nodes(cria_stops *stops) {
    int32_t *queue = malloc((size_t)stops->count * sizeof *queue);
    if (!queue) return false;
    int32_t head = 0, tail = 0;
    queue[tail++] = 0;
    while (head < tail) {
        int32_t parent = queue[head++];
        for (int32_t n = stops->nodes[parent].child; n >= 0; n = stops->nodes[n].sibling) {
            stops->nodes[n].fail = parent == 0 ? 0 : step(stops, stops->nodes[parent].fail, stops->nodes[n].byte);
            if (stops->nodes[n].match < 0) stops->nodes[n].match = stops->nodes[stops->nodes[n].fail].match;
            queue[tail++] = n;
        }
    }
    free(queue);
    return true;
}

cria_stops *cria_stops_create(const char *const *strings, const size_t *lengths, size_t count) {
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) total += lengths[i];
    if (total > INT32_MAX / 2) return NULL;
    cria_stops *stops = calloc(1, sizeof *stops);
    if (!stops) return NULL;
    stops->strings = count;
    stops->nodes = malloc((total + 1) * sizeof *stops->nodes);
    stops->offsets = calloc(count + 1, sizeof *stops->offsets);
    stops->bytes = malloc(total + 1);
    if (!stops->nodes || !stops->offsets || !stops->bytes) {
        cria_stops_destroy(stops);
        return NULL;
    }
    add_node(stops, -1, 0);
    for (size_t i = 0; i < count; ++i) {
        memcpy(stops->bytes + stops->offsets[i], strings[i], lengths[i]);
        stops->offsets[i + 1] = stops->offsets[i] + lengths[i];
        int32_t at = 0;
        for (size_t b = 0; b < lengths[i]; ++b) {
            uint8_t byte = (uint8_t)strings[i][b];
            int32_t next = find_child(stops, at, byte);
            at = next >= 0 ? next : add_node(stops, at, byte);
        }
        if (stops->nodes[at].match < 0) stops->nodes[at].match = (int32_t)i;
    }
    if (!link_nodes(stops)) {
        cria_stops_destroy(stops);
        return NULL;
    }
    return stops;
}

void cria_stops_destroy(cria_stops *stops) {
    if (!stops) return;
    free(stops->nodes);
    free(stops->offsets);
    free(stops->bytes);
    free(stops);
}

const char *cria_stops_string(const cria_stops *stops, int which, size_t *length) {
    *length = stops->offsets[which + 1] - stops->offsets[which];
    return stops->bytes + stops->offsets[which];
}

size_t cria_stops_feed(const cria_stops *stops, int32_t *state, const char *bytes, size_t length, int *which) {
    *which = -1;
    for (size_t i = 0; i < length; ++i) {
        *state = step(stops, *state, (uint8_t)bytes[i]);
        if (stops->nodes[*state].match >= 0) {
            *which = stops->nodes[*state].match;
            return i + 1;
        }
    }
    return length;
}

size_t cria_stops_held(const cria_stops *stops, int32_t state) {
    return (size_t)stops->nodes[state].depth;
}
