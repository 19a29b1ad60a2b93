"""One layer of a decoder: memory, token mixer and feed-forward part, each added to the residual stream."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fwpkm.layers.attention import Attention, AttentionConfig
from fwpkm.layers.conv import ShortConv
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.lact import LaCT
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.norm import RMSNorm
from fwpkm.layers.pkm import PKMConfig, ProductKeyMemory
from fwpkm.layers.swiglu import SwiGLU
from fwpkm.models.cache import BlockState, MemoryState
from fwpkm.models.config import DecoderConfig, FeedForwardConfig, MemoryConfig, MixerConfig
from fwpkm.models.trace import MemoryTrace, trace_memory


class Block(nn.Module):
    """Apply one layer:  h += conv(norm(h)) ;  h += memory(h) ;  h += mixer(norm(h)) ;  h += ffn(norm(h)).

    The convolution and the memory are optional, and the memory may come after the mixer. It normalises its
    own input.

    Args:
        config: What defines the decoder.
        layer: Which of its layers this is.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        D, eps = config.dim, config.norm_eps
        self.memory_first = config.memory_position == "before"
        self.narrows = config.mixer_kind(layer) == "full_attention"
        if config.short_conv is not None:
            self.conv_norm = RMSNorm(D, eps=eps)
        self.conv = None if config.short_conv is None else ShortConv(D, config.short_conv)
        memory = config.memory(layer)
        self.memory = None if memory is None else _make_memory(memory)
        self.mixer_norm, self.mixer = RMSNorm(D, eps=eps), _make_mixer(D, config.mixer(layer))
        self.ffn_norm, self.ffn = RMSNorm(D, eps=eps), _make_feed_forward(D, config.feed_forward(layer))

    def forward(
        self,
        h: Float[Tensor, "B T D"],
        state: BlockState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
        window: int | None = None,
        trace: bool = False,
    ) -> tuple[Float[Tensor, "B T D"], BlockState, MemoryTrace | None]:
        """Return hidden states, the block's state after them, and what the memory did if `trace` asks for it.

        Args:
            h: Hidden states.
            state: What came before; None is nothing.
            mask: False at padding; None is no padding.
            write_mask: False at tokens that the memory is not to learn.
            window: Narrows full attention to so many tokens in this call.
            trace: Whether to find out what the memory reads, which costs its arithmetic again.
        """
        conv, memory, seen = None, None, None
        if self.conv is not None:
            y, conv = self.conv(self.conv_norm(h), None if state is None else state.conv, mask)
            h = h + y
        if self.memory is not None and self.memory_first:
            h, memory, seen = self._remember(h, state, mask, write_mask, trace)
        narrow = {"window": window} if self.narrows and window is not None else {}
        y, mixer = self.mixer(self.mixer_norm(h), None if state is None else state.mixer, mask, **narrow)
        h = h + y
        if self.memory is not None and not self.memory_first:
            h, memory, seen = self._remember(h, state, mask, write_mask, trace)
        h = h + self.ffn(self.ffn_norm(h))
        return h, BlockState(mixer=mixer, memory=memory, conv=conv), seen

    def _remember(
        self,
        h: Tensor,
        state: BlockState | None,
        mask: Tensor | None,
        write_mask: Tensor | None,
        trace: bool,
    ) -> tuple[Tensor, MemoryState, MemoryTrace | None]:
        assert self.memory is not None, "only asked where there is one"
        before = None if state is None else state.memory
        y, after = self.memory(h, before, mask, write_mask=write_mask)
        seen = trace_memory(self.memory, h, before, mask, write_mask) if trace else None
        return h + y, after, seen


def _make_mixer(dim: int, config: MixerConfig) -> nn.Module:
    if isinstance(config, LaCTConfig):
        return LaCT(dim, config)
    return Attention(dim, config) if isinstance(config, AttentionConfig) else GatedDeltaNet(dim, config)


def _make_feed_forward(dim: int, config: FeedForwardConfig) -> nn.Module:
    return ProductKeyMemory(config) if isinstance(config, PKMConfig) else SwiGLU(dim, config)


def _make_memory(config: MemoryConfig) -> FwPKM | FastWeightMLP:
    return FwPKM(config) if isinstance(config, FwPKMConfig) else FastWeightMLP(config)
