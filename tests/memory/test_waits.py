"""How often the host waits for the device: kernels queue up behind each other only where it does not."""

import pytest
import torch

from fwpkm.ops.backend import interprets_triton, use_backend
from fwpkm.testing.inputs import make_hidden, make_layer
from fwpkm.testing.waits import count_waits

# of Triton before 3.9, interpreted
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

NUMBERING, ROOM = "ops/slots/torch.py:number_cells", "memory/store.py:claim"
SORTED_RUNS = "ops/sparse.py:of"
"""How plain PyTorch adds up in a fixed order; kernels have no need of it."""


@pytest.fixture(params=["torch", "triton"])
def backend(request):
    if request.param == "triton" and not interprets_triton():
        pytest.skip("Triton is not installed: pip install 'fwpkm[gpu]'")
    torch.use_deterministic_algorithms(False)
    with use_backend(request.param):
        yield request.param


def waits(run):
    """Count those of the second time that `run` runs."""
    run()
    with count_waits() as found:
        run()
    return {place: count for place, count in found.items() if place != SORTED_RUNS}


def layer_and_hidden(**changes):
    layer = make_layer(dtype=torch.float32, num_heads=1, topk=2, chunk_size=3, **changes)
    return layer, make_hidden(layer, 2, 3 * 3 + 1)


@pytest.mark.parametrize("changes", [{}, {"table": "batch"}, {"initial_values": "learned"}], ids=str)
def test_a_training_step_waits_once_however_many_chunks_it_has(backend, changes):
    layer, x = layer_and_hidden(**changes)
    assert waits(lambda: layer(x)[0].sum().backward()) == {NUMBERING: 1}


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"table_dtype": "bfloat16"}], ids=str)
def test_prefill_waits_twice_a_chunk_a_read_never_and_a_write_twice(backend, changes):
    layer, x = layer_and_hidden(**changes)
    assert waits(lambda: layer(x)) == {NUMBERING: 3, ROOM: 3}
    _, state = layer(x)
    assert waits(lambda: layer(x[:, :1], state)) == {}
    almost = [
        layer(x[:, :2], layer(x)[1])[1] for _ in range(2)
    ]  # a state that is gone on from twice is copied
    assert waits(lambda: layer(x[:, :1], almost.pop())) == {NUMBERING: 1, ROOM: 1}


def test_what_waits_is_counted_once_and_what_does_not_is_not():
    from fwpkm.memory.tokens import stands_behind
    from fwpkm.ops.sparse import Runs

    with count_waits() as found:
        Runs.of(torch.zeros(2, 2, dtype=torch.int64))
        stands_behind(torch.ones(1, 2, dtype=torch.bool))
        torch.zeros(1).item()
    assert found == {SORTED_RUNS: 1, "memory/tokens.py:stands_behind": 1}


def test_indexing_by_a_mask_is_counted_and_tensors_are_afterwards_what_they_were():
    from fwpkm.layers.inputs import check_hidden

    mask = torch.tensor([[True, False]])
    with count_waits() as found:
        check_hidden("here", torch.zeros(1, 2, 4), 4, mask, refuse_nonfinite=True)
    assert found == {"layers/inputs.py:_refuse_nonfinite": 2}  # the mask, and whether all are finite
    assert torch.tensor([torch.tensor(1.0), torch.tensor(2.0)]).tolist() == [1.0, 2.0]
