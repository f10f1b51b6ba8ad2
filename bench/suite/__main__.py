"""Measures Cria beside other engines on this machine and writes docs/benchmarks.md: `./run bench --help`."""

import argparse
import collections
import json
import os
import sys
import time

import environments
import experiments
import machine
import measure
import report
import serving
from places import CACHE, CRIA, MODELS, RESULTS, SMOLLM2
from workloads import WORKLOADS, make

QUICK_SECONDS = 230  # of measuring; opening models and writing the report come on top
SMALL = ("smollm2", "opt-125m")


class Progress:
    """One line per step: how much of the work is done, and how long the rest takes at the pace so far."""

    def __init__(self, total):
        self.total, self.done, self.start = max(total, 1), 0, time.monotonic()

    def advance(self):
        self.done += 1

    def __call__(self, text):
        passed = time.monotonic() - self.start
        left = f", {passed / self.done * (self.total - self.done) / 60:.0f} min left" if self.done else ""
        print(f"bench: [{100 * self.done // self.total:3d}%{left}] {text}", file=sys.stderr, flush=True)


def parse():
    quick = bool(os.environ.get("QUICK"))
    names = sorted({workload.model for workload in WORKLOADS})
    rivals = sorted({engine.rival for workload in WORKLOADS for engine in workload.engines} | {"vLLM", "llama-server"})
    parser = argparse.ArgumentParser(
        prog="./run bench", description="Measures Cria beside other engines: sets the rivals up by pip, makes the models, "
        "runs everything interleaved with a calibration beside each sample, and writes docs/benchmarks.md.",
        epilog="QUICK=1 takes fewer rounds of the small models, under 5 minutes once the environments exist. "
        f"Environments and models are kept in {CACHE}; results in bench/results/ as JSON lines.")
    parser.add_argument("--only", default="smollm2,opt-125m" if quick else ",".join(names), metavar="MODEL,...",
                        help=f"models out of {', '.join(names)}, or MODEL:TYPE; default %(default)s")
    parser.add_argument("--rivals", default="llama.cpp,ik_llama.cpp,CTranslate2" if quick else ",".join(rivals),
                        metavar="NAME,...", help=f"engines out of {', '.join(rivals)}, or none; default %(default)s")
    parser.add_argument("--cases", default="", metavar="TEXT,...", help="only cases whose name holds one of these: decode, "
                        "prefill, 'batch 16'")
    parser.add_argument("--threads", default="1,2", help="default %(default)s")
    parser.add_argument("--isa", default="avx2" if "AVX-512" in machine.describe()["features"] and not quick else "",
                        metavar="NAME,...", help="narrower instruction sets that Cria is measured with too, as on a processor "
                        "that has no more; default '%(default)s'")
    parser.add_argument("--rounds", type=int, default=2 if quick else 5, help="samples of each engine; default %(default)s")
    parser.add_argument("--again", action="store_true", help="also what this commit's program has --rounds samples of on a "
                        "machine of this kind; without it a run that was cut off goes on where it was")
    parser.add_argument("--serving", action="store_true", help="measure serving over HTTP instead of the engines themselves")
    parser.add_argument("--experiments", default="", metavar="NAME,...", help="measure, instead, what serving promises: "
                        f"{', '.join(experiments.EXPERIMENTS)}, or all")
    parser.add_argument("--rates", default="inf,1,2,3", help="--serving: requests per second; default %(default)s")
    parser.add_argument("--seconds", type=float, default=15 if quick else 30, help="--serving: length of each; default %(default)s")
    parser.add_argument("--setup", action="store_true", help="only install the environments and make the models")
    parser.add_argument("--report", action="store_true", help="only write the document again from the results there are")
    parser.add_argument("--exclusive", metavar="COMMAND", help="run each round under this command, such as 'flock FILE', so "
                        "that nothing else runs meanwhile")
    parser.add_argument("--shared", metavar="COMMAND", help="the same around installing, making and opening models")
    options = parser.parse_args()
    options.only = {word for word in options.only.split(",") if word}
    options.rivals = {word.lower() for word in options.rivals.split(",")}
    options.cases = [word.strip() for word in options.cases.split(",") if word.strip()]
    options.rates = [float(word) for word in options.rates.split(",")]
    options.threads = [int(word) for word in options.threads.split(",")]
    options.experiments = [word for word in options.experiments.split(",") if word]
    options.isa = [word for word in options.isa.split(",") if word]
    if options.experiments == ["all"]:
        options.experiments = list(experiments.EXPERIMENTS)
    if bad := set(options.experiments) - set(experiments.EXPERIMENTS):
        parser.error(f"--experiments: there is no {', '.join(sorted(bad))}")
    options.log, options.commit, options.machine = CACHE / "bench/rivals.log", machine.commit(), machine.describe()
    options.quick = quick
    options.wants = lambda case: not options.cases or any(word in case.name for word in options.cases)
    unknown = {word.split(":")[0] for word in options.only} - set(names)
    if unknown:
        parser.error(f"--only: no model is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def chosen(options):
    """(workload, engines) with what cannot be installed left out, and the reasons."""
    picked = [workload for workload in WORKLOADS
              if workload.model in options.only or f"{workload.model}:{workload.type}" in options.only]
    engines = {workload: [engine for engine in workload.engines if engine.rival.lower() in options.rivals]
               for workload in picked}
    return engines


def set_up(engines, options, say):
    """Installs and makes what the chosen engines need. What fails is said and left out; the rest goes on."""
    with machine.hold(options.shared):
        missing = {}
        for name in sorted({engine.environment for row in engines.values() for engine in row}):
            reason = environments.install(name, say)
            if reason:
                say(f"{name} cannot be installed: {reason}")
                missing[name] = reason
        for workload in list(engines):
            engines[workload] = [engine for engine in engines[workload] if engine.environment not in missing]
            for name in workload.make:
                needed = not engines[workload] or "-ct2-" not in name and "-openvino-" not in name or any(
                    name in engine.open["model"] for engine in engines[workload])
                try:
                    if needed:
                        environments.install("transformers", say)
                        make(name, say)
                except RuntimeError as error:
                    say(str(error))
                    missing[name] = str(error)
                    engines[workload] = [e for e in engines[workload] if name not in e.open["model"]]
                    if name == workload.make[0]:
                        del engines[workload]
                        break
        return missing


def set_up_servers(options, say):
    """The same for servers; measure_all leaves out those whose environment is not there."""
    with machine.hold(options.shared):
        for server in serving.wanted(options):
            reason = environments.install(server.environment, say) if server.environment else None
            if reason:
                say(f"{server.environment} cannot be installed: {reason}")
    set_up_models({server.make for server in serving.wanted(options) if server.make}, options, say)


def set_up_models(names, options, say):
    with machine.hold(options.shared):
        for name in names:
            try:
                if not (MODELS / name).exists():
                    environments.install("transformers", say)
                    make(name, say)
            except RuntimeError as error:
                say(str(error))


def measure_all(engines, options, say, write):
    """One workload after the other; both thread counts at once where two copies of all its models fit in memory."""
    deadline = time.monotonic() + (QUICK_SECONDS if options.quick else 1e9)
    planned = [(workload, group, work) for workload in engines
               for group in ([options.threads] if workload.model in SMALL else [[n] for n in options.threads])
               if (work := missing_rounds(workload, group, options))]
    say.total = max(1, sum(len(work) for _, _, work in planned))
    for workload, group, work in planned:
        sessions = {}
        try:
            for threads in sorted({threads for threads, _, _ in work}):
                sessions[threads] = measure.Session(workload, engines[workload], threads, options, say, write)
            todo = [(sessions[threads], case, number) for threads, case, number in work]
            if not measure.run_rounds(todo, options, say, write, deadline):
                say("QUICK: the time is up; what has been measured is reported")
                return
        finally:
            for session in sessions.values():
                session.close()


def missing_rounds(workload, threads_group, options):
    """(threads, case, round) that are not in the results yet, each round of all cases before the next."""
    rows = [] if options.again or options.quick else [
        row for row in report.load("speed.jsonl") if row["commit"] == options.commit and machine.same(row, options.machine)
        and (row["engine"], row["label"], row["model"], row["type"]) == ("Cria", "", workload.model, workload.type)
        and machine.is_clean(row)]
    done = collections.Counter((row["threads"], row["case"]) for row in rows)
    return [(threads, case, number) for number in range(options.rounds) for case in workload.cases for threads in threads_group
            if options.wants(case) and done[threads, case.name] <= number]


def appender(name):
    def write(row):
        """Opened for each row: the file may be replaced meanwhile, as by a checkout."""
        with open(RESULTS / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    return write


def main():
    options = parse()
    if not CRIA.exists():
        raise SystemExit("bench: build/cria is not there: ./run build")
    if not SMOLLM2.exists():
        raise SystemExit("bench: the default model is not there: ./run model")
    options.log.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    engines = chosen(options)
    say = Progress(len(serving.wanted(options)) * len(options.rates) * options.rounds)
    if not options.report:
        if options.experiments:
            set_up_models(("opt-125m", "opt-1.3b"), options, say)
            say.total = len(options.experiments)
        elif options.serving:
            set_up_servers(options, say)
        else:
            set_up(engines, options, say)
        if options.setup:
            return
        say.start = time.monotonic()
        if options.experiments:
            experiments.measure_all(options.experiments, options, say, appender("experiments.jsonl"))
        elif options.serving:
            serving.measure_all(options, say, appender("serving.jsonl"))
        else:
            measure_all(engines, options, say, appender("speed.jsonl"))
    report.write(say)


if __name__ == "__main__":
    main()
