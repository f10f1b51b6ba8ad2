"""Every plan gives one rank's output: greedy and sampled tokens over real ranks, for the test models and, where it has
been fetched, the default model. Only Python's own library."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from server import FIXTURES, Server  # noqa: E402

CACHED = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cria"
DEFAULT_MODEL = CACHED / "SmolLM2-135M-Instruct.Q4_1.gguf"
# (stages, ranks of a stage): 3 cuts 4 and 9 heads unevenly.
SHAPES = [(1, 2), (1, 3), (1, 4), (2, 1), (4, 1), (2, 2)]
BODIES = [
    {"prompt": "hello there", "max_tokens": 24, "logprobs": 3},
    {"prompt": "The capital of France is", "max_tokens": 48, "ignore_eos": True},
    {"prompt": "abc", "max_tokens": 24, "temperature": 0.8, "top_p": 0.9, "top_k": 20, "seed": 5},
    {"prompt": "abc", "max_tokens": 24, "temperature": 3.0, "top_p": 0.97, "min_p": 0.001, "seed": 6,
     "logit_bias": {"5": 3.0}, "frequency_penalty": 0.5},
]


def check_model(model, layers, shapes=SHAPES, more=(), backend=None):
    """more: options of the servers with ranks; backend: what must connect their ranks."""
    options = ["--quiet", "--dtype", "f32", "--max-model-len", 512]
    with Server(model, *options) as one:
        expected = [one.complete(**body)["choices"][0] for body in BODIES]
    for stages, width in shapes:
        if stages > layers:
            continue
        what = f"{model.name}, {stages} stages of {width}"
        with Server(model, *options, *more, "--pipeline-parallel-size", stages, "--tensor-parallel-size", width) as server:
            for want, body in zip(expected, BODIES):
                got = server.complete(**body)["choices"][0]
                assert got["text"] == want["text"], (what, body, got["text"], want["text"])
                if "logprobs" in body:
                    pairs = zip(got["logprobs"]["token_logprobs"], want["logprobs"]["token_logprobs"])
                    assert all(abs(a - b) < 1e-3 for a, b in pairs), (what, body)
            assert not backend or f"{stages * width} ranks, connected by {backend}" in server.output(), server.output()
            running = server.request("GET", "/plan").json["stages"]
            assert len(running) == stages and all(s["mesh"][0] * s["mesh"][1] == width for s in running), running
            assert server.stop() == 0, f"{what}: {server.output()[-2000:]}"
        print(f"{what}: the same as on one rank", flush=True)


def main():
    for name in ("llama-bf16-text", "opt-f16-text"):
        check_model(FIXTURES / "models" / name, layers=2)
    if DEFAULT_MODEL.exists():
        check_model(DEFAULT_MODEL, layers=30)
    else:
        print(f"{DEFAULT_MODEL} is not there: ./run model")


if __name__ == "__main__":
    main()
