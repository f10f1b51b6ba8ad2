/* Element types: names, sizes, and conversion of every storage type to f32. */
#include "kernels/tensor.h"

#include "base/checked.h"

typedef struct {
    const char *name;
    size_t bytes;    /* of one block */
    size_t elements; /* in one block */
} type_row;

static const type_row TYPES[CRIA_TYPE_COUNT] = {
    [CRIA_F32] = {"f32", 4, 1},     [CRIA_F16] = {"f16", 2, 1},     [CRIA_BF16] = {"bf16", 2, 1},
    [CRIA_F64] = {"f64", 8, 1},     [CRIA_I8] = {"i8", 1, 1},       [CRIA_U8] = {"u8", 1, 1},
    [CRIA_I16] = {"i16", 2, 1},     [CRIA_I32] = {"i32", 4, 1},     [CRIA_I64] = {"i64", 8, 1},
    [CRIA_BOOL] = {"bool", 1, 1},   [CRIA_Q8_0] = {"q8_0", 34, 32}, [CRIA_Q4_0] = {"q4_0", 18, 32},
    [CRIA_Q4_1] = {"q4_1", 20, 32},
};

const char *cria_type_name(cria_type type) {
    return (unsigned)type < CRIA_TYPE_COUNT ? TYPES[type].name : "unknown";
}

size_t cria_type_bytes(cria_type type, size_t elements) {
    if ((unsigned)type >= CRIA_TYPE_COUNT) return 0;
    const type_row *row = &TYPES[type];
    size_t bytes;
    if (elements % row->elements != 0) return 0;
    return cria_mul_size(elements / row->elements, row->bytes, &bytes) ? bytes : 0;
}

static inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without a branch, so that the row loops vectorise, and without f32 denormals on the way: pool workers flush them. */
static inline float half_to_float(uint16_t value) {
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16;
    uint32_t magnitude = (uint32_t)(value & 0x7fffu) << 13;
    uint32_t exponent = magnitude & 0x0f800000u;
    uint32_t normal = magnitude + (112u << 23);
    if (exponent == 0x0f800000u) normal += 112u << 23; /* infinity and NaN */
    /* A denormal half m * 2^-24 is (2^-14 + m * 2^-24) - 2^-14, both of which f32 holds exactly. */
    float difference = from_bits(magnitude + (113u << 23)) - 0x1p-14f;
    uint32_t denormal;
    memcpy(&denormal, &difference, sizeof denormal);
    return from_bits(sign | (exponent == 0 ? denormal : normal));
}

float cria_f16_to_f32(uint16_t value) {
    return half_to_float(value);
}

uint16_t cria_f32_to_f16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (magnitude >= 0x38800000u) {                                  /* at least 2^-14: a normal half */
        uint32_t rounded = magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u);
        return (uint16_t)(sign | (rounded >> 13));
    }
    uint32_t exponent = magnitude >> 23;
    if (exponent < 102) return (uint16_t)sign; /* below half of the smallest denormal */
    uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    uint32_t shift = 126 - exponent;
    uint32_t rounded = (mantissa + (1u << (shift - 1)) - 1 + ((mantissa >> shift) & 1u)) >> shift;
    return (uint16_t)(sign | rounded);
}

/* Source pointers may be unaligned: every load is a memcpy of the element, which compilers turn into a plain load. */
#define CONVERT_ROWS(element, expression)                                                                              \
    for (int64_t i = 0; i < count; i++) {                                                                              \
        element x;                                                                                                     \
        memcpy(&x, source + (size_t)(first + i) * sizeof x, sizeof x);                                                 \
        out[i] = (expression);                                                                                         \
    }                                                                                                                  \
    return

static inline float load_half(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return half_to_float(bits);
}

static void from_q8_0(const uint8_t *block, int64_t groups, float *out) {
    for (int64_t g = 0; g < groups; g++, block += 34, out += CRIA_GROUP) {
        float d = load_half(block);
        for (int j = 0; j < CRIA_GROUP; j++) out[j] = d * (float)(int8_t)block[2 + j];
    }
}

static void from_q4_0(const uint8_t *block, int64_t groups, float *out) {
    for (int64_t g = 0; g < groups; g++, block += 18, out += CRIA_GROUP) {
        float d = load_half(block);
        for (int j = 0; j < CRIA_GROUP / 2; j++) {
            out[j] = d * (float)((block[2 + j] & 15) - 8);
            out[j + CRIA_GROUP / 2] = d * (float)((block[2 + j] >> 4) - 8);
        }
    }
}

static void from_q4_1(const uint8_t *block, int64_t groups, float *out) {
    for (int64_t g = 0; g < groups; g++, block += 20, out += CRIA_GROUP) {
        float d = load_half(block), m = load_half(block + 2);
        for (int j = 0; j < CRIA_GROUP / 2; j++) {
            out[j] = d * (float)(block[4 + j] & 15) + m;
            out[j + CRIA_GROUP / 2] = d * (float)(block[4 + j] >> 4) + m;
        }
    }
}

/* The last group of a range may be wanted in part only. */
static void from_blocks(cria_type type, const uint8_t *source, int64_t first, int64_t count, float *out) {
    const uint8_t *block = source + (size_t)(first / CRIA_GROUP) * TYPES[type].bytes;
    void (*convert)(const uint8_t *, int64_t, float *) = type == CRIA_Q8_0   ? from_q8_0
                                                         : type == CRIA_Q4_0 ? from_q4_0
                                                                             : from_q4_1;
    int64_t whole = count / CRIA_GROUP, rest = count % CRIA_GROUP;
    convert(block, whole, out);
    if (rest) {
        float last[CRIA_GROUP];
        convert(block + (size_t)whole * TYPES[type].bytes, 1, last);
        memcpy(out + whole * CRIA_GROUP, last, (size_t)rest * sizeof *last);
    }
}

void cria_to_f32(cria_type type, const void *row, int64_t first, int64_t count, float *out) {
    const uint8_t *source = row;
    switch (type) {
    case CRIA_F32:
        memcpy(out, source + (size_t)first * 4, (size_t)count * 4);
        return;
    case CRIA_F16:
        CONVERT_ROWS(uint16_t, half_to_float(x));
    case CRIA_BF16:
        CONVERT_ROWS(uint16_t, cria_bf16_to_f32(x));
    case CRIA_F64:
        CONVERT_ROWS(double, (float)x);
    case CRIA_I8:
        CONVERT_ROWS(int8_t, (float)x);
    case CRIA_U8:
        CONVERT_ROWS(uint8_t, (float)x);
    case CRIA_I16:
        CONVERT_ROWS(int16_t, (float)x);
    case CRIA_I32:
        CONVERT_ROWS(int32_t, (float)x);
    case CRIA_I64:
        CONVERT_ROWS(int64_t, (float)x);
    case CRIA_BOOL:
        CONVERT_ROWS(uint8_t, x ? 1.0f : 0.0f);
    case CRIA_Q8_0:
    case CRIA_Q4_0:
    case CRIA_Q4_1:
        from_blocks(type, source, first, count, out);
        return;
    case CRIA_TYPE_COUNT:
        return;
    }
}
