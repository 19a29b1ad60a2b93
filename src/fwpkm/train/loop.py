"""The training loop."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch

from fwpkm.data.batches import Batch, BatchSource
from fwpkm.models.decoder import Decoder
from fwpkm.train.checkpoint import Checkpoints, Progress
from fwpkm.train.config import TrainConfig
from fwpkm.train.guards import check_skipped, is_out_of_memory, is_sound, warnings_about
from fwpkm.train.log import Log
from fwpkm.train.monitor import memory_metrics
from fwpkm.train.objective import NUM_SUMS, Losses
from fwpkm.train.optimizer import Optimizer
from fwpkm.train.parallel import Group, add_up_gradients, check_alike
from fwpkm.train.schedule import lr_factor
from fwpkm.train.sharding import settle
from fwpkm.train.step import Caches, StepRunner, split_rows
from fwpkm.train.stop import StopRequest

End = Literal["finished", "out of time", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call of `Trainer.run` ended."""

    end: End
    progress: Progress
    validation: Mapping[str, float]
    """The last validation, if there was any."""
    signal: int | None = None
    """What stopped it."""


class Trainer:
    """Train a decoder, alone or as one of several processes.

    Args:
        model: The decoder, on its device.
        source: This process's batches.
        config: The run.
        checkpoints: Where the run is written down.
        group: The processes.
        log: Where metrics go; None on all processes but the first.
        validation: This process's batches to validate on.
    """

    def __init__(
        self,
        model: Decoder,
        source: BatchSource,
        config: TrainConfig,
        checkpoints: Checkpoints,
        *,
        group: Group,
        log: Log | None = None,
        validation: BatchSource | None = None,
    ) -> None:
        self.model, self.source, self.config, self.checkpoints = model, source, config, checkpoints
        self.group, self.log, self.validation = group, log, validation
        self.device = model.embed.weight.device
        self.optimizer = Optimizer(model, config.optimizer)
        self.runner = StepRunner(model, config, group, self.device)
        self.progress = Progress()
        self.carried: Caches = [None] * config.accumulate
        self._began = self._saved = self._shown = self.progress
        self._updating = False
        self._validated: dict[str, float] = {}
        self._validation_start = None if validation is None else validation.state_dict()

    def resume(self) -> Progress:
        """Go to the newest whole checkpoint, or stay at the start if there is none; returns where that is.

        Raises:
            ValueError: If there are checkpoints, and none is whole.
        """
        path = self.checkpoints.newest_whole()
        if path is None and self.checkpoints.damaged:
            raise ValueError(
                f"{self.checkpoints.folder}: none of its {len(self.checkpoints.damaged)} checkpoints is whole; "
                "remove that folder to train from the start"
            )
        if path is not None:
            self.progress, data, self.carried = self.checkpoints.load(
                path, self.model, self.optimizer, parts=self.config.accumulate
            )
            self.source.load_state_dict(data)
            self._began = self._saved = self._shown = self.progress
        return self.progress

    def run(self, stop: StopRequest) -> Outcome:
        """Train until a budget is used up or somebody asks to stop; ends with a checkpoint in any case."""
        check_alike(self.model, self.group, "at the start")
        with _deterministic(self.config.deterministic):
            while (end := self._turn(stop)) is None:
                self._guarded_step()
            if end != "stopped":
                self._validate()
        self.save()
        number = None if end != "stopped" else stop.signal or signal.SIGTERM
        return Outcome(end=end, progress=self.progress, validation=self._validated, signal=number)

    def share_done(self) -> float:
        """Return how much of the run is over, in [0, 1]; what ends it first counts."""
        config, progress = self.config, self.progress
        pairs: list[tuple[float, float | None]] = [
            (progress.step, config.steps),
            (progress.tokens, config.max_tokens),
            (progress.seconds, config.seconds_of_schedule),
        ]
        return min(1.0, max(done / budget for done, budget in pairs if budget is not None))

    def save(self) -> None:
        """Write a checkpoint."""
        settle(self.model)
        check_alike(self.model, self.group, "at a checkpoint")
        data = self.source.state_dict()
        self.checkpoints.save(
            self.model, self.optimizer, self.progress, data=data, carried=list(self.carried)
        )
        self._saved = self.progress

    def _turn(self, stop: StopRequest) -> End | None:
        """Do what is due between two steps, and say whether the run is over and why."""
        config, progress = self.config, self.progress
        late = config.max_minutes is not None and progress.seconds >= 60 * config.max_minutes
        # Clocks and signals of the processes differ; all must take the same way, by the first one's clock.
        clock = round(progress.seconds * 1e6) if self.group.is_first else 0
        flags = torch.tensor([stop.signal is not None, late, self._is_due(), clock])
        stopped, late, due, clock = self.group.add_up(flags.to(self.device)).tolist()
        if self.group.world > 1:
            self.progress = progress = replace(progress, seconds=clock / 1e6)
        if self.share_done() >= 1:
            return "finished"
        if late or stopped:
            return "out of time" if late else "stopped"
        if progress.step > progress.validated and _divides(config.validate_every, progress.step):
            self._validate()
        if due:
            self.save()
        return None

    def _is_due(self) -> bool:
        """Whether a checkpoint should be written now."""
        plan, now, saved = self.config.checkpoints, self.progress, self._saved
        if now.step == saved.step:
            return False
        late = plan.every_minutes is not None and now.seconds - saved.seconds >= 60 * plan.every_minutes
        return late or _divides(plan.every_steps, now.step)

    def _guarded_step(self) -> None:
        """Take a step; if memory runs out in it, write down what there was before it."""
        position, before = self.source.state_dict(), self.progress
        try:
            self._step(next(self.source))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad()
            # Weights of which only some were updated are no state to go on from, nor are other processes' unknown ones.
            if self.group.world == 1 and not self._updating:
                if self.progress is before:
                    self.source.load_state_dict(position)
                self.save()
            raise RuntimeError(
                f"train: out of memory in step {self.progress.step + 1}; the last checkpoint is whole: raise "
                "train.accumulate, lower train.truncate or set train.gradient_checkpointing=true, and go on with "
                f"--resume ({error})"
            ) from error

    def _step(self, batch: Batch) -> None:
        began = time.perf_counter()
        self.model.train()
        self.optimizer.zero_grad()
        sums, weight, after = self.runner.run(batch, self.progress.step, self.carried)
        add_up_gradients(self.optimizer.names, self.group)
        losses = Losses.of(self.group.add_up(sums), weight)
        norm = self.optimizer.clip()
        sound = is_sound(losses.objective, norm)
        self.optimizer.set_lr(factor := lr_factor(self.config.schedule, self._share_after_step()))
        if sound:
            self._updating = True
            self.optimizer.step()
            self._updating = False
        self.carried = after if sound else [None] * self.config.accumulate
        self._advance(batch, sound, time.perf_counter() - began)
        self._report(losses, {"gradient_norm": norm, "lr": factor * self.config.optimizer.lr})
        if _divides(self.config.trace_every, self.progress.step):
            self._trace(batch)
        guards, now = self.config.guards, self.progress
        check_skipped(now.skipped_in_a_row, guards, step=now.step, loss=losses.objective, norm=norm)

    def _share_after_step(self) -> float:
        """Return the share of `steps` that is over after this step, so that the first one moves already.

        How many tokens or seconds the step takes is not known before it: of those the share before it counts, and
        the first step of a warm-up by tokens or time alone moves nothing.
        """
        share = self.share_done()
        return max(share, (self.progress.step + 1) / self.config.steps) if self.config.steps else share

    def _advance(self, batch: Batch, sound: bool, seconds: float) -> None:
        now = self.progress
        self.progress = replace(
            now,
            step=now.step + 1,
            tokens=now.tokens + batch.input_ids.numel() * self.group.world,
            seconds=now.seconds + seconds,
            skipped_in_a_row=0 if sound else now.skipped_in_a_row + 1,
        )

    def _report(self, losses: Losses, more: Mapping[str, float]) -> None:
        if self.log is None:
            return
        now, config = self.progress, self.config
        values = {**losses.named(), **more, "tokens": now.tokens, "seconds": now.seconds}
        if now.skipped_in_a_row:
            values["skipped_in_a_row"] = now.skipped_in_a_row
            self.log.say(
                f"step {now.step} skipped: loss {losses.objective}, gradient norm {more['gradient_norm']}"
            )
        self.log.write("train", now.step, values)
        if _divides(config.log_every, now.step) or self.share_done() >= 1:
            speed = (now.tokens - self._shown.tokens) / max(now.seconds - self._shown.seconds, 1e-9)
            elapsed = now.seconds
            self.log.progress(now.step, self.share_done(), {**values, "tokens_per_second": speed}, elapsed)
            self._shown = now

    @torch.no_grad()
    def _trace(self, batch: Batch) -> None:
        """Look at gates and slots on the first part of a batch, memories fresh."""
        self.model.eval()
        part = next(split_rows(batch, self.config.accumulate)).to(self.device)
        mask = None if bool(part.mask.all()) else part.mask
        with self.runner.autocast(), self._uncompiled():
            traces = self.model(part.input_ids, None, mask, logits_to_keep=0, trace=True).traces
        metrics = memory_metrics(self.model, traces, mask)
        found = warnings_about(metrics, self.config.guards, self.progress.warned)
        self.progress = replace(self.progress, warned=(*self.progress.warned, *(name for name, _ in found)))
        if self.log is not None and metrics:
            self.log.write("memory", self.progress.step, metrics)
            for _, text in found:
                self.log.say(f"warning: {text}")

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Run blocks as they are for a while: few steps without gradients are not worth graphs of their own."""
        return torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the loss on the same batches as every time, memories fresh for each."""
        if self.validation is None or self._validation_start is None:
            return
        self.model.eval()
        self.validation.load_state_dict(self._validation_start)
        sums, total = torch.zeros(NUM_SUMS, dtype=torch.float64, device=self.device), 0.0
        carried: Caches = [None] * self.config.accumulate
        with self._uncompiled():
            for _ in range(self.config.validation_batches):
                own, weight, carried = self.runner.run(next(self.validation), 0, carried)
                sums, total = sums + own, total + weight
        self._validated = Losses.of(self.group.add_up(sums), total).named()
        self.progress = replace(self.progress, validated=self.progress.step)
        if self.log is not None:
            self.log.write("validation", self.progress.step, self._validated)
            text = "  ".join(f"{name} {value:.4f}" for name, value in self._validated.items())
            self.log.say(f"validation at step {self.progress.step}: {text}")


def _divides(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
