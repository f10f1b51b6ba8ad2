"""`cria serve` on several ranks under mpirun: what happens when ranks die, stop, are cut off or differ.
Usage: serve.py FAULTS SEED. Only Python's own library."""
import contextlib
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
from network import NotPermitted, TwoHosts  # noqa: E402
from server import CRIA, FIXTURES, Server  # noqa: E402

MODEL = FIXTURES / "models" / "llama-bf16-text"
CUT = "cut link"
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


def daemons():
    """Open MPI's daemons and launchers of this test's own hosts."""
    listed = subprocess.run(["ps", "-eo", "pid=,stat=,args="], stdout=subprocess.PIPE, text=True).stdout
    return {int(line.split()[0]) for line in listed.splitlines()
            if "orted" in line and line.split()[1][0] != "Z" and os.environ["OMPI_MCA_plm_rsh_agent"] in line}


def check_fault(ranks, stages, victims, kind, delay, network=None):
    """Under load the ranks `victims` are killed, stopped, crash, or are cut off: then they are the second half of the ranks,
    which lie on the second host of the network (network.py)."""
    hosts = ["--hostfile", network.hostfile(ranks - ranks // 2, ranks // 2)] if network else []
    server = Server(MODEL, "--tensor-parallel-size", ranks // stages, "--pipeline-parallel-size", stages, "--quiet", *hosts)
    pids = [rank["pid"] for rank in server.ranks(ranks)]
    ended, failures = [[] for _ in range(6)], []
    clients = [threading.Thread(target=load, args=(server, i % 3 > 0, ended[i], failures, 0 in victims))
               for i in range(6)]
    for client in clients:
        client.start()
    time.sleep(delay)
    begin, named = time.monotonic(), 0 in victims
    if kind is CUT:
        network.cut()
    else:
        for victim in victims:
            os.kill(pids[victim], kind)
    while server.process.poll() is None and time.monotonic() < begin + 25:
        try:
            health = server.request("GET", "/health", timeout=3)
            named = named or (health.status == 503 and any(f"rank {victim}: " in health.text for victim in victims))
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    for client in clients:
        client.join(30)
    what = f"{ranks} ranks in {stages} stages, {getattr(kind, 'name', kind)} of {victims} after {delay:.2f} s"
    assert not any(client.is_alive() for client in clients), f"{what}: a request hangs"
    late = max(times[-1] for times in ended if times) - begin
    assert not failures, f"{what}: {failures}\n{server.output()[-2000:]}"
    if not (0 in victims and kind == signal.SIGSTOP):
        assert late < DEADLINE, f"{what}: a request ended {late:.1f} s after the fault"
    assert named, f"{what}: /health did not name the rank\n{server.output()[-2000:]}"
    assert server.process.poll() not in (None, 0), f"{what}: the exit code is {server.process.poll()}"
    end = time.monotonic() - begin
    while (left := {pid for pid in pids if is_alive(pid)} | (daemons() if network else set())):
        # Those that were cut off find out for themselves.
        assert time.monotonic() < begin + (20 if network else end + 0.5), f"{what}: processes are left: {left}"
        time.sleep(0.05)
    return late, end


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
    for number in range(faults):
        ranks = dice.choice((2, 3, 4))
        victims = [dice.choice([0] + list(range(1, ranks)) * 3)]
        kind = dice.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT, signal.SIGSEGV, CUT))
        if number == 0:  # a short form has one too
            kind = CUT
        stages, delay = dice.choice((1, 2)) if ranks % 2 == 0 else 1, dice.random() * 0.4
        try:
            with contextlib.ExitStack() as stack:
                network = None
                if kind is CUT:
                    network = stack.enter_context(TwoHosts(stack.enter_context(tempfile.TemporaryDirectory())))
                    victims = list(range(ranks - ranks // 2, ranks))
                late, ended = check_fault(ranks, stages, victims, kind, delay, network)
        except NotPermitted as reason:
            print(f"no cut link: {reason}", flush=True)
            continue
        print(f"{ranks} ranks in {stages} stages, {getattr(kind, 'name', kind)} of {victims}: last request ended after {late:.2f} s, all "
              f"processes after {ended:.1f} s", flush=True)


if __name__ == "__main__":
    main()
