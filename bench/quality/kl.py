#!/usr/bin/env python3
"""Measures what quantisation costs in quality: mean KL divergence per token against transformers' f32 logits.

For each text: token ids in windows, transformers' logits of the GGUF file in f32, then the logits of cria_logits with
several numeric types and instruction sets, of llama.cpp and of its fork ik_llama.cpp, all on the same ids. Needs torch,
transformers and gguf; prints a Markdown table. Exits with 1 if Cria's f32 logits are not those of transformers, or if
the packed path diverges more than a rival.
"""

import argparse
import math
import pathlib
import subprocess
import sys

import numpy

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path.home() / ".cache/cria"
DEFAULT_MODEL = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
ENVIRONMENTS = CACHE / "bench/env"  # where `./run bench` puts them
PACKED = "as packed"
CONFIGURATIONS = {
    "f32": ["--dtype", "f32"],
    "f32, bf16 KV": ["--dtype", "f32", "--kv-cache-dtype", "bf16"],
    PACKED: [],
    "as packed, f32 KV": ["--kv-cache-dtype", "f32"],
    "f32, int8 KV": ["--dtype", "f32", "--kv-cache-dtype", "int8"],
    "as packed, int8 KV": ["--kv-cache-dtype", "int8"],
    **{f"as packed, {isa}": ["--isa", isa] for isa in ("avx2", "avx512", "avx512vnni", "amx")},
    "bf16": ["--dtype", "bf16"],
    "int8": ["--dtype", "int8"],
}
RIVALS = ("llama.cpp", "ik_llama.cpp")
FEW = "--step 16"  # from 32 tokens on ik_llama.cpp multiplies in another way
LOGITS_TOLERANCE = 5e-3
KL_TOLERANCE = 1e-7


def token_ids(model, text):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    return numpy.array(tokenizer(text, add_special_tokens=False).input_ids, dtype=numpy.int32)


def write_reference(model, ids, window, out, threads):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32).eval()
    with torch.no_grad(), open(out, "wb") as file:
        for first in range(0, len(ids), window):
            logits = network(torch.tensor(ids[first : first + window][None].astype(numpy.int64))).logits
            logits[0].float().numpy().tofile(file)


def log_softmax(logits):
    shifted = logits.astype(numpy.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def compare(reference, other, ids, window):
    """Per token KL(reference || other) in nats; largest logit difference; share of equal first choices; perplexity."""
    kl, equal, worst, loss = [], 0, 0.0, []
    for first in range(0, len(ids), 64):
        p, q = log_softmax(reference[first : first + 64]), log_softmax(other[first : first + 64])
        kl.append((numpy.exp(p) * (p - q)).sum(axis=1))
        equal += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
        worst = max(worst, float(numpy.abs(reference[first : first + 64] - other[first : first + 64]).max()))
        for row in range(len(q)):
            at = first + row + 1
            if at < len(ids) and at % window != 0:
                loss.append(-q[row, ids[at]])
    kl = numpy.concatenate(kl)
    return {
        "kl": float(kl.mean()),
        "error": float(kl.std(ddof=1) / math.sqrt(len(kl))),
        "p99": float(numpy.quantile(kl, 0.99)),
        "worst": worst,
        "same": equal / len(ids),
        "perplexity": math.exp(sum(loss) / len(loss)),
        "per_token": kl,
    }


def measure(args, name, text):
    ids = token_ids(args.model, text)[: args.tokens]
    folder = args.work / name
    folder.mkdir(parents=True, exist_ok=True)
    id_file, reference_file = folder / "ids.i32", folder / "reference.f32"
    kept = id_file.exists() and reference_file.exists() and numpy.array_equal(numpy.fromfile(id_file, numpy.int32), ids)
    if not kept:
        write_reference(args.model, ids, args.window, reference_file, args.threads)
        ids.tofile(id_file)

    def load(path):
        return numpy.memmap(path, dtype=numpy.float32, mode="r").reshape(len(ids), -1)

    reference, rows = load(reference_file), {}
    print(f"\n{name}: {len(ids)} tokens in windows of {args.window}\n")
    print("| | mean KL per token | ± | 99th percentile | same first choice | perplexity | largest logit difference |")
    print("|---|---|---|---|---|---|---|")
    runs = [(label, [str(args.cria), str(args.model), str(id_file), "OUT", str(args.window), *options,
                     "--threads", str(args.threads)]) for label, options in configurations(args).items()]
    for label, (python, options) in rivals(args).items():
        runs.append((label, [str(python), str(HERE / "llama_cpp_logits.py"), str(args.model), str(id_file),
                             "OUT", "--window", str(args.window), "--threads", str(args.threads), *options]))
    for label, command in runs:
        out = folder / "logits.f32"
        done = subprocess.run([str(out) if word == "OUT" else word for word in command], stdout=subprocess.DEVNULL,
                              stderr=None if args.verbose else subprocess.DEVNULL)
        if done.returncode and "--isa" in command:
            continue  # this CPU lacks it
        if done.returncode:
            raise SystemExit(f"{label}: exit status {done.returncode}; --verbose shows why")
        rows[label] = row = compare(reference, load(out), ids, args.window)
        out.unlink()
        print(f"| {label} | {row['kl']:.3g} | {row['error']:.1g} | {row['p99']:.3g} | {100 * row['same']:.1f}% | "
              f"{row['perplexity']:.3f} | {row['worst']:.2g} |", flush=True)
    return rows


def configurations(args):
    return {**{f"Cria {label}": options for label, options in CONFIGURATIONS.items()},
            **{f"Cria {extra}": extra.split() for extra in args.also}}


def rivals(args):
    """{label: (python, options)} of those that are installed."""
    pythons = {name: args.environments / name / "bin/python" for name in RIVALS}
    return {f"{name} {extra}".strip(): (python, extra.split())
            for name, python in pythons.items() if python.exists() for extra in ["", FEW, *args.llama_also]}


def verdict(name, rows):
    """What must hold; the difference to a rival with its own error, since both saw the same tokens."""
    failures = []
    f32 = rows["Cria f32"]
    if not (f32["worst"] < LOGITS_TOLERANCE and abs(f32["kl"]) < KL_TOLERANCE):
        failures.append(f"{name}: the f32 logits differ from transformers' by {f32['worst']:.2g}, KL {f32['kl']:.2g}")
    ours = rows[f"Cria {PACKED}"]
    for rival, theirs in ((label, row) for label, row in rows.items() if not label.startswith("Cria ")):
        difference = ours["per_token"] - theirs["per_token"]
        error = difference.std(ddof=1) / math.sqrt(len(difference))
        print(f"\n{name}: Cria {PACKED} - {rival} = {difference.mean():+.3g} ± {error:.1g} per token; "
              f"ratio {ours['kl'] / theirs['kl']:.3f}")
        if ours["kl"] > theirs["kl"]:
            failures.append(f"{name}: mean KL {ours['kl']:.4g} is above {rival}'s {theirs['kl']:.4g}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", type=pathlib.Path, default=[HERE / "english.txt"])
    parser.add_argument("--model", type=pathlib.Path, default=DEFAULT_MODEL, help="a .gguf file")
    parser.add_argument("--cria", type=pathlib.Path, default=HERE.parents[1] / "build/cria_logits")
    parser.add_argument("--environments", type=pathlib.Path, default=ENVIRONMENTS,
                        help="where ./run bench has made the rivals' (FOLDER/llama.cpp, FOLDER/ik_llama.cpp)")
    parser.add_argument("--tokens", type=int, default=4096, help="at most this many of each text")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/cria-quality"),
                        help="keeps the reference logits (200 KB a token) for the next run")
    parser.add_argument("--also", action="append", default=[], metavar="OPTIONS", help="one more run of Cria with these")
    parser.add_argument("--llama-also", action="append", default=[], metavar="OPTIONS", help="the same for the rivals")
    parser.add_argument("--verbose", action="store_true", help="show the rivals' messages")
    args = parser.parse_args()
    if not args.cria.exists():
        raise SystemExit(f"{args.cria} is not there: ninja -C build cria_logits")
    failures = []
    for path in args.texts:
        failures += verdict(path.stem, measure(args, path.stem, path.read_text(encoding="utf-8")))
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
