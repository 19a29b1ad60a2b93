"""A memory file written on one kind of device goes on on the other."""

from pathlib import Path

import pytest
import torch

from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import SYSTEMS, make_system

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("system", SYSTEMS)
@torch.no_grad()
def test_a_memory_goes_to_the_other_device_and_back(
    tmp_path: Path, system: str, first: str, second: str
) -> None:
    here = Decoder(make_system(system, initializer_range=0.1)).double()
    there = Decoder(here.config).double()
    there.load_state_dict(here.state_dict())
    here, there = here.to(first).eval(), there.to(second).eval()
    before, after = torch.randint(40, (2, 17)), torch.randint(40, (2, 9))
    cache = here(before.to(first)).cache
    cache.save(tmp_path / "a.fwpkm", here)
    moved = DecoderCache.load(tmp_path / "a.fwpkm", there)
    assert moved.tokens_seen.device.type == second
    expected = here(after.to(first), cache).logits.cpu()
    torch.testing.assert_close(there(after.to(second), moved).logits.cpu(), expected, rtol=1e-9, atol=1e-9)
    moved.save(tmp_path / "b.fwpkm", there)
    back = DecoderCache.load(tmp_path / "b.fwpkm", here)
    assert torch.equal(here(after.to(first), back).logits.cpu(), expected)
