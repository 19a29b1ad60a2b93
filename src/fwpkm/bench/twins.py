"""What a memory costs a whole model: a training step of a recipe, and of its twin without it, on one device."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fwpkm.bench.layer import check_parity
from fwpkm.bench.measure import Timing, peak_device_bytes, seconds_of
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import read_recipe
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer

Row = dict[str, Any]


def compare_twins(
    recipe: str, twin: str, *, device: str, streams: int, tokens: int, runs: int
) -> Iterator[Row]:
    """Yield both models' training steps and the median of their ratios.

    A step is forward, backward, clipping and AdamW; with autocast to bfloat16 on a GPU.

    Args:
        recipe: Whose model has the memory.
        twin: Whose model lacks it; measured in turns with it.
        device: Where to measure.
        streams: Sequences of a step.
        tokens: Their length.
        runs: Measured steps of each.

    Raises:
        RuntimeError: If the fast forms differ from the definition; no time is reported then.
    """
    where = torch.device(device)
    check_parity(device=where)
    names = (twin, recipe)
    steps = [_training_step(name, where, streams, tokens) for name in names]
    peaks = [peak_device_bytes(step, where) for step in steps]
    for step in steps:
        seconds_of(step)
    seconds = [[seconds_of(step) for step in steps] for _ in range(runs)]  # in turns: a busy moment hits both
    ratios = Timing.of([with_memory / without for without, with_memory in seconds])
    for name, own, peak in zip(names, zip(*seconds, strict=True), peaks, strict=True):
        times = Timing.of(list(own))
        spread = {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}
        yield {
            "what": "twins",
            "recipe": name,
            "streams": streams,
            "tokens": tokens,
            **spread,
            "peak_bytes": peak,
        }
    shares = {"median": ratios.median, "p20": ratios.p20, "p80": ratios.p80}
    yield {"what": "times twin", "recipe": recipe, "streams": streams, "tokens": tokens, **shares}


def _training_step(name: str, device: torch.device, streams: int, tokens: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = Decoder(read_recipe(name, []).model).to(device).train()
    optimizer = Optimizer(model, OptimizerConfig())
    ids = torch.randint(model.config.vocab_size, (streams, tokens), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, _ = model.loss(ids)
        loss.backward()
        optimizer.clip()
        optimizer.step()

    return step
