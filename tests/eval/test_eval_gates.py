"""Gates by kind of token and by position."""

import numpy as np
import pytest
import torch
from eval_readers import make_maker, make_tiny

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.gates import KINDS, GateSettings, measure_gates, token_kinds
from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system


def text_of_kind(kind: str) -> str:
    sample = make_maker("multi_query").sample(length=600, depth=0.5, seed=1)
    return ByteTokenizer().decode(sample.tokens[token_kinds(sample) == KINDS.index(kind)])


def test_every_token_is_of_the_kind_that_it_belongs_to() -> None:
    assert text_of_kind("needle").count(" is ") == 4
    assert text_of_kind("question").count("The secret number for ID-") == 4
    assert not any(c.isdigit() for c in text_of_kind("text"))
    answers = text_of_kind("answer").split()
    assert sorted(answers) == sorted(
        s.split()[0] for s in text_of_kind("needle").replace(".", " ").split(" is ")[1:]
    )


@torch.no_grad()
def test_gates_are_those_of_the_trace() -> None:
    model, maker = make_tiny(), make_maker()
    settings = GateSettings(length=280, samples=2)
    cells, positions = measure_gates(model, maker, settings)
    assert [(c.layer, c.kind) for c in cells] == [(layer, kind) for layer in (0, 2) for kind in KINDS]
    for layer in (0, 2):
        own = [c for c in cells if c.layer == layer]
        places = [p for p in positions if p.layer == layer]
        assert sum(c.tokens for c in own) == sum(p.tokens for p in places) == 2 * (280 + 7)
        mean = sum(c.mean * c.tokens for c in own)
        assert mean == pytest.approx(sum(p.mean * p.tokens for p in places))
        assert all(sum(c.histogram) == pytest.approx(1) for c in own)


@torch.no_grad()
def test_an_open_gate_is_seen_as_one() -> None:
    model = make_tiny()
    layer = model.blocks[2].memory
    layer.gate_proj.weight.zero_()
    layer.gate_proj.bias.fill_(20.0)
    cells, _ = measure_gates(model, make_maker(), GateSettings(length=280, samples=1))
    for cell in (c for c in cells if c.layer == 2):
        assert cell.mean == pytest.approx(1, abs=1e-6)
        assert cell.std == pytest.approx(0, abs=1e-6)
        assert np.argmax(cell.histogram) == 9


def test_batches_change_nothing() -> None:
    model = make_tiny()
    one, other = (
        measure_gates(model, make_maker(), GateSettings(length=280, samples=2, batch_size=b))[0]
        for b in (1, 2)
    )
    assert [c.mean for c in one] == pytest.approx([c.mean for c in other], rel=1e-4)


def test_a_model_without_gates_is_refused() -> None:
    with pytest.raises(ValueError, match="no memory of its own"):
        measure_gates(Decoder(make_system("full", vocab_size=259)), make_maker(), GateSettings(length=300))
    ungated = make_system("sliding_fwpkm", vocab_size=259).to_dict()
    ungated["fwpkm"]["gate"] = False
    ungated["fwpkm"]["gate_weighted_loss"] = False
    with pytest.raises(ValueError, match="no memory of the model has a gate"):
        measure_gates(
            Decoder(type(make_tiny().config).from_dict(ungated)), make_maker(), GateSettings(length=300)
        )


@pytest.mark.parametrize("bad", [{"length": 0}, {"samples": 0}, {"batch_size": 0}])
def test_settings_are_checked(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least"):
        GateSettings(**bad)
