"""From outcomes to figures: throughput, latencies by percentile, goodput."""

PERCENTILES = (50, 90, 99)


def percentile(values, percent):
    """Linear interpolation between the two nearest ranks, as numpy does by default; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values):
    return {"mean": sum(values) / len(values) if values else None, **{f"p{p}": percentile(values, p) for p in PERCENTILES},
            "max": max(values) if values else None}


def gaps(outcome):
    return [b - a for a, b in zip(outcome.chunks, outcome.chunks[1:])]


def is_good(outcome, limits):
    """Whether a finished request kept every limit that is set: first token, mean time per token after it, the whole."""
    first, rest = outcome.chunks[0] - outcome.arrival, gaps(outcome)
    per_token = sum(rest) / len(rest) if rest else 0.0
    found = {"ttft": first, "tpot": per_token, "e2e": outcome.end - outcome.arrival}
    return all(found[name] <= limit for name, limit in limits.items() if limit is not None)


def summarise(outcomes, rate, limits):
    """All times in seconds. The duration runs from the first arrival to the end of the last request."""
    finished = [outcome for outcome in outcomes if not outcome.error]
    duration = max(o.end for o in outcomes) - min(o.arrival for o in outcomes) if outcomes else 0.0
    output = sum(o.output_tokens for o in finished)
    good = sum(is_good(o, limits) for o in finished)
    per_second = (lambda amount: amount / duration) if duration > 0 else lambda amount: 0.0
    errors = {}
    for outcome in outcomes:
        if outcome.error:
            errors[outcome.error] = errors.get(outcome.error, 0) + 1
    return {"rate": rate, "requests": len(outcomes), "failed": len(outcomes) - len(finished), "errors": errors,
            "duration": duration, "requests_per_second": per_second(len(finished)),
            "output_tokens": output, "output_tokens_per_second": per_second(output),
            "prompt_tokens": sum(o.prompt_tokens for o in finished),
            "ttft": spread([o.chunks[0] - o.arrival for o in finished]),
            "inter_token": spread([gap for o in finished for gap in gaps(o)]),
            "end_to_end": spread([o.end - o.arrival for o in finished]),
            "limits": limits, "good": good, "goodput": per_second(good),
            "client_late": spread([o.sent - o.arrival for o in outcomes if o.sent])}


def milliseconds(value):
    return "-" if value is None else f"{1e3 * value:.1f}"


def table(reports):
    lines = ["  rate  requests  failed    req/s    tok/s | first token ms: p50     p90     p99 | inter-token: p50     p90     p99 |"
             " end to end: p50     p90     p99 | good/s"]
    for r in reports:
        cells = [[milliseconds(r[name][f"p{p}"]) for p in PERCENTILES] for name in ("ttft", "inter_token", "end_to_end")]
        lines.append(f"{r['rate']:6g} {r['requests']:9d} {r['failed']:7d} {r['requests_per_second']:8.2f} "
                     f"{r['output_tokens_per_second']:8.1f} | {cells[0][0]:>18} {cells[0][1]:>7} {cells[0][2]:>7} | "
                     f"{cells[1][0]:>16} {cells[1][1]:>7} {cells[1][2]:>7} | {cells[2][0]:>15} {cells[2][1]:>7} {cells[2][2]:>7} | "
                     f"{r['goodput']:6.2f}")
        if (r["client_late"]["p99"] or 0) > 0.01:
            lines.append(f"       the client was late by {milliseconds(r['client_late']['p99'])} ms at p99: it lacks CPU time")
        lines += [f"       {count} x {error}" for error, count in r["errors"].items()]
    return "\n".join(lines)
