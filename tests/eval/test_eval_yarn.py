"""YaRN at evaluation. The rotation itself is held against transformers in tests/layers."""

from dataclasses import replace

import pytest
import torch

from fwpkm.cli.main import main
from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.eval.files import load_result
from fwpkm.eval.yarn import stretch, yarn_factor
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import save_model
from fwpkm.testing.systems import make_system


def make_full(**rope: object) -> Decoder:
    torch.manual_seed(0)
    config = make_system("full", vocab_size=259)
    rope = replace(config.attention.rope, **rope)
    return Decoder(replace(config, attention=replace(config.attention, rope=rope))).eval()


def test_a_stretched_model_is_one_built_with_yarn_and_the_same_weights() -> None:
    model, ids = make_full(), torch.randint(259, (1, 40))
    built = make_full(scaling="yarn", factor=2.5, original_length=16)
    stretched = stretch(model, trained=16, length=40)
    assert torch.equal(stretched(ids).logits, built(ids).logits)
    assert (stretched(ids).logits - model(ids).logits).abs().max() > 1e-3
    assert (yarn_factor(model), yarn_factor(stretched)) == (1.0, 2.5)


def test_no_number_is_copied() -> None:
    model = make_full()
    stretched = stretch(model, trained=16, length=40)
    shared = zip(model.parameters(), stretched.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in shared)


def test_within_the_trained_length_nothing_changes() -> None:
    model = make_full()
    assert stretch(model, trained=40, length=40) is model


@pytest.mark.parametrize(
    ("model", "trained", "message"),
    [
        (lambda: Decoder(make_system("sliding_fwpkm")), 16, "needs a layer of full attention, got mixers="),
        (lambda: make_full(scaling="linear", factor=2.0), 16, "must be as trained, got scaling='linear'"),
        (make_full, 0, "got trained=0 and length=40"),
    ],
)
def test_what_cannot_be_stretched_is_refused(model, trained: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stretch(model(), trained=trained, length=40)


def test_the_command_stretches_to_its_longest_document_and_says_so(tmp_path) -> None:
    folder = tmp_path / "model"
    save_model(folder, make_full())
    ByteTokenizer().save(folder)
    losses = []
    for extra, factor in (([], 1.0), (["--yarn-from", "16"], 4.0)):
        out = tmp_path / "result.json"
        short = ["--length", "64", "--max-runs", "1", "--out", str(out)]
        assert main(["eval", "perplexity", str(folder), *short, *extra]) == 0
        result = load_result(out)
        assert result.origin.yarn_factor == factor
        losses.append(result.nats)
    assert losses[0] != losses[1]
