"""A short causal convolution over time: every channel mixes its last few tokens."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fwpkm.layers.checks import below_one, refuse
from fwpkm.layers.norm import at_least_float32
from fwpkm.layers.padding import Packing, packing_of
from fwpkm.ops.short_conv import short_conv
from fwpkm.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvConfig:
    """What defines a short convolution besides its width."""

    kernel_size: int = 4
    """Tokens that one output sees: itself and kernel_size - 1 before it."""
    bias: bool = False
    """Whether every channel adds a constant."""

    def __post_init__(self) -> None:
        refuse("ShortConvConfig", below_one(self, "kernel_size"))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShortConvState(State):
    """The last tokens of B streams, which the next outputs still see."""

    tail: Float[Tensor, "B reach D"]
    """The last kernel_size - 1 real tokens, newest last; zeros before a stream's first token."""
    tokens_seen: Int[Tensor, " B"]
    """Real tokens of each stream so far."""

    def select(self, streams: Int[Tensor, " b"]) -> "ShortConvState":
        """Return the states of `streams`, repeated or reordered as asked."""
        return replace(self, tail=self.tail[streams], tokens_seen=self.tokens_seen[streams])


class ShortConv(nn.Module):
    """Convolve each channel with its own causal kernel: y_t = sum_i w_i x_{t - K + 1 + i}.

    Args:
        dim: Number of channels.
        config: Kernel size and bias.
    """

    def __init__(self, dim: int, config: ShortConvConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 1, config.kernel_size))
        self.bias = nn.Parameter(torch.empty(dim)) if config.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel uniformly within +-1/sqrt(kernel_size), as torch does; the bias is zero."""
        bound = self.weight.shape[-1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def initial_state(self, x: Float[Tensor, "B T D"]) -> ShortConvState:
        """Return the state before the first token of streams like `x`."""
        tail = x.new_zeros(x.shape[0], self.weight.shape[-1] - 1, x.shape[-1])
        return ShortConvState(tail=tail, tokens_seen=x.new_zeros(x.shape[0], dtype=torch.int64))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: ShortConvState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], ShortConvState]:
        """Convolve `x`; `mask` is False at padding, which is skipped over and gives zeros.

        Returns:
            Outputs in the dtype of `x`, and the state after the last token.
        """
        state = self.initial_state(x) if state is None else state
        packing = packing_of(mask)
        full = torch.cat((state.tail, x if packing is None else packing.pack(x)), dim=1)
        y = self._convolve(full).to(x.dtype)
        y = y if packing is None else packing.unpack(y)
        return y, self._next_state(full, state, packing)

    def _convolve(self, full: Float[Tensor, "B S D"]) -> Float[Tensor, "B T D"]:
        wide, weight = at_least_float32(full), at_least_float32(self.weight[:, 0])
        dtype = torch.promote_types(wide.dtype, weight.dtype)
        y = short_conv(wide.to(dtype), weight.to(dtype))
        return y if self.bias is None else y + self.bias

    def _next_state(
        self, full: Float[Tensor, "B S D"], state: ShortConvState, packing: Packing | None
    ) -> ShortConvState:
        reach = state.tail.shape[1]
        T = full.shape[1] - reach
        if packing is None:
            # A view would keep all of `full` alive for the sake of its last tokens.
            return ShortConvState(tail=full[:, T:].clone(), tokens_seen=state.tokens_seen + T)
        place = packing.lengths[:, None] + torch.arange(reach, device=full.device)
        tail = full.gather(1, place[..., None].expand(-1, -1, full.shape[-1]))
        return ShortConvState(tail=tail, tokens_seen=state.tokens_seen + packing.lengths)

    def extra_repr(self) -> str:
        """Show the sizes when the module is printed."""
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}"
