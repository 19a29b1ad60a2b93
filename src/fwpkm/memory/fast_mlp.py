"""What a fast-weight MLP layer knows after some tokens of B streams."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from fwpkm.memory.chunks import ChunkedState
from fwpkm.ops.fast_mlp import FastMLP, FastMLPOptions, answer, regression_step
from fwpkm.state import iter_tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class FastMLPState(ChunkedState[FastMLP]):
    """Fast networks of one layer; a value, never edited. The waiting tokens are packed as (q, v, has loss)."""

    options: FastMLPOptions
    """The arithmetic that made this state and continues it."""

    @property
    def chunking(self) -> FastMLPOptions:
        """When the networks are written."""
        return self.options

    def read(self, fast: FastMLP, q: Float[Tensor, "K t Dq"]) -> Float[Tensor, "K t Dv"]:
        """Return the networks' answers."""
        out = answer(fast, _by_network(q, fast))
        return out.reshape(*q.shape[:2], out.shape[-1])

    def write(self, fast: FastMLP, tokens: Float[Tensor, "K m W"], num_written: int) -> FastMLP:
        """Take one gradient step on a chunk's mean squared error."""
        Dk, options = fast.gate.shape[-1], self.options
        q, v, mask = tokens.split([Dk, tokens.shape[-1] - Dk - 1, 1], dim=-1)
        target = lookahead_target(v, num_written, options)
        q, target, mask = (_by_network(x, fast) for x in (q[:, :num_written], target, mask[:, :num_written]))
        return regression_step(
            fast,
            q,
            target,
            mask.squeeze(-1),
            lr=options.lr,
            weight_decay=options.weight_decay,
            clip_gradients=options.clip_gradients,
        )

    def check_fits(self, options: FastMLPOptions, *, num_streams: int, initial: FastMLP) -> None:
        """Raise ValueError unless a layer with these options and `initial` networks can go on from this state.

        `initial` has one network per stream, or one in all where streams share it.
        """
        problems = [
            f"{f.name} is {getattr(options, f.name)!r} in the layer and {getattr(self.options, f.name)!r} in the state"
            for f in fields(FastMLPOptions)
            if getattr(options, f.name) != getattr(self.options, f.name)
        ]
        if self.num_streams != num_streams:
            problems.append(f"x has {num_streams} streams and the state {self.num_streams}")
        ours, theirs = ([tuple(x.shape) for x in iter_tensors(fast)] for fast in (initial, self.fast))
        if ours != theirs:
            problems.append(f"fast weights are {ours} in the layer and {theirs} in the state")
        if problems:
            raise ValueError(
                "FastWeightMLP: the state must come from the same configuration; "
                + "; ".join(problems)
                + ". Pass state=None to start afresh."
            )


def pack_tokens(
    q: Float[Tensor, "B T Dk"], v: Float[Tensor, "B T Dv"], has_loss: Float[Tensor, "B T"] | None
) -> Float[Tensor, "B T W"]:
    """Join what the writes need."""
    has_loss = v.new_ones(()).expand(v.shape[:2]) if has_loss is None else has_loss
    return torch.cat((q, v, has_loss[..., None]), dim=-1)


def lookahead_target(
    v: Float[Tensor, "K m Dv"], num_written: int, options: FastMLPOptions
) -> Float[Tensor, "K t Dv"]:
    """Return what the first `num_written` tokens learn."""
    first = options.lookahead if options.target == "last" else 0
    shifted = [v[:, i : i + num_written] for i in range(first, options.lookahead + 1)]
    return shifted[0] if len(shifted) == 1 else torch.stack(shifted).mean(0)


def _by_network(x: Tensor, fast: FastMLP) -> Tensor:
    """Bring tokens [K, t, D] to the networks that see them, [S, M, D]."""
    return x if fast.gate.shape[0] == x.shape[0] else x.reshape(1, -1, x.shape[-1])
