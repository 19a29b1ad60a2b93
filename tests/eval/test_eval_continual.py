"""A, B and A again: held against plain forward passes, and what must not matter."""

from math import log

import numpy as np
import pytest
import torch
from eval_readers import make_tiny

from fwpkm.data.documents import TokenDocuments
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.ablate import carry_over
from fwpkm.eval.continual import (
    ContinualCell,
    ContinualResult,
    ContinualSettings,
    measure_continual,
)
from fwpkm.eval.perplexity import PerplexitySettings, measure_perplexity
from fwpkm.eval.text import open_documents
from fwpkm.models.decoder import Decoder
from fwpkm.nested import from_mapping
from fwpkm.report.continual import continual_curves, continual_tables
from fwpkm.testing.results import make_origin
from fwpkm.testing.systems import make_system

L = 23
PROSE = "It was a dark and stormy night; the rain fell in torrents, except at times. "
CODE = "def f(x):\n    return [x ** 2 for x in range(10)]\n"


def documents(text: str) -> TokenDocuments:
    return TokenDocuments.from_texts([text], ByteTokenizer())


def measure(model: Decoder, prose: str = PROSE, **settings: object) -> dict[tuple[str, str], ContinualCell]:
    chosen = ContinualSettings(**{"length": L, "samples": 1, **settings})
    cells = measure_continual(model, documents(prose), documents(CODE), chosen)
    return {(cell.phase, cell.condition): cell for cell in cells}


@torch.no_grad()
def cost(model: Decoder, text: str, cache=None):
    """Mean -log p of all bytes but the first by the definition, and the memory after all but the last."""
    ids = torch.tensor([list(text.encode())])
    output = model(ids[:, :-1], cache)
    p = output.logits.double().log_softmax(-1)
    empty = model(ids[:, :0]).cache
    return float(-p[0].gather(-1, ids[0, 1:, None]).mean()), carry_over(output.cache.flush(), empty)


@pytest.mark.parametrize("again", ["continued", "repeated"])
def test_every_cell_is_what_plain_forward_passes_give(again: str) -> None:
    model = make_tiny()
    cells = measure(model, again=again)
    first, other = PROSE[:L], CODE[:L]
    third = PROSE[L : 2 * L] if again == "continued" else first
    fresh_first, after_first = cost(model, first)
    carried_other, after_other = cost(model, other, after_first)
    expected = {
        ("first", "fresh"): fresh_first,
        ("other", "fresh"): cost(model, other)[0],
        ("other", "carried"): carried_other,
        ("again", "fresh"): cost(model, third)[0],
        ("again", "carried"): cost(model, third, after_other)[0],
        ("again", "uninterrupted"): cost(model, third, after_first)[0],
    }
    for place, nats in expected.items():
        assert cells[place].nats == pytest.approx(nats, rel=1e-5), place
    assert len({round(nats, 6) for nats in expected.values()}) >= 5


def test_a_silent_memory_is_that_of_perplexity() -> None:
    model = make_tiny()
    settings = PerplexitySettings(length=L, max_runs=1, memory="memory_off")
    bins, runs = measure_perplexity(model, ByteTokenizer(), documents(CODE[:L]), settings)
    cell = measure(model)["other", "memory_off"]
    assert cell.nats == pytest.approx(runs[0].nats, rel=1e-5)
    assert [b.nats for b in cell.bins] == pytest.approx([b.nats for b in bins], rel=1e-5)
    assert sum(b.tokens for b in cell.bins) == L - 1


def test_without_a_memory_there_is_nothing_to_carry() -> None:
    model = Decoder(make_system("full", vocab_size=259)).eval()
    assert list(measure(model)) == [("first", "fresh"), ("other", "fresh"), ("again", "fresh")]


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 2}, {"piece": 5}])
def test_batches_and_pieces_change_nothing(change: dict[str, int]) -> None:
    model = make_tiny()
    common = {"prose": PROSE * 2, "length": 12, "samples": 3}
    plain, other = measure(model, **common), measure(model, **common, **change)
    assert list(plain) == list(other)
    for place, cell in plain.items():
        assert len(cell.samples) == 3
        assert cell.samples == pytest.approx(other[place].samples, rel=1e-4)


def test_streams_read_texts_of_their_own() -> None:
    cells = measure(make_tiny(), prose=PROSE * 2, length=12, samples=3)
    assert len(set(cells["first", "fresh"].samples)) == 3
    assert len(set(cells["other", "fresh"].samples)) == 3


def test_a_memory_that_reads_the_same_again_knows_it_better() -> None:
    """Without any training: what was written where a query led is found there once more."""
    torch.manual_seed(0)
    model = make_tiny()
    again = measure(model, again="repeated")
    assert abs(again["again", "uninterrupted"].nats - again["first", "fresh"].nats) > 1e-3


def test_texts_that_are_too_short_are_refused_with_their_length() -> None:
    with pytest.raises(ValueError, match="first domain must hold a document of 100 tokens, got 76 at most"):
        measure(make_tiny(), length=50)
    with pytest.raises(ValueError, match="other domain must hold a document of 60 tokens, got 49 at most"):
        measure(make_tiny(), prose=PROSE * 2, length=60)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 1, "samples": 0}, "samples must be at least 1, got samples=0; length must be at least 2"),
        ({"again": "repeted"}, "did you mean 'repeated'"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(ContinualSettings, fields)


def made_up(**nats: tuple[float, ...]) -> ContinualResult:
    cells = [
        ContinualCell(
            phase=place.split("_", 1)[0], condition=place.split("_", 1)[1], bins=(), samples=samples
        )
        for place, samples in nats.items()
    ]
    return ContinualResult(origin=make_origin(), settings=ContinualSettings(), cells=tuple(cells))


def test_gains_are_paired_differences_with_their_standard_error() -> None:
    result = made_up(again_fresh=(3.0, 5.0), again_carried=(2.0, 4.5), other_fresh=(1.0, 1.0))
    assert result.gain("again", "carried") == pytest.approx((0.75, 0.25))
    assert result.gain("other", "carried") is None
    assert made_up(again_fresh=(3.0,), again_carried=(2.0,)).gain("again", "carried") == (1.0, None)


def test_what_was_retained_is_a_share_of_what_there_was_to_retain() -> None:
    costs = {"first_fresh": (4.0,), "other_fresh": (3.0,), "other_carried": (3.1,), "again_fresh": (2.0,)}
    _, gains = continual_tables(made_up(**costs, again_carried=(1.75,), again_uninterrupted=(1.0,)))
    assert gains.rows[-1][1] == "25%"
    assert gains.rows[0][1] == f"{1 / log(2):+.4f}"
    _, gains = continual_tables(made_up(**costs, again_carried=(1.75,), again_uninterrupted=(2.5,)))
    assert "%" not in gains.rows[-1][1]


def test_charts_share_their_height_and_name_their_phase() -> None:
    cells = tuple(measure(make_tiny()).values())
    result = ContinualResult(origin=make_origin(), settings=ContinualSettings(length=L), cells=cells)
    charts = list(continual_curves(result))
    assert [title.split(": ")[1] for title, _ in charts] == [
        "1. some text",
        "2. python",
        "3. some text again",
    ]
    lines, _ = continual_tables(result)
    bits = [b.nats / log(2) for cell in cells for b in cell.bins]
    for _, drawn in charts:
        assert f">{min(bits):.3g}<" in drawn
        assert f">{max(bits):.3g}<" in drawn
    assert len(lines.rows) == 3 * 6
    assert f"{cells[0].nats / log(2):.4f}" in lines.rows[5]


def test_python_itself_is_a_domain() -> None:
    found = open_documents("python", ByteTokenizer())
    names = [found.name(i) for i in range(len(found))]
    assert "argparse.py" in names
    assert names == sorted(names)
    assert int(np.min(found.lengths)) > 30_000
    assert b"import " in bytes(found[0][:-1].astype(np.uint8))
