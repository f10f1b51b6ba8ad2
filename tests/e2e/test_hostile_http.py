"""What arrives on a socket when the client is broken, hostile or gone: each case ends soon, in a clear answer."""
import json
import resource
import signal
import socket
import subprocess
import time

import pytest
from server import CRIA, FIXTURES, RANKS, Server

OPT = FIXTURES / "models" / "opt-f16-text"
BODY = json.dumps({"prompt": "a", "max_tokens": 2, "temperature": 0}).encode()
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"


def length(body):
    return b"Content-Length: %d\r\n" % len(body)


def talk(server, data, half_close=False, seconds=20):
    """Sends bytes, reads until the server closes; the answer as it came."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        if half_close:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)  # in one segment with the last bytes
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def status(answer):
    """Of the last answer in the bytes."""
    return int(answer[answer.rindex(b"HTTP/1.1 "):].split()[1])


def chunked(*chunks):
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)


@pytest.mark.parametrize("code, request_bytes", [
    (200, chunked(BODY) + b"0\r\n\r\n"),
    (200, chunked(*(BODY[i:i + 1] for i in range(len(BODY)))) + b"0\r\nX-Trailer: a\r\n\r\n"),
    (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY),
    (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + BODY),
    (501, HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + BODY),
    (415, HEAD + b"Content-Encoding: gzip\r\n" + length(BODY) + b"\r\n" + BODY),
    (400, HEAD + length(BODY) + b"Content-Length: 5\r\n\r\n" + BODY),
    (200, HEAD + length(BODY) * 2 + b"\r\n" + BODY),
    (400, HEAD + length(BODY) + b"Transfer-Encoding: chunked\r\n\r\n" + BODY),
    (400, HEAD + b"Content-Length: -5\r\n\r\n" + BODY),
    (400, HEAD + b"Content-Length: five\r\n\r\n" + BODY),
    (413, HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY),
    (413, HEAD + b"Content-Length: 1000000000000000000\r\n\r\n" + BODY),
    (400, HEAD + b"\r\n"),
    (200, HEAD + length(BODY) + b"Expect: 100-continue\r\n\r\n" + BODY),
    (200, HEAD.replace(b"Connection: close\r\n", b"") + length(BODY) + b"\r\n" + BODY + HEAD + length(BODY) + b"\r\n" + BODY),
    (400, b"GET /health\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (414, b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    (431, b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100000 + b"\r\n\r\n"),
    (405, b"OPTIONS /v1/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nConnection: close\r\n\r\n"),
    (405, b"BREW /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    (405, b"HEAD /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    (404, b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    (404, b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
], ids=["chunks", "chunks of a byte", "bad chunk size", "huge chunk size", "other transfer encoding", "content encoding",
        "two lengths", "a length twice", "length and chunks", "negative length", "length in words", "length of 77 bits",
        "length of 10^18", "no length", "expect", "pipelined", "HTTP/0.9", "HTTP/2", "long URL", "long header", "preflight",
        "unknown method", "HEAD", "traversal", "OPTIONS *"])
def test_a_request_in_odd_clothes_is_answered_at_once(opt, code, request_bytes):
    start = time.monotonic()
    assert status(talk(opt, request_bytes)) == code
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("request_bytes", [HEAD + b"Content-Length: 999\r\n\r\n" + BODY, chunked(BODY)],
                         ids=["length", "chunks"])
def test_a_body_that_ends_too_soon_is_a_400_as_soon_as_the_client_closes_its_side(opt, request_bytes):
    answer = talk(opt, request_bytes, half_close=True)
    assert status(answer) == 400 and b"ended before" in answer


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_closes_its_sending_side_behind_its_request_gets_the_whole_answer(opt, streamed):
    body = json.dumps({"prompt": "a", "max_tokens": 300, "ignore_eos": True, "stream": streamed}).encode()
    answer = talk(opt, HEAD + length(body) + b"\r\n" + body, half_close=True)
    assert status(answer) == 200 and (b"data: [DONE]" in answer if streamed else b'"completion_tokens":300' in answer)


def preflight(server, origin):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,content-type"}
    return server.request("OPTIONS", "/v1/chat/completions", headers=asked)


def test_a_page_of_another_origin_may_ask_as_it_may_with_vllm(opt):
    answer = preflight(opt, "http://a")
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    answer = opt.request("POST", "/v1/completions", BODY, {"Origin": "http://a"})
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "*"


def test_only_allowed_origins_may_ask():
    with Server(OPT, "--allowed-origins", "http://a,http://b", "--api-key", "key", name="m") as server:
        answer = preflight(server, "http://b")  # browsers send no key with it
        assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "http://b"
        for origin in ("http://c", "http://bb", "http://"):
            answer = preflight(server, origin)
            assert answer.status == 401 and "access-control-allow-origin" not in answer.headers


def test_a_byte_order_mark_before_the_json_is_skipped(opt):
    assert opt.request("POST", "/v1/completions", b"\xef\xbb\xbf" + BODY).status == 200


def test_a_key_that_goes_on_behind_a_nul_is_another_key(opt):
    answer = opt.request("POST", "/v1/completions", b'{"prompt\\u0000": "a"}')
    assert answer.status == 400 and answer.json["error"]["param"] == "prompt"


def limited(files):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def test_idle_connections_make_room_when_the_open_files_run_out():
    """A hundred that say nothing on a server that may open 64 files: who asks is heard all the same."""
    with Server(OPT, name="m", before=limited(64)) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        assert server.request("GET", "/health", timeout=60).status == 200
        assert server.open_files() < 64 * int(RANKS or 1)
        for connection in idle:
            connection.close()
        assert server.complete("a")["choices"]
        assert server.stop() == 0


def test_sigterm_in_the_middle_of_streams_ends_each_with_an_error_event_in_time():
    """More work than the time that is left: what has begun to answer says so in its stream, what waits gets a 503."""
    with Server(OPT, "--drain-seconds", 1, "--max-num-seqs", 2, name="m") as server:
        body = json.dumps({"prompt": "a", "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 300,
                           "temperature": 1}).encode()
        connections = []
        for _ in range(3):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            connection.sendall(HEAD + length(body) + b"\r\n" + body)
            connections.append(connection)
        first = connections[0].recv(1 << 16)
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        answers = []
        for connection in connections:
            answer = first if not answers else b""
            while piece := connection.recv(1 << 20):
                answer = answer[-1 << 16:] + piece
            answers.append(answer)
        assert server.process.wait(30) == 0 and time.monotonic() - start < 20
    for answer in answers:
        assert b'"code":503' in answer
        assert b"data: [DONE]\n\n" in answer or answer.startswith(b"HTTP/1.1 503")
    assert b"[DONE]" in answers[0]


def test_a_log_that_cannot_be_written_stops_nothing():
    with Server(OPT, name="m", log=open("/dev/full", "wb")) as server:
        assert server.complete("a")["choices"]
        assert server.stop() == 0


@pytest.mark.parametrize("arguments", [["generate", OPT, "--prompt", "a", "--json"], ["generate", OPT, "--prompt", "a"],
                                       ["tokenize", OPT, "--prompt", "a"], ["inspect", OPT], ["--help"]])
def test_output_that_cannot_be_written_is_a_failure(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CRIA, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1 and "standard output" in done.stderr.decode()
