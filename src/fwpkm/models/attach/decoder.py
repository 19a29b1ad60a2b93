"""A transformers model with memories, used as a `Decoder`: trained by the same loop, measured by the same code."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.kv import KVState
from fwpkm.models.attach.attach import memories
from fwpkm.models.attach.attachment import is_of_memory
from fwpkm.models.attach.cache import memory_states, set_memory_states
from fwpkm.models.attach.families import decoder_of, layers_of
from fwpkm.models.attach.sinks import SinkTurner, sink_turner
from fwpkm.models.attach.window import attention_window, window_cache
from fwpkm.models.base_config import BaseConfig
from fwpkm.models.cache import BlockState, DecoderCache
from fwpkm.models.decoder import Decoder, DecoderOutput
from fwpkm.models.trace import MemoryTrace, trace_memory


class BaseDecoder(Decoder):
    """Predict the next token of B streams with a transformers model and its memories.

    Streams must have read equally many tokens, so there is no padding: read documents of different lengths one by
    one. What a training step reads cannot be continued.

    >>> decoder = BaseDecoder(fwpkm.attach(load_base(path), layers=[20]), config)

    Args:
        base: A model with memories.
        config: What it was made from; `tuned_layers` are those that are trained.

    Raises:
        ValueError: If its logits are not hidden states times a matrix.
    """

    def __init__(self, base: PreTrainedModel, config: BaseConfig) -> None:
        nn.Module.__init__(self)
        self.base = base
        _check_head(base)
        self.config: Any = config

    @property
    def embed(self) -> Any:  # type: ignore[override]
        """The embedding of tokens."""
        return self.base.get_input_embeddings()

    @property
    def head_weight(self) -> Float[Tensor, "V D"]:
        """What hidden states are multiplied with to give logits."""
        return self.base.get_output_embeddings().weight

    @property
    def blocks(self) -> Any:  # type: ignore[override]
        """Each layer's memory, or None."""
        own = memories(self.base)
        return [SimpleNamespace(memory=own.get(layer)) for layer in range(len(layers_of(self.base)))]

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether training keeps only what goes in and out of each layer, and computes the rest twice."""
        return bool(self.base.is_gradient_checkpointing)

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        if wanted:
            self.base.activation_checkpointing_enable({"use_reentrant": False})

    def lr_factors(self) -> dict[Tensor, float]:
        """Return the factors on the step size of weights that have one of their own."""
        tuned = [p for name, p in self.base.named_parameters() if p.requires_grad and not is_of_memory(name)]
        return dict.fromkeys(tuned, self.config.tuned_lr_factor)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return what training changes: memories and tuned layers. The rest comes with the base."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        state = super().state_dict(*args, **kwargs)
        return {name: x for name, x in state.items() if name in trained or is_of_memory(name)}

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
        """Read the next `T` tokens of `B` streams; arguments as for any decoder, but without padding.

        Raises:
            ValueError: If there is padding, or a cache that a training step has left.
        """
        _refuse(mask, write_mask, cache)
        if not input_ids.shape[1]:
            return self._nothing(cache or self._fresh(input_ids.shape[0]))
        keeps = not (self.training and torch.is_grad_enabled())
        own = self._to_transformers(cache or self._fresh(input_ids.shape[0])) if keeps else None
        with self._traced(trace) as found:
            h = torch.cat([self._read(part, own) for part in self._spans(input_ids, cache)], dim=1)
        kept = h if logits_to_keep is None else h[:, max(0, h.shape[1] - logits_to_keep) :]
        return DecoderOutput(
            logits=kept @ self.head_weight.T,
            hidden=h,
            cache=DecoderCache(blocks=()) if own is None else self._from_transformers(own),
            traces=tuple(_joined(found.get(i)) for i in range(len(self.blocks))) if trace else (),
        )

    def _read(self, part: Int[Tensor, "B T"], own: DynamicCache | None) -> Float[Tensor, "B T D"]:
        decoder = decoder_of(self.base)
        return decoder(part, cache=own, use_cache=own is not None).last_hidden_state

    def _spans(
        self, input_ids: Int[Tensor, "B T"], cache: DecoderCache | None
    ) -> Sequence[Int[Tensor, "B _"]]:
        """Cut tokens where the text's first ones move, so that any pieces give the same."""
        turner = self._turner()
        if turner is None:
            return [input_ids]
        mixer = None if cache is None else cache.blocks[0].mixer
        seen = mixer.longest if isinstance(mixer, KVState) else 0
        first = min(input_ids.shape[1], turner.span - seen % turner.span)
        rest = input_ids[:, first:].split(turner.span, dim=1) if first < input_ids.shape[1] else ()
        return [input_ids[:, :first], *rest]

    def _turner(self) -> SinkTurner | None:
        limit = attention_window(self.base)
        return None if limit is None else sink_turner(self.base, limit.window, limit.sinks)

    def _nothing(self, cache: DecoderCache) -> DecoderOutput:
        """Return what no tokens give."""
        weight = self.head_weight
        h = weight.new_zeros(cache.num_streams, 0, weight.shape[1])
        return DecoderOutput(logits=h @ weight.T, hidden=h, cache=cache)

    def _fresh(self, B: int) -> DecoderCache:
        """Return what streams know that have read nothing."""
        config, weight = self.base.config, self.head_weight
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        none, seen = (
            weight.new_zeros(B, 0, groups, width),
            torch.zeros(B, dtype=torch.int64, device=weight.device),
        )
        mixer = KVState(keys=none, v=none, tokens_seen=seen, shortest=0, longest=0)
        states = {layer: memory.initial_state(B) for layer, memory in memories(self.base).items()}
        return DecoderCache(
            blocks=tuple(BlockState(mixer=mixer, memory=states.get(i)) for i in range(len(self.blocks)))
        )

    def _to_transformers(self, cache: DecoderCache) -> DynamicCache:
        """Give transformers the same cache in its own terms; it never edits what it is given."""
        turner, own = self._turner(), _empty_cache(self.base)
        set_memory_states(own, {i: b.memory for i, b in enumerate(cache.blocks) if b.memory is not None})  # type: ignore[misc]
        layers: list[Any] = own.layers
        for layer, block in zip(layers, cache.blocks, strict=True):
            assert isinstance(block.mixer, KVState), "a base has nothing else"
            if block.mixer.longest:
                keys, v = block.mixer.keys.transpose(1, 2), block.mixer.v.transpose(1, 2)
                layer.lazy_initialization(keys, v)
                layer.keys, layer.values = keys, v
                layer.cumulative_length = block.mixer.longest
                layer.span = 0 if turner is None else turner.span_of(block.mixer.longest - 1)
        return own

    def _from_transformers(self, own: DynamicCache) -> DecoderCache:
        states, blocks, layers = memory_states(own), [], list[Any](own.layers)
        for i, layer in enumerate(layers):
            keys, v, seen = layer.keys.transpose(1, 2), layer.values.transpose(1, 2), layer.get_seq_length()
            count = torch.full((keys.shape[0],), seen, device=keys.device)
            mixer = KVState(keys=keys, v=v, tokens_seen=count, shortest=seen, longest=seen)
            blocks.append(BlockState(mixer=mixer, memory=states.get(i)))
        return DecoderCache(blocks=tuple(blocks))

    @contextmanager
    def _traced(self, wanted: bool) -> Iterator[Mapping[int, list[MemoryTrace]]]:
        """Note what memories do in the calls within, if that is wanted."""
        found: dict[int, list[MemoryTrace]] = {}
        with ExitStack() as stack:
            for layer, memory in memories(self.base).items() if wanted else ():

                def note(memory: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
                    assert isinstance(memory, FwPKM)
                    found.setdefault(layer, []).append(trace_memory(memory, *args))

                stack.callback(memory.register_forward_pre_hook(note).remove)
            yield found


def _empty_cache(base: PreTrainedModel) -> DynamicCache:
    if attention_window(base) is not None:
        return window_cache(base)
    cache = DynamicCache()
    cache.layers = [DynamicLayer() for _ in layers_of(base)]
    cache.layer_class_to_replicate = None
    return cache


def _joined(parts: Sequence[MemoryTrace] | None) -> MemoryTrace | None:
    """Put what a memory did in several calls one after another."""
    if parts is None:
        return None
    named = {f.name: [getattr(part, f.name) for part in parts] for f in fields(MemoryTrace)}
    return MemoryTrace(
        **{name: None if found[0] is None else torch.cat(found, dim=1) for name, found in named.items()}
    )


def _check_head(base: PreTrainedModel) -> None:
    head = base.get_output_embeddings()
    capped = getattr(base.config, "final_logit_softcapping", None) is not None
    if capped or getattr(head, "weight", None) is None or getattr(head, "bias", None) is not None:
        raise ValueError(
            f"BaseDecoder: logits must be hidden states times a matrix, which those of {type(base).__name__} are not; "
            "train it with transformers' Trainer"
        )


def _refuse(mask: Tensor | None, write_mask: Tensor | None, cache: DecoderCache | None) -> None:
    if (mask is not None and not bool(mask.all())) or (write_mask is not None and not bool(write_mask.all())):
        raise ValueError(
            "BaseDecoder: streams must be of one length and learn all that they read, got a mask; read documents "
            "one by one (--batch-size 1)"
        )
    if cache is not None and not cache.blocks:
        raise ValueError(
            "BaseDecoder: what a training step reads cannot be continued; call eval() or torch.no_grad()"
        )
