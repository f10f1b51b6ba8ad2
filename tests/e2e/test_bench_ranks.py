"""`cria bench` on ranks: how phases are cut into steps, and what the stages say of them."""
import json
import shutil
import subprocess

import pytest
from server import CRIA, FIXTURES

MODEL = FIXTURES / "models" / "opt-f16-text"
HIDDEN, BATCH, PROMPT, NEW = 32, 4, 64, 6
pytestmark = pytest.mark.skipif(not shutil.which("mpirun"), reason="ranks are started by mpirun")


def bench(*options):
    done = subprocess.run([CRIA, "bench", MODEL, "--threads", "1", "--batch", str(BATCH), "--prompt-tokens", str(PROMPT),
                           "--new-tokens", str(NEW), "--repeat", "2", "--quiet", "--json", *map(str, options)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    result, = json.loads(done.stdout)["results"]
    return result


@pytest.mark.parametrize("under_way, groups", [(0, 2), (1, 1)])
def test_a_pipeline_has_a_group_of_sequences_for_each_stage(under_way, groups):
    result = bench("-n", 2, "--pipeline-parallel-size", 2, "--steps-under-way", under_way)
    assert (result["ranks"], result["stages"], result["replicas"]) == (2, 2, 1)
    assert result["decode"]["steps"] == groups * NEW and result["prefill"]["steps"] == BATCH
    # Cut behind the last attention, a prompt sends the one row whose logits are wanted.
    for phase, tokens in (("decode", [BATCH // groups]), ("prefill", [PROMPT, 1])):
        first, last = result[phase]["stage_figures"]
        assert first["steps"] == last["steps"] == result[phase]["steps"]
        assert first["sent_bytes_per_step"] in [n * HIDDEN * 4 for n in tokens] and last["sent_bytes_per_step"] == 0
        assert 0 < first["busy_share"] <= 1 and 0 < last["busy_share"] <= 1


def test_the_weights_of_all_ranks_are_counted():
    """Bytes and operations of a token do not depend on how the model is cut."""
    one, cut, twice = bench(), bench("-n", 2, "--pipeline-parallel-size", 2), bench("--data-parallel-size", 2)
    for phase in ("prefill", "decode"):
        assert cut[phase]["operations_per_token"] == pytest.approx(one[phase]["operations_per_token"], rel=0.01)
        assert twice[phase]["operations_per_token"] == pytest.approx(one[phase]["operations_per_token"], rel=0.01)
    # Replicas read their weights for half of the sequences each.
    assert twice["decode"]["steps"] == 2 * one["decode"]["steps"] == 2 * NEW
    assert twice["decode"]["bytes_per_token"] > 1.3 * one["decode"]["bytes_per_token"]


def test_operators_are_one_ranks_matter():
    done = subprocess.run([CRIA, "bench", MODEL, "-n", "2", "--profile", "--quiet"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 2 and b"profile" in done.stdout
