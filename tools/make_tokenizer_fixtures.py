#!/usr/bin/env python3
"""Makes the tiny vocabularies under tests/tokenizer/data, with the ids and texts that the reference libraries give.

    python3 tools/make_tokenizer_fixtures.py [--out tests/tokenizer/data]       write the fixtures again
    python3 tools/make_tokenizer_fixtures.py --check MODEL ... [--count 10000] [--filter build/tests/tokenizer_test_reference]
                                             compare Cria with the reference libraries on that many hostile strings

MODEL is a folder with tokenizer.json, with vocab.json and merges.txt, or with tokenizer.model, or a .gguf file. The
reference is Hugging Face `tokenizers` (transformers, where it is installed, for vocab.json with merges.txt), and the
sentencepiece library for tokenizer.model. Needs tokenizers and sentencepiece; gguf only to check such models.

Each folder holds the files of a model and cases.jsonl: {"text", "ids" (special tokens added and recognised), "plain"
(neither), "decoded" and "skipped" (the text of ids, with and without special tokens)} or {"ids", "decoded", "skipped"}
for random ids. scored/gguf.json holds that model's pieces as GGUF metadata would. variants.jsonl holds further tokenizer.json components around one small model.
"""
import argparse
import io
import json
import pathlib
import random
import subprocess
import sys

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"

CORPUS = """The little alpaca was born at dawn, and by noon it could already walk beside its mother across the plain.
A language model predicts the next token from the tokens before it; a server predicts for many people at once.
When the queue is full the server says so, and the client waits a moment before it tries again, doesn't it?
I'd say we've done what they'll need: it's fast, it isn't large, and you're welcome to read every line of it.
In 2022 there were 12 models, in 2023 there were 345, and by 2024 nobody was counting any more (10,000? 1,000,000?).
Paris is the capital of France, Lima is the capital of Peru, and Reykjavik is the capital of Iceland.
Der kleine Alpaka-Hengst überquerte die Straße, während seine Mutter am Zaun stand und Gras fraß.
Où est-ce que tu vas? À la montagne, répondit l'élève, où l'hiver dure jusqu'à la fin de mai.
El niño pequeño comió piñas y bebió agua; mañana volverá a la montaña con su abuelo, señor Núñez.
Съешь же ещё этих мягких французских булок, да выпей чаю. Маленькая альпака идёт по дороге.
我们把模型分成几段,每一段放在一台机器上。小羊驼在草地上跑,妈妈在旁边看着它。
吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。カタカナもあります。
작은 알파카가 들판을 걷고 있다. 어머니는 그 옆에서 풀을 먹는다.
لا إله إلا الله. الطفل الصغير يمشي في الحقل مع أمه كل يوم.
हिन्दी में एक छोटा वाक्य। नमस्ते दुनिया, आप कैसे हैं?
for (int i = 0; i < count; i++) {\n    total += values[i] * weights[i];\n}\nreturn total / count;
def encode(text: str, add_special: bool = True) -> list[int]:\n\treturn [token.id for token in split(text)]
{"model": "alpaca", "prompt": ["Hello", "world"], "max_tokens": 16, "temperature": 0.7, "stream": true}
Happy birthday! 🎉🎂 The party is at 7:30 pm — bring 2 bottles… 👩‍👩‍👧 👍🏽 ❤️ ☕
<html><body class="page"><p>Some text &amp; more</p></body></html>
""".replace("\\n", "\n").replace("\\t", "\t").splitlines(keepends=True)

ATOMS = [
    " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", " \n", "\n ", "\r", "\v", "\f", "\u00a0", "\u0085", "\u1680", "\u180e",
    "\u2003", "\u2028", "\u200b", "\u200d", "\u202f", "\u3000", "\ufeff", "\0", "\x01", "\x1b", "\x7f",
    "'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'lL", "'d", "'", "''", "'\u017f", "\u2019s", "n't",
    "0", "7", "12", "123", "1234", "12345678", "3.14", "1,000", "\u00b2", "\u00bd", "\u0663", "\u2167", "\u4e09", "\U0001d7d8",
    "a", "A", "the", "The", "server", " alpaca", " model", "Hello", " world", "tokens", "ing", "Stra\u00dfe", "\u00e9", "e\u0301",
    "\u00c0", "n\u0303", "\u0130", "\u017f", "\u212a", "\u01c5", "\u02b0", "\u00aa", "\u0391", "\u0434", "\u4f60\u597d", "\u6a21\u578b", "\u732b", "\u30ab",
    "\u3042", "\uac00", "\u1100\u1161", "\u0644\u0627", "\u0905\u0902", "\u0e01\u0e33", "\u1e00", "\U00020000", "\U000313ff", "\U0001e030", "\U00011f04",
    "\U0001f389", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f1eb\U0001f1f7", "\u0301", "\u20e3", "\ufffd", "\uffff",
    "\ue000", "\U0010ffff", "\U000e0041", "\u06dd", "\u1e9e", "\ufb01", "\u02bc", "\u0600", "\u2581", "\u2581the", "\u0120", "\u0120the", "\u010a",
    "!", "?", ".", ",", "...", "--", "\u2014", "\u2026", "(", ")", "[", "]", "{}", "<", ">", "/", "\\", "\"", "`", "~", "|", "$", "+=", "=", "^",
    "_", "__", "#", "@", "&", "%", "*", ";", ":", "\u00ab", "\u00bf", "\u3001", "\u3002", "\uff01", "\u20ac", "\u2200", "\u00d7",
    "<0x0A>", "<0xE2>", "<0x", "<|", "|>", "<unk", "s>", "<s", "</", "[INST]", "http://", "don't", "I'll", "x=1", "\n\n\n\t",
]


def hostile(count, seed, specials):
    """Strings that look for every edge that a tokenizer has; the same ones for the same seed."""
    rng = random.Random(seed)
    words = [w for line in CORPUS for w in line.split(" ")]
    made = ["", " ", "\n", "a", " a", "a ", "  a  ", *ATOMS, *specials]
    for s in specials:
        made += [f"a{s}b", f" {s} ", f"{s}{s}", f"{s} {s}a", s[:-1], s[1:], s.upper(), f"{s}x", f"x{s}", f"\t{s}\n x", f"{s}'s"]
    rng.shuffle(made)
    made = made[:count * 2 // 5]
    while len(made) < count:
        parts = []
        for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 21))):
            kind = rng.random()
            if kind < 0.5:
                parts.append(rng.choice(ATOMS))
            elif kind < 0.7:
                parts.append(rng.choice(("", " ")) + rng.choice(words))
            elif kind < 0.78 and specials:
                parts.append(rng.choice(specials))
            elif kind < 0.84:
                parts.append(rng.choice(ATOMS) * rng.randint(2, 9))
            elif kind < 0.92:
                parts.append("".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 8))))
            else:
                code = rng.choice((rng.randrange(0x20), rng.randrange(0x250), rng.randrange(0x3000), rng.randrange(0xD800),
                                   rng.randrange(0xE000, 0x110000), rng.randrange(0x10000, 0x20000)))
                parts.append(chr(code))
        made.append("".join(parts))
    return made


# --- references -----------------------------------------------------------------------------------------------------


class NoCase(Exception):
    """The reference has no one answer."""


def try_case(case):
    """Nothing where the reference has no answer: tokenizers' Strip panics on texts shorter than what it strips."""
    try:
        return [case()]
    except NoCase:
        return []
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return []


class FromTokenizers:
    """A `tokenizers` object: a vocabulary's reference."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self.specials = [t.content for t in added.values()]
        self.size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())

    def case(self, text):
        t = self.tokenizer
        t.encode_special_tokens = False
        ids = t.encode(text).ids
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        return {"ids": ids, "plain": plain, **self.texts(ids)}

    def texts(self, ids):
        return {"decoded": self.tokenizer.decode(ids, skip_special_tokens=False),
                "skipped": self.tokenizer.decode(ids, skip_special_tokens=True)}


class FromSentencePiece:
    """The sentencepiece library, with control pieces recognised in the text as transformers does it."""

    def __init__(self, model):
        self.first = sentencepiece.SentencePieceProcessor()
        self.first.LoadFromSerializedProto(model)
        self.later = sentencepiece.SentencePieceProcessor()
        self.later.LoadFromSerializedProto(model + b"\x1a\x02\x18\x00")  # add_dummy_prefix: false
        p = self.first
        try:
            self.unigram = bool(p.NBestEncodeAsIds("a", 2))
        except RuntimeError:  # only unigram models have alternatives
            self.unigram = False
        self.size = p.GetPieceSize()
        self.names = {p.IdToPiece(i): i for i in range(self.size) if p.IsControl(i) or p.IsUnknown(i)}
        self.specials = list(self.names)

    def case(self, text):
        if self.unigram and self.tied(text):
            raise NoCase  # versions of the library break ties differently
        ids, done, at = [self.first.bos_id()], 0, 0
        while at <= len(text):
            name = next((n for n in sorted(self.names, key=len, reverse=True) if text.startswith(n, at)), None)
            if at < len(text) and name is None:
                at += 1
                continue
            if at > done:
                ids += (self.later if done else self.first).EncodeAsIds(text[done:at])
            if name is not None:
                ids.append(self.names[name])
            at += len(name) if name else 1
            done = at
        return {"ids": ids, "plain": self.first.EncodeAsIds(text), **self.texts(ids)}

    def tied(self, text):
        best = [[self.first.GetScore(i) for i in ids] for ids in self.first.NBestEncodeAsIds(text, 2)]
        return len(best) > 1 and abs(sum(best[0]) - sum(best[1])) < 1e-3

    def texts(self, ids):
        """Control pieces are invisible to the library; without special tokens the text is its own."""
        kept = [i for i in ids if i not in self.names.values()]
        return {"skipped": self.first.DecodeIds(kept)}


def from_gguf(path):
    """The tokenizer that a GGUF file's metadata describes, of byte-level BPE."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    value = lambda key, default=None: fields[key].contents() if key in fields else default
    if value("tokenizer.ggml.model") != "gpt2":
        sys.exit(f"{path}: only byte-level BPE is checked against tokenizers")
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in value("tokenizer.ggml.merges")]
    pre = value("tokenizer.ggml.pre", "default")
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=merges, ignore_merges=pre == "llama-bpe"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("gpt-2", "smollm"))
    t.pre_tokenizer = {
        "gpt-2": lambda: byte_level,
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "llama-bpe": lambda: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level]),
    }[pre]()
    t.decoder = decoders.ByteLevel()
    t.add_tokens([AddedToken(s, special=k == 3, normalized=False) for s, k in zip(tokens, types) if k in (3, 4)])
    bos = value("tokenizer.ggml.bos_token_id")
    if value("tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
        t.post_processor = processors.TemplateProcessing(single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)])
    return FromTokenizers(t)


def from_opt(folder):
    """What transformers makes of OPT's vocab.json and merges.txt: byte-level BPE with </s> in front."""
    t = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    t.pre_tokenizer, t.decoder = byte_level(), decoders.ByteLevel()
    t.add_tokens([AddedToken(s, special=True, normalized=True) for s in ("</s>", "<pad>")])
    t.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return FromTokenizers(t)


def reference(path):
    path = pathlib.Path(path)
    if path.is_file():
        return from_gguf(path)
    if (path / "tokenizer.json").exists():
        return FromTokenizers(Tokenizer.from_file(str(path / "tokenizer.json")))
    if (path / "tokenizer.model").exists():
        return FromSentencePiece((path / "tokenizer.model").read_bytes())
    try:
        import transformers
    except ImportError:
        if json.loads((path / "config.json").read_text())["model_type"] != "opt":
            sys.exit(f"{path}: transformers is needed for vocab.json with merges.txt of models other than OPT")
        return from_opt(path)
    return FromTokenizers(transformers.AutoTokenizer.from_pretrained(path)._tokenizer)


# --- making fixtures ------------------------------------------------------------------------------------------------


def train(vocab_size, pre_tokenizer, specials, alphabet):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet,
                                  show_progress=False)
    t.train_from_iterator(CORPUS, trainer)
    return t


def byte_level(use_regex=True, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def make_opt(folder):
    t = train(900, byte_level(), ["<s>", "<pad>", "</s>", "<unk>"], pre_tokenizers.ByteLevel.alphabet())
    model = json.loads(t.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":")))
    lines = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    token = lambda s: {"__type": "AddedToken", "content": s, "lstrip": False, "normalized": True, "rstrip": False,
                       "single_word": False}
    config = {"errors": "replace", "unk_token": token("</s>"), "bos_token": token("</s>"), "eos_token": token("</s>"),
              "pad_token": token("<pad>"), "add_prefix_space": False, "add_bos_token": True,
              "tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "opt"}))
    return from_opt(folder)


def save(folder, t):
    data = json.loads(t.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
    return FromTokenizers(t)


def make_llama3(folder):
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(use_regex=False)])
    t = train(1200, pre, [], pre_tokenizers.ByteLevel.alphabet())
    data = json.loads(t.to_str())
    data["model"]["ignore_merges"] = True
    # Words that no merge makes: only ignore_merges finds them.
    for word in ("Ġalpacas", "unmergeable"):
        data["model"]["vocab"][word] = len(data["model"]["vocab"])
    t = Tokenizer.from_str(json.dumps(data))
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    t.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    bos = t.token_to_id(names[0])
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{names[0]} $A", special_tokens=[(names[0], bos)])])
    t.decoder = decoders.ByteLevel()
    return save(folder, t)


def make_smollm(folder):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    t = train(900, pre, names, pre_tokenizers.ByteLevel.alphabet())
    t.decoder = decoders.ByteLevel()
    t.add_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False),
                  AddedToken("<right>", rstrip=True, normalized=False),
                  AddedToken("<both>", lstrip=True, rstrip=True),
                  AddedToken("alone", single_word=True),
                  AddedToken("été", single_word=True, lstrip=True, normalized=False),
                  AddedToken("<mask>more", normalized=False), AddedToken("  ", normalized=False)])
    return save(folder, t)


def make_llama2(folder):
    t = train(700, pre_tokenizers.Metaspace("▁", "always", split=True), [], [])
    model = json.loads(t.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab.update({f"<0x{b:02X}>": 3 + b for b in range(256)})
    common = set("".join(CORPUS)[:1200])  # later characters fall back to bytes
    rank = {s: i for i, s in enumerate(model["vocab"])}
    for s in sorted(rank, key=rank.get):
        if all(c in common or c == "▁" for c in s):
            vocab[s] = len(vocab)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    merges = [m for m in merges if "".join(m) in vocab]
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.add_tokens([AddedToken("▁▁", normalized=True)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return save(folder, t)


def make_sentencepiece(folder, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=out, num_threads=1,
                                             minloglevel=2, **options)
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return FromSentencePiece(out.getvalue())


def make_unigram(folder):
    return make_sentencepiece(folder, model_type="unigram", vocab_size=360, character_coverage=0.98,
                              normalization_rule_name="identity")


def make_scored(folder):
    """As Llama-2's: BPE by scores, bytes for rare characters, spaces kept as they are."""
    judge = make_sentencepiece(folder, model_type="bpe", vocab_size=700, character_coverage=0.98, byte_fallback=True,
                               split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False)
    p = judge.first
    kind = lambda i: 2 if p.IsUnknown(i) else 3 if p.IsControl(i) else 6 if p.IsByte(i) else 1
    pieces = [[p.IdToPiece(i), kind(i), p.GetScore(i)] for i in range(p.GetPieceSize())]
    (folder / "gguf.json").write_text(json.dumps(pieces, ensure_ascii=False, separators=(",", ":")))
    return judge


FIXTURES = {"opt": make_opt, "llama3": make_llama3, "smollm": make_smollm, "llama2": make_llama2,
            "unigram": make_unigram, "scored": make_scored}


def variants():
    """Components that no fixture has, each around the same small model."""
    split = lambda pattern, behaviour, invert=False: pre_tokenizers.Split(pattern, behaviour, invert)
    p, d, n = pre_tokenizers, decoders, normalizers
    bpe = lambda *parts: p.Sequence([*parts, byte_level(use_regex=False)])
    for behaviour in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield {"pre_tokenizer": bpe(split(Regex(r"\s"), behaviour))}
        yield {"pre_tokenizer": bpe(split(Regex(r"\w+"), behaviour, True))}
        yield {"pre_tokenizer": bpe(split("the", behaviour), p.Punctuation(behaviour))}
    yield {"pre_tokenizer": byte_level(add_prefix_space=True)}
    yield {"pre_tokenizer": bpe(p.Digits(individual_digits=False))}
    yield {"pre_tokenizer": bpe(p.Whitespace())}
    yield {"pre_tokenizer": bpe(p.WhitespaceSplit(), p.CharDelimiterSplit("e"))}
    yield {"pre_tokenizer": bpe(split(Regex(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\S\n]+|\d{2,}|\h|^.|.$"),
                                      "isolated"))}
    yield {"pre_tokenizer": bpe(split(Regex(r"\b\w|\B[^a-z\u3040-\u30ff]|\P{L}{,2}x|(?m:a.b)|\p{^Nd}\p{Han}|(?<=e)(?=r)"), "isolated"))}
    # llama.cpp's way with vocabularies that name no pre-tokenizer
    yield {"pre_tokenizer": bpe(*(split(Regex(r), "isolated") for r in
                                  (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))), "gguf": "default"}
    yield {"normalizer": n.Sequence([n.Strip(left=True, right=False), n.Replace(Regex(r"\s+"), "_"), n.Prepend("the ")]),
           "pre_tokenizer": byte_level(), "added": [AddedToken("e r", special=False)]}
    yield {"normalizer": n.ByteLevel(), "pre_tokenizer": None}
    for scheme in ("always", "first", "never"):
        yield {"pre_tokenizer": p.Sequence([p.Metaspace("Ġ", scheme, split=scheme != "first")]),
               "decoder": d.Metaspace("Ġ", scheme), "added": [AddedToken("<x>", special=True)]}
    yield {"decoder": None}
    yield {"decoder": d.Sequence([d.Replace("Ġ", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 2, 2), d.Replace("e ", "_E_")])}
    yield {"decoder": d.Sequence([d.Strip("Ġ", 1, 1), d.Replace(Regex("[aeiou]+"), "*"), d.Fuse()])}
    yield {"decoder": d.Sequence([d.ByteLevel(), d.Replace("  ", "--"), d.Strip("a", 1, 1)])}
    yield {"post": processors.RobertaProcessing(("b", 66), ("a", 65))}
    yield {"post": processors.BertProcessing(("d", 68), ("c", 67))}
    yield {"post": processors.Sequence([processors.TemplateProcessing(single="a $A b b", special_tokens=[("a", 65), ("b", 66)]),
                                        processors.ByteLevel()])}


def write_variants(path):
    base = train(380, byte_level(), [], pre_tokenizers.ByteLevel.alphabet())
    lines = [json.loads(base.to_str())["model"]]
    for number, parts in enumerate(variants()):
        t = Tokenizer.from_str(base.to_str())
        t.pre_tokenizer = parts.get("pre_tokenizer", byte_level())
        t.decoder = parts.get("decoder", decoders.ByteLevel())
        if "normalizer" in parts:
            t.normalizer = parts["normalizer"]
        if "post" in parts:
            t.post_processor = parts["post"]
        t.add_tokens(parts.get("added", []))
        judge = FromTokenizers(t)
        data = json.loads(t.to_str())
        keep = {k: data[k] for k in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "added_tokens")}
        lines.append({**keep, "gguf": parts.get("gguf"), "cases": cases(judge, 20, 1000 + number, 4)})
    path.write_text("".join(json.dumps(l, ensure_ascii=False, separators=(",", ":")) + "\n" for l in lines))


def cases(judge, count, seed, decodes):
    made = []
    for text in hostile(count, seed, judge.specials):
        made += try_case(lambda: {"text": text, **judge.case(text)})
    rng = random.Random(seed)
    for _ in range(decodes):
        ids = [rng.randrange(judge.size) for _ in range(rng.randint(1, 30))]
        if rng.random() < 0.5:  # many byte tokens, so that code points are whole, cut and broken
            ids = [rng.randrange(min(judge.size, 260)) for _ in ids]
        made += try_case(lambda: {"ids": ids, **judge.texts(ids)})
    return made


def make(out):
    for name, maker in FIXTURES.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        made = cases(maker(folder), 240, len(name), 60)
        lines = [json.dumps(c, ensure_ascii=False, separators=(",", ":")) + "\n" for c in made]
        (folder / "cases.jsonl").write_text("".join(lines))
    write_variants(out / "variants.jsonl")


# --- checking -------------------------------------------------------------------------------------------------------


def check(model, count, filter_program):
    judge = reference(model)
    return compare(model, cases(judge, count, 20240501, count // 10), filter_program)


def compare(model, made, filter_program):
    """How many of the cases Cria answers otherwise; shows the first ten."""
    asked = "".join(json.dumps({"text": c["text"]} if "text" in c else {"ids": c["ids"]}) + "\n" for c in made)
    answers = subprocess.run([filter_program, model], input=asked.encode(), capture_output=True, check=True).stdout
    answers = [json.loads(line) for line in answers.decode().split("\n") if line]
    assert len(answers) == len(made), (len(answers), len(made))
    wrong = 0
    for case, answer in zip(made, answers):
        differs = [k for k in case if k != "text" and answer.get(k) != case[k]]
        if differs:
            wrong += 1
            if wrong <= 10:
                print(f"  {case.get('text')!r:.2000}")
                for k in differs:
                    print(f"    {k}: expected {case[k]!r:.2000}\n    {' ' * len(k)}       got {answer.get(k, answer)!r:.2000}")
    print(f"{model}: {len(made)} cases, {wrong} differ")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="tests/tokenizer/data", type=pathlib.Path)
    parser.add_argument("--check", nargs="+", metavar="MODEL")
    parser.add_argument("--count", default=10000, type=int)
    parser.add_argument("--filter", default="build/tests/tokenizer_test_reference")
    args = parser.parse_args()
    if args.check:
        sys.exit(1 if sum(check(m, args.count, args.filter) for m in args.check) else 0)
    make(args.out)


if __name__ == "__main__":
    main()
