"""What is sent and when: Poisson, even or recorded arrivals; fixed, random or recorded lengths."""

import csv
import math
import random

from client import Request


def arrivals(kind, rate, count, seed):
    """`count` times in seconds. An infinite rate sends everything at once."""
    if math.isinf(rate):
        return [0.0] * count
    if kind == "even":
        return [i / rate for i in range(count)]
    source, now, out = random.Random(seed), 0.0, []
    for _ in range(count):
        now += source.expovariate(rate)
        out.append(now)
    return out


def read_record(path):
    """A CSV file with a header: prompt_tokens, output_tokens, and maybe arrival (seconds)."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"prompt_tokens", "output_tokens"} <= set(rows[0]):
        raise SystemExit(f"{path}: needs a header with prompt_tokens and output_tokens, and rows")
    return rows


def random_prompt(source, length, vocab, shared):
    """Token ids outside the first few, which are special in most vocabularies. `shared`: ids that all prompts begin with."""
    return (shared + [source.randrange(100, vocab) for _ in range(max(0, length - len(shared)))])[:length]


def words(source, length):
    """Text of about `length` tokens, for servers and endpoints that take no token ids."""
    return " ".join(source.choice(("the", "sea", "and", "light", "of", "day", "went", "down", "slow", "house")) for _ in range(length))


def make(options, rate):
    source = random.Random(options.seed)
    record = read_record(options.lengths) if options.lengths else None
    count = min(options.requests, len(record)) if record and not options.repeat_record else options.requests
    if record:
        rows = [record[i % len(record)] for i in range(count)]
        lengths = [(int(row["prompt_tokens"]), int(row["output_tokens"])) for row in rows]
    else:
        lengths = [(options.input_tokens, options.output_tokens)] * count
    if options.arrivals == "recorded":
        if not record or "arrival" not in record[0]:
            raise SystemExit("--arrivals recorded needs --lengths FILE with a column arrival")
        times = [float(row["arrival"]) for row in rows]
    else:
        times = arrivals(options.arrivals, rate, count, options.seed)
    shared = [source.randrange(100, options.vocab) for _ in range(options.shared_prefix)]
    text = options.chat or options.text
    return [Request(when, words(source, prompt) if text else random_prompt(source, prompt, options.vocab, shared), prompt, output)
            for when, (prompt, output) in zip(times, lengths)]
