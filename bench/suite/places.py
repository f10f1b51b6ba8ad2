"""Where things lie: the source tree, the program, and the cache folder that keeps environments and big models."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRIA = ROOT / "build/cria"
PROGRAM_SOURCES = ("base", "kernels", "models", "parallel", "server", "tokenizer", "CMakeLists.txt")
RESULTS = ROOT / "bench/results"
RIVALS = ROOT / "bench/rivals"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cria"
ENVIRONMENTS = CACHE / "bench/env"
MODELS = CACHE / "bench/models"
SMOLLM2 = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"


def plain_environment(**more):
    """The process's environment without what would slow a rival's numerical libraries down, and with `more`."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("OPENBLAS_", "OMP_", "MKL_", "KMP_", "GOMP_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **more}
