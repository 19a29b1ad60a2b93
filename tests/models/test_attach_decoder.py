"""A transformers model with memories as a `Decoder`: the same numbers, in any pieces, and its folder."""

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.24")
from fwpkm.eval.ablate import carry_over, exchange, silence  # noqa: E402
from fwpkm.layers.fwpkm_config import FwPKMConfig  # noqa: E402
from fwpkm.models.attach import attention_window, memories  # noqa: E402
from fwpkm.models.attach.decoder import BaseDecoder  # noqa: E402
from fwpkm.models.attach.folder import load_base_decoder, make_base_decoder, save_base_decoder  # noqa: E402
from fwpkm.models.base_config import BaseConfig  # noqa: E402
from fwpkm.sessions.engine import fresh_cache  # noqa: E402
from fwpkm.testing.base_models import TINY, awaken, make_base  # noqa: E402
from fwpkm.testing.hf_models import make_tokens  # noqa: E402

transformers.utils.logging.disable_progress_bar()
MEMORY = FwPKMConfig(dim=32, **TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    make_base(dtype=torch.float32).save_pretrained(path)
    return path


def make_decoder(folder, **changes) -> BaseDecoder:
    config = BaseConfig(**{"path": str(folder), "layers": (1, 2), "memory": MEMORY, "window": 5, **changes})
    decoder = make_base_decoder(config)
    awaken(decoder.base)
    return decoder.eval()


@pytest.mark.parametrize("window", [None, 5])
@torch.no_grad()
def test_all_pieces_give_what_transformers_gives(folder, window):
    decoder, x = make_decoder(folder, window=window), make_tokens(T=20)
    expected = decoder.base(x).logits
    output = decoder(x)
    torch.testing.assert_close(output.logits, expected)
    cache, parts = fresh_cache(decoder, 2), []
    for piece in x.split((6, 1, 9, 4), dim=1):
        output = decoder(piece, cache, torch.ones_like(piece, dtype=torch.bool))
        parts.append(output.logits)
        cache = output.cache
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-4, atol=1e-4)
    assert cache.tokens_seen.tolist() == [20, 20]
    assert cache.blocks[0].memory is None
    assert cache.blocks[0].mixer.keys.shape[1] == (20 if window is None else 5)
    assert cache.blocks[2].memory.tokens_seen == (20, 20)


@torch.no_grad()
def test_texts_longer_than_the_base_was_trained_for_are_the_same_in_any_pieces(folder):
    decoder, x = make_decoder(folder), make_tokens(T=150)  # trained for 128
    whole = decoder(x, trace=True)
    cache, parts = fresh_cache(decoder, 2), []
    for piece in x.split((50, 40, 60), dim=1):
        output = decoder(piece, cache)
        parts.append(output.logits)
        cache = output.cache
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.logits, rtol=1e-3, atol=1e-3)
    assert whole.traces[2].gate.shape[1] == 150


@torch.no_grad()
def test_a_cache_is_a_value(folder):
    decoder, x = make_decoder(folder), make_tokens(T=12)
    cache = decoder(x).cache
    first, second = (decoder(x[:, :5], cache).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(decoder(x[:, :5], silence(cache)).logits, first)
    swapped = decoder(x[:, :5], exchange(cache)).logits
    assert not torch.allclose(swapped, first)
    assert torch.equal(decoder(x[:, :5], exchange(exchange(cache))).logits, first)
    moved = carry_over(cache, fresh_cache(decoder, 2))
    assert moved.tokens_seen.tolist() == [0, 0]
    assert not torch.allclose(decoder(x[:, :5], moved).logits, decoder(x[:, :5]).logits)


@torch.no_grad()
def test_traces_say_what_each_memory_did(folder):
    decoder, x = make_decoder(folder), make_tokens(T=9)
    traces = decoder(x, trace=True).traces
    assert [trace is None for trace in traces] == [True, False, False]
    assert traces[1].slots.shape == (2, 9, 1, 2)
    assert decoder(x).traces == ()


def test_only_what_is_trained_is_kept(folder):
    frozen, tuned = make_decoder(folder), make_decoder(folder, tuned_layers=(0,))
    assert all(".fwpkm." in name for name in frozen.state_dict())
    others = {name for name in tuned.state_dict() if ".fwpkm." not in name}
    assert others
    assert all(name.startswith("base.model.layers.0.") for name in others)
    assert frozen.lr_factors() == {}
    assert set(tuned.lr_factors().values()) == {0.1}
    assert len(tuned.lr_factors()) == len(others)


@pytest.mark.parametrize("tuned", [(), (1,)])
def test_a_folder_holds_what_was_trained(folder, tmp_path, tuned):
    decoder, x = make_decoder(folder, tuned_layers=tuned), make_tokens(T=12)
    if tuned:
        with torch.no_grad():
            decoder.base.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    save_base_decoder(tmp_path / "out", decoder)
    assert (tmp_path / "out" / "base").is_dir() == bool(tuned)
    again = load_base_decoder(tmp_path / "out")
    assert again.config == decoder.config
    assert attention_window(again.base).window == 5
    assert torch.equal(again(x).logits, decoder(x).logits)
    assert list(memories(again.base)) == [1, 2]


def test_what_it_cannot_do_is_refused(folder, tmp_path):
    decoder, x = make_decoder(folder), make_tokens(T=6)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[0, -1] = False
    with pytest.raises(ValueError, match="one by one"):
        decoder(x, None, mask)
    cache = decoder.train()(x).cache
    with pytest.raises(ValueError, match="cannot be continued"):
        decoder(x, cache)
    with pytest.raises(ValueError, match="numbers from 0 to 2, got 3"):
        make_decoder(folder, tuned_layers=(0, 3))
    with pytest.raises(FileNotFoundError, match=r"no base\.json"):
        load_base_decoder(tmp_path)
    (tmp_path / "base.json").write_text('{"base": {"path": "x"}}')
    with pytest.raises(ValueError, match="layers is missing"):
        load_base_decoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, "must name at least one"),
        ({"layers": (1, 1)}, "different numbers"),
        ({"window": 0}, "window must be at least 1"),
        ({"sinks": -1}, "sinks must be at least 0"),
        ({"tuned_layers": (1,), "dtype": "bfloat16"}, "need dtype='float32'"),
        ({"tuned_lr_factor": 0.0}, "must be above 0"),
    ],
)
def test_a_config_cannot_hold_nonsense(changes, message):
    with pytest.raises(ValueError, match=message):
        BaseConfig(**{"path": "x", "layers": (1,), "memory": MEMORY, **changes})
