"""What all transformers models of this package have in common: files, embeddings, and reading tokens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from fwpkm.layers.fwmlp import FastWeightMLP
from fwpkm.layers.fwpkm import FwPKM
from fwpkm.models.decoder import Decoder
from fwpkm.models.hf.cache import FwPKMCache
from fwpkm.models.hf.config import FwPKMHFConfig


class Reading(NamedTuple):
    """What came of one call."""

    hidden: Float[Tensor, "B T D"]
    """Normalised hidden states."""
    inputs: tuple[Float[Tensor, "B T D"], ...] | None
    """What went into each block, and the normalised hidden states, if asked for."""
    cache: FwPKMCache | None
    """What goes on from here, if asked for."""
    mask: Bool[Tensor, "B T"] | None
    """False at padding; None if there is none."""


class FwPKMPreTrainedModel(PreTrainedModel):
    """A decoder with the manners of a transformers model."""

    config_class = FwPKMHFConfig
    config: FwPKMHFConfig
    decoder: Decoder
    base_model_prefix = "decoder"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (as transformers declares it)
    _supports_sdpa = True

    def __init__(self, config: FwPKMHFConfig, decoder: Decoder | None = None) -> None:
        super().__init__(config)
        if decoder is not None and decoder.config != config.decoder_config:
            name = type(self).__name__
            raise ValueError(f"{name}: decoder was not built from config; use {name}.from_decoder(decoder)")
        self.decoder = Decoder(config.decoder_config) if decoder is None else decoder
        self._keep_in_fp32_modules_strict = _exact_names(self)
        if not next(self.parameters()).is_meta:
            for module in self.modules():  # the decoder has drawn them all
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.post_init()

    @classmethod
    def from_decoder(cls, decoder: Decoder, **config: Any) -> Any:
        """Wrap a decoder, sharing its weights; `config` is what else `FwPKMHFConfig` takes."""
        return cls(FwPKMHFConfig(decoder.config, **config), decoder)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load what `save_pretrained` saved, as any transformers model.

        Raises:
            ValueError: With all names that the weights lack, have too many or have in another shape, also if
                `ignore_mismatched_sizes` asks to draw the latter anew: a memory's tables cannot be guessed.
        """
        # Without this transformers raises too, but leaves the names to its log.
        kwargs["ignore_mismatched_sizes"] = True
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        if problems := _misfits(info):
            raise ValueError(f"{cls.__name__}: the weights do not fit the config; {'; '.join(problems)}")
        return (model, info) if output_loading_info else model

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Give the model more or fewer tokens."""
        embed = super().resize_token_embeddings(*args, **kwargs)
        self.decoder.config = self.config.decoder_config
        return embed

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of tokens."""
        return self.decoder.embed

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Exchange the embedding of tokens."""
        self.decoder.embed = value  # type: ignore[assignment]

    def get_output_embeddings(self) -> nn.Linear | None:
        """Return what makes the logits, if it is not the embedding."""
        return None if self.decoder.config.tie_embeddings else self.decoder.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Exchange what makes the logits."""
        if self.decoder.config.tie_embeddings:
            raise ValueError(
                f"{type(self).__name__}: logits are products with the embedding; exchange that one, or build the "
                "model with tie_word_embeddings=False"
            )
        self.decoder.lm_head = value  # type: ignore[assignment]

    def _read(
        self,
        input_ids: Int[Tensor, "B T"] | None,
        inputs_embeds: Float[Tensor, "B T D"] | None,
        attention_mask: Shaped[Tensor, "b L"] | None,
        cache: object,
        use_cache: bool | None,
        output_hidden_states: bool | None,
    ) -> Reading:
        """Let the decoder read the next tokens, and keep what was asked for."""
        name = type(self).__name__
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(f"{name}: give either input_ids or inputs_embeds")
        given = cache is not None
        cache = cache if given else FwPKMCache()
        if not isinstance(cache, FwPKMCache):
            raise TypeError(
                f"{name}: cache must be a FwPKMCache, which holds memories too, got "
                f"{type(cache).__name__}; leave it out to start afresh"
            )
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        h = self.decoder.embed(input_ids) if inputs_embeds is None else inputs_embeds
        mask = _new_columns(name, attention_mask, h, cache.get_seq_length())
        with _recorded(self.decoder, bool(wanted)) as inputs:
            hidden = cache.advance(self.decoder, h, mask)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        return Reading(
            hidden=hidden,
            inputs=(*inputs, hidden) if wanted else None,
            cache=cache if use_cache or given else None,
            mask=mask,
        )

    def _gives_dict(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give a loaded module what no checkpoint holds, and new rows of resized embeddings their numbers."""
        if isinstance(module, FwPKM | FastWeightMLP):
            _restore_initial(module)
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.decoder.config.initializer_range)

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
                f"{type(self).__name__}: checkpointing takes every layer and use_reentrant=False, got "
                f"every_n_layers={every_n_layers}, use_reentrant={options.get('use_reentrant')}"
            )
        self.decoder.gradient_checkpointing = enable


def _exact_names(model: nn.Module) -> set[str]:
    """Name what a fresh memory starts from, which layers keep in float32 whatever the model is converted to."""
    return {n for n in model.state_dict() if ".memory.initial_" in n or n.endswith(".memory.log_temperature")}


def _misfits(info: Mapping[str, Any]) -> list[str]:
    """Say what transformers' loading report finds wrong, everything by name."""
    shapes = [
        f"{name} ({tuple(file)} in the file, {tuple(ours)} by the config)"
        for name, file, ours in sorted(info["mismatched_keys"])
    ]
    found = {
        "missing": sorted(info["missing_keys"]),
        "unknown": sorted(info["unexpected_keys"]),
        "of another shape": shapes,
    }
    return [f"{what}: {', '.join(names)}" for what, names in found.items() if names]


def _restore_initial(memory: FwPKM | FastWeightMLP) -> None:
    """Draw what a seed stands for in the files, and keep what was loaded."""
    tensors = {**dict(memory.named_parameters(recurse=False)), **dict(memory.named_buffers(recurse=False))}
    loaded = {name: x.clone() for name, x in tensors.items() if getattr(x, "_is_hf_initialized", False)}
    memory.reset_initial()
    if isinstance(memory, FwPKM):
        memory.reset_temperature()
    for name, x in loaded.items():
        getattr(memory, name).copy_(x)


def _new_columns(
    name: str, attention_mask: Shaped[Tensor, "b L"] | None, h: Float[Tensor, "B T D"], seq_length: int
) -> Bool[Tensor, "B T"] | None:
    """Return the part of a mask that is about the new tokens, or None if none of them is padding."""
    if attention_mask is None:
        return None
    B, T = h.shape[:2]
    if attention_mask.shape not in ((B, T), (B, seq_length + T)):
        raise ValueError(
            f"{name}: attention_mask must be [B, T] = [{B}, {T}], or [B, {seq_length + T}] with the tokens before, "
            f"0 at padding, got {tuple(attention_mask.shape)}"
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
