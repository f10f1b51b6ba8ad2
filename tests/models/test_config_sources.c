/* Model configurations that come without a config.json: from GGUF metadata and from the names of Alpa's folders. */
#include "models/config.h"
#include "tests/models/gguf_file.h"

#include <math.h>
#include <sys/stat.h>

/* A small Llama as GGUF: what a test changes stands in the struct. */
typedef struct {
    const char *architecture;
    uint32_t heads, kv_heads, rotated, experts;
    const char *scaling;   /* NULL: no key */
    const float *divisors; /* rope_freqs.weight, heads * 2 values; NULL: no tensor */
    bool output, heads_are_array;
} llama_file;

static const llama_file SMALL = {.architecture = "llama", .heads = 4, .kv_heads = 2};

static void put_u32(cria_text *out, uint64_t *keys, const char *key, uint32_t value) {
    put_key(out, key, CRIA_GGUF_U32);
    put(out, value, 4);
    ++*keys;
}

static void put_text(cria_text *out, uint64_t *keys, const char *key, const char *value) {
    put_key(out, key, CRIA_GGUF_STRING);
    put_string(out, value);
    ++*keys;
}

enum { HIDDEN = 64, VOCAB = 40 };

static cria_status parse(llama_file f, cria_model_config *config, cria_error *err) {
    cria_text body, out;
    uint64_t keys = 0, tensors = 0, offset = 0;
    cria_text_init(&body);
    put_text(&body, &keys, "general.architecture", f.architecture);
    put_u32(&body, &keys, "llama.embedding_length", HIDDEN);
    put_u32(&body, &keys, "llama.block_count", 3);
    put_u32(&body, &keys, "llama.feed_forward_length", 96);
    put_u32(&body, &keys, "llama.context_length", 8192);
    if (f.heads_are_array) {
        put_key(&body, "llama.attention.head_count", CRIA_GGUF_ARRAY), keys++;
        put(&body, CRIA_GGUF_U32, 4), put(&body, 1, 8), put(&body, 4, 4);
    } else {
        put_u32(&body, &keys, "llama.attention.head_count", f.heads);
    }
    if (f.kv_heads) put_u32(&body, &keys, "llama.attention.head_count_kv", f.kv_heads);
    if (f.rotated) put_u32(&body, &keys, "llama.rope.dimension_count", f.rotated);
    if (f.experts) put_u32(&body, &keys, "llama.expert_count", f.experts);
    if (f.scaling) put_text(&body, &keys, "llama.rope.scaling.type", f.scaling);
    put_key(&body, "llama.rope.scaling.factor", CRIA_GGUF_F32), put(&body, bits_of_float(2.0f), 4), keys++;
    put_key(&body, "llama.rope.freq_base", CRIA_GGUF_F32), put(&body, bits_of_float(500000.0f), 4), keys++;
    put_key(&body, "llama.attention.layer_norm_rms_epsilon", CRIA_GGUF_F32), put(&body, bits_of_float(1e-5f), 4),
        keys++;
    put_u32(&body, &keys, "tokenizer.ggml.bos_token_id", 1);
    put_u32(&body, &keys, "tokenizer.ggml.eos_token_id", 2);
    put_u32(&body, &keys, "tokenizer.ggml.eot_token_id", 7);
    put_tensor(&body, "token_embd.weight", 2, (const uint64_t[]){HIDDEN, VOCAB}, 1, 0), tensors++;
    offset += HIDDEN * VOCAB * 2;
    put_tensor(&body, "blk.0.attn_q.weight", 2, (const uint64_t[]){HIDDEN, HIDDEN}, 8, offset), tensors++;
    offset += HIDDEN * HIDDEN / 32 * 34;
    uint64_t divisors_at = offset;
    if (f.divisors)
        put_tensor(&body, "rope_freqs.weight", 1, (const uint64_t[]){8}, 0, offset), tensors++, offset += 32;
    if (f.output) put_tensor(&body, "output.weight", 2, (const uint64_t[]){HIDDEN, 1}, 0, offset), tensors++;
    put_header(&out, 3, tensors, keys);
    cria_text_append(&out, body.data, body.length);
    pad(&out, 32);
    size_t begin = out.length;
    while (out.length - begin < offset + HIDDEN * 4) put(&out, 0, 8);
    if (f.divisors) memcpy(out.data + begin + divisors_at, f.divisors, 32);
    cria_gguf *gguf;
    if (cria_gguf_parse("f.gguf", out.data, out.length, &gguf, err) != CRIA_OK) fail_msg("%s", err->message);
    cria_status status = cria_config_from_gguf(gguf, config, err);
    cria_gguf_destroy(gguf);
    cria_text_deinit(&out);
    cria_text_deinit(&body);
    return status;
}

static cria_model_config accept(llama_file f) {
    cria_model_config config;
    cria_error err = {0};
    if (parse(f, &config, &err) != CRIA_OK) fail_msg("%s", err.message);
    return config;
}

static void refuse(llama_file f, cria_status expected, const char *fragment) {
    cria_model_config config;
    cria_error err = {0};
    assert_int_equal(parse(f, &config, &err), expected);
    if (!strstr(err.message, fragment)) fail_msg("\"%s\" does not name %s", err.message, fragment);
}

static void gguf_metadata_gives_a_whole_llama_config(void **state) {
    (void)state;
    cria_model_config c = accept(SMALL);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_true(c.family == CRIA_FAMILY_LLAMA && c.type == CRIA_Q8_0 && c.activation == CRIA_ACT_SILU);
    assert_true(c.hidden == 64 && c.layers == 3 && c.ffn == 96 && c.heads == 4 && c.kv_heads == 2 && c.head_dim == 16);
    assert_true(c.vocab == VOCAB && c.max_positions == 8192 && c.embed_dim == 64);
    assert_true(c.rope.kind == CRIA_ROPE_DEFAULT && c.rope.theta == 500000.0);
    assert_true(fabs(c.norm_eps - 1e-5) < 1e-11);
    assert_true(c.bos == 1 && c.pad == -1 && c.eos_count == 2 && c.eos[0] == 2 && c.eos[1] == 7);
    assert_true(c.tied_embeddings && c.rope_interleaved_rows && !c.attention_bias && !c.mlp_bias);
    llama_file f = SMALL;
    f.output = true;
    f.kv_heads = 0;
    f.scaling = "linear";
    c = accept(f);
    assert_true(!c.tied_embeddings && c.kv_heads == 4);
    assert_true(c.rope.kind == CRIA_ROPE_LINEAR && c.rope.factor == 2.0);
}

static void gguf_metadata_that_is_not_honoured_is_named(void **state) {
    (void)state;
    llama_file f = SMALL;
    f.architecture = "qwen2";
    refuse(f, CRIA_ERR_UNSUPPORTED, "qwen2");
    f = SMALL, f.experts = 8;
    refuse(f, CRIA_ERR_UNSUPPORTED, "llama.expert_count is 8");
    f = SMALL, f.scaling = "yarn";
    refuse(f, CRIA_ERR_UNSUPPORTED, "llama.rope.scaling.type is \"yarn\"");
    f = SMALL, f.rotated = 8;
    refuse(f, CRIA_ERR_UNSUPPORTED, "llama.rope.dimension_count is 8");
    f = SMALL, f.heads_are_array = true;
    refuse(f, CRIA_ERR_UNSUPPORTED, "llama.attention.head_count");
    f = SMALL, f.kv_heads = 3;
    refuse(f, CRIA_ERR_FORMAT, "3 key-value heads");
    f = SMALL, f.heads = 5;
    refuse(f, CRIA_ERR_FORMAT, "llama.attention.head_count 5");
}

/* The divisors that converters write for Llama 3, from its published formula. */
static void llama3_divisors(double factor, double low, double high, double original, float out[8]) {
    for (int i = 0; i < 8; i++) {
        double wavelength = 2 * M_PI * pow(500000.0, i / 8.0), smooth = (original / wavelength - low) / (high - low);
        out[i] = (float)(wavelength < original / high  ? 1
                         : wavelength > original / low ? factor
                                                       : 1 / ((1 - smooth) / factor + smooth));
    }
}

static void llama3_scaling_is_recognised_from_its_tensor(void **state) {
    (void)state;
    float divisors[8];
    llama_file f = SMALL;
    f.divisors = divisors;
    llama3_divisors(32, 1, 4, 8192, divisors);
    cria_model_config c = accept(f);
    assert_true(c.rope.kind == CRIA_ROPE_LLAMA3 && c.rope.factor == 32 && c.rope.low_freq_factor == 1);
    assert_true(c.rope.high_freq_factor == 4 && c.rope.original_max_positions == 8192);
    llama3_divisors(32, 1, 4, 1024, divisors);
    refuse(f, CRIA_ERR_UNSUPPORTED, "rope_freqs.weight");
    divisors[7] = NAN;
    refuse(f, CRIA_ERR_UNSUPPORTED, "rope_freqs.weight");
}

static void alpa_folders_are_known_by_their_name(void **state) {
    (void)state;
    static const struct {
        const char *folder;
        int64_t hidden, layers, heads;
    } known[] = {
        {"125M_np", 768, 12, 12},          {"/models/opt-350m-np/", 1024, 24, 16},
        {"a/OPT-1.3B_np//", 2048, 24, 32}, {"opt-2.7b-np", 2560, 32, 32},
        {"opt-6.7b", 4096, 32, 32},        {"13B_np", 5120, 40, 40},
        {"./30b-np", 7168, 48, 56},        {"66B_np", 9216, 64, 72},
        {"175B_np", 12288, 96, 96},
    };
    cria_error err;
    cria_model_config c;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(cria_config_from_alpa_name(known[i].folder, &c, &err), CRIA_OK);
        assert_true(c.hidden == known[i].hidden && c.layers == known[i].layers && c.heads == known[i].heads);
        assert_true(c.ffn == 4 * c.hidden && c.vocab == 50272 && c.head_dim * c.heads == c.hidden);
        bool post_norm = c.hidden == 1024;
        assert_true(c.norm_before == !post_norm && c.final_norm == !post_norm &&
                    c.embed_dim == (post_norm ? 512 : c.hidden));
        assert_true(c.bias && c.norm_affine && c.tied_embeddings && c.position_offset == 2 && c.type == CRIA_F32);
    }
    const char *const unknown[] = {"",  "/", "opt-7b-np", "opt-125m-npz", "125M_np_and_a_name_that_is_far_too_long",
                                   "np"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_int_equal(cria_config_from_alpa_name(unknown[i], &c, &err), CRIA_ERR_NOT_FOUND);
    }
}

static void an_alpa_folder_without_config_is_read_by_name_and_type(void **state) {
    (void)state;
    static const char *const names[] = {"decoder.embed_tokens.weight"};
    char parent[64], folder[128];
    make_folder(parent);
    snprintf(folder, sizeof folder, "%s/125M_np", parent);
    assert_int_equal(mkdir(folder, 0700), 0);
    const char head[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (50272, 768), }";
    write_bytes(folder, names[0], head, sizeof head - 1);
    cria_model_config c;
    cria_error err;
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_OK);
    assert_true(c.type == CRIA_F16 && c.hidden == 768);
    remove_folder(folder, names, 1);
    assert_int_equal(rmdir(parent), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_metadata_gives_a_whole_llama_config),
        cmocka_unit_test(gguf_metadata_that_is_not_honoured_is_named),
        cmocka_unit_test(llama3_scaling_is_recognised_from_its_tensor),
        cmocka_unit_test(alpa_folders_are_known_by_their_name),
        cmocka_unit_test(an_alpa_folder_without_config_is_read_by_name_and_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
