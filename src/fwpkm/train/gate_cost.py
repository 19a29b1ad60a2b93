"""A price on open gates: memories are to write what is worth it, for what they write costs what they knew."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fwpkm.layers.frame import MemoryFrame
from fwpkm.models.decoder import Decoder
from fwpkm.train.hooks import hooked


class OpenGates:
    """Adds up how far the gates of a decoder's memories are open, layers averaged, with the graph."""

    def __init__(self, num_layers: int) -> None:
        self.num_layers, self._gates = num_layers, list[Tensor]()

    def note(self, module: nn.Module, inputs: object, logits: Float[Tensor, "*B T L"]) -> None:
        """Take in what a gate's projection returned; a forward hook."""
        self._gates.append(logits.float().mean(-1).sigmoid())

    def add_up(self, mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Return the sum over all tokens that the mask leaves.

        Raises:
            RuntimeError: If a memory was passed by, so that its gate is not known.
        """
        if len(self._gates) != self.num_layers:
            raise RuntimeError(
                f"OpenGates: {self.num_layers} memories must have run once, got {len(self._gates)}"
            )
        return torch.stack([(gate * mask).sum() for gate in self._gates]).mean()


@contextmanager
def watch_gates(model: Decoder, layers: Collection[int] | None = None) -> Iterator[OpenGates]:
    """Watch the gates of a decoder's memories.

    Args:
        model: The decoder.
        layers: The layers whose memories are watched; None is all that have a gate.

    Raises:
        ValueError: If the decoder has no memory with a gate, or one of the layers has none.
    """
    memories = {i: block.memory for i, block in enumerate(model.blocks)}
    gates = {i: m.gate_proj for i, m in memories.items() if isinstance(m, MemoryFrame) and m.gated}
    if not gates:
        raise ValueError(
            "train: gate_cost needs a memory with a gate, got a model with none; unset gate_cost"
        )
    wanted = gates.keys() if layers is None else set(layers)
    if wanted - gates.keys():
        raise ValueError(
            f"train: gate_cost_layers must have memories with a gate, got {sorted(wanted)}; those "
            f"with one are {sorted(gates)}"
        )
    watched = OpenGates(len(wanted))
    with hooked((gates[i], watched.note) for i in sorted(wanted)):
        yield watched
