"""Interleaved samples: Cria and every rival in turn, a calibration beside each, in rounds; only ratios are relied on."""

import collections
import datetime
import json
import select
import statistics
import subprocess
import time

import environments
import machine
from places import RIVALS, plain_environment
from workloads import cria_command

OPEN_SECONDS, SAMPLE_SECONDS = 300, 110
WARM_SECONDS = 300  # of the first run of a case, which may compile


class Worker:
    """A rival's program with its model open; it sleeps between its samples."""

    def __init__(self, engine, threads, log):
        self.engine = engine
        command = [str(environments.python(engine.environment)), str(RIVALS / f"{engine.worker}_worker.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                        env=plain_environment(OMP_NUM_THREADS=str(threads)))
        try:
            self.opened = self.ask({"open": {**engine.open, "threads": threads}}, OPEN_SECONDS)
        except RuntimeError:
            self.close()
            raise

    def ask(self, request, seconds):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        answer = json.loads(line) if line else {"error": "no answer" if ready else f"nothing within {seconds} s"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def sample(self, case, repeat=1, limit=SAMPLE_SECONDS):
        """Tokens per second, the median of `repeat` runs."""
        request = {"phase": case.phase, "batch": case.batch, "prompt": case.prompt, "tokens": case.tokens}
        answers = [self.ask(request, limit) for _ in range(repeat)]
        return statistics.median(answer["count"] / answer["seconds"] for answer in answers)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def sample_cria(workload, case, threads, isa):
    row = json.loads(machine.output_of(cria_command(workload, case, threads, case.repeat, isa)))["results"][0]
    phase = row[case.phase]
    kept = ("bytes_per_token", "operations_per_token", "gbps", "gflops", "read_share", "peak_share")
    return phase["tokens_per_second"], row["limits"], {name: phase[name] for name in kept}


class Session:
    """All samples of one workload at one thread count; rows go to `write` as they come."""

    def __init__(self, workload, engines, threads, options, say, write):
        self.workload, self.threads, self.options, self.say, self.write = workload, threads, options, say, write
        self.workers, self.run_id, self.seconds = {}, f"{int(time.time() * 1000):x}", {}
        self.log = open(options.log, "a", encoding="utf-8")  # closed by close()
        with machine.hold(options.shared):
            for engine in engines:
                say(f"{workload.name}, {threads} thread(s): opening {engine.name}")
                try:
                    self.workers[engine] = Worker(engine, threads, self.log)
                    for case in self.cases_of(engine):
                        self.workers[engine].sample(case, 1, WARM_SECONDS)  # caches, pages, compilation
                except RuntimeError as error:
                    self.give_up(engine, error)

    def cases_of(self, engine):
        return [case for case in self.workload.cases
                if (not engine.cases or case.name in engine.cases) and self.options.wants(case)]

    def give_up(self, engine, error):
        self.say(f"{engine.name}: {error}")
        worker = self.workers.pop(engine, None)
        if worker:
            worker.close()

    def row(self, engine, label, version, case, number, sampled, others):
        rate, limits, more = sampled
        return {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "run": self.run_id,
                "commit": self.options.commit, **self.options.machine, "threads": self.threads,
                "model": self.workload.model, "type": self.workload.type, "case": case.name, "round": number,
                "engine": engine, "label": label, "version": version, "tokens_per_second": round(rate, 3),
                "others": others, "limits": limits, **more}

    def cria(self, case, number, isa="auto"):
        machine.rest()
        with machine.Watch() as watch:
            sampled = sample_cria(self.workload, case, self.threads, isa)
        label = "" if isa == "auto" else f"{isa} alone"
        return self.row("Cria", label, self.options.commit, case, number, sampled, watch.others)

    def rival(self, worker, case, number):
        machine.rest()
        limits = machine.calibrate(self.threads)
        with machine.Watch(worker.process.pid) as watch:
            rate = worker.sample(case, case.repeat)
        engine, opened = worker.engine, worker.opened
        return self.row(engine.rival, engine.label, opened["version"], case, number,
                        (rate, limits, {"settings": opened["settings"]}), watch.others)

    def round(self, case, number):
        """One sample of each engine, Cria first in even rounds and last in odd ones. Returns the rows."""
        start, rows = time.monotonic(), []
        if number % 2 == 0:
            rows.append(self.cria(case, number))
        for engine, worker in list(self.workers.items()):
            if case in self.cases_of(engine):
                try:
                    rows.append(self.rival(worker, case, number))
                except (RuntimeError, OSError) as error:
                    self.give_up(engine, error)
        rows += [self.cria(case, number, isa) for isa in self.options.isa]
        if number % 2:
            rows.append(self.cria(case, number))
        self.seconds[case] = max(time.monotonic() - start, self.seconds.get(case, 0))
        return rows

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.log.close()


def run_rounds(todo, options, say, write, deadline):
    """Does `todo`, a list of (session, case, round), a handful at a time within --exclusive; each round is kept whole or
    not at all. Returns False when the deadline came first."""
    todo, again = list(todo), collections.Counter()
    while todo:
        with machine.hold(options.exclusive) as held:
            begun = False
            while todo:
                session, case, number = todo[0]
                if time.monotonic() > deadline:
                    return False
                if options.exclusive and begun and held.seconds + 1.2 * session.seconds.get(case, 20) > machine.HOLD_SECONDS:
                    break
                begun = True
                say(f"{session.workload.name}, {session.threads} thread(s): {case.name}, round {number + 1}")
                rows = session.round(case, number)
                if held.lost:
                    say("the machine was not ours to the end; this round is measured again")
                    session.seconds[case] = machine.HOLD_SECONDS / 2
                    break
                todo.pop(0)
                for row in rows:
                    write(row)
                say.advance()
                if not all(map(machine.is_clean, rows)) and again[session, case] < options.rounds:
                    say("somebody else used the machine meanwhile; this round is kept, and one more added")
                    again[session, case] += 1
                    todo.append((session, case, number + options.rounds))
                    say.total += 1
    return True
