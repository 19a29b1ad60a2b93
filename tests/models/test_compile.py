"""Under `torch.compile` a decoder computes the same, in graphs that end at memories and caches."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
"""Before 2.13 the compiler reads all fields of a state, and the number of streams with them; 2.8 ends graphs at more
places, and needs more than two lengths to make graphs for any."""


def compiled(what: str, module: str = "fwpkm.testing.compiled") -> dict[str, Any]:
    """Ask a process whose package is as users have it, without type checks."""
    command = [sys.executable, "-m", module, what]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found: dict[str, Any]) -> None:
    assert max(found["step_errors"]) < 1e-9
    assert found["stream_error"] < 1e-9
    _, second, longer, wider = found["step_graphs"]
    assert found["complaints"] == []
    if TORCH < (2, 11):
        return
    assert longer == second > 0, "any further length finds its graphs"
    assert wider == longer or TORCH < (2, 13), "any further number of streams does too"
    assert found["stream_graphs"][-1] == found["stream_graphs"][len(found["stream_graphs"]) // 2]
    assert all("fwpkm: which rows a memory keeps" in reason for reason in found["breaks"]), found["breaks"]


@pytest.mark.parametrize("system", ["mixed", "lact", "delta_fwmlp"])
def test_compiled_blocks_compute_the_same_without_a_complaint(system: str) -> None:
    check(compiled(system))


@pytest.mark.parametrize(("what", "num_graphs"), [("layers", 1), ("model", None)])
def test_a_transformers_model_with_memories_computes_the_same(what: str, num_graphs: int | None) -> None:
    pytest.importorskip("transformers", minversion="5.24")
    found = compiled(what, "fwpkm.testing.compiled_attached")
    assert max(found["step_errors"]) < 1e-9
    assert found["same_text"]
    assert found["complaints"] == []
    first, second, longer = found["step_graphs"]
    assert longer == second
    assert first == (num_graphs or first), "layers with a memory and without it share a graph"
    assert all("fwpkm: which rows a memory keeps" in reason for reason in found["breaks"]), found["breaks"]


def test_one_graph_for_all_is_refused_with_a_reason() -> None:
    layer = FwPKM(FwPKMConfig(dim=8, num_subkeys=4, key_dim=4, value_dim=4, topk=2, chunk_size=4))
    ask = torch.compile(lambda *args: layer._ask(*args)[0], backend="eager", fullgraph=True)
    given = (torch.randn(1, 6, 1, 4), torch.randn(1, 6, 4), torch.rand(1, 6))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="compile without fullgraph=True"):
        ask(*given, None, None, None)
