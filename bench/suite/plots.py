"""Plots of the results, drawn in an environment of their own that has matplotlib."""

import json
import statistics
import subprocess

import environments
from places import ROOT, plain_environment

FOLDER = ROOT / "docs/plots"
SPEED, SERVING = "speed-{}-{}.svg", "serving-{}-{}.svg"


def draw_speed(results, slug, say):
    """Bars of the ratios of one kind of machine (`slug`), a plot for each model."""
    bars = [{"model": key[0], "type": key[1], "threads": key[2], "case": key[3], "rival": rival, "ratio": c["ratio"],
             "low": min(c["ratios"]), "high": max(c["ratios"])}
            for key, found in results.items() for rival, c in found.items() if rival]
    draw({"slug": slug, "bars": bars, "served": []}, say)


def draw_serving(rows, slug, say):
    """Curves over the request rate, a plot for each model."""
    draw({"slug": slug, "bars": [], "served": rows}, say)


def draw(data, say):
    reason = environments.install("plots", say)
    if reason:
        say(f"no plots: matplotlib cannot be installed: {reason}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(environments.python("plots")), __file__], input=json.dumps(data), text=True, check=True,
                   env=plain_environment())


def bar_chart(pyplot, model, slug, rows):
    names = sorted({row["rival"] for row in rows})
    groups = sorted({(row["type"], row["case"], row["threads"]) for row in rows})
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + 0.22 * len(groups) * len(names)))
    height = 0.8 / len(names)
    for k, rival in enumerate(names):
        found = {(row["type"], row["case"], row["threads"]): row for row in rows if row["rival"] == rival}
        at = [i + k * height for i, group in enumerate(groups) if group in found]
        mine = [found[group] for group in groups if group in found]
        axes.barh(at, [row["ratio"] for row in mine], height, label=rival,
                  xerr=[[row["ratio"] - row["low"] for row in mine], [row["high"] - row["ratio"] for row in mine]])
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(groups))], [f"{t}, {c}, {n} thr." for t, c, n in groups])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"Cria's tokens per second over the rival's: {model}")
    axes.legend()
    figure.tight_layout()
    figure.savefig(FOLDER / SPEED.format(model, slug), metadata={"Date": None})


def load_chart(pyplot, model, slug, rows):
    panels = (("ttft", "time to first token, p50 (ms)"), ("itl", "inter-token latency, p99 (ms)"),
              ("throughput", "requests finished per second"))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.6))
    for engine in sorted({row["engine"] for row in rows}):
        mine = [row for row in rows if row["engine"] == engine and row["rate"]]
        rates = sorted({row["rate"] for row in mine})
        for panel, (what, label) in zip(axes, panels):
            value = {"ttft": lambda r: 1e3 * r["report"]["ttft"]["p50"], "itl": lambda r: 1e3 * r["report"]["inter_token"]["p99"],
                     "throughput": lambda r: r["report"]["requests_per_second"]}[what]
            points = [statistics.median(value(row) for row in mine if row["rate"] == rate) for rate in rates]
            panel.plot(rates, points, marker="o", label=engine)
            panel.set_xlabel("requests per second")
            panel.set_title(label, fontsize=9)
            if what != "throughput":
                panel.set_yscale("log")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(FOLDER / SERVING.format(model, slug), metadata={"Date": None})


def main():
    import sys

    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cria"
    from matplotlib import pyplot

    data = json.load(sys.stdin)
    for model in sorted({row["model"] for row in data["bars"]}):
        bar_chart(pyplot, model, data["slug"], [row for row in data["bars"] if row["model"] == model])
    for model in sorted({row["model"] for row in data["served"]}):
        load_chart(pyplot, model, data["slug"], [row for row in data["served"] if row["model"] == model])


if __name__ == "__main__":
    main()
