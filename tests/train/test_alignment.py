"""Queries that meet where a text repeats itself: which tokens count, the loss's definition, and that splits add up."""

import math

import pytest
import torch
from step_gradients import MEMORY, decoder, gradients
from torch import Tensor

from fwpkm.data.batches import IGNORED, Batch
from fwpkm.train.alignment import find_repeats, watch_queries
from fwpkm.train.config import AlignmentConfig, TrainConfig


def batch(B: int, T: int, vocabulary: int = 3) -> Batch:
    """Sequences of few different tokens, so that much is repeated."""
    ids = torch.randint(0, vocabulary, (B, T + 1))
    whole = torch.ones(B, T, dtype=torch.bool)
    return Batch(
        input_ids=ids[:, :-1],
        targets=ids[:, 1:],
        weights=torch.ones(B, T),
        mask=whole,
        starts=torch.zeros_like(whole),
        fresh=whole[:, 0],
    )


def compare(ids: list[int], next_ids: list[int], t: int, s: int, context: int) -> tuple[bool, bool]:
    """Say of one pair whether it is positive and whether it is a candidate, straight from the definition."""
    if s >= t or next_ids[s] == IGNORED or next_ids[t] == IGNORED:
        return False, s < t and next_ids[s] != IGNORED
    same = min(s, t) >= context - 1 and all(ids[t - j] == ids[s - j] for j in range(context))
    return same and next_ids[t] == next_ids[s], not same or next_ids[t] == next_ids[s]


@pytest.mark.parametrize("context", [1, 2, 5])
def test_repeats_are_those_of_the_definition(context: int) -> None:
    ids = torch.randint(0, 3, (2, 40))
    targets = ids.roll(-1, 1).masked_fill(torch.rand(2, 40) < 0.2, IGNORED)
    found = find_repeats(ids, targets, context)
    for b in range(2):
        for t in range(40):
            for s in range(40):
                wanted = compare(ids[b].tolist(), targets[b].tolist(), t, s, context)
                assert (bool(found.positive[b, t, s]), bool(found.candidate[b, t, s])) == wanted
    assert found.anchors.any()
    assert torch.equal(found.anchors, found.positive.any(-1))


def in_a_run(targets: list[int], stressed: list[bool], t: int, s: int, run: int) -> bool:
    """Say whether t and s lie in a row of equal answers, straight from the definition."""
    for first in range(t - run + 1, t + 1):
        places = range(first, first + run)
        if first >= 0 and first - t + s >= 0 and places[-1] < len(targets):
            pairs = [(p, p - t + s) for p in places]
            if all(stressed[p] and targets[p] == targets[q] != IGNORED for p, q in pairs):
                return True
    return False


@pytest.mark.parametrize("run", [1, 2, 4])
def test_answers_repeat_what_they_are_taken_from(run: int) -> None:
    ids, stressed = torch.randint(0, 3, (2, 40)), torch.rand(2, 40) < 0.8
    targets = ids.roll(-1, 1).masked_fill(torch.rand(2, 40) < 0.1, IGNORED)
    plain = find_repeats(ids, targets, 5)
    found = find_repeats(ids, targets, 5, stressed=stressed, run=run)
    more = 0
    for b in range(2):
        for t in range(40):
            for s in range(40):
                answers = s < t and in_a_run(targets[b].tolist(), stressed[b].tolist(), t, s, run)
                assert bool(found.positive[b, t, s]) == (bool(plain.positive[b, t, s]) or answers)
                more += answers
    assert more > 20
    assert torch.equal(found.candidate, plain.candidate)
    assert not bool((found.positive & ~found.candidate).any())


@pytest.mark.parametrize("across", [False, True])
def test_the_loss_is_that_of_the_definition(across: bool) -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(2, 23)
    repeats = find_repeats(data.input_ids, data.targets, 3)
    outputs: list[Tensor] = []
    memories = [block.memory for block in model.blocks]
    handles = [m.q_proj.register_forward_hook(lambda *a: outputs.append(a[2])) for m in memories]
    with watch_queries(model) as queries:
        model(data.input_ids)
    for handle in handles:
        handle.remove()
    total, anchors = 0.0, 0
    for q in outputs:
        halves = q.unflatten(-1, (-1, MEMORY["key_dim"] // 2))
        halves = (halves - halves.mean(-1, keepdim=True)) / halves.std(-1, keepdim=True)
        flat = halves.flatten(-2)
        for b in range(2):
            cosine = torch.nn.functional.cosine_similarity(flat[b][:, None], flat[b][None], dim=-1)
            for t in range(23):
                if bool(repeats.positive[b, t].any()):
                    e = (cosine[t] / 0.07).exp()
                    hit, all_ = e[repeats.positive[b, t]].sum(), e[repeats.candidate[b, t]].sum()
                    for other in range(2):
                        for s in range(23):
                            before = [
                                data.input_ids[x, y - 2 : y + 1].tolist() for x, y in ((b, t), (other, s))
                            ]
                            if across and other != b and (s < 2 or before[0] != before[1]):
                                cosine_of_both = torch.nn.functional.cosine_similarity(
                                    flat[b, t], flat[other, s], dim=0
                                )
                                all_ = all_ + (cosine_of_both / 0.07).exp()
                    total, anchors = total - math.log(float((hit / all_).detach())), anchors + 1
    assert anchors > 10
    loss = queries.misses(repeats, 0.07, across=across)
    assert float(loss.detach()) == pytest.approx(total / len(outputs), rel=1e-4)


def test_gradients_move_queries_and_add_to_the_objectives() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(4, 20)
    alignment = AlignmentConfig(cost=0.5, context=3)
    plain, more = gradients(model, data), gradients(model, data, alignment=alignment)
    repeats = find_repeats(data.input_ids, data.targets, 3)
    with watch_queries(model) as queries:
        model(data.input_ids)
    loss = 0.5 * queries.misses(repeats, alignment.temperature) / repeats.anchors.sum()
    wanted = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    moved = 0
    for p, q, extra in zip(plain, more, wanted, strict=True):
        torch.testing.assert_close(
            q - p, torch.zeros_like(p) if extra is None else extra, atol=1e-5, rtol=1e-3
        )
        moved += extra is not None and bool(extra.any())
    assert moved > 4


def test_parts_of_a_step_add_up() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(4, 20)
    alignment = AlignmentConfig(cost=0.5, context=3)
    whole = gradients(model, data, alignment=alignment)
    parts = gradients(model, data, alignment=alignment, accumulate=2)
    for p, q in zip(whole, parts, strict=True):
        torch.testing.assert_close(p, q, atol=5e-6, rtol=1e-4)


def test_where_nothing_is_repeated_nothing_is_added() -> None:
    model, data = decoder(fwpkm_layers=[0, 1], fwpkm=MEMORY), batch(2, 9)
    plain = gradients(model, data)
    for p, q in zip(
        plain, gradients(model, data, alignment=AlignmentConfig(cost=1.0, context=9)), strict=True
    ):
        assert torch.equal(p, q)


def test_queries_learn_to_meet() -> None:
    model, data = decoder(fwpkm_layers=[1], fwpkm=MEMORY), batch(4, 30, vocabulary=4)
    repeats = find_repeats(data.input_ids, data.targets, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def misses() -> Tensor:
        with watch_queries(model) as queries:
            model(data.input_ids)
        return queries.misses(repeats, 0.07) / repeats.anchors.sum()

    before = float(misses().detach())
    for _ in range(150):
        optimizer.zero_grad()
        misses().backward()
        optimizer.step()
    assert float(misses().detach()) < 0.7 * before


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alignment.cost needs a FwPKM, got a model with none"):
        gradients(decoder(), batch(2, 9), alignment=AlignmentConfig(cost=0.1))
    with pytest.raises(ValueError, match=r"context must be at least 1.*cost must be at least 0"):
        AlignmentConfig(cost=-1.0, context=0)
    with pytest.raises(ValueError, match=r"alignment.cost cannot be had with gradient_checkpointing"):
        TrainConfig(steps=1, gradient_checkpointing=True, alignment=AlignmentConfig(cost=0.1))
