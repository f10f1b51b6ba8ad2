/* The operator table: names, what this CPU can do, and which overlays follow from it. */
#include "kernels/kernels.h"

#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

const char *cria_kernel_name(cria_kernel_id id) {
    static const char *const names[CRIA_KERNEL_COUNT] = {
#define X(name) #name,
        CRIA_KERNEL_LIST(X)
#undef X
    };
    return (unsigned)id < CRIA_KERNEL_COUNT ? names[id] : "unknown";
}

static const char *const ISA_NAMES[] = {"ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"};

#if defined(__x86_64__)
/* The tiles' state is large, so that Linux gives it only to processes that ask. */
static bool amx_usable(void) {
    enum { BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d & (BF16 | TILE | INT8)) != (BF16 | TILE | INT8)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

cria_isa cria_isa_best(void) {
    cria_isa best = CRIA_ISA_REF;
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) {
        return best;
    }
    best = CRIA_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512cd")) {
        return best;
    }
    best = CRIA_ISA_AVX512;
    if (!__builtin_cpu_supports("avx512vnni")) return best;
    best = CRIA_ISA_AVX512_VNNI;
    if (!__builtin_cpu_supports("avx512bf16")) return best;
    best = CRIA_ISA_AVX512_BF16;
    if (amx_usable()) best = CRIA_ISA_AMX;
#endif
    return best;
}

cria_status cria_isa_from_name(const char *name, cria_isa *out, cria_error *err) {
    cria_isa best = cria_isa_best();
    if (strcmp(name, "auto") == 0) {
        *out = best;
        return CRIA_OK;
    }
    for (int isa = CRIA_ISA_REF; isa <= CRIA_ISA_AMX; isa++) {
        if (strcmp(name, ISA_NAMES[isa]) != 0) continue;
        if (isa > (int)best) {
            return cria_fail(err, CRIA_ERR_UNSUPPORTED, "this CPU has no %s; its best is %s", name, ISA_NAMES[best]);
        }
        *out = (cria_isa)isa;
        return CRIA_OK;
    }
    return cria_fail(err, CRIA_ERR_ARGUMENT,
                     "'%s' is no instruction set; it is one of auto, ref, avx2, avx512, avx512vnni, avx512bf16, amx",
                     name);
}

void cria_kernels_select(cria_isa isa, cria_kernels *out) {
    *out = (cria_kernels){
        .name = ISA_NAMES[isa],
        .embed = cria_ref_embed,
        .prepare = cria_ref_prepare,
        .linear = cria_ref_linear,
        .norm = cria_ref_norm,
        .glu = cria_ref_glu,
        .rope = cria_ref_rope,
        .kv_store = cria_ref_kv_store,
        .attention = cria_ref_attention,
        .gather = cria_ref_gather,
        .sample = cria_ref_sample,
    };
    for (int type = 0; type < CRIA_PANEL_COUNT; type++) out->panel[type] = (cria_panel_type)type;
#if defined(__x86_64__)
    if (isa >= CRIA_ISA_AVX2) {
        cria_overlay_avx2_linear(out);
        cria_overlay_avx2_rows(out);
    }
    if (isa >= CRIA_ISA_AVX512) {
        out->coarse_outputs = true;
        cria_overlay_avx512_linear(out);
        cria_overlay_avx512_rows(out);
    }
    if (isa == CRIA_ISA_AVX2 || isa == CRIA_ISA_AVX512) { /* no products of bytes that add in 32 bits */
        out->panel[CRIA_PANEL_I8] = CRIA_PANEL_I8_WIDE;
        out->panel[CRIA_PANEL_Q8] = out->panel[CRIA_PANEL_Q8_FINE] = CRIA_PANEL_Q8_WIDE;
        out->panel[CRIA_PANEL_Q4] = CRIA_PANEL_Q4_WIDE;
        out->panel[CRIA_PANEL_Q4_0] = CRIA_PANEL_Q4_0_WIDE;
    }
    if (isa >= CRIA_ISA_AVX512_VNNI) {
        cria_overlay_avx512vnni_linear(out);
        cria_overlay_avx512vnni_rows(out);
    }
    if (isa >= CRIA_ISA_AVX512_BF16) {
        cria_overlay_avx512bf16_linear(out);
        cria_overlay_avx512bf16_rows(out);
    }
    if (isa >= CRIA_ISA_AMX) {
        cria_overlay_amx_linear(out);
        /* A product of tiles takes both terms; tiles without minima are not written. */
        out->panel[CRIA_PANEL_Q4_COARSE] = out->panel[CRIA_PANEL_Q4_0_COARSE] = CRIA_PANEL_Q4;
        out->panel[CRIA_PANEL_Q4_0] = CRIA_PANEL_Q4;
    }
#endif
}
