"""What defines a decoder: which token mixer, feed-forward part and memory each of its layers has."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from fwpkm.layers.attention import AttentionConfig
from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.layers.conv import ShortConvConfig
from fwpkm.layers.fwmlp import FastWeightMLPConfig
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.layers.gated_delta_net import GatedDeltaNetConfig
from fwpkm.layers.lact_config import LaCTConfig
from fwpkm.layers.pkm import PKMConfig
from fwpkm.layers.swiglu import SwiGLUConfig
from fwpkm.nested import from_mapping, to_mapping, unknown_name

MixerKind = Literal["full_attention", "sliding_attention", "gated_delta_net", "lact"]
MixerConfig = AttentionConfig | GatedDeltaNetConfig | LaCTConfig
FeedForwardConfig = SwiGLUConfig | PKMConfig
MemoryConfig = FwPKMConfig | FastWeightMLPConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """What defines a decoder. Layers are counted from 0.

    A section (`attention`, `pkm`, ...) describes all parts of its kind; `mixers` and the lists of layers say
    where they are. A section must be there exactly if some layer uses it.

    >>> config = DecoderConfig(
    ...     vocab_size=256, dim=64, num_layers=4, mixers=("gated_delta_net",),
    ...     gated_delta_net=GatedDeltaNetConfig(num_key_heads=2, num_value_heads=2),
    ...     swiglu=SwiGLUConfig(hidden_dim=128),
    ...     fwpkm=FwPKMConfig(dim=64, num_subkeys=32, key_dim=32, value_dim=32, chunk_size=32),
    ...     fwpkm_layers=(1, 3),
    ... )
    """

    vocab_size: int
    """Different tokens."""
    dim: int
    """D: width of the hidden states."""
    num_layers: int
    """Blocks."""

    mixers: tuple[MixerKind, ...] = ("full_attention",)
    """Token mixers of the first layers; the pattern repeats until every layer has one."""
    attention: AttentionConfig | None = None
    """Full and sliding attention. Its `window` is what sliding attention sees, and what `narrow_probability`
    narrows full attention to."""
    gated_delta_net: GatedDeltaNetConfig | None = None
    """Gated DeltaNet."""
    lact: LaCTConfig | None = None
    """LaCT: windowed attention and fast networks that learn a large chunk at a time, in one layer."""
    narrow_probability: float = 0.0
    """Chance of a training step in which all full attention sees only `attention.window` tokens, so that the
    model can't ignore its memory (pSWA, arXiv:2601.00671v2)."""

    swiglu: SwiGLUConfig | None = None
    """The feed-forward part of layers without product key memory."""
    pkm: PKMConfig | None = None
    """Product key memory in the place of a feed-forward part."""
    pkm_layers: tuple[int, ...] = ()
    """Where it is."""

    fwpkm: FwPKMConfig | None = None
    """Fast-weight product key memory. Layer i draws its tables from `table_seed` + i."""
    fwpkm_layers: tuple[int, ...] = ()
    """Where it is."""
    fwmlp: FastWeightMLPConfig | None = None
    """Fast-weight MLP. Layer i draws its fast weights from `weight_seed` + i."""
    fwmlp_layers: tuple[int, ...] = ()
    """Where it is."""
    memory_position: Literal["before", "after"] = "before"
    """Whether a layer asks its memory before or after it mixes tokens."""

    short_conv: ShortConvConfig | None = None
    """A short causal convolution at the start of every block, which gives the memory's queries their context."""
    norm_eps: float = 1e-6
    """Added to the mean square in the blocks' RMSNorms and the last one; other parts have their own."""
    tie_embeddings: bool = True
    """Whether logits are products with the embedding of the tokens."""
    initializer_range: float = 0.02
    """Standard deviation of fresh projections and embeddings."""

    def __post_init__(self) -> None:
        problems = below_one(self, "vocab_size", "dim", "num_layers")
        problems += not_positive(self, "norm_eps", "initializer_range")
        problems += self._mixer_problems() + self._layer_problems() + self._section_problems()
        if self.memory_position not in ("before", "after"):
            problems.append(f"memory_position must be before or after, got {self.memory_position!r}")
        refuse("DecoderConfig", problems)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> "DecoderConfig":
        """Read a config from a plain mapping, such as a TOML file's; sections may leave out the model's `dim`.

        Raises:
            ValueError: With everything that is wrong, and the nearest real name for each unknown one.
        """
        filled = dict(mapping)
        for name in _SECTIONS_WITH_DIM:
            section = filled.get(name)
            if isinstance(section, Mapping) and "dim" in filled:
                filled[name] = {"dim": filled["dim"], **section}
        return from_mapping(cls, filled)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain mapping from which `from_dict` makes an equal config."""
        return to_mapping(self)

    def mixer_kind(self, layer: int) -> MixerKind:
        """Return the name of a layer's token mixer."""
        return self.mixers[layer % len(self.mixers)]

    def mixer(self, layer: int) -> MixerConfig:
        """Return what defines a layer's token mixer."""
        kind = self.mixer_kind(layer)
        section = getattr(self, _MIXER_SECTIONS[kind])
        return replace(section, window=None) if kind == "full_attention" else section

    def feed_forward(self, layer: int) -> FeedForwardConfig:
        """Return what defines a layer's feed-forward part."""
        section = self.pkm if layer in self.pkm_layers else self.swiglu
        assert section is not None, "checked at the start"
        return section

    def memory(self, layer: int) -> MemoryConfig | None:
        """Return what defines a layer's memory, if it has one."""
        if self.fwpkm is not None and layer in self.fwpkm_layers:
            return replace(self.fwpkm, table_seed=self.fwpkm.table_seed + layer)
        if self.fwmlp is not None and layer in self.fwmlp_layers:
            return replace(self.fwmlp, weight_seed=self.fwmlp.weight_seed + layer)
        return None

    def _mixer_problems(self) -> list[str]:
        known = get_args(MixerKind)
        problems = [
            f"mixers: {unknown_name('kind', kind, known)}" for kind in self.mixers if kind not in known
        ]
        if not self.mixers or len(self.mixers) > max(self.num_layers, 1):
            problems.append(
                f"mixers must name between 1 and num_layers={self.num_layers} token mixers, got {len(self.mixers)}"
            )
        if not 0 <= self.narrow_probability <= 1:
            problems.append(f"narrow_probability must be in [0, 1], got {self.narrow_probability}")
        if self.narrow_probability and "full_attention" not in self.mixers:
            problems.append("narrow_probability needs a layer of full_attention to narrow; leave it at 0")
        windowed = "sliding_attention" in self.mixers or self.narrow_probability > 0
        if self.attention is not None and windowed != (self.attention.window is not None):
            problems.append(
                "attention.window must be set for sliding_attention or narrow_probability and for nothing "
                f"else, got window={self.attention.window} with mixers={list(self.mixers)} and "
                f"narrow_probability={self.narrow_probability}"
            )
        return problems

    def _layer_problems(self) -> list[str]:
        problems = []
        for name in ("pkm_layers", "fwpkm_layers", "fwmlp_layers"):
            layers = getattr(self, name)
            problems += [
                f"{name} must be layers from 0 to {self.num_layers - 1}, got {layer}"
                for layer in layers
                if not 0 <= layer < self.num_layers
            ]
            if len(set(layers)) < len(layers):
                problems.append(f"{name} must name a layer once, got {list(layers)}")
        if both := sorted(set(self.fwpkm_layers) & set(self.fwmlp_layers)):
            problems.append(f"a layer has one memory, but {both} are in fwpkm_layers and in fwmlp_layers")
        return problems

    def _section_problems(self) -> list[str]:
        used = {section: kind in self.mixers for kind, section in _MIXER_SECTIONS.items()}
        used["attention"] = bool({"full_attention", "sliding_attention"} & set(self.mixers))
        used["swiglu"] = len(set(self.pkm_layers)) < self.num_layers
        used |= {name: bool(getattr(self, f"{name}_layers")) for name in ("pkm", "fwpkm", "fwmlp")}
        problems = []
        for name, use in used.items():
            if use and getattr(self, name) is None:
                problems.append(f"{name} must be given, as some layer uses it")
            if not use and getattr(self, name) is not None:
                problems.append(f"{name} is used by no layer; leave it out")
        problems += [
            f"{name}.dim must be the model's dim={self.dim}, got {section.dim}"
            for name in _SECTIONS_WITH_DIM
            if (section := getattr(self, name)) is not None and section.dim != self.dim
        ]
        return problems


_MIXER_SECTIONS = {
    "full_attention": "attention",
    "sliding_attention": "attention",
    "gated_delta_net": "gated_delta_net",
    "lact": "lact",
}
_SECTIONS_WITH_DIM = ("pkm", "fwpkm", "fwmlp")
assert {*_MIXER_SECTIONS.values(), *_SECTIONS_WITH_DIM} <= {f.name for f in fields(DecoderConfig)}
