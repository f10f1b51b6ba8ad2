"""The solver on random variants of contest instances, one build or two of them beside each other.

    python -m bench.solve --instances FOLDER --binary build/cria [--against OTHER/cria] --times 5,20 --count 30

Every answer is judged here, independently of the solver. Costs are compared as the mean of log(cost / best known) over
the variants, where the best known is the least cost that any run so far has found (it is kept in --table). With
--cpu-clock the solver's clock is processor time, so that other work on the machine matters less."""

import argparse
import collections
import json
import math
import os
import pathlib
import subprocess
import time

from bench.solve import variants


def judge(problem, strategy):
    """Cost of an assignment, or None and why not."""
    nodes, edges = problem["nodes"], problem["edges"]
    if len(strategy) != len(nodes["costs"]):
        return None, "wrong length"
    cost, changes = 0, collections.Counter()
    for v, i in enumerate(strategy):
        cost += nodes["costs"][v][i]
        begin, end = nodes["intervals"][v]
        if begin < end:
            changes[begin] += nodes["usages"][v][i]
            changes[end] -= nodes["usages"][v][i]
    for (a, b), costs in zip(edges["nodes"], edges["costs"]):
        cost += costs[strategy[a] * len(nodes["costs"][b]) + strategy[b]]
    if cost >= variants.FORBIDDEN:
        return None, "takes a forbidden strategy"
    now = 0
    for moment in sorted(changes):
        now += changes[moment]
        if now > problem["usage_limit"]:
            return None, f"usage {now} at time {moment}"
    return cost, ""


class Bench:
    def __init__(self, options):
        self.options = options
        self.cache = pathlib.Path(options.cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.environment = dict(os.environ)
        if options.cpu_clock:
            library = self.cache / f"cpu_clock{options.threads}.so"
            source = pathlib.Path(__file__).with_name("cpu_clock.c")
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-DTHREADS={options.threads}", "-o", library, source],
                           check=True)
            self.environment["LD_PRELOAD"] = str(library)
        self.paths = {p.name.split(".")[0].split("-")[-1]: p
                      for p in sorted(pathlib.Path(options.instances).glob("*.json.gz"))}
        self.problems, self.answers = {}, {}

    def run(self, binary, path, seconds, seed):
        """The solver's last line, its assignment and the time it took by the wall."""
        out = self.cache / f"answer-{os.getpid()}.json"
        out.unlink(missing_ok=True)
        begin = time.time()
        command = [*self.options.under.split(), binary, "solve", path, "--time", str(seconds), "--threads", str(self.options.threads), "--seed",
                   str(seed), "--out", out, "--quiet"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=self.environment)
        lines = done.stdout.strip().splitlines()
        result = json.loads(lines[-1]) if lines else {"feasible": False, "error": done.stderr.strip()[-200:]}
        if done.returncode and not result.get("error"):
            result["error"] = done.stderr.strip()[-200:]
        return result, json.loads(out.read_text()) if out.exists() else None, time.time() - begin

    def source(self, letter):
        if letter not in self.problems:
            self.problems[letter] = variants.load(self.paths[letter])
            kept = self.cache / f"source-{letter}.json"
            if not kept.exists():
                answer = self.run(self.options.binary, self.paths[letter], 15, 1)[1]
                kept.write_text(json.dumps(answer))
            self.answers[letter] = json.loads(kept.read_text())
        return self.problems[letter]

    def variant(self, name):
        """Where it lies, and the problem."""
        if name in self.paths:
            return self.paths[name], variants.load(self.paths[name])
        path = self.cache / f"{name}.json.gz"
        if not path.exists():
            for letter in self.paths:
                self.source(letter)
            problem = variants.make(name, self.problems, self.answers)
            variants.write(problem, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        return path, variants.load(path)

    def sample(self, label, binary, name, seconds, seed):
        path, problem = self.variant(name)
        result, strategy, wall = self.run(binary, path, seconds, seed)
        row = {"name": name, "time": seconds, "seed": seed, "label": label, "wall": round(wall, 2),
               "cost": result.get("cost"), "bound": result.get("bound"), "error": result.get("error")}
        if row["cost"] is not None:
            cost, why = judge(problem, strategy or [])
            if cost != row["cost"]:
                raise SystemExit(f"{name}: {binary} says {row['cost']}, but {cost} {why}")
            if row["bound"] > cost:
                raise SystemExit(f"{name}: bound {row['bound']} is above its cost of {cost}")
        return row


def over(cost, least):
    """log(cost / least); a variant may cost nothing."""
    return 0.0 if cost == least else math.inf if not least else math.log(cost / least)


def report(rows, best):
    """Means by time and label, and where two labels differ."""
    groups = collections.defaultdict(dict)
    for row in rows:
        groups[row["time"], row["name"], row["seed"]][row["label"]] = row
    labels = list(dict.fromkeys(row["label"] for row in rows))
    for seconds in sorted({row["time"] for row in rows}):
        for label in labels:
            logs, gaps, missing, proven = [], [], 0, 0
            for (t, name, _), sample in groups.items():
                row = sample.get(label)
                if t != seconds or row is None or name not in best:
                    continue
                if row["cost"] is None:
                    missing += 1
                    continue
                logs.append(over(row["cost"], best[name]))
                gaps.append(1 - row["bound"] / row["cost"] if row["cost"] else 0.0)
                proven += row["bound"] == row["cost"]
            if logs:
                print(f"{seconds:6g} s  {label:10}  over best known {1e6 * sum(logs) / len(logs):9.1f} ppm  gap "
                      f"{1e6 * sum(gaps) / len(gaps):9.0f} ppm  proven {proven}/{len(logs)}  no answer {missing}")
        if len(labels) == 2:
            wins, losses, by_kind = 0, 0, collections.defaultdict(list)
            for (t, name, _), sample in groups.items():
                a, b = (sample.get(label) for label in labels)
                if t != seconds or not a or not b or a["cost"] is None or b["cost"] is None:
                    continue
                wins += b["cost"] < a["cost"]
                losses += b["cost"] > a["cost"]
                for key in (name.split("-")[0], name.split("-")[1] if "-" in name else name):
                    by_kind[key].append(over(b["cost"], a["cost"]))
            print(f"          {labels[1]} against {labels[0]}: {wins} better, {losses} worse; ppm "
                  + " ".join(f"{k} {1e6 * sum(v) / len(v):+.0f}" for k, v in sorted(by_kind.items())))


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.solve", description=__doc__.split("\n\n")[0])
    parser.add_argument("--instances", required=True, help="folder with *-LETTER.json.gz")
    parser.add_argument("--binary", default="build/cria")
    parser.add_argument("--against", help="a second build, run in turns with the first")
    parser.add_argument("--times", default="10", help="seconds, separated by commas")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--names", help="these variants only, separated by commas; a letter is the instance itself")
    parser.add_argument("--kinds", help="only these kinds, separated by commas")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--under", default="", help="a command that runs each sample, such as nice")
    parser.add_argument("--cpu-clock", action="store_true")
    parser.add_argument("--cache", default="build/solve-variants")
    parser.add_argument("--table", help="JSON lines of all runs, added to; default: CACHE/table.jsonl")
    options = parser.parse_args()
    bench = Bench(options)
    names = options.names.split(",") if options.names else variants.names(options.count, "".join(bench.paths))
    if options.kinds:
        names = [name for name in names if name.split("-")[0] in options.kinds.split(",")]
    builds = [("A", options.binary)] + ([("B", options.against)] if options.against else [])
    table = pathlib.Path(options.table or bench.cache / "table.jsonl")
    rows = []
    for seed in map(int, options.seeds.split(",")):
        for name in names:
            for seconds in map(float, options.times.split(",")):
                for label, binary in builds[::-1] if len(rows) // len(builds) % 2 else builds:
                    row = bench.sample(label, binary, name, seconds, seed)
                    rows.append(row)
                    with open(table, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    gap = 1 - row["bound"] / row["cost"] if row["cost"] else 0.0 if row["cost"] == 0 else math.nan
                    print(f"{name:14} {seconds:5g} s {label} {row['cost'] or row['error']} gap {gap:.6f} wall {row['wall']}",
                          flush=True)
    best = {}
    for line in open(table):
        row = json.loads(line)
        if row["cost"] is not None:
            best[row["name"]] = min(row["cost"], best.get(row["name"], row["cost"]))
    report(rows, best)


if __name__ == "__main__":
    main()
