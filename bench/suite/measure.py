"""Interleaved samples: Cria and every rival in turn, a calibration beside each, in rounds; only ratios are relied on."""

import contextlib
import datetime
import json
import select
import shlex
import subprocess
import time

import environments
from places import CRIA, RIVALS, ROOT, plain_environment
from workloads import cria_command

OPEN_SECONDS, SAMPLE_SECONDS = 300, 110
REST_SECONDS = 0.5  # between samples: a rival's threads may spin for a while after their work


class Hold:
    """Runs COMMAND around a block, such as `flock FILE`: it starts a child that says so and waits for its input to end.
    None: nothing. `lost` is true once the command has ended by itself, and with it whatever it held."""

    def __init__(self, command):
        self.child = None
        if command:
            self.child = subprocess.Popen([*shlex.split(command), "sh", "-c", "echo held; cat >/dev/null"],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.child.stdout.readline().strip() != "held":
                raise RuntimeError(f"{command}: it ended before it began")

    @property
    def lost(self):
        return self.child is not None and self.child.poll() is not None

    def release(self):
        if self.child:
            self.child.stdin.close()
            self.child.wait()


@contextlib.contextmanager
def hold(command):
    held = Hold(command)
    try:
        yield held
    finally:
        held.release()


class Worker:
    """A rival's program with its model open; it sleeps between its samples."""

    def __init__(self, engine, threads, log):
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

    def sample(self, case):
        answer = self.ask({"phase": case.phase, "batch": case.batch, "prompt": case.prompt, "tokens": case.tokens},
                          SAMPLE_SECONDS)
        return answer["count"] / answer["seconds"]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def output_of(command):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{command[0]} failed")
    return result.stdout


def machine():
    """What every row says of where it was measured."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = fields.get("flags", "").split()
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_int8": "AMX"}
    return {"cpu": fields.get("model name", "unknown"), "family": fields.get("cpu family"), "model_number": fields.get("model"),
            "features": [name for flag, name in known.items() if flag in flags]}


def commit():
    try:
        return output_of(["git", "rev-parse", "--short", "HEAD"]).strip()
    except (RuntimeError, OSError):
        return "unknown"


def calibrate(threads):
    row = json.loads(output_of([str(CRIA), "bench", "--calibrate", "--threads", str(threads), "--json"]))["calibration"][0]
    row.pop("threads")
    return row


def sample_cria(workload, case, threads):
    row = json.loads(output_of(cria_command(workload, case, threads)))["results"][0]
    phase = row[case.phase]
    kept = ("bytes_per_token", "operations_per_token", "gbps", "gflops", "read_share", "peak_share")
    return phase["tokens_per_second"], row["limits"], {name: phase[name] for name in kept}


class Session:
    """All samples of one workload at one thread count; rows go to `write` as they come."""

    def __init__(self, workload, engines, threads, options, say, write):
        self.workload, self.threads, self.options, self.say, self.write = workload, threads, options, say, write
        self.workers, self.failed, self.run_id = {}, {}, f"{int(time.time() * 1000):x}"
        self.log = open(options.log, "a", encoding="utf-8")  # closed by close()
        with hold(options.shared):
            for engine in engines:
                say(f"{workload.name}, {threads} thread(s): opening {engine.name}")
                try:
                    self.workers[engine] = Worker(engine, threads, self.log)
                    for case in self.cases_of(engine):
                        self.workers[engine].sample(case)  # caches, pages, compilation
                except RuntimeError as error:
                    self.give_up(engine, error)

    def cases_of(self, engine):
        return [case for case in self.workload.cases if not engine.cases or case.name in engine.cases]

    def give_up(self, engine, error):
        self.say(f"{engine.name}: {error}")
        self.failed[engine.name] = str(error)
        worker = self.workers.pop(engine, None)
        if worker:
            worker.close()

    def row(self, engine, label, version, case, round_number, rate, limits, more):
        return {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "run": self.run_id,
                "commit": self.options.commit, **self.options.machine, "threads": self.threads,
                "model": self.workload.model, "type": self.workload.type, "case": case.name, "round": round_number,
                "engine": engine, "label": label, "version": version, "tokens_per_second": round(rate, 3),
                "limits": limits, **more}

    def round(self, case, number):
        """One sample of each engine, Cria first in even rounds and last in odd ones; all or nothing is kept."""
        rows = []

        def cria():
            time.sleep(REST_SECONDS)
            rate, limits, more = sample_cria(self.workload, case, self.threads)
            rows.append(self.row("Cria", "", self.options.commit, case, number, rate, limits, more))

        with hold(self.options.exclusive) as held:
            if number % 2 == 0:
                cria()
            for engine, worker in list(self.workers.items()):
                if case not in self.cases_of(engine):
                    continue
                time.sleep(REST_SECONDS)
                limits = calibrate(self.threads)
                try:
                    rate = worker.sample(case)
                except RuntimeError as error:
                    self.give_up(engine, error)
                    continue
                rows.append(self.row(engine.rival, engine.label, worker.opened["version"], case, number, rate, limits,
                                     {"settings": worker.opened["settings"]}))
            if number % 2:
                cria()
            lost = held.lost
        if lost:
            self.say(f"{case.name}: the machine was not ours to the end; this round is dropped")
            return
        for row in rows:
            self.write(row)

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.log.close()
