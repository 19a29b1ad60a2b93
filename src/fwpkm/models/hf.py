"""The decoder at home in transformers: `AutoModelForCausalLM`, `generate()` and `Trainer` work on it.

Importing this module registers the model type "fwpkm", after which the Auto classes know it.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.cache import DecoderCache
from fwpkm.models.config import DecoderConfig
from fwpkm.models.decoder import Decoder

try:
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
    from transformers.cache_utils import Cache
    from transformers.generation import GenerationMixin
    from transformers.modeling_outputs import CausalLMOutputWithPast
except ImportError as error:
    raise ImportError("fwpkm.models.hf needs transformers 5: pip install 'fwpkm[hf]'") from error


class FwPKMHFConfig(PretrainedConfig):
    """A `DecoderConfig` as transformers wants it.

    `model` is the decoder's config as a plain mapping, the same as a recipe's `[model]`; in config.json it is one
    section, checked as a whole. Names that transformers looks for read and write through to it.

    >>> config = FwPKMHFConfig(DecoderConfig(...), eos_token_id=2)
    >>> config.decoder_config
    """

    model_type = "fwpkm"
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        model: DecoderConfig | Mapping[str, Any] | None = None,
        *,
        use_cache: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if model is None:
            raise ValueError(
                "FwPKMHFConfig: model is missing; pass a DecoderConfig, or the [model] section of a recipe"
            )
        config = model if isinstance(model, DecoderConfig) else DecoderConfig.from_dict(model)
        self.model = config.to_dict()
        self.use_cache = use_cache
        self.pad_token_id, self.bos_token_id, self.eos_token_id = pad_token_id, bos_token_id, eos_token_id
        super().__init__(**kwargs)

    @property
    def decoder_config(self) -> DecoderConfig:
        """The config that the decoder is built from."""
        return DecoderConfig.from_dict(self.model)


def _part_of_model(name: str) -> property:
    """Make a property that reads and writes one field of `FwPKMHFConfig.model`."""

    def get(self: FwPKMHFConfig) -> Any:
        return getattr(self.decoder_config, name)

    def put(self: FwPKMHFConfig, value: Any) -> None:
        self.model = DecoderConfig.from_dict({**self.model, name: value}).to_dict()

    return property(get, put, doc=f"`{name}` of the decoder's config.")


for _theirs, _ours in (
    ("vocab_size", "vocab_size"),
    ("hidden_size", "dim"),
    ("num_hidden_layers", "num_layers"),
    ("tie_word_embeddings", "tie_embeddings"),
    ("initializer_range", "initializer_range"),
):
    setattr(FwPKMHFConfig, _theirs, _part_of_model(_ours))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """One call of the decoder, to do again up to an earlier token."""

    decoder: Decoder
    before: DecoderCache | None
    h: Float[Tensor, "B T D"]
    mask: Bool[Tensor, "B T"] | None

    @property
    def num_tokens(self) -> int:
        """Tokens of each stream, padding counted."""
        return self.h.shape[1]

    def shortened(self, num_tokens: int) -> "_Call":
        """Return the same call on its first tokens only."""
        mask = None if self.mask is None else self.mask[:, :num_tokens]
        return replace(self, h=self.h[:, :num_tokens], mask=mask)

    @torch.no_grad()
    def repeat(self) -> DecoderCache:
        """Do it again."""
        return self.decoder.read(self.h, self.before, self.mask, logits_to_keep=0).cache


class FwPKMCache(Cache):
    """What `generate()` calls `past_key_values`: a handle on a `DecoderCache` that moves on with every call.

    The cache behind it is a value. `copy.copy(cache)` therefore costs nothing, and gives a continuation of its
    own, as many as you like, from the same memory.
    """

    def __init__(self, state: DecoderCache | None = None, seq_length: int | None = None) -> None:
        super().__init__(layers=[])
        self.state = state
        """All states of all layers; None before the first token."""
        self._seq_length = int(state.tokens_seen.max()) if state and seq_length is None else seq_length or 0
        self._calls: list[_Call] | None = None

    def advance(
        self, decoder: Decoder, h: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T D"]:
        """Let `decoder` read embedded tokens, go on to the state after them, and return hidden states."""
        if self._calls is not None:
            self._calls.append(_Call(decoder=decoder, before=self.state, h=h.detach(), mask=mask))
        output = decoder.read(h, self.state, mask, logits_to_keep=0)
        self.state = output.cache
        self._seq_length += h.shape[1]
        return output.hidden

    def crop(self, tokens_to_remove: int) -> None:
        """Go back by -tokens_to_remove tokens, at most to where recording began or `crop` was last called.

        Writes are undone by going back to the state before the last calls, and reading again what stays.

        Raises:
            RuntimeError: If the calls were not recorded.
        """
        number = -tokens_to_remove
        if number < 0:
            raise ValueError(f"FwPKMCache.crop: give tokens to remove as a negative number, got {-number}")
        calls = self._calls or []
        if number > sum(call.num_tokens for call in calls):
            raise RuntimeError(
                f"FwPKMCache.crop: cannot take back {number} tokens, as writes to a memory are not undone unless "
                "they are recorded; call activate_past_recording() before reading them, or keep a copy.copy(cache)"
            )
        self._seq_length -= number
        while number > 0:
            call = calls.pop()
            self.state, kept = call.before, call.num_tokens - number
            if kept > 0:
                self.state = call.shortened(kept).repeat()
            number = -kept
        calls.clear()

    def activate_past_recording(self) -> None:
        """Remember all calls from now on, so that `crop` can take them back."""
        self._calls = self._calls or []

    def reorder_cache(self, beam_idx: Int[Tensor, " b"]) -> None:
        """Let beams go on from the states of others, memories included."""
        self._select(beam_idx)

    def batch_select_indices(self, indices: Shaped[Tensor, " b"]) -> None:
        """Keep some streams: their numbers, or True for each to keep."""
        self._select(indices.nonzero().flatten() if indices.dtype == torch.bool else indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every stream, copies of one stream next to each other."""
        if self.state is not None:
            self._select(torch.arange(self.batch_size).repeat_interleave(repeats))

    def _select(self, streams: Tensor) -> None:
        if self.state is not None:
            self.state = self.state.select(streams.to(self.state.tokens_seen.device))
        if self._calls:
            self._calls.clear()  # they were calls of other streams

    def reset(self) -> None:
        """Forget everything."""
        self.state, self._seq_length = None, 0
        if self._calls:
            self._calls.clear()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens so far, padding counted."""
        return self._seq_length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: there is no longest sequence."""
        return -1

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: the decoder goes on by `advance`."""
        raise NotImplementedError("FwPKMCache: only a FwPKM model can write to it, through advance()")

    @property
    def batch_size(self) -> int:
        """Streams; -1 before the first token."""
        return -1 if self.state is None else self.state.num_streams

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` can take back what comes."""
        return self._calls is not None

    @property
    def is_initialized(self) -> bool:
        """Whether a token was seen."""
        return self.state is not None

    @property
    def is_compileable(self) -> bool:
        """Whether it has a fixed size: no."""
        return False

    def __len__(self) -> int:
        """Layers that have a state."""
        return 0 if self.state is None else len(self.state.blocks)

    def __copy__(self) -> "FwPKMCache":
        other = FwPKMCache(self.state, self._seq_length)
        other._calls = None if self._calls is None else list(self._calls)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "FwPKMCache":
        return copy.copy(self)  # what is shared is never edited

    def __repr__(self) -> str:
        return f"FwPKMCache(batch_size={self.batch_size}, seq_length={self._seq_length})"


class FwPKMForCausalLM(PreTrainedModel, GenerationMixin):
    """Any decoder of this package as a transformers model.

    >>> model = FwPKMForCausalLM(FwPKMHFConfig(decoder_config))
    >>> model.generate(input_ids, max_new_tokens=20)
    """

    config_class = FwPKMHFConfig
    base_model_prefix = "decoder"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _no_split_modules = ("Block",)
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ("initial_*", "log_temperature")

    def __init__(self, config: FwPKMHFConfig, decoder: Decoder | None = None) -> None:
        super().__init__(config)
        if decoder is not None and decoder.config != config.decoder_config:
            raise ValueError("FwPKMForCausalLM: decoder was not built from config; use from_decoder(decoder)")
        self.decoder = Decoder(config.decoder_config) if decoder is None else decoder
        if not next(self.parameters()).is_meta:
            for module in self.modules():  # the decoder has drawn them all
                module._is_hf_initialized = True
        self.post_init()

    @classmethod
    def from_decoder(cls, decoder: Decoder, **config: Any) -> "FwPKMForCausalLM":
        """Wrap a decoder, sharing its weights; `config` is what else `FwPKMHFConfig` takes."""
        return cls(FwPKMHFConfig(decoder.config, **config), decoder)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load what `save_pretrained` saved, as any transformers model.

        Raises:
            ValueError: With all names that the weights lack, have too many or have in another shape.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        problems = {
            "missing": sorted(info["missing_keys"]),
            "unknown": sorted(info["unexpected_keys"]),
            "of another shape": sorted(str(key[0]) for key in info["mismatched_keys"]),
        }
        if any(problems.values()):
            text = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
            raise ValueError(f"FwPKMForCausalLM: the weights do not fit the config; {text}")
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "B L"] | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, " kept"] = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        shift_labels: Int[Tensor, "B T"] | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read the next tokens. Positions follow from the mask: real tokens are counted, padding is not.

        Args:
            input_ids: Tokens; or else `inputs_embeds`.
            attention_mask: 0 at padding, wherever it is, for these T tokens or for all since the start.
            past_key_values: A `FwPKMCache`, which moves on; None starts afresh.
            inputs_embeds: The tokens' embeddings.
            labels: What the tokens should be, each in its place, -100 where none counts.
            use_cache: Whether to return the cache; None: as the config says, and not in training.
            logits_to_keep: Number of last tokens that get logits, 0 for all, or the places of those that do.
            output_hidden_states: Whether to return the embeddings, what each block made of them, and the last
                one normalised.
            return_dict: False gives a tuple.
            num_items_in_batch: What the sum of losses is divided by; None: the labels that count.
            shift_labels: Labels in the place of the tokens that predict them.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("FwPKMForCausalLM: give either input_ids or inputs_embeds")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        cache = FwPKMCache() if past_key_values is None else past_key_values
        if not isinstance(cache, FwPKMCache):
            raise TypeError(
                f"FwPKMForCausalLM: past_key_values must be a FwPKMCache, which holds memories too, got "
                f"{type(cache).__name__}; leave it out to start afresh"
            )
        h = self.decoder.embed(input_ids) if inputs_embeds is None else inputs_embeds
        mask = _new_columns(attention_mask, h, cache.get_seq_length())
        with _recorded(self.decoder, bool(output_hidden_states)) as inputs:
            hidden = cache.advance(self.decoder, h, mask)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = hidden[:, keep] @ self.decoder.head_weight.T
        loss = None
        if labels is not None or shift_labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=cache if use_cache or past_key_values is not None else None,
            hidden_states=(*inputs, hidden) if output_hidden_states else None,
        )
        return output if return_dict in (None, True) else output.to_tuple()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Give the model more or fewer tokens."""
        embed = super().resize_token_embeddings(*args, **kwargs)
        self.decoder.config = self.config.decoder_config
        return embed

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of tokens."""
        return self.decoder.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Exchange the embedding of tokens."""
        self.decoder.embed = value

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return what makes the logits, if it is not the embedding."""
        return None if self.decoder.config.tie_embeddings else self.decoder.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Exchange what makes the logits."""
        if self.decoder.config.tie_embeddings:
            raise ValueError("FwPKMForCausalLM: logits are products with the embedding; exchange that one")
        self.decoder.lm_head = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give a loaded module what no checkpoint holds, and new rows of resized embeddings their numbers."""
        if isinstance(module, FwPKM):
            keys = module.initial_keys.clone()
            module.reset_initial()
            if getattr(module.initial_keys, "_is_hf_initialized", False):
                module.initial_keys.copy_(keys)
            if not module.config.learn_temperature:
                module.log_temperature = torch.tensor(math.log(module.config.temperature), device=keys.device)
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] | None = None,
        every_n_layers: int = 1,
    ) -> None:
        """Let the decoder compute each block twice; it has one way to do so, and refuses others."""
        options = getattr(gradient_checkpointing_func, "keywords", {})
        if enable and (every_n_layers != 1 or options.get("use_reentrant")):
            raise ValueError(
                "FwPKMForCausalLM: checkpointing takes every layer and use_reentrant=False, got "
                f"every_n_layers={every_n_layers}, use_reentrant={options.get('use_reentrant')}"
            )
        self.decoder.gradient_checkpointing = enable

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Start `generate()` with a cache that holds memories; there is one kind."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                "FwPKMForCausalLM: cache_implementation must be left out, as memories need a FwPKMCache, got "
                f"{generation_config.cache_implementation!r}"
            )
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache:
            model_kwargs["past_key_values"] = FwPKMCache()
            if generation_config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()


def _new_columns(
    attention_mask: Shaped[Tensor, "B L"] | None, h: Float[Tensor, "B T D"], seq_length: int
) -> Bool[Tensor, "B T"] | None:
    """Return the part of a mask that is about the new tokens, or None if none of them is padding."""
    if attention_mask is None:
        return None
    B, T = h.shape[:2]
    if attention_mask.shape not in ((B, T), (B, seq_length + T)):
        raise ValueError(
            f"FwPKMForCausalLM: attention_mask must be [B, T] = [{B}, {T}], or [B, {seq_length + T}] with the tokens "
            f"before, 0 at padding, got {tuple(attention_mask.shape)}"
        )
    mask = attention_mask[:, attention_mask.shape[1] - T :].to(device=h.device, dtype=torch.bool)
    return None if bool(mask.all()) else mask


@contextmanager
def _recorded(decoder: Decoder, wanted: bool) -> Iterator[list[Tensor]]:
    """Collect what goes into each block during one call."""
    inputs: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0])

    hooks = [block.register_forward_pre_hook(note) for block in decoder.blocks] if wanted else []
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def register() -> None:
    """Make the Auto classes know the model type "fwpkm". Importing this module does it."""
    AutoConfig.register("fwpkm", FwPKMHFConfig, exist_ok=True)
    AutoModelForCausalLM.register(FwPKMHFConfig, FwPKMForCausalLM, exist_ok=True)


register()
