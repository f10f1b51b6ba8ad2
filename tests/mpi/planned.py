"""Profiles of the ranks that are there, and plans made for them: --plan auto, sizes that it is held to, ranks left idle,
predictions beside what was measured. Only Python's own library."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "tests" / "lint"))
from check_schemas import check, load  # noqa: E402
from server import CRIA, FIXTURES, Server  # noqa: E402

MODEL = FIXTURES / "models" / "llama-bf16-text"
PROMPT = ["--prompt-ids", "5,6,7,8", "--max-tokens", "12", "--ignore-eos", "--json", "--quiet"]


def run(*arguments, fails=False):
    done = subprocess.run([CRIA, *map(str, arguments)], capture_output=True, text=True, timeout=100)
    assert (done.returncode != 0) == fails, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stderr if fails else done.stdout


def tokens(*options):
    return json.loads(run("generate", MODEL, "--dtype", "f32", *PROMPT, *options))["tokens"]


def check_profiles(folder):
    """Files follow the schema, are found again by `this`, and can be named."""
    schema = load(ROOT / "docs" / "cluster.schema.json")
    for ranks in (1, 2):
        path = folder / f"{ranks}.json"
        run("profile", MODEL, "--quick", "--quiet", "-n", ranks, "--threads", 1, "--out", path)
        profile = load(path)
        assert not list(check(schema, schema, profile)), list(check(schema, schema, profile))
        assert profile["hosts"][0]["devices"][0]["count"] == ranks
        measured = next(iter(profile["devices"].values()))["measured"]
        assert {"linear", "attention", "norm"} <= {sample["operator"] for sample in measured}
        assert (ranks > 1) == ("measured" in profile["hosts"][0]["link"])
        planned = json.loads(run("plan", MODEL, "--cluster", path, "--batch", 1, "--json"))
        assert planned, planned
    before = set(folder.rglob("*"))
    printed = json.loads(run("profile", MODEL, "--quick", "--quiet", "--json"))
    cached = list(set(folder.rglob("profile-*")) - before)
    assert len(cached) == 1 and load(cached[0]) == printed
    # Another model's shapes join those that are there.
    samples = len(next(iter(printed["devices"].values()))["measured"])
    run("profile", FIXTURES / "models" / "opt-f16-text", "--quick", "--quiet")
    assert len(next(iter(load(cached[0])["devices"].values()))["measured"]) > samples
    cached[0].write_text("{}")
    assert "one device" in run("plan", MODEL), "a broken profile is passed over"
    cached[0].unlink()


def check_generate():
    one = tokens()
    for options in (["-n", 2], ["-n", 3], ["-n", 2, "--plan", "auto"], ["-n", 2, "--tensor-parallel-size", 2],
                    ["-n", 2, "--pipeline-parallel-size", 2], ["-n", 4, "--pipeline-parallel-size", 2, "--plan", "auto"],
                    ["--plan", "auto"], ["-n", 2, "--objective", "throughput"]):
        assert tokens(*options) == one, options
    assert "4" in run("generate", MODEL, *PROMPT, "-n", 4, "--tensor-parallel-size", 3, fails=True)


def check_serve():
    """Ranks that the plan leaves idle wait, and end with the others; the plan says what it is predicted to take."""
    for options, ranks in ((["-n", 2], 2), (["-n", 3, "--plan", "auto"], None)):
        with Server(MODEL, "--quiet", *options) as server:
            assert server.complete(prompt="hello", max_tokens=4)["choices"]
            plan = server.request("GET", "/plan").json
            assert ranks in (None, plan["ranks"]), plan["ranks"]
            assert plan["predicted"]["step_seconds"] > 0 and plan["predicted"]["tokens_per_second"] > 0
            for stage in plan["stages"]:
                assert stage["predicted"]["memory"] > 0 and stage["predicted"]["compute"] > 0
            assert "predicted_step_seconds" in server.request("GET", "/metrics").text
            assert server.stop() == 0, server.output()[-2000:]


def check_bench():
    for options in (["-n", 2], ["-n", 2, "--plan", "auto"], ["-n", 2, "--pipeline-parallel-size", 2]):
        cases = json.loads(run("bench", MODEL, "--batch", "1,2", "--prompt-tokens", 16, "--new-tokens", 4, "--quiet",
                               "--json", *options))["results"]
        assert len(cases) == 2
        for case in cases:
            assert case["decode"]["predicted_step_seconds"] > 0 and case["prefill"]["predicted_step_seconds"] > 0
            assert case["memory"]["weights"] > 0 and case["predicted_memory"]["weights"] > 0


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "cria").mkdir()
        os.environ["XDG_CACHE_HOME"] = str(folder)
        check_profiles(folder)
        check_generate()
        check_serve()
        check_bench()
    print("profiles and plans of ranks are as they should be")


if __name__ == "__main__":
    main()
