"""What a memory costs a whole model: a training step of a recipe, and of its twin without it, on one device."""

from collections.abc import Callable, Iterator, Sequence

import torch

from fwpkm.bench.measure import Timing, is_out_of_memory, peak_device_bytes, seconds_of
from fwpkm.bench.model_parity import check_model, compile_checked
from fwpkm.bench.rows import Row, ratios, seconds
from fwpkm.bench.systems import delta_rule_backends
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder
from fwpkm.ops.backend import name_backend
from fwpkm.ops.blocks import keep_freed_memory
from fwpkm.recipe import read_recipe
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer


def compare_twins(
    recipe: str,
    twin: str,
    *,
    device: str,
    streams: int,
    tokens: int,
    runs: int,
    parts: int = 1,
    settings: Sequence[str] = (),
    warmup: int | None = None,
    compiled: bool = False,
) -> Iterator[Row]:
    """Yield both models' training steps and the median of their ratios, or which of them needs too much memory.

    A step is forward, backward, clipping and AdamW; with autocast to bfloat16 on a GPU.

    Args:
        recipe: Whose model has the memory.
        twin: Whose model lacks it; measured in turns with it.
        device: Where to measure.
        streams: Sequences of a step.
        tokens: Their length.
        runs: Measured steps of each.
        parts: In how many parts, of as many sequences each, a step takes its gradient.
        settings: Changes to both recipes.
        warmup: Unmeasured steps of each; None is 3, on a CPU 10: a memory's steps differ in how many rows they touch,
            and until the process has kept enough room for that, some wait for pages to be cleared.
        compiled: Whether `torch.compile` makes code of both models' blocks.

    Raises:
        ValueError: If the sequences cannot be parted so.
        ParityError: If a fast form differs from its definition, or compiled blocks from themselves; no time is reported
            then.
    """
    if parts < 1 or streams % parts:
        raise ValueError(f"bench twins: parts must divide streams={streams}, got parts={parts}")
    where, names = torch.device(device), (twin, recipe)
    configs = [read_recipe(name, settings).model for name in names]
    for config in configs:
        check_model(config, ["training"], device=where, autocast=where.type == "cuda")
    warmup = (10 if where.type == "cpu" else 3) if warmup is None else warmup
    if where.type == "cpu":
        keep_freed_memory()  # as training does
    common: Row = {"streams": streams, "tokens": tokens, "parts": parts, "backend": name_backend(where)}
    common["compiled"] = compiled
    steps, peaks, own = [], [], []
    for name, config in zip(names, configs, strict=True):
        own.append({"what": "twins", "recipe": name, **common})
        try:
            with delta_rule_backends() as used:
                steps.append(_TrainingStep(config, where, streams=streams, tokens=tokens, parts=parts))
                peaks.append(_peak_of_a_step(steps[-1], where, 0 if compiled else warmup))
            if compiled:  # now: graphs depend on what is looked at above
                steps[-1].compile()
                peaks[-1] = _peak_of_a_step(steps[-1], where, warmup)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            yield {**own[-1], "failed": "out of memory"}
            return
        own[-1]["gdn_backend"] = "+".join(sorted(used))
    yield from _in_turns(steps, peaks, own, where, runs)


def _peak_of_a_step(step: "_TrainingStep", device: torch.device, warmup: int) -> int | None:
    for _ in range(warmup):
        step()
    step.forget()  # gradients are a part of what a step needs
    return peak_device_bytes(step, device)


def _in_turns(
    steps: Sequence[Callable[[], None]],
    peaks: Sequence[int | None],
    own: Sequence[Row],
    device: torch.device,
    runs: int,
) -> Iterator[Row]:
    """Measure both steps one after the other, again and again: a busy moment hits both."""
    spent = [[seconds_of(step, device) for step in steps] for _ in range(runs)]
    for row, times, peak in zip(own, zip(*spent, strict=True), peaks, strict=True):
        yield {**row, **seconds(Timing.of(list(times))), "peak_bytes": peak}
    shares = Timing.of([with_memory / without for without, with_memory in spent])
    yield {**own[-1], "what": "times twin", **ratios(shares)}


class _TrainingStep:
    """A model's training step on one batch, always the same."""

    def __init__(
        self, config: DecoderConfig, device: torch.device, *, streams: int, tokens: int, parts: int
    ) -> None:
        torch.manual_seed(0)
        self.model = Decoder(config).to(device).train()
        self.optimizer = Optimizer(self.model, OptimizerConfig())
        self.ids, self.parts = torch.randint(config.vocab_size, (streams, tokens), device=device), parts

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        for part in self.ids.chunk(self.parts):
            with torch.autocast(self.ids.device.type, torch.bfloat16, enabled=self.ids.is_cuda):
                loss, _ = self.model.loss(part)
            (loss / self.parts).backward()
        self.optimizer.clip()
        self.optimizer.step()

    def compile(self) -> None:
        """Have `torch.compile` make code of the model's blocks, and check it."""
        compile_checked(self.model, next(iter(self.ids.chunk(self.parts))), autocast=self.ids.is_cuda)

    def forget(self) -> None:
        """Drop the last step's gradients."""
        self.optimizer.zero_grad()
