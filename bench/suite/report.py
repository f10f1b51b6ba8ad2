"""Writes the generated parts of docs/benchmarks.md from bench/results/: tables, ratios, spread, plots."""

import json
import statistics

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
All engines run interleaved: in each round every engine gives one sample of a case, with a calibration (a plain read of
256 MiB and loops of nothing but the multiply instruction, on the same number of threads) beside it. The machine is
shared and throttles, so that tokens per second differ from hour to hour; the ratio is the median over the rounds, with
the smallest and largest in brackets. **At least** is the project's bar; it is judged against the best rival of a case,
the line in bold. Read and peak are what Cria's weight and KV bytes and its operations come to, as a share of the
calibration beside it.
"""


def load(name):
    path = RESULTS / name
    if not path.exists():
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def comparisons(rows):
    """For each (model, type, threads, case, rival): the latest run that has it and Cria in the same rounds."""
    runs = {}
    for row in rows:
        key = (row["model"], row["type"], row["threads"], row["case"])
        runs.setdefault(key, {}).setdefault(row["run"], []).append(row)
    out = {}
    for key, by_run in runs.items():
        for run in by_run.values():  # in the order of the file: later runs replace earlier ones
            cria = {row["round"]: row for row in run if row["engine"] == "Cria"}
            rivals = {}
            for row in run:
                if row["engine"] != "Cria" and row["round"] in cria:
                    rivals.setdefault(f"{row['engine']} {row['label']}".strip(), []).append(row)
            for rival, theirs in rivals.items():
                ours = [cria[row["round"]] for row in theirs]
                out.setdefault(key, {})[rival] = compare(ours, theirs)
            if cria and not rivals and key not in out:
                out[key] = {"": compare(list(cria.values()), [])}
    return out


def compare(ours, theirs):
    ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(ours, theirs)]
    median = lambda name, rows: statistics.median(row[name] for row in rows) if rows else None
    return {"ratios": ratios, "ratio": statistics.median(ratios) if ratios else None, "rounds": len(ours),
            "cria": median("tokens_per_second", ours), "rival": median("tokens_per_second", theirs),
            "gbps": median("gbps", ours), "gflops": median("gflops", ours), "read": median("read_share", ours),
            "peak": median("peak_share", ours), "read_gbps": statistics.median(r["limits"]["read_gbps"] for r in ours),
            "version": theirs[-1]["version"] if theirs else "", "when": ours[-1]["when"][:16].replace("T", " "),
            "commit": ours[-1]["commit"], "cpu": ours[-1]["cpu"], "features": ours[-1]["features"]}


def number(value):
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rows_of(case, threads, found, least):
    best = min((c["ratio"], rival) for rival, c in found.items() if rival)[1] if any(found) else None
    for rival, c in sorted(found.items(), key=lambda item: (item[1]["ratio"] or 0, item[0])):
        share = f"{number(c['gbps'])} GB/s, {100 * c['read']:.0f}%" if case.phase == "decode" else \
            f"{number(c['gflops'])} GOP/s, {100 * c['peak']:.0f}%"
        mark = "**" if rival == best else ""
        bar = reached = ""
        if rival == best and least:
            bar, reached = f"{least:g}x", "yes" if c["ratio"] >= least else "**no**"
        ratio = f"{mark}{c['ratio']:.2f}x{mark} ({min(c['ratios']):.2f}–{max(c['ratios']):.2f})" if rival else ""
        yield (f"| {case.name} | {threads} | {number(c['cria'])} | {share} | {mark}{rival}{mark} | {number(c['rival'])} | {ratio} "
               f"| {bar} | {reached} | {c['when']}, {c['commit']} |")


def speed(results):
    lines = [SPEED_INTRO]
    machines = sorted({(c["cpu"], ", ".join(c["features"])) for found in results.values() for c in found.values()})
    lines += [f"Measured on {cpu} ({features})." for cpu, features in machines]
    versions = sorted({c["version"] for found in results.values() for c in found.values() if c["version"]})
    lines += ["Rivals: " + "; ".join(versions) + ".", ""]
    model = None
    for workload in WORKLOADS:
        keys = [(workload.model, workload.type, threads, case.name) for case in workload.cases for threads in (1, 2)]
        if not any(key in results for key in keys):
            continue
        if workload.model != model:
            model = workload.model
            plot = plots.SPEED.format(model)
            lines += [f"### {model}", ""] + ([f"![Cria against its rivals: {model}](plots/{plot})", ""] if
                                             (plots.FOLDER / plot).exists() else [])
        lines.append(f"#### {workload.name}")
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


def write(say):
    """Keeps everything in the document that stands outside the marks."""
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else HEAD
    results, served = comparisons(load("speed.jsonl")), load("serving.jsonl")
    plots.draw(results, served, say)
    if results:
        text = replace_section(text, "speed", speed(results))
    if served:
        text = replace_section(text, "serving", serving_report.tables(served))
    DOCUMENT.write_text(text, encoding="utf-8")
    say(f"wrote {DOCUMENT.relative_to(ROOT)}")
