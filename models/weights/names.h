/* A table from names to numbers, for directories of tensors, archive entries and metadata keys. One thread writes; once
 * complete any number may look up. */
#ifndef CRIA_MODELS_WEIGHTS_NAMES_H
#define CRIA_MODELS_WEIGHTS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name; /* borrowed, need not be NUL-terminated */
    size_t length;
    uint32_t hash;
    uint32_t value;
} cria_name;

typedef struct {
    cria_name *slots; /* open addressing, a free slot has no name */
    size_t slot_count, count;
} cria_names;

typedef enum { CRIA_NAMES_ADDED, CRIA_NAMES_TWICE, CRIA_NAMES_NO_MEMORY } cria_names_result;

/* Start with zeros. The name must outlive the table. */
cria_names_result cria_names_add(cria_names *names, const char *name, size_t length, uint32_t value);
bool cria_names_find(const cria_names *names, const char *name, size_t length, uint32_t *value);
void cria_names_deinit(cria_names *names);

#endif
