"""The norms, gate and mixture of a few tokens in compiled calls, against the layer's own definition."""

import pytest
import torch

from fwpkm.layers.frame import normalise
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.norm import RMSNorm
from fwpkm.ops.answer.frame import mixed_units, normalised, scaled_units
from fwpkm.ops.backend import use_backend


def norm_of(width, eps=1e-5):
    norm = RMSNorm(width, eps=eps).double()
    torch.nn.init.normal_(norm.weight)
    return norm


def test_scaled_units_are_those_of_the_norms():
    x, norms = torch.randn(2, 3, 7).double(), [norm_of(7) for _ in range(3)]
    with torch.no_grad():
        got = scaled_units(x, 1e-5, *(norm.weight for norm in norms))
        torch.testing.assert_close(got, [norm(x) for norm in norms])


@pytest.mark.parametrize("kind", ["none", "l2", "zscore"])
def test_values_are_normalised_as_defined_constant_ones_too(kind):
    v = torch.randn(2, 3, 7).double()
    v[0, 1] = 0.25  # constant: a z-score of zeros
    expected = v if kind == "none" else normalise(v, kind)
    torch.testing.assert_close(normalised(v, kind), expected)


@pytest.mark.parametrize("gated", [True, False])
def test_mixtures_are_scaled_as_defined(gated):
    v_hat, v, norm = torch.randn(2, 3, 7).double(), torch.randn(2, 3, 7).double(), norm_of(7)
    gate = torch.rand(2, 3).double() if gated else None
    with torch.no_grad():
        expected = norm(v_hat + v if gate is None else v + gate[..., None] * (v_hat - v))
        torch.testing.assert_close(mixed_units(v_hat, v, gate, 1e-5, norm.weight), expected)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"gate": False, "gate_weighted_loss": False},
        {"value_norm": "l2"},
        {"bias": True},
        {"query_norm": "zscore", "num_heads": 2},
        {"query_norm": "l2", "query_norm_over": "all", "num_heads": 2},
    ],
)
def test_a_layer_answers_single_tokens_the_same_by_every_backend(change):
    config = FwPKMConfig(dim=6, num_subkeys=8, key_dim=8, value_dim=5, topk=3, chunk_size=4, **change)
    layer, x = FwPKM(config).double(), torch.randn(2, 11, 6).double()
    torch.nn.init.normal_(layer.q_norm.weight, std=0.3)
    answers = []
    for backend in ("numba", "torch"):
        with use_backend(backend), torch.no_grad():
            state, parts = None, []
            for t in range(x.shape[1]):
                y, state = layer(x[:, t : t + 1], state)
                parts.append(y)
            answers.append(torch.cat(parts, dim=1))
    torch.testing.assert_close(*answers)


@pytest.fixture
def process_group():
    """Be the only process of a group."""
    distributed = pytest.importorskip("torch.distributed")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def weights_of_norms_after_an_answer():
    layer = FwPKM(FwPKMConfig(dim=6, num_subkeys=8, key_dim=8, value_dim=5, topk=3, chunk_size=4))
    with torch.no_grad():
        layer(torch.randn(1, 1, 6))
    norms = [module.weight for module in layer.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 4
    return [weight.untyped_storage().resizable() for weight in norms]


def test_weights_can_be_freed_after_an_answer_where_processes_share_a_model(process_group):
    """FSDP2 gives gathered weights' memory back, which is no longer possible once NumPy has looked at it."""
    assert all(weights_of_norms_after_an_answer())


def test_one_process_alone_copies_no_weights():
    assert not any(weights_of_norms_after_an_answer())
