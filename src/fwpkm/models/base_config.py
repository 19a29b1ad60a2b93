"""What says which existing model is given memories, and what of it is trained. Needs no transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.nested import to_mapping

BaseDtype = Literal["float32", "bfloat16"]
BASE_FILE = "base.json"
"""In a folder of a base with memories: which base it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseConfig:
    """A transformers model with memories. The recipe's section [base], in place of [model]."""

    path: str
    """A folder that transformers reads, a name on the hub, or a .gguf file."""
    layers: tuple[int, ...]
    """Layers that have a memory before them, from 0."""
    memory: FwPKMConfig
    """[base.memory]; its `dim` is the base's width. Layer i draws its table with `table_seed + i`."""
    adapter: str | None = None
    """A file of `save_adapter`, of these layers and this memory, that training starts from; None draws memories."""
    window: int | None = None
    """Tokens that attention sees, the token itself counted; None leaves the base's attention as it is."""
    sinks: int = 1
    """First tokens that stay visible outside the window."""
    tuned_layers: tuple[int, ...] = ()
    """Layers of the base that are trained with the memories, from 0; none leaves the whole base as it is."""
    tuned_lr_factor: float = 0.1
    """Factor on the step size of these."""
    dtype: BaseDtype = "float32"
    """Precision of the base's weights; memories have float32. A base that is trained needs float32."""

    def __post_init__(self) -> None:
        problems = below_one(self, "window") + not_positive(self, "tuned_lr_factor")
        problems += _layer_problems("layers", self.layers) + _layer_problems(
            "tuned_layers", self.tuned_layers
        )
        if not self.layers:
            problems.append("layers must name at least one layer, got none")
        if self.sinks < 0:
            problems.append(f"sinks must be at least 0, got sinks={self.sinks}")
        if self.tuned_layers and self.dtype != "float32":
            problems.append(
                f"tuned_layers need dtype='float32', got dtype={self.dtype!r}: steps are lost to rounding; "
                "train.precision='bfloat16' makes products fast"
            )
        refuse("BaseConfig", problems)

    @property
    def dim(self) -> int:
        """The base's width."""
        return self.memory.dim

    @property
    def attention(self) -> None:
        """Say, where a decoder has its attention's config, that a base keeps its own."""
        return None

    @property
    def mixers(self) -> tuple[str, ...]:
        """Say, where a decoder lists its token mixers, that there are none of these."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Spell out every field as plain values."""
        return to_mapping(self)


def _layer_problems(name: str, layers: Sequence[int]) -> list[str]:
    wrong = sorted({layer for layer in layers if layer < 0 or layers.count(layer) > 1})
    return [f"{name} must be different numbers from 0, got {list(layers)}"] if wrong else []
