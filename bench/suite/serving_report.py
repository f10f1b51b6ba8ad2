"""Tables of the serving measurements: saturation, then latency by rate, Cria beside each rival."""

import statistics

INTRO = """
Open-loop load by `bench/load`: Poisson arrivals, 128 random prompt tokens, 64 answer tokens, streaming, all cores shared
by server and load generator. Saturation is 48 requests at once. One server runs at a time; values are medians over the
rounds, and latencies count from when a request was due.
"""
# (model, Cria's engine, rival, what, at rate or None) -> (bar, whether Cria's value must be above bar x or below it)
BARS = (
    ("smollm2", "Cria q4_1", "vLLM bf16", "saturation", None, 1.6),
    ("smollm2", "Cria q4_1", "llama-server q4_1", "saturation", None, 5),
    ("smollm2", "Cria q4_1", "vLLM bf16", "ttft p50", 2, 0.5),
    ("smollm2", "Cria q4_1", "vLLM bf16", "inter_token p50", 2, 0.5),
    ("smollm2", "Cria q4_1", "vLLM bf16", "inter_token p99", 2, 0.5),
    ("opt-125m", "Cria bf16", "vLLM bf16", "saturation", None, 1.5),
    ("opt-125m", "Cria int8", "vLLM bf16", "saturation", None, 2.5),
    ("opt-125m", "Cria bf16", "vLLM bf16", "ttft p50", 2, 0.7),
    ("opt-125m", "Cria bf16", "vLLM bf16", "inter_token p50", 2, 0.7),
    ("opt-125m", "Cria bf16", "vLLM bf16", "inter_token p99", 2, 0.7),
)
NAMES = {"saturation": "requests/s at saturation", "ttft p50": "first token, p50", "inter_token p50": "inter-token, p50",
         "inter_token p99": "inter-token, p99"}


def value(row, what):
    if what == "saturation":
        return row["report"]["requests_per_second"]
    name, percent = what.split(" ")
    return row["report"][name][percent]


def latest(rows):
    """The rows of each (model, engine, rate) that were measured with its newest commit."""
    groups = {}
    for row in rows:
        groups.setdefault((row["model"], row["engine"], row["rate"]), []).append(row)
    return {key: [row for row in group if row["commit"] == group[-1]["commit"]] for key, group in groups.items()}


def median(group, what):
    values = [value(row, what) for row in group if value(row, what) is not None]
    return statistics.median(values) if values else None


def bars(groups):
    yield "| model | Cria | rival | what | Cria | rival | ratio | bar | reached |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for model, cria, rival, what, rate, bar in BARS:
        ours = median(groups.get((model, cria, rate), []), what)
        theirs = median(groups.get((model, rival, rate), []), what)
        if ours is None or theirs is None:
            continue
        ratio, saturation = ours / theirs, what == "saturation"
        show = (lambda v: f"{v:.2f}") if saturation else lambda v: f"{1e3 * v:.0f} ms"
        at = "" if rate is None else f" at {rate:g}/s"
        reached = ratio >= bar if saturation else ratio <= bar
        yield (f"| {model} | {cria} | {rival} | {NAMES[what]}{at} | {show(ours)} | {show(theirs)} | {ratio:.2f} | "
               f"{'>=' if saturation else '<='} {bar:g} | {'yes' if reached else '**no**'} |")


def details(groups):
    yield "| model | engine | rate | requests/s | tok/s | first token ms p50 / p90 / p99 | inter-token ms p50 / p90 / p99 | measured |"
    yield "|---|---|---|---|---|---|---|---|"
    for model, engine, rate in sorted(groups, key=lambda key: (key[0], key[1], key[2] or 1e9)):
        group = groups[model, engine, rate]
        cells = []
        for name in ("ttft", "inter_token"):
            figures = [median(group, f"{name} {percent}") for percent in ("p50", "p90", "p99")]
            cells.append(" / ".join("-" if f is None else f"{1e3 * f:.0f}" for f in figures))
        tokens = statistics.median(row["report"]["output_tokens_per_second"] for row in group)
        yield (f"| {model} | {engine} | {'all at once' if rate is None else f'{rate:g}/s'} | {median(group, 'saturation'):.2f} | "
               f"{tokens:.0f} | {cells[0]} | {cells[1]} | {group[-1]['when'][:16].replace('T', ' ')}, {len(group)}x |")


def tables(rows, slug):
    groups = latest(rows)
    plots = [f"![{model}](plots/serving-{model}-{slug}.svg)" for model in sorted({key[0] for key in groups})]
    return "\n".join([*bars(groups), "", *details(groups), "", *plots])
