"""Writes a random-weight OPT checkpoint with a vocabulary of OPT's size, without torch: what the recorded requests ran on.

The recordings name token ids up to 31414 and a context of 1024 tokens, so a stand-in needs both; its width is 32.
"""
import array
import itertools
import json
import random
import string
import struct

VOCAB, HIDDEN, FFN, HEADS, LAYERS, POSITIONS = 50272, 32, 64, 2, 2, 1024
ENTRIES = 50265  # of the tokenizer; the embedding has a few rows more, as OPT's has


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(spare)) for b in range(256)]


def vocabulary():
    """(entries, merges): the specials, the bytes, then pairs and triples of letters until ENTRIES are there."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = string.ascii_lowercase + string.ascii_uppercase
    pairs = [(a, b) for a in ["Ġ", *letters] for b in letters]
    triples = [(a + b, c) for (a, b), c in itertools.product(pairs, letters)]
    merges = (pairs + triples)[:ENTRIES - len(specials) - 256]
    return specials + byte_characters() + [a + b for a, b in merges], merges


def write_safetensors(path, tensors):
    """tensors: {name: (shape, float16 bytes)}."""
    header, offset = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            out.write(data)


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(20260)
    table = array.array("H", (struct.unpack("<H", struct.pack("<e", chance.gauss(0, 1)))[0] for _ in range(1 << 16)))

    def normal(*shape, scale=1.0, centre=0.0):
        count = 1
        for extent in shape:
            count *= extent
        if scale == 1.0 and centre == 0.0:  # the embedding: drawn from a table, which is quicker than gauss
            return list(shape), array.array("H", chance.choices(table, k=count)).tobytes()
        return list(shape), struct.pack(f"<{count}e", *(chance.gauss(centre, scale) for _ in range(count)))

    tensors = {"model.decoder.embed_tokens.weight": normal(VOCAB, HIDDEN),
               "model.decoder.embed_positions.weight": normal(POSITIONS + 2, HIDDEN, scale=0.5),
               "model.decoder.final_layer_norm.weight": normal(HIDDEN, scale=0.1, centre=1.0),
               "model.decoder.final_layer_norm.bias": normal(HIDDEN, scale=0.1)}
    for layer in range(LAYERS):
        shapes = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, HIDDEN),
                  "self_attn.v_proj": (HIDDEN, HIDDEN), "self_attn.out_proj": (HIDDEN, HIDDEN),
                  "fc1": (FFN, HIDDEN), "fc2": (HIDDEN, FFN)}
        for name, shape in shapes.items():
            tensors[f"model.decoder.layers.{layer}.{name}.weight"] = normal(*shape, scale=2 / shape[1] ** 0.5)
            tensors[f"model.decoder.layers.{layer}.{name}.bias"] = normal(shape[0], scale=0.1)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            tensors[f"model.decoder.layers.{layer}.{name}.weight"] = normal(HIDDEN, scale=0.1, centre=1.0)
            tensors[f"model.decoder.layers.{layer}.{name}.bias"] = normal(HIDDEN, scale=0.1)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["OPTForCausalLM"], "model_type": "opt", "activation_function": "relu", "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "ffn_dim": FFN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS, "word_embed_proj_dim": HIDDEN, "do_layer_norm_before": True,
        "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "torch_dtype": "float16",
        "tie_word_embeddings": True}))
    entries, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, "bos_token": "</s>",
        "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "errors": "replace"}))
    return folder
