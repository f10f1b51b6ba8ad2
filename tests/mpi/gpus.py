"""Ranks that own GPUs give one rank's output, and too few GPUs are refused. CRIA may be built over fake_gpu/; where it has
CUDA and the host too few devices, skipped (77). Only Python's own library."""
import os
import subprocess
import sys

import same
from server import CRIA, FIXTURES

MODEL = FIXTURES / "models/llama-bf16-text"
GENERATE = [CRIA, "generate", MODEL, "--quiet", "--prompt", "abc", "--max-tokens", "4"]
GPUS = ["--comm", "nccl"]


def run(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def check_refusals():
    few = run(*GENERATE, *GPUS, "-n", "3", CRIA_FAKE_GPUS="2")
    assert few.returncode == 2, few
    assert "rank 2: GPUs on this host: 2, for at least 3 ranks" in few.stderr, few.stderr
    assert few.stderr.count("GPUs on this host") == 1, few.stderr
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    mixed = run("mpirun", "-q", "--oversubscribe", *root, "-n", "1", *GENERATE, ":", "-n", "1", *GENERATE, *GPUS)
    assert mixed.returncode != 0, mixed
    assert "rank 0 and rank 1 have different communicators (--comm)" in mixed.stderr, mixed.stderr
    print("too few GPUs are refused, and ranks that do not agree", flush=True)


def main():
    fake = "fake_gpu" in CRIA.name
    tried = run(*GENERATE, *GPUS, "-n", "4")
    if not fake and "GPUs on this host" in tried.stderr:
        print(f"skipped: {tried.stderr.splitlines()[-1]}")
        sys.exit(77)
    for name in ("llama-bf16-text", "opt-f16-text"):
        same.check_model(FIXTURES / "models" / name, layers=2, shapes=[(1, 2), (1, 3), (2, 1), (2, 2)], more=GPUS,
                         backend="nccl")
    if fake:
        check_refusals()


if __name__ == "__main__":
    main()
