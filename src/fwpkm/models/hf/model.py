"""`AutoModel` and `AutoModelForCausalLM` of this package: any decoder as a transformers model."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformers.generation.configuration_utils import GenerationConfig, GenerationMode
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg

from fwpkm.models.hf.cache import FwPKMCache
from fwpkm.models.hf.pretrained import FwPKMPreTrainedModel
from fwpkm.models.loss import next_token_targets
from fwpkm.nested import unknown_name

F = TypeVar("F", bound=Callable[..., Any])


def _older_name(forward: F) -> F:
    """Let a function take its `cache` as `past_key_values` too: with a warning, as transformers' own models do."""
    return cast(F, deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")(forward))


class FwPKMModel(FwPKMPreTrainedModel):
    """The decoder's hidden states, for heads of your own. It reads the same files as `FwPKMForCausalLM`."""

    @_older_name
    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "b L"] | None = None,
        cache: Any = None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Read the next tokens; arguments as in `FwPKMForCausalLM.forward`."""
        read = self._read(input_ids, inputs_embeds, attention_mask, cache, use_cache, output_hidden_states)
        output = BaseModelOutputWithPast(
            last_hidden_state=read.hidden,
            cache=read.cache,
            hidden_states=read.inputs,
        )
        return output if self._gives_dict(return_dict) else output.to_tuple()


class FwPKMForCausalLM(FwPKMPreTrainedModel, GenerationMixin):
    """Any decoder of this package as a transformers model.

    >>> model = FwPKMForCausalLM(FwPKMHFConfig(decoder_config))
    >>> model.generate(input_ids, max_new_tokens=20)
    """

    accepts_loss_kwargs = True

    @_older_name
    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        attention_mask: Shaped[Tensor, "b L"] | None = None,
        cache: Any = None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, " kept"] = 0,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: int | Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Read the next tokens. Positions follow from the mask: real tokens are counted, padding is not.

        Args:
            input_ids: Tokens; or else `inputs_embeds`.
            attention_mask: 0 at padding, wherever it is, for these T tokens or for all since the start.
            cache: A `FwPKMCache`, which moves on; None starts afresh.
            inputs_embeds: The tokens' embeddings.
            labels: What the tokens should be, each in its place, -100 where none counts. Padding predicts nothing.
            use_cache: Whether to return the cache; None: as the config says, and not in training.
            logits_to_keep: Number of last tokens that get logits, 0 for all, or the places of those that do.
            output_hidden_states: Whether to return the embeddings, what each block made of them, and the last
                one normalised; None: as the config says.
            return_dict: False gives a tuple; None: as the config says.
            num_items_in_batch: What the sum of losses is divided by; None: the labels that count.
            kwargs: `shift_labels`, labels in the place of the tokens that predict them. It has no name of its own
                as `Trainer` would take it for a second column of labels, and skip the loss where that is missing.

        Raises:
            ValueError: If arguments contradict each other or their shapes do not fit.
            TypeError: If `cache` is another kind of cache, or an argument is unknown.
        """
        shift_labels = kwargs.pop("shift_labels", None)
        if kwargs:
            raise TypeError(f"FwPKMForCausalLM: {unknown_name('argument', next(iter(kwargs)), _ARGUMENTS)}")
        read = self._read(input_ids, inputs_embeds, attention_mask, cache, use_cache, output_hidden_states)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = read.hidden[:, keep] @ self.decoder.head_weight.T
        loss = None
        if shift_labels is None and labels is not None:
            # Not transformers' shift, by which padding on the left predicts the first token.
            shift_labels = next_token_targets(labels, read.mask)
        if shift_labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.decoder.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=shift_labels,
            )
        output = CausalLMOutputWithPast(loss=loss, logits=logits, cache=read.cache, hidden_states=read.inputs)
        return output if self._gives_dict(return_dict) else output.to_tuple()

    def _prepare_cache_for_generation(
        self,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        generation_mode: GenerationMode,
        batch_size: int,
        max_cache_length: int,
    ) -> Any:
        """Start `generate()` with a cache that holds memories; there is one kind."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                "FwPKMForCausalLM: cache_implementation must be left out, as memories need a FwPKMCache, got "
                f"{generation_config.cache_implementation!r}"
            )
        if model_kwargs.get("cache") is not None or not generation_config.use_cache:
            return super()._prepare_cache_for_generation(  # type: ignore[misc]  # it asks for a Protocol
                generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
            )
        cache = model_kwargs["cache"] = FwPKMCache()
        if generation_config.is_assistant:
            cache.activate_past_recording()
        return None


_ARGUMENTS = sorted(
    {*inspect.signature(FwPKMForCausalLM.forward).parameters, "shift_labels"} - {"self", "kwargs"}
)
