"""Latency and throughput against request rate, as SVG or PNG (needs matplotlib)."""


def draw(reports, path, title):
    try:
        import matplotlib
    except ImportError as error:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted((r for r in reports if r["rate"] != float("inf") and r["ttft"]["p50"] is not None), key=lambda r: r["rate"])
    if not rows:
        raise SystemExit("--plot needs finished requests at a finite rate")
    rates = [r["rate"] for r in rows]
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.5), sharex=True)
    for panel, name, label in ((axes[0][0], "ttft", "time to first token (ms)"), (axes[0][1], "inter_token", "inter-token (ms)"),
                               (axes[1][0], "end_to_end", "end to end (ms)")):
        for percent in ("p50", "p90", "p99"):
            panel.plot(rates, [1e3 * (r[name][percent] or 0) for r in rows], marker="o", label=percent)
        panel.set_ylabel(label)
        panel.set_yscale("log")
        panel.legend()
    panel = axes[1][1]
    panel.plot(rates, [r["requests_per_second"] for r in rows], marker="o", label="finished")
    panel.plot(rates, [r["goodput"] for r in rows], marker="s", label="within the limits")
    panel.plot(rates, rates, linestyle=":", color="gray", label="sent")
    panel.set_ylabel("requests per second")
    panel.legend()
    for panel in axes[1]:
        panel.set_xlabel("request rate (per second)")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path)
