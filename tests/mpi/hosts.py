"""`cria serve` over two hosts (network.py): the same tokens as on one rank, each byte over the link once, and an end for
every request when the link is cut. Exit code 77: not permitted here. Only Python's own library."""
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from network import NotPermitted, TwoHosts  # noqa: E402
from serve import CUT, check_fault  # noqa: E402
from server import FIXTURES, Server  # noqa: E402

MODELS = [FIXTURES / "models" / name for name in ("llama-bf16-text", "opt-f16-text")]
DEFAULT_MODEL, HIDDEN = "SmolLM2-135M-Instruct.Q4_1.gguf", 576
RUN = ["-q", "--bind-to", "none", "--allow-run-as-root"]
BODY = {"prompt": "hello there", "max_tokens": 24, "logprobs": 2}


def answer(server):
    choice = server.complete(**BODY)["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def check_same(got, want, what):
    assert got[0] == want[0], (what, got[0], want[0])
    assert all(abs(a - b) < 1e-3 for a, b in zip(got[1], want[1])), (what, got[1], want[1])


def shared_files(pid):
    """What a process has mapped shared and writable, by inode: memory that others may see."""
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {tuple(fields[3:5]) for fields in map(str.split, lines) if fields[1] == "rw-s" and len(fields) > 5}


def check_hosts(server, per_host):
    """Ranks lie where the host file says, and share memory with ranks of their own host only."""
    ranks = 2 * per_host
    rows = server.ranks(ranks)
    hosts = [row["host"] for row in rows]
    assert hosts == ["host-a"] * per_host + ["host-b"] * per_host, hosts
    files = [shared_files(row["pid"]) for row in rows]
    for r in range(1, ranks):
        together = files[0] & files[r]
        assert bool(together) == (r < per_host), f"rank 0 and rank {r} share {together}"


def check_answers(network, plans, expected):
    for model in MODELS:
        for ranks, options in plans:
            host = network.hostfile(ranks // 2, ranks // 2)
            what = f"{model.name} on {ranks} ranks {options}"
            with Server(model, "--quiet", "--dtype", "f32", "--hostfile", host, *options) as server:
                check_hosts(server, ranks // 2)
                check_same(answer(server), expected[model], what)
                assert server.stop() == 0, f"{what}: {server.output()[-2000:]}"
            print(f"{what}: the same tokens", flush=True)


def check_traffic(network):
    """Between stages of two ranks each, every byte of a value crosses the link once, though both receivers need it."""
    model = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cria" / DEFAULT_MODEL
    if not model.exists():
        print(f"the link's traffic is not measured: {model} is not there")
        return
    with Server(model, "--quiet", "--hostfile", network.hostfile(2, 2), "--tensor-parallel-size", 2, "--pipeline-parallel-size", 2,
                "--max-model-len", 1024) as server:
        server.complete("warm", max_tokens=1)
        before = network.cross_bytes()[0]
        # With every token's logits wanted, as much crosses wherever the plan has cut the last layer.
        answer = server.complete("every word counts once " * 120, max_tokens=1, echo=True, logprobs=0)
        tokens = answer["usage"]["prompt_tokens"]
        sent = network.cross_bytes()[0] - before
    values = tokens * HIDDEN * 4
    print(f"{tokens} tokens: {values} bytes of values, {sent} bytes over the link", flush=True)
    assert tokens > 400 and values < sent < 1.15 * values, (tokens, values, sent)


def check_collectives(network):
    """Two ranks on each host: the bytes of every collective cross the link once, whatever both ranks need or give. On a busy
    machine TCP sends some of them again, so that the least of three runs counts."""
    times, floats = 8, 1 << 20  # mpi_comm.c
    for what, *least in (("all-reduce", 1, 1), ("reduce-scatter", 1, 0.5), ("all-gather", 0.5, 0.5), ("broadcast", 1, 0),
                         ("all-to-all", 1, 1)):
        for left in (2, 1, 0):
            before = network.cross_bytes()
            done = subprocess.run(["mpirun", *RUN, "--hostfile", network.hostfile(2, 2), "-n", "4", os.environ["MPI_COMM"], "hosts",
                                   "0", "send", what, str(floats)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
            assert done.returncode == 0, done.stdout.decode()
            sent = [(now - then) / (4 * times * floats) for now, then in zip(network.cross_bytes(), before)]
            print(f"{what}: {sent[0]:.2f} and {sent[1]:.2f} of its bytes over the link, there and back", flush=True)
            assert all(got >= want for got, want in zip(sent, least)), (what, sent)
            if all(got < 1.08 * want + 0.04 for got, want in zip(sent, least)):
                break
            assert left, (what, sent)


def check_cut(network, stages):
    """The link is cut in mid-stream."""
    late, ended = check_fault(2, stages, [1], CUT, 0.05, network)
    print(f"cut, {stages} stages: last request ended after {late:.2f} s, all processes after {ended:.1f} s", flush=True)


def main():
    expected = {}
    for model in MODELS:
        with Server(model, "--quiet", "--dtype", "f32") as one:
            expected[model] = answer(one)
    plans = [(tensor * stages, ["--tensor-parallel-size", tensor, "--pipeline-parallel-size", stages])
             for stages, tensor in ((1, 2), (2, 1), (1, 4), (2, 2))]
    with tempfile.TemporaryDirectory() as folder:
        with TwoHosts(folder) as network:
            check_answers(network, plans, expected)
            check_collectives(network)
            check_traffic(network)
            check_cut(network, 1)
        with TwoHosts(folder, delay=0.02) as network:
            check_answers(network, plans[:2] + plans[3:], expected)
            check_cut(network, 2)


if __name__ == "__main__":
    try:
        main()
    except NotPermitted as reason:
        print(f"skipped: {reason}")
        sys.exit(77)
