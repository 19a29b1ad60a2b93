"""The training loss: weighted cross-entropy as sums, so that any split of a step adds up to the same."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.data.batches import Batch
from fwpkm.models.loss import IGNORED, token_losses


@dataclass(frozen=True, kw_only=True, eq=False)
class LossSums:
    """Sums over targets, in float64 but for `weighted`, which has the graph."""

    weighted: Float[Tensor, ""]
    """Of each target's weight times its cross-entropy."""
    entropy: Float[Tensor, ""]
    """Of the cross-entropy."""
    count: Float[Tensor, ""]
    """Targets that count."""
    stressed_entropy: Float[Tensor, ""]
    """Of the cross-entropy of targets that weigh more than 1, such as answers of recall tasks."""
    stressed_count: Float[Tensor, ""]
    """How many these are."""
    stressed_right: Float[Tensor, ""]
    """How many of these were the most likely token."""

    def numbers(self) -> Float[Tensor, " 6"]:
        """Join all sums, without a graph."""
        return torch.stack([getattr(self, f.name).detach().double() for f in fields(self)])


NUM_SUMS = len(fields(LossSums))
"""Numbers that `LossSums.numbers` returns."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What a step or a validation measured, over all processes."""

    objective: float
    """Mean of the weighted cross-entropy: what is minimised."""
    loss: float
    """Mean cross-entropy of all targets."""
    stressed_loss: float | None
    """Mean cross-entropy of targets that weigh more than 1; None if there are none."""
    stressed_accuracy: float | None
    """Share of these that were the most likely token, given all before."""

    @classmethod
    def of(cls, sums: Float[Tensor, " 6"], total_weight: float) -> "Losses":
        """Divide the sums of all processes."""
        weighted, entropy, count, stressed_entropy, stressed, right = sums.tolist()
        return cls(
            objective=weighted / total_weight if total_weight else 0.0,
            loss=entropy / count if count else 0.0,
            stressed_loss=stressed_entropy / stressed if stressed else None,
            stressed_accuracy=right / stressed if stressed else None,
        )

    def named(self, prefix: str = "") -> dict[str, float]:
        """Return those that were measured, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f"{prefix}{name}": value for name, value in values.items() if value is not None}


def loss_sums(hidden: Float[Tensor, "B T D"], head_weight: Float[Tensor, "V D"], batch: Batch) -> LossSums:
    """Add up the losses of a batch."""
    target, weight = batch.targets.flatten(), batch.weights.flatten()
    losses = token_losses(hidden.flatten(0, 1), head_weight, target, weight)
    plain, counts = losses.entropy.double(), target != IGNORED
    stressed = counts & (weight > 1)
    return LossSums(
        weighted=losses.weighted,
        entropy=plain.sum(),
        count=counts.sum().double(),
        stressed_entropy=(plain * stressed).sum(),
        stressed_count=stressed.sum().double(),
        stressed_right=(losses.right & stressed).sum().double(),
    )
