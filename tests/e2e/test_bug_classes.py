"""Mistakes that other servers made, as far as they show from outside: one named test each.

The numbers are those of the list in docs/bug-classes.md; the others of it are tested in C, beside the code.
"""
import concurrent.futures
import json
import signal
import socket
import time

import pytest
from server import FIXTURES, Server, events_of

MIXED = "naïve 🐈 und Öl, 日本語 – done"


def stream(server, **body):
    body = {"model": server.name, "max_tokens": 16, "temperature": 0, "stream": True, **body}
    answer = server.request("POST", "/v1/completions", body)
    assert answer.status == 200, answer.body
    return events_of(answer.body)


def refused(server, body, status=400):
    start = time.monotonic()
    answer = server.request("POST", "/v1/completions", body)
    assert answer.status == status, answer.body[:300]
    assert time.monotonic() - start < 3
    error = answer.json["error"]
    assert error["code"] == status and error["message"]
    return error


def test_1_and_2_offsets_count_code_points_of_the_text_actually_sent(opt):
    """With echo, streamed and not, with characters of one to four bytes."""
    whole = opt.complete(MIXED, max_tokens=6, echo=True, logprobs=1, allowed_token_ids=[40, 41, 42])["choices"][0]
    offsets, text = [], ""
    for event in stream(opt, prompt=MIXED, max_tokens=6, echo=True, logprobs=1, allowed_token_ids=[40, 41, 42]):
        choice = event["choices"][0]
        assert all(len(text) <= offset <= len(text) + len(choice["text"])
                   for offset in choice["logprobs"]["text_offset"])
        offsets += choice["logprobs"]["text_offset"]
        text += choice["text"]
    assert text == whole["text"] and text.startswith(MIXED)
    assert offsets == whole["logprobs"]["text_offset"]
    for start, end, token in zip(offsets, offsets[1:] + [len(text)], whole["logprobs"]["tokens"]):
        if token.isascii() and token != "</s>":
            assert text[start:end] == token


def test_2_offsets_of_generated_text_with_characters_of_many_bytes(opt):
    """Random bytes: most of the text is U+FFFD, three bytes each, and every offset is a place in the text."""
    choice = opt.complete("a", max_tokens=60, temperature=1.3, seed=1, ignore_eos=True, logprobs=0)["choices"][0]
    offsets, text = choice["logprobs"]["text_offset"], choice["text"]
    assert len(text.encode()) > len(text) + 20
    assert offsets == sorted(offsets) and offsets[-1] <= len(text)


def test_3_tokens_that_are_part_of_a_character_are_neither_lost_nor_replaced(opt):
    values = opt.complete("🐈", max_tokens=1, echo=True, logprobs=1, allowed_token_ids=[40])["choices"][0]["logprobs"]
    assert "\ufffd" not in "".join(values["tokens"])
    named = opt.complete("🐈", max_tokens=1, echo=True, logprobs=1, return_tokens_as_token_ids=True)
    assert all(token.startswith("token_id:") for token in named["choices"][0]["logprobs"]["tokens"])


def test_4_no_part_of_a_stop_string_leaks_and_a_mere_prefix_is_given_back(opt):
    asked = dict(prompt=[2, 50, 60, 70], max_tokens=24, ignore_eos=True, allowed_token_ids=list(range(40, 90)))
    text = opt.complete(**asked)["choices"][0]["text"]
    stop = text[7:12]
    cut = text[:text.index(stop)]
    choice = opt.complete(stop=[stop], **asked)["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (cut, "stop", stop)
    assert "".join(e["choices"][0]["text"] for e in stream(opt, stop=[stop], **asked)) == cut
    never = text[-3:] + "\u0000"
    assert "".join(e["choices"][0]["text"] for e in stream(opt, stop=[never], **asked)) == text
    kept = opt.complete(stop=[stop], include_stop_str_in_output=True, **asked)["choices"][0]["text"]
    assert kept == cut + stop


@pytest.mark.parametrize("seed", range(6))
def test_5_no_event_holds_half_a_character(opt, seed):
    """Random bytes from a model that knows nothing: the pieces together are the whole answer."""
    asked = dict(prompt=MIXED, max_tokens=60, temperature=1.3, seed=seed, ignore_eos=True)
    pieces = [event["choices"][0]["text"] for event in stream(opt, **asked)]
    assert "".join(pieces) == opt.complete(**asked)["choices"][0]["text"]


@pytest.mark.parametrize("body", [b'{"prompt": "\xff\xfe"}', b'{"model": "\xc3", "prompt": "a"}', b'\xff{"prompt": "a"}',
                                  b'{"\xf0\x9f": 1, "prompt": "a", "max_tokens": "\xf0"}'])
def test_6_invalid_utf8_is_an_error_in_valid_utf8(opt, body):
    answer = opt.request("POST", "/v1/completions", body)
    assert 400 <= answer.status < 500 and answer.json["error"]["message"]
    assert opt.complete("still there")["choices"]


def test_6_half_a_surrogate_pair_becomes_the_replacement_character(opt):
    answer = opt.request("POST", "/v1/completions", b'{"prompt": "a\\ud800b", "echo": true, "max_tokens": 1}')
    assert answer.status == 200 and answer.json["choices"][0]["text"].startswith("a\ufffdb")


def test_7_log_probabilities_are_finite_numbers(opt):
    for extra in ({"allowed_token_ids": [40, 41]}, {"logit_bias": {"50": 100, "51": -100}}, {"temperature": 2.0}):
        answer = opt.request("POST", "/v1/completions", {"model": opt.name, "prompt": "a", "max_tokens": 4,
                                                         "logprobs": 20, "seed": 1, "temperature": 0, **extra})
        assert b"Infinity" not in answer.body and b"NaN" not in answer.body
        for top in answer.json["choices"][0]["logprobs"]["top_logprobs"]:
            assert all(-9999 <= value <= 0 for value in top.values())


def test_8_usage_is_the_sum_over_choices_and_comes_only_when_asked_for(opt):
    usage = opt.complete(["One", "Two"], n=3, temperature=1, ignore_eos=True, max_tokens=5)["usage"]
    assert usage["completion_tokens"] == 2 * 3 * 5
    assert not any(event.get("usage") for event in stream(opt, prompt="a"))
    events = stream(opt, prompt=["One", "Two"], max_tokens=5, ignore_eos=True, stream_options={"include_usage": True})
    assert events[-1]["choices"] == [] and events[-1]["usage"]["completion_tokens"] == 10
    assert [bool(event.get("usage")) for event in events] == [False] * (len(events) - 1) + [True]


def test_9_every_choice_of_a_stream_ends_with_a_finish_reason(opt):
    events = stream(opt, prompt=["One", "Two"], n=2, temperature=1)
    last = {event["choices"][0]["index"]: event["choices"][0]["finish_reason"] for event in events}
    assert sorted(last) == [0, 1, 2, 3] and set(last.values()) <= {"stop", "length"}


@pytest.mark.parametrize("streamed", [False, True])
def test_10_and_11_a_client_that_leaves_frees_its_blocks_wherever_its_request_was(streamed):
    """Queued, in prefill, decoding; with and without a stream."""
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", 2, name="m") as server:
        body = json.dumps({"prompt": [5] * 200, "max_tokens": 300, "ignore_eos": True, "stream": streamed}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        before = server.metrics()["vllm:generation_tokens_total"]
        connections = []
        for _ in range(8):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            connections.append(connection)
        busy = 0
        while busy < 3:  # some run, some wait: before that nobody has asked yet
            metrics = server.metrics()
            busy = metrics["vllm:num_requests_running"] + metrics["vllm:num_requests_waiting"]
        for connection in connections:
            connection.close()
        metrics = server.wait_until_idle()
        assert metrics["vllm:generation_tokens_total"] - before < 8 * 300


def test_12_an_id_that_the_client_chose_reaches_nobody_else(opt):
    body = {"model": opt.name, "prompt": "a", "max_tokens": 120, "ignore_eos": True, "temperature": 0,
            "request_id": "same"}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        one = pool.submit(opt.request, "POST", "/v1/completions", body, {"X-Request-Id": "same"})
        with socket.create_connection(("127.0.0.1", opt.port)) as leaver:
            data = json.dumps(body).encode()
            leaver.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: same\r\n"
                           b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        assert one.result().json["usage"]["completion_tokens"] == 120


def test_14_a_request_that_can_never_fit_is_refused_at_once(opt):
    refused(opt, {"prompt": [5] * 5000, "max_tokens": 1})
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", 2, "--block-size", 16, "--kv-cache-memory",
                8 * 16 * 2 * 2 * 32 * 4, name="small") as server:
        refused(server, {"prompt": [5] * 300, "max_tokens": 1})
        assert server.complete([5] * 60)["choices"]


def test_16_a_full_queue_is_a_429_that_says_when_to_come_back():
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", 1, "--max-waiting", 4, name="m") as server:
        body = {"prompt": "a", "max_tokens": 300, "ignore_eos": True, "temperature": 0}
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: server.request("POST", "/v1/completions", body), range(24)))
        refusals = [answer for answer in answers if answer.status != 200]
        assert 0 < len(refusals) < 24 - 4
        for answer in refusals:
            assert answer.status == 429 and int(answer.headers["retry-after"]) > 0 and answer.json["error"]["code"] == 429
        server.wait_until_idle()


def test_17_prompt_log_probabilities_of_a_large_vocabulary_take_little_memory(wide):
    wide.complete([7] * 900, max_tokens=1, echo=True, logprobs=1)
    before = wide.resident_bytes()
    answer = wide.complete(list(range(10, 1000)), max_tokens=1, echo=True, logprobs=5)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 991
    assert wide.resident_bytes() - before < 32 << 20  # all logits at once would be 190 MB


def test_18_prompt_log_probabilities_are_the_same_with_a_warm_prefix_cache(opt):
    asked = dict(prompt=list(range(10, 200)), max_tokens=2, echo=True, logprobs=2)
    assert opt.complete(**asked)["choices"] == opt.complete(**asked)["choices"]


def test_19_gauges_are_true_when_they_are_read(opt):
    seen = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in range(50):  # one may be ready before anybody looks
            running = pool.submit(opt.complete, "a", max_tokens=480, ignore_eos=True)
            while not running.done():
                seen = max(seen, opt.metrics()["vllm:num_requests_running"])
            if seen:
                break
    assert seen == 1
    assert opt.metrics()["vllm:num_requests_running"] == 0


def test_21_sigterm_finishes_what_runs_and_takes_nothing_new():
    with Server(FIXTURES / "models" / "opt-f16-text", "--max-num-seqs", 2, name="m") as server:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            # Many choices, two at a time: one would be ready before anybody looked.
            open_stream = pool.submit(stream, server, prompt="a", max_tokens=450, ignore_eos=True, n=64, temperature=1)
            while server.metrics()["vllm:num_requests_running"] == 0:
                assert not open_stream.done()
            server.process.send_signal(signal.SIGTERM)
            events = open_stream.result(timeout=60)
        assert [event["choices"][0]["finish_reason"] for event in events].count("length") == 64
        assert server.stop() == 0


def test_23_the_leading_token_is_added_exactly_once(opt):
    def ids(**body):
        return opt.request("POST", "/tokenize", {"model": opt.name, **body}).json["tokens"]

    assert ids(prompt="Hello").count(2) == 1 and ids(prompt="Hello")[0] == 2
    assert 2 not in ids(prompt="Hello", add_special_tokens=False)
    assert opt.complete("Hello")["usage"]["prompt_tokens"] == len(ids(prompt="Hello"))
    assert opt.complete([40, 41])["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("extra", [{"n": 10 ** 9}, {"best_of": 10 ** 9}, {"logprobs": 10 ** 9},
                                   {"prompt": ["a"] * 200000}, {"prompt": [[5]] * 200000}, {"prompt_logprobs": 10 ** 6},
                                   {"stop": [f"s{i}" for i in range(500000)]}, {"bad_words": ["a"] * 500000}])
def test_24_and_25_huge_counts_are_refused_before_anything_is_allocated(opt, extra):
    before = opt.resident_bytes()
    refused(opt, {"prompt": "a", "temperature": 1, **extra})
    assert opt.resident_bytes() - before < 64 << 20


def test_26_structured_output_is_refused_by_name(opt):
    error = refused(opt, {"prompt": "a", "response_format": {"type": "json_object"}})
    assert "response_format" in error["message"] and "not supported" in error["message"]


def test_27_floods_are_cut_off(opt):
    answer = opt.request("POST", "/v1/completions", b'{"prompt": "' + b"a" * (17 << 20) + b'"}')
    assert answer.status == 413
    with socket.create_connection(("127.0.0.1", opt.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        try:
            for _ in range(4000):
                connection.sendall(b"X-Flood: " + b"a" * 1000 + b"\r\n")
            status = connection.recv(100)
        except OSError:
            status = b""
    assert status == b"" or status.split()[1] in (b"400", b"413", b"431")
    assert opt.request("GET", "/health").status == 200


def test_29_cached_prefixes_are_not_shared_between_salts(opt):
    prompt = list(range(20, 220))

    def hits(salt):
        before = opt.metrics()["vllm:prefix_cache_hits_total"]
        opt.complete(prompt, max_tokens=1, cache_salt=salt)
        return opt.metrics()["vllm:prefix_cache_hits_total"] - before

    assert hits("one") == 0
    assert hits("one") > 0
    assert hits("two") == 0


@pytest.mark.parametrize("key", ["max_tokens", "min_tokens", "n", "best_of", "logprobs", "prompt_logprobs", "top_k",
                                 "truncate_prompt_tokens", "seed"])
@pytest.mark.parametrize("value", ["-9223372036854775809", "18446744073709551616", "1e400", "1.5", '"1"x', "[1]", "NaN"])
def test_31_integers_out_of_range_are_refused(opt, key, value):
    refused(opt, f'{{"prompt": "a", "{key}": {value}}}')


@pytest.mark.parametrize("ids", ["[-1]", "[320]", "[2147483648]", "[4294967298]", "[18446744073709551618]", "[1.5]",
                                 "[1e300]", "[true]", "[null]", "[[]]", "[[1], 2]"])
def test_31_token_ids_out_of_range_are_refused(opt, ids):
    refused(opt, f'{{"prompt": {ids}}}')
