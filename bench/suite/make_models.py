"""Makes the benchmark models, in the transformers environment: make_models.py NAME FOLDER [SMOLLM2.gguf].

Weights are random: speed does not depend on them, except that OPT's ReLU zeroes half of its neurons where a trained
model zeroes nine in ten, which no engine here makes use of. Shapes are those of the published models.
"""

import pathlib
import sys

import numpy

OPT = {
    "opt-125m": {"hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072, "num_attention_heads": 12},
    "opt-1.3b": {"hidden_size": 2048, "num_hidden_layers": 24, "ffn_dim": 8192, "num_attention_heads": 32},
}
LLAMA = {"hidden": 2048, "layers": 22, "ffn": 5632, "heads": 32, "kv_heads": 4, "head_dim": 64, "context": 2048}


def make_opt(name, folder, smollm2):
    """The tokenizer is SmolLM2's with fillers up to OPT's vocabulary: requests carry token ids, but servers want one."""
    import torch
    from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    shape = OPT[name]
    config = OPTConfig(vocab_size=50272, max_position_embeddings=2048, word_embed_proj_dim=shape["hidden_size"],
                       pad_token_id=1, bos_token_id=2, eos_token_id=2, **shape)
    OPTForCausalLM(config).save_pretrained(folder, max_shard_size="20GB")
    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer.add_tokens([f"<filler {i}>" for i in range(config.vocab_size - len(tokenizer))])
    tokenizer.save_pretrained(folder)


def make_smollm2(folder, smollm2):
    """The default model as a Hugging Face folder in bf16, for engines that read no GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)  # what was read from GGUF counts as quantised and is not saved
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name).save_pretrained(folder)


def make_llama(type_name, path, smollm2):
    import gguf

    kind = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0,
            "q4_1": gguf.GGMLQuantizationType.Q4_1, "bf16": gguf.GGMLQuantizationType.BF16}[type_name]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("llama-1.17b")
    writer.add_context_length(LLAMA["context"])
    writer.add_embedding_length(LLAMA["hidden"])
    writer.add_block_count(LLAMA["layers"])
    writer.add_feed_forward_length(LLAMA["ffn"])
    writer.add_head_count(LLAMA["heads"])
    writer.add_head_count_kv(LLAMA["kv_heads"])
    writer.add_rope_dimension_count(LLAMA["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    vocab = copy_tokenizer(gguf, writer, smollm2)
    random = numpy.random.default_rng(0)

    def matrix(name, rows, cols):
        weights = (random.standard_normal((rows, cols), dtype=numpy.float32) * 0.02).astype(numpy.float32)
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    def vector(name, size):
        writer.add_tensor(name, numpy.ones(size, numpy.float32))

    hidden, ffn, kv = LLAMA["hidden"], LLAMA["ffn"], LLAMA["kv_heads"] * LLAMA["head_dim"]
    matrix("token_embd.weight", vocab, hidden)
    for i in range(LLAMA["layers"]):
        vector(f"blk.{i}.attn_norm.weight", hidden)
        matrix(f"blk.{i}.attn_q.weight", hidden, hidden)
        matrix(f"blk.{i}.attn_k.weight", kv, hidden)
        matrix(f"blk.{i}.attn_v.weight", kv, hidden)
        matrix(f"blk.{i}.attn_output.weight", hidden, hidden)
        vector(f"blk.{i}.ffn_norm.weight", hidden)
        matrix(f"blk.{i}.ffn_gate.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_up.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, ffn)
    vector("output_norm.weight", hidden)
    matrix("output.weight", vocab, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def copy_tokenizer(gguf, writer, smollm2):
    fields = gguf.GGUFReader(str(smollm2)).fields
    for name, field in fields.items():
        if name.startswith("tokenizer.ggml."):
            value, kinds = field.contents(), field.types
            writer.add_key_value(name, value, kinds[0], kinds[1] if len(kinds) > 1 else None)
    return len(fields["tokenizer.ggml.tokens"].contents())


def main():
    name, out, smollm2 = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    unfinished = out.with_name(out.name + ".unfinished")
    if name == "smollm2-hf":
        make_smollm2(unfinished, smollm2)
    elif name in OPT:
        make_opt(name, unfinished, smollm2)
    else:
        make_llama(name, unfinished, smollm2)
    unfinished.rename(out)


if __name__ == "__main__":
    main()
