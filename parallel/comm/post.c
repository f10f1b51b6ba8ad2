/* Copies past the caches where the processor has such stores. */
#include "parallel/comm/post.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

#include <emmintrin.h>

enum { LINE = 64 };

void cria_post(void *to, const void *from, size_t bytes) {
    char *out = to;
    const char *in = from;
    size_t before = (LINE - (uintptr_t)to % LINE) % LINE;
    if (before > bytes) before = bytes;
    memcpy(out, in, before);
    size_t at = before;
    for (; at + LINE <= bytes; at += LINE)
        for (size_t i = 0; i < LINE; i += sizeof(__m128i))
            _mm_stream_si128((__m128i *)(void *)(out + at + i),
                             _mm_loadu_si128((const __m128i *)(const void *)(in + at + i)));
    memcpy(out + at, in + at, bytes - at);
    _mm_sfence(); /* no other store waits for these by itself */
}

#else

void cria_post(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}

#endif
