"""The language model: every system of the study is a configuration of this one decoder."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fwpkm.layers.gated_delta_net import GatedDeltaNet
from fwpkm.layers.inputs import check_state
from fwpkm.layers.norm import RMSNorm
from fwpkm.layers.pkm import ProductKeyMemory
from fwpkm.models.block import Block
from fwpkm.models.cache import BlockState, DecoderCache
from fwpkm.models.config import DecoderConfig
from fwpkm.models.loss import next_token_loss, next_token_targets
from fwpkm.models.trace import MemoryTrace

_MOST_GRAPHS = 64
"""Forms of a block's code that are kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderOutput:
    """What a decoder answers."""

    logits: Float[Tensor, "B kept V"]
    """Scores of the next token, for the last tokens that were asked for."""
    hidden: Float[Tensor, "B T D"]
    """Normalised hidden states, from which the logits are made."""
    cache: DecoderCache
    """What the model knows after these tokens."""
    traces: tuple[MemoryTrace | None, ...] = ()
    """What each layer's memory did, if it was asked for."""


class Decoder(nn.Module):
    """Predict the next token of B streams.

    A function of tokens and cache: training, reading a prompt in pieces and answering token by token are
    the same call and give the same numbers.

    >>> model = Decoder(config)
    >>> output = model(torch.tensor([[1, 2, 3]]))
    >>> output = model(torch.tensor([[4]]), output.cache)
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        """Whether training keeps only what goes in and out of each block, and computes the rest twice."""
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.dim, config.vocab_size, bias=False)
        self._draw()

    def reset_parameters(self) -> None:
        """Draw everything anew, tables included: what a decoder made on the meta device needs after `to_empty()`.

        >>> with torch.device("meta"):
        ...     model = Decoder(config)
        >>> model.to_empty(device="cpu").reset_parameters()
        """
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None and module is not self:
                reset()
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw projections and embeddings as the authors' release does; memories have drawn their own tables."""
        std = self.config.initializer_range
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, GatedDeltaNet):
                nn.init.normal_(module.conv1d.weight, std=std)
        for module in self.modules():
            # Its projections meet a table whose scale has nothing to do with the model's.
            if isinstance(module, ProductKeyMemory):
                module.reset_parameters()

    @property
    def head_weight(self) -> Float[Tensor, "V D"]:
        """What hidden states are multiplied with to give logits."""
        return self.embed.weight if self.config.tie_embeddings else self.lm_head.weight

    def compile_blocks(self, **options: Any) -> None:
        """Have `torch.compile` make code of every block, in place; blocks of a kind share it.

        What a graph cannot hold runs as it is, between two of them: a memory's rows, chunks of a recurrence, a
        growing cache. Take it for many steps of few shapes: the first of each waits for the compiler.

        Args:
            **options: As `torch.compile` takes them.
        """
        # All kinds of blocks share one `forward`, of which PyTorch would keep 8 forms: with and without gradients, for
        # the first call and later ones, for one token and for any number.
        if "recompile_limit" in inspect.signature(torch.compile).parameters:
            options = {"recompile_limit": _MOST_GRAPHS, **options}
        else:  # before PyTorch 2.13 there is one for everything
            config = importlib.import_module("torch._dynamo").config
            config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
        for block in self.blocks:
            block.compile(**options)

    def lr_factors(self) -> dict[Tensor, float]:
        """Return factors on the step size of weights that have one of their own: none here."""
        return {}

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        cache: DecoderCache | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
        logits_to_keep: int | None = None,
        generator: torch.Generator | None = None,
        trace: bool = False,
    ) -> DecoderOutput:
        """Read the next `T` tokens of `B` streams.

        Args:
            input_ids: Tokens.
            cache: What these streams have seen so far; None starts afresh.
            mask: False at padding, wherever it is; padding changes nothing. None is no padding.
            write_mask: False at tokens that ask the memories but that these are not to learn.
            logits_to_keep: How many of the last tokens get logits; None is all of them.
            generator: Decides, on the CPU, whether a training step narrows full attention
                (`DecoderConfig.narrow_probability`); None is torch's own.
            trace: Whether to find out what the memories read, which costs their arithmetic again.

        Raises:
            ValueError: If tokens, cache or mask do not fit.
            TypeError: If `cache` is none.
        """
        self._check(input_ids, cache, mask)
        return self.read(
            self.embed(input_ids),
            cache,
            mask,
            write_mask=write_mask,
            logits_to_keep=logits_to_keep,
            generator=generator,
            trace=trace,
        )

    def read(
        self,
        h: Float[Tensor, "B T D"],
        cache: DecoderCache | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        write_mask: Bool[Tensor, "B T"] | None = None,
        logits_to_keep: int | None = None,
        generator: torch.Generator | None = None,
        trace: bool = False,
    ) -> DecoderOutput:
        """Do the same for tokens that are embedded already."""
        # One draw per call, before the blocks, so that a checkpointed block repeats itself exactly.
        window = self._draw_window(generator)
        states: Sequence[BlockState | None] = [None] * len(self.blocks) if cache is None else cache.blocks
        after, traces = [], []
        options = {"write_mask": write_mask, "window": window, "trace": trace}
        for block, state in zip(self.blocks, states, strict=True):
            h, state, seen = self._run(block, h, state, mask, options)
            after.append(state)
            traces.append(seen)
        h = self.norm(h)
        kept = h if logits_to_keep is None else h[:, max(0, h.shape[1] - logits_to_keep) :]
        return DecoderOutput(
            logits=kept @ self.head_weight.T,
            hidden=h,
            cache=DecoderCache(blocks=tuple(after)),
            traces=tuple(traces) if trace else (),
        )

    def loss(
        self,
        input_ids: Int[Tensor, "B T"],
        cache: DecoderCache | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        labels: Int[Tensor, "B T"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], DecoderOutput]:
        """Return the mean cross-entropy of each next token, and the output, without logits.

        Args:
            input_ids: Tokens.
            cache: What came before. The first of these tokens is not counted in any case.
            mask: False at padding, which neither counts nor predicts.
            labels: What the tokens should have been, each in its own place, -100 where none counts; None is
                `input_ids`.
            generator: As in `forward`.
        """
        output = self(input_ids, cache, mask, logits_to_keep=0, generator=generator)
        targets = next_token_targets(input_ids if labels is None else labels, mask)
        return next_token_loss(output.hidden, self.head_weight, targets), output

    def _run(
        self,
        block: nn.Module,
        h: Tensor,
        state: BlockState | None,
        mask: Tensor | None,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, BlockState, MemoryTrace | None]:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            # The state is a value: computing it again writes nothing a second time.
            return checkpoint(block, h, state, mask, use_reentrant=False, **options)
        return block(h, state, mask, **options)

    def _draw_window(self, generator: torch.Generator | None) -> int | None:
        p = self.config.narrow_probability
        if not self.training or p == 0 or torch.rand((), generator=generator, device="cpu") >= p:
            return None
        assert self.config.attention is not None, "the config insists on it"
        return self.config.attention.window

    def _check(self, input_ids: Tensor, cache: DecoderCache | None, mask: Tensor | None) -> None:
        if input_ids.ndim != 2 or input_ids.is_floating_point():
            raise ValueError(
                f"Decoder: input_ids must be whole numbers [B, T], got {tuple(input_ids.shape)} of {input_ids.dtype}"
            )
        B, T = input_ids.shape
        if mask is not None and (mask.shape != (B, T) or mask.dtype != torch.bool):
            raise ValueError(
                f"Decoder: mask must be bool [B, T] = [{B}, {T}], True for real tokens, got mask "
                f"{tuple(mask.shape)} of {mask.dtype}"
            )
        if cache is None:
            return
        check_state("Decoder", cache, DecoderCache, "cache")
        if len(cache.blocks) != len(self.blocks):
            raise ValueError(
                f"Decoder: the cache must come from this model, got {len(cache.blocks)} blocks for "
                f"{len(self.blocks)}; pass cache=None to start afresh"
            )
        if cache.num_streams != B:
            raise ValueError(
                f"Decoder: cache and input_ids must be of the same streams, got {cache.num_streams} and {B}; "
                "use cache.select or cache.fork"
            )
