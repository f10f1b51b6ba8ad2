#!/usr/bin/env python3
"""Makes the small random-weight checkpoints under tests/fixtures, with the numbers transformers computes for them.

    python3 tools/make_fixtures.py [--out tests/fixtures] [--only NAME ...]     write the fixtures again
    python3 tools/make_fixtures.py --check MODEL [--cria build/cria]            compare cria with transformers

Needs torch, transformers, tokenizers, safetensors and gguf. Every model is seeded, so a second run writes the same
weights. What a folder holds beside the checkpoint itself:

    expected.json         prompt (ids), greedy (the 64 ids that follow), margin (the smallest lead of a greedy choice),
                          vocab, tolerance
    expected_logits.f32   little-endian float32 [prompt][vocab]: the logits of every prompt position

The expected numbers come from transformers' own model classes run in float64 throughout: where they force float32
(softmax, RMSNorm, rotary angles) the script raises that to float64 as well. GGUF files are judged by the same classes
with the weights that the gguf package dequantises.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

GREEDY_TOKENS = 64
PROMPT_TOKENS = 20
MIN_MARGIN = 2e-3   # a greedy choice must lead by this much, or float32 could honestly choose otherwise
MIN_DISTINCT = 12   # ids in the continuation: a model that repeats itself tests little
TOLERANCE = 1e-4


class Float64(TorchFunctionMode):
    """Everything that asks for float32 gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def raised(x):
            return torch.float64 if x is torch.float32 else x

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(raised, args), **{k: raised(v) for k, v in (kwargs or {}).items()})


def logits_of(model, ids):
    with torch.no_grad(), Float64():
        return model(torch.tensor([ids]), use_cache=False).logits[0]


def judge(model, prompt):
    """(logits of every prompt position, greedy ids, smallest lead), in float64."""
    model = model.double().eval()
    for module in model.modules():  # rotary frequencies are made in float32 at construction; make them again
        if hasattr(module, "inv_freq"):
            with Float64():
                remade = type(module)(module.config)
            module.inv_freq = remade.inv_freq
    first = logits_of(model, prompt)
    ids, margin = list(prompt), float("inf")
    for _ in range(GREEDY_TOKENS):
        top = torch.topk(logits_of(model, ids)[-1], 2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    return first, ids[len(prompt):], margin


def randomise(model, seed, gain):
    """Weights with enough spread that logits differ clearly and attention is not uniform."""
    g = torch.Generator().manual_seed(seed)
    spread = 2.0
    if getattr(model.config, "_remove_final_layer_norm", False):
        spread = 0.3  # without a last norm the final states are larger, and so are the logits
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if "norm" in name and name.endswith("weight"):
            p.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            p.data = 0.3 * noise
        elif "embed" in name or "lm_head" in name:
            p.data = noise * (0.3 if "positions" in name else spread / p.shape[-1] ** 0.5)
        else:
            p.data = noise * gain / p.shape[-1] ** 0.5
    model.tie_weights()


def opt(**kw):
    base = dict(vocab_size=96, hidden_size=40, num_hidden_layers=2, ffn_dim=72, num_attention_heads=4,
                max_position_embeddings=88, dropout=0.0, bos_token_id=2, eos_token_id=2, pad_token_id=1)
    return OPTConfig(**{**base, **kw})


def llama(**kw):
    base = dict(vocab_size=96, hidden_size=40, num_hidden_layers=2, intermediate_size=56, num_attention_heads=4,
                max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
    return LlamaConfig(**{**base, **kw})


def rope(kind, theta=10000.0, **kw):
    return {"rope_type": kind, "rope_theta": theta, **kw}


# name: (config, how it is written). Writing: file ("safetensors", "bin", "npy"), shards (a size limit), style (which
# transformers wrote config.json: 4 or 5), dtype, prefix (what precedes "decoder." in names), tokenizer.
CASES = {
    "opt-plain": (lambda: opt(), dict(style=5)),
    "opt-post-norm-projected": (lambda: opt(hidden_size=56, word_embed_proj_dim=32, do_layer_norm_before=False,
                                            ffn_dim=64), dict(file="bin", style=4, prefix="")),
    "opt-no-final-norm": (lambda: opt(_remove_final_layer_norm=True, hidden_size=40, num_attention_heads=5),
                          dict(style=4)),
    "opt-no-bias": (lambda: opt(enable_bias=False, vocab_size=131), dict(style=5)),
    "opt-norm-without-weights": (lambda: opt(layer_norm_elementwise_affine=False, hidden_size=44,
                                             num_attention_heads=4), dict(style=5)),
    "opt-untied-head": (lambda: opt(tie_word_embeddings=False, hidden_size=60, num_attention_heads=4, ffn_dim=40),
                        dict(style=5, shards="50KB")),
    "opt-galactica": (lambda: opt(activation_function="gelu", enable_bias=False, layer_norm_elementwise_affine=False,
                                  vocab_size=150, bos_token_id=0, ffn_dim=160),
                      dict(file="bin", style=4, shards="150KB")),
    "opt-pre-norm-projected": (lambda: opt(hidden_size=42, num_attention_heads=7, word_embed_proj_dim=24,
                                           activation_function="gelu_new"), dict(style=5)),
    "opt-alpa-npy": (lambda: opt(hidden_size=56, num_attention_heads=8, ffn_dim=80),
                     dict(file="npy", style=4)),
    "opt-f16-text": (lambda: opt(vocab_size=320, hidden_size=32, num_attention_heads=2, ffn_dim=64,
                                 max_position_embeddings=512), dict(style=4, dtype=torch.float16, tokenizer="opt")),
    "llama-mha": (lambda: llama(), dict(style=4)),
    "llama-gqa": (lambda: llama(hidden_size=36, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=3), dict(style=5)),
    "llama-head-dim": (lambda: llama(num_key_value_heads=2, head_dim=18, hidden_size=32,
                                     vocab_size=131), dict(style=5, shards="50KB")),
    "llama-tied": (lambda: llama(tie_word_embeddings=True, num_key_value_heads=1), dict(file="bin", style=4)),
    "llama-attention-bias": (lambda: llama(attention_bias=True, num_key_value_heads=2, head_dim=14), dict(style=5)),
    "llama-mlp-bias": (lambda: llama(mlp_bias=True, hidden_act="gelu", hidden_size=40, intermediate_size=54),
                       dict(style=5)),
    "llama-rope-linear": (lambda: llama(rope_parameters=rope("linear", factor=2.5)), dict(style=4)),
    "llama-rope-linear-5": (lambda: llama(rope_parameters=rope("linear", 5000.0, factor=4.0)), dict(style=5)),
    "llama-rope-llama3": (lambda: llama(rope_parameters=rope(
        "llama3", 500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
        num_key_value_heads=2), dict(style=4)),
    "llama-rope-llama3-5": (lambda: llama(rope_parameters=rope(
        "llama3", 50000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=3.0,
        original_max_position_embeddings=48), head_dim=20), dict(style=5)),
    "llama-bf16-text": (lambda: llama(vocab_size=320, hidden_size=48, num_key_value_heads=2, intermediate_size=64,
                                      max_position_embeddings=512, bos_token_id=1, eos_token_id=2),
                        dict(style=5, dtype=torch.bfloat16, tokenizer="chatml")),
}

GGUF_TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]

CHATML = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
          "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
          "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

TEXT = """A cria is a young alpaca. It stands up within an hour of its birth and follows its mother through the herd.
The herd grazes on the high plain; in the evening it returns to the corral. There are 12 mothers and 11 young, and the
one that is missing will be found before night, because the others call for it. What the shepherd counts is not the
animals but the places between them: a gap means that somebody is late. \"Where is the white one?\" she asks, and the
dog goes out again. When the work is done, the fire is lit, the soup is hot and nobody speaks for a while."""


def as_version_4(config):
    """What transformers 4 would have written for this config: rope_theta and rope_scaling, torch_dtype."""
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    parameters = config.pop("rope_parameters", None)
    if parameters:
        config["rope_theta"] = parameters.pop("rope_theta")
        config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    return config


def byte_level_tokenizer(vocab_size, specials):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tokenizer


def write_tokenizer(folder, kind, vocab_size):
    if kind == "opt":
        tokenizer = byte_level_tokenizer(vocab_size, ["<s>", "<pad>", "</s>", "<unk>"])
        tokenizer.model.save(str(folder))
        info = {"add_bos_token": True, "add_prefix_space": False, "bos_token": "</s>", "eos_token": "</s>",
                "pad_token": "<pad>", "unk_token": "</s>", "tokenizer_class": "GPT2Tokenizer", "errors": "replace"}
        (folder / "special_tokens_map.json").write_text(json.dumps(
            {k: info[k] for k in ("bos_token", "eos_token", "pad_token", "unk_token")}, indent=1) + "\n")
    else:
        tokenizer = byte_level_tokenizer(vocab_size, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        tokenizer.save(str(folder / "tokenizer.json"))
        info = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
                "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False,
                "clean_up_tokenization_spaces": False, "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(info, indent=1) + "\n")


def shards_of(state, limit):
    """Splits {name: tensor} into parts of at most `limit` ("40KB")."""
    limit, parts, size = int(limit[:-2]) * 1000, [{}], 0
    for name, tensor in state.items():
        bytes_here = tensor.numel() * tensor.element_size()
        if parts[-1] and size + bytes_here > limit:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += bytes_here
    return parts


def write_weights(folder, model, file="safetensors", shards=None, prefix="model.", **_):
    state = {name: tensor for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings and file != "bin":
        del state["lm_head.weight"]  # a .bin keeps the shared storage twice, as PyTorch does
    if prefix != "model.":
        state = {name.replace("model.", prefix, 1): tensor for name, tensor in state.items()}
    if file == "npy":  # Alpa's folder: one NPY file per tensor, no extension, half precision
        for name, tensor in state.items():
            with open(folder / name.replace("model.", "", 1).replace("decoder.final_", "decoder."), "wb") as out:
                np.save(out, tensor.half().numpy())
        return
    stem, end = ("model", ".safetensors") if file == "safetensors" else ("pytorch_model", ".bin")
    parts = shards_of(state, shards) if shards else [state]
    names = [stem + end] if len(parts) == 1 else [
        f"{stem}-{i + 1:05d}-of-{len(parts):05d}{end}" for i in range(len(parts))]
    for name, part in zip(names, parts):
        if file == "safetensors":
            save_file({k: v.contiguous().clone() for k, v in part.items()}, folder / name, metadata={"format": "pt"})
        else:
            torch.save(part, folder / name)
    if len(parts) > 1:
        index = {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in state.values())},
                 "weight_map": {k: name for name, part in zip(names, parts) for k in part}}
        (folder / (stem + end + ".index.json")).write_text(json.dumps(index, indent=1) + "\n")


def write_expected(base, prompt, logits, greedy, margin):
    folder, stem = (base, "expected") if base.is_dir() else (base.parent, base.stem + ".expected")
    (folder / f"{stem}.json").write_text(json.dumps(
        {"prompt": prompt, "greedy": greedy, "vocab": logits.shape[1], "margin": round(margin, 6),
         "tolerance": TOLERANCE}) + "\n")
    logits.numpy().astype("<f4").tofile(folder / f"{stem}_logits.f32")


def prompt_for(seed, vocab, bos):
    g = torch.Generator().manual_seed(seed + 77)
    return [bos] + torch.randint(4, vocab, (PROMPT_TOKENS - 1,), generator=g).tolist()


def good_seed(name, build, prepare=lambda model: model):
    """The first seed whose greedy continuation is neither a tie nor a loop; (model, prompt, judgement)."""
    for seed in range(1, 400):
        for gain in (1.5, 2.5):
            model = build()
            randomise(model, seed, gain)
            model = prepare(model)
            prompt = prompt_for(seed, model.config.vocab_size, model.config.bos_token_id)
            state = {k: v.clone() for k, v in model.state_dict().items()}
            dtype = next(model.parameters()).dtype
            logits, greedy, margin = judge(model, prompt)
            if margin >= MIN_MARGIN and len(set(greedy)) >= MIN_DISTINCT and model.config.eos_token_id not in greedy:
                print(f"{name}: seed {seed}, margin {margin:.4f}, {len(set(greedy))} distinct ids, "
                      f"logits std {logits.std():.2f}")
                model.to(dtype).load_state_dict(state)
                model.tie_weights()
                return model, prompt, (logits, greedy, margin)
    raise SystemExit(f"{name}: no seed gives a usable continuation")


def make_checkpoint(folder, config, how):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = OPTForCausalLM if config.model_type == "opt" else LlamaForCausalLM
    config._attn_implementation = "eager"
    dtype = torch.float16 if how.get("file") == "npy" else how.get("dtype", torch.float32)
    model, prompt, judged = good_seed(folder.name, lambda: kind(config), lambda m: m.to(dtype))
    model.save_pretrained(folder)
    for path in list(folder.iterdir()):
        if path.name != "config.json":
            path.unlink()
    written = json.loads((folder / "config.json").read_text())
    if how["style"] == 4:
        written = as_version_4(written)
    (folder / "config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    write_weights(folder, model, **how)
    if "tokenizer" in how:
        write_tokenizer(folder, how["tokenizer"], config.vocab_size)
    write_expected(folder, prompt, *judged)


def rows_for_gguf(name, array, heads, kv_heads):
    """llama.cpp's converter reorders q and k rows for rotation of neighbouring pairs."""
    n = heads if "attn_q" in name else kv_heads
    if "attn_q.weight" not in name and "attn_k.weight" not in name:
        return array
    return array.reshape(n, 2, array.shape[0] // n // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def gguf_name(name):
    name = name.replace("model.embed_tokens", "token_embd").replace("model.norm", "output_norm")
    name = name.replace("lm_head", "output").replace("model.layers.", "blk.")
    for theirs, ours in GGUF_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def make_gguf(path, type_name):
    import gguf
    quant = gguf.GGMLQuantizationType[type_name]
    tied = type_name not in ("F16", "Q4_0")
    layers = 1 if type_name in ("F32", "F16", "BF16") else 2  # the files stay small
    config = llama(vocab_size=300, hidden_size=64, intermediate_size=96, num_key_value_heads=2, num_attention_heads=4,
                   num_hidden_layers=layers, max_position_embeddings=256, bos_token_id=1, tie_word_embeddings=tied)
    config._attn_implementation = "eager"
    packed = {}

    def pack(model):
        """Rounds the model's weights to what the file will hold, so that the judge sees the same numbers."""
        packed.clear()
        for name, p in model.state_dict().items():
            array = p.numpy().copy()
            if array.ndim == 1:
                packed[name] = (array, gguf.GGMLQuantizationType.F32)
            else:
                packed[name] = (gguf.quants.quantize(array, quant), quant)
                p.copy_(torch.from_numpy(gguf.quants.dequantize(packed[name][0], quant).reshape(array.shape).copy()))
        return model

    with torch.no_grad():
        _, prompt, judged = good_seed(path.name, lambda: LlamaForCausalLM(config), pack)  # fills `packed`
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = json.loads(byte_level_tokenizer(config.vocab_size, specials).to_str())
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(getattr(gguf.LlamaFileType, {"F32": "ALL_F32"}.get(type_name, "MOSTLY_" + type_name)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in specials else 1 for token, _ in vocabulary])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
    for name, (array, kind) in packed.items():
        if tied and name == "lm_head.weight":
            continue
        array = rows_for_gguf(gguf_name(name), array, config.num_attention_heads, config.num_key_value_heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_expected(path, prompt, *judged)


def load_judge(path):
    """transformers' model of a checkpoint, in float64."""
    if path.suffix == ".gguf":
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32,
                                                    attn_implementation="eager")
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def check(path, cria):
    """Greedy ids and their log-probabilities from `cria generate`, against transformers."""
    model = load_judge(path)
    known = (path / "expected.json") if path.is_dir() else path.with_suffix(".expected.json")
    bos = model.config.bos_token_id or 0
    prompt = json.loads(known.read_text())["prompt"] if known.exists() else prompt_for(1, model.config.vocab_size, bos)
    _, greedy, margin = judge(model, prompt)
    answer = json.loads(subprocess.run(
        [cria, "generate", str(path), "--prompt-ids", ",".join(map(str, prompt)), "--max-tokens", str(GREEDY_TOKENS),
         "--ignore-eos", "--dtype", "f32", "--logprobs", "0", "--echo", "--json"],
        check=True, capture_output=True, text=True).stdout)
    ids = prompt + answer["tokens"]
    with torch.no_grad():
        rows = torch.log_softmax(logits_of(model, ids), -1)
    values = answer["prompt_logprobs"] + answer["logprobs"]  # of every position but the first
    worst = max(abs(rows[i, ids[i + 1]].item() - value["logprob"]) for i, value in enumerate(values))
    assert len(values) == len(ids) - 1
    same = answer["tokens"] == greedy
    print(f"{path}: greedy {'identical' if same else 'DIFFERENT'} (smallest lead {margin:.2g}), "
          f"largest difference of a log-probability {worst:.2g}")
    return same and worst <= TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/fixtures"))
    parser.add_argument("--only", nargs="*", help="names of fixtures to make")
    parser.add_argument("--check", nargs="+", type=pathlib.Path, metavar="MODEL")
    parser.add_argument("--cria", default="build/cria")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if args.check:
        sys.exit(0 if all([check(path, args.cria) for path in args.check]) else 1)
    for name, (config, how) in CASES.items():
        if not args.only or name in args.only:
            make_checkpoint(args.out / "models" / name, config(), how)
    for type_name in GGUF_TYPES:
        name = f"llama-{type_name.lower()}"
        if not args.only or name in args.only:
            make_gguf(args.out / "gguf" / f"{name}.gguf", type_name)


if __name__ == "__main__":
    main()
