"""Any split of a step gives the same loss and gradients, and carried memories are what a longer sequence has."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import MakeRun, losses, make_documents, make_source
from fwpkm.data.batches import CarriedBatches
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder
from fwpkm.models.loss import IGNORED, next_token_loss
from fwpkm.testing.systems import SYSTEMS, make_system
from fwpkm.train.config import OptimizerConfig, TrainConfig
from fwpkm.train.objective import loss_sums
from fwpkm.train.parallel import Group
from fwpkm.train.renew import renew_streams
from fwpkm.train.step import StepRunner, draw_for, split_rows, split_tokens
from fwpkm.train.stop import StopRequest


def gradients(system: str, **settings: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = Decoder(make_system(system)).double()
    config = TrainConfig(steps=1, **settings)
    runner = StepRunner(model, config, Group(), torch.device("cpu"))
    sums, _, _ = runner.run(next(make_source()), 0, [None] * config.accumulate)
    return sums, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"truncate": 16}, {"truncate": 100}])
def test_parts_and_whole_spans_change_nothing(settings: dict[str, Any]) -> None:
    sums, grads = gradients("sliding_fwpkm")
    other_sums, other_grads = gradients("sliding_fwpkm", **settings)
    torch.testing.assert_close(other_sums, sums)
    for a, b in zip(other_grads, grads, strict=True):
        torch.testing.assert_close(a, b)


def test_truncation_keeps_the_loss_and_cuts_the_gradient() -> None:
    sums, grads = gradients("sliding_fwpkm")
    other_sums, other_grads = gradients("sliding_fwpkm", truncate=8)
    torch.testing.assert_close(other_sums, sums)
    assert any(not torch.allclose(a, b) for a, b in zip(other_grads, grads, strict=True))


def test_the_loss_is_the_decoders_own() -> None:
    batch = next(make_source())
    model = Decoder(make_system("mixed"))
    hidden = model(batch.input_ids).hidden
    sums = loss_sums(hidden, model.head_weight, batch)
    expected = next_token_loss(hidden, model.head_weight, batch.targets)
    count = int((batch.targets != IGNORED).sum())
    torch.testing.assert_close(sums.weighted / count, expected)
    torch.testing.assert_close(sums.entropy.float() / count, expected)


def test_many_logits_are_worked_off_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(make_source())
    model = Decoder(make_system("full"))
    hidden = model(batch.input_ids).hidden
    whole = loss_sums(hidden, model.head_weight, batch).numbers()
    monkeypatch.setattr("fwpkm.models.loss.MAX_LOGITS", 300)
    torch.testing.assert_close(loss_sums(hidden, model.head_weight, batch).numbers(), whole)


@pytest.mark.parametrize("system", ["full", "sliding_fwpkm", "mixed"])
def test_carried_pieces_of_a_document_have_the_losses_of_the_whole(system: str) -> None:
    model = Decoder(make_system(system)).double()
    documents = make_documents()
    runner = StepRunner(model, TrainConfig(steps=9, carry="document"), Group(), torch.device("cpu"))
    source, caches = CarriedBatches(documents, batch_size=2, seq_len=12), [None]
    total, count = torch.zeros(6, dtype=torch.float64), 0
    with torch.no_grad():
        for _ in range(14):  # many ends of documents of either stream on the way
            sums, _, caches = runner.run(next(source), 0, caches)
            total, count = total + sums, count + 1
        expected = 0.0
        again = CarriedBatches(documents, batch_size=2, seq_len=12)
        for stream in range(2):
            for tokens in documents_read(again, stream, 14):
                hidden = model(tokens[None, :-1]).hidden
                mean = next_token_loss(hidden, model.head_weight, tokens[None, 1:])
                expected += float(mean) * (len(tokens) - 1)
    assert float(total[0]) == pytest.approx(expected, rel=1e-9)


def documents_read(source: CarriedBatches, stream: int, steps: int) -> list[torch.Tensor]:
    """Put together what a stream reads, document by document, each with its last target."""
    source.load_state_dict(CarriedBatches(source.documents, batch_size=2, seq_len=12).state_dict())
    found: list[list[int]] = []
    for _ in range(steps):
        batch = next(source)
        counts = batch.targets[stream] != IGNORED
        if bool(batch.fresh[stream]):
            found.append([int(batch.input_ids[stream, 0])])
        found[-1] += batch.targets[stream][counts].tolist()
    return [torch.tensor(tokens) for tokens in found]


@pytest.mark.parametrize("system", SYSTEMS)
def test_renewed_streams_know_nothing_and_the_others_all(system: str) -> None:
    model = Decoder(make_system(system, initializer_range=0.1)).double()
    torch.manual_seed(1)
    before, after = torch.randint(40, (3, 13)), torch.randint(40, (3, 9))
    with torch.no_grad():
        cache = model(before).cache
        fresh = torch.tensor([False, True, False])
        renewed = renew_streams(cache, fresh, model)
        assert renewed is not None
        out = model(after, renewed).logits
        torch.testing.assert_close(out[1:2], model(after[1:2]).logits)
        torch.testing.assert_close(out[[0, 2]], model(after, cache).logits[[0, 2]])


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_renewed_stream_begins_with_learns_as_from_a_fresh_cache(system: str) -> None:
    config = make_system(system, initializer_range=0.1)
    if config.fwmlp is not None:
        config = replace(config, fwmlp=replace(config.fwmlp, initial_weights="learned"))
    if config.fwpkm is not None:
        config = replace(config, fwpkm=replace(config.fwpkm, initial_keys="learned"))
    model = Decoder(config).double()
    before, after = torch.randint(40, (3, 13)), torch.randint(40, (3, 9))
    cache = model(before).cache.detach()
    renewed = renew_streams(cache, torch.tensor([False, True, False]), model)
    weight = torch.randn(1, 9, 40, dtype=torch.float64)
    model.zero_grad()
    (model(after, renewed).logits[1:2] * weight).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    (model(after[1:2]).logits * weight).sum().backward()
    for name, p in model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
        got = found[name]
        torch.testing.assert_close(torch.zeros_like(p) if got is None else got.to_dense(), expected, msg=name)


def test_renewing_all_or_none_is_free() -> None:
    model = Decoder(make_system("full"))
    cache: DecoderCache = model(torch.randint(40, (2, 5))).cache
    assert renew_streams(cache, torch.tensor([True, True]), model) is None
    assert renew_streams(cache, torch.tensor([False, False]), model) is cache


def test_a_shared_table_cannot_be_renewed_in_part() -> None:
    section = {"num_subkeys": 8, "key_dim": 8, "value_dim": 12, "topk": 3, "chunk_size": 5, "table": "batch"}
    model = Decoder(make_system("sliding_fwpkm", fwpkm=section))
    cache = model(torch.randint(40, (2, 5))).cache
    with pytest.raises(ValueError, match="share one memory"):
        renew_streams(cache, torch.tensor([True, False]), model)


def test_sequences_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulate=3 for 2"):
        list(split_rows(next(make_source()), 3))


def test_spans_cover_every_token_once() -> None:
    batch = next(make_source())
    spans = list(split_tokens(batch, 7))
    assert torch.equal(torch.cat([s.targets for s in spans], dim=1), batch.targets)
    assert all(torch.equal(s.fresh, batch.fresh) for s in spans)


def test_each_step_has_its_own_draw() -> None:
    draws = {float(torch.rand((), generator=draw_for(seed, step))) for seed in range(3) for step in range(9)}
    assert len(draws) == 27


def test_training_learns_what_can_be_learned(make_run: MakeRun) -> None:
    optimizer = OptimizerConfig(lr=2e-2, weight_decay=0.0)
    run = make_run(make_system("sliding_fwpkm", initializer_range=0.02), steps=40, optimizer=optimizer)
    run.run(StopRequest())
    found = losses(run)
    assert found[-1] < found[0] - 1.0
