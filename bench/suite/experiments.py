"""What the server promises beside throughput: memory policies, chunked prompts, shared prefixes, its own cost, its start;
and what several ranks do: one through MPI, two with a thread each against one with two, beside what the planner said."""

import asyncio
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import machine
import serving
from places import CRIA, MODELS, ROOT, SMOLLM2

sys.path.insert(0, str(ROOT / "bench/load"))

import client  # noqa: E402
import summary  # noqa: E402

OPT = MODELS / "opt-125m"
POOL, LONGEST = 4096, 512  # tokens: eight of the longest requests
KV_BYTES_PER_TOKEN = 12 * 2 * 768 * 2  # OPT-125M's keys and values in bf16
LENGTHS = ROOT / "bench/load/lengths.csv"
BURST = 64  # streams of the server's own cost
CHUNKS = (512, 128, 64, 32)


def cria(options, turns, seconds, path, *words):
    """A server of Cria for a block, which is given its port and has the machine for `seconds`."""
    return serving.opened(serving.cria(path.name, "", path, *words), options, turns, seconds)


def target_of(port):
    return client.Target(f"http://127.0.0.1:{port}", "bench")


def prompt_of(source, length):
    return [source.randrange(100, serving.VOCAB) for _ in range(length)]


def policies(options, turns, say):
    """The same 500 requests at once under each memory policy: what it finishes per second is the rate it can sustain."""
    words = ("--dtype", "int8", "--max-model-len", str(LONGEST), "--block-size", "16", "--max-num-seqs", "256",
             "--kv-cache-memory", str(POOL * KV_BYTES_PER_TOKEN))
    for policy in ("static", "maximum", "power2", "oracle", "none"):
        with cria(options, turns, 60, OPT, *words) as port:
            say(f"policies: {policy}")
            command = [sys.executable, str(ROOT / "bench/load"), "--url", f"http://127.0.0.1:{port}", "--model", "bench",
                       "--rate", "inf", "--requests", "500", "--lengths", str(LENGTHS), "--vocab", str(serving.VOCAB),
                       "--admit", policy, "--pool", str(POOL), "--longest", str(LONGEST), "--json", "-"]
            report = json.loads(machine.output_of(command))[0]
            turns.check()
        yield {"policy": policy, "pool": POOL, "longest": LONGEST, "requests": report["requests"], "failed": report["failed"],
               "requests_per_second": report["requests_per_second"], "tokens_per_second": report["output_tokens_per_second"],
               "inter_token": report["inter_token"]}


def chunked(options, turns, say):
    """Four streams of answers while prompts of 2,000 tokens come one after the other: gaps between their tokens."""
    for chunk in CHUNKS:
        words = ("--dtype", "int8", "--max-num-batched-tokens", str(chunk), "--no-enable-prefix-caching")
        with cria(options, turns, 30, OPT, *words) as port:
            say(f"chunked: steps of {chunk} tokens")
            found = asyncio.run(gaps_beside_prompts(target_of(port)))
            turns.check()
        yield {"chunk": chunk, **found}


async def gaps_beside_prompts(target, streams=4, answer=400, prompts=8):
    source, loop = random.Random(1), asyncio.get_running_loop()
    start, done = loop.time(), []

    async def long_prompts():
        await asyncio.sleep(0.3)
        for _ in range(prompts):
            request = client.Request(0, prompt_of(source, 2000), 2000, 1)
            done.append(await client.send(target, request, loop.time(), 300))

    answers = [client.send(target, client.Request(0, prompt_of(source, 16), 16, answer), start, 300) for _ in range(streams)]
    outcomes = (await asyncio.gather(*answers, long_prompts()))[:streams]
    failed = [o.error for o in (*outcomes, *done) if o.error]
    if failed:
        raise RuntimeError(failed[0])
    begin, end = done[0].arrival, done[-1].end
    pairs = [(a, b) for o in outcomes for a, b in zip(o.chunks, o.chunks[1:])]
    beside = [b - a for a, b in pairs if a >= begin and b <= end]
    alone = [b - a for a, b in pairs if b < begin or a > end]
    return {"streams": streams, "beside_prompts": summary.spread(beside), "alone": summary.spread(alone), "gaps": len(beside),
            "prompt_seconds": summary.spread([o.end - o.arrival for o in done])}


def prefix(options, turns, say):
    """First-token time of prompts of 1,516 tokens: all new, then with 1,500 tokens that the server has seen."""
    source = random.Random(2)
    with cria(options, turns, 20, OPT, "--dtype", "int8") as port:
        say("prefix: 1,500 shared tokens")
        shared = prompt_of(source, 1500)

        def first_token(prompt):
            request = client.Request(0, prompt + prompt_of(source, 16), len(prompt) + 16, 2)
            outcome = asyncio.run(client.run(target_of(port), [request], 60))[0]
            if outcome.error:
                raise RuntimeError(outcome.error)
            return outcome.chunks[0] - outcome.arrival

        first_token(shared)
        pairs = [(first_token(prompt_of(source, 1500)), first_token(shared)) for _ in range(9)]
    yield {"new": summary.spread([a for a, _ in pairs]), "shared": summary.spread([b for _, b in pairs]),
           "ratio": statistics.median(a / b for a, b in pairs)}


def own_cost(options, turns, say):
    """cria_bench_http: a model that costs nothing. Latency and CPU time at 64 streams, memory at up to 2,000."""
    program = CRIA.with_name("cria_bench_http")
    if not program.exists():
        turns.release()
        with machine.hold(options.shared):
            machine.output_of(["ninja", "-C", "build", "--quiet", "cria_bench_http"])
    for streams, tokens, step in ((BURST, 512, 5), (500, 128, 30), (1000, 128, 30), (2000, 128, 30), (2000, 512, 30)):
        turns.need(35)
        say(f"own cost: {streams} streams of {tokens} tokens")
        row = json.loads(machine.output_of([str(program), str(streams), str(tokens), str(step)]))
        turns.check()
        yield row


def start(options, turns, say):
    """From the process's start to the first token of the first request, files in the cache."""
    cases = [("SmolLM2 Q4_1", SMOLLM2, ())]
    cases += [(f"OPT-1.3B shape {kind}", MODELS / "opt-1.3b", ("--dtype", kind)) for kind in ("int8", "bf16", "f32")]
    for name, path, words in cases:
        if not path.exists():
            continue
        turns.need(30)
        say(f"start: {name}")
        seconds = [first_token_after_start(path, words, options) for _ in range(4)]
        turns.check()
        yield {"model": name, "first": seconds[0], "warm": summary.spread(seconds[1:])}


def first_token_after_start(path, words, options):
    server = serving.cria(path.name, "", path, *words)
    with open(options.log, "a", encoding="utf-8") as log:
        begin = time.monotonic()
        with serving.running(server, log, 0.005) as port:
            outcome = asyncio.run(client.run(target_of(port), [client.Request(0, [100, 200, 300, 400], 4, 2)], 60))[0]
            if outcome.error:
                raise RuntimeError(outcome.error)
            return outcome.chunks[0] - begin


def steps_of(command, environment=None):
    """What `cria bench` says of each batch and phase: seconds of a step, predicted and achieved."""
    return {(row["batch"], phase): (row[phase].get("predicted_step_seconds"), row[phase]["step_seconds"])
            for row in json.loads(machine.output_of(command, environment))["results"] for phase in ("prefill", "decode")}


def one_rank(options, turns, say, rounds=21):
    """The program started by mpirun with one rank against the program itself, in short turns."""
    command = [str(CRIA), "bench", str(SMOLLM2), "--threads", "2", "--batch", "1,16", "--prompt-tokens", "128", "--new-tokens", "48",
               "--repeat", "1", "--quiet", "--json"]
    mpi = ["mpirun", "--allow-run-as-root", "--bind-to", "none", "-n", "1", *command]
    found = {}
    for number in range(rounds):
        turns.need(15)
        say(f"one rank: round {number + 1} of {rounds}")
        for way in ("mpi", "plain") if number % 2 else ("plain", "mpi"):
            for case, (_, seconds) in steps_of(mpi if way == "mpi" else command).items():
                found.setdefault(case, {}).setdefault(way, []).append(seconds)
        turns.check()
    for (batch, phase), seconds in found.items():
        ratios = sorted(a / b for a, b in zip(seconds["mpi"], seconds["plain"]))
        yield {"batch": batch, "phase": phase, "ratio": summary.spread(ratios), "all": [round(r, 4) for r in ratios],
               "fastest": min(seconds["mpi"]) / min(seconds["plain"])}


def two_ranks(options, turns, say, rounds=3):
    """Two ranks of one thread, a tensor cut in two, against one rank of two threads; before each round both are profiled anew,
    since the machine changes within minutes, and what the planner predicts from that stands beside what came."""
    models = [("SmolLM2 Q4_1", SMOLLM2, "auto")] + [(f"OPT-125M shape {kind}", OPT, kind) for kind in ("int8", "bf16", "f32")]
    for name, path, kind in models:
        if not path.exists():
            continue
        ranks = {"1x2": ["--threads", "2"], "2x1": ["-n", "2", "--threads", "1"]}
        found = {}
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "XDG_CACHE_HOME": cache}
            for number in range(rounds):
                turns.need(60)
                say(f"two ranks: {name}, round {number + 1} of {rounds}")
                machine.rest()
                for words in ranks.values():
                    machine.output_of([str(CRIA), "profile", str(path), "--dtype", kind, "--quick", "--quiet", *words], environment)
                for way, words in ranks.items():
                    cut = ["--tensor-parallel-size", "2"] if way == "2x1" else []
                    steps = steps_of([str(CRIA), "bench", str(path), "--dtype", kind, "--batch", "1,16", "--prompt-tokens", "256",
                                      "--new-tokens", "32", "--repeat", "3", "--quiet", "--json", *words, *cut], environment)
                    for case, figures in steps.items():
                        found.setdefault((way, *case), []).append(figures)
                turns.check()
        for (way, batch, phase), figures in found.items():
            yield {"model": name, "way": way, "batch": batch, "phase": phase,
                   "predicted": statistics.median(p for p, _ in figures), "achieved": statistics.median(a for _, a in figures),
                   "error": statistics.median(p / a - 1 for p, a in figures), "rounds": rounds}


EXPERIMENTS = {"own_cost": own_cost, "prefix": prefix, "chunked": chunked, "start": start, "policies": policies,
               "one_rank": one_rank, "two_ranks": two_ranks}


def measure_all(names, options, say, write):
    """The rows of an experiment are written when all of it is there."""
    turns = machine.Turns(options.exclusive)
    for name in names:
        try:
            rows = list(EXPERIMENTS[name](options, turns, say))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            say(f"{name}: {error}")
            continue
        when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        for row in rows:
            write({"when": when, "commit": options.commit, **options.machine, "threads": os.cpu_count(), "experiment": name, **row})
        say.advance()
    turns.release()
