"""Writes the generated parts of docs/benchmarks.md from bench/results/: tables, ratios, spread, plots."""

import json
import statistics

import experiments_report
import machine
import plots
import serving_report
from places import RESULTS, ROOT
from workloads import WORKLOADS

DOCUMENT = ROOT / "docs/benchmarks.md"
HEAD = """# Benchmarks

Made by `./run bench` from the samples in `bench/results/`. The parts between the marks are written by it; what stands
outside them is written by hand.
"""
SPEED_INTRO = """
All engines run interleaved: in each round every engine gives one sample of a case, with a calibration beside it on the
same number of threads: a plain read, for Cria of as many bytes as a decoding step reads (256 MiB at most; a small model
may fit what a cache gives), and loops of nothing but the multiply instruction. The machine is shared and throttles, so
that tokens per second differ from hour to hour; the ratio is the median over the rounds, with the smallest and largest
in brackets. A sample during which somebody else used more than 12% of a core is left out. **At least** is the project's bar; it is judged against the best rival of a case, the line in bold. Read and peak are what
Cria's weight and KV bytes and its operations come to, as a share of the calibration beside it. "Cria avx2 alone" is Cria with `--isa avx2`, as on a processor without AVX-512; under "reached" stands how it compares with the best rival, which
keeps its AVX-512, and its own share of read or peak.
"""


def load(name):
    path = RESULTS / name
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def is_rival(name):
    """Not Cria itself, held to a narrower instruction set, which is told beside the best rival."""
    return bool(name) and not name.startswith("Cria ")


def comparisons(rows):
    """Of one kind of machine, for each (model, type, threads, case) and rival: the rounds that have both it and Cria, had
    the machine for themselves, and are of the newest commit that has such a round."""
    rounds = {}
    for row in rows:
        key = (row["model"], row["type"], row["threads"], row["case"])
        rounds.setdefault(key, {}).setdefault((row["run"], row["round"]), []).append(row)
    out = {}
    for key, group in rounds.items():
        pairs = {}
        for members in group.values():
            cria = next((row for row in members if row["engine"] == "Cria" and not row["label"]), None)
            for row in members:
                if cria and row is not cria and machine.is_clean(cria) and machine.is_clean(row):
                    pairs.setdefault(f"{row['engine']} {row['label']}".strip(), []).append((cria, row))
        for rival, found in pairs.items():
            newest = [pair for pair in found if pair[0]["commit"] == found[-1][0]["commit"]]
            out.setdefault(key, {})[rival] = compare(*zip(*newest))
        if not pairs:
            out[key] = {"": compare([row for members in group.values() for row in members
                                     if row["engine"] == "Cria" and not row["label"] and machine.is_clean(row)], [])}
    return {key: found for key, found in out.items() if any(c["rounds"] for c in found.values())}


def compare(ours, theirs):
    if not ours:
        return {"rounds": 0}
    ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs)]
    median = lambda name, rows: statistics.median(row[name] for row in rows) if rows else None
    return {"ratios": ratios, "ratio": statistics.median(ratios) if ratios else None, "rounds": len(ours),
            "cria": median("tokens_per_second", ours), "rival": median("tokens_per_second", theirs),
            "gbps": median("gbps", ours), "gflops": median("gflops", ours), "read": median("read_share", ours),
            "peak": median("peak_share", ours), **{f"narrow_{what}": median(f"{what}_share", theirs) for what in ("read", "peak")
                                                   if theirs and theirs[0]["engine"] == "Cria"},
            "read_gbps": statistics.median(r["limits"]["read_gbps"] for r in ours),
            "version": theirs[-1]["version"] if theirs else "", "when": ours[-1]["when"][:16].replace("T", " "),
            "commit": ours[-1]["commit"], "features": ours[-1]["features"]}


def number(value):
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rows_of(case, threads, found, least):
    best = min(((c["ratio"], rival) for rival, c in found.items() if is_rival(rival)), default=(0, None))[1]
    for rival, c in sorted(found.items(), key=lambda item: (item[1]["ratio"] or 0, item[0])):
        rate, unit, what = ("gbps", "GB/s", "read") if case.phase == "decode" else ("gflops", "GOP/s", "peak")
        share = f"{number(c[rate])} {unit}, {100 * c[what]:.0f}%"
        mark = "**" if rival == best else ""
        bar = reached = ""
        if rival == best and least:
            bar, reached = f"{least:g}x", "yes" if c["ratio"] >= least else "**no**"
        if rival and best and not is_rival(rival):
            reached = f"{c['rival'] / found[best]['rival']:.2f}x {best}, at {100 * c['narrow_' + what]:.0f}%"
        ratio = f"{mark}{c['ratio']:.2f}x{mark} ({min(c['ratios']):.2f}–{max(c['ratios']):.2f}, {c['rounds']}x)" if rival else ""
        yield (f"| {case.name} | {threads} | {number(c['cria'])} | {share} | {mark}{rival}{mark} | {number(c['rival'])} | {ratio} "
               f"| {bar} | {reached} | {c['when']}, {c['commit']} |")


def speed(results, slug):
    lines = []
    versions = sorted({c["version"] for found in results.values() for rival, c in found.items()
                       if c["version"] and is_rival(rival)})
    lines += ["Rivals: " + "; ".join(versions) + ".", ""]
    model = None
    for workload in WORKLOADS:
        keys = [(workload.model, workload.type, threads, case.name) for case in workload.cases for threads in (1, 2)]
        if not any(key in results for key in keys):
            continue
        if workload.model != model:
            model = workload.model
            plot = plots.SPEED.format(model, slug)
            lines += [f"#### {model}", ""] + ([f"![Cria against its rivals: {model}](plots/{plot})", ""] if
                                              (plots.FOLDER / plot).exists() else [])
        lines.append(f"##### {workload.name}")
        lines.append("")
        features = next(c["features"] for key in keys if key in results for c in results[key].values())
        if workload.type == "bf16" and "BF16" not in features:
            lines += ["This CPU has no AVX512-BF16: bf16 weights are widened to f32 before they are multiplied, so the peak is "
                      "that of f32.", ""]
        lines.append("| case | threads | Cria tok/s | and share of read or peak | rival | rival tok/s | ratio | at least | reached "
                     "| measured, commit |")
        lines.append("|---|---|---|---|---|---|---|---|---|---|")
        for case in workload.cases:
            for threads in (1, 2):
                found = results.get((workload.model, workload.type, threads, case.name))
                if found:
                    lines += rows_of(case, threads, found, case.least[threads - 1])
        lines.append("")
    return "\n".join(lines)


def replace_section(text, name, body):
    begin, end = f"<!-- begin {name}, written by ./run bench -->", f"<!-- end {name} -->"
    section = f"{begin}\n{body.strip()}\n{end}"
    if begin in text and end in text:
        return text[: text.index(begin)] + section + text[text.index(end) + len(end):]
    return f"{text.rstrip()}\n\n## {name.capitalize()}\n\n{section}\n"


def by_machine(name, tables):
    """The tables of a results file, one part for each kind of machine; empty without results."""
    parts = ((machine.name(rows[-1]), tables(rows, machine.slug(rows[-1]))) for rows in machine.kinds(load(name)))
    return "\n\n".join(f"### On {about}\n\n{body.strip()}" for about, body in parts if body)


def speed_tables(rows, slug, say):
    results = comparisons(rows)
    plots.draw_speed(results, slug, say)
    return speed(results, slug) if results else ""


def serving_tables(rows, slug, say):
    plots.draw_serving(rows, slug, say)
    return serving_report.tables(rows, slug)


def write(say):
    """Keeps everything in the document that stands outside the marks."""
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else HEAD
    if found := by_machine("speed.jsonl", lambda rows, slug: speed_tables(rows, slug, say)):
        text = replace_section(text, "speed", SPEED_INTRO + "\n" + found)
    if found := by_machine("serving.jsonl", lambda rows, slug: serving_tables(rows, slug, say)):
        text = replace_section(text, "serving", serving_report.INTRO + "\n" + found)
    if found := by_machine("experiments.jsonl", lambda rows, slug: experiments_report.tables(rows)):
        text = replace_section(text, "promises", found)
    DOCUMENT.write_text(text, encoding="utf-8")
    say(f"wrote {DOCUMENT.relative_to(ROOT)}")
