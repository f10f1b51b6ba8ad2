"""A running `cria serve`, and plain HTTP to it: what every test here stands on. Only Python's own library."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRIA = pathlib.Path(os.environ.get("CRIA", ROOT / "build" / "cria"))
FIXTURES = ROOT / "tests" / "fixtures"
RANKS = os.environ.get("CRIA_RANKS")  # every server runs on so many ranks


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.body)


def events_of(body):
    """The `data:` payloads of an event stream, which must be framed exactly as clients split it."""
    text = body.decode("utf-8")
    assert "\r" not in text and text.endswith("\n\n"), text[-80:]
    events = text[:-2].split("\n\n")
    for event in events:
        assert event.startswith("data: ") and "\n" not in event, event
    assert events[-1] == "data: [DONE]", events[-1]
    return [json.loads(event[6:]) for event in events[:-1]]


class Server:
    def __init__(self, model, *options, name=None, log=None, before=None):
        """before: called in the new process, as for setting its limits."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name = name or pathlib.Path(model).name
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log or tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [CRIA, "serve", str(model), "--host", "127.0.0.1", "--port", str(self.port),
             "--served-model-name", self.name, *(["--tensor-parallel-size", RANKS] if RANKS else []), *map(str, options)], stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=before)
        self.wait_until_ready()

    def output(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def wait_until_ready(self, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"cria serve ended with {self.process.returncode}:\n{self.output()[-3000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/health").status == 200:
                    return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"cria serve was not ready after {seconds} s:\n{self.output()[-3000:]}")

    def request(self, method, path, body=None, headers=None, timeout=120):
        """body: a dict is sent as JSON, bytes and str as they are."""
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(body) if isinstance(body, (dict, list)) else body
            body = body.encode() if isinstance(body, str) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def complete(self, prompt, **parameters):
        body = {"model": self.name, "prompt": prompt, "temperature": 0, "max_tokens": 8, **parameters}
        answer = self.request("POST", "/v1/completions", body)
        assert answer.status == 200, answer.body
        return answer.json

    def metrics(self):
        """{name without labels: sum over labels}."""
        totals = {}
        for line in self.request("GET", "/metrics").text.splitlines():
            found = re.match(r"([A-Za-z_:][\w:]*)(?:\{.*\})? ([^ ]+)$", line)
            if found:
                totals[found[1]] = totals.get(found[1], 0.0) + float(found[2])
        return totals

    def wait_until_idle(self, seconds=30):
        """Nothing runs or waits and no KV block is held; returns the last metrics."""
        end = time.monotonic() + seconds
        while True:
            metrics = self.metrics()
            held = [metrics["vllm:num_requests_running"], metrics["vllm:num_requests_waiting"],
                    metrics["vllm:kv_cache_usage_perc"]]
            if not any(held):
                return metrics
            assert time.monotonic() < end, f"running, waiting, KV use after {seconds} s: {held}"
            time.sleep(0.02)

    def ranks(self, count=int(RANKS or 1)):
        """The rows of the table of ranks, once all are there: mpirun hands output on later than the server answers.
        Without ranks one row, of the server itself."""
        if count < 2:
            return [{"pid": self.process.pid, "host": socket.gethostname(), "weights": self.announced_here("weights"),
                     "kv": self.announced_here("KV cache")}]
        end = time.monotonic() + 10
        while True:
            rows = re.findall(r"^ *(\d+) +\d+ +(\S+) +(\d+) +\d+ +([\d.]+) MB +([\d.]+) MB", self.output(), re.M)
            rows = rows[-count:]  # the last table: ranks may have been started again
            if [int(row[0]) for row in rows] == list(range(count)):
                return [{"pid": int(pid), "host": host, "weights": float(weights) * 1e6, "kv": float(kv) * 1e6}
                        for _, host, pid, weights, kv in rows]
            assert time.monotonic() < end, self.output()
            time.sleep(0.05)

    def announced_here(self, what):
        """What the server prints of its own memory, in bytes; it answers a moment before it prints."""
        end = time.monotonic() + 10
        while not (found := re.search(rf"^  {what} +([\d.]+) (MB|GB|kB)", self.output(), re.M)):
            assert time.monotonic() < end, self.output()
            time.sleep(0.01)
        number, unit = found.groups()
        return float(number) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]

    def announced(self, what):
        """"weights" or "kv": what all ranks together say that they hold, in bytes."""
        return sum(rank[what] for rank in self.ranks())

    def resident_bytes(self, field="VmRSS"):
        """Of all ranks. VmRSS: now; VmHWM: the most since they started."""
        texts = [pathlib.Path(f"/proc/{rank['pid']}/status").read_text() for rank in self.ranks()]
        return sum(int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024 for text in texts)

    def open_files(self):
        return sum(len(os.listdir(f"/proc/{rank['pid']}/fd")) for rank in self.ranks())

    def stop(self, with_signal=signal.SIGTERM, seconds=30):
        """Ends the server; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
