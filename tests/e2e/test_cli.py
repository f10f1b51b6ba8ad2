"""The other commands: generate, tokenize, inspect, bench, and what they say when something is wrong."""
import json
import os
import subprocess

import pytest
from conftest import DEFAULT_MODEL
from server import CRIA, FIXTURES, ROOT

OPT = FIXTURES / "models" / "opt-f16-text"


def cria(*arguments, status=0, **variables):
    done = subprocess.run([CRIA, *map(str, arguments)], capture_output=True, timeout=60,
                          env={**os.environ, **{name: str(value) for name, value in variables.items()}})
    assert done.returncode == status, done.stderr.decode()[-2000:]
    return done.stdout.decode() if status == 0 else done.stderr.decode()


def test_generate_prints_one_object_with_json():
    text = cria("generate", OPT, "--prompt", "The herd", "--max-tokens", 9, "--logprobs", 3, "--echo", "--ignore-eos", "--json")
    assert text.count("\n") == 1 and text.endswith("\n")
    answer = json.loads(text)
    assert set(answer) == {"text", "tokens", "logprobs", "prompt_logprobs", "prompt_tokens", "finish_reason", "timings"}
    assert len(answer["tokens"]) == len(answer["logprobs"]) == 9 and answer["finish_reason"] == "length"
    for token, entry in zip(answer["tokens"], answer["logprobs"]):
        assert entry["token"] == token and len(entry["top"]) == 3
        assert entry["rank"] == 1 and entry["top"][0] == [token, entry["logprob"]]  # greedy
    assert [entry["token"] for entry in answer["prompt_logprobs"]] == answer["prompt_tokens"][1:]
    timings = answer["timings"]
    assert timings["prompt_tokens"] == len(answer["prompt_tokens"]) and timings["generated_tokens"] == 9
    assert timings["seconds_to_first_token"] > 0 and timings["decode_tokens_per_second"] > 0


def test_generate_gives_the_continuation_only_and_streams_the_same(opt):
    asked = ("generate", OPT, "--prompt", "The herd", "--max-tokens", 20, "--ignore-eos")
    answer = json.loads(cria(*asked, "--json"))
    assert answer["text"] == opt.complete("The herd", max_tokens=20, ignore_eos=True)["choices"][0]["text"]
    assert answer["logprobs"] is None
    assert cria(*asked) == answer["text"] + "\n"


def test_generate_stops_before_a_text_and_says_so():
    asked = ("generate", OPT, "--prompt", "The herd", "--max-tokens", 60, "--ignore-eos", "--seed", 3, "--temperature", 1)
    whole = json.loads(cria(*asked, "--json"))["text"]
    stop = whole[10:13]
    answer = json.loads(cria(*asked, "--json", "--stop", stop))
    assert (answer["text"], answer["finish_reason"]) == (whole[:whole.index(stop)], "stop")
    assert cria(*asked, "--stop", stop) == answer["text"] + "\n"
    assert json.loads(cria(*asked, "--json"))["text"] == whole
    assert json.loads(cria(*asked[:-3], 4, *asked[-2:], "--json"))["text"] != whole


def test_generate_takes_token_ids():
    by_ids = json.loads(cria("generate", OPT, "--prompt-ids", "2,55,260,310", "--max-tokens", 5, "--json"))
    assert by_ids["prompt_tokens"] == [2, 55, 260, 310]
    assert by_ids["tokens"] == json.loads(cria("generate", OPT, "--prompt", "The herd", "--max-tokens", 5, "--json"))["tokens"]
    assert "320" in cria("generate", OPT, "--prompt-ids", "320", status=2)


def test_a_model_is_a_hugging_face_folder_or_a_folder_of_alpas_arrays():
    assert "embed_tokens" in cria("inspect", OPT)
    answer = json.loads(cria("generate", FIXTURES / "models" / "opt-alpa-npy", "--prompt-ids", "5,6,7", "--max-tokens", 4, "--json"))
    assert len(answer["tokens"]) == 4


def test_a_model_is_a_hub_id_found_in_the_local_cache_or_its_name_in_the_table(tmp_path):
    """`facebook/opt-125m`, and `opt-125m`, which configs/models.json leads to it. Nothing is fetched."""
    hub = tmp_path / "hub" / "models--facebook--opt-125m"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("27dcfa74d334")
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / "27dcfa74d334").symlink_to(OPT)
    expected = cria("generate", OPT, "--prompt", "The herd", "--max-tokens", 6)
    for name in ("facebook/opt-125m", "opt-125m"):
        for places in ({"HF_HOME": tmp_path}, {"HF_HUB_CACHE": tmp_path / "hub", "HF_HOME": "/nowhere"}):
            assert cria("generate", name, "--prompt", "The herd", "--max-tokens", 6, **places) == expected
    for name in ("facebook/opt-125m", "opt-125m", "no-such-model"):
        words = cria("generate", name, "--prompt", "a", status=1, HF_HOME=tmp_path / "empty", HF_HUB_CACHE="")
        assert name in words and str(tmp_path / "empty" / "hub") in words


@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason=f"{DEFAULT_MODEL} is not there: ./run model")
@pytest.mark.parametrize("model", [DEFAULT_MODEL, "smollm2-135m-instruct"])
def test_a_model_is_a_gguf_file_or_the_default_models_name(model):
    assert "Paris" in cria("generate", model, "--prompt", "The capital of France is", "--max-tokens", 8)


def test_tokenize_prints_ids():
    assert "2" in cria("tokenize", OPT, "--prompt", "The herd")


def test_inspect_finds_that_a_checkpoint_lacks_what_its_configuration_asks_for(tmp_path):
    source = FIXTURES / "models" / "llama-gqa"
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**config, "mlp_bias": True}))
    said = cria("inspect", tmp_path, status=1)
    assert "lacks the tensor model.layers.0.mlp." in said and ".bias" in said
    assert said.split(": ", 1)[1] == cria("generate", tmp_path, "--prompt-ids", "1", "--max-tokens", 1, status=1).split(": ", 1)[1]
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    assert "parameters" in cria("inspect", tmp_path)


def test_inspect_names_the_parameters_and_their_bytes():
    text = cria("inspect", OPT)
    assert "embed_tokens" in text


@pytest.mark.parametrize("model", [DEFAULT_MODEL])
def test_plans_for_a_measured_cluster_know_in_which_types_weights_are_held(model, tmp_path):
    cluster = json.loads((ROOT / "configs" / "clusters" / "two-cores.json").read_text())
    cluster["hosts"][0]["devices"][0]["count"] = 1
    asked = (model, "--prompt-tokens", 1, "--new-tokens", 1, "--batch", 1, "--json")

    def megabytes():
        path = tmp_path / "cluster.json"
        path.write_text(json.dumps(cluster))
        return json.loads(cria("plan", *asked, "--cluster", path))["stages"][0]["memory"] / 1e6

    elsewhere = megabytes()
    for device in cluster["devices"].values():
        device["measured"] = [{"operator": "norm", "type": "f32", "rows": 1, "columns": 576, "seconds": 1e-6}]
    held = float(next(line for line in cria("inspect", model).splitlines() if line.startswith("weights")).split()[1])
    # a table that is both embedding and head, and one of angles that all layers read, count once
    assert held * 0.95 < megabytes() < held * 1.1 < elsewhere


def test_bench_reports_prefill_and_decode_speed():
    report = json.loads(cria("bench", OPT, "--prompt-tokens", 32, "--new-tokens", 8, "--batch", "1,2", "--threads", "1",
                             "--json"))
    assert [(row["threads"], row["batch"]) for row in report["results"]] == [(1, 1), (1, 2)]
    for row in report["results"]:
        assert (row["prompt_tokens"], row["new_tokens"]) == (32, 8)
        assert row["prefill_tokens_per_second"] == row["prefill"]["tokens_per_second"]
        assert row["decode_tokens_per_second"] == row["decode"]["tokens_per_second"]
        assert row["prefill_gflops"] == row["prefill"]["gflops"] > 0 and row["decode_gbps"] == row["decode"]["gbps"] > 0
        # a rate counts the tokens of all sequences
        tokens = {name: row[name]["tokens_per_second"] * row[name]["seconds"] for name in ("prefill", "decode")}
        assert tokens["prefill"] == pytest.approx(32 * row["batch"], rel=0.1)
        assert tokens["decode"] == pytest.approx(8 * row["batch"], rel=0.1)
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
