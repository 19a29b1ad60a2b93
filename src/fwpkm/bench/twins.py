"""What a memory costs a whole model: a training step of a recipe, and of its twin without it, on one device.

python -m fwpkm.bench.twins RECIPE TWIN DEVICE STREAMS TOKENS RUNS   prints a JSON row for each.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import torch

from fwpkm.bench.layer import check_parity
from fwpkm.bench.measure import peak_device_bytes, timed
from fwpkm.models.decoder import Decoder
from fwpkm.recipe import read_recipe
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.optimizer import Optimizer

Row = dict[str, Any]


def compare_twins(
    recipe: str, twin: str, *, device: str, streams: int, tokens: int, runs: int
) -> Iterator[Row]:
    """Yield both models' training steps (forward, backward, clipping, AdamW; autocast to bfloat16 on a GPU).

    Args:
        recipe: Whose model has the memory.
        twin: Whose model lacks it; measured first.
        device: Where to measure.
        streams: Sequences of a step.
        tokens: Their length.
        runs: Measured steps of each.

    Raises:
        RuntimeError: If the fast forms differ from the definition; no time is reported then.
    """
    where = torch.device(device)
    check_parity(device=where)
    median = None
    for name in (twin, recipe):
        row = _step_row(name, where, streams, tokens, runs)
        median = median or row["median_s"]
        yield {**row, "times_twin": row["median_s"] / median}


def _step_row(name: str, device: torch.device, streams: int, tokens: int, runs: int) -> Row:
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

    peak = peak_device_bytes(step, device)
    times = timed(step, runs=runs, warmup=2)
    spread = {"median_s": times.median, "p20_s": times.p20, "p80_s": times.p80, "runs": times.runs}
    return {
        "what": "twins",
        "recipe": name,
        "streams": streams,
        "tokens": tokens,
        **spread,
        "peak_bytes": peak,
    }


def main(recipe: str, twin: str, device: str, streams: str, tokens: str, runs: str) -> None:
    """Print the rows."""
    sizes = {"streams": int(streams), "tokens": int(tokens), "runs": int(runs)}
    for row in compare_twins(recipe, twin, device=device, **sizes):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
