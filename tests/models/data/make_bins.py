"""Writes the PyTorch files of tests/models/test_pytorch.c beside itself: python3 make_bins.py (needs torch)."""
import os
import pathlib

import torch

here = pathlib.Path(__file__).parent


def state_dict():
    base = torch.arange(24, dtype=torch.float32)
    whole = base.reshape(6, 4)
    module = torch.nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.arange(6).reshape(2, 3) * 0.5)
        module.bias.fill_(-1)
    state = module.state_dict(prefix="linear.")  # an OrderedDict with _metadata
    state["whole"] = whole
    state["tied"] = whole
    state["rows"] = whole[2:4]  # the same storage, contiguous with an offset
    state["parameter"] = torch.nn.Parameter(torch.full((2, 2), 7.0))
    state["half"] = torch.tensor([1.0, -2.0], dtype=torch.float16)
    state["brain"] = torch.tensor([[3.0, -0.5]], dtype=torch.bfloat16)
    state["double"] = torch.tensor([0.1], dtype=torch.float64)
    state["ids"] = torch.tensor([[1], [-1]], dtype=torch.int64)
    state["ints"] = torch.tensor([70000], dtype=torch.int32)
    state["shorts"] = torch.tensor([-300], dtype=torch.int16)
    state["chars"] = torch.tensor([-3], dtype=torch.int8)
    state["bytes"] = torch.tensor([200], dtype=torch.uint8)
    state["mask"] = torch.tensor([True, False])
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 3)
    state["column"] = torch.arange(3.0).reshape(3, 1).t().t()  # odd strides in a dim of one
    return state


class Shell:
    def __reduce__(self):
        return (os.system, ("true",))


for protocol in (2, 3, 4, 5):
    torch.save(state_dict(), here / f"protocol{protocol}.bin", pickle_protocol=protocol)
torch.save({"turned": torch.arange(6.0).reshape(2, 3).t()}, here / "transposed.bin")
torch.save({"other": torch.ones(3)}, here / "other.bin")
torch.save({"shell": Shell()}, here / "shell.bin")
torch.save({"weight": torch.ones(3)}, here / "legacy.bin", _use_new_zipfile_serialization=False)
