/* Element types and their sizes. Pure functions, any thread. */
#ifndef CRIA_KERNELS_TENSOR_H
#define CRIA_KERNELS_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Storage types of tensors outside the kernels: in checkpoints, activations and the KV cache. */
typedef enum {
    CRIA_F32,
    CRIA_F16,
    CRIA_BF16,
    CRIA_F64,
    CRIA_I8,
    CRIA_U8,
    CRIA_I16,
    CRIA_I32,
    CRIA_I64,
    CRIA_BOOL,
    CRIA_Q8_0, /* GGUF: groups of 32 along the last dim: f16 scale d, 32 x s8 q; value d * q */
    CRIA_Q4_0, /* GGUF: groups of 32: f16 d, 16 bytes; value d * (q - 8); byte j holds elements j (low) and j+16 (high)
                */
    CRIA_Q4_1, /* GGUF: groups of 32: f16 d, f16 m, 16 bytes; value d * q + m */
    CRIA_TYPE_COUNT
} cria_type;

#define CRIA_GROUP 32 /* elements per quantisation group, everywhere */

const char *cria_type_name(cria_type type); /* "f32", "bf16", "q4_1" */
/* Bytes of `elements` consecutive elements (a multiple of 32 for block types); 0 on overflow or an odd block count. */
size_t cria_type_bytes(cria_type type, size_t elements);
static inline bool cria_type_is_block(cria_type type) {
    return type == CRIA_Q8_0 || type == CRIA_Q4_0 || type == CRIA_Q4_1;
}

static inline float cria_bf16_to_f32(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}
/* Round to nearest even; NaN stays NaN. */
static inline uint16_t cria_f32_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
float cria_f16_to_f32(uint16_t value);
uint16_t cria_f32_to_f16(float value); /* round to nearest even */

/* Writes `count` elements starting at element `first` (a multiple of 32 for block types) of a dense row as f32. */
void cria_to_f32(cria_type type, const void *row, int64_t first, int64_t count, float *out);

#endif
