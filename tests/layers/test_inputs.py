"""What no layer can take is refused in words: shapes, kinds of numbers, states of others."""

import re

import jaxtyping
import pytest
import torch

from fwpkm.layers.attention import Attention
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.lact import LaCT
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import SYSTEMS, make_system

KINDS = (Attention, FastWeightMLP, FwPKM, GatedDeltaNet, LaCT)
DIM = 16


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Let what is given reach the layers, which in tests is held against the hints before."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def layers():
    """Give one layer of every kind that is in the systems, each with a state of its own."""
    found = {}
    for system in SYSTEMS:
        config = make_system(system)
        assert config.dim == DIM
        for module in Decoder(config).modules():
            if type(module) in KINDS:
                found.setdefault(type(module), module)
    assert set(found) == set(KINDS)
    return [pytest.param(layer, id=kind.__name__) for kind, layer in found.items()]


@pytest.mark.parametrize("layer", layers())
@pytest.mark.parametrize("shape", [(9, DIM), (DIM,), (2, 9, DIM + 1), (1, 2, 9, DIM), (2, 9, 0)], ids=str)
def test_other_shapes(layer, shape):
    message = rf"{type(layer).__name__}: x must be \[B, T, dim={DIM}\], got x {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(shape))


@pytest.mark.parametrize("layer", layers())
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_other_numbers(layer, dtype):
    message = f"{type(layer).__name__}: x must hold floating-point numbers, got {dtype}"
    with pytest.raises(ValueError, match=message):
        layer(torch.ones(2, 9, DIM, dtype=dtype))


@pytest.mark.parametrize("layer", layers())
@pytest.mark.parametrize(
    "mask", [torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 9), torch.ones(9, dtype=torch.bool)], ids=str
)
def test_other_masks(layer, mask):
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}: mask must be bool \[B, T\] = \[2, 9\]"):
        layer(torch.randn(2, 9, DIM), mask=mask)


@pytest.mark.parametrize("layer", layers())
def test_states_of_others(layer):
    x = torch.randn(2, 9, DIM)
    own = type(layer(x)[1]).__name__
    states = [other.values[0](x)[1] for other in layers() if type(other.values[0]) is not type(layer)]
    for state in (*states, "memory", ()):
        message = f"{type(layer).__name__}: state must be a {own} or None, got {type(state).__name__}"
        with pytest.raises(TypeError, match=f"{message}$"):
            layer(x, state)


@pytest.mark.parametrize("layer", layers())
def test_a_mask_in_the_place_of_a_state(layer):
    with pytest.raises(TypeError, match=r"state must be a .* or None, got Tensor; name a mask: mask=..."):
        layer(torch.randn(2, 9, DIM), torch.ones(2, 9, dtype=torch.bool))


def test_a_decoder_says_it_of_tokens_and_caches():
    model, x = Decoder(make_system("mixed")), torch.randint(40, (2, 9))
    for tokens in (x[0], x[..., None], x.float()):
        got = rf"{re.escape(str(tuple(tokens.shape)))} of {tokens.dtype}"
        with pytest.raises(
            ValueError, match=rf"Decoder: input_ids must be whole numbers \[B, T\], got {got}"
        ):
            model(tokens)
    with pytest.raises(
        TypeError, match="Decoder: cache must be a DecoderCache or None, got Tensor; name a mask"
    ):
        model(x, torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(TypeError, match="Decoder: cache must be a DecoderCache or None, got tuple"):
        model(x, ())
    with pytest.raises(TypeError, match="Attention: state must be a KVState or None, got GatedDeltaNetState"):
        Decoder(make_system("full"))(x, model(x).cache)
