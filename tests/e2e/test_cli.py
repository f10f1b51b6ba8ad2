"""The other commands: generate, tokenize, inspect, bench, and what they say when something is wrong."""
import json
import subprocess

import pytest
from server import CRIA, FIXTURES

OPT = FIXTURES / "models" / "opt-f16-text"


def cria(*arguments, status=0):
    done = subprocess.run([CRIA, *map(str, arguments)], capture_output=True, timeout=60)
    assert done.returncode == status, done.stderr.decode()[-2000:]
    return done.stdout.decode() if status == 0 else done.stderr.decode()


def test_generate_prints_one_object_with_json():
    answer = json.loads(cria("generate", OPT, "--prompt", "The herd", "--max-tokens", 9, "--temperature", 0, "--logprobs", 0,
                             "--json"))
    assert set(answer) >= {"text", "tokens", "logprobs", "finish_reason", "timings"}
    assert len(answer["tokens"]) == len(answer["logprobs"]) <= 9
    assert not answer["text"].startswith("The herd")
    streamed = cria("generate", OPT, "--prompt", "The herd", "--max-tokens", 9, "--temperature", 0)
    assert answer["text"] in streamed


def test_tokenize_prints_ids():
    assert "2" in cria("tokenize", OPT, "--prompt", "The herd")


def test_inspect_names_the_parameters_and_their_bytes():
    text = cria("inspect", OPT)
    assert "embed_tokens" in text


def test_bench_reports_prefill_and_decode_speed():
    report = json.loads(cria("bench", OPT, "--prompt-tokens", 32, "--new-tokens", 8, "--batch", "1,2", "--threads", "1",
                             "--json"))
    assert [(row["threads"], row["batch"]) for row in report["results"]] == [(1, 1), (1, 2)]
    for row in report["results"]:
        assert row["limits"]["read_gbps"] > 0 and row["limits"]["peak_gflops"] > 0
        for phase in (row["prefill"], row["decode"]):
            assert phase["tokens_per_second"] > 0 and 0 < phase["read_share"] and 0 < phase["peak_share"] < 1
    one, two = report["results"]
    # A decode step reads the weights once whatever the batch: two sequences share them, each with its own KV bytes.
    assert one["decode"]["bytes_per_token"] / 2 < two["decode"]["bytes_per_token"] < one["decode"]["bytes_per_token"]
    assert one["decode"]["operations_per_token"] == two["decode"]["operations_per_token"]


def test_bench_profile_splits_a_phase_by_operator():
    report = json.loads(cria("bench", OPT, "--prompt-tokens", 32, "--new-tokens", 8, "--batch", "1", "--threads", "1",
                             "--json", "--profile"))
    decode = report["results"][0]["decode"]
    assert {"linear", "attention", "norm", "sample"} <= set(decode["operators"])
    assert 0 < sum(operator["seconds"] for operator in decode["operators"].values()) <= decode["seconds"]


def test_bench_calibrates_without_a_model():
    rows = json.loads(cria("bench", "--calibrate", "--threads", "1,2", "--json"))["calibration"]
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(row["read_gbps"] > 0 and row["f32_gflops"] > 0 for row in rows)


def test_help_lists_the_commands():
    text = cria("--help")
    assert all(command in text for command in ("serve", "generate", "bench", "tokenize", "inspect"))


@pytest.mark.parametrize("arguments, word", [
    (["serve", "/no/such/folder"], "/no/such/folder"),
    (["generate", OPT, "--prompt", "a", "--max-tokenz", "3"], "max-tokenz"),
    (["generate", OPT, "--prompt", "a", "--max-tokens", "-3"], "max-tokens"),
    (["fly"], "fly")])
def test_a_mistake_is_named(arguments, word):
    done = subprocess.run([CRIA, *map(str, arguments)], capture_output=True, timeout=60)
    assert done.returncode != 0 and word in done.stderr.decode()
