/* Trie: finds the leftmost, then longest, of many strings in a text. Filled by one thread, then immutable. */
#ifndef CRIA_TOKENIZER_TRIE_H
#define CRIA_TOKENIZER_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cria_trie cria_trie;

cria_trie *cria_trie_create(void); /* NULL if memory is out */
void cria_trie_destroy(cria_trie *trie);
/* Adds a string with a value >= 0; of equal strings the first counts, empty ones never match. False if memory is out.
 */
bool cria_trie_add(cria_trie *trie, const char *string, size_t length, int32_t value);
/* The first match at or after `from`; false if there is none. */
bool cria_trie_find(const cria_trie *trie, const char *text, size_t length, size_t from, size_t *start, size_t *end,
                    int32_t *value);

#endif
