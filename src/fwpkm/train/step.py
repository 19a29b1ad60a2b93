"""Losses and gradients of one step: all parts of a process's share, all spans of its sequences."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from fwpkm.data.batches import Batch
from fwpkm.data.shuffle import mix
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder, DecoderOutput
from fwpkm.train.alignment import Repeats, find_repeats, watch_queries
from fwpkm.train.config import TrainConfig
from fwpkm.train.gate_cost import watch_gates
from fwpkm.train.objective import NUM_SUMS, loss_sums
from fwpkm.train.parallel import Group
from fwpkm.train.renew import renew_streams

Caches = Sequence[DecoderCache | None]
"""What each part's streams have seen; None is nothing."""


class Scale(NamedTuple):
    """What sums over all tokens of a step, of all processes, are divided by."""

    weight: float
    """The weight of all targets."""
    tokens: float
    """Real tokens."""
    repeated: float
    """Tokens that repeat an earlier one of their span."""


class StepRunner:
    """Compute losses and gradients of whole steps, the same on any number of processes.

    Args:
        model: The decoder.
        config: The run.
        group: The processes.
        device: Where this process computes.
    """

    def __init__(self, model: Decoder, config: TrainConfig, group: Group, device: torch.device) -> None:
        self.model, self.config, self.group, self.device = model, config, group, device

    def run(self, batch: Batch, step: int, carried: Caches) -> tuple[Tensor, float, Caches]:
        """Go through this process's sequences; where gradients are enabled, add them up.

        Args:
            batch: This process's sequences of the step.
            step: Decides whether the step narrows attention.
            carried: What the parts' streams have seen in earlier batches.

        Returns:
            `LossSums.numbers` of this process, the weight of all targets of all processes, and what the parts'
            streams have seen now, without a graph.
        """
        parts = list(split_rows(batch, self.config.accumulate))
        repeats = [self._repeats(part) for part in parts]
        scale = self._scale(batch, repeats)
        sums = torch.zeros(NUM_SUMS, dtype=torch.float64, device=self.device)
        after: list[DecoderCache | None] = []
        for part, cache, repeated in zip(parts, carried, repeats, strict=True):
            cache = renew_streams(cache, part.fresh, self.model)
            own, seen = self._part(part, cache, step, repeated, scale)
            sums += own
            after.append(seen if self.config.carry == "document" else None)
        return sums, scale.weight, after

    def _repeats(self, part: Batch) -> list[Repeats | None]:
        """Find what is repeated within each span, where that is of use."""
        spans, alignment = split_tokens(part, self.config.truncate), self.config.alignment
        if not (alignment.cost and torch.is_grad_enabled()):
            return [None for _ in spans]
        moved = (span.to(self.device) for span in spans)
        return [
            find_repeats(
                span.input_ids,
                span.targets,
                alignment.context,
                stressed=span.weights > 1,
                run=alignment.answer_run,
            )
            for span in moved
        ]

    def _scale(self, batch: Batch, repeats: Sequence[Sequence[Repeats | None]]) -> Scale:
        """Count what losses are divided by, over all processes."""
        repeated = sum(int(r.anchors.sum()) for own in repeats for r in own if r is not None)
        sums = [batch.weights.double().sum(), batch.mask.sum(), repeated]
        return Scale(*self.group.add_up(torch.tensor(sums, dtype=torch.float64, device=self.device)).tolist())

    def _part(
        self,
        part: Batch,
        cache: DecoderCache | None,
        step: int,
        repeats: Sequence[Repeats | None],
        scale: Scale,
    ) -> tuple[Tensor, DecoderCache | None]:
        sums = torch.zeros(NUM_SUMS, dtype=torch.float64, device=self.device)
        for span, repeated in zip(split_tokens(part, self.config.truncate), repeats, strict=True):
            mask = None if bool(span.mask.all()) else span.mask.to(self.device)
            span = span.to(self.device)
            with self.autocast():
                draw = draw_for(self.config.seed, step)  # the same for all parts, spans and processes
                output, extra = self._forward(span, cache, mask, draw, repeated, scale)
                losses = loss_sums(output.hidden, self.model.head_weight, span)
            if torch.is_grad_enabled() and scale.weight:
                (losses.weighted / scale.weight + extra).backward()
            sums += losses.numbers()
            cache = output.cache.detach()
        return sums, cache

    def _forward(
        self,
        span: Batch,
        cache: DecoderCache | None,
        mask: Tensor | None,
        draw: torch.Generator,
        repeats: Repeats | None,
        scale: Scale,
    ) -> tuple[DecoderOutput, Tensor | float]:
        """Run the decoder; return what its gates and queries add to the objective, too."""
        learns, alignment, cost = torch.is_grad_enabled(), self.config.alignment, self.config.gate_cost
        layers = self.config.gate_cost_layers
        with (
            watch_gates(self.model, layers) if cost and learns else nullcontext() as gates,
            watch_queries(self.model) if repeats is not None else nullcontext() as queries,
        ):
            output = self.model(span.input_ids, cache, mask, logits_to_keep=0, generator=draw)
        extra: Tensor | float = 0.0
        if gates is not None:
            extra = extra + cost * gates.add_up(span.mask) / scale.tokens
        if queries is not None and repeats is not None and scale.repeated:
            misses = queries.misses(repeats, alignment.temperature, across=alignment.across)
            extra = extra + alignment.cost * misses / scale.repeated
        return output, extra

    def autocast(self) -> torch.autocast:
        """Compute matrix products as the run wants them."""
        wanted = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=wanted)


def draw_for(seed: int, step: int) -> torch.Generator:
    """Return random numbers that belong to one step alone, so that no position needs to be kept."""
    return torch.Generator().manual_seed(mix(seed, step))


def split_rows(batch: Batch, parts: int) -> Iterator[Batch]:
    """Yield the sequences in `parts` equal pieces.

    Raises:
        ValueError: If they cannot be divided evenly.
    """
    B = batch.input_ids.shape[0]
    if B % parts:
        raise ValueError(
            f"train.accumulate must divide each process's sequences of a step, got accumulate={parts} for {B}; "
            "change it or the batch size"
        )
    size = B // parts
    for start in range(0, B, size):
        yield _cut(batch, slice(start, start + size), slice(None))


def split_tokens(batch: Batch, truncate: int | None) -> Iterator[Batch]:
    """Yield spans of at most `truncate` tokens of every sequence."""
    T = batch.input_ids.shape[1]
    size = T if truncate is None else truncate
    for start in range(0, T, size):
        yield _cut(batch, slice(None), slice(start, start + size))


def _cut(batch: Batch, rows: slice, span: slice) -> Batch:
    named = ((f.name, getattr(batch, f.name)) for f in fields(batch))
    return replace(batch, **{name: x[rows] if x.ndim < 2 else x[rows, span] for name, x in named})
