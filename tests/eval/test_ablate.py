"""What is left of a memory that is silent, frozen, exchanged or carried over."""

import pytest
import torch

from fwpkm.eval.ablate import carry_over, exchange, has_memory, shares_memory, silence
from fwpkm.models.decoder import Decoder
from fwpkm.sessions.engine import fresh_cache
from fwpkm.testing.systems import SYSTEMS, make_system


def make(system: str) -> Decoder:
    torch.manual_seed(0)
    return Decoder(make_system(system)).eval()


def tokens(B: int, T: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(40, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("system", ["sliding_fwpkm", "delta_fwmlp", "mixed"])
@torch.no_grad()
def test_a_silent_memory_retrieves_nothing_whatever_is_read(system: str) -> None:
    model = make(system)
    layer = next(block.memory for block in model.blocks if block.memory is not None)
    place = next(i for i, block in enumerate(model.blocks) if block.memory is not None)
    cache = silence(model(tokens(2, 30)).cache)
    x = torch.randn(2, 17, 16)
    state = cache.blocks[place].memory
    for _ in range(2):  # the second time after 17 tokens that would have been written
        y, state = layer(x, state)
        _, v, gate = layer.project(x)
        assert torch.allclose(y, layer.fuse(torch.zeros_like(v), v, gate, x, None), atol=1e-6)


@pytest.mark.parametrize("system", ["sliding_fwpkm", "delta_fwmlp", "mixed"])
@torch.no_grad()
def test_exchanging_swaps_the_memories_and_nothing_else(system: str) -> None:
    model, ids = make(system), tokens(4, 40)
    cache = model(ids).cache
    swapped, asked = exchange(cache), tokens(4, 9, seed=1)
    for block, own in zip(swapped.blocks, cache.blocks, strict=True):
        assert block.mixer is own.mixer
        assert block.conv is own.conv
    assert not torch.allclose(model(asked, swapped).logits, model(asked, cache).logits, atol=1e-3)
    again = exchange(swapped)
    assert torch.allclose(model(asked, again).logits, model(asked, cache).logits, atol=1e-5)


@torch.no_grad()
def test_each_stream_gets_its_neighbours_memory() -> None:
    model = make("sliding_fwpkm")
    first, second = tokens(1, 40, seed=1), tokens(1, 40, seed=2)
    swapped = exchange(model(torch.cat([first, second])).cache)
    one, other = model(first).cache, model(second).cache
    mixed = carry_over(other, one)
    asked = tokens(1, 9, seed=3)
    expected = model(asked, mixed).logits
    assert torch.allclose(model(asked.expand(2, -1), swapped).logits[:1], expected, atol=1e-5)


def test_an_odd_number_of_streams_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="must be even, got 3"):
        exchange(make("sliding_fwpkm")(tokens(3, 5)).cache)


@torch.no_grad()
def test_what_is_carried_over_is_the_memory_alone() -> None:
    model = make("mixed")
    cache = model(tokens(2, 40)).cache
    carried = carry_over(cache, fresh_cache(model, 2))
    assert carried.tokens_seen.tolist() == [0, 0]
    assert [b.memory for b in carried.blocks] == [b.memory for b in cache.blocks]
    asked = tokens(2, 9, seed=1)
    fresh, kept = model(asked).logits, model(asked, carried).logits
    assert not torch.allclose(fresh, kept, atol=1e-3)


@pytest.mark.parametrize("system", SYSTEMS)
def test_models_with_a_memory_are_known(system: str) -> None:
    assert has_memory(make(system)) == (system not in ("full", "lact"))
    assert not shares_memory(make(system))
