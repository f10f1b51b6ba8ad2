/* Model configuration from the name of an Alpa weight folder, which has no config file. */
#include "base/file.h"
#include "models/config.h"
#include "models/config_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    int64_t hidden, layers, heads;
} opt_size;

static const opt_size SIZES[] = {
    {"125m", 768, 12, 12},  {"350m", 1024, 24, 16}, {"1.3b", 2048, 24, 32},
    {"2.7b", 2560, 32, 32}, {"6.7b", 4096, 32, 32}, {"13b", 5120, 40, 40},
    {"30b", 7168, 48, 56},  {"66b", 9216, 64, 72},  {"175b", 12288, 96, 96},
};

/* "opt-2.7b-np/" and "/models/2.7B_np" are "2.7b". False if the name is too long to be one of Alpa's. */
static bool size_of_name(const char *folder, char *out, size_t size) {
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/') begin--;
    if (end - begin >= size) return false;
    size_t n = 0;
    for (size_t i = begin; i < end; i++) out[n++] = (char)tolower((unsigned char)folder[i]);
    out[n] = 0;
    if (n > 3 && (strcmp(out + n - 3, "_np") == 0 || strcmp(out + n - 3, "-np") == 0)) out[n -= 3] = 0;
    if (strncmp(out, "opt-", 4) == 0 || strncmp(out, "opt_", 4) == 0) memmove(out, out + 4, n - 3);
    return true;
}

/* Alpa writes f16 or f32, the same for all tensors; the header of one of them says which. */
static cria_type type_of_folder(const char *folder) {
    char path[4096], head[256];
    cria_type type = CRIA_F32;
    cria_mapping mapping;
    if (cria_path_join(folder, "decoder.embed_tokens.weight", path, sizeof path, NULL) != CRIA_OK ||
        cria_mapping_open(path, &mapping, NULL) != CRIA_OK) {
        return type;
    }
    size_t n = mapping.size < sizeof head - 1 ? mapping.size : sizeof head - 1;
    for (size_t i = 0; i < n; i++) head[i] = mapping.data[i] ? (char)mapping.data[i] : ' ';
    head[n] = 0;
    if (strstr(head, "'<f2'")) type = CRIA_F16;
    cria_mapping_close(&mapping);
    return type;
}

cria_status cria_config_from_alpa_name(const char *folder, cria_model_config *out, cria_error *err) {
    char name[32];
    const opt_size *size = NULL;
    for (size_t i = 0; size_of_name(folder, name, sizeof name) && i < sizeof SIZES / sizeof *SIZES; i++) {
        if (strcmp(SIZES[i].name, name) == 0) size = &SIZES[i];
    }
    if (!size) {
        return cria_fail(err, CRIA_ERR_NOT_FOUND,
                         "%s: has no config.json and its name is none of Alpa's (125M_np, opt-2.7b-np, ..., 175B_np)",
                         folder);
    }
    bool post_norm = strcmp(size->name, "350m") == 0;
    cria_config_init(out, CRIA_FAMILY_OPT);
    snprintf(out->architecture, sizeof out->architecture, "OPTForCausalLM");
    out->type = type_of_folder(folder);
    out->vocab = 50272;
    out->hidden = size->hidden;
    out->layers = size->layers;
    out->heads = out->kv_heads = size->heads;
    out->head_dim = size->hidden / size->heads;
    out->ffn = 4 * size->hidden;
    out->max_positions = 2048;
    out->activation = CRIA_ACT_RELU;
    out->tied_embeddings = out->bias = true;
    out->norm_before = out->final_norm = !post_norm;
    out->embed_dim = post_norm ? 512 : size->hidden;
    out->position_offset = 2;
    out->bos = 2;
    out->pad = 1;
    CRIA_TRY(cria_config_add_eos(out, 2, err));
    return cria_config_check(out, err);
}
