/* What the fuzz targets of the weight readers share: read bytes as a file, then touch everything it gives. */
#ifndef CRIA_TESTS_FUZZ_READ_VIEWS_H
#define CRIA_TESTS_FUZZ_READ_VIEWS_H

#include "models/weights/reader.h"

#include <stdlib.h>

static inline void read_views(const char *format, const uint8_t *data, size_t size,
                              cria_status (*read)(cria_weights *, uint32_t, cria_error *)) {
    cria_weights *weights;
    cria_error err = {0};
    uint32_t file;
    if (cria_weights_create(format, &weights, &err) != CRIA_OK) return;
    cria_status status = cria_weights_lend(weights, "fuzz", data, size, &file, &err);
    if (status == CRIA_OK) status = read(weights, file, &err);
    if (status != CRIA_OK && (status != err.status || !err.message[0])) abort();
    uint8_t sum = 0;
    for (size_t i = 0; status == CRIA_OK && i < cria_weights_count(weights); i++) {
        const cria_weight_view *view = cria_weights_at(weights, i);
        if (cria_weights_find(weights, view->name) != view) abort();
        for (size_t b = 0; b < view->bytes; b++) sum ^= ((const uint8_t *)view->data)[b];
    }
    volatile uint8_t sink = sum;
    (void)sink;
    cria_weights_close(weights);
}

#endif
