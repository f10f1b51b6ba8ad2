"""Tables of what experiments.py measured: each promise, its figure, whether it holds."""

POLICIES = {"static": "static batch", "maximum": "iteration-level, maximum reserved", "power2": "next power of two reserved",
            "oracle": "true length reserved (oracle)", "none": "paged"}


def newest(rows, name):
    """The rows of an experiment's last run."""
    found = [row for row in rows if row["experiment"] == name]
    return [row for row in found if row["when"] == found[-1]["when"]]


def ms(seconds):
    return f"{1e3 * seconds:.1f} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"


def verdict(holds):
    return "yes" if holds else "**no**"


def stamp(rows):
    when = f"{rows[-1]['when'][:16].replace('T', ' ')}, {rows[-1]['commit']}"
    return f"{when}; {rows[-1]['conditions']}" if rows[-1].get("conditions") else when


def policies(rows):
    base = next(row["requests_per_second"] for row in rows if row["policy"] == "maximum")
    yield f"""#### Memory policies ({stamp(rows)})

OPT-125M shape in int8; {rows[0]['requests']} requests at once with the lengths of `bench/load/lengths.csv`, drawn once from
log-normal distributions with a quarter of ShareGPT's mean lengths (40 and 84 tokens); a KV pool of {rows[0]['pool']} tokens,
eight of the longest requests ({rows[0]['longest']}). Cria always pages: `bench/load --admit` plays the older policies by
holding back what they would not let in. Bars: each at least the one above it, paged at least 2x the maximum reserved.

| policy | requests/s | tok/s | against maximum reserved | inter-token p50, p99 |
|---|---|---|---|---|"""
    for row in rows:
        yield (f"| {POLICIES[row['policy']]} | {row['requests_per_second']:.2f} | {row['tokens_per_second']:.0f} | "
               f"{row['requests_per_second'] / base:.2f}x | {ms(row['inter_token']['p50'])}, {ms(row['inter_token']['p99'])} |")


def chunked(rows):
    yield f"""#### Long prompts beside running answers ({stamp(rows)})

OPT-125M shape in int8: {rows[0]['streams']} answers stream while prompts of 2,000 tokens come one after the other. Bar: p99 of
the gaps within 2x of their median.

| tokens of a step (`--max-num-batched-tokens`) | gaps beside prompts: p50, p99 | p99 / p50 | within 2x | alone: p50, p99 | a prompt's first token, p50 |
|---|---|---|---|---|---|"""
    for row in rows:
        a, b = row["beside_prompts"], row["alone"]
        ratio = a["p99"] / a["p50"]
        yield (f"| {row['chunk']} | {ms(a['p50'])}, {ms(a['p99'])} | {ratio:.2f} | {verdict(ratio <= 2)} | {ms(b['p50'])}, {ms(b['p99'])} "
               f"| {ms(row['prompt_seconds']['p50'])} |")


def prefix(rows):
    row = rows[-1]
    yield f"""#### Shared prefix ({stamp(rows)})

OPT-125M shape in int8, prompts of 1,516 tokens: the first token after {ms(row['new']['p50'])} where all is new, {ms(row['shared']['p50'])} where
1,500 tokens have been seen: {row['ratio']:.1f}x sooner (median of nine pairs). At least 10x: {verdict(row['ratio'] >= 10)}."""


def own_cost(rows):
    yield f"""#### The server's own cost ({stamp(rows)})

`cria_bench_http`: real engine, HTTP server and sockets over a model that samples by heart at the given pace; the client is
another process on the same cores. CPU time is all that the server's process uses. Bars: under 20 us of CPU per token; under
1 ms at p99 from sampling to the client with 64 streams; memory per stream flat up to 2,000.

| streams | tokens each | a step every | sampling to client p50, p99 | CPU per token | memory per open stream | all open, and most until the end |
|---|---|---|---|---|---|---|"""
    for row in rows:
        late = row["to_client_ms"]
        yield (f"| {row['streams']} | {row['tokens_each']} | {row['step_ms']:g} ms | {late['p50']:.2f}, {late['p99']:.2f} ms | "
               f"{row['cpu_us_per_token']:.1f} us | {row['kb_per_stream']:.0f} kB | {row['all_open_mb']:.1f}, {row['most_mb']:.1f} MB |")


def start(rows):
    yield f"""#### Start ({stamp(rows)})

From the process's start to the first token of a request of four tokens, over HTTP. Bars: 1.0 s for SmolLM2, 5 s for the 1.3B
shape, from a warm file cache. The 1.3B checkpoint holds f32 (5.3 GB), from which int8 and bf16 are made while loading.

| model | first start | warm, of three: median, slowest | reached |
|---|---|---|---|"""
    for row in rows:
        bar = 1.0 if "SmolLM2" in row["model"] else 5.0
        yield (f"| {row['model']} | {row['first']:.2f} s | {row['warm']['p50']:.2f}, {row['warm']['max']:.2f} s | "
               f"{verdict(row['warm']['p50'] <= bar)} |")


def one_rank(rows):
    yield f"""#### One rank through the distributed engine ({stamp(rows)})

SmolLM2, two threads: the program started by `mpirun -n 1` against the program itself, in {len(rows[-1]['all'])} short turns; time of a step
with MPI over time without. Others only ever add time, so that the fastest of each say most. Bar: within 2%.

| | fastest over fastest | within 2% | median of pairs | quartiles | all |
|---|---|---|---|---|---|"""
    for row in rows:
        ratios = row["all"]
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        yield (f"| {row['phase']}, batch {row['batch']} | {row['fastest']:.3f} | {verdict(row['fastest'] <= 1.02)} | {row['ratio']['p50']:.3f} | "
               f"{low:.3f}, {high:.3f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")


def two_ranks(rows):
    yield f"""#### Two ranks of one thread against one rank of two ({stamp(rows)})

Prompts of 256 tokens, 32 new ones. Each round profiles the machine both ways (`cria profile MODEL --quick`), then runs both
(`cria bench`; two ranks cut every tensor); milliseconds of a step, medians of {rows[-1]['rounds']} rounds, the error that of a
round's own prediction. Bar: predicted within 20% on average.

| model | step | 1 x 2: predicted, achieved | 2 x 1: predicted, achieved | 2 x 1 over 1 x 2: predicted, achieved |
|---|---|---|---|---|"""
    found = {(row["model"], row["phase"], row["batch"], row["way"]): row for row in rows}
    for model, phase, batch in dict.fromkeys(key[:3] for key in found):
        one, two = (found[model, phase, batch, way] for way in ("1x2", "2x1"))
        cells = [f"{1e3 * row['predicted']:.1f}, {1e3 * row['achieved']:.1f} ({100 * row['error']:+.0f}%)" for row in (one, two)]
        ratios = [two[what] / one[what] for what in ("predicted", "achieved")]
        yield f"| {model} | {phase}, batch {batch} | {cells[0]} | {cells[1]} | {ratios[0]:.2f}, {ratios[1]:.2f} |"
    for model in dict.fromkeys(row["model"] for row in rows):
        errors = [abs(row["error"]) for row in rows if row["model"] == model]
        mean = sum(errors) / len(errors)
        yield f"{'' if model != rows[0]['model'] else chr(10)}{model}: mean error {100 * mean:.0f}%, within 20%: {verdict(mean <= 0.2)}.  "


def tables(rows):
    present = {row["experiment"] for row in rows}
    every = (policies, chunked, prefix, own_cost, start, one_rank, two_ranks)
    sections = [section for section in every if section.__name__ in present]
    return "\n\n".join("\n".join(section(newest(rows, section.__name__))) for section in sections)
