/* The directory of a zip archive whose entries are stored, not compressed, as torch.save writes it; zip64 included. */
#ifndef CRIA_MODELS_WEIGHTS_ZIP_H
#define CRIA_MODELS_WEIGHTS_ZIP_H

#include "base/error.h"
#include "models/weights/names.h"

#include <stdint.h>

typedef struct {
    const char *name; /* in the archive's bytes, not NUL-terminated */
    size_t name_length;
    const uint8_t *data;
    size_t size;
} cria_zip_entry;

typedef struct {
    cria_zip_entry *entries;
    size_t count;
    cria_names names;
} cria_zip;

/* `name` goes into messages. Compressed, encrypted, overlapping, truncated and duplicate entries are errors. */
cria_status cria_zip_open(const char *name, const uint8_t *data, size_t size, cria_zip *out, cria_error *err);
void cria_zip_deinit(cria_zip *zip);
const cria_zip_entry *cria_zip_find(const cria_zip *zip, const char *name, size_t length);

#endif
