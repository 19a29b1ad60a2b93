"""A decoder's config in the form that transformers keeps in config.json."""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from fwpkm.models.config import DecoderConfig

_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "dim",
    "num_hidden_layers": "num_layers",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "initializer_range",
}
"""What transformers calls fields of the decoder's config."""


class FwPKMHFConfig(PreTrainedConfig):
    """A `DecoderConfig` as transformers wants it.

    `model` is the decoder's config as a plain mapping, the same as a recipe's `[model]`; in config.json it is one
    section, checked as a whole. Names that transformers looks for (`vocab_size`, `hidden_size`,
    `num_hidden_layers`, `tie_word_embeddings`, `initializer_range`) read and write through to it.

    >>> config = FwPKMHFConfig(DecoderConfig(...), eos_token_id=2)
    >>> config.decoder_config

    Raises:
        ValueError: If `model` is missing, or with everything that is wrong in it.
    """

    model_type = "fwpkm"
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache"]

    # transformers turns configs into dataclasses, and those compare what is annotated here.
    model: dict[str, Any]
    use_cache: bool
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None

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
        changes = {_NAMES[name]: kwargs.pop(name) for name in _NAMES if name in kwargs}
        mapping = model.to_dict() if isinstance(model, DecoderConfig) else dict(model)
        self.model = DecoderConfig.from_dict({**mapping, **changes}).to_dict()
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


for _theirs, _ours in _NAMES.items():
    setattr(FwPKMHFConfig, _theirs, _part_of_model(_ours))
