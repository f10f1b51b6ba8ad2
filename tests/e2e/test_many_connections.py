"""Thousands of connections to the real command: streams, refusals, slow senders."""
import json
import resource
import selectors
import socket
import time

import pytest
from server import CRIA, FIXTURES, RANKS, Server

OPT = FIXTURES / "models" / "opt-f16-text"
STREAMS = 2000
TOKENS = 480
POOL = 256 << 20  # bytes of KV: all tokens of all streams
HUGE = 4 << 20
# So many bytes that a client has not read yet pause its sequence, however fast the engine. Twice: a buffer that has grown
# leaves what it was before behind in the allocator.
UNREAD = 2 * (64 << 10)
FIXED = 40e3  # bytes of a stream beside those and beside its KV
SANITIZED = any(name in str(CRIA) for name in ("asan", "tsan"))  # their memory is not the server's

files = resource.getrlimit(resource.RLIMIT_NOFILE)
needs_files = pytest.mark.skipif(files[1] < 2 * STREAMS, reason=f"no more than {files[1]} files may be open here")


@pytest.fixture(autouse=True)
def files_for_clients():
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files[1], 4 * STREAMS), files[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


def ask(body):
    text = json.dumps({"temperature": 0, "ignore_eos": True, **body}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(text) + text)


def connect(server, count):
    return [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(count)]


class Streams:
    """Many event streams, read as they come: how many events of each, and which have ended."""

    def __init__(self, connections):
        self.connections, self.ended = connections, 0
        self.events = dict.fromkeys(connections, 0)
        self.tail = dict.fromkeys(connections, b"")
        self.selector = selectors.DefaultSelector()
        for connection in connections:
            connection.setblocking(False)
            self.selector.register(connection, selectors.EVENT_READ)

    def read_until(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (min(self.events.values()), self.ended)
            for key, _ in self.selector.select(1):
                self.take(key.fileobj)

    def take(self, connection):
        data = self.tail[connection] + connection.recv(1 << 16)
        assert data != self.tail[connection], "the server has closed a stream"
        self.events[connection] += data.count(b"data: {")
        self.tail[connection] = data[data.rfind(b"data: {") + 1:][-16:]
        if b"data: [DONE]" in data:
            self.ended += 1
            self.selector.unregister(connection)

    def all_have(self, count):
        return min(self.events.values()) >= count


@needs_files
@pytest.mark.skipif(bool(RANKS), reason="connections are rank 0's alone")
def test_two_thousand_streams_are_open_at_once_in_flat_memory_and_all_go_on():
    """Where a shell's usual limit of open files would not do: the command raises it."""
    def usual():
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, files[1]))

    with Server(OPT, "--max-num-seqs", 2048, "--max-num-batched-tokens", 2048, "--kv-cache-memory", f"{POOL >> 20}m",
                name="m", before=usual) as server:
        def kv():
            """What the streams hold of the KV pool; its memory is touched a huge page at a time."""
            return server.metrics()["vllm:kv_cache_usage_perc"] * POOL + HUGE

        idle = server.resident_bytes()
        connections = connect(server, STREAMS)
        for i, connection in enumerate(connections):
            connection.sendall(ask({"prompt": [i % 300 + 10], "max_tokens": TOKENS, "stream": True}))
        streams = Streams(connections)
        streams.read_until(lambda: streams.all_have(1))
        assert streams.ended == 0  # all are open at this moment
        opened, opened_kv = server.resident_bytes(), kv()
        streams.read_until(lambda: streams.all_have(50))
        most, most_kv = server.resident_bytes("VmHWM"), kv()
        print(f"{(opened - idle) / STREAMS / 1e3:.1f} kB a stream once all are open ({opened_kv / STREAMS / 1e3:.1f} of it KV), "
              f"{(most - idle) / STREAMS / 1e3:.1f} later ({most_kv / STREAMS / 1e3:.1f})")
        if not SANITIZED:
            assert opened - idle < STREAMS * (FIXED + UNREAD) + opened_kv
            assert most - idle < STREAMS * (FIXED + UNREAD) + most_kv
        for connection in connections:
            connection.close()
        server.wait_until_idle()
        assert server.complete("a")["choices"]


@needs_files
def test_one_connection_more_than_the_limit_is_told_so_and_health_is_answered_all_the_same():
    with Server(OPT, "--max-connections", 20, "--max-num-seqs", 2, name="m") as server:
        request = ask({"prompt": [5], "max_tokens": TOKENS, "n": 40, "temperature": 1})
        connections = connect(server, 20)
        for connection in connections:
            connection.sendall(request)
        while server.metrics()["vllm:num_requests_waiting"] < 19 * 40:
            pass  # not all of them have been read
        answer = server.request("POST", "/v1/completions", {"prompt": "a"})
        assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
        assert "20 connections" in answer.json["error"]["message"]
        assert server.request("GET", "/health").status == 200
        for connection in connections:
            connection.close()
        server.wait_until_idle()
        assert server.complete("a")["choices"]


@needs_files
def test_slow_senders_on_every_connection_do_not_keep_others_out():
    """Two thousand that send a byte of a head now and then, more than the server takes connections."""
    with Server(OPT, "--max-connections", 1000, name="m") as server:
        connections = connect(server, 1000 + 64)
        for connection in connections:
            connection.sendall(b"POST /v1/comp")
        more = [socket.socket() for _ in range(STREAMS - len(connections))]
        for connection in more:
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", server.port))
        for byte in b"letions":
            for connection in connections:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    pass  # it has had to make room
            time.sleep(0.1)
        assert server.request("GET", "/health", timeout=60).status == 200
        assert server.complete("a")["choices"]
        for connection in connections + more:
            connection.close()
