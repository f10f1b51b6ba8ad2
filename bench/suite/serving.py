"""Serving over HTTP: Cria and its rivals under the same open-loop load, one server measured at a time."""

import contextlib
import dataclasses
import datetime
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import environments
import machine
from places import CRIA, MODELS, ROOT, SMOLLM2, plain_environment

VOCAB = 49000  # below that of every model here
READY_SECONDS = 420
SATURATION = 48


@dataclasses.dataclass(frozen=True)
class Server:
    model: str
    engine: str
    environment: str  # "": none
    command: tuple  # PORT is replaced
    make: str = ""
    variables: tuple = ()


def cria(model, label, path, *options):
    return Server(model, f"Cria {label}", "", (str(CRIA), "serve", str(path), "--port", "PORT", "--served-model-name", "bench",
                                               "--quiet", "--log-level", "warning", *options), path.name if MODELS in path.parents else "")


def vllm(model, folder):
    threads = os.cpu_count()
    return Server(model, "vLLM bf16", "vllm",
                  (str(environments.python("vllm").with_name("vllm")), "serve", str(MODELS / folder), "--dtype", "bfloat16",
                   "--max-model-len", "2048", "--port", "PORT", "--host", "127.0.0.1", "--served-model-name", "bench"), folder,
                  (("VLLM_CPU_KVCACHE_SPACE", "2"), ("VLLM_CPU_OMP_THREADS_BIND", f"0-{threads - 1}"), ("VLLM_NO_USAGE_STATS", "1")))


def llama_server(model, path):
    binary = next(iter(sorted(environments.python("llama-server").parent.parent.rglob("llama-server"))), "llama-server")
    return Server(model, "llama-server q4_1", "llama-server",
                  (str(binary), "-m", str(path), "-np", "16", "-t", str(os.cpu_count()), "-c", "8192", "--port", "PORT",
                   "--host", "127.0.0.1", "--alias", "bench"))


def servers():
    opt = MODELS / "opt-125m"
    return (cria("smollm2", "q4_1", SMOLLM2), vllm("smollm2", "smollm2-hf"), llama_server("smollm2", SMOLLM2),
            cria("opt-125m", "int8", opt, "--dtype", "int8"), cria("opt-125m", "bf16", opt, "--dtype", "bf16"),
            vllm("opt-125m", "opt-125m"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(server, log, pause=0.2):
    """The server's port once it answers, asked every `pause` seconds; the whole process group is ended afterwards."""
    port = free_port()
    command = [word.replace("PORT", str(port)) for word in server.command]
    process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                               env=plain_environment(**dict(server.variables)))
    try:
        wait_ready(process, port, pause)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_ready(process, port, pause):
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it was ready")
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        time.sleep(pause)
    raise RuntimeError(f"the server was not ready within {READY_SECONDS} s")


def load(port, rate, count):
    words = [sys.executable, str(ROOT / "bench/load"), "--url", f"http://127.0.0.1:{port}", "--model", "bench", "--rate", f"{rate:g}",
             "--requests", str(count), "--input-tokens", "128", "--output-tokens", "64", "--vocab", str(VOCAB), "--json", "-"]
    return json.loads(machine.output_of(words))[0]


@contextlib.contextmanager
def opened(server, options, turns, seconds):
    """The port of a server that has answered a few requests; the machine is ours for `seconds` from then on. Cria starts
    in its own turn; what takes a minute or more starts under --shared, before the turn begins."""
    with open(options.log, "a", encoding="utf-8") as log, contextlib.ExitStack() as stack:
        if server.environment:
            turns.release()
            with machine.hold(options.shared):
                port = stack.enter_context(running(server, log))
                load(port, math.inf, 4)
            turns.need(seconds)
        else:
            turns.need(seconds)
            port = stack.enter_context(running(server, log, 0.05))
            load(port, math.inf, 4)
        yield port


def measure_server(server, options, turns, say, write):
    """All rates of one server, one after the other."""
    with opened(server, options, turns, min(2 * options.seconds * len(options.rates), machine.HOLD_SECONDS)) as port:
        for rate in options.rates:
            count = SATURATION if math.isinf(rate) else max(8, round(rate * options.seconds))
            turns.need(1.3 * options.seconds)
            say(f"{server.model}, {server.engine}: {count} requests at {rate:g} per second")
            limits = machine.calibrate(os.cpu_count())
            report = load(port, rate, count)
            say.advance()
            turns.check()
            write({"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                   "commit": options.commit, **options.machine, "model": server.model, "engine": server.engine,
                   "rate": None if math.isinf(rate) else rate, "limits": limits, "report": report})


def wanted(options):
    return [server for server in servers() if server.model in options.only
            and (server.engine.startswith("Cria") or server.engine.split(" ")[0].lower() in options.rivals)]


def measure_all(options, say, write):
    turns = machine.Turns(options.exclusive)
    for number in range(options.rounds):
        for server in wanted(options):
            if server.environment and not environments.is_ready(server.environment):
                continue
            try:
                measure_server(server, options, turns, say, write)
            except RuntimeError as error:
                say(f"{server.engine}, round {number + 1}: {error}")
    turns.release()
