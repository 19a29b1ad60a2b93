"""A decoded token as a GPU gets it: how many launches it is, and that these give what plain PyTorch does."""

import pytest
import torch

from fwpkm.layers.step_graph import StepGraph
from fwpkm.ops.backend import interprets_triton, use_backend, why_no_triton
from fwpkm.testing.inputs import make_hidden, make_layer

HAS_GPU = why_no_triton() is None and torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU and not interprets_triton() else "cpu"
needs_interpreter = pytest.mark.skipif(
    not interprets_triton(), reason="Triton's interpreter is not asked for"
)
pytestmark = [
    pytest.mark.skipif(not interprets_triton() and DEVICE == "cpu", reason="nothing runs Triton's kernels"),
    # of Triton before 3.9, interpreted
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]
PRODUCTS, STATE = {"addmm": 3}, {"copy_": 2, "exp": 1}
"""Queries, values and the output; the token and the temperature go to where a graph reads them."""
MEMORY = {"rate_kernel": 1, "answer_kernel": 1, "put_token_kernel": 1}
AROUND = {"gated_units_kernel": 1, "normalise_kernel": 1, "mix_kernel": 1}


def launches_of_a_token(layer):
    """Count those of a step that is played again and again."""
    x = make_hidden(layer, 2, 3)
    from fwpkm.testing.launches_triton import count_launches

    with use_backend("triton"), torch.no_grad():
        graph = StepGraph(layer, layer.initial_state(2))
        for t in range(2):
            graph(x[:, t : t + 1])
        assert graph.steps_left
        with count_launches() as found:
            graph(x[:, 2:])
    return dict(found)


@needs_interpreter
@pytest.mark.parametrize("changes", [{}, {"gate_logits": 3}, {"table": "batch"}], ids=str)
def test_a_token_is_a_dozen_launches(changes):
    layer = make_layer(num_heads=1, topk=2, chunk_size=8, bias=True, **changes)
    assert launches_of_a_token(layer) == {**PRODUCTS, **STATE, **MEMORY, **AROUND}


@needs_interpreter
def test_hooks_on_the_gate_cost_what_they_look_at():
    layer, seen = make_layer(num_heads=1, topk=2, chunk_size=8), []
    layer.gate_proj.register_forward_hook(lambda module, args, out: seen.append(out))
    found = launches_of_a_token(layer)
    assert seen
    assert "gated_units_kernel" not in found
    assert found["units_kernel"] == 1


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_heads": 3, "topk": 5, "query_norm": "zscore"},
        {"gate": False, "gate_weighted_loss": False, "value_norm": "l2"},
        {"gate_weighted_loss": False, "score": "dot"},
        {"gate_logits": 3, "bias": True, "border": "dropped"},
        {"lookahead": 0},
    ],
    ids=str,
)
def test_tokens_one_by_one_are_those_of_plain_pytorch(changes):
    layer = make_layer(**{"num_heads": 1, "topk": 2, "chunk_size": 5, **changes}).to(DEVICE)
    for name, p in layer.named_parameters():
        if "norm" in name or name == "gate_proj.bias":
            torch.nn.init.normal_(p, std=0.3)
    x = make_hidden(layer, 2, 14)
    mask = (torch.arange(3) < torch.tensor([[3], [1]])).to(DEVICE)  # streams of different lengths
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend):
            _, state = layer(x[:, :3], None, mask)
            graph = StepGraph(layer, state)
            answers = [graph(x[:, t : t + 1]).clone() for t in range(3, 14)]
            later, state = layer(x[:, :7], graph.state)
        results.append((torch.cat(answers, dim=1), later, state.table.dense(), state.waiting.packed))
    torch.testing.assert_close(*results)
