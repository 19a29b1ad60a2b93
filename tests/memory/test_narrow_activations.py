"""Queries, values and gates in bfloat16 over a memory in float32, on every backend."""

import pytest
import torch

from fwpkm.ops.backend import interprets_triton, use_backend
from fwpkm.testing.inputs import make_layer

# of Triton before 3.9, interpreted
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")


@pytest.mark.parametrize("backend", ["torch", "numba", "triton"])
@pytest.mark.parametrize(
    "changes", [{}, {"table": "batch", "write_rule": "release"}, {"key_loss": "memory"}], ids=str
)
def test_narrow_activations_give_what_the_same_numbers_in_the_memorys_precision_do(backend, changes):
    if backend == "triton" and not interprets_triton():
        pytest.skip("Triton is not installed: pip install 'fwpkm[gpu]'")
    layer, results = make_layer(dtype=torch.float32, **changes), []
    narrow = [x.to(torch.bfloat16) for x in advance_inputs(T=11)]
    with use_backend(backend):
        for given in (narrow, [x.float() for x in narrow]):
            inputs = [x.requires_grad_() for x in given]
            out, state = layer.initial_state(2).advance(*inputs)
            grads = torch.autograd.grad(out.sin().sum() + state.table.dense().cos().sum(), inputs)
            with torch.no_grad():
                read, after = layer.initial_state(2).advance(*(x[:, :2] for x in inputs))
                rest, after = after.advance(*(x[:, 2:] for x in inputs))
            results.append((out, state.table.dense(), read, rest, after.table.dense(), after.waiting.packed))
            results[-1] += tuple(g.bfloat16() for g in grads)
    torch.testing.assert_close(*results)


def advance_inputs(*, T):
    """Draw queries, values and gates for two streams of `make_layer`."""
    draw = torch.Generator().manual_seed(3)
    shapes = (2, T, 2, 6), (2, T, 8)
    return [*(torch.randn(shape, generator=draw) for shape in shapes), torch.rand(2, T, generator=draw)]


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_activations_wider_than_the_memory_are_refused(backend):
    layer = make_layer(dtype=torch.float32)
    with use_backend(backend), pytest.raises((ValueError, RuntimeError), match=r"wider than|[Ff]loat"):
        layer.initial_state(2).advance(*(x.double() for x in advance_inputs(T=5)))
