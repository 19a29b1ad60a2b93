"""In and out of the authors' release: their config fields, their weights' names, their training arithmetic."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from fwpkm.layers.attention import Attention
from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.memory.fast_mlp import FastMLPState
from fwpkm.memory.state import FwPKMState
from fwpkm.models.cache import BlockState, DecoderCache
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder, DecoderOutput
from fwpkm.models.release_config import decoder_config
from fwpkm.models.release_names import (
    final_fast_weights,
    from_release_layout,
    initial_fast_weights,
    release_name,
    slow_weights,
    to_release_layout,
    unreleased,
)
from fwpkm.models.trace import MemoryTrace
from fwpkm.nested import unknown_name

AttentionKernel = Literal["sdpa", "flash"]


class ReleaseDecoder(Decoder):
    """A decoder that computes what the release computes when it trains.

    In the release a memory's loss mask is made of the layer's attention mask, which depends on the attention
    kernel: "sdpa" has one, of which the last token's row is taken, so that in full attention all pairs count
    for the step size, and in sliding attention only the last window of the call is written at all; "flash" has
    none. Gated DeltaNet layers have none either.

    As in the release, the fast weights after a batch can be had from the model (`after`). Unlike there, the
    next batch starts from the initial ones again, unless `carry` is called.
    """

    def __init__(self, config: DecoderConfig, *, attention_kernel: AttentionKernel = "sdpa") -> None:
        super().__init__(config)
        self.attention_kernel = attention_kernel
        self.after: DecoderCache | None = None
        """What the model knew after the last call, without its graph."""

    def forward(self, *args: Any, **kwargs: Any) -> DecoderOutput:
        """Do what `Decoder.forward` does, and keep the states."""
        output = super().forward(*args, **kwargs)
        self.after = output.cache.detach()
        return output

    def carry(self, cache: DecoderCache | None = None) -> None:
        """Let the next batches start from the fast weights of `cache`, or of the last call if it is None."""
        cache = self.after if cache is None else cache
        if cache is None:
            raise ValueError("ReleaseDecoder.carry: there are no fast weights yet; read a batch first")
        for block, state in zip(self.blocks, cache.blocks, strict=True):
            if isinstance(state.memory, FwPKMState) and isinstance(block.memory, FwPKM):
                block.memory.store_initial(state.memory)
            if isinstance(state.memory, FastMLPState) and isinstance(block.memory, FastWeightMLP):
                block.memory.store_initial(state.memory)

    def _run(
        self,
        block: nn.Module,
        h: Tensor,
        state: BlockState | None,
        mask: Tensor | None,
        options: Mapping[str, Any],
    ) -> tuple[Tensor, BlockState, MemoryTrace | None]:
        mask = None if mask is None or bool(mask.all()) else mask
        write_mask = options["write_mask"]
        if write_mask is None and block.memory is not None:
            write_mask = self._loss_mask(block, h)
        return super()._run(block, h, state, mask, {**options, "write_mask": write_mask})

    def _loss_mask(self, block: nn.Module, h: Tensor) -> Bool[Tensor, "B T"] | None:
        if self.attention_kernel == "flash" or not isinstance(block.mixer, Attention):
            return None
        B, T, _ = h.shape
        window = block.mixer.config.window
        age = torch.arange(T - 1, -1, -1, device=h.device)
        return (age < (T if window is None else window)).expand(B, T)


def from_release(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    attention_kernel: AttentionKernel = "sdpa",
) -> ReleaseDecoder:
    """Build a model from the authors' config fields and weights, in the precision and on the device of the embedding.

    Args:
        config: Fields of the authors' config; those left out are as the release has them.
        tensors: Weights by the authors' names, fast ones included.
        attention_kernel: See `ReleaseDecoder`.

    Raises:
        ValueError: With everything in the config or, if that is fine, in the names and shapes that does
            not fit. Nothing is loaded then.
    """
    model = ReleaseDecoder(decoder_config(config), attention_kernel=attention_kernel)
    expected = release_tensors(model)
    tied = {"lm_head.weight"} if model.config.tie_embeddings else set()
    problems = _mismatches(expected, tensors, tied)
    if problems:
        raise ValueError("from_release: " + "; ".join(problems))
    model.to(tensors["model.embed_tokens.weight"])
    with torch.no_grad():
        for name, ours in (*slow_weights(model), *initial_fast_weights(model)):
            ours.copy_(from_release_layout(name, tensors[name], ours))
    return model


def release_tensors(model: Decoder, cache: DecoderCache | None = None) -> dict[str, Tensor]:
    """Return all weights by the authors' names, without a graph; most share memory with the model.

    Fast weights are those of `cache`; without one, those after the last call of a `ReleaseDecoder`; without
    that, those that a fresh memory starts from.

    Raises:
        ValueError: With the names of all weights to which the release has no counterpart.
    """
    if names := unreleased(model):
        raise ValueError(f"release_tensors: the authors' release has nothing like our {', '.join(names)}")
    found = {**dict(slow_weights(model)), **dict(initial_fast_weights(model))}
    if cache is None and isinstance(model, ReleaseDecoder):
        cache = model.after
    for layer, block in enumerate(() if cache is None else cache.blocks):
        if block.memory is not None:
            finals = final_fast_weights(block.memory)
            found |= {release_name(model, f"blocks.{layer}.memory.{n}"): x for n, x in finals.items()}
    return {name: to_release_layout(name, x.detach()) for name, x in found.items()}


def release_gradients(model: Decoder) -> dict[str, Tensor]:
    """Return the gradients of the slow weights that have one, by the authors' names."""
    return {name: to_release_layout(name, p.grad) for name, p in slow_weights(model) if p.grad is not None}


def _mismatches(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], tied: set[str]) -> list[str]:
    problems = [f"{name} is missing" for name in expected if name not in given]
    problems += [unknown_name("weight", n, expected) for n in given if n not in expected and n not in tied]
    problems += [
        f"{name} must be {tuple(x.shape)} of floats, got {tuple(given[name].shape)} of {given[name].dtype}"
        for name, x in expected.items()
        if name in given and (given[name].shape != x.shape or not given[name].is_floating_point())
    ]
    embedding = given.get("model.embed_tokens.weight")
    for name in tied & given.keys():
        if embedding is not None and not torch.equal(given[name], embedding):
            problems.append(f"{name} must equal model.embed_tokens.weight, as tie_word_embeddings says")
    return problems
