"""What a memory was made by: a memory read by another model's queries answers nonsense, so files say whose they are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor, nn

from fwpkm.memory.files import digest
from fwpkm.nested import to_mapping

IRRELEVANT = ("backend", "check_inputs", "sparse_grad", "narrow_probability", "initializer_range")
"""Config fields that change how, or from what start, a model is trained or run, but not what it answers."""
_LEFT_OUT = (("table_dtype", "float32"),)
"""Config fields that files may be older than, with what was the case before; with another value they count."""
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The config of a module, and the hashes of all its weights."""

    config: Mapping[str, Any]
    """Fields by their dotted name."""
    weights: Mapping[str, str]
    """SHA-256 by name, of parameters and buffers."""

    @classmethod
    def of(cls, module: nn.Module) -> "Fingerprint":
        """Take the fingerprint of a layer or model that has a dataclass `config`."""
        config: Any = module.config
        assert is_dataclass(config), "layers and models have a config dataclass"
        named: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return cls(
            config={"type": type(module).__name__, **dict(_dotted(to_mapping(config), ""))},
            weights={name: digest(x) for name, x in named.items()},
        )

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Fingerprint":
        """Take what `to_header` gave."""
        return cls(config=dict(header["config"]), weights=dict(header["weights"]))

    def to_header(self) -> dict[str, Any]:
        """Return a plain mapping."""
        return {"config": dict(self.config), "weights": dict(self.weights)}

    def differences(
        self, other: "Fingerprint", *, this: str = "the file", that: str = "the model"
    ) -> list[str]:
        """Say what differs, field by field; many differing weights are counted."""
        nothing = "unset"
        found = [
            f"{name} is {self.config.get(name, nothing)!r} in {this} and {other.config.get(name, nothing)!r} in {that}"
            for name in {**self.config, **other.config}
            if self.config.get(name) != other.config.get(name)
        ]
        weights = {**self.weights, **other.weights}
        changed = [name for name in weights if self.weights.get(name) != other.weights.get(name)]
        if changed:
            shown = ", ".join(changed[:_SHOWN]) + (" ..." if len(changed) > _SHOWN else "")
            found.append(f"{len(changed)} of {len(weights)} weights differ: {shown}")
        return found


def _dotted(mapping: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        elif name not in IRRELEVANT and (name, value) not in _LEFT_OUT:
            yield f"{prefix}{name}", value
