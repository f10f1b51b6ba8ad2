"""Resident memory: under packed weights + KV cache + 100 MB, at the start and under load."""
import concurrent.futures

import pytest
from conftest import DEFAULT_MODEL
from server import RANKS, Server

pytestmark = pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason=f"{DEFAULT_MODEL} is not there: ./run model")
SLACK = 100e6 * int(RANKS or 1)


@pytest.mark.parametrize("options, weights", [((), 98.7e6), (("--dtype", "int8"), 143e6), (("--dtype", "bf16"), 269e6),
                                              (("--dtype", "f32"), 538e6)])
def test_loading_needs_little_more_than_the_packed_weights(options, weights):
    """The checkpoint is mapped and let go as it is packed: it is never there a second time."""
    with Server(DEFAULT_MODEL, "--kv-cache-memory", "32m", *options, name="smol") as server:
        # a plan may keep what is read everywhere on every rank
        assert weights * 0.95 < server.announced("weights") < weights * (1.05 if not RANKS else int(RANKS))
        # the KV cache is not touched yet: it does not count
        assert server.resident_bytes("VmHWM") < server.announced("weights") + SLACK


def test_load_needs_no_more_than_weights_and_kv_cache_and_100_mb():
    """Eight prompts at once that fill the KV cache twice, with the log-probabilities of every prompt token."""
    with Server(DEFAULT_MODEL, "--kv-cache-memory", "40m", name="smol") as server:
        assert server.announced("kv") <= 40 * 2 ** 20 * int(RANKS or 1)  # each rank has so much

        def ask(i):
            prompt = [(7 * j + i) % 40000 + 20 for j in range(400)]
            answer = server.complete(prompt, max_tokens=4, echo=True, logprobs=20, ignore_eos=True)
            assert len(answer["choices"][0]["logprobs"]["token_logprobs"]) == 404

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        bound = server.announced("weights") + server.announced("kv") + SLACK
        assert server.resident_bytes("VmHWM") < bound
