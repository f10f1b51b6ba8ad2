"""Open-loop load generator for OpenAI servers: python3 bench/load --help."""

import argparse
import asyncio
import json
import math
import sys
import time

import admission
import client
import plot
import schedule
import summary


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="bench/load", description="Sends streaming requests to an OpenAI server at given times, whatever the server does "
        "(open loop), and reports throughput, latency percentiles and goodput. Latency counts from when a request was due.",
        epilog="Example: python3 bench/load --url http://127.0.0.1:8000 --model smollm2 --rate 1,2,4 --requests 60 --plot load.svg")
    group = parser.add_argument_group("where")
    group.add_argument("--url", default="http://127.0.0.1:8000", help="default %(default)s")
    group.add_argument("--model", required=True, help="the name that the server knows the model by")
    group.add_argument("--chat", action="store_true", help="/v1/chat/completions with text; else /v1/completions")
    group.add_argument("--key", default="", help="bearer key")
    group = parser.add_argument_group("what")
    group.add_argument("--requests", type=int, default=100, help="at each rate; default %(default)s")
    group.add_argument("--input-tokens", type=int, default=128, help="default %(default)s")
    group.add_argument("--output-tokens", type=int, default=64, help="default %(default)s")
    group.add_argument("--lengths", metavar="CSV", help="recorded lengths: columns prompt_tokens, output_tokens, maybe arrival")
    group.add_argument("--repeat-record", action="store_true", help="start the record again when it ends before --requests")
    group.add_argument("--shared-prefix", type=int, default=0, metavar="N", help="the first N tokens of all prompts are the same")
    group.add_argument("--vocab", type=int, default=32000, help="prompts are random token ids below this; default %(default)s")
    group.add_argument("--text", action="store_true", help="prompts of words instead of token ids")
    group = parser.add_argument_group("when")
    group.add_argument("--rate", default="1", metavar="R,...", help="requests per second, one run for each; inf sends all at once")
    group.add_argument("--arrivals", choices=("poisson", "even", "recorded"), default="poisson", help="default %(default)s")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--timeout", type=float, default=600, help="seconds a request may take; default %(default)s")
    group.add_argument("--admit", choices=admission.POLICIES, default="none", help="hold requests back as a server would that "
                       "reserves KV memory by this policy; default %(default)s")
    group.add_argument("--pool", type=int, default=16384, help="--admit: tokens of KV memory; default %(default)s")
    group.add_argument("--longest", type=int, default=2048, help="--admit: tokens of the longest request; default %(default)s")
    group = parser.add_argument_group("report")
    group.add_argument("--limit-ttft", type=float, metavar="MS", help="goodput: the first token within this")
    group.add_argument("--limit-tpot", type=float, metavar="MS", help="goodput: mean time per further token within this")
    group.add_argument("--limit-e2e", type=float, metavar="MS", help="goodput: the whole answer within this")
    group.add_argument("--json", metavar="FILE", help="the figures as JSON; - is standard output, without the table")
    group.add_argument("--plot", metavar="FILE", help="plots against request rate, .svg or .png")
    options = parser.parse_args(arguments)
    try:
        options.rates = [float(word) for word in options.rate.split(",")]
    except ValueError:
        parser.error(f"--rate: {options.rate!r} is not a list of numbers")
    if any(not rate > 0 for rate in options.rates) or options.requests < 1:
        parser.error("--rate and --requests must be above zero")
    return options


def run_rate(options, target, rate):
    requests = schedule.make(options, rate)
    start, ended = time.monotonic(), 0

    def done(_):
        nonlocal ended
        ended += 1
        if sys.stderr.isatty() or ended == len(requests):
            passed = time.monotonic() - start
            print(f"\rload: rate {rate:g}: {ended}/{len(requests)} requests, {passed:.0f} s"
                  f"{', about %.0f s left' % (passed / ended * (len(requests) - ended)) if ended < len(requests) else ''}   ",
                  end="" if ended < len(requests) else "\n", file=sys.stderr, flush=True)

    gate = admission.Gate(options.admit, options.pool, options.longest)
    outcomes = asyncio.run(client.run(target, requests, options.timeout, done, gate))
    limits = {"ttft": options.limit_ttft, "tpot": options.limit_tpot, "e2e": options.limit_e2e}
    return summary.summarise(outcomes, rate, {name: None if ms is None else ms / 1e3 for name, ms in limits.items()})


def main():
    options = parse()
    target = client.Target(options.url, options.model, options.chat, options.key)
    reports = [run_rate(options, target, rate) for rate in options.rates]
    for report in reports:
        if math.isinf(report["rate"]):
            report["rate"] = "inf" if options.json else report["rate"]
    if options.json == "-":
        print(json.dumps(reports))
    else:
        print(summary.table([{**r, "rate": float(r["rate"])} for r in reports]))
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(reports, file, indent=1)
    if options.plot:
        plot.draw([{**r, "rate": float(r["rate"])} for r in reports], options.plot, options.model)
    return 1 if any(r["failed"] == r["requests"] for r in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
