"""Perplexity against a plain forward pass, and what must not matter."""

from math import log

import numpy as np
import pytest
import torch
from eval_readers import make_tiny

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.perplexity import (
    PerplexityResult,
    PerplexitySettings,
    PositionBin,
    RunLoss,
    cut_runs,
    measure_perplexity,
)
from fwpkm.eval.positions import bin_of, octaves
from fwpkm.models.decoder import Decoder
from fwpkm.testing.results import make_origin
from fwpkm.testing.systems import make_system

TEXTS = ["It was a dark and stormy night; the rain fell in torrents.", "Call me.", "A" * 70, "x"]


def documents() -> TokenDocuments:
    return TokenDocuments.from_texts(TEXTS, ByteTokenizer(), names=["dark", "call", "a", "x"])


def measure(model: Decoder, **settings: object) -> tuple[tuple[PositionBin, ...], tuple[RunLoss, ...]]:
    chosen = PerplexitySettings(**{"length": 100, **settings})
    return measure_perplexity(model, ByteTokenizer(), documents(), chosen)


@torch.no_grad()
def plain_costs(model: Decoder, text: str) -> np.ndarray:
    """-log p of each byte but the first, by the definition."""
    ids = torch.tensor([list(text.encode())])
    p = model(ids).logits.double().log_softmax(-1)
    return -p[0, :-1].gather(-1, ids[0, 1:, None]).squeeze(-1).numpy()


def test_losses_are_those_of_a_plain_forward_pass() -> None:
    model = make_tiny()
    bins, runs = measure(model)
    costs = [plain_costs(model, text) for text in TEXTS[:3]]
    assert [run.name for run in runs] == ["dark", "call", "a"]
    assert [run.nats for run in runs] == pytest.approx([c.mean() for c in costs], rel=1e-5)
    for b in bins:
        own = np.concatenate([c[max(b.start, 1) - 1 : b.stop - 1] for c in costs])
        assert b.tokens == len(own)
        assert b.nats == pytest.approx(own.mean(), rel=1e-5)
    assert [b.start for b in bins] == [1, 2, 4, 8, 16, 32, 64]
    assert bins[-1].stop == 70


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 2}, {"piece": 7}, {"piece": 1}])
def test_batches_and_pieces_change_nothing(change: dict[str, int]) -> None:
    model = make_tiny()
    (bins, _), (other, _) = measure(model), measure(model, **change)
    assert [b.nats for b in bins] == pytest.approx([b.nats for b in other], rel=1e-4)


def test_no_loss_depends_on_a_later_token() -> None:
    model = make_tiny()
    settings = PerplexitySettings(length=100)
    long, short = (
        measure_perplexity(model, ByteTokenizer(), TokenDocuments.from_texts([t], ByteTokenizer()), settings)[
            0
        ]
        for t in (TEXTS[0], TEXTS[0][:17] + "?????")
    )
    assert [b.nats for b in long[:4]] == pytest.approx([b.nats for b in short[:4]], rel=1e-5)


def test_a_memory_taken_away_changes_losses_only_where_it_was_used() -> None:
    model = make_tiny()
    normal, off, frozen = (
        [b.nats for b in measure(model, memory=m)[0]] for m in ("normal", "memory_off", "frozen_memory")
    )
    assert normal[:2] == pytest.approx(frozen[:2], rel=1e-5)  # nothing is written before the sixth token
    assert normal[-1] != pytest.approx(frozen[-1], rel=1e-3)
    assert normal[0] != pytest.approx(off[0], rel=1e-3)


def test_bits_per_byte_count_bytes_of_text() -> None:
    _, runs = measure(make_tiny())
    assert [run.num_bytes for run in runs] == [len(text) - 1 for text in TEXTS[:3]]
    settings, run = PerplexitySettings(), RunLoss(name="r", tokens=10, num_bytes=40, nats=2 * log(2))
    result = PerplexityResult(origin=make_origin(), settings=settings, bins=(), runs=(run,))
    assert result.bits_per_byte == pytest.approx(0.5)
    assert result.nats == pytest.approx(2 * log(2))


def test_runs_are_cut_inside_documents_and_spread_over_them() -> None:
    runs = cut_runs(documents(), 30, 99)
    texts = [ByteTokenizer().decode(run.tokens) for run in runs]
    assert texts == [TEXTS[0][:30], TEXTS[0][30:], TEXTS[1], TEXTS[2][:30], TEXTS[2][30:60], TEXTS[2][60:]]
    assert [run.name for run in runs[:2]] == ["dark", "dark from 30"]
    assert [run.name for run in cut_runs(documents(), 30, 2)] == ["dark", "a from 60"]


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        cut_runs(TokenDocuments.from_texts(["x"], ByteTokenizer()), 10, 3)


def test_a_model_without_memory_has_none_to_take_away() -> None:
    with pytest.raises(ValueError, match="no memory of its own, got memory='memory_off'"):
        measure(Decoder(make_system("full", vocab_size=259)), memory="memory_off")


@pytest.mark.parametrize("bad", [{"length": 1}, {"max_runs": 0}, {"batch_size": 0}, {"piece": 0}])
def test_settings_are_checked(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least"):
        PerplexitySettings(**bad)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 1000])
def test_every_position_has_one_bin(length: int) -> None:
    borders, places = octaves(length), np.arange(length)
    which = bin_of(places, borders)
    assert borders[0] == 0
    assert borders[-1] == length
    assert (np.diff(borders) > 0).all()
    assert (borders[which] <= places).all()
    assert (places < borders[which + 1]).all()
