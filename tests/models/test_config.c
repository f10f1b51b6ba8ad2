/* Model configurations as transformers 4 and 5 write them, and what is refused with the key that is to blame. */
#include "models/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static cria_status parse(const char *text, cria_model_config *out, cria_error *err) {
    cria_json *json = NULL;
    assert_int_equal(cria_json_parse(text, strlen(text), &json, err), CRIA_OK);
    cria_status status = cria_config_from_json(cria_json_root(json), out, err);
    cria_json_destroy(json);
    return status;
}

static cria_model_config accept(const char *text) {
    cria_model_config config;
    cria_error err = {0};
    if (parse(text, &config, &err) != CRIA_OK) fail_msg("%s: %s", text, err.message);
    return config;
}

/* Refused with `status`, and the message holds both fragments. */
static void refuse(const char *text, cria_status status, const char *key, const char *value) {
    cria_model_config config;
    cria_error err = {0};
    assert_int_equal(parse(text, &config, &err), status);
    if (!strstr(err.message, key) || !strstr(err.message, value)) {
        fail_msg("\"%s\" names neither %s nor %s", err.message, key, value);
    }
}

#define OPT_350M                                                                                                       \
    "{\"activation_dropout\":0.0,\"activation_function\":\"relu\",\"architectures\":[\"OPTForCausalLM\"],"             \
    "\"attention_dropout\":0.0,\"bos_token_id\":2,\"do_layer_norm_before\":false,\"dropout\":0.1,\"eos_token_id\":2,"  \
    "\"ffn_dim\":4096,\"hidden_size\":1024,\"init_std\":0.02,\"layerdrop\":0.0,\"max_position_embeddings\":2048,"      \
    "\"model_type\":\"opt\",\"num_attention_heads\":16,\"num_hidden_layers\":24,\"pad_token_id\":1,"                   \
    "\"prefix\":\"</s>\",\"torch_dtype\":\"float16\",\"use_cache\":true,\"vocab_size\":50272,"                         \
    "\"word_embed_proj_dim\":512}"

static void opt_350m_has_projections_and_no_final_norm(void **state) {
    (void)state;
    cria_model_config c = accept(OPT_350M);
    assert_int_equal(c.family, CRIA_FAMILY_OPT);
    assert_string_equal(c.architecture, "OPTForCausalLM");
    assert_int_equal(c.type, CRIA_F16);
    assert_int_equal(c.hidden, 1024);
    assert_int_equal(c.embed_dim, 512);
    assert_int_equal(c.layers, 24);
    assert_int_equal(c.heads, 16);
    assert_int_equal(c.kv_heads, 16);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.ffn, 4096);
    assert_int_equal(c.vocab, 50272);
    assert_int_equal(c.max_positions, 2048);
    assert_int_equal(c.position_offset, 2);
    assert_int_equal(c.activation, CRIA_ACT_RELU);
    assert_false(c.norm_before || c.final_norm);
    assert_true(c.norm_affine && c.bias && c.tied_embeddings);
    assert_int_equal(c.rope.kind, CRIA_ROPE_NONE);
    assert_true(c.bos == 2 && c.pad == 1 && c.eos_count == 1 && c.eos[0] == 2);
}

static void opt_variants_are_read(void **state) {
    (void)state;
    cria_model_config c =
        accept("{\"model_type\":\"opt\",\"enable_bias\":false,\"layer_norm_elementwise_affine\":false,"
               "\"_remove_final_layer_norm\":true,\"tie_word_embeddings\":false,"
               "\"activation_function\":\"gelu_new\",\"dtype\":\"torch.bfloat16\"}");
    assert_false(c.bias || c.norm_affine || c.final_norm || c.tied_embeddings);
    assert_true(c.norm_before);
    assert_int_equal(c.activation, CRIA_ACT_GELU_TANH);
    assert_int_equal(c.type, CRIA_BF16);
    assert_int_equal(c.embed_dim, c.hidden);
    c = accept("{\"model_type\":\"opt\",\"word_embed_proj_dim\":null,\"eos_token_id\":null,\"pad_token_id\":null}");
    assert_int_equal(c.embed_dim, 768);
    assert_int_equal(c.eos_count, 0);
    assert_int_equal(c.pad, -1);
}

static void galactica_style_opt_is_read(void **state) {
    (void)state;
    cria_model_config c =
        accept("{\"architectures\":[\"OPTForCausalLM\"],\"model_type\":\"opt\",\"activation_function\":\"gelu\","
               "\"bos_token_id\":0,\"eos_token_id\":2,\"enable_bias\":true,\"learned_embeddings\":true,"
               "\"learn_embeddings\":true,\"scale_embeddings\":false,\"hidden_size\":768,\"vocab_size\":50000,"
               "\"layer_norm_elementwise_affine\":true,\"word_embed_proj_dim\":768}");
    assert_int_equal(c.activation, CRIA_ACT_GELU);
    assert_true(c.bos == 0 && c.vocab == 50000);
}

static void llama_of_transformers_4_and_5_mean_the_same(void **state) {
    (void)state;
#define LLAMA_REST                                                                                                     \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":2048,\"intermediate_size\":"    \
    "8192,"                                                                                                            \
    "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"num_hidden_layers\":16,\"vocab_size\":128256,"             \
    "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-05,\"tie_word_embeddings\":true,\"bos_token_id\":128000,"  \
    "\"eos_token_id\":[128001,128008,128009],\"head_dim\":64,\"pretraining_tp\":2,\"attention_dropout\":0.0"
#define LLAMA3_SCALING                                                                                                 \
    "\"factor\":32.0,\"high_freq_factor\":4.0,\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,"
    cria_model_config four =
        accept("{\"torch_dtype\":\"bfloat16\",\"rope_theta\":500000.0,\"rope_scaling\":{" LLAMA3_SCALING
               "\"rope_type\":\"llama3\"}," LLAMA_REST "}");
    cria_model_config five = accept("{\"dtype\":\"bfloat16\",\"rope_parameters\":{" LLAMA3_SCALING
                                    "\"rope_theta\":500000.0,\"rope_type\":\"llama3\"}," LLAMA_REST "}");
    assert_memory_equal(&four, &five, sizeof four);
    assert_int_equal(four.rope.kind, CRIA_ROPE_LLAMA3);
    assert_true(four.rope.theta == 500000.0 && four.rope.factor == 32.0 && four.rope.low_freq_factor == 1.0);
    assert_true(four.rope.high_freq_factor == 4.0 && four.rope.original_max_positions == 8192);
    assert_true(four.kv_heads == 8 && four.head_dim == 64 && four.norm_eps == 1e-5 && four.tied_embeddings);
    assert_true(four.eos_count == 3 && four.eos[2] == 128009 && four.bos == 128000 && four.pad == -1);
    assert_int_equal(four.activation, CRIA_ACT_SILU);
}

static void llama_defaults_and_linear_rope_are_read(void **state) {
    (void)state;
    cria_model_config c = accept("{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5},"
                                 "\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":48,\"pad_token_id\":-1}");
    assert_true(c.vocab == 32000 && c.hidden == 4096 && c.ffn == 11008 && c.layers == 32 && c.kv_heads == 32);
    assert_true(c.rope.kind == CRIA_ROPE_LINEAR && c.rope.factor == 2.5 && c.rope.theta == 10000.0);
    assert_true(c.attention_bias && c.mlp_bias && c.head_dim == 48 && !c.tied_embeddings && c.norm_eps == 1e-6);
    c = accept("{\"model_type\":\"llama\",\"rope_scaling\":null,\"rope_theta\":7}");
    assert_true(c.rope.kind == CRIA_ROPE_DEFAULT && c.rope.theta == 7.0);
    c = accept("{\"model_type\":\"llama\",\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":9,"
               "\"rope_type\":\"default\"}}");
    assert_true(c.rope.kind == CRIA_ROPE_DEFAULT && c.rope.theta == 9.0);
    c = accept(
        "{\"model_type\":\"llama\",\"max_position_embeddings\":4096,\"rope_parameters\":{\"rope_type\":\"llama3\","
        "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}}");
    assert_int_equal(c.rope.original_max_positions, 4096);
}

static void keys_that_change_results_are_refused_by_name(void **state) {
    (void)state;
#define OPT_WITH(rest) "{\"model_type\":\"opt\"," rest "}"
#define LLAMA_WITH(rest) "{\"model_type\":\"llama\"," rest "}"
    const cria_status no = CRIA_ERR_UNSUPPORTED;
    refuse(OPT_WITH("\"scale_embeddings\":true"), no, "scale_embeddings", "true");
    refuse(OPT_WITH("\"learned_embeddings\":false"), no, "learned_embeddings", "false");
    refuse(OPT_WITH("\"activation_function\":\"mish\""), no, "activation", "mish");
    refuse(OPT_WITH("\"quantization_config\":{\"quant_method\":\"gptq\"}"), no, "quantization_config", "gptq");
    refuse(OPT_WITH("\"torch_dtype\":\"float8_e4m3fn\""), no, "torch_dtype", "float8_e4m3fn");
    refuse(LLAMA_WITH("\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}"), no, "rope_scaling", "yarn");
    refuse(LLAMA_WITH("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}"), no, "rope_scaling", "dynamic");
    refuse(LLAMA_WITH("\"rope_parameters\":{\"rope_type\":\"longrope\"}"), no, "rope_parameters", "longrope");
    refuse(LLAMA_WITH("\"rope_parameters\":{\"partial_rotary_factor\":0.5}"), no, "partial_rotary_factor", "0.5");
    refuse(LLAMA_WITH("\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"), no, "rope_parameters",
           "full_attention");
    refuse(LLAMA_WITH("\"sliding_window\":4096"), no, "sliding_window", "4096");
    refuse(LLAMA_WITH("\"layer_types\":[\"full_attention\",\"sliding_attention\"]"), no, "layer_types", "sliding");
    refuse(LLAMA_WITH("\"partial_rotary_factor\":0.25"), no, "partial_rotary_factor", "0.25");
    refuse(LLAMA_WITH("\"final_logit_softcapping\":30.0"), no, "final_logit_softcapping", "30");
    refuse("{\"architectures\":[\"BloomForCausalLM\"],\"model_type\":\"bloom\"}", no, "BloomForCausalLM", "OPT");
    refuse("{\"architectures\":[\"OPTForCausalLM\"],\"model_type\":\"llama\"}", no, "OPTForCausalLM", "llama");
    refuse("{\"model_type\":\"mamba\"}", no, "mamba", "architecture");
    refuse("{\"hidden_size\":4}", CRIA_ERR_FORMAT, "architectures", "model_type");
    accept(LLAMA_WITH("\"sliding_window\":4096,\"use_sliding_window\":false"));
    accept(LLAMA_WITH("\"sliding_window\":null,\"quantization_config\":null,\"pruned_heads\":{}"));
    accept(LLAMA_WITH("\"rope_interleaved\":false,\"is_llama_config\":true,\"layer_types\":[\"full_attention\"]"));
}

static void keys_of_other_families_are_refused_by_name(void **state) {
    (void)state;
    static const char *const keys[] = {"\"rotary_pct\":0.25",
                                       "\"use_parallel_residual\":true",
                                       "\"parallel_attn\":true",
                                       "\"qk_norm\":true",
                                       "\"use_qk_norm\":true",
                                       "\"qk_layernorm\":true",
                                       "\"clip_qkv\":8.0",
                                       "\"query_pre_attn_scalar\":256",
                                       "\"attention_chunk_size\":8192",
                                       "\"no_rope_layers\":[1]",
                                       "\"no_rope_layer_interval\":4",
                                       "\"rope_local_base_freq\":1e4",
                                       "\"scale_emb\":12",
                                       "\"scale_depth\":1.4",
                                       "\"attn_logit_softcapping\":50",
                                       "\"attention_multiplier\":2",
                                       "\"embedding_multiplier\":12",
                                       "\"residual_multiplier\":0.22",
                                       "\"logits_scaling\":8",
                                       "\"logit_scale\":0.06",
                                       "\"num_local_experts\":8",
                                       "\"num_experts\":4",
                                       "\"alibi\":true",
                                       "\"is_encoder_decoder\":true"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char text[128], name[64];
        snprintf(text, sizeof text, LLAMA_WITH("%s"), keys[i]);
        snprintf(name, sizeof name, "%.*s", (int)(strcspn(keys[i] + 1, "\"")), keys[i] + 1);
        refuse(text, CRIA_ERR_UNSUPPORTED, name, "not supported");
    }
}

static void numbers_out_of_range_or_in_contradiction_are_format_errors(void **state) {
    (void)state;
    const cria_status no = CRIA_ERR_FORMAT;
    refuse(OPT_WITH("\"hidden_size\":770"), no, "hidden_size 770", "12");
    refuse(OPT_WITH("\"hidden_size\":0"), no, "hidden_size", "0");
    refuse(OPT_WITH("\"num_hidden_layers\":-1"), no, "num_hidden_layers", "-1");
    refuse(OPT_WITH("\"vocab_size\":1e300"), no, "vocab_size", "");
    refuse(OPT_WITH("\"vocab_size\":\"many\""), no, "vocab_size", "");
    refuse(OPT_WITH("\"ffn_dim\":NaN"), no, "ffn_dim", "");
    refuse(OPT_WITH("\"bos_token_id\":60000"), no, "bos_token_id", "60000");
    refuse(OPT_WITH("\"eos_token_id\":[1,99999]"), no, "eos_token_id", "99999");
    refuse(OPT_WITH("\"eos_token_id\":[1,\"x\"]"), no, "eos_token_id", "");
    refuse(LLAMA_WITH("\"num_key_value_heads\":5"), no, "32", "5 key-value heads");
    refuse(LLAMA_WITH("\"num_key_value_heads\":64"), no, "num_key_value_heads", "64");
    refuse(LLAMA_WITH("\"head_dim\":33"), no, "head_dim", "33");
    refuse(LLAMA_WITH("\"rms_norm_eps\":NaN"), no, "rms_norm_eps", "");
    refuse(LLAMA_WITH("\"rope_theta\":-1"), no, "rope_theta", "-1");
    refuse(LLAMA_WITH("\"rope_scaling\":{\"type\":\"linear\"}"), no, "rope_scaling", "factor");
    refuse(LLAMA_WITH("\"rope_scaling\":[1]"), no, "rope_scaling", "array");
    refuse(LLAMA_WITH("\"eos_token_id\":[1,2,3,4,5,6,7,8,9]"), CRIA_ERR_UNSUPPORTED, "eos_token_id", "8");
    refuse("[1]", no, "array", "object");
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void a_folder_gives_its_config_and_the_ids_of_generation_config(void **state) {
    (void)state;
    char folder[] = "/tmp/cria-config-XXXXXX", path[600];
    assert_non_null(mkdtemp(folder));
    cria_model_config c;
    cria_error err;
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "config.json"));
    write_file(folder, "config.json", OPT_350M);
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_OK);
    assert_true(c.eos_count == 1 && c.eos[0] == 2);
    write_file(folder, "generation_config.json", "{\"eos_token_id\":[7,8,7]}");
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_OK);
    assert_true(c.eos_count == 2 && c.eos[0] == 7 && c.eos[1] == 8);
    assert_true(c.sampling.temperature < 0 && c.sampling.top_k < 0 && c.sampling.max_new_tokens < 0);
    write_file(folder, "generation_config.json",
               "{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":40,\"min_p\":null,"
               "\"repetition_penalty\":1.1,\"max_new_tokens\":99}");
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_OK);
    assert_true(c.eos_count == 1 && c.eos[0] == 2);
    assert_true(c.sampling.temperature == 0.6 && c.sampling.top_p == 0.9 && c.sampling.top_k == 40);
    assert_true(c.sampling.min_p < 0 && c.sampling.repetition_penalty == 1.1 && c.sampling.max_new_tokens == 99);
    write_file(folder, "generation_config.json", "{\"top_p\":1.5}");
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "top_p"));
    write_file(folder, "generation_config.json", "{\"eos_token_id\":70000}");
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_ERR_FORMAT);
    assert_non_null(strstr(err.message, "generation_config.json"));
    write_file(folder, "config.json", "{\"model_type\":\"gpt2\"}");
    assert_int_equal(cria_config_read(folder, &c, &err), CRIA_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "config.json"));
    const char *names[] = {"config.json", "generation_config.json"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void activation_names_go_both_ways(void **state) {
    (void)state;
    for (int a = CRIA_ACT_RELU; a < CRIA_ACT_COUNT; a++) {
        cria_activation_name back;
        assert_int_equal(cria_activation_from_name(cria_activation_to_name((cria_activation_name)a), &back, NULL), 0);
        assert_int_equal(back, a);
    }
    cria_activation_name back;
    assert_int_equal(cria_activation_from_name("none", &back, NULL), CRIA_ERR_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt_350m_has_projections_and_no_final_norm),
        cmocka_unit_test(opt_variants_are_read),
        cmocka_unit_test(galactica_style_opt_is_read),
        cmocka_unit_test(llama_of_transformers_4_and_5_mean_the_same),
        cmocka_unit_test(llama_defaults_and_linear_rope_are_read),
        cmocka_unit_test(keys_that_change_results_are_refused_by_name),
        cmocka_unit_test(keys_of_other_families_are_refused_by_name),
        cmocka_unit_test(numbers_out_of_range_or_in_contradiction_are_format_errors),
        cmocka_unit_test(a_folder_gives_its_config_and_the_ids_of_generation_config),
        cmocka_unit_test(activation_names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
