"""`cria serve` on several ranks under mpirun: what happens when ranks die, stop or differ.
Usage: serve.py FAULTS SEED. Only Python's own library."""
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from server import CRIA, FIXTURES, Server  # noqa: E402

MODEL = FIXTURES / "models" / "llama-bf16-text"
DEADLINE = 5.0  # seconds from a fault until every open request has ended


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def load(server, stream, ended, failures, lost_front):
    """Requests one after the other until the server goes: each must end complete or with an error."""
    body = {"model": server.name, "prompt": "hello", "max_tokens": 300, "ignore_eos": True, "stream": stream}
    while True:
        ended.append(None)  # under way
        try:
            answer = server.request("POST", "/v1/completions", body, timeout=40)
            text = answer.text
            whole = '"finish_reason":"length"' in text
            told = '"error"' in text
            if not (whole or told):
                failures.append(f"neither complete nor an error: {answer.status} {text[-200:]}")
        except ConnectionRefusedError:  # it has gone between two requests
            ended.pop()
            return
        except (OSError, http.client.HTTPException) as error:
            whole = False
            # One that came while the server was closing its door is not one that it had taken.
            if not lost_front and not isinstance(error, ConnectionResetError):
                failures.append(f"cut off: {error!r}")
        ended[-1] = time.monotonic()
        if not whole:
            return


def check_fault(ranks, stages, victim, kind, delay):
    """Under load one rank is killed, stopped or crashes."""
    server = Server(MODEL, "--tensor-parallel-size", ranks // stages, "--pipeline-parallel-size", stages, "--quiet")
    pids = [rank["pid"] for rank in server.ranks(ranks)]
    ended, failures = [[] for _ in range(6)], []
    clients = [threading.Thread(target=load, args=(server, i % 3 > 0, ended[i], failures, victim == 0))
               for i in range(6)]
    for client in clients:
        client.start()
    time.sleep(delay)
    fault = time.monotonic()
    os.kill(pids[victim], kind)
    named = victim == 0
    while server.process.poll() is None and time.monotonic() < fault + 20:
        try:
            health = server.request("GET", "/health", timeout=3)
            named = named or (health.status == 503 and f"rank {victim}: " in health.text)
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    for client in clients:
        client.join(30)
    what = f"{ranks} ranks in {stages} stages, rank {victim}, {signal.Signals(kind).name} after {delay:.2f} s"
    assert not any(client.is_alive() for client in clients), f"{what}: a request hangs"
    late = max(times[-1] for times in ended if times) - fault
    assert not failures, f"{what}: {failures}\n{server.output()[-2000:]}"
    if not (victim == 0 and kind == signal.SIGSTOP):
        assert late < DEADLINE, f"{what}: a request ended {late:.1f} s after the fault"
    assert named, f"{what}: /health did not name the rank\n{server.output()[-2000:]}"
    assert server.process.poll() not in (None, 0), f"{what}: the exit code is {server.process.poll()}"
    time.sleep(0.2)
    left = [pid for pid in pids if is_alive(pid)]
    assert not left, f"{what}: processes are left: {left}"
    return late, time.monotonic() - fault


def check_refused(words, *arguments, environment=None):
    """An error before serving, that says `words`; a non-zero exit."""
    done = subprocess.run([*map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          env=environment)
    text = done.stdout.decode("utf-8", "replace")
    assert done.returncode != 0, text
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"
    assert "is ready" not in text, text


def check_refusals():
    """What two ranks must have in common, one after the other; what is wrong in what was asked for."""
    mpirun = ["mpirun", "-q", "--oversubscribe", "--bind-to", "none"] + (["--allow-run-as-root"] if not os.geteuid() else [])
    serve = ["serve", "--quiet", "--port", "0"]

    def differ(words, first, second):
        check_refused(words, *mpirun, "-n", 1, *first, ":", "-n", 1, *second)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        other, older, plan = folder / "other", folder / "cria", folder / "plan.json"
        shutil.copytree(MODEL, other)
        weights = other / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-20] ^= 1
        weights.write_bytes(data)
        version = re.search(rb"cria ([\d.]+)", subprocess.run([CRIA, "--version"], stdout=subprocess.PIPE).stdout)[1]
        older.write_bytes(CRIA.read_bytes().replace(version + b"\0", b"9" + version[1:] + b"\0"))
        older.chmod(0o755)
        one = [CRIA, *serve, MODEL]
        differ(["rank 0 and rank 1 have different weights"], one, [CRIA, *serve, other])
        differ(["rank 0 and rank 1 have different versions of cria"], one, [older, *serve, MODEL])
        differ(["rank 0 and rank 1 have different limits (options)"], one, [*one, "--max-num-seqs", 7])
        differ(["rank 0 and rank 1 have different limits (options)"], one, [*one, "--dtype", "f32"])
        differ(["rank 1: ", "nowhere"], one, [CRIA, *serve, folder / "nowhere"])

        with Server(MODEL, "--tensor-parallel-size", 2, "--quiet") as server:
            plan.write_text(server.request("GET", "/plan").text)
        check_refused(["3", "for 2"], *mpirun, "-n", 3, *one, "--plan", plan)
        check_refused(["for 2 ranks", "3"], *one, "--plan", plan, "-n", 3)
        with Server(MODEL, "--plan", plan, "--quiet") as server:  # as many ranks as the plan says
            server.ranks(2)
        differ(["rank 0 and rank 1 have different ways to plan"], [*one, "--plan", plan], [*one, "--pipeline-parallel-size", 2])
        check_refused(["LlamaForCausalLM", "OPTForCausalLM"], CRIA, *serve, FIXTURES / "models" / "opt-f16-text", "--plan", plan)
        plan.write_text(plan.read_text().replace('"stages"', '"stage"'))
        check_refused(["stages"], *one, "--plan", plan)
    check_refused(["ranks", "5"], *one, "-n", 5, "--tensor-parallel-size", 2)
    # Inside mpirun, -n only says what is expected.
    check_refused(["2 ranks were started", "for 3"], *mpirun, "-n", 2, *one, "-n", 3)
    check_refused(["mpirun cannot be started", "Open MPI"], *one, "-n", 2, environment={**os.environ, "PATH": "/nowhere"})


def check_restart():
    """--restart-ranks: serves again within 10 s."""
    with Server(MODEL, "--tensor-parallel-size", 2, "--quiet", "--restart-ranks") as server:
        victim = server.ranks(2)[1]["pid"]
        time.sleep(5)  # ranks that fail at once are not started for ever
        os.kill(victim, signal.SIGKILL)
        fault = time.monotonic()
        time.sleep(1)
        while time.monotonic() < fault + 15:
            try:
                if server.request("GET", "/health", timeout=2).status == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        took = time.monotonic() - fault
        assert took < 10, f"served again after {took:.1f} s\n{server.output()[-2000:]}"
        assert server.complete("hello")["choices"][0]["finish_reason"]
        return took


def main():
    faults, dice = int(sys.argv[1]), random.Random(int(sys.argv[2]))
    check_refusals()
    print(f"ranks served again {check_restart():.1f} s after one was killed")
    for _ in range(faults):
        ranks = dice.choice((2, 3, 4))
        victim = dice.choice([0] + list(range(1, ranks)) * 3)
        kind = dice.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT, signal.SIGSEGV))
        stages = dice.choice((1, 2)) if ranks % 2 == 0 else 1
        late, ended = check_fault(ranks, stages, victim, kind, dice.random() * 0.4)
        print(f"{ranks} ranks in {stages} stages, {kind.name} of rank {victim}: last request ended after {late:.2f} s, all processes after {ended:.1f} s",
              flush=True)


if __name__ == "__main__":
    main()
