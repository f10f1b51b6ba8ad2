"""/metrics: every counter and histogram moves by exactly what a known load should move it."""
import json
import re
import shutil
import socket
import time

import pytest
from server import FIXTURES, RANKS, Server

PROMPT = list(range(40, 80))  # 40 tokens: two full blocks of 16 and 8 more


@pytest.fixture(scope="module")
def server():
    """Its own server: nothing else may move its counters."""
    with Server(FIXTURES / "models" / "opt-f16-text", "--block-size", 16, name="m") as server:
        yield server


def readings(server):
    """{name{labels that tell series apart}: value}, once nothing runs and the word of every end has come: it follows
    the engine's own figures. What ended by itself has a latency, what was aborted has none."""
    server.wait_until_idle()
    end = time.monotonic() + 10
    while True:
        values = page(server)
        ended = sum(values[f"request_success_total finished_reason={reason}"] for reason in ("stop", "length"))
        times = values["e2e_request_latency_seconds_count"], values["request_generation_tokens_count"]
        if times == (ended, ended):
            return values
        assert time.monotonic() < end, f"{ended} have ended, of {times} the time and the tokens are known"
        time.sleep(0.02)


def page(server):
    values = {}
    for line in server.request("GET", "/metrics").text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(?:vllm|cria):(\w+)\{(.*)\} (\S+)", line).groups()
        labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert labels.pop("model_name") == "m" and labels.pop("engine") == "0"
        values[name + "".join(f" {key}={labels[key]}" for key in sorted(labels))] = float(value)
    return values


def moved(server, act):
    before = readings(server)
    act()
    after = readings(server)
    assert before.keys() == after.keys()
    return {name: after[name] - before[name] for name in after}


def buckets(change, name):
    """The cumulative buckets of a histogram that moved, from the first that did."""
    found = [(float(key.partition("le=")[2]), value) for key, value in change.items() if key.startswith(f"{name}_bucket ")]
    return [bound for bound, value in sorted(found) if value][0], sorted(found)[-1][1]


def test_one_request_moves_every_series_by_its_own_figures(server):
    change = moved(server, lambda: server.complete(PROMPT, max_tokens=7, ignore_eos=True))
    expected = {"prompt_tokens_total": 40, "generation_tokens_total": 7, "num_preemptions_total": 0,
                "prefix_cache_queries_total": 40, "prefix_cache_hits_total": 0,
                "request_success_total finished_reason=length": 1, "request_success_total finished_reason=stop": 0,
                "request_success_total finished_reason=abort": 0, "request_success_total finished_reason=error": 0,
                "time_to_first_token_seconds_count": 1, "inter_token_latency_seconds_count": 6,
                "request_time_per_output_token_seconds_count": 1, "e2e_request_latency_seconds_count": 1,
                "request_queue_time_seconds_count": 1, "request_prefill_time_seconds_count": 1,
                "request_decode_time_seconds_count": 1, "request_inference_time_seconds_count": 1,
                "request_prompt_tokens_count": 1, "request_prompt_tokens_sum": 40,
                "request_generation_tokens_count": 1, "request_generation_tokens_sum": 7,
                "request_params_max_tokens_sum": 7, "request_params_n_sum": 1,
                # a step for the prompt, then one for each token but the last
                "iteration_tokens_total_count": 7, "iteration_tokens_total_sum": 40 + 6}
    assert {name: change[name] for name in expected} == expected
    assert buckets(change, "request_prompt_tokens") == (50, 1)
    assert buckets(change, "request_generation_tokens") == (10, 1)
    assert buckets(change, "iteration_tokens_total") == (1, 7)
    assert change["iteration_tokens_total_bucket le=32.0"] == 6 and change["iteration_tokens_total_bucket le=64.0"] == 7


def test_times_add_up(server):
    change = moved(server, lambda: server.complete(PROMPT, max_tokens=200, ignore_eos=True))
    whole = change["e2e_request_latency_seconds_sum"]
    parts = change["request_queue_time_seconds_sum"] + change["request_inference_time_seconds_sum"]
    assert 0 < parts <= whole
    assert change["request_inference_time_seconds_sum"] == pytest.approx(
        change["request_prefill_time_seconds_sum"] + change["request_decode_time_seconds_sum"], rel=1e-3)
    assert change["time_to_first_token_seconds_sum"] + change["inter_token_latency_seconds_sum"] <= whole + 1e-9
    assert change["request_time_per_output_token_seconds_sum"] == pytest.approx(
        change["request_decode_time_seconds_sum"] / 199, rel=1e-2)


def test_full_blocks_of_a_prompt_seen_before_are_hits(server):
    prompt = list(range(100, 140))
    server.complete(prompt, max_tokens=1)
    change = moved(server, lambda: server.complete(prompt, max_tokens=3, ignore_eos=True))
    assert (change["prefix_cache_queries_total"], change["prefix_cache_hits_total"]) == (40, 32)
    assert change["iteration_tokens_total_sum"] == 8 + 2
    assert change["prompt_tokens_total"] == 40


def test_choices_and_prompts_are_sequences_of_their_own(server):
    def act():
        answer = server.complete([[50, 51, 52], [60, 61, 62, 63]], n=2, max_tokens=5, temperature=1, ignore_eos=True)
        assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (7, 20)

    change = moved(server, act)
    assert change["prompt_tokens_total"] == 2 * 3 + 2 * 4 and change["generation_tokens_total"] == 4 * 5
    assert change["request_success_total finished_reason=length"] == 4
    assert change["request_generation_tokens_count"] == 4 and change["inter_token_latency_seconds_count"] == 4 * 4
    assert (change["request_params_n_count"], change["request_params_n_sum"]) == (1, 2)


def test_ends_are_counted_by_their_reason(server):
    text = server.complete(PROMPT, max_tokens=30, ignore_eos=True)["choices"][0]["text"]

    def act():
        assert server.complete(PROMPT, max_tokens=30, ignore_eos=True, stop=[text[3:6]])["choices"][0][
            "finish_reason"] == "stop"
        body = b'{"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true, "n": 128, "temperature": 1}'
        for _ in range(8):  # how far the server is when it hears of it differs
            with socket.create_connection(("127.0.0.1", server.port)) as leaver:
                leaver.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                               b"Content-Length: %d\r\n\r\n" % len(body) + body)
                leaver.recv(100)

    change = moved(server, act)
    reasons = {key.partition("=")[2]: value for key, value in change.items() if key.startswith("request_success_total")}
    # A fast machine is through with some of the choices before it sees that their client has gone.
    assert (reasons["stop"], reasons["error"]) == (1, 0) and reasons["abort"] > 0
    assert reasons["length"] + reasons["abort"] == 8 * 128


def test_what_is_refused_moves_nothing(server):
    def act():
        for body in (b"{", b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": [9999]}', b'{"model": "x", "prompt": "a"}'):
            assert 400 <= server.request("POST", "/v1/completions", body).status < 500

    assert not any(moved(server, act).values())


def test_every_histogram_is_cumulative_and_ends_at_its_count(server):
    values = readings(server)
    names = {key.partition("_bucket ")[0] for key in values if "_bucket " in key}
    assert len(names) == 13
    for name in names:
        found = sorted((float(key.partition("le=")[2]), value) for key, value in values.items()
                       if key.startswith(f"{name}_bucket "))
        assert [value for _, value in found] == sorted(value for _, value in found)
        assert found[-1] == (float("inf"), values[f"{name}_count"])


def test_preemptions_are_counted():
    """A pool of 24 blocks for two sequences of 20 blocks each: long ones, so that they meet even where the second comes
    late."""
    with Server(FIXTURES / "models" / "opt-f16-text", "--block-size", 16, "--kv-cache-memory", 24 * 16 * 2 * 2 * 32 * 2,
                "--no-enable-prefix-caching", name="m") as server:
        change = moved(server, lambda: server.complete([[50] * 20, [60] * 20], max_tokens=300, ignore_eos=True))
        assert change["num_preemptions_total"] == 1
        assert change["generation_tokens_total"] == 600 and change["prompt_tokens_total"] == 40
        # What was preempted is computed again: more tokens than the two alone need, but no more than once over.
        assert 2 * 319 < change["iteration_tokens_total_sum"] <= 3 * 319


HIDDEN = 32  # of the model
many_ranks = pytest.mark.skipif(bool(RANKS) or not shutil.which("mpirun"), reason="has ranks of its own, by mpirun")


def stage(values, name, number=0):
    return values[f"stage_{name} stage={number}"]


@pytest.mark.skipif(bool(RANKS), reason="one rank's figures")
def test_one_rank_is_one_stage_without_bubble(server):
    change = moved(server, lambda: server.complete(PROMPT, max_tokens=7, ignore_eos=True))
    assert stage(change, "steps_total") == change["iteration_tokens_total_count"]
    assert 0 < stage(change, "busy_seconds_total") == stage(change, "active_seconds_total")
    assert stage(change, "busy_seconds_total") < change["request_inference_time_seconds_sum"]
    values = readings(server)
    assert stage(values, "sent_bytes_total") == stage(values, "transfer_seconds_total") == 0
    assert stage(values, "bubble_share") == 0
    assert stage(values, "memory_bytes") > server.announced("kv")
    assert not any(name.startswith("stage_predicted") for name in values)


@many_ranks
def test_every_stage_of_a_pipeline_tells_its_steps_and_bytes():
    with Server(FIXTURES / "models" / "opt-f16-text", "-n", 2, "--pipeline-parallel-size", 2, name="m") as server:
        # With every token's logits wanted, as much is sent wherever the plan has cut the last layer.
        change = moved(server, lambda: server.complete(PROMPT, max_tokens=7, ignore_eos=True, echo=True, logprobs=0))
        # The prompt of 40 in two chunks, so that both stages have work, then a step for each token but the last.
        for number in range(2):
            assert stage(change, "steps_total", number) == 8 == change["iteration_tokens_total_count"]
            assert 0 < stage(change, "busy_seconds_total", number) < stage(change, "active_seconds_total", number)
            assert 0 < stage(readings(server), "bubble_share", number) < 1
        assert stage(change, "active_seconds_total", 0) == stage(change, "active_seconds_total", 1)
        assert stage(change, "sent_bytes_total", 0) == (40 + 6) * HIDDEN * 4
        assert stage(change, "sent_bytes_total", 1) == 0
        assert stage(change, "transfer_seconds_total", 1) > 0


@many_ranks
def test_replicas_share_requests_and_figures():
    with Server(FIXTURES / "models" / "opt-f16-text", "--data-parallel-size", 2, name="m") as server:
        assert server.request("GET", "/plan").json["schedule"]["replicas"] == 2
        alone = [server.complete([50 + i] * 20, max_tokens=9, ignore_eos=True)["choices"][0]["text"] for i in range(4)]
        change = moved(server, lambda: alone.append(server.complete(
            [[50 + i] * 20 for i in range(4)], max_tokens=9, ignore_eos=True)))
        assert [choice["text"] for choice in alone[4]["choices"]] == alone[:4]
        assert stage(change, "steps_total") == change["iteration_tokens_total_count"]
        # Two sequences on each: neither replica has run all four together.
        assert change["iteration_tokens_total_count"] >= 2 * 9


@many_ranks
def test_what_a_plan_file_predicts_stands_beside_what_is_achieved(tmp_path):
    plan = tmp_path / "plan.json"
    model = FIXTURES / "models" / "opt-f16-text"
    with Server(model, "-n", 2, "--pipeline-parallel-size", 2, name="m") as server:
        text = server.request("GET", "/plan").text
    data = json.loads(text)
    data["predicted"] = {"step_seconds": 0.25, "tokens_per_second": 4, "first_token": 1, "latency": 2}
    for number, one in enumerate(data["stages"]):
        one["predicted"] = {"compute": 0.5 + number, "collectives": 0.25, "resharding": 0.125, "memory": 1000 + number,
                            "kv_blocks": 20 + 10 * number}
    plan.write_text(json.dumps(data))
    with Server(model, "--plan", plan, name="m") as server:
        values = readings(server)
        assert values["predicted_step_seconds"] == 0.25
        for number in range(2):
            assert stage(values, "predicted_step_seconds", number) == 0.875 + number
            assert stage(values, "predicted_memory_bytes", number) == 1000 + number
            assert stage(values, "memory_bytes", number) > 1000
        assert "320 tokens in blocks of 32" in server.output()  # the stage with least room has 20 blocks of 16
