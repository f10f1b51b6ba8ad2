"""Servers that the tests share: small fixture models, a stand-in for the recorded OPT-125M, and the default model."""
import os
import pathlib

import checkpoint
import pytest
from server import CRIA, FIXTURES, RANKS, Server

CACHED = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cria"
DEFAULT_MODEL = CACHED / "SmolLM2-135M-Instruct.Q4_1.gguf"


def pytest_collection_modifyitems(items):
    if not CRIA.exists():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{CRIA} is missing: ./run build"))


@pytest.fixture(scope="session")
def opt():
    """OPT, 320 entries, byte-level BPE from vocab.json; every sampled text is noise, and that is the point."""
    with Server(FIXTURES / "models" / "opt-f16-text") as server:
        yield server


@pytest.fixture(scope="session")
def llama():
    """Llama with tokenizer.json and a ChatML template."""
    with Server(FIXTURES / "models" / "llama-bf16-text") as server:
        yield server


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """A random OPT with the vocabulary size and the context that the recordings had, under their model's name."""
    with Server(checkpoint.write(tmp_path_factory.mktemp("opt125")), name="opt125") as server:
        yield server


@pytest.fixture(scope="session")
def smol():
    """The default model. `./run test` fetches it; without it (no network) what needs real text is skipped."""
    if not DEFAULT_MODEL.exists():
        pytest.skip(f"{DEFAULT_MODEL} is not there: ./run model")
    # Asked for a capital, the first token is a near tie: sums over ranks in low precision may settle it the other way.
    exact = ["--dtype", "f32"] if RANKS else []
    with Server(DEFAULT_MODEL, "--max-model-len", 2048, *exact, name="smol") as server:
        yield server
