"""What goes wrong without an error: said once, with the remedy."""

import math
from collections.abc import Iterable, Mapping

import torch

from fwpkm.train.config import GuardConfig


class TooManySkippedError(RuntimeError):
    """So many steps in a row had a non-finite loss or gradient that going on is pointless."""


def is_sound(loss: float, gradient_norm: float) -> bool:
    """Whether a step may be taken."""
    return math.isfinite(loss) and math.isfinite(gradient_norm)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a GPU's, Python's, numpy's, or torch's on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def check_skipped(skipped_in_a_row: int, config: GuardConfig, *, step: int, loss: float, norm: float) -> None:
    """Give up after too many skipped steps in a row.

    Raises:
        TooManySkippedError: With the numbers and what to try.
    """
    if skipped_in_a_row >= config.max_skipped:
        raise TooManySkippedError(
            f"train: a step's loss and gradient must be finite, got loss={loss} and a gradient norm of {norm} at step "
            f"{step}, the {skipped_in_a_row}th in a row; lower train.optimizer.lr or clip_norm, or use "
            "train.precision='float32', and go on from an earlier checkpoint with --resume"
        )


def warnings_about(
    metrics: Mapping[str, float], config: GuardConfig, given: Iterable[str]
) -> list[tuple[str, str]]:
    """Return a name and a sentence for each kind of trouble with a memory that was not pointed out before."""
    found = []
    for name, value in metrics.items():
        if name.endswith(".slots_used") and value < config.min_slot_share:
            found.append((name, _collapse(name, value)))
        if name.endswith(".gate") and not config.gate_margin <= value <= 1 - config.gate_margin:
            found.append((name, _saturation(name, value)))
    return [(name, text) for name, text in found if name not in set(given)]


def _collapse(name: str, share: float) -> str:
    return (
        f"{name.removesuffix('.slots_used')} collapses: its distinct slots are {share:.1%} of what they could be, so "
        "tokens overwrite each other; raise fwpkm.addressing_weight or fwpkm.key_lr, give sub-keys the queries' scale "
        "(fwpkm.key_std=1, fwpkm.query_norm='zscore'), or lower fwpkm.temperature"
    )


def _saturation(name: str, mean: float) -> str:
    side, remedy = (
        (
            "closed",
            "the model ignores this memory: narrow attention (narrow_probability), add recall tasks or lower gate_cost",
        )
        if mean < 0.5
        else ("open", "every token is learned with full weight: lower train.optimizer.lr")
    )
    return f"{name} is saturated: its mean is {mean:.3f}, {side} nearly everywhere; {remedy}"
