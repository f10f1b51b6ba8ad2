/* Stop strings: finds the first of many in text that comes in pieces, in time linear in the text (Aho and Corasick,
 * "Efficient string matching", CACM 1975). The automaton's depth is the length of the longest end of the text that a
 * stop string begins with: exactly what must be held back. One thread at a time. */
#ifndef CRIA_SERVER_API_STOP_H
#define CRIA_SERVER_API_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_stops cria_stops;

/* `count` strings, each of at least one byte; copied. NULL if memory is out. */
cria_stops *cria_stops_create(const char *const *strings, const size_t *lengths, size_t count);
void cria_stops_destroy(cria_stops *stops);
/* A string as it was given. */
const char *cria_stops_string(const cria_stops *stops, int which, size_t *length);

/* Goes through bytes from *state (0 at the start), up to the end of the first match: which one through *which (the
 * longest where several end there) and the bytes used as the result. No match: *which is -1 and all bytes are used. */
size_t cria_stops_feed(const cria_stops *stops, int32_t *state, const char *bytes, size_t length, int *which);
/* How many of the last bytes could be the beginning of a stop string. */
size_t cria_stops_held(const cria_stops *stops, int32_t state);

#endif
