/* Weights: named, typed, read-only views into a checkpoint's mapped files, whatever its format.
 *
 * Formats: safetensors (one file or sharded by index), PyTorch .bin (zip + restricted pickle; sharded), Alpa's folder
 * of NPY files, GGUF. Nothing is copied: a view points into a mapping, and pages come in as they are read. Opened on
 * the start-up thread; afterwards any number of threads may look up and read. */
#ifndef CRIA_MODELS_WEIGHTS_H
#define CRIA_MODELS_WEIGHTS_H

#include "base/error.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRIA_WEIGHT_MAX_DIMS 4

/* One tensor. shape[0] is the slowest dim, as PyTorch writes it ([out, in] for a linear layer; GGUF's reversed dims are
 * turned round by the reader). Dense and row-major; block types count their last dim in elements. */
typedef struct {
    const char *name;
    cria_type type; /* CRIA_F32, F16, BF16, I64 ..., or a GGUF block type CRIA_Q8_0, Q4_0, Q4_1 */
    int dims;
    int64_t shape[CRIA_WEIGHT_MAX_DIMS];
    const void *data; /* may be unaligned */
    size_t bytes;
    uint32_t file; /* which mapping it lies in; for cria_weights_drop */
} cria_weight_view;

typedef struct cria_weights cria_weights;

/* Opens whatever `path` is: a .gguf file, or a folder with *.safetensors(.index.json), pytorch_model*.bin(.index.json)
 * or Alpa's NPY files. Truncated, overlapping, misshapen or misaligned entries are CRIA_ERR_FORMAT that names file and
 * tensor. */
cria_status cria_weights_open(const char *path, cria_weights **out, cria_error *err);
void cria_weights_close(cria_weights *weights);

size_t cria_weights_count(const cria_weights *weights);
const cria_weight_view *cria_weights_at(const cria_weights *weights, size_t index);
/* NULL if there is no such tensor. O(1). */
const cria_weight_view *cria_weights_find(const cria_weights *weights, const char *name);
/* The view's pages may leave memory now. */
void cria_weights_drop(const cria_weights *weights, const cria_weight_view *view);
/* "safetensors", "pytorch", "npy" or "gguf". */
const char *cria_weights_format(const cria_weights *weights);
/* The GGUF file behind these weights (metadata), or NULL for other formats. Borrowed. */
struct cria_gguf;
const struct cria_gguf *cria_weights_gguf(const cria_weights *weights);

#endif
