"""The shapes that are measured, by name."""

from dataclasses import dataclass

from fwpkm.bench.core_step import PAPER
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.nested import unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a training step is measured on."""

    config: FwPKMConfig
    """Of the memory; the other systems have its width."""
    streams: int
    """B."""
    tokens: int
    """T."""


SHAPES = {
    "paper": Shape(config=PAPER, streams=8, tokens=4096),
    "paper-one": Shape(config=PAPER, streams=1, tokens=2048),
    "tiny": Shape(
        config=FwPKMConfig(dim=32, num_subkeys=24, key_dim=16, value_dim=16, topk=4, chunk_size=16),
        streams=2,
        tokens=40,
    ),
}
"""paper: what a GPU is measured on. paper-one: where the layer of PyPI fits too. tiny: for tests of the runner."""


def find_shape(name: str) -> Shape:
    """Return the shape of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in SHAPES:
        raise ValueError(f"bench compare: {unknown_name('shape', name, SHAPES)}")
    return SHAPES[name]
