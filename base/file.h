/* Files: read-only mappings, directory checks and paths. Any thread; a mapping may be read by many. */
#ifndef CRIA_BASE_FILE_H
#define CRIA_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data; /* NULL where size is 0 */
    size_t size;
} cria_mapping;

/* Maps a regular file read-only. */
cria_status cria_mapping_open(const char *path, cria_mapping *out, cria_error *err);
void cria_mapping_close(cria_mapping *mapping);
/* Tells the kernel that [offset, offset + length) will not be read again: its pages leave this process's resident set.
 */
void cria_mapping_drop(const cria_mapping *mapping, size_t offset, size_t length);

bool cria_path_is_file(const char *path);
bool cria_path_is_folder(const char *path);
/* "folder/name" into out[size]; CRIA_ERR_ARGUMENT if it does not fit. */
cria_status cria_path_join(const char *folder, const char *name, char *out, size_t size, cria_error *err);

#endif
